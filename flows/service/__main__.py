"""`python -m flows.service server --port N`: Prefect's server, behind the guard; on this machine alone unless `--host`
says otherwise, and then never without a login."""

from __future__ import annotations

import argparse
import os
import sys

import uvicorn

from flows.service.listening import HOST, is_loopback


def serve(port: int | None = None, fd: int | None = None, host: str = HOST) -> None:
    """Run Prefect's API, UI and services until a signal ends them, at a port or at a socket that is inherited.

    At a host that other machines reach it answers under any name, as a proxy may have given it one. At a socket of its
    own a run has its temporary server, with neither pages nor schedules, which ends at once.
    """
    from prefect.server.api.server import create_app

    from flows.service.guard import HOSTS, Guard
    from flows.service.transactions import queue_for_sqlite

    queue_for_sqlite()
    app = Guard(create_app(final=True, ephemeral=fd is not None), hosts=HOSTS if is_loopback(host) else None)
    if fd is None:
        assert port is not None
        uvicorn.run(app, host=host, port=port, timeout_keep_alive=5, log_level="warning")
    else:
        uvicorn.run(app, fd=fd, timeout_graceful_shutdown=1, log_level="error")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.service")
    parser.add_argument("role", choices=["server"])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--fd", type=int, help="of a socket that listens")
    parser.add_argument("--host", default=HOST)
    arguments = parser.parse_args()
    if not is_loopback(arguments.host) and ":" not in os.environ.get("PREFECT_SERVER_API_AUTH_STRING", ""):
        print(
            f"headwater: --host {arguments.host}: other machines would command this one without a password: set"
            " PREFECT_SERVER_API_AUTH_STRING to user:password",
            file=sys.stderr,
        )
        sys.exit(2)
    serve(arguments.port, arguments.fd, arguments.host)
