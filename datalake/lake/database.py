"""The database that HEADWATER_CATALOG names, for a lake's Iceberg catalog and for its leases: its URL, as people write
it and as libraries take it, and what it says where it won't have us.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any

from datalake.errors import UserError, first_line

CATALOG = "HEADWATER_CATALOG"
# Without a user before the host, which would be masked.
_FORMS = "postgresql://HOST/DATABASE (USER:PASSWORD@ before it), sqlite:////FOLDER/catalog.db, or https://... (REST)"
# What waiting doesn't mend, as PostgreSQL, PgBouncer and SQLite say it; they have no codes for it.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|no such (?:user|database)"
    r"|does not support SSL|certificate|invalid dsn|unable to open database file",
    re.IGNORECASE,
)
_NOT_ALLOWED = ("BadRequestError", "ForbiddenError", "OAuthError", "UnauthorizedError")  # as pyiceberg says it of REST


class AwayError(UserError):
    """The database can't be reached just now."""


def database_url() -> str:
    """The URL, as SQLAlchemy and pyiceberg take it; empty where none is named.

    Raises UserError where it can't be used; it may hold a password, and isn't shown.
    """
    return _read(os.environ.get(CATALOG, ""))


def is_postgres(url: str) -> bool:
    """Whether the URL of a database is one of PostgreSQL."""
    return url.startswith(("postgresql://", "postgresql+"))


def is_rest(url: str) -> bool:
    """Whether the URL is one of a server of Iceberg's REST."""
    return url.startswith(("http://", "https://"))


def engine(url: str) -> Any:
    """SQLAlchemy's engine for a database, without a pool: each connection to it is one of its own."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine(url, poolclass=NullPool)


@cache
def _read(text: str) -> str:
    words = text.strip().strip("\"'").strip()  # as a line of an environment file leaves them
    if not words:
        return ""
    scheme, separator, rest = words.partition("://")
    if not separator:
        raise UserError(f"{CATALOG} is no URL of a database: write {_FORMS}")
    family, plus, driver = scheme.lower().partition("+")
    if family == "postgres":  # as libpq and many hosts have it, and SQLAlchemy not
        family = "postgresql"
    url = f"{family}{plus}{driver}://{rest}"
    if not is_rest(url):
        _check(url)
    return url


def _check(url: str) -> None:
    """Make sure that SQLAlchemy can use a URL. Raises UserError where it can't."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    scheme = url.partition("://")[0]
    try:
        read = make_url(url)
        if "@" in (read.host or ""):
            raise ValueError
        dialect = read.get_dialect()
        dialect.import_dbapi()
    except NoSuchModuleError:
        raise UserError(f"{CATALOG}: there is no {scheme}://: write {_FORMS}") from None
    except (ArgumentError, ValueError):
        raise UserError(
            f"{CATALOG} can't be read: write {_FORMS}; in USER and PASSWORD %40 is @, %3A is :, %2F is /, %25 is %"
        ) from None
    except ImportError as error:
        raise UserError(f"{CATALOG}: {scheme}:// needs a package ({first_line(error)}): install it") from None
    if dialect.is_async:
        raise UserError(f"{CATALOG}: {scheme}:// is for asynchronous programs: write {scheme.partition('+')[0]}://")


def unavailable(error: BaseException) -> UserError:
    """What an error of the database means, in one line: it won't have us, however long one waits, or it is away."""
    said, what = first_line(error), "server" if is_rest(database_url()) else "database"
    if _REFUSED.search(said) or type(error).__name__ in _NOT_ALLOWED:
        return UserError(f"the catalog's {what} refuses ({said}): correct {CATALOG}, or the {what}")
    return AwayError(f"the catalog's {what} doesn't answer ({said}): start it, or correct {CATALOG}")
