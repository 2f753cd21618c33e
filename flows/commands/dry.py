"""`headwater run --dry`: what of a recipe is done and what would run, without a server, Ray or a trace of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from datalake.lake.lake import Lake
from flows import output
from flows.stages import StageName


def dry_run(path: Path, lake: Path, until: StageName | None, overrides: Sequence[str], as_json: bool) -> int:
    """Print a line per stage: `cached`, `would run` or `skipped`, and why; returns the exit status."""
    from flows.commands.run import find_inputs
    from flows.dry import DryRun
    from flows.pipeline import pipeline
    from flows.recipe import load

    began = time.perf_counter()
    recipe = load(path, overrides)
    find_inputs(recipe)
    run = DryRun(recipe, Lake(lake), until)
    pipeline(run)
    if as_json:
        stages = [report.model_dump(mode="json") for report in run.reports]
        seconds = round(time.perf_counter() - began, 3)
        output.as_json({"run": "", "corpus": recipe.corpus, "lake": str(lake), "seconds": seconds, "stages": stages})
        return 0
    for report in run.reports:
        if report.asked_for:
            rows = (
                "" if report.records_in is None else f"{report.records_in:>12,} in {report.records_out or 0:>12,} out"
            )
            output.line(f"  {report.stage:<12} {report.state:<9} {rows:<32} {report.note}".rstrip())
    return 0
