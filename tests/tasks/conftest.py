"""One local Ray for every test that needs a real one (starting it takes seconds), and `ingest` without Prefect."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from datalake.sources import Source
from datalake.sources.listing import list_archives
from tasks.cluster.connect import connect, disconnect
from tasks.ingest import IngestConfig, ingest
from tasks.produced import Produced
from tasks.runtime import Runtime, RuntimeConfig, StageKey

RuntimeOf = Callable[..., Runtime]
Read = Callable[..., Produced]
SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


@pytest.fixture(scope="session")
def ray_runtime() -> Iterator[RuntimeConfig]:
    """The config of a local Ray with two workers, up for the whole session."""
    config = RuntimeConfig(workers=2, cluster="local", memory_gb=1, retries=1)
    connect(config)
    yield config
    disconnect()


@pytest.fixture
def on_ray(ray_runtime: RuntimeConfig, tmp_path: Path) -> RuntimeOf:
    """Makes a Runtime on the session's Ray; keyword arguments change its config."""

    def make(**changes: Any) -> Runtime:
        return Runtime(ray_runtime.model_copy(update=changes), tmp_path / "lake", "tests")

    return make


@pytest.fixture
def inline(tmp_path: Path) -> RuntimeOf:
    """Makes a Runtime that works in this process, without Ray; keyword arguments change its config."""

    def make(**changes: Any) -> Runtime:
        return Runtime(RuntimeConfig(**{"workers": 1, "cluster": "inline", "retries": 1, **changes}), tmp_path, "tests")

    return make


@pytest.fixture
def told() -> Iterator[type[BaseException]]:
    """What SIGUSR2 to this process raises, as Prefect's handler does in a run that is cancelled."""

    class Told(BaseException):
        pass

    def tell(*_: Any) -> None:
        raise Told

    signal.signal(signal.SIGUSR2, tell)
    yield Told
    signal.signal(signal.SIGUSR2, lambda *_: None)  # one that comes late, the test having failed, ends no suite


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Ingests sources, given as a recipe's entries, into a new lake in this process."""

    def run(*sources: dict[str, Any]) -> Produced:
        config = IngestConfig(sources=[SOURCE.validate_python(source) for source in sources])
        inline = RuntimeConfig(workers=1, cluster="inline", retries=1)
        runtime = Runtime(inline, tmp_path / "lake", "tests", "run", StageKey("ingest", "1", {}))
        runtime.lake.create()
        return ingest.fn(config, runtime, archives=list_archives(config.sources, runtime.lake))

    return run
