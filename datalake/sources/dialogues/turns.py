"""The turns of a dialogue: roles, what makes a dialogue valid, how a tool call is written down.

A dialogue is valid if an optional system message comes first, then the user's side (user, or results of tools) and the
assistant's alternate, beginning with the user and ending with the assistant, and none is empty. Several results of
tools may follow each other: an assistant may call several at once.

A call of a tool is the assistant's turn: what it says, if anything, then one line a call, each a JSON object
`{"name": ..., "arguments": {...}}`. Which lines are calls is in the attribute `turns.tool_calls`: for each message the
ids of its calls, an empty text where one has none. A result is a turn of role `tool`. Hermes' frames (`<tool_call>`,
`<tool_response>`) are taken off.

What else a turn says of itself (its reasoning, a weight, a rating, who spoke) is in `Turn.more` and becomes attributes
of the dialogue. A turn of the assistant's that isn't to be learned (`weight` 0, `loss` or `train` false) is said in
`weights`, which training heeds.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import xxhash

from datalake.text.words import WORD

ROLES = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "bot": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "chatbot": "assistant", "ai": "assistant", "moss": "assistant", "function_calls": "assistant",
    "tool_calls": "assistant", "observation": "tool", "tool": "tool", "function": "tool", "tool_response": "tool",
    "function_response": "tool", "tool_result": "tool", "tool_results": "tool", "ipython": "tool",
}  # fmt: skip
_CALLS = ("function_call", "function_calls", "tool_call", "tool_calls")
_SPEAKER, _SPOKEN = ("role", "from", "speaker"), ("content", "value", "text")
_WEIGHTS = ("weight", "loss", "train", "train_on_turn")  # OpenAI; AgentInstruct and ms-swift; axolotl
_PARTLY = ("train_detail", "training_detail", "loss_scale")  # of which parts of a turn are learned
# An exchange of two turns in one object, and what of it comes before the answer.
_ASKS = ("human", "user", "input", "query", "question", "prompt", "instruction")
_ANSWERS = ("assistant", "gpt", "bot", "moss", "output", "response", "answer", "completion")
_THINKING = ("thinking", "reasoning", "redacted_thinking")
_MEDIA = re.compile(r"image|audio|video|file|media", re.I)
_CALL = re.compile(r"<tool_call>((?:(?!</?tool_call>).)*+)</tool_call>", re.S)
_RESPONSE = "<tool_response>", "</tool_response>"
Messages = list[dict[str, str]]
# Columns and keys that hold what is no text.
_MEDIA_NAME = re.compile(
    r"(?:chosen_|rejected_)?(?:image|img|picture|video|audio)s?(?:_?\d+|_?(?:path|url|file|bytes)s?)?|pixel_values",
    re.I,
)


class InvalidError(ValueError):
    """Why a row is no dialogue: `reason` in one word, `detail` in a few."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Turn(dict[str, str]):
    """A message, and what else its row says of it."""

    more: dict[str, Any]


def holds(value: Any) -> bool:
    """Whether there is something in a value: not null, not a number that is none, not blank, not empty."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, list):
        return any(item is not None and item != "" for item in value)
    return value is not None and value == value and value != {} and value != b""


def is_media(name: Any, value: Any) -> bool:
    """Whether a column or key holds pictures, sound or films, or says where they are."""
    return bool(_MEDIA_NAME.fullmatch(str(name)[:50])) and holds(value) and not isinstance(value, bool)


def message(role: str, content: Any, more: dict[str, Any] | None = None) -> Turn:
    """A message; content is a text, parts of one as OpenAI and Anthropic write them, or None.

    Raises InvalidError on others, and on several whole texts where one answer is to be (`several`).
    """
    turn = Turn(role=role)
    turn.more = dict(more or {})
    if isinstance(content, list):
        if role == "assistant" and len(content) > 1 and all(isinstance(part, str) for part in content):
            raise InvalidError("several", f"{len(content)} answers, none of which is said to be the right one")
        thoughts = [part for part in content if isinstance(part, dict) and part.get("type") in _THINKING]
        if thoughts:
            turn.more["thinking"] = "\n".join(str(part.get("thinking") or part.get("text") or "") for part in thoughts)
        content = "\n".join(_part(part, role) for part in content if not any(part is one for one in thoughts))
    if content is None or content != content:
        content = ""
    if not isinstance(content, str):
        raise InvalidError("format", f"the {role}'s text is a {type(content).__name__}")
    turn["content"] = content.strip()
    return turn


def _part(part: Any, role: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = str(part.get("type") if isinstance(part, dict) else type(part).__name__)[:50]
    reason = "media" if _MEDIA.search(kind) else "format"
    raise InvalidError(reason, f"a part of the {role}'s turn is no text: {kind!r}")


def text_of(value: Any, name: str) -> str:
    """A column that gives a text: itself, or a list of them one after the other. Raises InvalidError."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n\n".join(item.strip() for item in value if item.strip())
    if not isinstance(value, str):
        raise InvalidError("format", f"{name!r} is a {type(value).__name__}"[:200])
    return value.strip()


