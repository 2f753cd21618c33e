"""Runs on a cluster of three machines that share nothing but a store and a catalog: equal to those of one machine, byte
for byte, whatever is killed, stopped or full meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import world
from begun import Begun, Start, ended, many_archives, state, wait_for
from harness import PrefectServer
from machines import Cluster, Store, cluster, pause, store
from stores import BUCKET, Postgres, settings, wait_until

from datalake.places import place

UNTIL = "pretrain"
STAGES = ("ingest", "curate", "deduplicate", "mixture", "tokenizer", "tokenize", "pretrain")
# So long a store says SlowDown.
SLOW_S = 60.0


@dataclass
class Place:
    """All that a run there needs, and what it must come to."""

    cluster: Cluster
    store: Store
    database: Postgres
    recipe: dict[str, Any]
    local: Path
    versions: dict[str, str]


@pytest.fixture(scope="module")
def there(
    prefect_server: PrefectServer, database: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """The cluster and its store, which has the recipe's archives, and a run on this machine alone into a folder."""
    from s3fs import S3FileSystem

    folder = tmp_path_factory.mktemp("nodes")
    archives = many_archives(folder / "in", 5, 12)
    with store(folder) as served, pytest.MonkeyPatch.context() as patch:
        for name, value in settings(served.url, folder / "cache").items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        for path in (folder / "in").iterdir():
            place(f"s3://{BUCKET}/in/{path.name}").write_bytes(path.read_bytes())
        recipe = archives | {"sources": [{"kind": "common_crawl", "paths": [f"s3://{BUCKET}/in/*.gz"]}]}
        with cluster(folder / "in", served.url) as nodes:
            local = folder / "lake"
            reports = world.run(recipe | {"runtime": world.inline()}, local, UNTIL)
            versions = {name: ref.data_version for one in reports.values() for name, ref in one.outputs.items()}
            yield Place(nodes, served, database, recipe, local, versions)
    S3FileSystem.clear_instance_cache()


class Driven:
    """Runs of the recipe into one prefix with one catalog, both empty at first."""

    def __init__(self, there: Place, start: Start, api: str, name: str) -> None:
        there.cluster.up()
        self.there, self._start, self._api = there, start, api
        self.lake = place(f"s3://{BUCKET}/{name}")
        self._catalog = there.database.empty(name)
        self.run = self.begin()

    def begin(self) -> Begun:
        cluster = self.there.cluster
        assert cluster.driver is not None
        runtime = {"workers": 3, "cluster": cluster.address, "code": "sent", "retries": 2, "memory_gb": 1}
        environment = cluster.driver.environment | {"HEADWATER_CATALOG": self._catalog}
        recipe = self.there.recipe | {"runtime": runtime}
        within = cluster.driver.within
        self.began = time.monotonic()
        return self._start(recipe, self.lake, UNTIL, self._api, within=within, **environment)

    def wait(self, moment: Callable[[], object]) -> None:
        wait_for(self.run, lambda: bool(moment()), every=0.05)

    def worker(self) -> psutil.Process:
        """A worker that is at work just now, on a node that isn't the head."""
        found: list[psutil.Process] = []
        self.wait(lambda: found.extend(self._busy()) or found)
        return found[0]

    def _busy(self) -> list[psutil.Process]:
        return [worker for node in self.there.cluster.nodes[1:] for worker in node.busy()]

    def begun(self, stage: str) -> None:
        """Wait until a stage has written something."""
        self.wait(lambda: next(self.lake.glob(f"*/{stage}/*/*"), None))

    def process(self) -> psutil.Process:
        """The run itself, inside of its machine."""
        return psutil.Process(self.run.process.pid).children()[0]

    def ended(self, seconds: float = 400) -> int:
        """Its status; an error of it is a line and no traceback."""
        status = self.run.process.wait(seconds)
        assert "Traceback" not in self.run.told(), self.run.told()
        print(f"status {status} after {time.monotonic() - self.began:.0f} s: {self.run.told()[-600:]}")
        return status

    def finished(self) -> dict[str, Any]:
        """What the run says that ends well, its tables, token files and models those of one machine."""
        body = ended(self.run)
        assert world.parquet(self.lake) == world.parquet(self.there.local)
        outputs = {name: ref for one in body["stages"] for name, ref in one.get("outputs", {}).items()}
        assert {name: ref["data_version"] for name, ref in outputs.items()} == self.there.versions
        return body

    def again(self) -> dict[str, Any]:
        """The same command once more, on whatever is there now."""
        self.there.cluster.up()
        self.run = self.begin()
        body = self.finished()
        print(f"again: {time.monotonic() - self.began:.0f} s, {[(s['stage'], s['state']) for s in body['stages']]}")
        return body


