"""Accidents of a run: it ends in order or goes on, says so in a line, and the next one gives equal tables.

Runs here are processes of their own in a session of their own, as a terminal's are. Signals go to the whole group,
but for a supervisor's to a run that starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
import world
from begun import Begun, Start, ended, many_archives, processes_of, state, steps_done, wait_for
from harness import ROOT

from datalake.files import folder_version
from flows.service.database import damage, set_aside_damaged

SWEEP = ["sweep", "--aspect", "8", "--ratios", "0.1,0.2,0.4"]
ABLATE = ["ablate", "--against", "pretrain.learning_rate=0.01"]
AGAIN = "the same command goes on from what is finished"


def told_once(run: Begun, status: int, words: str, seconds: float = 120) -> None:
    """The run ends with this status and says why in its last line; nobody dumps a stack, nothing of it is left."""
    assert run.process.wait(seconds) == status, run.told()
    last = run.told().splitlines()[-1]
    assert last.startswith("headwater: "), run.told()
    assert words in last, run.told()
    assert "Traceback" not in run.told()
    assert "*** SIG" not in run.told()


def trained(folder: Path, runtime: dict[str, Any]) -> dict[str, Any]:
    """A recipe that trains for some seconds and would save no state before its end."""
    recipe = many_archives(folder, 2, 20) | {"runtime": runtime}
    recipe["pretrain"] |= {"steps": 60, "checkpoint_every": 1000}
    return recipe


@pytest.fixture(scope="module")
def undisturbed(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The archives of a recipe, and a lake in which it was run to the end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    world.run(trained(folder / "in", world.inline()), folder / "lake", "pretrain")
    return folder / "in", folder / "lake"


def version(lake: Path) -> str:
    [checkpoint] = (lake / "folders").glob("pretrain/*/checkpoint")
    return folder_version(checkpoint)


def saved_step(lake: Path) -> int:
    return max(int(path.name.partition("-")[2]) for path in (lake / "states").glob("*/step-*"))


@pytest.mark.parametrize(
    ("number", "own_server", "runtime"),
    [
        (signal.SIGINT, True, world.inline()),
        pytest.param(signal.SIGTERM, False, world.inline(), marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, False, world.inline(), marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, True, world.on_ray(), marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, world.on_ray(), marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_training_saves_the_state_and_ends_all_processes(
    start: Start,
    tmp_path: Path,
    prefect_server: Any,
    undisturbed: tuple[Path, Path],
    number: signal.Signals,
    own_server: bool,
    runtime: dict[str, Any],
) -> None:
    archives, whole = undisturbed
    recipe, lake = trained(archives, runtime), tmp_path / "lake"
    run = start(recipe, lake, "pretrain", "" if own_server else prefect_server.url)
    wait_for(run, lambda: steps_done(lake) >= 3)
    os.killpg(run.process.pid, number)
    told_once(run, 128 + number, f"interrupted; {AGAIN}")
    assert json.loads(run.out.read_text())["error"] == f"interrupted; {AGAIN}"
    assert processes_of(lake) == []
    step = saved_step(lake)
    assert 3 <= step == steps_done(lake) < 60
    reports = world.run(recipe, lake, "pretrain")
    assert world.states(reports)["tokenize"] == "cached"
    assert version(lake) == version(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("runtime", [world.inline(), world.on_ray()])
def test_a_signal_among_shards_costs_those_in_flight(
    start: Start, tmp_path: Path, prefect_server: Any, number: signal.Signals, runtime: dict[str, Any]
) -> None:
    recipe, lake = many_archives(tmp_path / "in", 24, 25) | {"runtime": runtime}, tmp_path / "lake"
    run = start(recipe, lake, "ingest")
    wait_for(run, lambda: len(world.shard_marks(lake, "ingest")) >= 2)
    os.killpg(run.process.pid, number)
    told_once(run, 128 + number, AGAIN)
    assert processes_of(lake) == []
    before = world.shard_marks(lake, "ingest")
    ended(start(recipe, lake, "ingest", prefect_server.url))
    assert before.items() <= world.shard_marks(lake, "ingest").items()
    undisturbed = tmp_path / "undisturbed"
    world.run(recipe | {"runtime": world.inline()}, undisturbed, "ingest")
    assert world.parquet(lake, ["ingest"]) == world.parquet(undisturbed, ["ingest"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [SWEEP, ABLATE], ids=["sweep", "ablate"])
def test_a_signal_among_trials_costs_those_in_flight(
    start: Start, tmp_path: Path, prefect_server: Any, number: signal.Signals, command: list[str]
) -> None:
    recipe, lake = many_archives(tmp_path / "in", 2, 25), tmp_path / "lake"
    run = start(recipe, lake, "", command=command)
    wait_for(run, lambda: len(world.shard_marks(lake, "trials")) >= 2)
    os.killpg(run.process.pid, number)
    told_once(run, 128 + number, AGAIN)
    assert processes_of(lake) == []
    before = world.shard_marks(lake, "trials")
    found = ended(start(recipe, lake, "", prefect_server.url, command=command))
    marks = world.shard_marks(lake, "trials")
    assert before.items() <= marks.items()
    assert 2 <= len(before) < len(marks) == 10
    assert found


def begun(lake: Path, name: str) -> bool:
    """Whether one of a lake's processes runs this program."""
    return any(name in " ".join(process.cmdline()[:3]) for process in processes_of(lake))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(
    "moment",
    [
        lambda lake: bool(processes_of(lake)),  # its own server is just being started
        lambda lake: begun(lake, "gcs_server"),
        lambda lake: begun(lake, "default_worker.py"),  # Ray's core holds the interpreter then
    ],
    ids=["server", "ray", "core"],
)
def test_a_signal_while_a_run_starts(
    start: Start, tmp_path: Path, moment: Any, twice: bool, number: signal.Signals
) -> None:
    send = os.killpg if number is signal.SIGINT else os.kill  # a terminal signals all its processes, a supervisor one
    lake = tmp_path / "lake"
    run = start(many_archives(tmp_path / "in", 2, 5), lake, "ingest")
    wait_for(run, lambda: moment(lake))
    send(run.process.pid, number)
    if twice:
        with contextlib.suppress(subprocess.TimeoutExpired):  # where there is little to end, the first may be enough
            run.process.wait(0.7)
        with contextlib.suppress(ProcessLookupError):
            send(run.process.pid, number)
    told_once(run, 128 + number, AGAIN)
    assert processes_of(lake) == []


