"""`deploy`: an ASGI application in several processes of a cluster, behind one address of each node (Ray Serve)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from datalake.errors import UserError
from tasks.cluster.connect import connect, require
from tasks.runtime import RuntimeConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_NAME = "headwater"
_ONGOING = 4096  # requests of one replica: the application itself knows how many it takes, and says so


@contextlib.contextmanager
def deploy(
    build: Callable[[], ASGIApp], replicas: int, host: str, port: int, config: RuntimeConfig
) -> Iterator[Callable[[], None]]:
    """A context in which `replicas` processes answer at an address, each with the application that `build` makes there;
    gives what raises ClusterError once the cluster has ended.

    A replica that dies is begun anew. Each has its share of the CPUs, or a GPU of its own where there are as many.

    Raises:
        UserError: where Ray Serve isn't installed, the cluster can't be had, or an application can't be built.
    """
    try:
        from ray import serve
        from ray.serve.exceptions import RayServeException
    except ImportError:
        raise UserError("replicas are of Ray Serve, which isn't installed: pip install 'ray[serve]'") from None
    ray = connect(config)
    room = ray.cluster_resources()
    share: dict[str, Any] = {"num_cpus": max(1, int(room.get("CPU", 1)) // replicas)}
    if replicas * share["num_cpus"] > room.get("CPU", 1):
        raise UserError(f"the cluster has {int(room.get('CPU', 0))} CPUs for {replicas} replicas: ask for fewer")
    if room.get("GPU", 0) >= replicas:
        share["num_gpus"] = 1
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="EveryNode" if config.cluster != "local" else "HeadOnly",
        http_options={"host": host, "port": port},
        logging_config=quiet,
    )
    application: Any = serve.deployment(
        serve.ingress(build)(),
        name=_NAME,
        num_replicas=replicas,
        max_ongoing_requests=_ONGOING,
        ray_actor_options=share,
        logging_config=quiet,
    )
    try:
        try:
            serve.run(application.bind(), name=_NAME, route_prefix="/", logging_config=quiet)
        except (RuntimeError, RayServeException) as error:
            raise UserError(f"the replicas can't be started: {_why(serve) or error}") from None
        yield lambda: require(ray)
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()


def _why(serve: Any) -> str:
    """The last line of what Ray Serve knows of a replica that failed: the error itself, behind its traceback."""
    told = serve.status().applications[_NAME].deployments[_NAME].message.strip().splitlines()
    return told[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")[:300] if told else ""
