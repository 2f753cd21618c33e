"""The parts of a team's installation that Debian has, each started with its own folder, port and password."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stores
from harness import free_port


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """A PostgreSQL with these databases that wants a password; gives `user:password@host:port`."""
    with stores.postgres("headwater", secrets.token_hex(16)) as server:
        for name in databases:
            server.empty(name)
        yield server.url.removeprefix("postgresql://").partition("/")[0]


def dump(where: str, database: str) -> str:
    """Everything in a database, as SQL."""
    url = f"postgresql://{where}/{database}"
    done = subprocess.run([stores.program("pg_dump"), url], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis that wants a password; gives `:password@host:port`."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("no Redis: apt-get install redis-server")
    port, password = free_port(), secrets.token_hex(16)
    folder.mkdir(parents=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--requirepass", password, "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while "Ready to accept connections" not in (folder / "log").read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f":{password}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
