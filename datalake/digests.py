"""Digests of what lies on this machine's disk: of a file, and of each file of a folder."""

from __future__ import annotations

from pathlib import Path

import xxhash


def file_digest(path: str) -> str:
    """xxh128 of a local file's bytes, in hex."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as stream:  # noqa: PTH123 - plain open is what streams best
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_files(folder: Path) -> list[tuple[str, str, int]]:
    """(name relative to the folder, xxh128, size in bytes) of each file of a folder, sorted by name.

    Temporary files that a kill left there (`.NAME.PID.tmp`), and damaged ones set aside, are none of it.
    """
    left = (".*.tmp", "*.damaged")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not any(map(path.match, left)))
    return [(path.relative_to(folder).as_posix(), file_digest(str(path)), path.stat().st_size) for path in files]
