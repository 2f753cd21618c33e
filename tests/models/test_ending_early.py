"""`stop_when`: a run ends where its metrics say that it goes wrong, with its last good weights, killed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import assert_told_alike, base, conversations, dialogue, reversals, words

from models.methods.sft import SftConfig, sft
from models.training import diagnosis
from models.training.diagnosis import Curves, Finding
from models.training.metrics import read_metrics

GAME = [dialogue(*pair) for pair in reversals(200, seed=1)]
STEPS, FIRED, BEGAN = 30, 17, 14


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    return base(folder / "base", words(folder / "tokenizer"))


@pytest.fixture(autouse=True)
def rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the rule for KL one that warns of steps 14 to 17 when it has seen these."""

    def warns(curves: Curves) -> Finding | None:
        steps = curves["loss"].steps
        if not steps or steps[-1] < FIRED:
            return None
        return Finding("kl", f"all goes wrong (since step {BEGAN})", "loss", BEGAN, FIRED, "stop")

    monkeypatch.setitem(diagnosis.RULES, "kl", warns)


def config(**more: Any) -> SftConfig:
    settings = {"batch": 8, "steps": STEPS, "schedule": "constant", "warmup": 0, "eval_every": 10}
    return SftConfig(**settings | {"checkpoint_every": 4, "stop_when": ("kl",)} | more)


def train(root: Path, out: Path, states: Path | None = None, **more: Any) -> dict[str, Any]:
    on_step = more.pop("on_step", None)
    return sft(config(**more), root, conversations(GAME), conversations(GAME[:8]), out, on_step=on_step, states=states)


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "model.safetensors").read_bytes()


def test_the_weights_are_those_before_it_went_wrong_and_the_rows_tell_why(root: Path, tmp_path: Path) -> None:
    report = train(root, tmp_path / "stopped")
    train(root, tmp_path / "short", steps=BEGAN - 1, stop_when=())
    assert weights(tmp_path / "stopped") == weights(tmp_path / "short")
    assert report["stopped"] == {
        "step": FIRED + 1,  # rows are judged once they are whole
        "good": BEGAN - 1,
        "rule": "kl",
        "why": f"all goes wrong (since step {BEGAN}): stop",
    }
    assert report["steps"] == BEGAN - 1
    assert [row["step"] for row in read_metrics(tmp_path / "stopped" / "metrics.jsonl")] == list(range(1, FIRED + 2))


@pytest.mark.parametrize("killed", [15, pytest.param(FIRED + 1, marks=pytest.mark.slow)])
def test_a_killed_run_stops_where_it_would_have(root: Path, tmp_path: Path, killed: int) -> None:
    def kill(row: dict[str, Any]) -> None:
        if row["step"] == killed:
            raise KeyboardInterrupt

    whole = train(root, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(root, tmp_path / "cut", on_step=kill)
    report = train(root, tmp_path / "cut")
    assert_told_alike(report, whole)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole")]
    assert [[row["step"], row["loss"]] for row in rows[0]] == [[row["step"], row["loss"]] for row in rows[1]]


def test_one_killed_on_its_way_back_ends_with_the_same(root: Path, tmp_path: Path) -> None:
    again: list[int] = []

    def kill(row: dict[str, Any]) -> None:
        again.append(int(row["step"]))
        if again.count(BEGAN - 1) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(root, tmp_path / "cut", on_step=kill)
    train(root, tmp_path / "cut")
    train(root, tmp_path / "whole")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert len(read_metrics(tmp_path / "cut" / "metrics.jsonl")) == FIRED + 1


def test_without_the_rule_a_run_goes_on_from_where_it_stopped(root: Path, tmp_path: Path) -> None:
    states = tmp_path / "states"
    train(root, tmp_path / "stopped", states)
    on = train(root, tmp_path / "on", states, stop_when=())
    assert (on["computed"]["from_step"], on["steps"], on.get("stopped")) == (FIRED + 1, STEPS, None)
    train(root, tmp_path / "never", tmp_path / "others", stop_when=())
    assert weights(tmp_path / "on") == weights(tmp_path / "never")


def test_what_was_wrong_from_the_start_ends_with_what_there_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = {"learning_rate": 1e-9}
    report = train(root, tmp_path / "flat", stop_when=("flat_loss",), steps=60, **rate)
    assert report["stopped"]["why"].startswith("nothing changes (loss ")
    assert report["stopped"]["good"] == report["stopped"]["step"] == report["steps"] == 31
    assert (tmp_path / "flat" / "checkpoint").is_dir()


def test_rules_that_find_nothing_change_no_weight(root: Path, tmp_path: Path) -> None:
    report = train(root, tmp_path / "ruled", stop_when=("overfitting", "not_finite"), steps=12)
    train(root, tmp_path / "free", stop_when=(), steps=12)
    assert "stopped" not in report
    assert weights(tmp_path / "ruled") == weights(tmp_path / "free")


def test_a_rule_that_is_none_is_refused_when_the_config_is_made() -> None:
    with pytest.raises(ValueError, match="no rule 'kll': choose among"):
        config(stop_when=("kll",))