def turns(items: list[Any]) -> Messages:
    """Turns as messages: `from`/`value`, `role`/`content`, `role`/`text`, or exchanges of two. Raises InvalidError.

    An exchange is an object (`human` and `assistant`, `input` and `output` and their likes) or a list of two texts.
    """
    out: Messages = []
    for number, item in enumerate(items, 1):
        if isinstance(item, list) and len(item) == 2:
            out += [message("user", item[0]), message("assistant", item[1])]
            continue
        if not isinstance(item, dict):
            raise InvalidError("format", f"turn {number} is a {type(item).__name__}, not an object")
        key = next((key for key in _SPEAKER if item.get(key) is not None), "")
        if not key and (pair := _exchange(item)):
            out += pair
            continue
        speaker = str(item.get(key)).strip().lower().replace("-", "_")
        role = ROLES.get(speaker)
        if role is None:
            raise InvalidError("role", f"turn {number} is by {str(item.get(key))[:50]!r}")
        said_in = next((name for name in _SPOKEN if item.get(name) is not None), "")
        spoken = item.get(said_in)
        used = {key, said_in}
        made: list[tuple[str, str]] = []
        called = next((name for name in ("tool_calls", "function_call") if holds(item.get(name))), "")
        if called and role == "assistant":
            used.add(called)
            made = lines_of(item[called]) or []
            said = message(role, spoken)["content"]
            spoken = "\n".join(part for part in (said, as_called(item[called])) if part)
        elif speaker in _CALLS and spoken is not None:
            made = lines_of(spoken) or []
            spoken = calls(spoken)
        elif role == "assistant" and isinstance(spoken, str):
            spoken, made = _hermes(spoken)
        elif role == "tool":
            spoken = as_json(spoken) if isinstance(spoken, dict) else _bare(spoken)
        for name in item:
            if is_media(name, item[name]):
                raise InvalidError("media", f"turn {number} has {name!r}"[:200])
        more = {str(k): v for k, v in item.items() if k not in used and holds(v)}
        out.append(message(role, spoken, more | ({"tool_calls": [id for _, id in made]} if made else {})))
    return out


