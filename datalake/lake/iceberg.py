"""The lake's tables as Iceberg tables: a log of commits that other tools read. Headwater itself reads `contents/`.

A lake in a store has its catalog in the database that HEADWATER_CATALOG names: PostgreSQL, or Iceberg's REST; without
one each machine keeps its own, of its own commits.

Iceberg keeps absolute paths. So where the catalog speaks of another place (a lake that was moved, or copied), is
damaged or gone, it is set aside and made anew from what the lake holds; only the history of snapshots is given up.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datalake.errors import UserError, first_line, note
from datalake.lake.database import CATALOG, AwayError, database_url, engine, is_rest, unavailable
from datalake.places import home, is_local, place, relative_to

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

_NAME = "headwater"  # of the catalog, in its database
# Whoever comes second begins anew from what the first left. pyiceberg's own second try would add its files to those of
# the first, where both found the table empty: nothing is deleted from one that is.
_OURS = {"commit.retry.num-retries": "0"}
_TRIES = 30


class TableFiles(NamedTuple):
    """A table as the lake holds it: its schema, its files with rows, and the properties of its snapshot."""

    name: str
    schema: pa.Schema
    paths: list[str]
    properties: dict[str, str]


def local_path(location: str) -> str:
    """The path of a location: paths are written as they are; older lakes have `file://` before them, unescaped."""
    return location.removeprefix("file://")


class Tables:
    """The Iceberg tables of one lake. `everything` gives each table as it is, for a catalog that is made anew."""

    def __init__(self, root: Path, everything: Callable[[], Iterable[TableFiles]]):
        self.root = root
        self._everything = everything
        self._catalog: Catalog | None = None

    @property
    def file(self) -> Path:
        """The SQLite database of a catalog inside the lake, or of this machine for one in a store."""
        return home(self.root) / "catalog.db"

    @property
    def catalog(self) -> Catalog:
        """SQLite inside the lake unless HEADWATER_CATALOG holds the URL of another database; opened when asked for.

        Raises UserError where that other database holds the tables of another lake.
        """
        if self._catalog is None:
            from filelock import FileLock

            folder = home(self.root) / "leases"
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "catalog.lock"):  # one process looks, sets aside and makes anew; the others wait
                self._catalog = self._open()
        return self._catalog

    def reach(self) -> None:
        """Make sure that the catalog which HEADWATER_CATALOG names, if it does, answers. Raises UserError else."""
        url = database_url()
        if not url:
            return
        try:
            if is_rest(url):
                self._connect(url)
            else:
                engine(url).connect().close()
        except Exception as error:  # of the database's own driver, of requests, or of pyiceberg
            raise unavailable(error) from None

    def _open(self) -> Catalog:
        elsewhere = database_url()
        if elsewhere:
            catalog = self._connect(elsewhere)
            self._drop_foreign(catalog)
            return catalog
        why = self.trouble()
        if why:
            self._set_aside(why)
        fresh = not self.file.exists() or _locations(self.file) is None
        catalog = self._connect("")
        if fresh:
            for table in self._everything():
                self._fill(catalog, table)
        return catalog

    def _connect(self, url: str) -> Catalog:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.catalog.sql import SqlCatalog
        from sqlalchemy import URL
        from sqlalchemy.exc import InterfaceError, OperationalError

        options: dict[str, Any] = {"warehouse": str(self.root / "warehouse")}
        if not is_local(self.root):
            options["py-io-impl"] = "datalake.lake.store_io.StoreIO"
        if is_rest(url):  # what else it wants stands in PYICEBERG_CATALOG__HEADWATER__*
            return load_catalog(_NAME, type="rest", uri=url, **options)
        # A URL as an object, and a path as it is: nothing in a folder's name (`%20`, `#`, `?`) means anything.
        uri: Any = url or URL.create("sqlite", database=str(self.file))
        for attempt in range(5):
            try:
                return SqlCatalog(_NAME, uri=uri, **options)
            except Exception as error:  # two nodes creating a shared catalog's tables at once: the second tries again
                why = unavailable(error) if url and isinstance(error, OperationalError | InterfaceError) else None
                if attempt == 4 or not isinstance(why, AwayError | None):
                    raise why or error from None
                time.sleep(0.2 * (attempt + 1))
        raise AssertionError

    def location(self, name: str) -> str:
        """Where a table's metadata goes; a server of Iceberg's REST would have another place of its own for it."""
        return str(self.root / "warehouse" / name.replace(".", "/"))

    def holds(self, location: str) -> bool:
        """Whether a location is one within the lake."""
        if is_local(self.root):
            return self.root in Path(local_path(location)).parents
        return relative_to(self.root, location) is not None

    def trouble(self) -> str:
        """What is wrong with the catalog inside the lake, in words; empty where nothing is, or where there is none."""
        if not self.file.exists():
            return ""
        try:
            with closing(sqlite3.connect(self.file, timeout=30)) as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                return f"is damaged ({found})"
            locations = _locations(self.file)
        except sqlite3.OperationalError as error:
            if self.file.is_file() and "no such column" not in str(error):  # locked, or not ours to read
                raise UserError(f"the catalog {self.file} can't be read ({error})") from None
            return f"is damaged ({error})"
        except sqlite3.DatabaseError as error:
            return f"is damaged ({error})"
        for location in locations or ():
            path = place(local_path(location))
            if not self.holds(location):
                return f"was made at another place ({path.parent})"
            if not path.is_file():
                return f"names a file that is missing ({path})"
        return ""

    def _set_aside(self, why: str) -> None:
        stamp = f"aside-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        for name in ("catalog.db", "catalog.db-journal", "catalog.db-wal", "catalog.db-shm", "warehouse"):
            with suppress(FileNotFoundError):
                (self.file.parent / name).rename(self.file.with_name(f"{name}.{stamp}"))
        note(
            f"the catalog {self.file} {why}: it is set aside as catalog.db.{stamp} and made anew from the lake's files"
        )

    def _drop_foreign(self, catalog: Catalog) -> None:
        """In a database elsewhere, drop the tables of this lake's former place."""
        foreign = [row for row in _tables_of(catalog) if not self.holds(row[2])]
        tables = {table.name: table for table in self._everything()} if foreign else {}
        moved = []
        for namespace, name, location in foreign:
            if f"{namespace}.{name}" not in tables:
                continue  # of a lake that shares no name with this one
            if "://" in local_path(location) or not is_local(self.root) or Path(local_path(location)).is_file():
                raise UserError(
                    f"{CATALOG} holds the table {namespace}.{name} of another lake ({location}):"
                    " give each lake a database of its own"
                )
            moved.append(f"{namespace}.{name}")
        for name in moved:
            catalog.drop_table(name)
            self._fill(catalog, tables[name])
        if moved:
            note(f"the catalog was made before {self.root} lay there: its tables are made anew from the lake's files")

    def _fill(self, catalog: Catalog, table: TableFiles) -> None:
        """Commit a table as it is to a catalog that lacks it."""
        try:
            found = _table(catalog, table.name, table.schema, self.location(table.name))
            with found.transaction() as transaction:
                if table.paths:
                    transaction.add_files(
                        table.paths, snapshot_properties=table.properties, check_duplicate_files=False
                    )
        except Exception as error:  # one table that can't be shown stops no run: it is committed again when it is made
            note(f"{table.name} is not in the new catalog ({first_line(error)})")

    # Commits --------------------------------------------------------------------------------------------------

    def replace(self, table: TableFiles) -> int | None:
        """Make the files the whole content of a table, in one commit; returns the snapshot, None where there is none.

        A table that holds this content already isn't committed again.
        """
        from pyiceberg.expressions import AlwaysTrue

        def work(found: Table, _: bool) -> int | None:
            current = found.current_snapshot()
            if current and current.summary:
                held = current.summary.additional_properties
                if all(held.get(key) == value for key, value in table.properties.items()):
                    return current.snapshot_id
            with found.transaction() as transaction:
                if current is not None:
                    transaction.delete(AlwaysTrue())
                if table.paths:
                    transaction.add_files(
                        table.paths, snapshot_properties=table.properties, check_duplicate_files=False
                    )
            current = found.current_snapshot()  # our own: a refresh could already see the next one's
            return current.snapshot_id if current else None

        return self._committed(table, work)

    def append(self, table: TableFiles, once: bool = False) -> None:
        """Add files to a table; with `once` those that it doesn't hold yet."""

        def work(found: Table, again: bool) -> None:
            paths = table.paths
            if once or again:
                held = set(_planned(found, None))
                paths = [path for path in paths if path not in held]
            if paths:
                with found.transaction() as transaction:
                    transaction.add_files(paths, snapshot_properties=table.properties, check_duplicate_files=False)

        self._committed(table, work)

    def _committed(self, table: TableFiles, work: Callable[[Table, bool], Any]) -> Any:
        """What `work` does to a table: tried again while others commit too, and on a new table where it is damaged.

        It is told whether it is tried again: a commit that failed may have been made, and a new table may hold it.
        """
        from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationException

        away = _kinds_of_away()
        # Another process was first: pyiceberg says so in several ways.
        first = (CommitFailedException, CommitStateUnknownException, ValidationException)
        in_the_way: tuple[type[Exception], ...] = (*first, *away, AwayError)
        anew, local = False, is_local(self.root)
        for attempt in range(_TRIES):
            try:
                found = _table(self.catalog, table.name, table.schema, self.location(table.name))
                return work(found, anew or attempt > 0)
            except in_the_way as error:
                if attempt == _TRIES - 1:
                    if isinstance(error, away):
                        raise unavailable(error) from None
                    raise
                time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))
            except UserError:
                raise
            except Exception as error:  # metadata or manifests that are gone or cut, whatever their reader says then
                unread = not local and isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
                if anew or unread:  # a store that can't be asked says nothing of what it holds
                    raise
                anew = True
                self._make_anew(table.name, error)
        raise AssertionError

    def _make_anew(self, name: str, error: Exception) -> None:
        """Forget a table whose metadata can't be read, and commit it as the lake holds it."""
        why = first_line(error)
        note(f"the Iceberg table {name} of {self.root} can't be read ({why}): it is made anew from the lake's files")
        with suppress(Exception):
            self.catalog.drop_table(name)
        for table in self._everything():
            if table.name == name:
                self._fill(self.catalog, table)

    # Lakes from before there were contents ----------------------------------------------------------------------

    def planned(self, name: str, snapshot: int) -> list[str]:
        """The files of a table at a snapshot; none where the catalog doesn't know, or speaks of another place."""
        try:
            if not database_url() and (not self.file.exists() or self.trouble()):
                return []
            paths = _planned(self.catalog.load_table(name), snapshot)
        except Exception:  # a table or snapshot that is gone, whatever the catalog calls it
            return []
        return paths if all(map(self.holds, paths)) else []


