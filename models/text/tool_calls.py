"""A tool's call and its result as text: one format for dialogues that are learned and for those that a policy writes.

    <|tool_call|>{"name": "add", "arguments": {"a": 1, "b": 2}}<|/tool_call|>   the assistant's, after what it says
    <|tool_result|>3<|/tool_result|>                                            a turn of its own, which trains nothing

Both stand between special tokens (`models.text.config.TOOLS`), which no text can spell. Other templates put their
own frames around the same JSON, which `calls_in` reads as well: Hermes' and Qwen's, Mistral's list of calls, DeepSeek's
with the name apart, and bare JSON, as Llama 3 has it and where a template has no words for calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from models.text.config import TOOLS

CALL, CALL_END, RESULT, RESULT_END = TOOLS
# What opens a call in a frame of a template, or a list of some
OPENS = (CALL, "<tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "<｜tool▁call▁begin｜>")
_OPENS = re.compile("|".join(map(re.escape, OPENS)))
_BARE = re.compile(r"(?:^|; )(?=\{)", re.M)
_NAMED = re.compile(r"function<｜tool▁sep｜>(.*)\n```json\n")  # DeepSeek's: the name, then arguments alone
_SPACE = re.compile(r"\s*")


def _no_number(name: str) -> None:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(name)


_JSON = json.JSONDecoder(parse_constant=_no_number)


class Call(NamedTuple):
    """What the assistant asks of a tool; arguments are an object's, by name."""

    name: str
    arguments: dict[str, Any]


def call_text(call: Mapping[str, Any]) -> str:
    """The JSON of a call, given as in OpenAI's messages, itself or as its `function`; arguments that are a text stand
    as they are."""
    inner = call.get("function", call)
    arguments = inner.get("arguments", {})
    written = arguments if isinstance(arguments, str) else as_json(arguments)
    return f'{{"name": {as_json(inner["name"])}, "arguments": {written}}}'


def tool_text(tool: Mapping[str, Any]) -> str:
    """The JSON of a tool that is offered."""
    return as_json(tool.get("function", tool))


def read_call(text: str) -> Call | None:
    """The call that a text is; None where it is none: no JSON, no name, arguments that aren't an object."""
    try:
        return _call(_JSON.decode(text))
    except (ValueError, RecursionError):
        return None


def _call(found: Any) -> Call | None:
    if not isinstance(found, dict):
        return None
    arguments = found.get("arguments", found.get("parameters", {}))  # as Llama 3 has it
    if isinstance(arguments, str):
        try:
            arguments = _JSON.decode(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(found.get("name"), str) or not isinstance(arguments, dict):
        return None
    return Call(found["name"], arguments)


def calls_in(text: str, framed: bool = True) -> list[Call | None]:
    """The calls in what an assistant wrote, decoded with its special tokens, in their order; None for one that can't be
    read. framed: whether the template has a frame for calls, see `frames_calls`; else they are bare objects at the
    beginning of a line or behind another, and what can't be read is a text.
    """
    calls: list[Call | None] = []
    at = 0
    while opening := (_OPENS if framed else _BARE).search(text, at):
        named = _NAMED.match(text, opening.end())
        start = named.end() if named else _SPACE.match(text, opening.end()).end()  # type: ignore[union-attr]
        try:
            found, at = _JSON.raw_decode(text, start)
        except (ValueError, RecursionError):
            found, at = None, opening.end() + (not framed)
        if named:
            found = {"name": named[1], "arguments": found}
        # an object with a name alone may be an answer
        if framed or (isinstance(found, dict) and not found.keys().isdisjoint(("arguments", "parameters"))):
            calls += map(_call, found if isinstance(found, list) else [found])
    return calls if framed else [call for call in calls if call is not None]


def frames_calls(template: str | None) -> bool:
    """Whether a chat template puts calls into a frame."""
    return _OPENS.search(template or "") is not None


def as_json(value: Any) -> str:
    """As templates write it (`tojson` of Transformers)."""
    return json.dumps(value, ensure_ascii=False)
