"""Dialogues to learn from, in the formats people publish them in, one of them a row.

- Alpaca: `instruction`, `input`, `output`, optional `system` and `history` (pairs of earlier turns); also the seed
  tasks' `instances`, and plain `prompt` with `response`.
- ShareGPT: `conversations` of `from` and `value`; tool calls as LLaMA-Factory writes them (`function_call`,
  `observation`).
- messages: `messages` of `role` and `content`.

A dialogue is valid if an optional system message comes first, then the user's side (user, tool) and the assistant's
alternate, beginning with the user and ending with the assistant, and none is empty. Others are refused with a reason:
`format`, `role`, `order`, `unanswered`, `empty`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import xxhash

from datalake.document import Conversation, Entry, Quarantined, Refused, document_id
from datalake.language import detect
from datalake.sources import docstrings
from datalake.sources.config import Conversations
from datalake.sources.config import Language as LanguageConfig
from datalake.sources.protocol import InputShard, expand
from datalake.sources.rows import Locators, json_rows

KIND = "conversations"
ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
Messages = list[dict[str, str]]
WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")  # as in dedup/shingles.py, which brings compiled loops along


class InvalidError(ValueError):
    """Why a row is no dialogue: `reason` in one word, `detail` in a few."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def shards(config: Conversations) -> list[InputShard]:
    """One shard a file; `python:docstrings` gives the questions about the standard library."""
    files = [path for path in config.paths if path != docstrings.PATH]
    out = [InputShard(KIND, name, path) for name, path in expand(files)] if files else []
    if docstrings.PATH in config.paths:
        out += docstrings.shards(KIND)
    return sorted(out, key=lambda shard: shard.name)


def read(shard: InputShard, config: Conversations) -> Iterator[Entry]:
    """One entry a row: a conversation, or refused for what is wrong with it, or quarantined where it isn't JSON."""
    if shard.path == docstrings.PATH:
        yield from docstrings.conversations(shard, config.label)
        return
    locators = Locators()
    for row in json_rows(shard.path, shard.name, config.label):
        if isinstance(row, Quarantined):
            yield row
            continue
        own = row.value.get("id") if isinstance(row.value, dict) else None
        locator = locators.of(own, row.number)
        identity, uri = document_id(KIND, shard.name, locator), f"{shard.name}#{locator}"
        try:
            messages, style = dialogue(row.value, config.format)
            validate(messages)
        except InvalidError as problem:
            yield Refused(
                identity,
                config.label,
                uri,
                problem.reason,
                problem.detail,
                archive=shard.name,
                offset=row.offset,
                length=row.length,
            )
            continue
        attributes = {"format": style, "group": asked(messages)}
        if isinstance(tools := row.value.get("tools"), str) and tools:
            attributes["tools"] = tools
        yield Conversation(
            id=identity,
            source=config.label,
            uri=uri,
            messages=messages,
            language=language_of(messages, config.language),
            licence=config.licence,
            archive=shard.name,
            offset=row.offset,
            attributes=attributes,
        )


def asked(messages: Messages) -> str:
    """The unit of hold-out of a dialogue: what its user says first, by its words.

    Collections repeat each other's questions and give several dialogues one beginning: none of them trains when one of
    them is held out.
    """
    first = next(message["content"] for message in messages if message["role"] == "user")
    words = " ".join(WORD.findall(first.lower())) or first.strip()
    return "asked:" + xxhash.xxh3_128_hexdigest(words.encode("utf-8", "surrogatepass"))


def language_of(messages: Messages, config: LanguageConfig) -> str:
    """The language of a dialogue, from what user and assistant say."""
    text = "\n".join(message["content"] for message in messages if message["role"] != "system")
    return detect(text, model=config.model, threshold=config.threshold, characters=config.characters)[0]


def dialogue(row: Any, style: str = "auto") -> tuple[Messages, str]:
    """A row's messages and the format they are in: `alpaca`, `sharegpt` or `messages`. Raises InvalidError."""
    if not isinstance(row, dict):
        raise InvalidError("format", f"a {type(row).__name__}, not an object")
    if style in ("auto", "messages") and isinstance(row.get("messages"), list):
        return _with_system(row, turns(row["messages"])), "messages"
    if style in ("auto", "sharegpt", "messages") and isinstance(row.get("conversations"), list):
        return _with_system(row, turns(row["conversations"])), "sharegpt"
    if style in ("auto", "alpaca"):
        if "instruction" in row:
            return _alpaca(row), "alpaca"
        if "prompt" in row and any(key in row for key in ("response", "completion", "output")):
            answer = next(row[key] for key in ("response", "completion", "output") if key in row)
            return _with_system(row, [_message("user", row["prompt"]), _message("assistant", answer)]), "alpaca"
    raise InvalidError("format", f"keys {', '.join(sorted(map(str, row))[:8])}")


def turns(items: list[Any]) -> Messages:
    """Turns in `from`/`value` or `role`/`content` as messages. Raises InvalidError."""
    out = []
    for item in items:
        if not isinstance(item, dict):
            raise InvalidError("format", f"a turn is a {type(item).__name__}, not an object")
        speaker = item.get("role", item.get("from"))
        role = ROLES.get(str(speaker).lower())
        if role is None:
            raise InvalidError("role", f"{speaker!r}")
        out.append(_message(role, item.get("content", item.get("value"))))
    return out


def _message(role: str, content: Any) -> dict[str, str]:
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise InvalidError("format", f"the {role}'s text is a {type(content).__name__}")
    return {"role": role, "content": content.strip()}


def _with_system(row: dict[str, Any], messages: Messages) -> Messages:
    system = row.get("system")
    if isinstance(system, str) and system.strip() and not (messages and messages[0]["role"] == "system"):
        return [{"role": "system", "content": system.strip()}, *messages]
    return messages


def _alpaca(row: dict[str, Any]) -> Messages:
    instance = row
    if isinstance(row.get("instances"), list) and row["instances"] and isinstance(row["instances"][0], dict):
        instance = row["instances"][0]
    instruction, given = _message("user", row["instruction"]), _message("user", instance.get("input"))
    if given["content"]:
        instruction["content"] = f"{instruction['content']}\n\n{given['content']}".strip()
    messages: Messages = []
    for pair in row.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidError("format", "a turn of the history isn't a pair")
        messages += [_message("user", pair[0]), _message("assistant", pair[1])]
    return _with_system(row, [*messages, instruction, _message("assistant", instance.get("output"))])


def validate(messages: Messages, *, answered: bool = True) -> None:
    """Raises InvalidError unless the messages are a dialogue; with `answered=False`, one that awaits an answer."""
    turns_only = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns_only:
        raise InvalidError("empty", "no turn")
    for number, message in enumerate(turns_only, 1):
        side = "assistant" if number % 2 == 0 else "user"
        if message["role"] == "system":
            raise InvalidError("order", f"turn {number} is the system's")
        if (message["role"] == "assistant") != (side == "assistant") or (number == 1 and message["role"] != "user"):
            raise InvalidError("order", f"turn {number} is the {message['role']}'s")
    for message in messages:
        if not message["content"]:
            raise InvalidError("empty", f"a text of the {message['role']}")
    if answered and turns_only[-1]["role"] != "assistant":
        raise InvalidError("unanswered", "the last turn isn't the assistant's")
    if not answered and turns_only[-1]["role"] == "assistant":
        raise InvalidError("order", "the prompt ends with the assistant")
