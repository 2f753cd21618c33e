"""The columns of a row, and what becomes of those that a dialogue or a pair was not made from.

A reader takes what it needs. Of the columns that it left, those that hold something are kept as attributes, whatever
their length or nesting; one that holds what a question is about makes the row refused (`column`), and so do pictures,
sound and films (`media`). A column that says again what the dialogue says is no loss. Nothing is dropped unsaid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from datalake.sources.dialogues.turns import InvalidError, Messages, holds, is_media, text_of
from datalake.sources.tables import mappings

# Columns that say what is asked or what it is about: a row that has more of it than its dialogue isn't whole.
_ABOUT = frozenset(
    ("instruction", "prompt", "question", "query", "problem", "input", "inputs", "context", "contexts", "passage",
     "passages", "history")
)  # fmt: skip
# Columns of texts and dialogues that often repeat each other.
_REPEATING = _ABOUT | {
    "inputs_pretokenized", "targets_pretokenized", "targets", "target", "response", "completion", "output", "answer",
    "text", "messages", "conversations", "conversation", "items", "data", "chat", "chosen", "rejected", "system",
    "system_prompt", "transcript",
}  # fmt: skip
_RESERVED = frozenset(("format", "group", "tools", "weights", "turns", "others"))  # names of our own attributes
_LONGEST = 1_000_000  # characters of the attributes of a row
# What data sets write where a task has no input; it is no part of the question.
_NOTHING = frozenset(("noinput", "no input", "n/a", "nan", "not applicable", "无输入"))


class Columns:
    """A row by the names of its columns, upper or lower case; `take` remembers what was used."""

    def __init__(self, row: dict[str, Any]):
        self.row = row
        self.used: set[Any] = set()
        self._names: dict[str, Any] = {}
        for name in row:
            self._names.setdefault(str(name).lower(), name)

    def __contains__(self, name: str) -> bool:
        return name in self.row or name in self._names

    def get(self, name: str) -> Any:
        """A column's value; None where it isn't there or holds nothing."""
        value = self.row.get(name if name in self.row else self._names.get(name, name))
        return value if holds(value) else None

    def take(self, *names: str) -> Any:
        """The first of these columns that holds something, which counts as used; None where none does."""
        for name in names:
            if (value := self.get(name)) is not None:
                self.use(name)
                return value
        return None

    def use(self, *names: str) -> None:
        """Count these columns as used."""
        self.used.update(name if name in self.row else self._names.get(name, name) for name in names)

    def given(self, *names: str) -> list[str]:
        """What the texts in these columns say, each used; what stands for no text says nothing."""
        found = []
        for name in names:
            value = self.get(name)
            if value is None or self._names.get(name, name) in self.used:
                continue
            self.use(name)
            said = text_of(value, name)
            if said.strip(" <>[]().").lower() not in _NOTHING:
                found.append(said)
        return found

    def rest(self, messages: Messages, answers: Iterable[str] = ()) -> dict[str, str]:
        """Attributes of what wasn't used and isn't said in the messages and answers.

        Raises InvalidError where a column that wasn't used takes something from the dialogue, or is too much to keep.
        """
        said = [message["content"] for message in messages] + [answer for answer in answers if answer]
        whole = "\n".join(map(_plain, said))
        found: dict[str, str] = {}
        for key, value in self.row.items():
            name = str(key)
            if key in self.used or not holds(value) or (name == "id" and isinstance(value, str | int)):
                continue
            low = name.lower()
            if is_media(name, value):
                raise InvalidError("media", f"the row has {name!r}"[:200])
            if low in _REPEATING and _repeats(value, said, whole):
                continue
            if low in _ABOUT and not is_tokens(value):
                raise InvalidError("column", f"{name!r} is no part of what is asked"[:200])
            name = f"row.{name}" if name in _RESERVED else name
            if isinstance(value, str) and (spelt := mappings.spelt(value)) is not None:
                value = spelt
            if isinstance(value, dict):
                found |= {f"{name}.{inner}": as_attribute(item) for inner, item in value.items() if holds(item)}
            else:
                found[name] = as_attribute(value)
        if sum(map(len, found.values())) > _LONGEST:
            longest = max(found, key=lambda name: len(found[name]))
            raise InvalidError("column", f"{longest!r} is more than an attribute holds"[:200])
        return found


def is_tokens(value: Any) -> bool:
    """Whether a column holds ids of tokens, a text written otherwise."""
    return isinstance(value, list) and all(isinstance(item, int) for item in value)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _repeats(value: Any, said: list[str], whole: str) -> bool:
    """Whether a column says nothing but what is said, or is the whole of it written out."""
    if isinstance(value, str):
        text = _plain(value)
        return text in whole or all(_plain(part) in text for part in said)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return False
    texts = [_content(item) for item in value]
    return all(text is not None and _plain(text) in whole for text in texts)


def _content(item: Any) -> str | None:
    if isinstance(item, dict):
        item = next((item[key] for key in ("content", "value", "text") if key in item), None)
    return item if isinstance(item, str) else None


def as_attribute(value: Any) -> str:
    """Any value as text: itself, a few words in a row, or JSON. Raises InvalidError where it can't be written."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        if len(value) > 64:  # no digest
            raise InvalidError("media", f"{len(value)} bytes that are no text")
        return value.hex()
    if short := mappings.plain(value):
        return short
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidError("column", f"a value that can't be written: {error}"[:200]) from error
