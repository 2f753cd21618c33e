"""Shards: the unit of work. One shard in, one Parquet file out per output table, then one `shard.json` that says done.

Files are written under a temporary name, flushed to disk and renamed; `shard.json` comes last, so a folder that has it
is complete and one that lacks it is rewritten from the start. The same input and configuration give the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from datalake.atomic import remove_leftovers, settle, sync, temporary, write_atomically
from datalake.digests import file_digest
from datalake.identity import fingerprint
from datalake.lake.copies import digest_of
from datalake.places import copy_of, is_local, make_folder

# A row group is closed when it holds this much text or this many rows: small enough that a reader's memory stays
# bounded and Arrow string offsets never overflow, large enough to compress well.
ROW_GROUP_BYTES = 32 << 20
ROW_GROUP_ROWS = 16_384


@dataclass(frozen=True)
class ShardFile:
    """One Parquet file of one table: where it is, how many rows, the xxh128 of its bytes."""

    table: str
    path: str
    rows: int
    digest: str
    bytes: int


@dataclass
class ShardResult:
    """What became of a shard. `state` is `ran`, `found` (finished by an earlier run) or `failed` (see `error`)."""

    name: str
    key: str
    state: str = "ran"
    files: list[ShardFile] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


def shard_key(stage: str, version: str, config: Any, source: Any) -> str:
    """The identity of a shard's output: independent of its siblings, so that finished shards serve every run."""
    return fingerprint({"stage": stage, "version": version, "config": config, "input": source})


class ShardWriter:
    """Writes the tables of one shard into its folder. Use as a context manager; an exception leaves nothing finished.

    >>> with ShardWriter(folder, name, key, {"raw": RAW}) as out:      # doctest: +SKIP
    ...     out.write("raw", table)
    ...     out.count("records", table.num_rows)
    """

    def __init__(self, folder: Path, name: str, key: str, schemas: Mapping[str, pa.Schema]):
        self.folder = folder
        self.result = ShardResult(name, key)
        self._schemas = schemas
        self._pending: dict[str, list[pa.Table]] = {table: [] for table in schemas}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._rows = dict.fromkeys(schemas, 0)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        make_folder(self.folder)
        remove_leftovers(self.folder)
        for table, schema in self._schemas.items():
            self._writers[table] = pq.ParquetWriter(temporary(self._path(table)), schema, **encoding(schema))
        return self

    def write(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table of this shard."""
        if rows.num_rows:
            self._pending[table].append(rows)
            self._rows[table] += rows.num_rows
            self._flush(table, final=False)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to one of the shard's counts."""
        self.result.counts[name] = self.result.counts.get(name, 0) + amount

    def _path(self, table: str) -> Path:
        return self.folder / f"{table}.parquet"

    def _flush(self, table: str, final: bool) -> None:
        pending = self._pending[table]
        rows = sum(part.num_rows for part in pending)
        size = sum(part.nbytes for part in pending)
        if rows and (final or rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES):
            merged = pa.concat_tables(pending).combine_chunks()
            self._writers[table].write_table(merged, row_group_size=ROW_GROUP_ROWS)
            pending.clear()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            for table in self._schemas:
                self._flush(table, final=True)
        for writer in self._writers.values():
            writer.close()
        if kind is not None:
            for table in self._schemas:
                temporary(self._path(table)).unlink(missing_ok=True)
            return
        for table in self._schemas:
            path, part = self._path(table), temporary(self._path(table))
            size, digest = part.stat().st_size, file_digest(str(part))
            settle(path)
            self.result.files.append(ShardFile(table, str(path), self._rows[table], digest, size))
        self.result.seconds = time.perf_counter() - self._start
        finish_shard(self.folder, self.result)


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """How columns are written. Binary ones are hashes: nothing in them repeats, and trying to pack them takes long.

    Pages have checksums, for whoever reads the files without their digests.
    """
    hashes = {field.name for field in schema if pa.types.is_binary(field.type)}
    if not hashes:
        return {"compression": "zstd", "write_page_checksum": True}
    others = [name for name in schema.names if name not in hashes]
    return {
        "compression": {name: "none" if name in hashes else "zstd" for name in schema.names},
        "use_dictionary": others,
        "write_statistics": others,
        "write_page_checksum": True,
    }


def written_file(table: str, path: Path, rows: int) -> ShardFile:
    """A file that was written to a shard's folder, as the shard's result names it."""
    here = path if is_local(path) or not copy_of(path).is_file() else copy_of(path)
    return ShardFile(table, str(path), rows, digest_of(here), here.stat().st_size)


def finish_shard(folder: Path, result: ShardResult) -> None:
    """Mark a shard's folder as complete. Paths are stored relative to the folder, so a lake can be read elsewhere."""
    body = asdict(result)
    body["files"] = [{**asdict(file), "path": Path(file.path).name} for file in result.files]
    write_atomically(folder / "shard.json", json.dumps(body, sort_keys=True, indent=1).encode())
    sync(folder)


def find_shard(folder: Path) -> ShardResult | None:
    """The result of a finished shard, or None when the folder isn't complete or a file is missing or cut."""
    try:
        body = json.loads((folder / "shard.json").read_bytes())
        # Names, never paths: a lake made elsewhere may say anything.
        found = [(folder / Path(file["path"]).name, file) for file in body.pop("files")]
        files = [ShardFile(**{**file, "path": str(path)}) for path, file in found]
        if any(path.stat().st_size != file["bytes"] for path, file in found):
            return None
        return ShardResult(**{**body, "files": files, "state": "found"})
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None  # ValueError: a mark that isn't JSON, nor even text
