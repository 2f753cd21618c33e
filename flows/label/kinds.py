"""What people can be asked to judge: the part that a kind of items has of its own, and what all kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import xxhash
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Row = dict[str, Any]
LONGEST = 100_000  # characters of what a person writes


def _writable(text: Any) -> Any:
    """A text without what can't be written: halves of characters, NUL."""
    if not isinstance(text, str):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


Text = Annotated[str, StringConstraints(max_length=LONGEST, strip_whitespace=True), BeforeValidator(_writable)]


class Asked(BaseModel):
    """A request about an item; nothing is passed over."""

    model_config = ConfigDict(extra="forbid")
    item: str = Field(max_length=64)


class Judgement(Asked):
    """What a person says of an item."""

    note: Text = ""


class Kind(ABC):
    """A kind of items. `table` is where its labels lie, `beside` where what else comes of them, `body` what is sent."""

    name: ClassVar[str]
    table: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    body: ClassVar[type[Judgement]]

    @abstractmethod
    def shown(self, item: Row, annotator: str) -> Row:
        """What an annotator sees of an item: nothing that tells what others, or a program, think of it."""

    @abstractmethod
    def rows(self, item: Row, annotator: str, said: Any) -> dict[str, Row]:
        """What is written down of a judgement, by table: this kind's own, and what else comes of it."""

    @abstractmethod
    def said(self, row: Row, more: Mapping[str, Row]) -> Row:
        """A judgement as the page sent it, from what was written down in this kind's table and in others."""

    @abstractmethod
    def measures(self, items: Sequence[Mapping[str, Row]]) -> dict[str, tuple[list[list[Any]], bool]]:
        """What people may agree on, of the rows of each item: the values of units, and whether they are in order."""


def draw(*parts: str) -> float:
    """An even number in [0, 1) by a hash of the parts: the same in every process."""
    return (xxhash.xxh3_64_intdigest("\x1f".join(parts).encode("utf-8", "surrogatepass")) >> 11) * 2.0**-53