def _kinds_of_away() -> tuple[type[Exception], ...]:
    """What says that a catalog doesn't answer now: a database that is started again, or locked (SQLite) for longer than
    one waits; a server that is gone, overloaded or ill."""
    from pyiceberg.exceptions import ServerError, ServiceUnavailableError, TooManyRequestsError
    from sqlalchemy.exc import InterfaceError, OperationalError

    kinds = (InterfaceError, OperationalError, ServerError, ServiceUnavailableError, TooManyRequestsError)
    requests = sys.modules.get("requests")  # is there where the catalog is Iceberg's REST, and takes long to import
    return (*kinds, requests.ConnectionError, requests.Timeout) if requests else kinds


def _tables_of(catalog: Catalog) -> list[tuple[str, str, str]]:
    """Namespace, name and place of the metadata of each table of a catalog in another database."""
    if not hasattr(catalog, "engine"):  # Iceberg's REST
        names = [name for (namespace,) in catalog.list_namespaces() for name in catalog.list_tables(namespace)]
        return [(*name, catalog.load_table(name).metadata_location) for name in names]  # type: ignore[misc]
    from sqlalchemy import text

    sql = "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables WHERE catalog_name = :name"
    with catalog.engine.connect() as connection:
        return [(*row[:2], row[2] or "") for row in connection.execute(text(sql), {"name": _NAME}).fetchall()]


