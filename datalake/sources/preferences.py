"""Pairs of a preferred and another answer to one prompt, one pair a row.

- HH-RLHF (Bai et al. 2022, arXiv:2204.05862): `chosen` and `rejected` are whole dialogues, `\\n\\nHuman: ...
  \\n\\nAssistant: ...`; what both have in common is the prompt, the assistant's last turns are the answers.
- DPO as LLaMA-Factory and MedicalGPT write it: `conversations` with `chosen` and `rejected`, or `prompt`
  (`instruction`, `question`) with both.
- messages: `chosen` and `rejected` are lists of messages with a common beginning.

A pair is valid if its prompt is a dialogue that awaits an answer, neither answer is empty and they differ. Others are
refused with a reason: `format`, `role`, `order`, `empty`, `equal`, `prompt` (the dialogues differ before their end).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from datalake.document import Entry, Preference, Quarantined, Refused, document_id
from datalake.sources import docstrings
from datalake.sources.config import Preferences
from datalake.sources.conversations import InvalidError, Messages, asked, language_of, turns, validate
from datalake.sources.protocol import InputShard, expand
from datalake.sources.rows import Locators, json_rows

KIND = "preferences"
_TURN = re.compile(r"\n\n(Human|Assistant):")


def shards(config: Preferences) -> list[InputShard]:
    """One shard a file; `python:docstrings` gives pairs about the standard library."""
    files = [path for path in config.paths if path != docstrings.PATH]
    out = [InputShard(KIND, name, path) for name, path in expand(files)] if files else []
    if docstrings.PATH in config.paths:
        out += docstrings.shards(KIND)
    return sorted(out, key=lambda shard: shard.name)


def read(shard: InputShard, config: Preferences) -> Iterator[Entry]:
    """One entry a row: a preference, or refused for what is wrong with it, or quarantined where it isn't JSON."""
    if shard.path == docstrings.PATH:
        yield from docstrings.preferences(shard, config.label)
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
            prompt, chosen, rejected, style = pair(row.value, config.format)
            _check(prompt, chosen, rejected)
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
        yield Preference(
            id=identity,
            source=config.label,
            uri=uri,
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            language=language_of([*prompt, {"role": "assistant", "content": chosen}], config.language),
            licence=config.licence,
            archive=shard.name,
            offset=row.offset,
            attributes={"format": style, "group": asked(prompt)},
        )


def pair(row: Any, style: str = "auto") -> tuple[Messages, str, str, str]:
    """(prompt, chosen, rejected, format) of a row; the format is `hh`, `dpo` or `messages`. Raises InvalidError."""
    if not isinstance(row, dict):
        raise InvalidError("format", f"a {type(row).__name__}, not an object")
    if "chosen" not in row or "rejected" not in row:
        raise InvalidError("format", f"keys {', '.join(sorted(map(str, row))[:8])}")
    chosen, rejected = row["chosen"], row["rejected"]
    prompt = _prompt(row) if style in ("auto", "dpo") else None
    if prompt is not None:
        return prompt, _answer(chosen), _answer(rejected), "dpo"
    if style in ("auto", "messages") and isinstance(chosen, list) and isinstance(rejected, list):
        return *_common(turns(chosen), turns(rejected)), "messages"
    if style in ("auto", "hh") and isinstance(chosen, str) and isinstance(rejected, str):
        return *_common(hh_turns(chosen), hh_turns(rejected)), "hh"
    raise InvalidError("format", f"answers are {type(chosen).__name__} and {type(rejected).__name__}")


def hh_turns(text: str) -> Messages:
    """A dialogue in HH-RLHF's notation as messages. Raises InvalidError where it doesn't begin with a turn."""
    first, *rest = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip())
    if first.strip() or not rest:
        raise InvalidError("format", "no '\\n\\nHuman:' at the beginning")
    roles = {"Human": "user", "Assistant": "assistant"}
    spoken = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": roles[who], "content": words.strip()} for who, words in spoken]


def _common(chosen: Messages, rejected: Messages) -> tuple[Messages, str, str]:
    """What two dialogues have in common, and how each of them ends."""
    for messages in (chosen, rejected):
        if not messages or messages[-1]["role"] != "assistant":
            raise InvalidError("order", "an answer doesn't end with the assistant")
    if chosen[:-1] != rejected[:-1]:
        raise InvalidError("prompt", "the dialogues differ before their last turn")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _prompt(row: dict[str, Any]) -> Messages | None:
    """The prompt of a row that has one apart from its answers."""
    messages: Messages | None = None
    for key in ("conversations", "messages", "prompt"):
        if isinstance(row.get(key), list):
            messages = turns(row[key])
            break
    else:
        for key in ("prompt", "instruction", "question"):
            if isinstance(row.get(key), str):
                content = row[key].strip()
                if key == "instruction" and isinstance(given := row.get("input"), str) and given.strip():
                    content = f"{content}\n\n{given.strip()}"
                messages = [{"role": "user", "content": content}]
                break
    system = row.get("system")
    if messages and isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system.strip()}, *messages]
    return messages


def _answer(value: Any) -> str:
    """An answer given as text, as a turn, or as a list that ends with the assistant's."""
    if isinstance(value, str):
        return value.strip()
    spoken = turns(value if isinstance(value, list) else [value])
    if not spoken or spoken[-1]["role"] != "assistant":
        raise InvalidError("role", "an answer that isn't the assistant's")
    return spoken[-1]["content"]


def _check(prompt: Messages, chosen: str, rejected: str) -> None:
    validate(prompt, answered=False)
    if not chosen or not rejected:
        raise InvalidError("empty", "the chosen answer" if not chosen else "the rejected answer")
    if chosen == rejected:
        raise InvalidError("equal", "both answers are the same")
