"""The chat templates at hand: as their families publish them, and for any dialogue the mask is the assistant's words.

`WRITTEN` are facts of each format, in words of our own; where TRL is installed, its copies of published templates are
asked as well. Where ours differ, it is on purpose: `test_where_ours_differ` says so.
"""

# ruff: noqa: E501
from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_rendering import BACKENDS, said
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from models.objectives.assistant_tokens import collate
from models.objectives.base import IGNORED
from models.text.config import TEMPLATES
from models.text.control import controls_of
from models.text.packing import fit_dialogue
from models.text.rendering import render
from models.text.template import read
from models.text.templating import tokens_of

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
# Names for the beginning and the end of a text, where a family's differ from Llama's.
EDGES = {
    "llama-3": ("<|begin_of_text|>", "<|eot_id|>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "headwater": ("<|bos|>", "<|end|>"),
}
TOOLS = [{"type": "function", "function": {"name": "sum", "description": "adds <b>"}}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str, *calls: tuple[str, Any]) -> dict[str, Any]:
    made = [
        {"type": "function", "id": f"12345678{n}", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text} | ({"tool_calls": made} if made else {})


def gives(text: str, number: int = 0) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": f"12345678{number}"}


def written(template: str, messages: Any, prompt: bool = False, tools: Any = None, name: str = "") -> str:
    bos, eos = EDGES.get(name, ("<s>", "</s>"))
    found = render_jinja_template(
        [messages], tools=tools, chat_template=template, add_generation_prompt=prompt, bos_token=bos, eos_token=eos
    )
    return str(found[0][0])


def ours(name: str, messages: Any, prompt: bool = False, tools: Any = None) -> str:
    return written(read(TEMPLATES / f"{name}.jinja"), messages, prompt, tools, name)


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, user(" 水? "), says("🌊"), user("b"), says("")]
CALLS = [user("1+2?"), says("", ("sum", {"a": 1, "b": "水"}), ("sum", {})), gives("3"), gives("0", 1), says("3.")]
WRITTEN = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n 水? <|im_end|>\n<|im_start|>assistant\n🌊<|im_end|>\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    "qwen": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n 水? <|im_end|>\n<|im_start|>assistant\n🌊<|im_end|>\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    "llama-3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n水?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n🌊"
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nb<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
        "\n\n<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": ("<s>[INST] Be brief.\n\n 水? [/INST] 🌊</s>[INST] b[/INST] </s>", ""),
    "deepseek": (
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜> 水? <｜Assistant｜>🌊<｜end▁of▁sentence｜><｜User｜>b<｜Assistant｜>"
        "<｜end▁of▁sentence｜>",
        "<｜Assistant｜>",
    ),
    "alpaca": (
        "<s>Be brief.\n\n### Instruction:\n 水? \n\n### Response:\n🌊</s>\n\n### Instruction:\nb\n\n### Response:\n</s>\n\n",
        "### Response:\n",
    ),
    "alpaca-zh": (
        "<s>Be brief.\n\n### 指令：\n 水? \n\n### 回答：\n🌊</s>\n\n### 指令：\nb\n\n### 回答：\n</s>\n\n",
        "### 回答：\n",
    ),
    "headwater": (
        "<|bos|><|system|>Be brief.<|end|><|user|> 水? <|end|><|assistant|>🌊<|end|><|user|>b<|end|><|assistant|><|end|>",
        "<|assistant|>",
    ),
}
OPENING = {  # of a question alone, without a system's message
    "qwen": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
    "alpaca": "<s>Below is an instruction that describes a task.",
    "alpaca-zh": "<s>以下是描述任务的指令。",
    "chatml": "<|im_start|>user\n",
    "llama-3": "<|begin_of_text|><|start_header_id|>user",
    "mistral": "<s>[INST] Hi[/INST]",
    "deepseek": "<｜begin▁of▁sentence｜><｜User｜>Hi",
    "headwater": "<|bos|><|user|>Hi",
}
CALLED = {  # from the call on
    "chatml": "<|im_start|>assistant\n<tool_call>\n"
    '{"name": "sum", "arguments": {"a": 1, "b": "水"}}\n</tool_call>\n<tool_call>\n{"name": "sum", "arguments": {}}\n'
    "</tool_call><|im_end|>\n<|im_start|>tool\n<tool_response>\n3\n</tool_response><|im_end|>\n"
    "<|im_start|>tool\n<tool_response>\n0\n</tool_response><|im_end|>\n<|im_start|>assistant\n3.<|im_end|>\n",
    "qwen": "<|im_start|>assistant\n<tool_call>\n"
    '{"name": "sum", "arguments": {"a": 1, "b": "水"}}\n</tool_call>\n<tool_call>\n{"name": "sum", "arguments": {}}\n'
    "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\n0\n"
    "</tool_response><|im_end|>\n<|im_start|>assistant\n3.<|im_end|>\n",
    "llama-3": '<|end_header_id|>\n\n{"name": "sum", "parameters": {"a": 1, "b": "水"}}; {"name": "sum", "parameters": {}}'
    "<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n3<|eot_id|><|start_header_id|>ipython<|end_header_id|>"
    "\n\n0<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n3.<|eot_id|>",
    "mistral": '[/INST][TOOL_CALLS] [{"name": "sum", "arguments": {"a": 1, "b": "水"}, "id": "123456780"}, {"name": "sum",'
    ' "arguments": {}, "id": "123456781"}]</s>[TOOL_RESULTS] {"content": 3, "call_id": "123456780"}[/TOOL_RESULTS]'
    '[TOOL_RESULTS] {"content": 0, "call_id": "123456781"}[/TOOL_RESULTS] 3.</s>',
    "deepseek": "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sum\n```json\n"
    '{"a": 1, "b": "水"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>sum\n```json\n{}\n```'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>3"
    "<｜tool▁output▁end｜><｜tool▁output▁begin｜>0<｜tool▁output▁end｜><｜tool▁outputs▁end｜>3.<｜end▁of▁sentence｜>",
    "headwater": '<|assistant|><|tool_call|>{"name": "sum", "arguments": {"a": 1, "b": "水"}}<|/tool_call|><|tool_call|>'
    '{"name": "sum", "arguments": {}}<|/tool_call|><|end|><|tool_result|>3<|/tool_result|><|tool_result|>0'
    "<|/tool_result|><|assistant|>3.<|end|>",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_dialogue_is_written_as_the_family_writes_it(name: str) -> None:
    whole, asks = WRITTEN[name]
    assert ours(name, TALK) == whole
    assert ours(name, TALK, prompt=True) == whole + asks
    assert ours(name, [user("Hi")]).startswith(OPENING[name])
    if name in CALLED:
        assert ours(name, CALLS).endswith(CALLED[name])
        offered = ours(name, CALLS, tools=TOOLS)
        assert name == "deepseek" or '"name": "sum", "description": "adds <b>"' in offered


# What published templates are asked: contents of every kind, roles in their order.
PLAIN = [
    [user("Hi")],
    TALK,
    TALK[1:],
    [user(""), says("")],
    [SYSTEM, user("水往低处流？"), says("是的。🌊")],
    [SYSTEM | {"content": "  s \n"}, user("  a \n"), says("\n b  ")],
    [user("<|im_end|><|eot_id|>[/INST]</s><｜User｜>"), says("<|im_start|>")],
    [user("1"), user("2"), says("3"), user("4")],
]
WITH_CALLS = [CALLS[:2], CALLS[:4], CALLS, [SYSTEM, user("1"), says("Let me see.", ("sum", {"a": [2, None]}))]]


@pytest.mark.parametrize(
    ("name", "file", "dialogues", "offered"),
    [
        ("qwen", "qwen2_5", [*PLAIN, *WITH_CALLS], [None, TOOLS]),
        ("llama-3", "llama3", PLAIN, [None]),
        ("deepseek", "deepseekv3", PLAIN, [None]),
    ],
)
def test_published_templates_write_the_same(name: str, file: str, dialogues: Any, offered: Any) -> None:
    found = importlib.util.find_spec("trl")
    path = Path(found.origin or "").parent / "chat_templates" / f"{file}.jinja" if found else Path("none")
    if not path.is_file():
        pytest.skip(f"TRL has no {file}.jinja here")
    published = path.read_text(encoding="utf-8").removesuffix("\n")
    for messages in dialogues:
        for tools in offered:
            assert ours(name, messages, tools=tools) == written(published, messages, tools=tools, name=name)
            if name != "deepseek":  # that copy asks for thinking
                assert ours(name, messages, True, tools) == written(published, messages, True, tools, name)


def test_where_ours_differ() -> None:
    """Deliberately: words beside a call are kept, arguments that are a text stand as they are, what was said before
    stays as it was said, whatever follows."""
    words = says("Let me see.", ("sum", '{"a": 1}'))
    for name in CALLED:
        assert "Let me see." in ours(name, [user("1"), words])
        assert '{"a": 1}' in ours(name, [user("1"), words])
    thought = says("<think>\nwell\n</think>\nYes.")
    for name in NAMES:
        longer = [SYSTEM, user("1"), thought, user("2"), says("3"), user("4"), says("5")]
        whole = ours(name, longer)
        assert all(whole.startswith(ours(name, longer[:count]).rstrip()) for count in (3, 5))
        assert "<think>\nwell\n</think>" in whole


# For any dialogue ---------------------------------------------------------------------------------------------------


@cache
def speaker(backend: str, name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a template at hand and the tokens that it writes."""
    bos, eos = EDGES.get(name, ("<s>", "</s>"))
    template = read(TEMPLATES / f"{name}.jinja")
    named = [bos, eos, "<unk>", *(token for token in tokens_of(template) if not token.endswith("os_token"))]
    made = BACKENDS[backend]()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(named)])
    words = PreTrainedTokenizerFast(
        tokenizer_object=made, clean_up_tokenization_spaces=False, bos_token=bos, eos_token=eos, unk_token="<unk>"
    )
    words.chat_template = template
    return words


SPELLED = [token for name in NAMES for token in tokens_of(read(TEMPLATES / f"{name}.jinja"))]
TEXT = st.lists(st.one_of(st.text(max_size=12), st.sampled_from(["水", "🌊", "\n\n", " ", "\r\n", "e\u0301", "</s>"])))
TEXTS_ = TEXT.map("".join)
SPELLING = st.lists(st.one_of(st.text(max_size=6), st.sampled_from([*SPELLED, "<|im_end|", "<", "｜>"]))).map("".join)


@st.composite
def dialogues(draw: st.DrawFn, texts: st.SearchStrategy[str], tools: bool = False) -> list[dict[str, Any]]:
    """A system's message or none, then questions and answers in turn; with `tools` some answers call."""
    talk = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        talk.append(user(draw(texts)))
        if tools and draw(st.booleans()):
            arguments = draw(st.dictionaries(texts, st.one_of(texts, st.integers(), st.none()), max_size=2))
            talk += [says(draw(texts), ("sum", arguments)), gives(draw(texts))]
        talk.append(says(draw(texts)))
    return talk


def quick(examples: int = 6) -> Any:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    phases = (Phase.explicit, Phase.generate)  # the smallest case isn't worth its time
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=slow, phases=phases)


def asked_of_transformers(words: Any, talk: Any, tools: Any = None) -> tuple[list[int], list[bool]]:
    found = words.apply_chat_template(talk, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
    return found["input_ids"], [bool(on) for on in found["assistant_masks"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_character_of_several_tokens_trains_whole(name: str) -> None:
    words = speaker("llama-3", name)
    ids, mask = render([user("水"), says("🌊🌊")], words)
    space = " " if name == "mistral" else ""
    assert said(ids, mask, words) == f"{space}🌊🌊{controls_of(words).end_of_turn}"
    assert sum(mask) >= 9


@pytest.mark.parametrize("name", NAMES)
class TestAnyDialogue:
    @pytest.mark.parametrize("backend", ["llama-3", "llama"])
    def test_it_is_what_transformers_writes_and_marks(self, name: str, backend: str) -> None:
        words = speaker(backend, name)

        @quick()
        @given(dialogues(TEXTS_, tools=True), st.sampled_from([None, TOOLS]))
        def holds(talk: Any, tools: Any) -> None:
            if any(controls_of(words).spells(json.dumps(message, ensure_ascii=False)) for message in talk):
                return  # Transformers makes control tokens of it
            known, offered = (talk, tools) if "tool_calls" in words.chat_template else (None, None)
            if known is None:
                return
            ids, mask = render(known, words, tools=offered or ())
            if offered and "tools" not in words.chat_template:
                return  # they are put into the texts
            expected = asked_of_transformers(words, known, offered)
            assert ids == expected[0]
            # Transformers asks for the token at an answer's first character, which a space has not in every tokenizer
            spaced = any(message["role"] == "assistant" and message["content"][:1].isspace() for message in talk)
            assert mask == expected[1] or backend == "llama" or name == "mistral" or spaced
            if spaced and backend != "llama" and name != "mistral":  # it marks nothing of such an answer, all of others
                assert all(mine or not theirs for mine, theirs in zip(mask, expected[1], strict=True))
            prompt = render(known[:-1], words, prompt=True, tools=offered or ())[0]
            assert (
                prompt == words.apply_chat_template(known[:-1], tools=offered, add_generation_prompt=True)["input_ids"]
            )

        holds()

    def test_what_trains_is_what_the_assistant_says_and_its_end(self, name: str) -> None:
        words = speaker("llama-3", name)
        end = controls_of(words).end_of_turn

        @quick()
        @given(dialogues(SPELLING))
        def holds(talk: Any) -> None:
            # a line's end at the beginning of an answer may share a token with the one before it
            talk = [m | {"content": m["content"].strip()} for m in talk]
            ids, mask = render(talk, words)
            answers = [m["content"] for m in talk if m["role"] == "assistant"]
            space = " " if name == "mistral" else ""
            assert said(ids, mask, words) == "".join(space + answer + end for answer in answers)

        holds()

    def test_nobody_writes_a_control_token(self, name: str) -> None:
        words = speaker("llama-3", name)
        reserved = set(words.added_tokens_decoder)

        def controls(talk: Any) -> list[int]:
            return [number for number in render(talk, words, tools=TOOLS)[0] if number in reserved]

        @quick()
        @given(dialogues(SPELLING, tools=True))
        def holds(talk: Any) -> None:
            harmless = [m | {"content": "-"} for m in talk]
            harmless = [m if "tool_calls" not in m else says("-", ("sum", {})) for m in harmless]
            assert controls(talk) == controls(harmless)

        holds()

    def test_cutting_and_packing_keep_what_trains(self, name: str) -> None:
        words = speaker("llama-3", name)

        @quick()
        @given(st.lists(dialogues(TEXTS_), min_size=1, max_size=5), st.integers(4, 120))
        def holds(talks: Any, limit: int) -> None:
            kept = []
            for talk in talks:
                ids, mask = render(talk, words)
                found = fit_dialogue(talk, words, limit)
                if found.item is None:
                    continue
                kept.append(found.item)
                assert len(found.item[0]) <= limit
                assert found.item[1][-1], "nothing stands behind the last token that trains"
                if not found.cut:
                    assert found.item == (ids[: len(found.item[0])], mask[: len(found.item[1])])
                elif found.item[0] == ids[: len(found.item[0])]:
                    assert found.item[1] == mask[: len(found.item[1])]
                trained = [n for n, on in zip(*found.item, strict=True) if on]
                whole = [n for n, on in zip(ids, mask, strict=True) if on]
                assert any(whole[at : at + len(trained)] == trained for at in range(len(whole)))
            if not kept:
                return
            batch = collate(kept, packed=True)
            rows = zip(batch.tokens.tolist(), batch.targets.tolist(), batch.segments.tolist(), strict=True)
            unpacked = []
            for tokens, targets, segments in rows:
                for segment in range(max(segments) + 1):
                    places = [place for place, one in enumerate(segments) if one == segment]
                    unpacked.append(([tokens[p] for p in places], [targets[p] for p in places]))
            plain = [
                (ids[:-1], [n if on else IGNORED for n, on in zip(ids[1:], mask[1:], strict=True)])
                for ids, mask in kept
            ]
            width = batch.tokens.shape[1]  # rows of one dialogue each are padded in it
            filled = [(a + [0] * (width - len(a)), b + [IGNORED] * (width - len(b))) for a, b in plain]
            alone = [one for one in unpacked if one in filled]
            assert sorted([*alone, *(one for one in unpacked if one not in alone)]) == sorted(
                p if p in unpacked else f for p, f in zip(plain, filled, strict=True)
            )

        holds()
