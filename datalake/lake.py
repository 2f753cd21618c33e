"""The lake: Parquet files in Iceberg tables, and beside them what else a run leaves (folders, records, leases).

    catalog.db  warehouse/     the Iceberg catalog (SQLite unless HEADWATER_CATALOG names another) and its metadata
    shards/STAGE/KEY/          Parquet files by shard key: shared by every run that needs the same shard
    folders/STAGE/FINGERPRINT/ what isn't a table: tokenizers, token shards, checkpoints
    records/  runs/            one JSON per finished stage; one manifest per finished run
    leases/  results/          who builds what just now; Prefect's results

Every table is replaced whole by one commit of one stage. A `TableRef` names the snapshot, so an older run's tables stay
readable after a newer one has committed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from datalake.errors import UserError
from datalake.identity import data_version, fingerprint

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from datalake.shards import ShardFile


class TableRef(BaseModel):
    """A table as one stage left it. Passed between stages in place of data; its `data_version` is its identity."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["table"] = "table"
    table: str
    snapshot: int | None
    fingerprint: str
    data_version: str
    rows: int


class FolderRef(BaseModel):
    """A folder one stage wrote (a tokenizer, token shards, a checkpoint); `path` is relative to the lake."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["folder"] = "folder"
    name: str
    path: str
    fingerprint: str
    data_version: str


Ref = TableRef | FolderRef


class Lake:
    """A lake at a local folder. Cheap to open; the catalog is loaded when first needed."""

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser().absolute()
        self._catalog: Catalog | None = None

    def create(self) -> Lake:
        """Make sure the folder is there and can be written. Raises UserError where it can't."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"the lake {self.root} can't be written ({error.strerror}): choose another folder with --lake"
            ) from None
        return self

    def require(self) -> Lake:
        """Make sure a lake is there to read. Raises UserError where none is."""
        if not (self.root / "catalog.db").exists() and not (self.root / "runs").is_dir():
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
        return path.relative_to(self.root).as_posix()

    def path(self, ref: FolderRef) -> Path:
        """Where a folder reference points now."""
        return self.root / ref.path

    # Tables ---------------------------------------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """The Iceberg catalog: SQLite inside the lake unless HEADWATER_CATALOG holds the URL of another database."""
        if self._catalog is None:
            from pyiceberg.catalog.sql import SqlCatalog

            uri = os.environ.get("HEADWATER_CATALOG") or f"sqlite:///{self.root}/catalog.db"
            for attempt in range(5):
                try:
                    self._catalog = SqlCatalog("headwater", uri=uri, warehouse=f"file://{self.root}/warehouse")
                    break
                except Exception:  # two runs creating the catalog's tables at once: the second tries again
                    if attempt == 4:
                        raise
                    time.sleep(0.2 * (attempt + 1))
        assert self._catalog is not None
        return self._catalog

    def _table(self, name: str, schema: pa.Schema) -> Table:
        from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
        from sqlalchemy.exc import IntegrityError

        namespace = name.split(".")[0]
        with suppress(NamespaceAlreadyExistsError, IntegrityError):
            self.catalog.create_namespace_if_not_exists(namespace)
        try:
            table = self.catalog.create_table_if_not_exists(name, schema=schema)
        except (TableAlreadyExistsError, IntegrityError):
            table = self.catalog.load_table(name)
        except FileNotFoundError:
            # The catalog knows where the metadata was: the lake has been moved since, or lost it. What the table holds
            # is committed anew from the shards, so only the history of the old place is given up.
            self.catalog.drop_table(name)
            table = self.catalog.create_table_if_not_exists(name, schema=schema)
        if set(schema.names) - {field.name for field in table.schema().fields}:
            with table.update_schema() as update:
                update.union_by_name(schema)
        return table

    def commit(
        self, name: str, schema: pa.Schema, files: Sequence[ShardFile], fingerprint: str, append: bool = False
    ) -> TableRef:
        """Make `files` the whole content of a table (or append them) in one commit; returns the reference to it.

        The fingerprint and data version go into the snapshot's properties. A table that already holds this content
        isn't committed again. Concurrent commits by other processes are retried.
        """
        from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationException
        from pyiceberg.expressions import AlwaysTrue
        from sqlalchemy.exc import OperationalError

        # Another process was first (pyiceberg says so in two ways), or SQLite was locked for longer than it waits.
        in_the_way = (CommitFailedException, CommitStateUnknownException, ValidationException, OperationalError)

        version = data_version([file.digest for file in files])
        rows = sum(file.rows for file in files)
        properties = {"headwater.fingerprint": fingerprint, "headwater.data-version": version}
        for attempt in range(10):
            try:
                table = self._table(name, schema)
                current = table.current_snapshot()
                if not append and current and current.summary:
                    held = current.summary.additional_properties
                    if all(held.get(key) == value for key, value in properties.items()):
                        break
                with table.transaction() as transaction:
                    if not append and current is not None:
                        transaction.delete(AlwaysTrue())
                    paths = [file.path for file in files if file.rows]
                    if paths:
                        transaction.add_files(paths, snapshot_properties=properties, check_duplicate_files=False)
                current = table.current_snapshot()  # our own: a refresh could already see the next one's
                break
            except in_the_way:
                if attempt == 9:
                    raise
                time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))
        return TableRef(
            table=name,
            snapshot=current.snapshot_id if current else None,
            fingerprint=fingerprint,
            data_version=version,
            rows=rows,
        )

    def files(self, ref: TableRef) -> list[str]:
        """The Parquet files of a table at the reference's snapshot, sorted by path."""
        if ref.snapshot is None or not ref.rows:
            return []
        scan = self.catalog.load_table(ref.table).scan(snapshot_id=ref.snapshot)
        return sorted(task.file.file_path.removeprefix("file://") for task in scan.plan_files())

    def current_files(self, name: str) -> list[str]:
        """The Parquet files of a table as it stands now, or none when there is no such table."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            table = self.catalog.load_table(name)
        except (NoSuchTableError, FileNotFoundError):  # the latter: a lake that was moved, see `_table`
            return []
        return sorted(task.file.file_path.removeprefix("file://") for task in table.scan().plan_files())

    def append_rows(
        self, name: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]], owner: str, once: bool = False
    ) -> None:
        """Append rows to one of the `runs.*` or `models.*` tables: one small file, named after who wrote it.

        With `once`, what this owner has appended before stands, as when a stage was killed after telling its metrics
        and before its record.
        """
        import pyarrow as pa

        from datalake.shards import ShardWriter

        if not rows:
            return
        key = fingerprint({"table": name, "owner": owner} | ({} if once else {"rows": len(rows), "at": time.time_ns()}))
        folder = self.shard_folder(name, key)
        if once and str(folder / f"{name.split('.')[1]}.parquet") in self.current_files(name):
            return
        with ShardWriter(folder, owner, key, {name.split(".")[1]: schema}) as out:
            out.write(name.split(".")[1], pa.Table.from_pylist(list(rows), schema=schema))
        self.commit(name, schema, out.result.files, owner, append=True)

    # Leases ---------------------------------------------------------------------------------------------------

    @contextmanager
    def lease(self, fingerprint: str, on_wait: Callable[[], None] | None = None) -> Iterator[bool]:
        """Hold the right to build one fingerprint; waits for whoever holds it. Yields whether it had to wait.

        `on_wait` is called before waiting, to tell so.

        A lock of the operating system on a file: it ends with its holder, however that ends.
        """
        from filelock import FileLock, Timeout

        folder = self.root / "leases"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{fingerprint[:32]}.lock")
        waited = False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waited = True
            if on_wait:
                on_wait()
            lock.acquire()
        try:
            yield waited
        finally:
            lock.release()

    def present(self, ref: Ref) -> bool:
        """Whether everything a reference points to is still there."""
        if isinstance(ref, FolderRef):
            return any(path.is_file() for path in self.path(ref).rglob("*"))
        try:
            return all(Path(path).exists() for path in self.files(ref))
        except Exception:  # a table or snapshot that is gone, whatever the catalog calls it
            return False
