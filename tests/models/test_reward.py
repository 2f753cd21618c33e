"""The reward model learns pairs that can be told apart, starts at ln 2, and is put on one scale."""

import math
import random

import pytest
import torch
from toys import assert_told_alike, base, reversals, words

from datalake.errors import UserError
from models.methods.pairs import MARGIN
from models.methods.reward import RewardConfig, reward
from models.objectives.bradley_terry import scores_of
from models.rl.reward_model import load_reward_model
from models.text.packing import EQUAL, TOO_LONG
from models.text.rendering import render
from models.training.metrics import read_metrics

CONFIG = RewardConfig(batch=32, steps=40, learning_rate=3e-3, warmup=0.1, checkpoint_every=10, eval_every=20)


def separable(number, seed):
    """Answers that hold a 7 are better than those that don't."""
    draw = random.Random(seed)
    pairs = []
    for question, _ in reversals(number, seed):
        good, bad = ([draw.choice("01234568") for _ in range(5)] for _ in range(2))
        good[draw.randrange(5)] = "7"
        prompt = [{"role": "user", "content": question}]
        pairs.append({"prompt": prompt, "chosen": "".join(good), "rejected": "".join(bad)})
    return pairs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    tokenizer = words(folder / "tokenizer")
    return {"base": base(folder / "base", tokenizer), "pairs": separable(600, 1), "heldout": separable(200, 2)}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, reward(CONFIG, **world, out=out)


def test_it_starts_at_ln_2_and_tells_separable_pairs_apart(whole):
    out, report = whole
    rows = read_metrics(out / "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert report["heldout_pairs"] == 200
    assert report["heldout_accuracy"] >= 0.95
    assert report["heldout_accuracy_low"] < report["heldout_accuracy"] <= report["heldout_accuracy_high"]
    assert report["heldout_accuracy_low"] > 0.9


def test_answers_of_the_training_pairs_score_0_on_average_with_deviation_1(world, whole):
    model, tokenizer = load_reward_model(whole[0] / "checkpoint")
    answers = [
        render([*pair["prompt"], {"role": "assistant", "content": pair[kind]}], tokenizer)[0]
        for pair in world["pairs"]
        for kind in ("chosen", "rejected")
    ]
    scores = scores_of(model, answers, 32)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert float((scores[::2] > scores[1::2]).float().mean()) > 0.95
    apart = torch.cat([scores_of(model, [one], 1) for one in answers[:5]])
    torch.testing.assert_close(scores[:5], apart, rtol=1e-3, atol=1e-4)


def test_a_run_cut_in_the_middle_ends_with_the_same_bytes(world, whole, tmp_path):
    def cut(row):
        if row["step"] == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reward(CONFIG, **world, out=tmp_path, on_step=cut)
    report = reward(CONFIG, **world, out=tmp_path)
    for name in ("model.safetensors", "value_head.safetensors"):
        assert (tmp_path / "checkpoint" / name).read_bytes() == (whole[0] / "checkpoint" / name).read_bytes()
    assert_told_alike(report, whole[1])


def test_pairs_that_cannot_be_used_are_counted_and_none_left_is_an_error(world, tmp_path):
    pair = world["pairs"][0]
    long = {**pair, "chosen": "7" * 41, "rejected": "7" * 40}
    useless = [{**pair, "rejected": pair["chosen"]}, long]
    config = CONFIG.model_copy(update={"steps": 1})
    report = reward(
        config, world["base"], [*world["pairs"][:5], *useless, {**pair, "chosen": "7" * 40}], [], tmp_path / "a"
    )
    assert (report["pairs"], report["cut"], report["dropped"]) == (6, 1, 2)
    assert [line[:2] for line in report["left_out"]] == [[5, EQUAL], [6, TOO_LONG]]
    assert "heldout_accuracy" not in report
    with pytest.raises(UserError, match="none of 2 pairs"):
        reward(config, world["base"], useless, [], tmp_path / "b")


def test_a_language_model_is_no_reward_model(world):
    with pytest.raises(UserError, match="is not a reward model"):
        load_reward_model(world["base"])


def test_a_reward_model_is_no_language_model(world, whole, tmp_path):
    with pytest.raises(UserError, match="is a reward model"):
        reward(CONFIG, whole[0] / "checkpoint", world["pairs"], [], tmp_path)


def test_a_margin_is_demanded_where_a_pair_has_one(world, tmp_path):
    told = [{**pair, "margin": "1.5"} for pair in world["pairs"][:6]]
    scored = [{**pair, "chosen_score": "1", "rejected_score": "3.0"} for pair in world["pairs"][6:8]]  # ranks
    wrong = [{**world["pairs"][0], "margin": margin} for margin in ("nan", "-1", "much", float("inf"))]
    config = CONFIG.model_copy(update={"steps": 1, "batch": 8, "label_smoothing": 0.1})

    def first(name, **settings):
        report = reward(
            config.model_copy(update=settings), world["base"], [*told, *scored, *wrong], [], tmp_path / name
        )
        return read_metrics(tmp_path / name / "metrics.jsonl")[0]["loss"], report

    def smoothed(margin):
        return 0.9 * math.log1p(math.exp(margin)) + 0.1 * math.log1p(math.exp(-margin))

    loss, report = first("given")
    assert loss == pytest.approx((6 * smoothed(1.5) + 2 * smoothed(0)) / 8, rel=1e-5)
    assert report["margin_mean"] == pytest.approx(6 * 1.5 / 8)
    assert [line[:2] for line in report["left_out"]] == [[number, MARGIN] for number in (8, 9, 10, 11)]
    loss, _ = first("scores", margin="scores", margin_scale=0.5)
    assert loss == pytest.approx((6 * smoothed(0.75) + 2 * smoothed(1)) / 8, rel=1e-5)
    assert first("none", margin="none", batch=12)[0] == pytest.approx(smoothed(0), rel=1e-5)


def test_scores_that_are_centred_sum_to_less(world, tmp_path):
    def size(name, centring):
        config = CONFIG.model_copy(update={"centring": centring})
        reward(config, **world, out=tmp_path / name)
        model, tokenizer = load_reward_model(tmp_path / name / "checkpoint")
        texts = [
            render([*pair["prompt"], {"role": "assistant", "content": pair[kind]}], tokenizer)[0]
            for pair in world["heldout"][:50]
            for kind in ("chosen", "rejected")
        ]
        scores = scores_of(model, texts, 32)
        return float((scores[::2] + scores[1::2]).square().mean())

    assert size("centred", 0.5) < size("free", 0.0)


def test_held_out_pairs_tell_accuracy_by_source_calibration_and_what_length_does(world, tmp_path):
    heldout = [{**pair, "source": "ab"[number % 2]} for number, pair in enumerate(world["heldout"])]
    report = reward(CONFIG, world["base"], world["pairs"], heldout, tmp_path)
    by_source = report["heldout_accuracy_by_source"]
    assert {name: share["n"] for name, share in by_source.items()} == {"a": 100, "b": 100}
    assert sum(share["value"] for share in by_source.values()) / 2 == pytest.approx(report["heldout_accuracy"])
    assert report["heldout_equal_length_accuracy_pairs"] == 200  # all answers have five digits
    assert report["heldout_longer_wins"] == 0.5
    assert report["heldout_score_length_correlation"] is None
    assert sum(row["pairs"] for row in report["heldout_calibration"]) == 200
    assert 0 <= report["heldout_ece"] < 0.2
    assert [figure["title"] for figure in report["figures"]] == [
        "calibration", "accuracy on held-out pairs", "score by length",
    ]  # fmt: skip