def _hermes(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What an assistant says whose calls stand in frames at its end, as a line each, and these calls; else the text."""
    said, *framed = _CALL.split(text)
    if not framed or any(between.strip() for between in framed[1::2]):
        return text, []
    found = [lines_of(call) for call in framed[::2]]
    made = [line for lines in found for line in lines or ()]
    if len(made) != len(found):
        return text, []
    return "\n".join(part for part in (said.strip(), *(line for line, _ in made)) if part), made


def _bare(result: Any) -> Any:
    """A tool's result without its frame."""
    opens, closes = _RESPONSE
    whole = result.strip() if isinstance(result, str) else ""
    framed = whole.startswith(opens) and whole.endswith(closes) and whole.count(opens) == 1
    return whole[len(opens) : -len(closes)] if framed else result


def _exchange(item: dict[str, Any]) -> Messages:
    """A question and its answer in one object, a system message before them where it has one; none where it is none."""
    names = {str(name).lower(): name for name in item}
    asks = next((names[name] for name in _ASKS if name in names), None)
    answers = next((names[name] for name in _ANSWERS if name in names), None)
    if asks is None or answers is None:
        return []
    system = names.get("system")
    used = {asks, answers, system}
    more = {str(name): value for name, value in item.items() if name not in used and holds(value)}
    begun = [message("system", item[system])] if system is not None and holds(item[system]) else []
    return [*begun, message("user", item[asks]), message("assistant", item[answers], more)]


def listed(items: list[Any]) -> Messages:
    """A list of turns; where it is one of texts, whose turn it is goes by place. Raises InvalidError."""
    if items and all(isinstance(item, str) for item in items):
        return [message(("user", "assistant")[number % 2], item) for number, item in enumerate(items)]
    return turns(items)


def told(messages: Messages, prefix: str = "turns.") -> dict[str, str]:
    """What turns say of themselves, by name: a value for each message as a JSON list, null where one has none."""
    mores = [getattr(message, "more", {}) for message in messages]
    names = dict.fromkeys(name for more in mores for name in more)
    return {f"{prefix}{name}": as_json([more.get(name) for more in mores]) for name in names}


def weights(messages: Messages) -> dict[str, str]:
    """`weights`, a 1 for each message that is learned, where one of the assistant's is not; else nothing.

    Raises InvalidError (`weight`) where nothing is to be learned, or something in part.
    """
    said = [message["role"] == "assistant" for message in messages]
    learned = [of and _learned(getattr(message, "more", {})) for of, message in zip(said, messages, strict=True)]
    if learned == said:
        return {}
    if not any(learned):
        raise InvalidError("weight", "no turn is to be learned")
    return {"weights": as_json([int(one) for one in learned])}


def _learned(more: dict[str, Any]) -> bool:
    for name in _PARTLY:
        if name in more and more[name] not in (0, 1):
            raise InvalidError("weight", f"{name} is {str(more[name])[:50]}: a turn is learned or not")
    weights = [more[name] for name in (*_WEIGHTS, *_PARTLY) if name in more]
    for weight in weights:
        if weight not in (0, 1):
            raise InvalidError("weight", f"a turn's weight is {str(weight)[:50]}, not 0 or 1")
    return all(weights)


def as_called(value: Any) -> str:
    """`calls` of what is one, else as JSON: a call that can't be read is part of the dialogue."""
    found = calls(value)
    return found if isinstance(found, str) else as_json(found)


def calls(value: Any) -> Any:
    """Calls of tools, as text or as lists and objects in OpenAI's or ShareGPT's shape, one JSON object a line.

    What is none of these is given back as it is.
    """
    made = lines_of(value)
    return value if made is None else "\n".join(line for line, _ in made)


def lines_of(value: Any) -> list[tuple[str, str]] | None:
    """Calls of tools as (a line of JSON, the call's own id); None for what is no call."""
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
    lines = []
    for call in found if isinstance(found, list) else [found]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return None
        arguments = inner.get("arguments", inner.get("parameters", {}))
        if isinstance(arguments, str):
            with suppress(ValueError, RecursionError):  # a model's own slip is part of the dialogue
                arguments = json.loads(arguments)
        lines.append((as_json({"name": inner["name"], "arguments": arguments}), str(call.get("id") or "")))
    return lines


def tools_of(offered: Any) -> list[str]:
    """The tools that a row offers, each as one line of JSON; none where there are none. Raises InvalidError."""
    if isinstance(offered, str):
        try:
            offered = json.loads(offered)
        except (ValueError, RecursionError):
            return [offered.strip()] if isinstance(offered, str) and offered.strip() else []
    if isinstance(offered, dict):
        offered = [offered]
    if not isinstance(offered, list):
        return []
    return [tool if isinstance(tool, str) else as_json(tool) for tool in offered]


def as_json(value: Any) -> str:
    """A value as one line of JSON. Raises InvalidError where it can't be written."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidError("format", f"a call or tool: {error}"[:200]) from error


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
