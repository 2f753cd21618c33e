"""Files of rows, wherever they lie: alone, compressed, or in zip and tar archives, also within each other.

What a file is, is told by its first bytes (zip, tar, Parquet, Arrow, the compressions of `streams`), else by its name
without the ending of a compression. Archives are read as streams; only a file inside an archive that is itself
compressed, an archive, Parquet or Arrow is first written to an unnamed temporary file (in TMPDIR, at most `MAX_SPOOL`
bytes, gone with the process). Names that would leave the archive are quarantined; links and other files are passed.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from datalake.document import Passed, Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.formats.containers import DAMAGE, Entry, Packed, tar_files, zip_files
from datalake.formats.rows.arrow import MAGIC, arrow_rows
from datalake.formats.rows.csv import csv_rows
from datalake.formats.rows.json import LONGEST, Chunks, Row, rows_of_json
from datalake.formats.rows.nested import rows_within
from datalake.formats.rows.parquet import parquet_rows
from datalake.formats.streams import as_utf8, compression, decompressed, peek
from datalake.origin import Origin
from datalake.text.charsets import streamed

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
MAX_SPOOL = 1 << 32  # bytes
MAX_DEPTH = 4  # archives within archives
_FORMS = {
    ".parquet": "parquet", ".parq": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".arrows": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "text", ".text": "text", ".md": "text",
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".jsonlines": "json", ".jl": "json",
}  # fmt: skip


_POINTER = b"version https://git-lfs.github.com/spec/"
# Files of rows, or compressed ones, that are read nowhere here, by their first bytes.
_OTHERS = {
    b"ORC": "an ORC file", b"Obj\x01": "an Avro file", b"SQLite format 3\0": "an SQLite database",
    b"\x89HDF\r\n": "an HDF5 file", b"\x04\x22\x4d\x18": "LZ4 compresses it",
    b"\xff\x06\0\0sNaPpY": "Snappy compresses it",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file", b"PARE": "an encrypted Parquet file",
}  # fmt: skip
_BINARY = {"parquet": parquet_rows, "arrow": arrow_rows}
_PARTITION = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

_Read = TypeVar("_Read")


class Shape(NamedTuple):
    """What a reader takes for a row, for the names of its columns, and for keys of lists of rows (None: any)."""

    is_row: Callable[[dict[str, Any]], bool]
    is_header: Callable[[list[str]], bool]
    keys: frozenset[str] | None = None


@dataclass(slots=True)
class RowFile:
    """One file of rows. Has to be read before the next one is asked for.

    Its `name` is the archive's, and of a file within one `archive/member`; `path` is where a Parquet or Arrow file
    lies, else `chunks` are its bytes, decompressed and in UTF-8.
    """

    origin: Origin
    form: str
    path: str
    chunks: Chunks
    allowance: Allowance
    charset: str = ""  # what the rows read so far were in, where that isn't UTF-8

    @property
    def name(self) -> str:
        """What it is called."""
        return self.origin.archive

    def rows(
        self,
        longest: int = LONGEST,
        delimiter: str = "",
        header: Sequence[str] = (),
        shape: Shape | None = None,
    ) -> Iterator[Row | Quarantined]:
        """Its rows, those of a text file excepted.

        `delimiter` parts the cells of CSV; empty: as the name or the header says. `header` names its columns where the
        file doesn't. By a `shape` rows are found in a file that is an object, and a header is told from a row.
        """
        if self.form in _BINARY:
            rows = _BINARY[self.form](self.path, self.origin, longest, self.allowance)
        elif self.form in ("csv", "tsv"):
            parted_by = delimiter or ("\t" if self.form == "tsv" else "")
            known = shape.is_header if shape else None
            rows = csv_rows(self.chunks, self.origin, longest, parted_by, header=header, is_header=known)
        else:
            rows = rows_of_json(self.chunks, self.origin, longest)
            rows = _flat(rows, shape) if shape else rows
        return self.partitioned(rows)

    def partitioned(self, rows: Iterator[_Read]) -> Iterator[_Read]:
        """Rows of it with the columns that its folders name, but for those that a row has itself."""
        columns = partition(self.name)
        for row in rows:
            if columns and isinstance(row, Row) and isinstance(row.value, dict):
                row.value = columns | row.value
            yield row


def partition(name: str) -> dict[str, str]:
    """The columns of a file of that name that stand in its folders and not in it, as Hive and Spark write tables:
    `language=zh/year=2024/part-0.parquet`. What isn't allowed in a name is %-encoded there."""
    found = (_PARTITION.fullmatch(folder) for folder in name.split("/")[:-1])
    return {match[1]: unquote(match[2]) for match in found if match and match[2] not in ("", _NO_VALUE)}


def _flat(rows: Iterator[Row | Quarantined], shape: Shape) -> Iterator[Row | Quarantined]:
    """Rows, also where the file is an object with the rows in it, or several of them."""
    for row in rows:
        inner = rows_within(row, shape.is_row, shape.keys) if isinstance(row, Row) else []
        yield from inner
        if not inner:
            yield row
            break
    yield from rows


def form(name: str) -> str:
    """`parquet`, `arrow`, `csv`, `tsv`, `text` or `json` (also where nothing says), by a file's name."""
    return _known_form(name) or "json"


def _known_form(name: str) -> str:
    path = PurePosixPath(name.lower())
    while path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
    return _FORMS.get(path.suffix, "")