@pytest.fixture
def driven(
    there: Place, start: Start, prefect_server: PrefectServer, request: pytest.FixtureRequest
) -> Callable[[], Driven]:
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name.removeprefix("test_")).lower()
    return lambda: Driven(there, start, prefect_server.url, name[:60].strip("_"))


pytestmark = pytest.mark.slow


def test_three_nodes_give_what_one_machine_gives(driven: Callable[[], Driven]) -> None:
    there = driven()
    body = there.finished()
    assert [state(body, stage) for stage in STAGES] == ["ran"] * len(STAGES)
    kept = [sum(path.is_file() for path in node.cache.rglob("*")) for node in there.there.cluster.nodes]
    assert all(kept), "every node had a part in it"


def worker_killed(there: Driven) -> None:
    there.worker().kill()


def node_killed(there: Driven) -> None:
    there.worker()
    there.there.cluster.nodes[1].kill()


def database_restarted(there: Driven) -> None:
    there.begun("curate")
    there.there.database.stop()
    there.there.database.start()


def store_stopped(there: Driven) -> None:
    there.begun("curate")
    pause(there.there.store.process, 20)


def store_slow(there: Driven) -> None:
    there.begun("ingest")
    there.there.store.marker.touch()
    try:
        over = time.monotonic() + SLOW_S
        wait_until(lambda: time.monotonic() > over, 2 * SLOW_S)
    finally:
        there.there.store.marker.unlink()


@pytest.mark.parametrize("fault", [worker_killed, node_killed, database_restarted, store_stopped, store_slow])
def test_a_run_goes_on_after(fault: Callable[[Driven], None], driven: Callable[[], Driven]) -> None:
    there = driven()
    fault(there)
    assert there.ended() == 0
    there.finished()


@pytest.mark.parametrize("stage", ["ingest", "pretrain"])
def test_after_the_head_was_killed_another_cluster_goes_on(stage: str, driven: Callable[[], Driven]) -> None:
    there = driven()
    there.begun(stage)
    there.there.cluster.nodes[0].kill()
    status = there.ended()
    if stage == "pretrain" and status == 0:  # it trained on another node, and ended before the head was missed
        there.finished()
        return
    assert status == 1
    assert there.run.told().endswith("; the same command goes on from what is finished\n")
    if stage == "ingest":
        assert "the head of the Ray cluster at " in there.run.told()
    there.again()


@pytest.mark.parametrize("stage", ["ingest", "pretrain"])
def test_after_its_driver_was_killed_the_same_command_goes_on(stage: str, driven: Callable[[], Driven]) -> None:
    there = driven()
    there.begun(stage)
    there.process().kill()
    there.run.process.wait(60)
    there.again()


def test_a_full_disk_is_told_and_with_room_again_the_same_command_goes_on(driven: Callable[[], Driven]) -> None:
    there = driven()
    there.begun("ingest")
    full = there.there.cluster.nodes[1:]
    for node in full:
        node.fill()
    try:
        status = there.ended()
        assert "No space left on device" in there.run.told()
        assert status == 1
    finally:
        for node in full:
            node.empty()
    there.again()
