"""What references hold: for each output of a stage the list of its files, kept in the lake as a small JSON.

    contents/NAME/FINGERPRINT-VERSION.json      NAME is a table (`demo.raw`) or a folder (`tokenizer`)

These lists, not Iceberg's snapshots, say what a table is: paths are relative to the lake, so a lake can be moved and
copied, and they stay when snapshots expire. Size and digest tell a damaged file from a whole one.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, StringConstraints

from datalake.errors import LostDataError, UserError
from datalake.places import is_local, several

if TYPE_CHECKING:
    import pyarrow as pa


def _inside(path: str) -> str:
    """A path that stays in the lake it is relative to."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise ValueError(f"{path!r} leads out of the lake")
    return path


# What is read from a lake goes into paths and SQL: a lake made by somebody else may say anything.
Inside = Annotated[str, AfterValidator(_inside)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=128)]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+\.[A-Za-z0-9_]+$", max_length=200)]
Digest = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=128)]


def inside(root: Path, path: str) -> Path:
    """A path relative to a lake as one of this machine. Raises UserError where it leads out of the lake."""
    try:
        return root / _inside(path)
    except ValueError as error:
        raise UserError(f"{error}: a record of it was tampered with") from None


class Entry(BaseModel):
    """One file: where it is in the lake, its rows where it is one of a table, its size and the xxh128 of its bytes."""

    path: Inside
    rows: int = 0
    bytes: int
    digest: str


class Contents(BaseModel):
    """The files of one output. `columns` is a table's Arrow schema, serialised, in base64."""

    name: str
    fingerprint: Digest
    data_version: Digest
    made: datetime
    columns: str | None = None
    files: list[Entry]

    @property
    def schema(self) -> pa.Schema:
        """A table's columns."""
        import pyarrow as pa

        assert self.columns is not None, "only tables have columns"
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.columns)))

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    def trouble(self, root: Path) -> str:
        """What is wrong with the first file that isn't there at its size; empty where all are."""
        troubles = several(lambda file: file_trouble(root / file.path, file.bytes), self.files, root)
        return next(filter(None, troubles), "")

    def paths(self, root: Path) -> list[str]:
        """The files that have rows, sorted. Raises LostDataError where one is gone or has another size."""
        why = self.trouble(root)
        if why:
            raise LostDataError(self.name, why)
        return sorted(str(root / file.path) for file in self.files if file.rows)


def file_trouble(path: Path, size: int) -> str:
    """What is wrong with a file that should have this size; empty where nothing is."""
    try:
        found = path.stat().st_size
    except FileNotFoundError as error:
        return f"{path}: {error.strerror or 'No such file'}"
    except OSError as error:
        if not is_local(path):  # the store can't be asked now, which says nothing of what it holds
            raise
        return f"{path}: {error.strerror}"
    return "" if found == size else f"{path} has {found:,} bytes and not {size:,}"


def serialised(schema: pa.Schema) -> str:
    """A schema as text."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
