"""The database of a lake's Prefect server: whether it can be used, and what becomes of one that can't.

It holds the history that the UI shows and nothing that a run rests on, so a damaged one is set aside and never stands
in the way of a run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
from pathlib import Path

from flows.service.login import place_of

_FILES = ("prefect.db", "prefect.db-wal", "prefect.db-shm", "prefect.db-journal")


def set_aside_damaged(lake: Path) -> str:
    """Rename the database of the lake's server where it can't be used; says so in one line, or nothing."""
    folder = place_of(lake)
    reason = damage(folder / "prefect.db")
    if not reason:
        return ""
    number = next(n for n in range(1, 1_000_000) if not (folder / f"prefect.db.damaged-{n}").exists())
    for name in reversed(_FILES):  # the database last: without it the others are of no use
        with contextlib.suppress(FileNotFoundError):
            (folder / name).rename(folder / f"{name}.damaged-{number}")
    return (
        f"{folder / 'prefect.db'} {reason}: set aside as prefect.db.damaged-{number}, the history in the UI begins anew"
    )


def damage(database: Path) -> str:
    """What is wrong with a server's SQLite database; empty where it is sound or isn't there yet."""
    if not database.exists():
        return ""
    if not database.is_file():
        return "is no file"
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened:
            [[found]] = opened.execute("PRAGMA quick_check(1)")
            if found != "ok":
                return f"is damaged ({' '.join(str(found).split())[:100]})"
            tables = {name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return ""
            if "alembic_version" not in tables:
                return "is no database of Prefect"
            revisions = [revision for (revision,) in opened.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.OperationalError as error:
        if "locked" in str(error):  # by a run that uses it, so it can be used
            return ""
        return f"is damaged ({error})"
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    unknown = [revision for revision in revisions if not _known(revision)]
    return f"is of another version of Prefect (revision {unknown[0]})" if unknown else ""


def _known(revision: str) -> bool:
    """Whether the Prefect that is installed has this revision of its schema; its files are named after them."""
    spec = importlib.util.find_spec("prefect")
    if spec is None or spec.origin is None or not revision.isalnum():
        return False
    versions = Path(spec.origin).parent / "server" / "database" / "_migrations" / "versions" / "sqlite"
    return not versions.is_dir() or any(versions.glob(f"*{revision}*.py"))
