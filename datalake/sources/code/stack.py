"""Rows of source files in the shape of The Stack, v1 and v2, as JSON Lines or Parquet.

v1 names the repository that has most stars (`max_stars_repo_name`, `_path`, `_head_hexsha`, `_licenses`); v2 names a
Software Heritage blob (`blob_id`, `repo_name`, `path`, `revision_id`, `detected_licenses`), and its repository-wise
sets have one row a repository with its `files`, each of which is a record. v2 is published without contents: a row that
has none is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from datalake.document import Quarantined
from datalake.formats.rows.json import Row, json_rows
from datalake.formats.rows.parquet import parquet_rows
from datalake.origin import Origin
from datalake.sources.licences.spdx import all_of, canonical_licence
from datalake.sources.tables.table import form

UNKNOWN = "unknown"  # a repository that the row doesn't name
ENDINGS = (".jsonl", ".ndjson", ".parquet")
_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_KEPT = (
    "max_stars_count", "star_events_count", "fork_events_count", "license_type", "blob_id", "content_id", "hexsha",
    "snapshot_id", "src_encoding", "is_vendor", "is_generated",
)  # fmt: skip


@dataclass(slots=True)
class StackFile:
    """One file of a row. `text` is None where the row has no content.

    `licence` joins all that the row lists, None where one of them isn't known; `stated` is what it lists.
    """

    locator: str
    path: str
    repository: str
    revision: str
    text: str | None
    language: str
    licence: str | None
    stated: str
    offset: int
    length: int
    marks: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


def is_rows(path: str) -> bool:
    """Whether a file by its name holds rows."""
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith(ENDINGS)


def stack_rows(path: str, origin: Origin) -> Iterator[Row | Quarantined]:
    """The rows of a file, Parquet or JSON by its name."""
    return (parquet_rows if form(origin.archive) == "parquet" else json_rows)(path, origin)


def stack_files(row: Row, origin: Origin) -> Iterator[StackFile | Quarantined]:
    """Every file of a row; one that isn't an object is quarantined."""
    if not isinstance(row.value, dict):
        what = f"row {row.number} is a {type(row.value).__name__}, not an object"
        yield origin.quarantined(row, "row", what)
    elif isinstance(row.value.get("files"), list):
        for number, value in enumerate(row.value["files"]):
            if isinstance(value, dict):
                yield _file(row, row.value | value, f"{row.number}/{number}")
            else:
                what = f"file {number} of row {row.number} is no object"
                yield origin.quarantined(row, "row", what)
    else:
        yield _file(row, row.value, str(row.number))


def _file(row: Row, value: dict[str, Any], locator: str) -> StackFile:
    first = value.get("max_stars_repo_licenses")
    second = value.get("detected_licenses")
    names = first if isinstance(first, list) else second if isinstance(second, list) else []
    spdx = [canonical_licence(str(name)) for name in names]
    text = value.get("content")
    content = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    path = _text(value, "max_stars_repo_path", "path", "file_path").lstrip("/")
    ending = _text(value, "ext", "extension").lstrip(".")
    return StackFile(
        locator=locator,
        path=path or (f"{locator.replace('/', '-')}.{ending}" if ending else locator),
        repository=_text(value, "max_stars_repo_name", "repo_name", "repository_name") or UNKNOWN,
        revision=_text(value, "max_stars_repo_head_hexsha", "revision_id") or "row",
        text=content if isinstance(content, str) else None,
        language=_text(value, "lang", "language").lower(),
        licence=all_of([each for each in spdx if each]) if spdx and None not in spdx else None,
        stated=", ".join(map(str, names))[:200],
        offset=row.offset,
        length=row.length,
        marks=tuple(
            mark for mark, key in (("generated", "is_generated"), ("vendored", "is_vendor")) if value.get(key) is True
        ),
        attributes={key: str(value[key]) for key in _KEPT if isinstance(value.get(key), str | int | float)},
    )


def _text(value: dict[str, Any], *names: str) -> str:
    return next((value[name] for name in names if isinstance(value.get(name), str) and value[name]), "")
