"""The lake: Parquet files in Iceberg tables, and beside them what else a run leaves (folders, records, leases).

    shards/STAGE/KEY/          Parquet files by shard key: shared by every run that needs the same shard
    contents/NAME/             which files each reference to a table or folder holds: what is true of it
    catalog.db  warehouse/     the same as Iceberg tables (SQLite unless HEADWATER_CATALOG names another), for others
    folders/STAGE/FINGERPRINT/ what isn't a table: tokenizers, token shards, checkpoints
    records/  runs/            one JSON per finished stage; one manifest per finished run
    leases/  results/          who builds what just now; Prefect's results
    labels/                    what people said (`flows.label.labels`)

The root is a folder, or an address such as `s3://bucket/prefix`: see `datalake.places`.

Every table is replaced whole by one commit of one stage. A `TableRef` names its content, so an older run's tables stay
readable after a newer one has committed. All paths are relative to the lake: it can be moved and copied.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from datalake.atomic import FILES, write_atomically
from datalake.errors import LostDataError, UserError, note
from datalake.identity import data_version, fingerprint
from datalake.lake import leases
from datalake.lake.contents import (
    Contents,
    Digest,
    Entry,
    Inside,
    Name,
    TableName,
    file_trouble,
    inside,
    now,
    serialised,
)
from datalake.lake.copies import digest_of, files_of_folder, shard_entries, verify
from datalake.lake.database import database_url
from datalake.lake.iceberg import TableFiles, Tables, snapshot_properties
from datalake.lake.reach import begin, reach
from datalake.places import is_local, place, relative_to, remove_folder, root_of, several

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog

    from datalake.lake.shards import ShardFile

RUNNING = "running.json"  # in the folder of a stage that trains: its fingerprint and name, before there is a record
MARKS = frozenset(("shard.json", "state.json", "report.json", FILES))  # what says that a folder is whole


class TableRef(BaseModel):
    """A table as one stage left it. Passed between stages in place of data; its `data_version` is its identity."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["table"] = "table"
    table: TableName
    snapshot: int | None
    fingerprint: Digest
    data_version: Digest
    rows: int


