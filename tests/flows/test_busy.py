"""Accidents of a server that has company: a database that is locked for longer than anything waits, a full disk."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import ROOT, PrefectServer

pytestmark = pytest.mark.slow
LOCKED_S = 14.0  # Prefect's server waits 10 s for its database, and then says 503


def test_a_run_goes_on_while_the_servers_database_is_locked(prefect_server: PrefectServer, tmp_path: Path) -> None:
    world.jsonl(tmp_path / "a.jsonl", [{"text": world.prose(n)} for n in range(6)])
    recipe = world.tables(tmp_path, [tmp_path / "a.jsonl"])
    locked, over = threading.Event(), []

    def lock() -> None:
        with closing(sqlite3.connect(prefect_server.lake / "prefect" / "prefect.db", timeout=60)) as database:
            database.isolation_level = None
            database.execute("BEGIN IMMEDIATE")
            locked.set()
            time.sleep(LOCKED_S)  # the one thing that no condition can say: for how long
            database.execute("ROLLBACK")
            over.append(time.monotonic())

    thread = threading.Thread(target=lock)
    thread.start()
    assert locked.wait(60)
    reports = world.run(recipe, tmp_path / "lake", "mixture")
    ended = time.monotonic()
    thread.join()
    assert over
    assert over[0] < ended, "the run had to wait for it"
    assert set(world.states(reports).values()) == {"ran"}
    assert world.rows(tmp_path / "lake", "SELECT count(*) FROM small.mixture") == [(6,)]
    filtered: dict[str, Any] = {"flow_runs": {"name": {"like_": "small "}}, "sort": "START_TIME_DESC", "limit": 1}
    (run,) = prefect_server.call("/flow_runs/filter", filtered)
    assert run["state"]["type"] == "COMPLETED", "and the server knows of its end"


FULL = """
mount -t tmpfs -o size=24m tmpfs "$1" || exit 77
head -c 23m /dev/zero > "$1/ballast"
"$2" -m flows.cli run "$3" --lake "$1/lake" --until mixture --json; echo "first $?" >&2
rm "$1/ballast"
"$2" -m flows.cli run "$3" --lake "$1/lake" --until mixture --json; echo "second $?" >&2
"$2" -m flows.cli query "SELECT md5(string_agg(text, '' ORDER BY id)) AS d FROM small.clean" --lake "$1/lake" --json
cp -r "$1/lake/shards" "$4"
"""


def test_a_full_disk_ends_a_run_in_one_line_and_the_next_one_goes_on(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    if not shutil.which("unshare") or os.geteuid() != 0:
        pytest.skip("a disk of its own needs a mount namespace: unshare, as root")
    rows = [{"text": world.prose(n, 400)} for n in range(200)]
    world.jsonl(tmp_path / "a.jsonl", rows)
    recipe = world.tables(tmp_path, [tmp_path / "a.jsonl"])
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    (tmp_path / "disk").mkdir()
    arguments = [str(tmp_path / "disk"), sys.executable, str(path), str(tmp_path / "shards")]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", FULL, "sh", *arguments], capture_output=True, text=True, cwd=ROOT, check=False,
        env=prefect_server.environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "Operation not permitted" in done.stderr or done.returncode == 77:
        pytest.skip("no mount namespace here")
    said = [line for line in done.stderr.splitlines() if "No space left" in line or "no space" in line.lower()]
    assert said, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "second 0" in done.stderr, done.stderr[-3000:]
    assert "first 0" not in done.stderr
    world.run(recipe, tmp_path / "undisturbed", "mixture")
    expected = world.rows(
        tmp_path / "undisturbed", "SELECT md5(string_agg(text, '' ORDER BY id)) AS d FROM small.clean"
    )
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [{"d": expected[0][0]}]
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "shards").rename(moved / "shards")
    stages = ("ingest", "curate", "deduplicate", "mixture")
    assert world.parquet(moved, stages) == world.parquet(tmp_path / "undisturbed", stages)