def row_files(path: str, origin: Origin) -> Iterator[RowFile | Passed | Quarantined]:
    """The files of rows in a file, itself or those in it. Damage never raises; a file that can't be read does.

    No two are called alike: of several in an archive the second is `name~2`.
    """
    names: Counter[str] = Counter()
    for file in _files(path, origin, form(origin.archive), 0, allowance_of(path)):
        if isinstance(file, RowFile):
            names[own := file.name] += 1
            while names[own] > 1 and names[file.name] > 0:
                file.origin = origin.within(f"{own}~{names[own]}")
                names[own] += names[file.name] > 0
            names[file.name] = max(1, names[file.name])
        yield file


def _files(
    path: str, origin: Origin, kind: str, depth: int, allowance: Allowance
) -> Iterator[RowFile | Passed | Quarantined]:
    with Path(path).open("rb") as stream:
        head = stream.read(8)
    if depth > MAX_DEPTH:
        yield origin.lost("nested", f"more than {MAX_DEPTH} archives within each other")
    elif head.startswith(_POINTER[:8]) and (problem := _other(_head(path))):
        yield origin.lost("form", problem, 0, -1)
    elif head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _within(zip_files(path, origin, allowance), origin, depth, allowance)
    elif binary := _binary(head, kind if compression(head + bytes(8)) == "none" else ""):
        yield RowFile(origin, binary, path, iter(()), allowance)
    else:
        chunks = decompressed(path, origin, allowance)
        first, chunks = peek(chunks, 512)
        if first[257:262] == b"ustar":
            yield from _within(tar_files(chunks, origin, allowance), origin, depth, allowance)
        elif _binary(first, kind):
            yield from _spooled(chunks, origin, depth, allowance)
        elif problem := _other(first):
            yield origin.lost("form", problem, 0, -1)
        elif kind:
            yield _row_file(origin, kind, path, chunks, allowance)
        else:
            yield Passed("other_file")


def _binary(head: bytes, kind: str) -> str:
    """`parquet` or `arrow` by a file's first bytes, or by its name; "" for others."""
    if head[:4] == b"PAR1":
        return "parquet"
    return "arrow" if head[:6] == MAGIC else kind if kind in _BINARY else ""


def _other(head: bytes) -> str:
    """What to do with a file that begins so and holds no rows as they are read here; "" for others."""
    if head.startswith(_POINTER):
        return "a pointer of Git LFS: fetch what it stands for (`git lfs pull`)"
    form = next((form for magic, form in _OTHERS.items() if head.startswith(magic)), "")
    return f"{form}: convert it to Parquet or JSON Lines" if form else ""


def _head(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return stream.read(len(_POINTER))


def _row_file(origin: Origin, kind: str, path: str, chunks: Chunks, allowance: Allowance) -> RowFile:
    """A file of rows of bytes. JSON is UTF-8 or UTF-16 by its standard; for lines and cells there is none."""
    file = RowFile(origin, kind, path, as_utf8(chunks), allowance)
    if kind in ("csv", "tsv", "text"):
        file.chunks = streamed(file.chunks, partial(setattr, file, "charset"))
    return file


def _within(
    files: Iterator[Entry], origin: Origin, depth: int, allowance: Allowance
) -> Iterator[RowFile | Passed | Quarantined]:
    for file in files:
        if isinstance(file, Packed):
            yield from _member(file, origin.within(f"{origin.archive}/{file.name}"), depth, allowance)
        else:
            yield file


def _member(file: Packed, origin: Origin, depth: int, allowance: Allowance) -> Iterator[RowFile | Passed | Quarantined]:
    """A file in an archive: read as it comes, or put aside where it has to be unpacked itself."""
    name = origin.archive
    kind = _known_form(name)
    packed = name.lower().endswith((*COMPRESSIONS, ".zip", ".tar", ".tgz", ".tbz2", ".txz")) or kind in _BINARY
    parts = PurePosixPath(name).parts
    if not (kind or packed) or "__MACOSX" in parts or parts[-1].startswith("."):
        yield Passed("other_file")
        return
    chunks = _blocks(file, origin)
    if packed:
        yield from _spooled(chunks, origin, depth, allowance)
    else:
        yield _row_file(origin, kind, "", chunks, allowance)


def _blocks(file: Packed, origin: Origin) -> Chunks:
    """What a member holds, and at its end, if that comes too early, why."""
    done = 0
    try:
        for block in file.blocks:
            done += len(block)
            yield block
    except BombError as error:
        yield origin.lost(BOMB, str(error), done, -1)
        return
    except DAMAGE as error:
        if not file.damage:
            yield origin.lost("damaged", f"{type(error).__name__}: {error}"[:200], done, -1)
    if file.damage:
        yield file.damage.pop()
    elif done < file.size:
        yield origin.lost("truncated", f"{done} of {file.size} bytes", done, -1)


def _spooled(
    chunks: Chunks, origin: Origin, depth: int, allowance: Allowance
) -> Iterator[RowFile | Passed | Quarantined]:
    damage: list[Quarantined] = []
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            if isinstance(chunk, Quarantined):
                damage.append(chunk)
                break
            file.write(chunk)
            if file.tell() > MAX_SPOOL:
                yield origin.lost("too_large", f"more than {MAX_SPOOL} bytes in an archive", 0, -1)
                return
        file.flush()
        yield from _files(f"/dev/fd/{file.fileno()}", origin, _known_form(origin.archive), depth + 1, allowance)
    yield from damage
