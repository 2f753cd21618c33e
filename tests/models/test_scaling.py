"""Laws of scaling: known constants are found again, published figures from published trainings."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from datalake.errors import UserError
from models.scaling.fit import DELTA, fit, fit_squares
from models.scaling.laws import Chinchilla, Kaplan
from models.scaling.points import Points, read_points
from models.scaling.published import HOFFMANN, KAPLAN, batch_tokens, chinchilla, learning_rate, worth

LAWS = [Chinchilla(), Chinchilla(tied=True), Kaplan()]


def trainings(constants=HOFFMANN, noise=0.0, count=60, seed=0):
    """Trainings that follow Chinchilla's law."""
    draw = np.random.Generator(np.random.Philox(seed))
    sizes, tokens = 10 ** draw.uniform(6, 9, count), 10 ** draw.uniform(8, 10.5, count)
    E, A, B, alpha, beta = constants
    loss = (E + A * sizes**-alpha + B * tokens**-beta) * np.exp(draw.normal(0, noise, count))
    return Points(sizes, tokens, loss)


@pytest.mark.parametrize("law", LAWS, ids=["chinchilla", "tied", "kaplan"])
def test_slopes_are_those_of_differences(law):
    points = trainings()
    x, y = np.log(points.parameters), np.log(points.tokens)
    at = np.array(list(law.starts(points)))[:3]
    _, slopes = law.log_loss(at, x, y)
    for place, slope in enumerate(slopes):
        step = np.zeros(at.shape[1])
        step[place] = 1e-6
        difference = (law.log_loss(at + step, x, y)[0] - law.log_loss(at - step, x, y)[0]) / 2e-6
        assert slope == pytest.approx(difference, abs=1e-7)


def test_chinchillas_constants_are_found_again():
    found = fit(trainings(), resamples=2)
    assert found.constants == pytest.approx(dict(zip(found.law.names, HOFFMANN, strict=True)), rel=1e-6)
    assert found.objective < 1e-15


def test_kaplans_constants_are_found_again():
    points = trainings()
    n_c, d_c, alpha, beta = KAPLAN
    loss = ((n_c / points.parameters) ** (alpha / beta) + d_c / points.tokens) ** beta
    found = fit(Points(points.parameters, points.tokens, loss), Kaplan(), resamples=2)
    assert found.constants == pytest.approx(dict(zip(found.law.names, KAPLAN, strict=True)), rel=1e-6)


def test_one_training_gone_wrong_moves_little():
    points = trainings(noise=0.002)
    points.loss[7] *= 2
    assert fit(points, resamples=2).constants["E"] == pytest.approx(1.69, abs=0.05)


def test_the_objective_is_hubers_sum_by_hand():
    points = trainings(noise=0.01)
    found = fit(points, resamples=2)
    errors = [
        abs(math.log(found.loss(size, tokens) / loss))
        for size, tokens, loss in zip(points.parameters, points.tokens, points.loss, strict=True)
    ]
    by_hand = sum(e * e / 2 if e <= DELTA else DELTA * (e - DELTA / 2) for e in errors)
    assert found.objective == pytest.approx(by_hand)


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(20):
        low, high = fit(trainings(noise=0.005, seed=seed), resamples=60).intervals["alpha"]
        held += low <= 0.34 <= high
    assert held >= 16  # 19 of 20 are expected


