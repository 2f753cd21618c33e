"""`headwater run`: validate first, then prepare the surroundings, then run the pipeline flow."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from datalake.errors import UserError
from datalake.lake import Lake

if TYPE_CHECKING:
    from datalake.records import StageReport
    from flows.recipe import Recipe
    from flows.stages import StageName


def run_recipe(
    path: Path, lake: Path, until: StageName | None, overrides: Sequence[str], workers: int | None, as_json: bool
) -> int:
    """Run a recipe up to a stage; prints a line per stage. Returns the exit status."""
    from flows.recipe import load

    if workers is not None:
        overrides = [*overrides, f"runtime.workers={workers}"]
    recipe = load(path, overrides)
    find_inputs(recipe)
    Lake(lake).create()
    from flows.environment import prepare

    start = time.perf_counter()
    server = prepare(lake)
    shown = f", shown at {server.removesuffix('/api')}" if server else ""
    print(f"{recipe.corpus}: {path} in {lake}{shown}", file=sys.stderr, flush=True)

    from datalake.records import now
    from flows.pipeline import pipeline
    from flows.run import new_run_id
    from tasks.stage import RUN_LOG, RunLog, StageError

    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    log = RunLog(new_run_id(now()), on_report=lambda report: say(line(report)) if asked_for(report) else None)
    token = RUN_LOG.set(log)
    status, failure = 0, ""
    try:
        pipeline(recipe=recipe, until=until, lake=str(lake))
    except UserError as error:
        status, failure = 2, str(error)
    except StageError as error:
        status, failure = 1, f"{error}; the same command goes on from what is finished"
        if isinstance(error.__cause__, UserError):
            status, failure = 2, str(error.__cause__)
    finally:
        RUN_LOG.reset(token)
        from tasks.cluster.connect import disconnect

        disconnect()
    if as_json:
        body = {
            "run": log.run,
            "corpus": recipe.corpus,
            "lake": str(lake),
            "seconds": round(time.perf_counter() - start, 3),
            "stages": [report.model_dump(mode="json") for report in log.reports],
        }
        print(json.dumps(body | ({"error": failure} if failure else {}), ensure_ascii=False))
    if failure:
        print(f"headwater: {' '.join(failure.split())}", file=sys.stderr)
    else:
        from flows.commands.summary import lines

        for text in lines(Lake(lake), log.reports):
            say(text)
        say(f"run {log.run}: {time.perf_counter() - start:.0f} s; headwater report {log.run} --lake {lake} shows it")
    for report in log.reports:
        if report.state == "partial":
            # What there is went on through the later stages; whoever waits for all of it must be told.
            status = status or 1
            print(f"headwater: {report.stage} is partial: {report.note}", file=sys.stderr)
    return status


def find_inputs(recipe: Recipe) -> None:
    """Look whether every local path of every source is there, before anything is made or started.

    Raises:
        UserError: where a path matches nothing, or names what can't be read.
    """
    from datalake.remote.address import is_remote
    from datalake.sources.protocol import expand

    for source in recipe.sources:
        paths = [*getattr(source, "paths", ()), *getattr(source, "index", ())]
        paths = [path for path in paths if not path.startswith("python:") and not is_remote(path)]
        for _, found in expand(paths, descend=False):
            if not os.access(found, os.R_OK):
                raise UserError(f"{found} can't be read: change its permissions, or correct the path")


def asked_for(report: StageReport) -> bool:
    """Whether a stage belongs to what was asked for: those after --until go without saying."""
    return report.state != "skipped" or not report.note.startswith("after --until")


def line(report: StageReport) -> str:
    """One line about a stage: its name, state, seconds, records in and out, and what there is to say."""
    rows = "" if report.records_in is None else f"{report.records_in:>12,} in {report.records_out or 0:>12,} out"
    return f"  {report.stage:<12} {report.state:<8} {report.seconds:>8.1f} s {rows}  {report.note}".rstrip()
