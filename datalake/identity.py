"""Identity: the canonical encoding behind every fingerprint.

A fingerprint may hold only what shapes an output. Fields that say *where* or *how fast* (paths, workers) are annotated
with `Place` and never enter; anything the encoder doesn't know raises, so nothing enters by accident.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel


class Place:
    """Marks a config field that names a place or a habit, not a meaning: `paths: Annotated[list[str], Place()]`, or how
    often a state is saved. With values it is one where the field has one of these, and another is a meaning.
    """

    def __init__(self, *values: Any) -> None:
        self.values = values

    def names(self, value: Any) -> bool:
        """Whether such a value of the field is a place."""
        return not self.values or value in self.values


Paths = Annotated[list[str], Place()]


def plain(value: Any) -> Any:
    """The value as plain JSON types, sorted where order has no meaning. Raises TypeError on a type it doesn't know."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"{value} has no identity")
        return int(value) if value.is_integer() else value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: plain(getattr(value, name))
            for name in sorted(fields)
            if not any(isinstance(mark, Place) and mark.names(getattr(value, name)) for mark in fields[name].metadata)
        }
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("only mappings with text keys have an identity")
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__qualname__} has no canonical encoding")


def canonical(value: Any) -> bytes:
    """The canonical JSON bytes of a value, equal in every process for equal meaning."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def fingerprint(value: Any) -> str:
    """sha256 of the canonical encoding, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def data_version(digests: list[str]) -> str:
    """The version of an output: a digest over the sorted content hashes of its shards."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
