"""Every shape of row that training tools and well-known data sets have: used whole, told in attributes, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datalake.document import Conversation, Entry, Preference, Refused
from datalake.sources.dialogues import conversations, preferences
from datalake.sources.dialogues.config import Conversations, Preferences

Row = dict[str, Any]
U, A, S = "user", "assistant", "system"
DOCS = Path(__file__).parents[2] / "docs" / "sources.md"


def m(*turns: str, **more: Any) -> list[Row]:
    """Messages from "u: text" and the like; `more` is said of the last."""
    roles = {"u": U, "a": A, "s": S, "t": "tool"}
    out = [{"role": roles[turn[0]], "content": turn[3:]} for turn in turns]
    out[-1] |= more
    return out


def g(*turns: str, **more: Any) -> list[Row]:
    """The same in ShareGPT's words."""
    roles = {U: "human", A: "gpt", S: "system", "tool": "observation"}
    found = [{"from": roles[turn["role"]], "value": turn["content"]} for turn in m(*turns)]
    found[-1] |= more
    return found


def dialogue(messages: list[dict[str, str]]) -> str:
    return " | ".join(f"{turn['role'][0]}: {turn['content']}" for turn in messages)


def told(entry: Entry) -> str:
    """What an entry says, in a line: a dialogue, `prompt > chosen < rejected`, or `!reason`."""
    if isinstance(entry, Conversation):
        return dialogue(entry.messages)
    if isinstance(entry, Preference):
        return f"{dialogue(entry.prompt)} > {entry.chosen} < {entry.rejected}"
    assert isinstance(entry, Refused), entry
    return f"!{entry.reason}"


def dialogues_of(tmp_path: Path, row: Any) -> list[Entry]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    config = Conversations(paths=[str(path)])
    return [entry for shard in conversations.archives(config) for entry in conversations.read(shard, config)]


def pairs_of(tmp_path: Path, row: Any) -> list[Entry]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    config = Preferences(paths=[str(path)])
    return [entry for shard in preferences.archives(config) for entry in preferences.read(shard, config)]


