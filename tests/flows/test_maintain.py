"""`headwater maintain` and its flow: what a run left is all named, and what goes is not missed by the next one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import world
from harness import Command, PrefectServer

from datalake.errors import UserError
from flows.lake import Lake

KILLED = "shards/curate/00/killed"


@pytest.fixture(scope="module")
def lake(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two recipes up to the mixture, all of it old, with what a killed run left. The last test rids it."""
    tmp_path = tmp_path_factory.mktemp("maintained")
    world.jsonl(tmp_path / "a.jsonl", [{"text": world.prose(n)} for n in range(6)])
    for threshold in (0.3, 0.95):
        recipe = world.tables(tmp_path, [tmp_path / "a.jsonl"], deduplicate={"threshold": threshold})
        world.run(recipe, tmp_path / "lake", "mixture")
    left = tmp_path / "lake" / KILLED / ".documents.parquet.999999999.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"12345")
    for path in (tmp_path / "lake").rglob("*"):
        os.utime(path, (time.time() - 40 * 86_400,) * 2)
    return tmp_path / "lake"


def cached(lake: Path) -> set[str]:
    found = set()
    for threshold in (0.3, 0.95):
        recipe = world.tables(lake.parent, [lake.parent / "a.jsonl"], deduplicate={"threshold": threshold})
        found |= set(world.states(world.run(recipe, lake, "mixture")).values())
    return found


def but_metadata(found: list[dict[str, Any]]) -> list[str]:
    """What isn't Iceberg's own, of which there is some after any run."""
    return [one["path"] for one in found if one["kind"] != "snapshots"]


def test_it_lists_what_it_would_remove_and_how_to(lake: Path, headwater: Command) -> None:
    ended = headwater("maintain", "--lake", lake)
    assert ended.status == 0
    assert KILLED in ended.out
    assert "could be removed" in ended.out
    assert f"headwater maintain --apply --lake {lake}" in ended.err
    answer = headwater("maintain", "--lake", lake, "--json").json
    assert but_metadata(answer["found"]) == [KILLED]
    (one,) = [one for one in answer["found"] if one["path"] == KILLED]
    assert (one["kind"], one["bytes"], one["files"], one["removed"]) == ("shards", 5, 1, False)
    assert (lake / KILLED).is_dir()
    assert "at least 1" in headwater("maintain", "--lake", lake, "--days", "0").mistake()
    assert "no lake" in headwater("maintain", "--lake", lake.parent / "none").mistake()


def test_the_flow_shows_what_it_found_as_a_table(lake: Path, prefect_server: PrefectServer) -> None:
    from flows.upkeep import maintain

    state = maintain(lake=str(lake), return_state=True)
    assert state.is_completed()
    run = str(state.state_details.flow_run_id)
    name = prefect_server.call(f"/flow_runs/{run}")["name"]
    assert name.startswith("maintain: ")
    assert name.endswith("could be removed")
    (artifact,) = prefect_server.call("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert artifact["key"] == "maintain-table"
    rows = artifact["data"] if isinstance(artifact["data"], list) else json.loads(artifact["data"])
    assert but_metadata(rows) == [KILLED]
    with pytest.raises(UserError, match="no lake"):
        maintain(lake=str(lake.parent / "none"))


def test_what_goes_is_not_missed(lake: Path, headwater: Command) -> None:
    answer = headwater("maintain", "--lake", lake, "--apply", "--abandoned", "--json").json
    assert but_metadata(answer["found"]) == [KILLED]
    assert all(one["removed"] for one in answer["found"])
    assert cached(lake) == {"cached"}
    assert but_metadata(Lake(lake).maintain(abandoned=True)["found"]) == []
