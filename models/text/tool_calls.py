"""A tool's call and its result as text: one format for dialogues that are learned and for those that a policy writes.

    <|tool_call|>{"name": "add", "arguments": {"a": 1, "b": 2}}<|/tool_call|>   the assistant's, after what it says
    <|tool_result|>3<|/tool_result|>                                            a turn of its own, which trains nothing

Both stand between special tokens (`models.text.config.TOOLS`), which no text can spell. Tokenizers of other models have
their own frames around the same JSON: `calls_in` reads Hermes' and Qwen's <tool_call>, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from models.text.config import TOOLS

CALL, CALL_END, RESULT, RESULT_END = TOOLS
OPENINGS = (CALL, "<tool_call>")
_CALLS = re.compile(rf"(?:{'|'.join(map(re.escape, OPENINGS))})(.*?)(?:{re.escape(CALL_END)}|</tool_call>|\Z)", re.S)


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
        found = json.loads(text)
        arguments = found.get("arguments", {})
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError, AttributeError):
        return None
    if not isinstance(found.get("name"), str) or not isinstance(arguments, dict):
        return None
    return Call(found["name"], arguments)


def calls_in(text: str) -> list[Call | None]:
    """The calls in what an assistant wrote, decoded with its special tokens, in their order; None for one that can't be
    read."""
    return [read_call(found) for found in _CALLS.findall(text)]


def as_json(value: Any) -> str:
    """As templates write it (`tojson` of Transformers)."""
    return json.dumps(value, ensure_ascii=False)
