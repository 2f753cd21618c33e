"""`headwater run`: a recipe's stages, a line for each as it ends, and how the whole ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.printable import printable, write
from datalake.secrets import masked
from flows.commands.common import COMMON, Common
from flows.output import Console, command, note
from flows.stages import StageName

if TYPE_CHECKING:
    from datalake.lake.records import StageReport
    from flows.ending import Ending
    from tasks.tracked import RunLog


def run(
    recipe: Path,
    *,
    until: StageName | None = None,
    set: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", help="Override a value: --set deduplicate.threshold=0.7")
    ] = (),
    workers: Annotated[int | None, Parameter(help="Shards worked on at once")] = None,
    dry: Annotated[bool, Parameter(negative="", help="Only say what is done already and what would run")] = False,
    common: Common = COMMON,
) -> int:
    """Run a recipe, or up to a stage; what was done before is taken from the cache.

    Parameters
    ----------
    recipe
        A YAML file; see recipes/.
    until
        The last stage to run.
    """
    from flows.ending import in_order

    shown = _Shown(common)
    overrides = set if workers is None else (*set, f"runtime.workers={workers}")
    if dry:
        return _look(recipe, until, overrides, common)
    return in_order(lambda ending: _run(recipe, until, overrides, shown, ending), shown.end)


def _look(path: Path, until: StageName | None, overrides: Sequence[str], common: Common) -> int:
    """Say of each stage whether it is done, would run or is skipped, without a server, Ray or a trace of it."""
    from flows.dry import DryRun
    from flows.pipeline import pipeline
    from flows.recipe import load
    from flows.start import find_inputs

    began = time.perf_counter()
    recipe = load(path, overrides)
    find_inputs(recipe)
    run = DryRun(recipe, Lake(common.folder), until)
    pipeline(run)
    stages = [report.model_dump(mode="json") for report in run.reports]
    seconds = round(time.perf_counter() - began, 3)
    body = {"run": "", "corpus": recipe.corpus, "lake": str(common.folder), "seconds": seconds, "stages": stages}

    def draw(console: Console, _: object) -> None:
        for report in run.reports:
            if report.asked_for:
                console.line(f"  {report.stage:<12} {report.state:<9} {report.rows:<32} {report.note}".rstrip())

    common.output.answer(body, draw)
    return 0


def _run(
    path: Path, until: StageName | None, overrides: Sequence[str], shown: _Shown, ending: Ending
) -> tuple[int, str]:
    """Everything between the command and its last lines; returns exit status and failure."""
    from flows.recipe import load
    from flows.start import FailedRunError, find_inputs, start

    def tell(text: str) -> None:
        write(printable(text), sys.stderr)

    try:
        recipe = load(path, overrides)
        shown.corpus = recipe.corpus
        find_inputs(recipe)
        start(recipe, str(path.absolute()), shown.lake, until, overrides, shown.follow, tell, ending.lose)
    except UserError as error:
        return 2, str(error)
    except FailedRunError as error:
        return 1, str(error)
    return 0, ""


class _Shown:
    """What the command shows: a line per stage while it runs, and how it ended."""

    def __init__(self, common: Common) -> None:
        self.lake, self.output = common.folder, common.output
        self.corpus = ""
        self.log: RunLog | None = None
        self._began = time.perf_counter()

    def follow(self, log: RunLog) -> None:
        """Tell of each stage of the run that has begun."""
        self.log, log.on_report = log, self.report

    def report(self, report: StageReport) -> None:
        """A stage's line, unless it goes without saying."""
        if report.asked_for:
            self.output.say(report.line)

    def end(self, status: int, failure: str) -> int:
        """Print what was done and how it ended; returns the exit status, which a partial stage makes 1."""
        reports = self.log.reports if self.log else []
        run = self.log.run if self.log else ""
        seconds = time.perf_counter() - self._began
        failure = masked(failure)
        if run or not failure:
            body = {
                "run": run,
                "corpus": self.corpus,
                "lake": str(self.lake),
                "seconds": round(seconds, 3),
                "stages": [report.model_dump(mode="json") for report in reports],
            }
            self.output.answer(body | ({"error": failure} if failure else {}))
        if failure:
            note(failure)
        else:
            from flows.report.summary import lines

            for text in lines(Lake(self.lake), reports):
                self.output.say(text)
            self.output.say(f"run {run}: {seconds:.0f} s; {command('report', run, lake=self.lake)} shows it")
        for report in reports:
            if report.state == "partial":
                # What there is went on through the later stages; whoever waits for all of it must be told.
                status = status or 1
                note(f"{report.stage} is partial: {report.note}")
        return status
