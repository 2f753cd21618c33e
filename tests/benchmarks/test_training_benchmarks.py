"""The benchmarks of training run in small and say what they measured."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gpu
import pretrain

from models.training.flops import Work


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    names = ("river", "water", "stone", "cloud", "harbour", "mill")
    lines = [
        " ".join(f"the {names[(k * j) % 6]} meets the {names[(k + j) % 6]}." for j in range(1, 30)) + f" {k}"
        for k in range(60)
    ]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_gpu_script_in_small(texts, capsys):
    told = gpu.main(["speed", "bytes", "--smoke", "--sizes", "125m", "--texts", str(texts)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == told
    assert set(told["speed"]) == {"125m headwater", "125m bare"}
    for figures in told["speed"].values():
        assert figures["tokens_per_s"] > 0
        assert figures["mfu"] is None
    assert 0 < told["bytes"]["bits_per_byte"] < 6
    assert told["bytes"]["texts"] == 60


def test_the_shapes_are_those_of_their_names():
    for size, parameters in {"50m": 50e6, "125m": 125e6, "350m": 350e6, "1b": 1e9}.items():
        shape = gpu.Scale().network(size)
        assert shape.parameters == pytest.approx(parameters, rel=0.08)
        assert shape.head_width == 128
    scale = gpu.Scale()
    assert scale.rows * scale.context * scale.vocabulary * 4 <= 1 << 31  # logits that are computed in one piece


def test_work_can_be_told_without_weights():
    shape = gpu.SMOKE.network("50m")
    with torch.device("meta"):
        empty = gpu.build_model(shape)
    assert Work.of(empty) == Work.of(gpu.build_model(shape))


def test_a_ratio_is_the_median_of_each_rounds():
    speeds = {"headwater": [1.0, 30.0, 8.0], "trainer": [2.0, 20.0, 4.0]}
    rounds = {
        name: [{"tokens_per_s": one, "tokens_per_cpu_s": one**0.5} for one in all_of] for name, all_of in speeds.items()
    }
    told = pretrain.summary(rounds)
    assert told["ratios"] == {"trainer": 1.5}
    assert told["cpu_ratios"] == {"trainer": 1.225}
    assert told["medians"]["headwater"]["tokens_per_s"] == 8.0
