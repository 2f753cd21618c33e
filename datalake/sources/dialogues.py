"""The formats that dialogues are published in, one row at a time, as messages.

- Alpaca and BELLE: `instruction`, `input`, `output`, optional `system` and `history` (pairs of earlier turns); BELLE's
  longer dialogues have their turns (`Human:`, `Assistant:`) in `instruction`. Dolly: `context` and `response`.
- Seed tasks (self-instruct): `instruction` with `instances` of `input` and `output`, each a dialogue.
- Pairs: `prompt` and `response` and their likes; FLAN's `inputs` and `targets`, P3's `inputs_pretokenized`.
- ShareGPT: `conversations` of `from` and `value`; tool calls as LLaMA-Factory writes them (`function_call`,
  `observation`). Messages: `messages` of `role` and `content`, with OpenAI's `tool_calls`. UltraChat: `data`, a list.
- Glaive's function calling: `system` and `chat`, a text with `USER:`, `ASSISTANT:`, `FUNCTION RESPONSE:`.
- OpenAssistant: trees of replies and the single messages of such trees, see `trees`.

Alpaca's frame around a prompt (`### Instruction:` ... `### Response:`) is taken off: how a dialogue is framed is
decided where it is tokenised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from datalake.sources import trees
from datalake.sources.turns import InvalidError, Messages, calls, message, turns, with_system

ASKED = ("prompt", "question", "query", "inputs_pretokenized", "inputs", "input")
ANSWERED = ("response", "completion", "output", "answer", "target", "targets_pretokenized", "targets")
LISTS = {"messages": "messages", "conversations": "sharegpt", "conversation": "sharegpt", "items": "sharegpt",
         "data": "sharegpt"}  # fmt: skip
# What a row's attributes leave out: it is in the messages.
CONTENT = frozenset(
    (*ASKED, *ANSWERED, *LISTS, "instruction", "context", "instances", "history", "system", "system_prompt", "text",
     "chat", "tools", "functions", "chosen", "rejected", "replies", "id")
)  # fmt: skip

_FRAME = re.compile(r"\A\s*+(?:Below is an instruction[^\n]*+\n++)?### Instruction:[ \t]*+\n")
_INPUT, _RESPONSE = re.compile(r"\n### Input:[ \t]*+\n"), "\n### Response:"
# Who speaks, at the beginning of a line; what he says is stripped of the blank lines before.
_SPOKEN = re.compile(r"(?:\A\s*+|\n[^\S\n]*+)(Human|Assistant)[:：]")
_CHAT = re.compile(r"(?:\A\s*+|\n[^\S\n]*+)(USER|ASSISTANT|FUNCTION RESPONSE):")
_CALL = re.compile(r"<functioncall>\s*+(?=\{)")
_ARGUMENTS = re.compile(r'"arguments":\s*+(?=\')')


@dataclass(slots=True)
class Dialogue:
    """What a row holds: messages, or why not. `part` tells it from others of the row; `attributes` are its own."""

    messages: Messages
    format: str
    problem: InvalidError | None = None
    part: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def dialogues(row: Any, format: str = "auto", all_paths: bool = False) -> Iterator[Dialogue]:
    """The dialogues of a row: one in most formats, at least one in all."""
    try:
        found, name = _reader(row, format)
    except InvalidError as problem:
        yield Dialogue([], "", problem)
        return
    if name == "openassistant":
        for tree in trees.paths_of(row, all_paths):
            about = {"tree": str(tree.tree), "lang": tree.lang}
            yield Dialogue(tree.messages, name, tree.problem, tree.part, {k: v for k, v in about.items() if v})
        return
    instances = row.get("instances") if name == "instances" else [row]
    for number, instance in enumerate(instances or [{}]):
        part = f"instance {number}" if number else ""
        try:
            if not isinstance(instance, dict):
                raise InvalidError("format", f"instance {number} is a {type(instance).__name__}, not an object")
            yield Dialogue(found(row if instance is row else {**row, **instance}), name, part=part)
        except InvalidError as problem:
            yield Dialogue([], name, problem, part)


def _reader(row: Any, format: str) -> tuple[Callable[[dict[str, Any]], Messages], str]:
    """What reads a row of this format (or `auto`), and the format's name. Raises InvalidError where it is another."""
    if not isinstance(row, dict):
        raise InvalidError("format", f"a {type(row).__name__}, not an object")
    for name, fits, read in _FORMATS:
        if format in ("auto", name) and fits(row):
            return read, name
    keys = ", ".join(sorted(map(str, row))[:8])
    raise InvalidError("format", f"keys {keys}"[:200])


def _list_of(row: dict[str, Any], wanted: str) -> list[Any] | None:
    return next((row[key] for key, name in LISTS.items() if name == wanted and isinstance(row.get(key), list)), None)


