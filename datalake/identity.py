"""Identity: the canonical encoding behind every fingerprint, and content versions of files.

A fingerprint may hold only what shapes an output. Fields that say *where* or *how fast* (paths, workers) are annotated
with `Place` and never enter; anything the encoder doesn't know raises, so nothing enters by accident.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import BaseModel


class Place:
    """Marks a config field that names a place, not a meaning: `paths: Annotated[list[str], Place()]`."""


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
            if not any(isinstance(mark, Place) for mark in fields[name].metadata)
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


def file_digest(path: str) -> str:
    """xxh128 of a local file's bytes, in hex."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as stream:  # noqa: PTH123 - plain open is what streams best
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_files(folder: Path) -> list[tuple[str, str, int]]:
    """(name relative to the folder, xxh128, size in bytes) of each file of a folder, sorted by name.

    Temporary files that a kill left there (`.NAME.PID.tmp`) are none of it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.match(".*.tmp"))
    return [(path.relative_to(folder).as_posix(), file_digest(str(path)), path.stat().st_size) for path in files]


def folder_version(folder: Path) -> str:
    """The data version of a folder: a digest over the names and contents of its files."""
    return data_version([f"{path} {digest}" for path, digest, _ in folder_files(folder)])