CALL = {"name": "f", "arguments": {"x": 1}}
SPELT = '{"name": "f", "arguments": {"x": 1}}'
# The shape's name in the docs' table, a row, what it becomes, and attributes it must have.
DIALOGUES: list[tuple[str, Row, str, dict[str, str]]] = [
    ("LLaMA-Factory alpaca", {"instruction": "q", "input": "i", "output": "r", "system": "s", "history": [["a", "b"]]},
     "s: s | u: a | a: b | u: q\n\ni | a: r", {}),
    ("LLaMA-Factory alpaca", {"instruction": "q", "output": "r", "images": ["a.png"]}, "!media", {}),
    ("LLaMA-Factory alpaca", {"instruction": "q", "output": "r", "images": [], "videos": None}, "u: q | a: r", {}),
    ("LLaMA-Factory sharegpt", {"conversations": [*g("u: q"), {"from": "function_call", "value": json.dumps(CALL)},
                                                  *g("t: 2", "a: r")], "system": "s", "tools": json.dumps([CALL])},
     f"s: s | u: q | a: {SPELT} | t: 2 | a: r", {"tools": json.dumps([CALL])}),
    ("LLaMA-Factory sharegpt", {"conversations": g("u: <image>q", "a: r"), "images": ["a.png"]}, "!media", {}),
    ("LLaMA-Factory sharegpt", {"conversations": g("s: t", "u: q", "a: r"), "system": "s"}, "s: t | u: q | a: r",
     {"system": "s"}),
    ("LLaMA-Factory KTO", {"instruction": "q", "output": "r", "kto_tag": True}, "u: q | a: r", {"kto_tag": "true"}),
    ("axolotl alpaca, gpteacher", {"instruction": "q", "input": "", "output": "r", "text": "### q\n\n### r"},
     "u: q | a: r", {}),
    ("axolotl reflection", {"instruction": "q", "output": "r", "reflection": "hm", "corrected": "c"}, "u: q | a: r",
     {"reflection": "hm", "corrected": "c"}),
    ("axolotl oasst", {"INSTRUCTION": "q", "RESPONSE": "r"}, "u: q | a: r", {}),
    ("axolotl explainchoice", {"question": "q", "choices": ["x", "y"], "solution": "x", "explanation": "why"},
     "u: q\n\nA. x\nB. y | a: x", {"explanation": "why"}),
    ("axolotl jeopardy, load_qa", {"category": "c", "question": "q", "answer": "r"}, "u: q | a: r", {"category": "c"}),
    ("axolotl load_camel_ai", {"message_1": "q", "message_2": "r", "topic": "t"}, "u: q | a: r", {"topic": "t"}),
    ("axolotl context_qa", {"article": "text", "question": "q", "answer": "r"}, "u: q\n\ntext | a: r", {}),
    ("axolotl summarizetldr", {"article": "text", "summary": "short"}, "!format", {}),
    ("axolotl metharme", {"prompt": "q", "generation": "r"}, "u: q | a: r", {}),
    ("axolotl chat_template", {"messages": m("u: q", "a: r", train=True, train_detail=None)}, "u: q | a: r",
     {"turns.train": "[null, true]"}),
    ("axolotl chat_template", {"messages": m("u: q", "a: r", train_detail=[{"begin_offset": 0, "train": False}])},
     "!weight", {}),
    ("axolotl input_output", {"segments": [{"label": True, "text": "x"}]}, "!format", {}),
    ("TRL prompt and completion", {"prompt": "q", "completion": "r"}, "u: q | a: r", {}),
    ("TRL prompt and completion", {"prompt": m("s: s", "u: q"), "completion": m("a: r")}, "s: s | u: q | a: r", {}),
    ("OpenAI messages", {"messages": [*m("u: q"), {"role": A, "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"role": "tool", "tool_call_id": "1", "content": "2"}, *m("a: r")]}, f"u: q | a: {SPELT} | t: 2 | a: r",
     {"turns.tool_call_id": '[null, null, "1", null]'}),
    ("OpenAI messages", {"messages": m("u: q", "a: bad", weight=0) + m("u: p", "a: r", weight=1)},
     "u: q | a: bad | u: p | a: r", {"weights": "[0, 0, 0, 1]"}),
    ("OpenAI messages", {"messages": m("u: q", "a: bad", weight=0)}, "!weight", {}),
    ("OpenAI messages", {"messages": m("u: q", "a: r", weight=0.5)}, "!weight", {}),
    ("OpenAI messages", {"messages": [{"role": U, "content": [{"type": "text", "text": "q"}, {"type": "image_url"}]},
                                      *m("a: r")]}, "!media", {}),
    ("Anthropic messages", {"system": "s", "messages": [*m("u: q"), {"role": A, "content": [
        {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "r"}]}]}, "s: s | u: q | a: r",
     {"turns.thinking": '[null, null, "hm"]'}),
    ("Anthropic messages", {"messages": [*m("u: q"), {"role": A, "content": [{"type": "tool_use", "name": "f"}]}]},
     "!format", {}),
    ("Anthropic prompt and completion", {"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " r"},
     "u: q | a: r", {}),
    ("reasoning beside answers", {"messages": m("u: q", "a: r", reasoning_content="hm")}, "u: q | a: r",
     {"turns.reasoning_content": '[null, "hm"]'}),
    ("reasoning beside answers", {"Question": "q", "Complex_CoT": "hm " * 900, "Response": "r"}, "u: q | a: r",
     {"Complex_CoT": "hm " * 900}),
    ("FastChat", {"id": "1", "conversations": g("u: q", "a: r")}, "u: q | a: r", {}),
    ("ms-swift messages", {"messages": m("u: q", "a: bad", loss=False) + m("u: p", "a: r", loss=True)},
     "u: q | a: bad | u: p | a: r", {"weights": "[0, 0, 0, 1]"}),
    ("ms-swift query and response", {"system": "s", "query": "q", "response": "r", "history": [["a", "b"]]},
     "s: s | u: a | a: b | u: q | a: r", {}),
    ("ms-swift query and response", {"query": "<audio>q", "response": "r", "audios": ["a.wav"]}, "!media", {}),
    ("ms-swift sharegpt", {"system": "s", "conversation": [{"human": "a", "assistant": "b"},
                                                            {"human": "q", "assistant": "r"}]},
     "s: s | u: a | a: b | u: q | a: r", {}),
    ("XTuner", {"conversation": [{"system": "s", "input": "a", "output": "b"}, {"input": "q", "output": "r"}]},
     "s: s | u: a | a: b | u: q | a: r", {}),
    ("OpenRLHF", {"input": "q", "output": "r"}, "u: q | a: r", {}),
    ("AgentInstruct", {"conversations": g("u: q", "a: OK", loss=False) + g("u: p", "a: r", loss=True)},
     "u: q | a: OK | u: p | a: r", {"weights": "[0, 0, 0, 1]"}),
    ("Alpaca", {"instruction": "q", "input": "<noinput>", "output": "r"}, "u: q | a: r", {}),
    ("Dolly", {"instruction": "q", "context": "c", "response": "r", "category": "qa"}, "u: q\n\nc | a: r",
     {"category": "qa"}),
    ("OpenAssistant trees", {"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": [
        {"text": "r", "role": A, "replies": []}]}}, "u: q | a: r", {"tree": "t"}),
    ("OpenAssistant flat", {"message_id": "a", "parent_id": None, "text": "q", "role": "prompter"}, "!unanswered", {}),
    ("ShareGPT", {"id": "x", "conversations": g("u: q", "a: r"), "model": "m"}, "u: q | a: r", {"model": "m"}),
    ("ShareGPT", {"conversations": json.dumps(g("u: q", "a: r"))}, "u: q | a: r", {}),
    ("UltraChat", {"id": "1", "data": ["q", "r"]}, "u: q | a: r", {}),
    ("UltraChat", {"prompt": "q", "prompt_id": "p", "messages": m("u: q", "a: r")}, "u: q | a: r", {"prompt_id": "p"}),
    ("No Robots", {"prompt": "q", "messages": m("s: s", "u: q", "a: r"), "category": "c"}, "s: s | u: q | a: r",
     {"category": "c"}),
    ("LIMA", {"conversations": ["q", "r"], "source": "x"}, "u: q | a: r", {"source": "x"}),
    ("LIMA", {"conversations": ["q"], "source": "x"}, "!unanswered", {}),
    ("OpenOrca", {"id": "1", "system_prompt": "s", "question": "q", "response": "r"}, "s: s | u: q | a: r", {}),
    ("Tulu", {"id": "1", "dataset": "d", "messages": m("u: q", "a: r")}, "u: q | a: r", {"dataset": "d"}),
    ("WizardLM evol", {"idx": 1, "conversations": g("u: q", "a: r")}, "u: q | a: r", {"idx": "1"}),
    ("BELLE", {"instruction": "Human:a\nAssistant:b\nHuman:q\nAssistant:", "input": "", "output": "r"},
     "u: a | a: b | u: q | a: r", {}),
    ("COIG", {"instruction": "q", "input": "i", "output": "r", "task_type": {"major": ["x"]}}, "u: q\n\ni | a: r",
     {"task_type.major": "x"}),
    ("COIG", {"trans_instruction": "q", "trans_input": "i", "trans_output": "r"}, "u: q\n\ni | a: r", {}),
    ("Firefly", {"kind": "k", "input": "q", "target": "r"}, "u: q | a: r", {"kind": "k"}),
    ("Firefly", {"conversation_id": 1, "category": "c", "conversation": [{"human": "q", "assistant": "r"}]},
     "u: q | a: r", {"category": "c"}),
    ("MOSS", {"meta_instruction": "s", "chat": {"turn_1": {
        "Human": "<|Human|>: q<eoh>\n", "Inner Thoughts": "<|Inner Thoughts|>: hm<eot>\n",
        "Commands": "<|Commands|>: f(1)<eoc>\n", "Tool Responses": "<|Results|>: 2<eor>\n",
        "MOSS": "<|MOSS|>: r<eom>\n"}}}, "s: s | u: q | a: f(1) | t: 2 | a: r",
     {"turns.Inner Thoughts": '[null, null, null, null, "<|Inner Thoughts|>: hm<eot>\\n"]'}),
    ("Capybara", {"source": "x", "conversation": [{"input": "q", "output": "r"}]}, "u: q | a: r", {"source": "x"}),
    ("HelpSteer", {"prompt": "q", "response": "r", "helpfulness": 3}, "u: q | a: r", {"helpfulness": "3"}),
    ("Zhihu-KOL", {"INSTRUCTION": "q", "RESPONSE": "r", "SOURCE": "Zhihu", "METADATA": '{"upvotes": 3}'},
     "u: q | a: r", {"SOURCE": "Zhihu", "METADATA.upvotes": "3"}),
    ("Glaive", {"system": "SYSTEM: s", "chat": "USER: q\n\n\nASSISTANT: r <|endoftext|>"}, "s: s | u: q | a: r", {}),
    ("ToolBench", {"id": "1", "conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "q"},
                   {"from": A, "value": "Action: f"}, {"from": "function", "value": "2"}, {"from": A, "value": "r"}]},
     "s: s | u: q | a: Action: f | t: 2 | a: r", {}),
    ("functionary", {"functions": [CALL], "messages": [*m("u: q"), {"role": A, "content": None, "function_call": CALL},
                                                      {"role": "function", "name": "f", "content": "2"}, *m("a: r")]},
     f"u: q | a: {SPELT} | t: 2 | a: r", {"turns.name": '[null, null, "f", null]', "tools": json.dumps([CALL])}),
    ("xLAM", {"id": 1, "query": "q", "answers": json.dumps([CALL]), "tools": json.dumps([CALL])},
     f"u: q | a: {SPELT}", {"tools": json.dumps([CALL])}),
    ("questions about a text", {"context": "c", "question": "q", "answer": "r"}, "u: q\n\nc | a: r", {}),
    ("questions about a text", {"title": "t", "context": "c", "question": "q",
                                "answers": {"text": ["r", "r"], "answer_start": [1, 1]}}, "u: q\n\nc | a: r",
     {"title": "t"}),
    ("questions about a text", {"context": {"title": ["t"]}, "question": "q", "answer": "r"}, "!format", {}),
    ("questions about a text", {"context": "c", "messages": m("u: q", "a: r")}, "!column", {}),
    ("questions about a text", {"instruction": "act", "conversations": g("u: q", "a: r")}, "!column", {}),
    ("questions with choices", {"question": "q", "A": "x", "B": "y", "answer": "A"}, "u: q\n\nA. x\nB. y | a: A", {}),
    ("questions with choices", {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "1"},
     "u: q\n\n1. x\n2. y | a: 1", {}),
    ("questions with choices", {"question": "q", "choices": ["x", "y"], "answer": 1}, "!format", {}),
    ("several answers", {"instruction": "q", "output": ["r", "s"]}, "!several", {}),
    ("several answers", {"instruction": "q", "output": ["r"]}, "u: q | a: r", {}),
    ("P3 and FLAN", {"inputs": [1, 2], "inputs_pretokenized": "q", "targets": [3], "targets_pretokenized": "r"},
     "u: q | a: r", {}),
    ("self-instruct seeds", {"id": "t", "instruction": "q", "instances": [{"input": "i", "output": "r"}]},
     "u: q\n\ni | a: r", {}),
    ("nothing but a prompt", {"user": "a name", "response": "r"}, "!format", {}),
    ("nothing but a prompt", {"question_id": 1, "turns": ["q", "p"]}, "!format", {}),
]  # fmt: skip

PAIR = "u: q > yes < no"
PAIRS: list[tuple[str, Row, str, dict[str, str]]] = [
    ("LLaMA-Factory ranking", {"system": "s", "instruction": "q", "input": "i", "chosen": "yes", "rejected": "no",
                               "history": [["a", "b"]]}, "s: s | u: a | a: b | u: q\n\ni > yes < no", {}),
    ("LLaMA-Factory ranking", {"conversations": g("u: q"), "chosen": g("a: yes")[0], "rejected": g("a: no")[0]}, PAIR,
     {}),
    ("LLaMA-Factory ranking", {"conversations": g("u: q"), "chosen": g("a: yes")[0], "rejected": g("a: no")[0],
                               "images": ["a.png"]}, "!media", {}),
    ("LLaMA-Factory ranking", {"instruction": "q", "input": "", "output": ["yes", "no"]}, "!format", {}),
    ("LLaMA-Factory KTO", {"instruction": "q", "input": "i", "output": "r", "kto_tag": False, "history": [["a", "b"]]},
     "u: a | a: b | u: q\n\ni > None < r", {"label": "false"}),
    ("LLaMA-Factory KTO", {"messages": m("u: q", "a: r"), "label": True}, "u: q > r < None", {}),
    ("axolotl argilla", {"system": "s", "instruction": "q", "chosen_response": "yes", "rejected_response": "no"},
     f"s: s | {PAIR}", {}),
    ("axolotl intel", {"system": "s", "question": "q", "chosen": "yes", "rejected": "no"}, f"s: s | {PAIR}", {}),
    ("axolotl icr", {"system": "s", "input": "q", "chosen": "yes", "rejected": "no"}, f"s: s | {PAIR}", {}),
    ("axolotl ultra", {"system": "s", "prompt": "q", "chosen": m("u: q", "a: yes"), "rejected": m("u: q", "a: no")},
     f"s: s | {PAIR}", {}),
    ("axolotl chat_template.default", {"messages": m("u: q"), "chosen": m("a: yes")[0], "rejected": m("a: no")[0]},
     PAIR, {}),
    ("axolotl stepwise_supervised", {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]}, "!label", {}),
    ("TRL preference", {"prompt": "q", "chosen": "yes", "rejected": "no"}, PAIR, {}),
    ("TRL preference", {"prompt": m("u: a", "a: b", "u: q"), "chosen": m("a: yes"), "rejected": m("a: no")},
     f"u: a | a: b | {PAIR}", {}),
    ("TRL implicit prompt", {"chosen": m("u: a", "a: b", "u: q", "a: yes"),
                             "rejected": m("u: a", "a: b", "u: q", "a: no")}, f"u: a | a: b | {PAIR}", {}),
    ("TRL implicit prompt", {"chosen": m("u: a", "a: b", "u: q", "a: yes"),
                             "rejected": m("u: a", "a: c", "u: q", "a: no")}, "!prompt", {}),
    ("TRL unpaired", {"prompt": "q", "completion": "r", "label": True}, "u: q > r < None", {"label": "true"}),
    ("TRL unpaired", {"prompt": m("u: a", "a: b", "u: q"), "completion": m("a: r"), "label": False},
     "u: a | a: b | u: q > None < r", {}),
    ("ms-swift rejected_response", {"messages": m("u: q", "a: yes"), "rejected_response": "no"}, PAIR, {}),
    ("ms-swift rejected_response", {"query": "q", "response": "yes", "rejected_response": "no",
                                    "history": [["a", "b"]]}, f"u: a | a: b | {PAIR}", {}),
    ("ms-swift rejected_messages", {"messages": m("u: q", "a: yes"), "rejected_messages": m("u: q", "a: no")}, PAIR,
     {}),
    ("ms-swift rejected_messages", {"messages": m("u: q", "a: yes"), "rejected_messages": m("u: p", "a: no")},
     "!prompt", {}),
    ("OpenRLHF pairs", {"input": "q", "chosen": "yes", "rejected": "no"}, PAIR, {}),
    ("prompt beside dialogues", {"prompt": "a", "chosen": m("u: a", "a: b", "u: q", "a: yes"),
                                 "rejected": m("u: a", "a: b", "u: q", "a: no")}, f"u: a | a: b | {PAIR}", {}),
    ("prompt beside dialogues", {"prompt": "q", "chosen": m("u: a", "a: b", "u: q", "a: yes"),
                                 "rejected": m("u: a", "a: b", "u: q", "a: no")}, f"u: a | a: b | {PAIR}", {}),
    ("prompt beside dialogues", {"prompt": "z", "chosen": m("u: q", "a: yes"), "rejected": m("u: q", "a: no")},
     "!prompt", {}),
    ("prompt beside dialogues", {"prompt": "q", "chosen": "\n\nHuman: q\n\nAssistant: yes",
                                 "rejected": "\n\nHuman: q\n\nAssistant: no"}, PAIR, {}),
    ("UltraFeedback, binarised", {"prompt": "q", "prompt_id": "p", "chosen": m("u: q", "a: yes"),
                                  "rejected": m("u: q", "a: no"), "messages": m("u: q", "a: yes"), "score_chosen": 8.5},
     PAIR, {"score_chosen": "8.5", "prompt_id": "p"}),
    ("UltraFeedback", {"source": "x", "instruction": "q", "models": ["a", "b", "c"], "completions": [
        {"response": "no", "overall_score": 1, "model": "a"}, {"response": "so", "overall_score": 5},
        {"response": "yes", "overall_score": 7.5, "critique": "good"}]}, PAIR,
     {"chosen_score": "7.5", "rejected_score": "1.0", "rejected.model": "a", "chosen.critique": "good",
      "others": '[{"response": "so", "overall_score": 5}]', "models": "a, b, c"}),
    ("Nectar", {"prompt": "\n\nHuman: q\n\nAssistant: ", "turns": 1, "num_responses": 2, "answers": [
        {"answer": "no", "model": "a", "rank": 7.0}, {"answer": "yes", "model": "b", "rank": 1.0}]}, PAIR,
     {"chosen_score": "1.0", "rejected_score": "7.0", "chosen.model": "b"}),
    ("answers with scores beside", {"query": "q", "responses": ["no", "yes"], "scores": [0.1, 0.9]}, PAIR, {}),
    ("answers with scores beside", {"input": "q", "generations": ["yes", "no"], "rank": [1, 2]}, PAIR, {}),
    ("answers with scores beside", {"prompt": "q", "responses": ["yes", "no"]}, "!label", {}),
    ("prompt beside dialogues", {"prompt": "q", "chosen": "Human: q\n\nAssistant: yes",
                                 "rejected": "Human: q\n\nAssistant: no"}, PAIR, {}),
    ("prompt beside dialogues", {"messages": m("u: q", "a: yes"), "chosen": "yes", "rejected": "no"}, PAIR, {}),
    ("prompt beside dialogues", {"messages": m("u: q", "a: so"), "chosen": "yes", "rejected": "no"}, "!order", {}),
    ("TRL implicit prompt", {"chosen": json.dumps(m("u: q", "a: yes")), "rejected": json.dumps(m("u: q", "a: no"))},
     PAIR, {}),
    ("TRL preference", {"prompt": "q", "chosen": json.dumps(m("a: yes")), "rejected": json.dumps(m("a: no"))}, PAIR,
     {}),
    ("ms-swift rejected_response", {"messages": m("u: q", "a: yes"), "rejected_response": "no",
                                    "rejected_images": ["a.png"]}, "!media", {}),
    ("HH-RLHF", {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"}, PAIR, {}),
    ("SHP", {"history": "q", "human_ref_A": "yes", "human_ref_B": "no", "labels": 1, "domain": "d"}, PAIR,
     {"domain": "d"}),
    ("PKU-SafeRLHF", {"prompt": "q", "response_0": "no", "response_1": "yes", "better_response_id": 1}, PAIR, {}),
    ("HelpSteer pairs", {"prompt": "q", "response_1": "yes", "response_2": "no", "preference_strength": -2,
                         "preference_statement": "w"}, PAIR,
     {"preference_statement": "w", "preference_strength": "-2"}),
    ("HelpSteer pairs", {"context": m("u: a", "a: b", "u: q"), "response1": "no", "response2": "yes",
                         "overall_preference": 2}, f"u: a | a: b | {PAIR}", {}),
    ("HelpSteer pairs", {"prompt": "q", "response_1": "x", "response_2": "y", "preference_strength": 0}, "!label", {}),
    ("CValues", {"prompt": "q", "pos_resp": "yes", "neg_resp": "no", "pos_type": "p"}, PAIR, {"pos_type": "p"}),
    ("WebGPT comparisons", {"question": {"dataset": "d", "full_text": "q", "id": "1"}, "answer_0": "no",
                            "score_0": -1.0, "answer_1": "yes", "score_1": 1.0,
                            "quotes_0": {"title": ["t"], "extract": ["e"]}}, PAIR,
     {"quotes_0.extract": "e", "question.dataset": "d"}),
    ("summarize_from_feedback", {"info": {"id": "i", "post": "long", "title": "t", "subreddit": "s"}, "choice": 1,
                                 "summaries": [{"text": "no", "policy": "p"}, {"text": "yes", "policy": "r"}]},
     "u: t\n\nlong > yes < no", {"info.subreddit": "s", "chosen.policy": "r"}),
    ("arenas", {"conversation_a": m("u: q", "a: no"), "conversation_b": m("u: q", "a: yes"), "winner": "model_b"},
     PAIR, {"winner": "model_b"}),
    ("arenas", {"conversation_a": m("u: q", "a: x"), "conversation_b": m("u: q", "a: y"), "winner": "tie"},
     "!label", {}),
    ("questions about a text", {"context": "c", "question": "q", "chosen": "yes", "rejected": "no"},
     "u: q\n\nc > yes < no", {}),
    ("questions about a text", {"context": "c", "chosen": m("u: q", "a: yes"), "rejected": m("u: q", "a: no")},
     "!column", {}),
    ("reasoning beside answers", {"prompt": m("u: q"), "chosen": m("a: yes", reasoning_content="hm"),
                                  "rejected": m("a: no")}, PAIR, {"chosen.reasoning_content": '["hm"]'}),
]  # fmt: skip


# Rows of public bug reports, and what each of a file has to become.
REPORTED: dict[str, list[tuple[Row, str]]] = {
    "inputs that are none": [
        ({"instruction": "q", "input": said, "output": "r"}, "u: q | a: r")
        for said in (None, "", "<noinput>", "No input", "N/A", float("nan"))
    ],
    "order of turns": [
        ({"conversations": g("a: hello", "u: q", "a: r")}, "!order"),
        ({"conversations": g("u: where", "u: is it?", "a: r")}, "!order"),
        ({"conversations": g("u: a", "a: b", "s: brief", "u: q", "a: r")}, "!order"),
        ({"conversations": [*g("u: q"), {"from": "function-call", "value": json.dumps(CALL)},
                            {"from": "function-response", "value": "2"}, *g("a: r")]},
         f"u: q | a: {SPELT} | t: 2 | a: r"),
        ({"conversations": g("u: q", "a: ")}, "!empty"),
        ({"conversations": [*g("u: a"), {"from": "bing", "value": "b"}, {"from": "user", "value": "q"},
                            {"from": "bard", "value": "r"}]}, "u: a | a: b | u: q | a: r"),
        ({"conversations": [*g("u: q"), {"from": "chatgpt", "value": "r"}, *g("u: and?")]}, "!unanswered"),
        ({"conversations": []}, "!empty"), ({"conversations": None}, "!format"), ({"id": "s"}, "!format"),
    ],
    "context apart": [
        ({"context": "c", "question": "q", "answer": "r"}, "u: q\n\nc | a: r"),
        ({"prompt": "q", "input": "i", "output": "r"}, "u: q\n\ni | a: r"),
        ({"question": "q", "input": "i", "response": "r"}, "u: q\n\ni | a: r"),
    ],
    "history": [
        ({"instruction": "q", "input": "", "output": "r", "history": [["a", "b"]]}, "u: a | a: b | u: q | a: r"),
        ({"instruction": "q", "output": "r", "history": None}, "u: q | a: r"),
        ({"instruction": "q", "output": "r", "history": []}, "u: q | a: r"),
    ],
    "parallel calls": [
        ({"messages": [{"role": "developer", "content": "s"}, *m("u: q"), {"role": A, "content": None, "tool_calls": [
            {"id": n, "function": {"name": "f", "arguments": '{"x": 1}'}} for n in "12"]}, *m("t: 2", "t: 3", "a: r")]},
         f"s: s | u: q | a: {SPELT}\n{SPELT} | t: 2 | t: 3 | a: r"),
        ({"messages": [{"role": U, "content": [{"type": "text", "text": "q"}, {"type": "input_audio"}]}, *m("a: r")]},
         "!media"),
    ],
}  # fmt: skip
REPORTED_PAIRS: dict[str, list[tuple[Row, str]]] = {
    "labels": [
        ({"prompt": "q", "completion": "r", "label": label}, expected)
        for label, expected in ((True, "u: q > r < None"), (False, "u: q > None < r"), ("True", "!label"),
                                (1, "!label"), (0, "!label"), ("false", "!label"), (None, "!label"))
    ],
    "dialogues that part": [
        ({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: r",
          "rejected": "\n\nHuman: a\n\nAssistant: c\n\nHuman: p\n\nAssistant: s"}, "!prompt"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: r", "rejected": "\n\nHuman: q\n\nAssistant: r"}, "!equal"),
        ({"chosen": "\n\nHuman: q\n\nAssistant:", "rejected": "\n\nHuman: q\n\nAssistant: r"}, "!empty"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"), [case for cases in REPORTED.values() for case in cases], ids=lambda value: str(value)[:60]
)
def test_what_broke_elsewhere_as_dialogues(tmp_path: Path, row: Row, expected: str) -> None:
    (entry,) = dialogues_of(tmp_path, row)
    assert told(entry) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [case for cases in REPORTED_PAIRS.values() for case in cases],
    ids=lambda value: str(value)[:60],
)
def test_what_broke_elsewhere_as_pairs(tmp_path: Path, row: Row, expected: str) -> None:
    (entry,) = pairs_of(tmp_path, row)
    assert told(entry) == expected


@pytest.mark.parametrize(("shape", "row", "expected", "attributes"), DIALOGUES)
def test_a_dialogue_is_whole_or_refused(
    tmp_path: Path, shape: str, row: Row, expected: str, attributes: dict[str, str]
) -> None:
    (entry,) = dialogues_of(tmp_path, row)
    assert told(entry) == expected
    assert attributes.items() <= getattr(entry, "attributes", {}).items()


@pytest.mark.parametrize(("shape", "row", "expected", "attributes"), PAIRS)
def test_a_pair_is_whole_or_refused(
    tmp_path: Path, shape: str, row: Row, expected: str, attributes: dict[str, str]
) -> None:
    (entry,) = pairs_of(tmp_path, row)
    assert told(entry) == expected
    assert attributes.items() <= getattr(entry, "attributes", {}).items()


@pytest.mark.parametrize("column", ["summary", "metadata", "format", "group", "turns", "tools_used", "labels"])
@pytest.mark.parametrize("value", ["w " * 5000, {"deep": {"deeper": ["w", 1]}}, [["w"], [2]], 7])
def test_no_other_column_is_dropped(tmp_path: Path, column: str, value: Any) -> None:
    for (entry,) in (
        dialogues_of(tmp_path, {"messages": m("u: q", "a: r"), column: value}),
        pairs_of(tmp_path, {"prompt": "q", "chosen": "yes", "rejected": "no", column: value}),
    ):
        assert isinstance(entry, Conversation | Preference)
        kept = "".join(text for name, text in entry.attributes.items() if column in name.split("."))
        assert kept == value or all(f"{one}" in kept for one in ("w", 1, 2, 7) if f"{one}" in json.dumps(value))


COLUMNS = st.sampled_from(
    ["instruction", "input", "output", "system", "history", "prompt", "response", "answer", "answers", "question",
     "context", "passage", "choices", "messages", "conversations", "data", "tools", "functions", "chat", "text",
     "reasoning", "images", "label", "chosen", "rejected", "rejected_response", "completions", "completion", "scores",
     "response_0", "response_1", "better_response_id", "score", "history", "human_ref_A", "human_ref_B", "labels",
     "conversation_a", "conversation_b", "winner", "summaries", "info", "choice", "turns", "Format", "group", "x.y",
     "inputs", "targets", "inputs_pretokenized", "response_1", "response_2", "preference_strength", "A", "B", "Prompt"]
)  # fmt: skip
WORD = st.just("WORD")  # each becomes a word of its own
TURN = st.builds(
    lambda role, key, more: {"role": role, key: "WORD"} | more,
    st.sampled_from(["user", "assistant", "system"]),
    st.sampled_from(["content", "value"]),
    st.dictionaries(st.sampled_from(["name", "reasoning_content", "text", "weight", "note"]), WORD | st.just(1)),
)
SPEECH = st.builds(
    lambda begun, further: begun + further,
    st.just([{"role": U, "content": "WORD"}, {"role": A, "content": "WORD"}]),
    st.lists(TURN, max_size=2) | st.just([{"role": U, "content": "WORD"}, {"role": A, "content": "WORD"}]),
)
EXCHANGES = st.lists(st.fixed_dictionaries({"human": WORD, "assistant": WORD}, optional={"system": WORD, "n": WORD}))
RATED = st.lists(st.fixed_dictionaries({"response": WORD, "score": st.integers(0, 3)}, optional={"why": WORD}))
CELL = st.one_of(
    WORD, WORD, WORD, SPEECH, TURN, EXCHANGES, RATED, st.lists(WORD, max_size=3), st.booleans(), st.integers(0, 1),
    st.none(), st.dictionaries(st.sampled_from(["full_text", "post", "text", "n"]), WORD | st.lists(WORD, max_size=2)),
    st.lists(st.lists(WORD, min_size=2, max_size=2), max_size=2),
)  # fmt: skip


WHOLE = [row for _, row, expected, _ in (*DIALOGUES, *PAIRS) if expected[0] != "!"]


@given(st.sampled_from([{}, *WHOLE]), st.dictionaries(COLUMNS, CELL, min_size=1, max_size=3))
@example(
    whole={"instruction": "q", "output": "r"},
    others={"data": [{"role": "user", "content": "WORD"}, {"role": "assistant", "content": "WORD"}]},
)
@example(
    whole={"instruction": "q", "output": "r"},
    others={"instruction": "WORD", "inputs_pretokenized": "WORD", "inputs": "WORD"},
)
@settings(max_examples=150, deadline=None)
def test_every_word_of_a_row_is_in_what_it_becomes(
    tmp_path_factory: pytest.TempPathFactory, whole: Row, others: Row
) -> None:
    parts = json.dumps(whole | others).split('"WORD"')
    words = [f"w{number}w" for number in range(len(parts) - 1)]
    row = json.loads("".join(f'{part}"{word}"' for part, word in zip(parts, [*words, ""], strict=True))[:-2])
    folder = tmp_path_factory.mktemp("row")
    for entry in (*dialogues_of(folder, row), *pairs_of(folder, row)):
        if isinstance(entry, Refused):
            continue
        assert isinstance(entry, Conversation | Preference)
        said = told(entry) + " ".join(entry.attributes.values())
        assert not [word for word in words if word not in said], (row, entry)


def test_more_than_attributes_hold_makes_the_row_refused(tmp_path: Path) -> None:
    for (entry,) in (
        dialogues_of(tmp_path, {"prompt": "q", "response": "r", "other": "w" * 1_100_000}),
        pairs_of(tmp_path, {"prompt": "q", "chosen": "r", "rejected": "s", "other": "w" * 1_100_000}),
    ):
        assert told(entry) == "!column"


def test_the_docs_name_every_shape() -> None:
    lines = [line.split("|")[1].strip() for line in DOCS.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    shapes = {name for name, *_ in (*DIALOGUES, *PAIRS)}
    assert shapes <= set(lines), shapes - set(lines)