class FolderRef(BaseModel):
    """A folder one stage wrote (a tokenizer, token shards, a checkpoint); `path` is relative to the lake."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["folder"] = "folder"
    name: Name
    path: Inside
    fingerprint: Digest
    data_version: Digest


Ref = TableRef | FolderRef


class Lake:
    """A lake at a folder, or at an address. Cheap to open; the catalog is loaded when first needed."""

    def __init__(self, root: str | Path):
        self.root = root_of(root)
        self.tables = Tables(self.root, self._everything)

    def create(self) -> Lake:
        """Make sure the lake is there and can be written. Raises UserError where it can't."""
        if not is_local(self.root):
            begin(self.root)
            self.tables.reach()
            return self
        try:
            str(self.root).encode()
        except UnicodeEncodeError:
            raise UserError(f"the lake {str(self.root)!r} can't be named in UTF-8: choose another folder") from None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"the lake {self.root} can't be written ({error.strerror}): choose another folder with --lake"
            ) from None
        self.tables.reach()
        return self

    def require(self) -> Lake:
        """Make sure a lake is there to read. Raises UserError where none is."""
        if not is_local(self.root):
            reach(self.root)
        if not any((self.root / name).exists() for name in ("runs", "records", "catalog.db")):
            raise UserError(f"no lake at {self.root}: run a recipe first, or name another folder with --lake")
        return self

    # Places ---------------------------------------------------------------------------------------------------

    def shard_folder(self, stage: str, key: str) -> Path:
        """Where a shard's files are, finished or not."""
        return self.root / "shards" / stage / key[:2] / key

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where a stage keeps what isn't a table, its state for resuming included."""
        return self.root / "folders" / stage / fingerprint[:16]

    def relative(self, path: Path) -> str:
        """A path inside the lake, relative to its root."""
        if not is_local(self.root):  # an address would look at the options of its store each time
            return relative_to(self.root, str(path)) or str(path)
        return path.relative_to(self.root).as_posix()

    def path(self, ref: FolderRef) -> Path:
        """Where a folder reference points now."""
        return self.inside(ref.path)

    def inside(self, path: str) -> Path:
        """A path relative to the lake, as records name files. Raises UserError where it leads out of the lake."""
        return inside(self.root, path)

    # Tables ---------------------------------------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """The Iceberg catalog: SQLite inside the lake unless HEADWATER_CATALOG holds the URL of another database."""
        return self.tables.catalog

    def commit(self, name: str, schema: pa.Schema, files: Sequence[ShardFile], fingerprint: str) -> TableRef:
        """Make `files` the whole content of a table in one commit; returns the reference to it.

        A table that already holds this content isn't committed again. Concurrent commits by other processes are
        retried.
        """
        held = Contents(
            name=name,
            fingerprint=fingerprint,
            data_version=data_version([file.digest for file in files]),
            made=now(),
            columns=serialised(schema),
            files=[self._entry(file) for file in files],
        )
        self._write_contents(held)
        return TableRef(
            table=name,
            snapshot=self.tables.replace(self._as_table(held, schema)),
            fingerprint=fingerprint,
            data_version=held.data_version,
            rows=held.rows,
        )

    def commit_folder(self, name: str, folder: Path, fingerprint: str, files: Sequence[ShardFile] = ()) -> FolderRef:
        """Note what a finished folder holds, and the files elsewhere in the lake that it names; the reference to it."""
        found = files_of_folder(folder)
        held = Contents(
            name=name,
            fingerprint=fingerprint,
            data_version=data_version([f"{path} {digest}" for path, digest, _ in found]),
            made=now(),
            files=[
                *(Entry(path=self.relative(folder / path), bytes=size, digest=digest) for path, digest, size in found),
                *(self._entry(file) for file in files),
            ],
        )
        self._write_contents(held)
        return FolderRef(name=name, path=self.relative(folder), fingerprint=fingerprint, data_version=held.data_version)

    def _entry(self, file: ShardFile) -> Entry:
        return Entry(path=self.relative(place(file.path)), rows=file.rows, bytes=file.bytes, digest=file.digest)

    def _contents_file(self, name: str, fingerprint: str, version: str) -> Path:
        return self.root / "contents" / name / f"{fingerprint[:32]}-{version[:32]}.json"

    def list_of(self, ref: Ref) -> str:
        """Where the list of a reference's files lies, or would: a path in the lake."""
        name = ref.table if isinstance(ref, TableRef) else ref.name
        return self.relative(self._contents_file(name, ref.fingerprint, ref.data_version))

    def _write_contents(self, held: Contents) -> None:
        path = self._contents_file(held.name, held.fingerprint, held.data_version)
        write_atomically(path, held.model_dump_json(indent=1).encode())

    def contents(self, ref: Ref) -> Contents | None:
        """What a reference holds; None where no list of it can be read (it is lost, cut, or of an older lake)."""
        name = ref.table if isinstance(ref, TableRef) else ref.name
        try:
            data = (self.root / self.list_of(ref)).read_bytes()
            held = Contents.model_validate_json(data)
        except (OSError, ValidationError):
            return None
        meant = (held.name, held.fingerprint, held.data_version) == (name, ref.fingerprint, ref.data_version)
        rows = isinstance(ref, FolderRef) or (held.columns is not None and held.rows == ref.rows)
        return held if meant and rows else None

    def files(self, ref: TableRef) -> list[str]:
        """The Parquet files of a table as the reference has it that have rows, sorted by path.

        Raises:
            LostDataError: where they can't be read: never an empty table for one that has rows.
        """
        if not ref.rows:
            return []
        held = self.contents(ref)
        if held is not None:
            return held.paths(self.root)
        paths = [] if ref.snapshot is None else self.tables.planned(ref.table, ref.snapshot)
        if not paths:
            raise LostDataError(ref.table, f"nothing says any more which files held its {ref.rows:,} rows")
        for path in paths:
            if not place(path).is_file():
                raise LostDataError(ref.table, f"{path} is missing")
        return paths

    def schema(self, ref: TableRef) -> pa.Schema:
        """A table's columns. Raises LostDataError where nothing says them any more."""
        held = self.contents(ref)
        if held is not None:
            return held.schema
        try:
            return self.catalog.load_table(ref.table).schema().as_arrow()
        except Exception:
            raise LostDataError(ref.table, "nothing says any more which columns it had") from None

    def current_files(self, name: str) -> list[str]:
        """The Parquet files of a table as it stands now, or none when there is no such table.

        Raises LostDataError where a table of one stage can't be read. Of `runs.*` and `models.*`, to which every stage
        appends, what can be read is given, and what can't is said on stderr.
        """
        if (self.root / "shards" / name).is_dir():
            return [file.path for file in self._appended(name)]
        newest = self._newest(name)
        return newest[name].paths(self.root) if newest else []

    def _appended(self, name: str) -> list[ShardFile]:
        """The files of a table that grows: all of its finished shards."""
        from datalake.lake.shards import find_shard

        found, cut = [], 0
        folders = sorted(mark.parent for mark in (self.root / "shards" / name).glob("*/*/shard.json"))
        for made in several(find_shard, folders, self.root):
            cut += made is None
            found += [file for file in made.files if file.rows] if made else []
        if cut:
            note(f"{name} of {self.root} lacks the rows of {cut} damaged files: headwater doctor --deep names them")
        return found

    def _newest(self, name: str = "*") -> dict[str, Contents]:
        """What each table of one stage, or this one, holds by its last commit."""
        newest: dict[str, Contents] = {}
        for held in several(_contents_in, (self.root / "contents").glob(f"{name}/*.json"), self.root):
            if held is None or held.columns is None:
                continue
            if held.name not in newest or newest[held.name].made < held.made:
                newest[held.name] = held
        return newest

    def _everything(self) -> Iterator[TableFiles]:
        """Every table as it stands, for a catalog that is made anew."""
        import pyarrow as pa

        from datalake.lake.parquet import read_schema

        for held in self._newest().values():
            if not held.trouble(self.root):
                yield self._as_table(held, held.schema)
        for folder in sorted((self.root / "shards").glob("*.*")):
            paths = [file.path for file in self._appended(folder.name)]
            if paths:
                schema = pa.unify_schemas([read_schema(path).remove_metadata() for path in paths])
                yield TableFiles(folder.name, schema, paths, {})

    def _as_table(self, held: Contents, schema: pa.Schema) -> TableFiles:
        paths = [str(self.root / file.path) for file in held.files if file.rows]
        return TableFiles(held.name, schema, paths, snapshot_properties(held.fingerprint, held.data_version))

    def append_rows(
        self, name: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]], owner: str, once: bool = False
    ) -> None:
        """Append rows to one of the `runs.*` or `models.*` tables: one small file, named after who wrote it.

        With `once`, what this owner has appended before stands, as when a stage was killed after telling its metrics
        and before its record.
        """
        import pyarrow as pa

        from datalake.lake.shards import ShardWriter, find_shard

        if not rows:
            return
        _ = self.tables.catalog  # first: one that is made anew takes along what lies in the lake already
        key = fingerprint({"table": name, "owner": owner} | ({} if once else {"rows": len(rows), "at": time.time_ns()}))
        folder, short = self.shard_folder(name, key), name.split(".")[1]
        made = find_shard(folder) if once else None
        if made is None:
            with ShardWriter(folder, owner, key, {short: schema}) as out:
                out.write(short, pa.Table.from_pylist(list(rows), schema=schema))
            made = out.result
        paths = [file.path for file in made.files]
        version = data_version([file.digest for file in made.files])
        self.tables.append(TableFiles(name, schema, paths, snapshot_properties(owner, version)), once)

    # Leases ---------------------------------------------------------------------------------------------------

    def lease(self, fingerprint: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[bool]:
        """Hold the right to build one fingerprint; waits for whoever holds it. Gives whether it had to wait.

        `on_wait` is called before waiting, to tell so. It ends with its holder: see `datalake.lake.leases`.
        """
        return leases.lease(self.root, database_url(), fingerprint[:32], on_wait)

    def still(self) -> AbstractContextManager[None]:
        """Hold back every stage that would begin; those that have begun go on (`running`)."""
        return leases.still(self.root, database_url())

    def running(self) -> dict[str, str]:
        """The fingerprints (their first 32 digits) whose leases are held now, each with its stage where that is known:
        of those that train. Certain inside of `still` alone."""
        stages = {}
        for path in (self.root / "folders").glob(f"*/*/{RUNNING}"):
            with suppress(OSError, ValueError, KeyError):
                told = json.loads(path.read_bytes())
                stages[told["fingerprint"][:32]] = told["stage"]
        return {name: stages.get(name, "") for name in leases.held(self.root, database_url())}

    # What is there ---------------------------------------------------------------------------------------------

    def remove(self, path: str) -> None:
        """Remove a file or folder of the lake that nothing names, by its path relative to the lake.

        What says that a folder is finished goes first: a kill at any moment leaves one that counts as unfinished.
        """
        thing = self.inside(path)
        if not thing.is_dir() or thing.is_symlink():
            thing.unlink(missing_ok=True)
            return
        inner = sorted(thing.rglob("*"), key=lambda one: (one.name not in MARKS, -len(one.parts), one.name))
        for one in inner:
            if one.is_file() or one.is_symlink():
                one.unlink(missing_ok=True)
        if is_local(thing):
            for one in inner:
                if one.is_dir() and not one.is_symlink():
                    one.rmdir()
            thing.rmdir()
        else:
            remove_folder(thing)  # its copy on this machine

    def trouble(self, ref: Ref) -> str:
        """What is wrong with what a reference points to; empty where all of it is there, at its size."""
        try:
            held = self.contents(ref)
            if held is not None:
                return held.trouble(self.root)
            if isinstance(ref, TableRef):
                self.files(ref)
                return ""
        except LostDataError as error:
            return error.why
        return "" if any(path.is_file() for path in self.path(ref).rglob("*")) else f"{self.path(ref)} is missing"

    def present(self, ref: Ref) -> bool:
        """Whether everything a reference points to is still there, at its size."""
        return not self.trouble(ref)

    def verify(self, ref: FolderRef) -> None:
        """Make sure that each file behind a folder's reference is what was written. Raises LostDataError else.

        Of a lake in a store it is seen to where a file is fetched, and here that each is there at its size.
        """
        held = self.contents(ref)
        if held is not None and not is_local(self.root):
            if why := held.trouble(self.root):
                raise LostDataError(held.name, why)
            return
        for file in held.files if held is not None else ():
            verify(self.root / file.path, file.bytes, file.digest)

    def damaged_files(self) -> Iterator[str]:
        """What is wrong with each file that a finished shard or a list of contents names, by size and by digest."""
        known: dict[Path, tuple[int, str]] = {}
        for mark in sorted((self.root / "shards").glob("*/*/*/shard.json")):
            entries = shard_entries(mark)
            if entries is None:
                yield f"{mark} can't be read"
            known |= {mark.parent / name: written for name, written in (entries or {}).items()}
        for path in sorted((self.root / "contents").glob("*/*.json")):
            held = _contents_in(path)
            if held is None:
                yield f"{path} can't be read"
                continue
            known |= {self.root / file.path: (file.bytes, file.digest) for file in held.files}
        for path, (size, digest) in known.items():
            why = file_trouble(path, size)
            if why or digest_of(path) != digest:
                yield why or f"{path} isn't what was written"


def _contents_in(path: Path) -> Contents | None:
    """The list in a file; None where it can't be read."""
    try:
        return Contents.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
