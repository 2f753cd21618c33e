"""What people said, as it lies in a lake: JSON Lines that the readers of sources take as they are, a file for each.

    labels/preferences/NAME.jsonl     one comparison a row: a source of `preferences`
    labels/conversations/NAME.jsonl   one corrected answer a row: a source of `conversations`
    labels/documents/NAME.jsonl       one judged text a row: `quality.paths`
    labels/skipped/KIND/NAME.jsonl    what somebody left to others
    labels/items/                     what there is to judge
    labels/annotators.json            who may judge, and their keys

A row is on the disk before anybody is told that it counts, and counts once for its `id`. A kill while one is written
leaves a part of a line that nobody was told of: it is cut off when the file is next opened to be written to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datalake.atomic import sync, write_atomically
from datalake.conditional import write_first
from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.places import is_local

PREFERENCES, CONVERSATIONS, DOCUMENTS = TABLES = ("preferences", "conversations", "documents")
SKIPPED = "skipped"

Row = dict[str, Any]


class Journal:
    """The rows of a file by their ids, in the order in which they were written. One process writes to it."""

    def __init__(self, path: Path):
        """Open a file, which is made where there is none. Raises UserError where it can't be read or written."""
        self.path = path
        if not is_local(path):
            self.rows, _ = _read(path)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            self.rows, whole = _read(path)
            with path.open("ab") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
            if new:
                sync(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from None

    def add(self, row: Row) -> bool:
        """Write a row that has an `id`; whether it wasn't there. Raises UserError where the disk takes no more."""
        if row["id"] in self.rows:
            return False
        if not is_local(self.path):  # a store adds nothing to what it has: all of it is written again
            self._write(self.rows | {row["id"]: row})
            return True
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    line = _line(row)
                    if file.write(line) != len(line):
                        raise OSError(0, "the disk is full")
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self.rows[row["id"]] = row
        return True

    def remove(self, id: str) -> None:
        """Take a row back: the file is written anew without it."""
        left = {key: row for key, row in self.rows.items() if key != id}
        if len(left) < len(self.rows):
            self._write(left)

    def _write(self, rows: dict[str, Row]) -> None:
        try:
            write_atomically(self.path, b"".join(map(_line, rows.values())))
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self.rows = rows


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _read(path: Path) -> tuple[dict[str, Row], int]:
    """The rows of a file by their ids, and how many bytes they take: a last line without its end is none."""
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    rows: dict[str, Row] = {}
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            row = json.loads(line)
            rows[row["id"]] = row
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}, line {number} is no label: correct it, or take the line out") from None
    return rows, whole


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} can't be written ({error.strerror}): nothing was changed")


class Labels:
    """The labels of a lake."""

    def __init__(self, lake: Path):
        self.root = lake / "labels"

    def path(self, table: str, annotator: str) -> Path:
        """Where an annotator's rows are."""
        return self.root / table / f"{annotator}.jsonl"

    def rows(self, table: str) -> dict[str, dict[str, Row]]:
        """What everybody said so far: rows by id, by annotator. It may be asked while others write."""
        files = sorted((self.root / table).glob("*.jsonl"))
        return {path.stem: _read(path)[0] for path in files}

    def compared(self) -> int:
        """How many pairs of answers there are of which somebody found one better."""
        rows = self.rows(PREFERENCES).values()
        return len({id for mine in rows for id, row in mine.items() if row.get("winner") != "tie"})

    def prepare(self) -> None:
        """Make sure that each table has a file, which a recipe may name before anybody has said anything."""
        for table in TABLES:
            if not any((self.root / table).glob("*.jsonl")):
                self.begin("nobody")

    def begin(self, annotator: str) -> None:
        """Make sure that an annotator has a file in each table. Another server may be writing to what is there."""
        try:
            for table in TABLES:
                path = self.path(table, annotator)
                if is_local(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.open("ab").close()
                else:
                    write_first(path, b"")
        except OSError as error:
            raise _unwritable(self.root, error) from None

    def items(self, kind: str) -> Journal:
        """What there is to judge of a kind."""
        return Journal(self.root / "items" / f"{kind}.jsonl")

    @contextmanager
    def held(self, kind: str) -> Iterator[None]:
        """One server at a time asks for labels of a kind. Raises UserError where another one does."""

        def refuse() -> None:
            raise UserError(f"another `headwater label` asks for {kind} of {self.root.parent}: end that first")

        with Lake(self.root.parent).lease(f"labels-{kind}", refuse):
            yield


def by_item(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, dict[str, Row]]:
    """Rows by annotator, by item, of rows by item, by annotator."""
    found: dict[str, dict[str, Row]] = {}
    for annotator, mine in rows.items():
        for id, row in mine.items():
            found.setdefault(id, {})[annotator] = row
    return found


def now() -> str:
    """The time, as rows have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
