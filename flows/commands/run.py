"""`headwater run`: validate first, then prepare the surroundings, then run the pipeline flow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.printable import printable, write
from datalake.secrets import masked
from flows import output

if TYPE_CHECKING:
    from datalake.lake.records import StageReport
    from flows.ending import Ending
    from flows.recipe import Recipe
    from flows.stages import StageName
    from tasks.stage import RunLog


def run_recipe(
    path: Path, lake: Path, until: StageName | None, overrides: Sequence[str], workers: int | None, as_json: bool
) -> int:
    """Run a recipe up to a stage; prints a line per stage. Returns the exit status."""
    from flows.ending import AGAIN, Ending
    from flows.streams import unheard

    unheard()
    shown = _Shown(lake, as_json)
    with Ending(shown.end) as ending:
        try:
            status, failure = _run(path, until, overrides, workers, shown, ending)
        except KeyboardInterrupt:
            status, failure = 130, AGAIN
        if ending.status:  # also where a library took the interruption for a failure of its own, or for nothing
            shown.end(ending.status, f"{ending.reason}; {AGAIN}")
            ending.leave()
        return shown.end(status, failure)


def _run(
    path: Path, until: StageName | None, overrides: Sequence[str], workers: int | None, shown: _Shown, ending: Ending
) -> tuple[int, str]:
    """Everything between the command and its last lines; returns exit status and failure."""
    from flows.recipe import load, without_secrets

    if workers is not None:
        overrides = [*overrides, f"runtime.workers={workers}"]
    recipe = load(path, overrides)
    shown.corpus = recipe.corpus
    find_inputs(recipe)
    lake = shown.lake
    Lake(lake).create()
    from flows.service.environment import end_own, prepare
    from flows.service.servers import LastingServer, ServerError, TemporaryServer

    tell = partial(_told, sys.stderr)
    url = prepare(lake)
    there = f", shown at {url.removesuffix('/api')}" if url else ""
    tell(f"{recipe.corpus}: {path} in {lake}{there}")
    try:
        with LastingServer(url, ending.lose) if url else TemporaryServer(lake, tell, ending.lose) as server:
            import_prefect()
            import httpx
            from prefect.exceptions import PrefectException

            from datalake.lake.records import now
            from flows.parameters import LAST
            from flows.pipeline import pipeline
            from flows.run import RECIPE, new_run_id
            from tasks.cluster.connect import disconnect
            from tasks.stage import RUN_LOG, RunLog, StageError

            shown.log = RunLog(new_run_id(now()), on_report=shown.report)
            token, chosen = RUN_LOG.set(shown.log), RECIPE.set(recipe)
            # The server keeps a run's parameters: values of variables may be secret.
            set_ = [without_secrets(text) for text in overrides]
            try:
                server.wait()
                pipeline(recipe=str(path.absolute()), set=set_, until=until or LAST, lake=str(lake))
            except UserError as error:
                return 2, str(error)
            except StageError as error:
                if isinstance(error.__cause__, UserError):
                    return 2, str(error.__cause__)
                return 1, f"{error}; the same command goes on from what is finished"
            except ServerError as error:
                return 1, str(error)
            except (httpx.HTTPError, PrefectException) as error:
                words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
                return 1, f"the Prefect server at {server.url.removesuffix('/api')} can't be used: {words}"
            finally:
                RUN_LOG.reset(token)
                RECIPE.reset(chosen)
                disconnect()
        return 0, ""
    finally:
        end_own()


def import_prefect() -> None:
    """Import Prefect, with the settings of this run.

    Raises:
        UserError: where its settings are wrong.
    """
    try:
        import tasks.apart  # noqa: F401
    except ValueError as error:  # of pydantic: lines that name the setting, what was given and what is wrong with it
        words = " ".join(str(error).split())[:300]
        raise UserError(f"Prefect's settings are wrong: {words}; correct or unset the variable") from None


def _told(stream: TextIO | None, text: str) -> None:
    write(printable(text), stream)


class _Shown:
    """What the command shows: a line per stage while it runs, and how it ended."""

    def __init__(self, lake: Path, as_json: bool) -> None:
        self.lake, self.as_json = lake, as_json
        self.corpus = ""
        self.log: RunLog | None = None
        self._began = time.perf_counter()

    def say(self, text: str) -> None:
        """A line for people: on stdout, unless that carries JSON."""
        _told(sys.stderr if self.as_json else sys.stdout, text)

    def report(self, report: StageReport) -> None:
        """A stage's line, unless it goes without saying."""
        if report.asked_for:
            self.say(report.line)

    def end(self, status: int, failure: str) -> int:
        """Print what was done and how it ended; returns the exit status, which a partial stage makes 1."""
        reports = self.log.reports if self.log else []
        run = self.log.run if self.log else ""
        seconds = time.perf_counter() - self._began
        failure = masked(failure)
        if self.as_json and (run or not failure):
            body = {
                "run": run,
                "corpus": self.corpus,
                "lake": str(self.lake),
                "seconds": round(seconds, 3),
                "stages": [report.model_dump(mode="json") for report in reports],
            }
            output.as_json(body | ({"error": failure} if failure else {}))
        if failure:
            output.note(failure)
        else:
            from flows.report.summary import lines

            for text in lines(Lake(self.lake), reports):
                self.say(text)
            self.say(f"run {run}: {seconds:.0f} s; {output.command('report', run, lake=self.lake)} shows it")
        for report in reports:
            if report.state == "partial":
                # What there is went on through the later stages; whoever waits for all of it must be told.
                status = status or 1
                output.note(f"{report.stage} is partial: {report.note}")
        return status


def find_inputs(recipe: Recipe) -> None:
    """Look whether every local path of every source is there, before anything is made or started.

    Raises:
        UserError: where a path matches nothing, or names what can't be read.
    """
    from datalake.paths import expand
    from datalake.remote.address import is_remote, shown
    from flows.recipe import whereabouts

    for source in recipe.sources:
        paths = [*getattr(source, "paths", ()), *getattr(source, "index", ())]
        paths = [path for path in paths if not path.startswith("python:") and not is_remote(path)]
        try:
            files = expand(paths, descend=False)
        except UserError as error:
            place = next(filter(None, (whereabouts(recipe, path) for path in paths if shown(path) in str(error))), "")
            raise UserError(f"{error}; {place}" if place else str(error)) from None
        for _, found in files:
            if not os.access(found, os.R_OK):
                raise UserError(f"{found} can't be read: change its permissions, or correct the path")
