"""HEADWATER_CATALOG as people write it: what is understood, and what is told in one line that shows no password."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from datalake.errors import UserError
from datalake.lake.database import CATALOG, AwayError, database_url, is_postgres, unavailable
from datalake.lake.lake import Lake
from datalake.secrets import masked


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("", ""),
        ("  \n", ""),
        ("postgresql://lake@db/lake", "postgresql://lake@db/lake"),
        ("postgres://lake@db/lake", "postgresql://lake@db/lake"),
        ("PostgreSQL://lake@db/Lake", "postgresql://lake@db/Lake"),
        ("postgres+psycopg2://lake@db/lake", "postgresql+psycopg2://lake@db/lake"),
        (" 'postgresql://lake@db/lake'\n", "postgresql://lake@db/lake"),
        ("postgresql://lake:p%40s%3As%2Fw%25d@db:5432/lake", "postgresql://lake:p%40s%3As%2Fw%25d@db:5432/lake"),
        ("postgresql://lake@/lake?host=/run/postgresql", "postgresql://lake@/lake?host=/run/postgresql"),
        (
            "postgresql://lake@db/lake?options=-csearch_path%3Down",
            "postgresql://lake@db/lake?options=-csearch_path%3Down",
        ),
        ("sqlite:////lake/catalog.db", "sqlite:////lake/catalog.db"),
        ("HTTPS://catalog.example/api", "https://catalog.example/api"),
    ],
)
def test_what_is_understood(monkeypatch: pytest.MonkeyPatch, written: str, url: str) -> None:
    monkeypatch.setenv(CATALOG, written)
    assert database_url() == url
    assert is_postgres(url) == url.startswith("postgresql")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("postgresql://lake:s3cret@x@db/lake", "%40 is @"),
        ("postgresql://lake:s3cret@x:y/z@db/lake", "%40 is @"),
        ("postgresql://lake:s3cret@db:port/lake", "can't be read"),
        ("s3cret", "is no URL"),
        ("/lake/s3cret.db", "sqlite:////FOLDER"),
        ("oracel://lake:s3cret@db/lake", "there is no oracel://"),
        ("postgresql+asyncpg://lake:s3cret@db/lake", "write postgresql://"),
        ("firebird+nothing://lake:s3cret@db/lake", "there is no firebird"),
    ],
)
def test_what_isnt_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch, written: str, said: str) -> None:
    monkeypatch.setenv(CATALOG, written)
    with pytest.raises(UserError) as told:
        database_url()
    assert said in str(told.value)
    assert masked(str(told.value)) == str(told.value)  # as the command line shows it
    assert "s3cret" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ('connection failed: FATAL:  password authentication failed for user "lake"', False),
        ('FATAL:  database "lake" does not exist', False),
        ("unable to open database file", False),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  sorry, too many clients already", True),
        ("server closed the connection unexpectedly", True),
        ("database is locked", True),
    ],
)
def test_a_database_that_refuses_isnt_waited_for(said: str, waits: bool) -> None:
    assert isinstance(unavailable(OSError(said)), AwayError) == waits


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("postgresql://lake:s3cret@127.0.0.1:1/lake", "doesn't answer"),
        ("sqlite:////nowhere/catalog.db", "refuses"),
        ("postgresql://lake:s3cret@x@db/lake", "can't be read"),
    ],
)
def test_a_commit_without_its_database_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, said: str
) -> None:
    monkeypatch.setenv(CATALOG, written)
    monkeypatch.setattr("datalake.lake.iceberg.time.sleep", lambda _: None)
    lake = Lake(tmp_path)
    for use in (lambda: lake.commit("demo.raw", pa.schema([("id", pa.int64())]), [], "f" * 64), lambda: lake.catalog):
        with pytest.raises(UserError, match=said) as told:
            use()
        assert "s3cret" not in str(told.value)
