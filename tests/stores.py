"""Places that machines share, for tests: an S3 double in a process of its own, and a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import free_port
from servers import S3Server

BUCKET = "lake"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def settings(url: str, cache: Path) -> dict[str, str]:
    """The environment of a machine that reaches a store, and keeps its own copies."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": url, "HEADWATER_CACHE": str(cache)}


@contextmanager
def bucket() -> Iterator[S3Server]:
    """An S3 double in this process with one empty bucket, `lake`."""
    pytest.importorskip("moto", reason="the S3 double comes with the extra `dev`")
    pytest.importorskip("flask_cors", reason="the S3 double comes with the extra `dev`")
    from moto.backends import get_backend
    from s3fs import S3FileSystem

    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        server = S3Server()
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        get_backend("s3").reset()
        S3FileSystem.clear_instance_cache()  # which knows another server's address
        server.client().create_bucket(Bucket=BUCKET)
        try:
            yield server
        finally:
            S3FileSystem.clear_instance_cache()
            server.close()


class Postgres:
    """A cluster of its own in a folder, which can be stopped and started again."""

    def __init__(self, folder: Path, user: str = "lake", password: str = "") -> None:
        """`folder`: one that others may pass through, as it may have to run as another user. Without a password it
        wants none."""
        self.folder, self.port = folder, free_port()
        self.url = f"postgresql://{user}{password and ':'}{password}@127.0.0.1:{self.port}/postgres"
        self.user: list[str] = []
        if os.getuid() == 0:  # it refuses to run as root
            self.user = ["setpriv", "--reuid", "nobody", "--clear-groups"]
            shutil.chown(folder, "nobody")
        auth = ["--auth", "trust"]
        if password:
            word = folder / "password"
            word.write_text(password)
            auth = ["--auth", "scram-sha-256", "--pwfile", str(word)]
        self._run("initdb", "-D", f"{folder}/data", "-U", user, "-E", "UTF8", "--no-sync", *auth)
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """At once, as a crash does: every session ends."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def empty(self, name: str) -> str:
        """Where a new database of this name is."""
        from sqlalchemy import create_engine, text

        with create_engine(self.url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return self.url.replace("/postgres", f"/{name}")

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self.user, program(name), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout.decode()


def program(name: str) -> str:
    """Where a program of PostgreSQL lies, beside the server: on PATH Debian has wrappers. The test skips without."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    for path in [*versions, *map(Path, filter(None, [shutil.which(name)]))]:
        if (path.parent / "postgres").exists():
            return str(path)
    pytest.skip("no PostgreSQL server here: apt-get install postgresql")


@contextmanager
def postgres(user: str = "lake", password: str = "") -> Iterator[Postgres]:
    """A PostgreSQL that ends with the block; skips where there is none."""
    with TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        server = Postgres(Path(folder), user, password)
        try:
            yield server
        finally:
            server.stop()


def wait_until(happened: object, seconds: float = 60) -> None:
    """Wait until a condition holds."""
    assert callable(happened)
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    """Python in a process of its own, as another machine would run it."""
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def pooler(database: Postgres) -> Iterator[str]:
    """The URL of a PgBouncer before a PostgreSQL that gives each transaction a session, for any client; skips where
    there is none."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer here: apt-get install pgbouncer")
    port = free_port()
    with TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        settings = Path(folder, "settings.ini")
        settings.write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={database.port} user=lake\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
            "pool_mode = transaction\n"
        )
        process = subprocess.Popen([*database.user, program, "-q", str(settings)])
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None)
            yield f"postgresql://lake@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
