"""The parts of a team's installation that Debian has, each started with its own folder, port and password."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import free_port


def _programs(name: str) -> Path:
    """Where a program of PostgreSQL lies; the test skips where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # Debian's own; on PATH lie wrappers
    there = found[-1] if found else Path(shutil.which(name) or "")
    if not there.is_file():
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    return there.parent


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """A PostgreSQL with these databases that wants a password; gives `user:password@host:port`."""
    programs, port, password = _programs("initdb"), free_port(), secrets.token_hex(16)
    folder = Path(tempfile.mkdtemp(prefix="hwpg"))  # pytest's own folders are closed to other users
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    word = folder / "password"
    word.write_text(password)
    if as_user:
        shutil.chown(word, "postgres")
    data = folder / "data"
    made = ["initdb", "-D", str(data), "-U", "headwater", "-A", "scram-sha-256", "--pwfile", str(word), "-E", "UTF8"]
    subprocess.run([*as_user, str(programs / made[0]), *made[1:]], check=True, capture_output=True, cwd=folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *as_user,
                str(programs / "postgres"),
                "-D",
                str(data),
                "-p",
                str(port),
                "-h",
                "127.0.0.1",
                "-k",
                str(data),
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    environment = os.environ | {"PGPASSWORD": password}
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "headwater"]
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([programs / "pg_isready", *where], capture_output=True, check=False).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for name in databases:
            subprocess.run([programs / "createdb", *where, name], env=environment, check=True, capture_output=True)
        yield f"headwater:{password}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def dump(where: str, database: str) -> str:
    """Everything in a database, as SQL."""
    url = f"postgresql://{where}/{database}"
    done = subprocess.run([_programs("pg_dump") / "pg_dump", url], capture_output=True, check=True)
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
