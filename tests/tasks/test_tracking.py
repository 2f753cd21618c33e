"""Curves elsewhere: what a tracker was told is read back from its own files, each step once, a kill or not."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.ledger import query
from tasks import learning
from tasks.runtime import RuntimeConfig
from tasks.shown import tracking as trackers
from tasks.shown.tracking import TRACKERS, Tracked, Write, tracking

STAGE = Tracked("small", "sft", "f" * 64, {"learning_rate": 0.5, "batch": 8})


def rows(first: int, last: int) -> str:
    return "".join(json.dumps({"step": step, "loss": 1 / step, "mfu": None}) + "\n" for step in range(first, last + 1))


def of_tensorboard(place: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (place / "tensorboard").iterdir()
    found = EventAccumulator(str(folder)).Reload()
    assert found.Tags()["scalars"] == ["loss"]
    return [(event.step, event.value) for event in found.Scalars("loss")]


def of_mlflow(place: Path) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(place / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"learning_rate": "0.5", "batch": "8"}
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")]


def of_wandb(place: Path) -> list[tuple[int, float]]:
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted((place / "wandb" / "wandb").glob("offline-run-*/*.wandb")):
        assert path.stem == f"run-{'f' * 16}"
        held, at = path.read_bytes(), 7  # a log as LevelDB writes it, behind a head: checksum, length, kind, record
        assert len(held) < 1 << 15, "more than one block"
        while at + 7 <= len(held):
            length, kind = struct.unpack_from("<HB", held, at + 4)
            assert kind == 1, "a record in parts"
            record = Record()
            record.ParseFromString(held[at + 7 : at + 7 + length])
            at += 7 + length
            if record.WhichOneof("record_type") == "history":
                figures = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                found.append((int(figures["_step"]), float(figures["loss"])))
    return found


READ = {"tensorboard": of_tensorboard, "mlflow": of_mlflow, "wandb": of_wandb}


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_what_was_told_is_read_back_and_no_step_twice(name: str, tmp_path: Path) -> None:
    pytest.importorskip(TRACKERS[name][0])
    metrics, said = tmp_path / "metrics.jsonl", list[str]()

    def interrupted() -> None:
        with tracking({name: tmp_path / "tracks" / name}, tmp_path, STAGE, said.append) as tracks:
            for last in (2, 5):
                metrics.write_text(rows(1, last))
                tracks.look()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    metrics.write_text(rows(1, 4))  # it goes on from a state before what was told last
    with tracking({name: tmp_path / "tracks" / name}, tmp_path, STAGE, said.append) as tracks:
        tracks.look()
        metrics.write_text(rows(1, 8))
    assert said == []
    assert READ[name](tmp_path / "tracks") == [(step, pytest.approx(1 / step)) for step in range(1, 9)]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Mapping[str, float]]]:
    """A tracker that keeps what it is told, and fails at step 4."""
    told: list[tuple[int, Mapping[str, float]]] = []

    @contextmanager
    def track(place: Path, tracked: Tracked) -> Iterator[Write]:
        def write(step: int, figures: Mapping[str, float]) -> None:
            if step == 4:
                raise OSError("the disk is full")
            told.append((step, figures))

        yield write

    module = ModuleType("recorded")
    module.track = track  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recorded", module)
    monkeypatch.setitem(trackers.TRACKERS, "kept", ("json", "recorded"))
    return told


def test_a_tracker_that_fails_ends_no_stage(recorded: list[Any], tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "metrics.jsonl").write_text(rows(1, 6))
    with tracking({"kept": tmp_path / "kept"}, tmp_path, STAGE, said.append) as tracks:
        tracks.look()
        tracks.look()
    assert [step for step, _ in recorded] == [1, 2, 3]
    assert recorded[0][1] == {"loss": 1.0}
    assert said == ["kept shows no more of this stage: the disk is full"]


def test_a_disk_that_is_full_ends_no_stage(
    recorded: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    (tmp_path / "metrics.jsonl").write_text(rows(1, 2))

    def full(path: Path, content: bytes) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(trackers, "write_atomically", full)
    with tracking({"kept": tmp_path / "kept"}, tmp_path, STAGE, said.append) as tracks:
        tracks.look()
    assert recorded == []  # what can't be marked isn't told: it would be told twice
    assert said == ["kept shows no more of this stage: no space left"]


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_names_of_metrics_that_are_those_of_files_are_taken(name: str, tmp_path: Path) -> None:
    pytest.importorskip(TRACKERS[name][0])
    odd = dict.fromkeys(("reward_my rewards (1)/é#?.py:short", "..", "/a//b", "x~'\"%"), 1.0)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, **odd}) + "\n" + rows(2, 3))
    said: list[str] = []
    with tracking({name: tmp_path / "tracks" / name}, tmp_path, STAGE, said.append):
        pass
    assert said == []


def test_a_package_that_is_missing_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "absent", ("no_such_package", "nowhere"))
    with (
        pytest.raises(UserError, match=r"names absent, which isn't installed: pip install absent"),
        tracking({"absent": tmp_path / "absent"}, tmp_path, STAGE, print),
    ):
        raise AssertionError("it worked")
    with pytest.raises(ValueError, match="no tracker 'tensorbord': choose among mlflow, tensorboard, wandb"):
        RuntimeConfig(tracking=("tensorbord",))
    RuntimeConfig(tracking=("tensorboard",))


def test_metrics_can_be_asked_for_while_a_stage_runs(
    recorded: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake").create()
    seen: list[Any] = []

    def run_alone(work: Any, *arguments: Any, runtime: Any, poll: Any) -> dict[str, Any]:
        for last in (1, 3):
            (runtime.folder / "metrics.jsonl").write_text(rows(1, last) + '{"step": 9, "lo')
            poll()
            seen.append(query(lake, "SELECT step, name, value FROM runs.metrics ORDER BY ALL")[1])
        return {}

    monkeypatch.setattr(learning, "run_alone", run_alone)
    config = RuntimeConfig(cluster="inline", tracking=("kept",))
    runtime: Any = SimpleNamespace(
        folder=lake.folder("sft", "f" * 64), config=config, corpus="small", fingerprint="f" * 64, lake_root=lake.root
    )
    learning.train_alone("sft", dict, 3, runtime, {})
    assert seen == [[(1, "loss", 1.0)], [(step, "loss", 1 / step) for step in (1, 2, 3)]]
    assert [step for step, _ in recorded] == [1, 2, 3]
    assert (lake.root / "tracking" / "kept").is_dir()
    (lake.root / "records").mkdir(exist_ok=True)
    (lake.root / "records" / f"{'f' * 64}.json").write_text("{}")  # from now on the committed rows count
    with pytest.raises(UserError, match=r"metrics"):
        query(lake, "SELECT * FROM runs.metrics")
