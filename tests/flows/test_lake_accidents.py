"""A lake that was moved, tidied or damaged gives what an undisturbed one gives, and never trains on duplicates."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import world

from datalake.lake.lake import Lake
from datalake.lake.records import manifests
from datalake.lake.upkeep import maintain as upkeep


def recipe(folder: Path, threshold: float, holdout: float = 0.1) -> dict[str, Any]:
    return world.tables(
        folder, [folder / "a.jsonl"], deduplicate={"threshold": threshold}, mixture={"holdout": holdout}
    )


def mixed(lake: Path) -> tuple[set[bytes], int]:
    """Documents of the mixture, and how many deduplication left out."""
    ids = {row[0] for row in world.rows(lake, "SELECT id FROM small.mixture")}
    (left,) = world.rows(lake, "SELECT count(duplicate_of) FROM small.duplicates")
    return ids, left[0]


@pytest.fixture(scope="module")
def ran(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which a loose and then a strict recipe were run, and beside it what the loose one gives by itself."""
    folder = tmp_path_factory.mktemp("accidents")
    rows = [
        {"id": f"{n}{copy}", "text": world.prose(n) + more} for n in range(8) for copy, more in (("", ""), ("x", "!"))
    ]
    rows += [{"id": f"like {n}", "text": world.prose(n, 40).replace("the ", "that ", 30)} for n in range(4)]
    rows += [{"id": f"long {n}", "text": world.prose(n, 40)} for n in range(4)]
    world.jsonl(folder / "a.jsonl", rows)
    world.run(recipe(folder, 0.3), folder / "lake", "mixture")
    world.run(recipe(folder, 0.95), folder / "lake", "mixture")
    world.run(recipe(folder, 0.3, 0.2), folder / "undisturbed", "mixture")
    return folder


def expire(lake: Path) -> None:
    for name in ("small.duplicates", "small.mixture", "small.documents"):
        with Lake(lake).catalog.load_table(name).maintenance.expire_snapshots() as expired:
            expired.older_than(dt.datetime.now() + dt.timedelta(days=1))


def cut(lake: Path) -> None:
    for path in (lake / "shards" / "deduplicate").rglob("duplicates.parquet"):
        path.write_bytes(path.read_bytes()[:-9])


def maintain(lake: Path) -> None:
    """Old, and rid of all that nothing names."""
    for path in lake.rglob("*"):
        os.utime(path, (time.time() - 40 * 86_400,) * 2)
    upkeep.maintain(Lake(lake), abandoned=True, apply=True)


ACCIDENTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "moved": (lambda lake: None, "cached"),  # each case is a copy, at another place
    "maintained": (maintain, "cached"),
    "snapshots expired": (expire, "cached"),
    "catalog and warehouse deleted": (
        lambda lake: [(lake / "catalog.db").unlink(), shutil.rmtree(lake / "warehouse")],
        "cached",
    ),
    "lists deleted": (lambda lake: shutil.rmtree(lake / "contents"), "ran"),
    "files cut": (cut, "ran"),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_earlier_recipe_built_upon_gives_what_it_would_have_given(ran: Path, tmp_path: Path, accident: str) -> None:
    befall, state = ACCIDENTS[accident]
    lake = Path(shutil.copytree(ran / "lake", tmp_path / "lake"))
    stages = dict(world.rows(lake, "SELECT stage, count(*) FROM runs.stages GROUP BY ALL"))
    befall(lake)
    reports = world.run(recipe(ran, 0.3, 0.2), lake, "mixture")
    assert reports["deduplicate"].state == state
    expected = mixed(ran / "undisturbed")
    assert expected[1] > 0
    assert mixed(lake) == expected
    assert world.parquet(lake, ("mixture",)).items() >= world.parquet(ran / "undisturbed", ("mixture",)).items()
    assert stages["deduplicate"] == 2
    assert len(manifests(Lake(lake))) == 3
