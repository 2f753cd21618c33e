"""`headwater doctor` tells what is right, what is missing and what to do, and fails only where a run would."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from datalake.lake.lake import Lake
from datalake.lake.records import Manifest, StageReport, now, write_manifest
from datalake.lake.shards import ShardWriter
from flows.commands import doctor
from flows.commands.common import Common
from flows.commands.doctor import Check, look, pinned


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def part(name: str, lake: Path) -> list[Check]:
    return list(getattr(doctor, f"_{name}")(lake))


def test_everything_is_looked_at_and_nothing_fails_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor(common=Common(tmp_path / "lake", json=True)) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    names = {check["name"] for check in checks}
    assert {"Python", "packages", "cores", "memory", "disk", "lake", "Prefect server", "worker"} <= names
    assert {"leftover processes", "Ray", "PyTorch", "device", "language model", "samples", "browser"} <= names
    assert not (tmp_path / "lake").exists(), "looking makes nothing"
    for check in checks:
        assert check["state"] in ("ok", "warn")
        assert check["found"]
        assert check["state"] == "ok" or check["advice"], "a warning says what to do"


def test_one_failure_is_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "look", lambda *_: iter([Check("disk", "fail", "0 GB", "make room")]))
    assert doctor.doctor(common=Common(tmp_path)) == 1
    assert "make room" in capsys.readouterr().out


def test_a_check_that_breaks_down_is_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise OSError("no\nluck")

    for name in ("ray", "torch", "language", "packages"):
        monkeypatch.setattr(doctor, f"_{name}", lambda lake: iter(()))
    monkeypatch.setattr(doctor, "_machine", broken)
    found = [check for check in look(tmp_path) if check.state == "fail"]
    assert [check.found for check in found] == ["OSError: no luck"]


def test_pins_are_read_from_constraints() -> None:
    text = "# versions\nPyYAML==6.0.3\nray==2.60.0\nnumpy>=2\n"
    assert pinned(text) == {"pyyaml": "6.0.3", "ray": "2.60.0"}


def test_a_package_that_is_missing_fails_and_another_version_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def other(name: str) -> str:
        return "0.0.1" if name == "duckdb" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", other)
    (check,) = part("packages", tmp_path)
    assert check.state == "warn"
    assert "duckdb 0.0.1" in check.found

    def gone(name: str) -> str:
        if name == "duckdb":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", gone)
    (check,) = part("packages", tmp_path)
    assert (check.state, check.found) == ("fail", "missing: duckdb")


def test_a_lake_is_opened_and_its_runs_counted(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    lake.catalog.create_namespace("toy")
    write_manifest(lake, Manifest(run="r", corpus="toy", recipe={}, started=now(), finished=now(), stages=[]))
    checks = part("lake", lake.root)
    assert states(checks) == {"lake": "ok", "catalog": "ok"}
    assert "1 finished run" in checks[0].found


def test_a_lake_that_is_a_file_or_broken_fails(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert states(part("lake", file)) == {"lake": "fail"}
    broken = tmp_path / "lake"
    broken.mkdir()
    (broken / "catalog.db").write_bytes(b"this is no database" * 100)
    checks = part("lake", broken)
    assert states(checks) == {"lake": "ok", "catalog": "fail"}
    assert "catalog.db" in checks[1].advice


def test_what_runs_name_and_is_gone_is_told_and_a_look_at_digests_names_files(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    lake = Lake(tmp_path / "lake").create()
    with ShardWriter(lake.shard_folder("ingest", "one"), "one", "one", {"raw": schema}) as out:
        out.write("raw", pa.table({"n": [1]}, schema=schema))
    ref = lake.commit("toy.raw", schema, out.result.files, "one")
    report = StageReport(stage="ingest", state="ran", seconds=0, outputs={"raw": ref})
    write_manifest(lake, Manifest(run="r", corpus="toy", recipe={}, started=now(), finished=now(), stages=[report]))
    assert states(part("lake", lake.root)) == {"lake": "ok", "catalog": "ok"}
    assert states(part("digests", lake.root)) == {"files": "ok"}
    path = Path(lake.files(ref)[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"2")
    assert states(part("lake", lake.root)) == {"lake": "ok", "catalog": "ok"}, "its size is right"
    (check,) = part("digests", lake.root)
    assert check.state == "warn"
    assert f"{path} isn't what was written" in check.found
    path.write_bytes(whole[:-1])
    (lake.root / "runs" / "cut.json").write_text("{")
    found = {check.name: check for check in part("lake", lake.root)}
    assert (found["runs"].state, found["tables"].state) == ("warn", "warn")
    assert "toy.raw" in found["tables"].found
    moved = lake.root.rename(tmp_path / "elsewhere")
    catalog = {check.name: check for check in part("lake", moved)}["catalog"]
    assert catalog.state == "warn"
    assert "another place" in catalog.found


def test_a_server_that_is_gone_is_told_from_one_that_never_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert states(part("service", tmp_path)) == {"Prefect server": "ok", "worker": "ok"}
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "headwater-server.json").write_text('{"url": "http://127.0.0.1:9/api", "server": "1:1"}')
    server = part("service", tmp_path)[0]
    assert server.state == "warn"
    assert "headwater up" in server.advice


def test_what_a_killed_run_left_is_found(tmp_path: Path) -> None:
    from flows.service.environment import clear_leftovers

    marks = {"HEADWATER_PROCESS_LAKE": str(tmp_path), "HEADWATER_PROCESS_OWNER": "1:1"}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=os.environ | marks)
    try:
        deadline = time.monotonic() + 60
        while part("leftovers", tmp_path)[0].state == "ok" and time.monotonic() < deadline:
            time.sleep(0.05)
        (check,) = part("leftovers", tmp_path)
        assert (check.state, check.found.split()[0]) == ("warn", str(process.pid))
        assert clear_leftovers(tmp_path) == [process.pid]
    finally:
        process.kill()
        process.wait()
    assert part("leftovers", tmp_path)[0].state == "ok"
