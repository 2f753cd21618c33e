"""Schedules: values at their boundaries, and Transformers' own as the oracle."""

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from models.methods.pretrain import PretrainConfig
from models.training.schedule import build_schedule, schedule_of


def test_warmup_reaches_the_peak_on_its_last_step_and_never_starts_at_zero():
    for kind, decay in [("constant", 0), ("cosine", 0), ("wsd", 30)]:
        schedule = build_schedule(kind, 100, warmup=10, decay=decay, floor=0.1)
        assert schedule(0) == pytest.approx(0.1)
        assert schedule(4) == pytest.approx(0.5)
        assert schedule(9) == 1.0
        assert schedule(10) == 1.0


def test_cosine_is_halfway_in_the_middle_and_ends_at_the_floor():
    schedule = build_schedule("cosine", 110, warmup=10, floor=0.2)
    assert schedule(60) == pytest.approx(0.2 + 0.8 * 0.5)
    assert schedule(110) == pytest.approx(0.2)
    assert schedule(109) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    assert schedule(500) == pytest.approx(0.2)


def test_cosine_after_warmup_equals_transformers():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = get_cosine_schedule_with_warmup(optimizer, 10, 100).lr_lambdas[0]
    schedule = build_schedule("cosine", 100, warmup=10)
    assert [schedule(step) for step in range(10, 101)] == pytest.approx([oracle(step) for step in range(10, 101)])


def test_wsd_holds_then_falls_in_a_line_to_the_floor():
    schedule = build_schedule("wsd", 100, warmup=5, decay=20, floor=0.1)
    assert {schedule(step) for step in range(4, 81)} == {1.0}
    assert schedule(81) == pytest.approx(1 - 0.9 / 20)
    assert schedule(90) == pytest.approx(0.55)
    assert schedule(100) == pytest.approx(0.1)


def test_without_warmup_or_decay_every_step_is_the_peak():
    schedule = build_schedule("wsd", 3, warmup=0, decay=0)
    assert [schedule(step) for step in range(4)] == [1.0] * 4
    assert build_schedule("constant", 1)(0) == 1.0
    assert build_schedule("cosine", 1)(0) == 1.0


def test_a_run_of_warmup_alone_never_divides_by_zero():
    assert build_schedule("cosine", 4, warmup=4)(3) == 1.0
    assert build_schedule("cosine", 4, warmup=4)(4) == 1.0


@pytest.mark.parametrize(
    ("kind", "warmup", "decay"), [("wsd", 60, 50), ("cosine", 101, 0), ("wsd", -1, 0), ("x", 0, 0)]
)
def test_what_does_not_fit_is_said_in_one_line(kind, warmup, decay):
    with pytest.raises(ValueError, match=r"schedule|shorten") as error:
        build_schedule(kind, 100, warmup, decay)
    assert "\n" not in str(error.value)


def test_a_config_gives_warmup_the_right_of_way():
    config = PretrainConfig(schedule="wsd", warmup=0.8, decay=0.5, floor=0.0)
    schedule = schedule_of(config, 10)
    assert schedule(7) == 1.0
    assert schedule(8) == 1.0
    assert schedule(9) == pytest.approx(0.5)
