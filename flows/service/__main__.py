"""`python -m flows.service server --port N`: Prefect's server on this machine, behind the guard."""

from __future__ import annotations

import argparse

import uvicorn

HOST = "127.0.0.1"


def serve(port: int | None = None, fd: int | None = None) -> None:
    """Run Prefect's API, UI and services until a signal ends them, at a port or at a socket that is inherited.

    At a socket of its own a run has its temporary server, with neither pages nor schedules, which ends at once.
    """
    from prefect.server.api.server import create_app

    from flows.service.guard import Guard
    from flows.service.transactions import queue_for_sqlite

    queue_for_sqlite()
    app = Guard(create_app(final=True, ephemeral=fd is not None))
    if fd is None:
        assert port is not None
        uvicorn.run(app, host=HOST, port=port, timeout_keep_alive=5, log_level="warning")
    else:
        uvicorn.run(app, fd=fd, timeout_graceful_shutdown=1, log_level="error")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.service")
    parser.add_argument("role", choices=["server"])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--fd", type=int, help="of a socket that listens")
    arguments = parser.parse_args()
    serve(arguments.port, arguments.fd)
