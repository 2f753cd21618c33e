"""Fixtures shared by the whole suite: the real samples, one Prefect server, places that machines share."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from harness import ROOT, PrefectServer, browsing, free_port
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from servers import S3Server
    from stores import Postgres


def pytest_configure(config: pytest.Config) -> None:
    """Random examples are the same in every run, but in one with the slow tests, which looks for new ones; seconds say
    nothing about what is right, since the machine may be busy.

    Signals have their usual meaning, also for a suite begun in the background or under nohup: what it starts is
    interrupted as at a terminal.
    """
    hypothesis.settings.register_profile(
        "suite",
        deadline=None,
        derandomize="slow or not slow" not in config.getoption("-m"),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("suite")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)


def pytest_collection_finish() -> None:
    """Thousands of tests live to the end: the collector need not look at them again, each time and in each training."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Else libraries report at the end of the process that what was frozen is never freed."""
    gc.unfreeze()


class Sharing(LoadScopeScheduling):
    """Where the suite runs in several processes, one of them has all that needs Prefect's server, and one all that
    shares a Ray, so that each is started once; other files stay whole, for their fixtures. (`--dist loadgroup` does
    nothing under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


@cache
def _scope(file: str) -> str:
    """Of what a file's tests are run together with: what it shares is told by the fixtures that it names."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.startswith("tests/tasks/") and ("ray_runtime" in text or "on_ray" in text):
        return "Ray"
    needs = file.startswith(("tests/flows/", "tests/tasks/")) and SERVED.search(text)
    return "Prefect" if needs else file


SERVED = re.compile(r"\b(?:prefect_server|running|whole|browser|ran|start|chromium)\b|world\.run")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def samples_root() -> Path:
    """Where the real samples are looked for: HEADWATER_SAMPLES, else beside the repository."""
    return Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; the test skips where there is none."""
    root = samples_root()
    if not root.is_dir():
        pytest.skip(f"no samples at {root}: set HEADWATER_SAMPLES")
    return root


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One Prefect server for the whole suite (20 s); flows called in this process go to it."""
    from flows.commands import service

    lake, port = tmp_path_factory.mktemp("server") / "lake", free_port()
    service.start_server(lake, port)
    server = PrefectServer(f"http://127.0.0.1:{port}/api", port, lake)
    try:
        from prefect.logging.handlers import APILogHandler
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

        known = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: server.login, PREFECT_HOME: lake / "prefect"}
        with temporary_settings(known), pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_API_AUTH_STRING", server.login)
            yield server
            APILogHandler().flush()  # else the last logs find no server and say so behind pytest's summary
    finally:
        service.stop(lake)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    """An S3 double with one empty bucket, which this process's environment leads to."""
    from stores import bucket

    with bucket() as server:
        yield server


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """A real PostgreSQL, which can be stopped and started again; the test skips where there is none."""
    from stores import postgres

    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser under Playwright, for tests that run no flows beside it."""
    with browsing() as browser:
        yield browser
