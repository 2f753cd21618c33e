"""The one place where Ray is started or joined."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from datalake.errors import UserError
from tasks.runtime import RuntimeConfig


def connect(config: RuntimeConfig) -> Any:
    """Ray, initialised once per process as `config` says; returns the module.

    A local cluster has as many CPUs as the run has workers, so that two workers mean two processes at work.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray
    # Ray turns its token on by itself and says so on every start; the token stays on, the notice goes.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if config.cluster == "local":
        options |= {
            "address": "local",  # never join a cluster left over from something else
            "num_cpus": config.workers,
            "_memory": int(config.memory_gb * (1 << 30)) + config.workers,  # what the tasks ask for always fits
            "include_dashboard": False,
            "object_store_memory": max(int(config.memory_gb * (1 << 30) * 0.1), 100 << 20),
        }
    else:
        options |= {"address": config.cluster}
        if (Path.home() / ".ray" / "auth_token").exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # joining doesn't turn the token on by itself
    try:
        with contextlib.redirect_stdout(None):
            ray.init(**options)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster at {config.cluster} ({str(error).splitlines()[0]}): start one with `ray start`, "
            "or set runtime.cluster to local"
        ) from None
    return ray


def disconnect() -> None:
    """Leave the cluster; a local one ends with it."""
    import sys

    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
