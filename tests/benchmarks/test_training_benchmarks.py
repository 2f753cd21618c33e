"""The benchmarks of training run in small and say what they measured."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import align
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


def steps_of(amounts, unit="tokens", loss=9.0, **more):
    """Steps of a second each, of two that make things ready."""
    return [
        {"s": float(place), "cpu_s": place / 2, unit: amount, "loss": loss, **more}
        for place, amount in enumerate(amounts)
    ]


class TestAlign:
    def test_what_makes_things_ready_isnt_counted(self):
        told = align.figures("sft", steps_of([1000, 1000, 30, 50]))
        assert told == {"tokens_per_s": 40.0, "tokens_per_cpu_s": 80.0, "updates": 2, "tokens": 80}

    def test_sampling_is_told_apart_from_the_step(self):
        rows = steps_of([64] * 4, "answers", sampling_s=0.25, sampling_cpu_s=0.125, answer_tokens=20.0)
        told = align.figures("grpo", rows)
        assert (told["answers_per_s"], told["sampled_per_s"], told["sampled_per_cpu_s"]) == (64, 256, 512)

    def test_unequal_work_is_refused(self):
        align.check_equal("sft", {"headwater": steps_of([3, 4]), "trl": steps_of([3, 4], loss=9.00005)})
        align.check_equal("sft", {"headwater": steps_of([3, 4]), "trl_packed": steps_of([5, 1, 1], loss=8.0)})
        for other in (steps_of([3, 5]), steps_of([4, 3]), steps_of([3, 4], loss=9.001)):
            with pytest.raises(SystemExit, match="headwater and trl"):
                align.check_equal("sft", {"headwater": steps_of([3, 4]), "trl": other})
        with pytest.raises(SystemExit, match="did other work"):
            align.check_equal("grpo", {"on": steps_of([8], "answers"), "off": steps_of([7], "answers")})

    def test_a_curve_is_the_mean_of_each_tenth(self):
        assert align.tenths([{"score": place / 100} for place in range(20)])[:2] == [0.005, 0.025]
        assert len(align.tenths([{"score": 1.0}] * 3)) == 3

    def test_the_reward_grows_with_each_right_digit(self):
        (row,) = align.sums(1, seed=0)
        assert align.right_digits("", row["working"], row) == 1.0
        assert [align.right_digits("", text, {"answer": "17"}) for text in ("it is 27", "7", "1", "none")] == [
            0.5, 0.5, 0.0, 0.0,
        ]  # fmt: skip

    def test_the_ratio_is_the_median_of_each_rounds(self):
        speeds = {"headwater": (1.0, 30.0, 8.0), "trl": (2.0, 20.0, 4.0)}
        told = align.summary({name: [{"tokens_per_s": one} for one in all_of] for name, all_of in speeds.items()})
        assert told["ratios"] == {"trl": {"tokens_per_s": 1.5}}
