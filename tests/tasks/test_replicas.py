"""`deploy`: an application in several processes, one of which dies, or that can't be built."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import world
from harness import free_port

from datalake.errors import UserError
from tasks.cluster import deploy
from tasks.runtime import RuntimeConfig

pytest.importorskip("grpc_reflection", reason="no Ray Serve: pip install -e .[dev]")
RUNTIME = RuntimeConfig(**world.on_ray())


def numbers() -> Any:
    """An application that tells the process it is in."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def told(request: Any) -> Any:
        return PlainTextResponse(str(os.getpid()))

    return Starlette(routes=[Route("/", told)])


def asked(port: int, times: int = 20) -> set[int]:
    import urllib3

    with urllib3.PoolManager(retries=False) as pool:
        return {int(pool.request("GET", f"http://127.0.0.1:{port}/", timeout=60).data) for _ in range(times)}


def until(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def by_value() -> Iterator[None]:
    """Replicas know nothing of this module."""
    from ray import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.slow
def test_all_replicas_answer_and_one_that_dies_is_begun_anew(by_value: None) -> None:
    port = free_port()
    with deploy(numbers, 2, "127.0.0.1", port, RUNTIME) as check:
        until(lambda: len(asked(port)) == 2)
        before = asked(port, 40)
        os.kill(min(before), signal.SIGKILL)

        def renewed() -> bool:
            try:
                now = asked(port)
            except ValueError:  # a request was on its way to the one that died
                return False
            return len(now) == 2 and now != before

        until(renewed)
        check()


@pytest.mark.slow
def test_what_cannot_be_built_is_said_in_one_line(by_value: None) -> None:
    def broken() -> Any:
        raise UserError("there is no such model")

    with (
        pytest.raises(UserError, match="there is no such model") as end,
        deploy(broken, 1, "127.0.0.1", free_port(), RUNTIME),
    ):
        pass
    assert "\n" not in str(end.value)


def test_more_replicas_than_the_cluster_holds_are_refused() -> None:
    with (
        pytest.raises(UserError, match=r"CPUs for 99 replicas"),
        deploy(numbers, 99, "127.0.0.1", free_port(), RUNTIME),
    ):
        pass