def test_a_single_trainings_interval_holds_it():
    found = fit(trainings(noise=0.01), resamples=100)
    held = 0
    for seed in range(1, 5):
        others = trainings(noise=0.01, seed=seed)
        for size, tokens, loss in zip(others.parameters, others.tokens, others.loss, strict=True):
            low, high = found.interval(size, tokens)
            held += low <= loss <= high
    assert 0.9 <= held / 240 <= 0.99


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        ("rpj", {(1.4e9, 640): 0.71, (6.9e9, 20): 0.73}),
        ("c4_original", {(6.9e9, 20): 4.30}),
        ("rw_original", {(6.9e9, 20): 1.62}),
    ],
)
def test_gadres_errors_come_out_of_their_trainings(samples, data, errors):
    """Five small trainings foretell large ones, as in Gadre et al. 2024, loss on C4's validation set."""
    with (samples / "scaling" / "gadre-model-size-tokens-loss.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["dataset"] == data]
    table = [(float(row["params"]), float(row["tokens"]), float(row["loss_c4_val"])) for row in rows]
    ratio = {row: round(row[1] / row[0]) for row in table}
    small = [row for row in table if row[0] < 1e9 and (ratio[row] == 20 or (ratio[row] == 320 and row[0] < 2e7))]
    assert len(small) == 5
    law = fit_squares(Points.of(small), Chinchilla(tied=True))
    for (size, tokens), error in errors.items():
        [large] = [row for row in table if ratio[row] == tokens and abs(row[0] / size - 1) < 0.05]
        assert 100 * abs(law.loss(*large[:2]) / large[2] - 1) == pytest.approx(error, abs=0.01)


def test_the_published_law_is_besiroglus():
    """E 1.8169, A 482.01, B 2085.43, alpha .3478, beta .3659, with standard errors (arXiv 2404.10102)."""
    law = chinchilla()
    printed = {"E": 1.8169, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3659}
    errors = {"E": 0.0257, "A": 124.5, "B": 1293, "alpha": 0.0154, "beta": 0.0206}
    spreads = dict(zip(law.law.names, law.law.constants(law.draws).std(0), strict=True))
    for name, value in law.constants.items():
        assert abs(value - printed[name]) < 0.1 * errors[name]
        assert spreads[name] == pytest.approx(errors[name], rel=0.2)
    assert law.objective == pytest.approx(0.00101827, abs=5e-9)


def test_published_rules_by_hand():
    assert batch_tokens(1e9) == pytest.approx(0.58 * 1e9**0.571)
    assert learning_rate(1e8, 1e9) == pytest.approx(1.79 * 1e8**-0.713 * 1e9**0.307)
    assert learning_rate(2e4, 1e7) == 0.02, "the rule would say .21, far from the trainings that it was found by"
    assert worth(5e6, 1e7) == 5e6
    assert worth(4e7, 1e7) == pytest.approx(1e7 * (1 + 15.39 * (1 - math.exp(-3 / 15.39))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parameters,loss\n1,2\n", "no column tokens"),
        ("", "no column parameters and no column tokens and no column loss"),
        ("parameters,tokens,loss\n1e6,1e8,3\n1e6,0,3\n", "line 3: tokens is '0'"),
        ("parameters,tokens,loss\n1e6,1e8,nan\n", "line 2: loss is 'nan'"),
        ("parameters,tokens,loss\n1e6,1e8,inf\n", "line 2: loss is 'inf'"),
        ("parameters,tokens,loss\n-1e6,1e8,3\n", "line 2: parameters is '-1e6'"),
        ("parameters,tokens,loss\n1e6,1e8\n", "line 2: loss is ''"),
        ("parameters,tokens,loss\n1,500,300,200,3\n", "line 2: 5 values under 3 columns"),
        ("parameters;tokens;loss\n1e6;1e8;3,1\n", "line 2: loss is '3,1'"),
        ("parameters,tokens,loss,Loss\n1e6,1e8,3,4\n", "two columns loss"),
        ("parameters,tokens,loss\n1e296,1e8,3\n", "parameters is '1e296', where a number from 1 to 1e+30"),
        ("parameters,tokens,loss\n1e6,1e8,3e-300\n", "loss is '3e-300', where a number from 1e-06"),
        ("parameters,tokens,loss\n1e6,1e8,three\n", "line 2: loss is 'three'"),
        ("parameters,tokens,loss\n", "0 rows with 0 different parameters"),
        ("parameters,tokens,loss\n1e6,1e8,3\n", "1 rows with 1 different parameters"),
        ("parameters,tokens,loss\n" + "".join(f"1e6,{n}e8,3\n" for n in range(1, 9)), "1 different parameters"),
        ("parameters,tokens,loss\n" + "".join(f"{n}e6,1e8,3\n" for n in range(1, 9)), "1 different tokens"),
        (b"\xff\xfe\x00", "no CSV file"),
    ],
)
def test_a_file_of_trainings_that_is_none_is_named_in_one_line(tmp_path, text, said):
    path = tmp_path / "points.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        read_points(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    path = tmp_path / "points.csv"
    rows = "".join(f"x,{3 - n / 10},{n}e8,{n}e6\n" for n in range(1, 5))
    path.write_text("\ufeffname, loss ,tokens,parameters\n" + rows)
    points = read_points(path)
    assert points.parameters.tolist() == [1e6, 2e6, 3e6, 4e6]
    assert points.loss[0] == 2.9


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_file_is_read_as_spreadsheets_write_it(tmp_path, delimiter):
    path = tmp_path / "points.csv"
    rows = [f'"a run; of mine, {n}",{n}e6,{n}E8,{3 - n / 10},' for n in range(1, 5)]
    lines = ["Name,Parameters,TOKENS,Loss,", rows[0], "", ",,,,", *rows[1:], "   "]
    text = "\r\n".join(line.replace(",", delimiter) for line in lines)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    points = read_points(path)
    assert points.parameters.tolist() == [1e6, 2e6, 3e6, 4e6]
    assert points.tokens.tolist() == [1e8, 2e8, 3e8, 4e8]
    assert points.loss.tolist() == [2.9, 2.8, 2.7, 2.6]


@pytest.mark.parametrize("law", LAWS, ids=["chinchilla", "tied", "kaplan"])
@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda size, tokens: 3.0, "parameters"),
        (lambda size, tokens: math.log(size * tokens), "parameters"),
        (lambda size, tokens: 2 + 400 * size**-0.34, "tokens"),
    ],
)
def test_losses_that_do_not_fall_make_no_law(law, loss, what):
    sizes, budgets = (1e6, 4e6, 2e7), (1e8, 5e8, 2e9)
    points = Points.of([(size, tokens, loss(size, tokens)) for size in sizes for tokens in budgets])
    with pytest.raises(UserError, match=f"don't fall with more {what}"):
        fit(points, law, resamples=2)


def test_too_few_trainings_for_the_constants_are_told():
    with pytest.raises(UserError, match="4 trainings are too few for 5 constants: give 6"):
        fit(trainings(count=4))


def test_the_largest_losses_can_be_dropped():
    points = Points.of([(1, 2, 5), (3, 4, 1), (5, 6, 9), (7, 8, 2)])
    assert points.without_largest(2).loss.tolist() == [1, 2]