@pytest.mark.slow
def test_sigterm_to_rays_processes_too_while_its_core_starts(start: Start, tmp_path: Path) -> None:
    """The core ends the process itself where the rest of Ray goes away under it: status 1, after a line of Ray's."""
    recipe, lake = many_archives(tmp_path / "in", 2, 5), tmp_path / "lake"
    run = start(recipe, lake, "ingest")
    wait_for(run, lambda: begun(lake, "default_worker.py"))
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.process.wait(120) in (1, 128 + signal.SIGTERM), run.told()
    ended(start(recipe, lake, "ingest"))
    assert processes_of(lake) == []  # the next run ends the server that was left


STARTING = """
    import signal, sys, time
    from tasks.cluster.connect import leaving
    from tasks.runtime import RuntimeConfig
    heard = set()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: heard.add(number))
    config = RuntimeConfig(cluster="local", workers=1, memory_gb=1)
    print("starting", flush=True)
    with leaving(config, at_once=sys.argv[1] == "in a thread"):
        from tasks.cluster.connect import connect
        connect(config)
        heard.clear()
        print("there", flush=True)
        while len(heard) < 2:
            time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGHUP):  # the interpreter's end would let the system's own act
        signal.signal(number, signal.SIG_IGN)
    print("left", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in a thread", "in this one"])
def test_signals_are_the_runs_own_while_ray_starts_and_after(where: str) -> None:
    """The core of Ray would take the first SIGTERM for a crash, and end the process by SIGABRT."""
    command = [sys.executable, "-c", textwrap.dedent(STARTING), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "starting\n"
        while process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
        assert process.stdout.read() == "there\nleft\n", process.stderr.read()
        assert process.returncode == 0


ENDING = """
    import subprocess, sys, time
    from flows import ending
    from flows.service.environment import enter
    from pathlib import Path
    enter(Path(sys.argv[1]))
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
    told = False
    ending.GRACE_S = float(sys.argv[2])
    with ending.Ending(lambda status, words: print(status, words, flush=True)) as mine:
        while True:
            try:
                if not told:
                    told = True
                    print(child.pid, flush=True)
                time.sleep(1000)
            except KeyboardInterrupt:  # as a library may do that takes it for a failure of its own
                print("swallowed", flush=True)
