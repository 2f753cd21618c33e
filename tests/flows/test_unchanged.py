"""A recipe run again as it is: a run that says so, with nothing started; else nothing is said or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import world

from datalake.lake.lake import Lake
from datalake.lake.records import manifests
from flows.parameters import resolve
from flows.unchanged import report_unchanged
from tasks.log import RunLog


def test_only_what_is_cached_as_it_stands_needs_no_server(prefect_server: Any, tmp_path: Path) -> None:
    lake, file = tmp_path / "lake", world.texts(tmp_path / "a.jsonl", range(6))
    recipe = world.tables(tmp_path, [file]) | {"curate": {"preset": "none"}}
    first = world.run(recipe, lake, "curate")
    logs: list[RunLog] = []

    def unchanged(recipe: dict[str, Any], until: Any = "curate") -> bool:
        return report_unchanged(resolve(recipe, []), Lake(lake), until, logs.append)

    assert unchanged(recipe)
    [log] = logs
    again = {report.stage: report for report in log.reports}
    assert world.states(again) == {"ingest": "cached", "curate": "cached"}
    assert {stage: report.outputs for stage, report in again.items()} == {s: r.outputs for s, r in first.items()}
    ran, said = manifests(Lake(lake))
    assert (said.run, said.until, said.refs, said.recipe) == (log.run, "curate", ran.refs, ran.recipe)

    assert unchanged(recipe | {"runtime": recipe.get("runtime", {}) | {"workers": 1}})
    for other in (lambda: unchanged(recipe | {"curate": {"preset": "gopher"}}), lambda: unchanged(recipe, "ingest")):
        assert not other()
    world.texts(tmp_path / "a.jsonl", range(7))
    assert not unchanged(recipe)
    world.texts(tmp_path / "a.jsonl", range(6))
    assert unchanged(recipe)
    Path(Lake(lake).files(first["curate"].outputs["documents"])[0]).unlink()
    assert not unchanged(recipe)
    assert len(logs) == len(manifests(Lake(lake))) - 1 == 3
