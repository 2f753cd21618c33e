"""What a person sees in the Prefect UI, in Debian's Chromium: stages by name, progress, funnel, curves, evaluations.

The screenshots stay in pytest's temporary folder (`ui`); the addresses are those of the UI that Prefect carries.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from harness import PrefectServer
from pydantic import BaseModel

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")

Look = Callable[[str, str], "Seen"]

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1400,1300",
    "--virtual-time-budget=15000",
]


class Seen(HTMLParser):
    """A page after its scripts ran: its text, and its pictures as (alt, src)."""

    def __init__(self, text: str):
        super().__init__()
        self.pictures: list[tuple[str, str]] = []
        self.links: list[tuple[str, str]] = []
        self._parts: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "img":
            self.pictures.append((given.get("alt", ""), given.get("src", "")))

    def handle_data(self, data: str) -> None:
        self._parts.append(data)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Open an address in the browser; keeps a screenshot under the given name."""
    folder = tmp_path_factory.mktemp("ui")

    def open_page(address: str, name: str) -> Seen:
        assert BROWSER
        done = subprocess.run(
            [
                BROWSER,
                *OPTIONS,
                f"--user-data-dir={folder / 'profile'}",
                f"--screenshot={folder / name}.png",
                "--dump-dom",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout, done.stderr[-500:]
        assert (folder / f"{name}.png").stat().st_size > 10_000, "a page with something on it"
        return Seen(done.stdout)

    return open_page


@pytest.fixture(scope="module")
def flow_run(prefect_server: PrefectServer) -> str:
    """The id of a small run whose one stage shows all that a stage can show."""
    import pyarrow as pa
    from prefect import flow
    from prefect.context import FlowRunContext

    from datalake.lake import Lake
    from datalake.shards import ShardResult, ShardWriter
    from tasks.artifacts import progress
    from tasks.cluster import Shard, map_shards
    from tasks.runtime import Runtime, RuntimeConfig
    from tasks.stage import Produced, stage

    schema = pa.schema([("x", pa.int64())])

    class TinyConfig(BaseModel):
        shards: int = 4

    def work(shard: Shard) -> ShardResult:
        assert shard.folder is not None
        with ShardWriter(shard.folder, shard.name, shard.key, {"raw": schema}) as out:
            out.write("raw", pa.table({"x": [shard.payload]}, schema=schema))
        return out.result

    @stage(version="1", name="tiny")
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
        tiny(config=TinyConfig(), runtime=runtime)
        context = FlowRunContext.get()
        assert context
        assert context.flow_run
        return str(context.flow_run.id)

    Lake(prefect_server.lake).create()
    return str(tiny_flow())


def artifact(server: PrefectServer, key: str) -> dict[str, Any]:
    from flows.commands.service import call

    # Not `/artifacts/KEY/latest`: the id in its answer isn't the artifact's.
    (found,) = call(server.url, "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
    return dict(found)


def ui(server: PrefectServer) -> str:
    return server.url.removesuffix("/api")


def test_a_run_shows_its_stages_by_name(prefect_server: PrefectServer, flow_run: str, look: Look) -> None:
    seen = look(f"{ui(prefect_server)}/runs/flow-run/{flow_run}", "flow-run")
    assert "tiny-flow" in seen.text
    assert re.search(r"\btiny\b.{0,3}\btoy\b", seen.text)
    assert "Completed" in seen.text


def test_progress_ends_at_all_shards(prefect_server: PrefectServer, flow_run: str, look: Look) -> None:
    found = artifact(prefect_server, "tiny-progress")
    assert (found["type"], found["data"], found["flow_run_id"]) == ("progress", 100.0, flow_run)
    seen = look(f"{ui(prefect_server)}/artifacts/artifact/{found['id']}", "progress")
    assert "tiny: 4 of 4 shards" in seen.text
    assert artifact(prefect_server, "tiny-more-progress")["data"] == 100.0


def test_the_funnel_is_a_table(prefect_server: PrefectServer, flow_run: str, look: Look) -> None:
    seen = look(f"{ui(prefect_server)}/artifacts/artifact/{artifact(prefect_server, 'tiny-funnel')['id']}", "funnel")
    for text in ("What became of the records", "rejected by min_words", "quarantined", "kept"):
        assert text in seen.text


def test_the_loss_curve_is_a_picture(prefect_server: PrefectServer, flow_run: str, look: Look) -> None:
    seen = look(f"{ui(prefect_server)}/artifacts/artifact/{artifact(prefect_server, 'tiny-curves')['id']}", "curves")
    pictures = [source for name, source in seen.pictures if name == "loss"]
    assert len(pictures) == 1
    assert pictures[0].startswith("data:image/svg+xml;base64,")


def test_the_evaluation_is_a_table_with_intervals(prefect_server: PrefectServer, flow_run: str, look: Look) -> None:
    seen = look(f"{ui(prefect_server)}/artifacts/artifact/{artifact(prefect_server, 'tiny-table')['id']}", "evaluation")
    for text in ("pretrain", "perplexity", "0.7183", "0.700 to 0.740", "123"):
        assert text in seen.text


def test_a_run_names_its_record(prefect_server: PrefectServer, flow_run: str, look: Look) -> None:
    found = artifact(prefect_server, "tiny-record")
    seen = look(f"{ui(prefect_server)}/artifacts/artifact/{found['id']}", "record")
    # The suite's other runs leave records in this lake too; this run's names it.
    (record,) = [path for path in (prefect_server.lake / "records").glob("*.json") if flow_run in path.read_text()]
    assert f"records/{record.name}" in seen.text
    assert "toy.raw" in seen.text


def test_the_form_of_a_deployment_is_drawn_from_the_recipe(
    prefect_server: PrefectServer, running: dict[str, Any], look: Look
) -> None:
    from flows.commands.service import call

    deployment = call(prefect_server.url, "/deployments/name/pipeline/pipeline")
    seen = look(f"{ui(prefect_server)}/deployments/deployment/{deployment['id']}/run", "form")
    for text in ("Corpus", "Sources", "Curation", "Deduplication"):
        assert text in seen.text