"""


@pytest.mark.parametrize("twice", [False, True])
def test_a_run_that_does_not_end_is_ended_by_a_second_ctrl_c_or_after_a_while(tmp_path: Path, twice: bool) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ENDING), str(tmp_path / "lake"), "1000" if twice else "0.6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        child = psutil.Process(int(run.stdout.readline()))
        run.send_signal(signal.SIGINT)
        assert run.stdout.readline() == "swallowed\n"
        if twice:
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(0.6)
            run.send_signal(signal.SIGINT)
        assert run.stdout.readline() == f"130 interrupted; {AGAIN}\n"
        assert run.wait(60) == 130
    child.wait(10)
    assert not child.is_running()


def server_of(lake: Path) -> psutil.Process:
    return next(process for process in processes_of(lake) if "flows.service" in process.cmdline())


@pytest.mark.slow
def test_a_run_goes_on_when_its_own_server_is_killed(start: Start, tmp_path: Path, prefect_server: Any) -> None:
    recipe, lake = many_archives(tmp_path / "in", 24, 25) | {"runtime": world.inline()}, tmp_path / "lake"
    run = start(recipe, lake, "curate")
    wait_for(run, lambda: len(world.shard_marks(lake, "ingest")) >= 2)
    server_of(lake).kill()
    assert state(ended(run), "curate") == "ran"
    assert "is started again" in run.told()
    assert "Traceback" not in run.told()
    assert processes_of(lake) == []
    undisturbed = tmp_path / "undisturbed"
    world.run(recipe, undisturbed, "curate")
    assert world.parquet(lake) == world.parquet(undisturbed)


@pytest.mark.slow
def test_a_run_ends_in_order_when_a_server_that_is_not_its_own_is_gone(
    start: Start, tmp_path: Path, prefect_server: Any
) -> None:
    from harness import free_port

    from flows.commands import service
    from flows.service import daemons
    from flows.service.login import login

    recipe, lake = many_archives(tmp_path / "in", 24, 100) | {"runtime": world.inline()}, tmp_path / "lake"
    elsewhere = tmp_path / "elsewhere"
    url = service.start_server(elsewhere, free_port())
    run = start(recipe, lake, "pretrain", url, PREFECT_API_AUTH_STRING=login(elsewhere))
    wait_for(run, lambda: len(world.shard_marks(lake, "ingest")) >= 2)
    for process in daemons.find("server", elsewhere):
        process.kill()
    told_once(run, 1, f"is gone (`headwater up` starts one); {AGAIN}")
    assert processes_of(lake) == []
    ended(start(recipe, lake, "ingest", prefect_server.url))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
@pytest.mark.parametrize("stage", ["ingest", "pretrain"])
def test_the_end_of_ray_is_one_line_and_costs_no_shard_its_tries(
    start: Start, tmp_path: Path, prefect_server: Any, undisturbed: tuple[Path, Path], victim: str, stage: str
) -> None:
    archives, whole = undisturbed
    recipe, lake = trained(archives, world.on_ray()), tmp_path / "lake"
    if stage == "ingest":
        recipe = many_archives(tmp_path / "in", 24, 100)
    run = start(recipe, lake, "pretrain", prefect_server.url)
    wait_for(run, lambda: (steps_done(lake) >= 3) if stage == "pretrain" else bool(world.shard_marks(lake, "ingest")))
    next(process for process in processes_of(lake) if process.name() == victim).kill()
    # What was under way may have come to its end: then the next stage asks for the cluster in vain.
    told_once(run, 1, "failed: ClusterError: Ray's")
    assert run.told().splitlines()[-1].endswith(AGAIN)
    assert [line for line in run.told().splitlines() if not line.startswith(("  ", "small: ", "headwater: "))] == []
    assert processes_of(lake) == []
    ended(start(recipe, lake, stage, prefect_server.url))
    if stage == "pretrain":
        assert version(lake) == version(whole)


class TestDatabase:
    """The server's SQLite: sound, not there, or set aside with the reason."""

    @staticmethod
    def made(path: Path, revision: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = sqlite3.connect(path)
        opened.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        opened.execute("INSERT INTO alembic_version VALUES (?)", [revision])
        opened.execute("CREATE TABLE log (text TEXT)")
        opened.executemany("INSERT INTO log VALUES (?)", [(f"line {n} " * 50,) for n in range(500)])
        opened.commit()
        opened.close()
        return path

    def test_one_of_this_prefect_is_sound(self, prefect_server: Any, tmp_path: Path) -> None:
        assert damage(prefect_server.lake / "prefect" / "prefect.db") == ""
        assert damage(tmp_path / "none.db") == ""
        (tmp_path / "empty.db").touch()
        assert damage(tmp_path / "empty.db") == ""

    def test_damage_is_found_and_set_aside(self, tmp_path: Path) -> None:
        folder = tmp_path / "prefect"
        database = self.made(folder / "prefect.db", "f416ea180ae1")
        assert damage(database) == ""
        whole = database.read_bytes()
        newer = self.made(tmp_path / "newer.db", "0123456789ab").read_bytes()
        overwritten = whole[:8192] + bytes(len(whole) - 8192)
        kinds = [b"garbage " * 1000, whole[: len(whole) // 2], overwritten, newer]
        for number, content in enumerate(kinds, 1):
            database.write_bytes(content)
            (folder / "prefect.db-wal").write_bytes(b"of the damaged one")
            assert f"set aside as prefect.db.damaged-{number}" in set_aside_damaged(tmp_path)
            assert not database.exists()
            assert not (folder / "prefect.db-wal").exists()
            assert (folder / f"prefect.db.damaged-{number}").read_bytes() == content
        database.mkdir()
        assert "is no file" in set_aside_damaged(tmp_path)
        assert set_aside_damaged(tmp_path) == ""

    def test_one_that_another_run_is_writing_is_left_alone(self, tmp_path: Path) -> None:
        database = self.made(tmp_path / "prefect" / "prefect.db", "f416ea180ae1")
        writer = sqlite3.connect(database)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM log")
        assert damage(database) == ""
        writer.close()


@pytest.mark.slow
def test_a_run_sets_a_damaged_database_of_its_server_aside(start: Start, tmp_path: Path, prefect_server: Any) -> None:
    recipe, lake = many_archives(tmp_path / "in", 2, 5) | {"runtime": world.inline()}, tmp_path / "lake"
    (lake / "prefect").mkdir(parents=True)
    (lake / "prefect" / "prefect.db").write_bytes(os.urandom(50_000))
    run = start(recipe, lake, "ingest")
    assert state(ended(run), "ingest") == "ran"
    assert "set aside as prefect.db.damaged-1" in run.told()


class TestTheClusterIsAsked:
    """`require`, with a stand-in for Ray: the real one is killed in the slow tests."""

    @staticmethod
    def ray(*dead: tuple[str, int], gcs: str = "127.0.0.1:1") -> Any:
        from types import SimpleNamespace as Of

        node = Of(dead_processes=lambda: [(kind, Of(returncode=status)) for kind, status in dead], gcs_address=gcs)
        return Of(_private=Of(worker=Of(_global_node=node)))

    def test_by_what_it_cannot_do_without(self) -> None:
        from tasks.cluster.connect import ClusterError, require

        require(self.ray())
        require(self.ray(("dashboard", 1), ("log_monitor", -9)))
        with pytest.raises(ClusterError, match=r"^Ray's raylet ended \(signal 9\)$"):
            require(self.ray(("dashboard", 1), ("raylet", -9)))
        with pytest.raises(ClusterError, match=r"control service \(gcs_server\) ended \(exit status 1\)"):
            require(self.ray(("gcs_server", 1)))

    def test_by_its_head_which_may_be_away_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket

        from tasks.cluster import connect

        with socket.create_server(("127.0.0.1", 0)) as head:
            there = self.ray(gcs=f"127.0.0.1:{head.getsockname()[1]}")
            monkeypatch.setattr(connect, "AWAY_S", 0.0)
            for _ in range(3):
                connect.require(there)
        monkeypatch.setattr(connect, "AWAY_S", 60.0)
        connect.require(there)
        monkeypatch.setattr(connect, "AWAY_S", 0.0)
        with pytest.raises(connect.ClusterError, match=r"the head of the Ray cluster at 127.0.0.1:\d+ has been away"):
            connect.require(there)

    def test_and_what_its_processes_tell_is_no_part_of_an_answer(self, capsys: pytest.CaptureFixture[str]) -> None:
        from tasks.cluster.connect import _told_by_ray

        lost = "The node with node id: ab and address: 10.0.0.2 has been marked dead. It may be that:\n\t(1) ..."
        _told_by_ray({"lines": [lost], "pid": "raylet", "is_err": False}, False)
        _told_by_ray({"lines": ["A worker died or was killed"], "pid": "raylet", "is_err": False}, False)
        out, err = capsys.readouterr()
        assert out == ""
        assert err == "headwater: Ray: The node with node id: ab and address: 10.0.0.2 has been marked dead\n"


def test_the_loss_of_a_server_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import queue
    import socket

    from flows.service import servers

    monkeypatch.setattr(servers, "GONE_S", 0.5)
    lost: queue.Queue[str] = queue.Queue()
    there = socket.create_server(("127.0.0.1", 0))
    port = there.getsockname()[1]
    with servers.LastingServer(f"http://127.0.0.1:{port}/api", lost.put):
        with pytest.raises(queue.Empty):
            lost.get(timeout=2)
        there.close()
        assert f"the Prefect server at http://127.0.0.1:{port} is gone" in lost.get(timeout=60)
