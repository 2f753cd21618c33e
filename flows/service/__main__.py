"""`python -m flows.service server --port N`: Prefect's server on this machine, behind the guard."""

from __future__ import annotations

import argparse

import uvicorn

HOST = "127.0.0.1"


def serve(port: int) -> None:
    """Run Prefect's API, UI and services until a signal ends them."""
    from prefect.server.api.server import create_app

    from flows.service.guard import Guard

    uvicorn.run(Guard(create_app(final=True)), host=HOST, port=port, timeout_keep_alive=5, log_level="warning")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.service")
    parser.add_argument("role", choices=["server"])
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)
