"""The turns of a dialogue: roles, what makes a dialogue valid, how a tool call is written down.

A dialogue is valid if an optional system message comes first, then the user's side (user, or results of tools) and the
assistant's alternate, beginning with the user and ending with the assistant, and none is empty. Several results of
tools may follow each other: an assistant may call several at once.

A call of a tool is the assistant's turn: what it says, if anything, then one line a call, each a JSON object
`{"name": ..., "arguments": {...}}`. A result is a turn of role `tool`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import xxhash

ROLES = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "bot": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "observation": "tool", "tool": "tool", "function": "tool", "tool_response": "tool", "ipython": "tool",
}  # fmt: skip
_CALLS = ("function_call", "tool_call")
Messages = list[dict[str, str]]
WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")


class InvalidError(ValueError):
    """Why a row is no dialogue: `reason` in one word, `detail` in a few."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def message(role: str, content: Any) -> dict[str, str]:
    """A message; content is a text, parts of one as OpenAI writes them, or None. Raises InvalidError on others."""
    if isinstance(content, list):
        content = "\n".join(_part(part, role) for part in content)
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise InvalidError("format", f"the {role}'s text is a {type(content).__name__}")
    return {"role": role, "content": content.strip()}


def _part(part: Any, role: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise InvalidError("media", f"a part of the {role}'s turn is no text: {str(kind)[:50]!r}")


def turns(items: list[Any]) -> Messages:
    """Turns in `from`/`value`, `role`/`content` or `role`/`text` as messages. Raises InvalidError."""
    out = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise InvalidError("format", f"turn {number} is a {type(item).__name__}, not an object")
        speaker = next((item[key] for key in ("role", "from", "speaker") if item.get(key) is not None), None)
        role = ROLES.get(str(speaker).lower())
        if role is None:
            raise InvalidError("role", f"turn {number} is by {str(speaker)[:50]!r}")
        spoken = next((item[key] for key in ("content", "value", "text") if item.get(key) is not None), None)
        if str(speaker).lower() in _CALLS and spoken is not None:
            spoken = calls(spoken)
        called = item.get("tool_calls") or item.get("function_call")
        if called and role == "assistant":
            said = message(role, spoken)["content"]
            spoken = "\n".join(part for part in (said, calls(called)) if part)
        elif isinstance(spoken, dict) and role == "tool":
            spoken = _json(spoken)
        out.append(message(role, spoken))
    return out


def calls(value: Any) -> Any:
    """Calls of tools, as text or as lists and objects in OpenAI's or ShareGPT's shape, one JSON object a line.

    What is none of these is given back as it is.
    """
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
    lines = []
    for call in found if isinstance(found, list) else [found]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return value
        arguments = inner.get("arguments", inner.get("parameters", {}))
        if isinstance(arguments, str):
            with suppress(ValueError, RecursionError):  # a model's own slip is part of the dialogue
                arguments = json.loads(arguments)
        lines.append(_json({"name": inner["name"], "arguments": arguments}))
    return "\n".join(lines)


def tools_of(row: dict[str, Any]) -> list[str]:
    """The tools that a row offers, each as one line of JSON; none where there are none. Raises InvalidError."""
    offered = row.get("tools") or row.get("functions")
    if isinstance(offered, str):
        try:
            offered = json.loads(offered)
        except (ValueError, RecursionError):
            return [offered.strip()] if isinstance(offered, str) and offered.strip() else []
    if isinstance(offered, dict):
        offered = [offered]
    if not isinstance(offered, list):
        return []
    return [tool if isinstance(tool, str) else _json(tool) for tool in offered]


def _json(value: Any) -> str:
    """A value as one line of JSON. Raises InvalidError where it can't be written."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidError("format", f"a call or tool: {error}"[:200]) from error


def with_system(row: dict[str, Any], messages: Messages) -> Messages:
    """The messages, begun with the row's system message where it has one and they have none."""
    system = next((row[key] for key in ("system", "system_prompt") if isinstance(row.get(key), str)), "")
    if system.strip() and not (messages and messages[0]["role"] == "system"):
        return [{"role": "system", "content": system.strip()}, *messages]
    return messages


def asked(messages: Messages) -> str:
    """The unit of hold-out of a dialogue: what its user says first, by its words.

    Collections repeat each other's questions and give several dialogues one beginning: none of them trains when one of
    them is held out.
    """
    first = next(message["content"] for message in messages if message["role"] == "user")
    words = " ".join(WORD.findall(first.lower())) or first.strip()
    return "asked:" + xxhash.xxh3_128_hexdigest(words.encode("utf-8", "surrogatepass"))


def validate(messages: Messages, *, answered: bool = True) -> None:
    """Raises InvalidError unless the messages are a dialogue; with `answered=False`, one that awaits an answer."""
    turns_only = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns_only:
        raise InvalidError("empty", "no turn")
    before = "system"
    after = {"system": ("user",), "user": ("assistant",), "tool": ("assistant", "tool"), "assistant": ("user", "tool")}
    for number, turn in enumerate(turns_only, 1):
        if turn["role"] not in after[before]:
            behind = f"behind the {before}'s" if number > 1 else "at the beginning"
            raise InvalidError("order", f"turn {number} is the {turn['role']}'s, {behind}")
        before = turn["role"]
    for number, turn in enumerate(messages, 1):
        if not turn["content"]:
            raise InvalidError("empty", f"message {number}, the {turn['role']}'s, has no text")
    if answered and before != "assistant":
        raise InvalidError("unanswered", f"the last turn is the {before}'s")
    if not answered and before == "assistant":
        raise InvalidError("order", "the prompt ends with the assistant")
