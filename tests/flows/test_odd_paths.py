"""Prefect's database lies in the lake, whatever the lake's folder is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from flows.service.environment import settings


@pytest.mark.parametrize("name", ["plain", "a?b", "a?b#c%20d", "a#b", "a%20b"])
def test_prefects_database_lies_in_the_lake(tmp_path: Path, name: str) -> None:
    lake = tmp_path / name
    (lake / "prefect").mkdir(parents=True)
    prefects_own = f"sqlite+aiosqlite:///{lake / 'prefect'}/prefect.db"
    url = settings(lake).get("PREFECT_SERVER_DATABASE_CONNECTION_URL", prefects_own)
    with create_engine(url.replace("+aiosqlite", "")).begin() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))
    assert (lake / "prefect" / "prefect.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