def _locations(file: Path) -> list[str] | None:
    """Where the catalog's tables keep their metadata; None where it isn't a catalog yet."""
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchone():
            return None
        sql = "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ?"
        return [row[0] for row in connection.execute(sql, [_NAME]) if row[0]]


def _planned(table: Table, snapshot: int | None) -> list[str]:
    return sorted(local_path(task.file.file_path) for task in table.scan(snapshot_id=snapshot).plan_files())


def _table(catalog: Catalog, name: str, schema: pa.Schema, location: str) -> Table:
    """The table, made where it isn't there, with columns for all of the schema."""
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
    from sqlalchemy.exc import IntegrityError

    with suppress(NamespaceAlreadyExistsError, IntegrityError):
        catalog.create_namespace_if_not_exists(name.split(".")[0])
    try:
        table = catalog.create_table_if_not_exists(name, schema=schema, location=location, properties=_OURS)
    except (TableAlreadyExistsError, IntegrityError):
        table = catalog.load_table(name)
    if set(schema.names) - {field.name for field in table.schema().fields}:
        with table.update_schema() as update:
            update.union_by_name(schema)
    return table


def snapshot_properties(fingerprint: str, version: str) -> dict[str, str]:
    """What a snapshot says of what it holds."""
    return {"headwater.fingerprint": fingerprint, "headwater.data-version": version}
