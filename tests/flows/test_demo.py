"""The demo keeps its promises: it learns, the reward model tells right from wrong, PPO's reward rises near the
reference, and a second run does no work. Ten minutes on two cores, so only `make test-all` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

from datalake.lake.lake import Lake
from datalake.lake.records import StageRecord, read_record
from flows.report.summary import metrics

pytestmark = pytest.mark.slow


def run_demo(lake: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "flows.cli", "run", "recipes/demo.yaml", "--lake", str(lake), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    lake = tmp_path_factory.mktemp("demo") / "lake"
    return lake, run_demo(lake)


def record(demo: tuple[Path, dict[str, Any]], stage: str) -> StageRecord:
    lake, run = demo
    fingerprint = next(report["fingerprint"] for report in run["stages"] if report["stage"] == stage)
    found = read_record(Lake(lake), fingerprint)
    assert found is not None
    return found


def test_every_stage_runs(demo: tuple[Path, dict[str, Any]]) -> None:
    states = [report["state"] for report in demo[1]["stages"] if report["stage"] not in ("quality", "thresholds")]
    assert states == ["ran"] * 11


def test_pretraining_beats_the_unigram_entropy_on_held_out_modules(demo: tuple[Path, dict[str, Any]]) -> None:
    report = record(demo, "pretrain").report
    assert report["heldout_loss"] <= 0.75 * report["unigram_entropy"]


def test_the_reward_model_is_above_chance_by_more_than_its_interval(demo: tuple[Path, dict[str, Any]]) -> None:
    assert record(demo, "reward").report["heldout_accuracy_low"] > 0.5


def test_ppo_raises_its_reward_near_the_reference(demo: tuple[Path, dict[str, Any]]) -> None:
    rows = metrics(Lake(demo[0]), record(demo, "ppo").fingerprint)
    scores, divergence = rows["score"], rows["kl_per_answer"]
    third = len(scores) // 3
    assert sum(scores[-third:]) / third > sum(scores[:third]) / third
    assert max(divergence) < 10


def test_a_second_demo_is_all_cached(demo: tuple[Path, dict[str, Any]]) -> None:
    again = run_demo(demo[0])
    states = [report["state"] for report in again["stages"] if report["stage"] not in ("quality", "thresholds")]
    assert states == ["cached"] * 11
