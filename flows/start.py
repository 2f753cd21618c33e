"""A flow begun outside Prefect, by a command or from a notebook: its surroundings and server first, then the flow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.records import StageReport, now
from datalake.places import root_of
from flows.parameters import LAST, resolve
from flows.recipe import Recipe, whereabouts, without_secrets
from flows.stages import StageName

if TYPE_CHECKING:
    from flows.service.servers import LastingServer, TemporaryServer
    from tasks.log import RunLog
    from tasks.runtime import RuntimeConfig

T = TypeVar("T")


class FailedRunError(RuntimeError):
    """A stage failed, or the Prefect server did; the message says which, why, and how to go on."""


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    lake: str | Path = "lake",
    until: StageName | None = None,
    set: Sequence[str] = (),
) -> list[StageReport]:
    """Run a recipe, or up to a stage; what was done before is taken from the cache. A line is printed per stage.

    `recipe` is a YAML file, a mapping as such a file has it, or a `Recipe`; `set` overrides values in it, such as
    `["deduplicate.threshold=0.7"]`. Returns what became of each stage, those that were skipped included.

    Raises:
        UserError: for what can be put right, in one line.
        FailedRunError: where a stage fails; running it again goes on from what is finished.
    """
    named: str | dict[str, Any]
    if isinstance(recipe, str | Path):
        chosen, named = resolve(str(recipe), set), str(Path(recipe).absolute())
    else:
        named = recipe.model_dump(mode="json") if isinstance(recipe, Recipe) else dict(recipe)
        chosen = recipe if isinstance(recipe, Recipe) and not set else resolve(named, set)
    find_inputs(chosen)
    logs: list[RunLog] = []

    def follow(log: RunLog) -> None:
        log.on_report = lambda report: print(report.line, flush=True) if report.asked_for else None
        logs.append(log)

    before = dict(os.environ)
    try:
        start(chosen, named, root_of(lake), until, set, follow, print, print)
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
    return logs[0].reports


def start(
    recipe: Recipe,
    named: str | dict[str, Any],
    lake: Path,
    until: StageName | None,
    overrides: Sequence[str],
    follow: Callable[[RunLog], object],
    say: Callable[[str], None],
    lose: Callable[[str], None],
    flow: str = "pipeline",
    **parameters: Any,
) -> Any:
    """Run a valid recipe whose inputs are there. `follow` gets the run's log before the first stage begins.

    `flow` is another of `flows.trials` than the pipeline, with `parameters` of its own; what it returns is returned.

    `named` and `overrides` are what Prefect shows as the run's parameters; `say` gets lines for people, and `lose` is
    called, in another thread, where the server is gone for good.

    Raises:
        UserError: for what can be put right.
        FailedRunError: where a stage fails, or the Prefect server doesn't start or can't be used.
    """
    opened = Lake(lake).create()
    from flows.service.environment import end_own, prepare
    from flows.service.servers import LastingServer, TemporaryServer

    url = prepare(lake)
    there = f", shown at {url.removesuffix('/api')}" if url else ""
    say(f"{recipe.corpus}: {named if isinstance(named, str) else 'a recipe'} in {lake}{there}")
    if url is None and flow == "pipeline":
        from flows.unchanged import report_unchanged

        if report_unchanged(recipe, opened, until, follow):
            return None

    def call() -> Any:
        from flows.flows import RECIPE, pipeline
        from flows.run import new_run_id
        from tasks.log import RunLog
        from tasks.tracked import RUN_LOG

        log = RunLog(new_run_id(now()))
        follow(log)
        token, chosen = RUN_LOG.set(log), RECIPE.set(recipe)
        # The server keeps a run's parameters: values of variables may be secret.
        set_ = [without_secrets(text) for text in overrides]
        try:
            if flow == "pipeline":
                return pipeline(recipe=named, set=set_, until=until or LAST, lake=str(lake))
            return getattr(import_module("flows.trials"), flow)(recipe=named, set=set_, lake=str(lake), **parameters)
        finally:
            RUN_LOG.reset(token)
            RECIPE.reset(chosen)

    found = LastingServer(url, lose) if url else TemporaryServer(lake, say, lose)
    try:
        return _called(call, found, recipe.runtime, at_once=url is None)
    finally:
        end_own()


def promote(lake: Path, say: Callable[[str], None], lose: Callable[[str], None], **asked: Any) -> dict[str, Any]:
    """Run the flow `promote` of `flows.promotion`, with what it is asked, on the server that `headwater up` started.

    Raises:
        UserError: for what can be put right; where there is no server, for one.
        FailedRunError: where a checkpoint can't be judged, or the Prefect server can't be used.
    """
    opened = Lake(lake).require()
    from flows.service.environment import end_own, prepare
    from flows.service.servers import LastingServer
    from tasks.runtime import RuntimeConfig

    url = prepare(opened.root)
    if url is None:
        raise UserError("a person has to agree in Prefect's pages, and no server runs: start it with `headwater up`")
    say(f"the comparison and the form will be at {url.removesuffix('/api')}, Runs")

    def call() -> dict[str, Any]:
        from flows.promotion import promote

        answer: dict[str, Any] = promote(lake=str(opened.root), **asked)
        return answer

    try:
        return _called(call, LastingServer(url, lose), RuntimeConfig(), at_once=False)
    finally:
        end_own()


def _called(call: Callable[[], T], found: LastingServer | TemporaryServer, runtime: RuntimeConfig, at_once: bool) -> T:
    """Call what runs a flow, with its server and cluster around it; see `start` for what is raised."""
    from flows.service.servers import ServerError
    from tasks.cluster.connect import leaving

    with found as server, leaving(runtime, at_once), _prefect(server.url):
        import httpx
        from prefect.exceptions import PrefectException

        from tasks.tracked import StageError

        try:
            server.wait()
            return call()
        except StageError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise FailedRunError(f"{error}; the same command goes on from what is finished") from error
        except ServerError as error:
            raise FailedRunError(str(error)) from None
        except (httpx.HTTPError, PrefectException) as error:
            words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            place = server.url.removesuffix("/api")
            raise FailedRunError(f"the Prefect server at {place} can't be used: {words}") from error


@contextmanager
def _prefect(url: str) -> Iterator[None]:
    """Import Prefect and make it use this server.

    Raises:
        UserError: where its settings are wrong.
    """
    again = "prefect" in sys.modules
    try:
        import tasks.apart  # noqa: F401
    except ValueError as error:  # of pydantic: lines that name the setting, what was given and what is wrong with it
        words = " ".join(str(error).split())[:300]
        raise UserError(f"Prefect's settings are wrong: {words}; correct or unset the variable") from None
    if not again:
        yield
        return
    from prefect import settings  # read once from the environment, which was an earlier run's

    known = {settings.PREFECT_API_URL: url}
    for setting in (settings.PREFECT_API_AUTH_STRING, settings.PREFECT_HOME):
        if setting.name in os.environ:
            known[setting] = os.environ[setting.name]
    with settings.temporary_settings(known):
        yield


def find_inputs(recipe: Recipe) -> None:
    """Look whether every local path of every source is there, before anything is made or started.

    Raises:
        UserError: where a path matches nothing, or names what can't be read.
    """
    from datalake.paths import expand
    from datalake.remote.address import is_remote, shown

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