def _spoken(row: dict[str, Any], wanted: str) -> Messages:
    items = _list_of(row, wanted) or []
    if (
        items and items is row.get("data") and all(isinstance(item, str) for item in items)
    ):  # whose turn it is goes by place
        return with_system(row, [message(("user", "assistant")[n % 2], item) for n, item in enumerate(items)])
    return with_system(row, turns(items))


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of these columns that has a value, else None."""
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _instruction(row: dict[str, Any]) -> Messages:
    asked, given = message("user", row["instruction"]), message("user", _first(row, ("input", "context")))
    answer = _first(row, ANSWERED)
    if answer is None:
        raise InvalidError("unanswered", "no column with an answer")
    messages: Messages = []
    history = row.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidError("format", "a turn of the history isn't a pair")
        messages += [message("user", pair[0]), message("assistant", pair[1])]
    earlier = _turns_in(asked["content"])
    if earlier and not given["content"]:
        messages += earlier
    else:
        messages.append({"role": "user", "content": f"{asked['content']}\n\n{given['content']}".strip()})
    return with_system(row, [*messages, message("assistant", answer)])


def _turns_in(text: str) -> Messages:
    """The turns of a dialogue that is written in one text and awaits the assistant's answer; none where it is none."""
    before, *rest = _SPOKEN.split(text)
    if before.strip() or len(rest) < 4 or rest[0] != "Human" or rest[-2] != "Assistant" or rest[-1].strip():
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [message(roles[who], words) for who, words in zip(rest[:-2:2], rest[1:-2:2], strict=True)]


def _pair(row: dict[str, Any]) -> Messages:
    asked, answer = message("user", _first(row, ASKED)), message("assistant", _first(row, ANSWERED))
    if frame := _framed(asked["content"]):
        asked["content"] = "\n\n".join(part.strip() for part in frame if part.strip())
    return with_system(row, [asked, answer])


def _framed(text: str) -> tuple[str, str] | None:
    """What is asked and what is given with it within Alpaca's frame; None where there is none."""
    begin = _FRAME.match(text)
    text = text.rstrip()
    end = len(text) - len(_RESPONSE)
    if begin is None or not text.endswith(_RESPONSE) or end < begin.end():
        return None
    given = _INPUT.search(text, begin.end(), end + 1)
    if given is None or given.end() > end:  # without a line of its own
        return text[begin.end() : end], ""
    return text[begin.end() : given.start()], text[given.end() : end]


def _chat(row: dict[str, Any]) -> Messages:
    before, *rest = _CHAT.split(row["chat"].replace("<|endoftext|>", "\n"))
    if before.strip() or not rest:
        raise InvalidError("format", "no 'USER:' at the beginning of the chat")
    roles = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
    messages = [message(roles[who], words) for who, words in zip(rest[::2], rest[1::2], strict=True)]
    for turn in messages:
        content = turn["content"]
        if turn["role"] == "assistant" and (match := _CALL.search(content)):
            end = content.rfind("}", match.end()) + 1
            if end:
                said = content[: match.start()].strip()
                turn["content"] = "\n".join(part for part in (said, _glaive_call(content[match.end() : end])) if part)
    system = row.get("system")
    words = system.strip().removeprefix("SYSTEM:").strip() if isinstance(system, str) else ""
    return with_system({"system": words}, messages)


def _glaive_call(text: str) -> str:
    """A call whose arguments are JSON between single quotes, which isn't JSON."""
    # the last quotation mark, if nothing but the object's end is behind it
    end = len(text.rstrip().removesuffix("}").rstrip()) - 1
    match = _ARGUMENTS.search(text)
    if match and match.end() < end and text[end] == "'" and text.rstrip().endswith("}"):
        text = f"{text[: match.end()]}{json.dumps(text[match.end() + 1 : end])}{text[end + 1 :]}"
    return str(calls(text))


def _has_text(row: dict[str, Any], keys: tuple[str, ...]) -> bool:
    return any(key in row for key in keys)


# Name, whether a row is in the format, and what reads it; the first that fits is taken.
_FORMATS: tuple[tuple[str, Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], Messages]], ...] = (
    ("messages", lambda row: _list_of(row, "messages") is not None, lambda row: _spoken(row, "messages")),
    ("sharegpt", lambda row: _list_of(row, "sharegpt") is not None, lambda row: _spoken(row, "sharegpt")),
    ("openassistant", trees.is_tree, lambda row: []),
    ("glaive", lambda row: isinstance(row.get("chat"), str), _chat),
    ("instances", lambda row: "instruction" in row and isinstance(row.get("instances"), list), _instruction),
    ("dolly", lambda row: "instruction" in row and "context" in row and "input" not in row, _instruction),
    ("alpaca", lambda row: "instruction" in row, _instruction),
    ("pairs", lambda row: _has_text(row, ASKED) and _has_text(row, ANSWERED), _pair),
)
