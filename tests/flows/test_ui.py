"""What a person sees in the Prefect UI, in Debian's Chromium: stages by name, progress, funnel, curves, evaluations.

The screenshots stay in pytest's temporary folder (`browser`); the addresses are those of the UIs that Prefect carries.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from browser import PATHS, Browser
from harness import PrefectServer
from pydantic import BaseModel


@pytest.fixture(scope="module")
def flow_run(prefect_server: PrefectServer) -> str:
    """The id of a small run whose one stage shows all that a stage can show."""
    import pyarrow as pa
    from prefect import flow
    from prefect.context import FlowRunContext

    from datalake.lake.lake import Lake
    from datalake.lake.shards import ShardResult, ShardWriter
    from tasks.cluster import Shard, map_shards
    from tasks.produced import Produced
    from tasks.runtime import Runtime, RuntimeConfig
    from tasks.shown.artifacts import progress
    from tasks.stage import stage
    from tasks.tracked import tracked

    schema = pa.schema([("x", pa.int64())])

    class TinyConfig(BaseModel):
        shards: int = 4

    def work(shard: Shard) -> ShardResult:
        assert shard.folder is not None
        with ShardWriter(shard.folder, shard.name, shard.key, {"raw": schema}) as out:
            out.write("raw", pa.table({"x": [shard.payload]}, schema=schema))
        return out.result

    class Raw(NamedTuple):
        raw: Any

    @stage(Raw, version="1", name="tiny")
    def tiny(config: TinyConfig, runtime: Runtime) -> Produced:
        shards = []
        for number in range(config.shards):
            key = runtime.shard_key(config, number)
            shards.append(Shard(f"shard {number}", key, number, runtime.lake.shard_folder("tiny", key)))
        with progress("tiny: more", 1) as tell:
            tell.at(1)
        with progress("tiny", len(shards)) as tell:
            done = list(map_shards(work, shards, runtime, tell))
        return Produced(
            tables={"raw": (schema, [file for result in done for file in result.files])},
            records_in=10,
            records_out=4,
            funnel=[
                {"what": "records in", "records": 10},
                {"what": "rejected by min_words", "records": 5},
                {"what": "quarantined", "records": 1},
                {"what": "kept", "records": 4},
            ],
            metrics=[
                {"step": step, "name": name, "value": 5.0 / step + extra}
                for step in range(1, 30)
                for name, extra in (("loss", 0.0), ("heldout_loss", 0.3))
            ],
            evaluations=[
                {
                    "checkpoint": "pretrain",
                    "task": "perplexity",
                    "metric": "loss_over_entropy",
                    "value": 0.71828,
                    "low": 0.7001,
                    "high": 0.7399,
                    "n": 123,
                }
            ],
        )

    @flow(name="tiny-flow")
    def tiny_flow() -> Any:
        runtime = Runtime(RuntimeConfig(cluster="inline"), prefect_server.lake, "toy")
        tracked(tiny, TinyConfig(), runtime)
        context = FlowRunContext.get()
        assert context
        assert context.flow_run
        return str(context.flow_run.id)

    Lake(prefect_server.lake).create()
    return str(tiny_flow())


def artifact(server: PrefectServer, key: str) -> dict[str, Any]:
    # Not `/artifacts/KEY/latest`: the id in its answer isn't the artifact's.
    (found,) = server.call("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
    return dict(found)


def pictures(browser: Browser) -> list[str]:
    found = browser.driver.execute_script("return [...document.images].map(i => [i.alt, i.src, i.naturalWidth])")
    return [source for name, source, width in found if name == "loss" and width]


@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_a_run_shows_its_stages_by_name(
    prefect_server: PrefectServer, flow_run: str, browser: Browser, ui: str
) -> None:
    browser.open(f"/runs/flow-run/{flow_run}", ui)
    browser.see("tiny-flow", "Completed", "Task Runs")
    browser.click("Task Runs")
    browser.see("tiny toy")
    browser.shot(f"run-{ui}")


def test_progress_ends_at_all_shards(prefect_server: PrefectServer, flow_run: str, browser: Browser) -> None:
    found = artifact(prefect_server, "toy-tiny-progress")
    assert (found["type"], found["data"], found["flow_run_id"]) == ("progress", 100.0, flow_run)
    browser.open(f"/artifacts/artifact/{found['id']}", "v2")
    browser.see("tiny: 4 of 4 shards")
    assert artifact(prefect_server, "toy-tiny-more-progress")["data"] == 100.0


def test_the_funnel_is_a_table(prefect_server: PrefectServer, flow_run: str, browser: Browser) -> None:
    browser.open(f"/artifacts/artifact/{artifact(prefect_server, 'toy-tiny-funnel')['id']}", "v2")
    browser.see("What became of the records", "rejected by min_words", "quarantined", "kept")


@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_the_loss_curve_is_a_picture(prefect_server: PrefectServer, flow_run: str, browser: Browser, ui: str) -> None:
    browser.open(f"/artifacts/artifact/{artifact(prefect_server, 'toy-tiny-curves')['id']}", ui)
    (picture,) = browser.wait(lambda: pictures(browser))
    assert picture.startswith("data:image/svg+xml;base64,")
    browser.shot(f"curves-{ui}")


def test_the_evaluation_is_a_table_with_intervals(
    prefect_server: PrefectServer, flow_run: str, browser: Browser
) -> None:
    browser.open(f"/artifacts/artifact/{artifact(prefect_server, 'toy-tiny-table')['id']}", "v2")
    browser.see("pretrain", "perplexity", "0.7183", "0.700 to 0.740", "123")


@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_a_record_names_its_file_and_leads_to_the_run(
    prefect_server: PrefectServer, flow_run: str, browser: Browser, ui: str
) -> None:
    # The suite's other runs leave records in this lake too; this run's names it.
    (record,) = [path for path in (prefect_server.lake / "records").glob("*.json") if flow_run in path.read_text()]
    browser.open(f"/artifacts/artifact/{artifact(prefect_server, 'toy-tiny-record')['id']}", ui)
    browser.see(str(record), "toy.raw")
    links = browser.driver.execute_script("return [...document.links].map(a => a.href)")
    assert not [link for link in links if link.startswith("file:")]
    browser.find("//a[contains(@href, 'task-run')]")
    browser.find(f"//a[contains(@href, 'flow-run/{flow_run}')]").click()
    browser.see("tiny-flow", "Completed")
    assert urlsplit(browser.driver.current_url).path == f"{PATHS[ui]}/runs/flow-run/{flow_run}"


def test_curves_are_drawn_while_a_stage_trains(prefect_server: PrefectServer) -> None:
    from prefect import flow, task
    from prefect.context import FlowRunContext

    from tasks.shown.artifacts import Curves

    drawn: list[str] = []

    @task
    def trains() -> None:
        shown = Curves("pretend")
        for steps in (2, 3, 4):
            shown.at([{"step": step, "name": "loss", "value": 1.0 / (step + 1)} for step in range(steps)])
            drawn.append(artifact(prefect_server, "pretend-curves")["data"])
        shown.draw([{"step": step, "name": "loss", "value": 1.0 / (step + 1)} for step in range(5)])
        drawn.append(artifact(prefect_server, "pretend-curves")["data"])

    @flow
    def training() -> None:
        assert FlowRunContext.get()
        trains()

    training()
    first, second, third, last = drawn
    assert first == second == third, "drawn once in half a minute"
    assert last != first, "one artifact, drawn anew"
