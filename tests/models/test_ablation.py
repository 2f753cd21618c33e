"""Mixtures compared: one against itself shows no difference, a real one is found, the interval is as by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.evaluation.ablation import ablation


def trainings(draw, seeds, sizes, bits=1.2, of_seed=0.0, of_document=0.0, of_both=0.0):
    """Nats of a mixture's models: what a document takes, and what the seed, the document and both add by chance."""
    shape = (seeds, len(sizes))
    shares = (
        bits
        + of_seed * draw.standard_normal((seeds, 1))
        + of_document * draw.standard_normal((1, len(sizes)))
        + of_both * draw.standard_t(3, shape)
    )
    return shares * sizes * math.log(2)


NOISE = {
    "seeds": {"of_seed": 0.01},
    "documents": {"of_document": 0.05},
    "both": {"of_both": 0.1},
    "all": {"of_seed": 0.005, "of_document": 0.02, "of_both": 0.05},
}


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_a_mixture_against_itself_shows_no_difference(noise, seeds):
    draw = np.random.Generator(np.random.Philox(1))
    same = 0
    for _ in range(100):
        sizes = draw.lognormal(7, 1, 80)
        first, second = (trainings(draw, seeds, sizes, **noise) for _ in range(2))
        same += ablation(first, second, sizes)["verdict"] == "no difference"
    assert same >= 95


def test_models_that_are_the_same_differ_by_nothing():
    sizes = np.array([100.0, 300.0, 50.0])
    nats = np.outer(np.ones(3), sizes)
    found = ablation(nats, nats, sizes)
    assert found["difference"] == found["low"] == found["high"] == 0
    assert found["verdict"] == "no difference"


def test_a_better_mixture_is_found_whichever_comes_first():
    draw = np.random.Generator(np.random.Philox(2))
    sizes = draw.lognormal(7, 1, 80)
    noise = {"of_seed": 0.003, "of_both": 0.02}
    worse, better = trainings(draw, 5, sizes, 1.25, **noise), trainings(draw, 5, sizes, 1.2, **noise)
    found = ablation(worse, better, sizes)
    assert found["verdict"] == "better"
    assert found["low"] < -0.05 < found["high"]
    assert found["first"] == pytest.approx(1.25, abs=0.02)
    assert ablation(better, worse, sizes)["verdict"] == "worse"


def test_the_interval_by_hand():
    """Two seeds, equal documents: the mean gap is 3/16 bits, its error by seeds 1/16, by documents 1/16."""
    sizes = np.array([8.0, 8.0])
    first = np.zeros((2, 2))
    second = math.log(2) * np.array([[0.0, 2.0], [2.0, 2.0]])
    found = ablation(first, second, sizes, confidence=0.5)
    assert found["difference"] == pytest.approx(1.5 / 8)
    by_seed = np.array([2 / 16, 4 / 16])
    by_document = np.array([1 / 8, 2 / 8])
    error = math.sqrt(by_seed.var(ddof=1) / 2 + by_document.var(ddof=1) / 2)
    assert found["high"] - found["difference"] == pytest.approx(
        1.0 * error
    )  # Student's t, 1 degree, 75%: tan(45 degrees)


def test_one_seed_says_nothing():
    with pytest.raises(ValueError, match="2 seeds"):
        ablation(np.zeros((1, 3)), np.zeros((1, 3)), np.ones(3))
