"""What went wrong with preferences elsewhere, as small inputs: each a fault that was reported of another program."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_rendering import foreign
from toys import base, words

from models.methods.dpo import DpoConfig, dpo
from models.methods.kto import KtoConfig, kto
from models.methods.reward import RewardConfig, data, reward
from models.network.build import ScalarHead
from models.network.checkpoint import load
from models.objectives import dpo as objectives
from models.objectives.base import IGNORED
from models.objectives.bradley_terry import scores_of
from models.objectives.kto import Judged, mismatched
from models.text.config import BOS, END
from models.text.packing import EQUAL, fit_answer, fit_pair
from models.text.tokenizer import end_of_turn
from models.training.metrics import read_metrics

CONTEXT = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("faults")
    tokenizer = words(folder / "tokenizer")
    return {"words": tokenizer, "base": base(folder / "base", tokenizer, context=CONTEXT)}


def pair(chosen: str, rejected: str, *turns: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    prompt = [{"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns)]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_a_prompt_that_fills_the_context_leaves_answers_that_teach(world: dict[str, Any], tmp_path: Path) -> None:
    """TRL 2553: no token of an answer was left, rewards were NaN and the loss stood still."""
    pairs = [pair("the cat", "a tree", "the dog sees the bird. " * 9)] * 4
    dpo(DpoConfig(batch=2, steps=6, learning_rate=1e-2, eval_every=0), world["base"], pairs, [], tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert all(math.isfinite(value) for row in rows for value in (row["loss"], row["reward_chosen"]))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1


@pytest.mark.parametrize("kind", ["good", "bad", "one prompt"])
def test_batches_of_one_kind_or_one_prompt_are_no_nan(world: dict[str, Any], tmp_path: Path, kind: str) -> None:
    """TRL 1447, TRL 1380: without an answer of the other kind, or a mismatched one, KTO's loss was NaN."""
    rows = [pair("the cat", "the dog", "1" if kind == "one prompt" else str(number)) for number in range(6)]
    if kind != "one prompt":
        rows = [row | {"rejected" if kind == "good" else "chosen": None} for row in rows]
    kto(KtoConfig(batch=3, steps=4, eval_every=1), world["base"], rows, rows[:1], tmp_path)
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert all(math.isfinite(row[name]) for row in found for name in ("loss", "kl", "margin", "heldout_loss"))
    if kind == "one prompt":
        assert {row["kl"] for row in found} == {0.0}


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_no_answer_is_mismatched_with_its_own_prompt(count: int) -> None:
    """TRL 1911, LLaMA-Factory 7509: of an odd batch turned round, the one in the middle met itself."""
    judged = [Judged([1, 100 + number, 200 + number], 2, True) for number in range(count)]
    found = mismatched(judged, CONTEXT)
    assert len(found) == count
    assert all(ids[1] % 100 != ids[2] % 100 for ids, _ in found)


@torch.no_grad()
def test_scores_are_read_at_the_end_whatever_the_padding(world: dict[str, Any]) -> None:
    """TRL 937, RLHF-Reward-Modeling 49: where padding was the end token, scores were read at the first of these;
    reward-bench 137: in batches of other sizes they were others; gpt-neox 1285: and a token off the end."""
    model = ScalarHead(load(world["base"])[0], "normal", torch.Generator().manual_seed(0))
    end = world["words"].convert_tokens_to_ids(END)
    rows = [[1, 20, end, 30, end], [1, 40, end], [0, 0, 50, 0, 60, 0, 0], [1, end, end, 70]]
    alone = torch.stack([model(torch.tensor([row]))[0, -1] for row in rows])
    for batch in (1, 2, 3, 4):
        torch.testing.assert_close(scores_of(model, rows, batch), alone, atol=1e-5, rtol=1e-5)
    (item,) = data(RewardConfig(), world["base"], [pair("cat", "dog", "1")], []).fitted.items
    assert item.chosen[-1] == item.rejected[-1] == end


def test_of_many_turns_the_last_answers_alone_train_on_both_sides(world: dict[str, Any]) -> None:
    """Axolotl 1645: turns but the first were dropped in silence; OpenRLHF 294: the prompt of rejected answers trained;
    Axolotl 1616: every answer began with a token of the beginning of its own."""
    tokenizer = world["words"]
    item = fit_pair(pair("cat", "dog", "1", "2", "3"), tokenizer, CONTEXT).item
    assert item is not None
    batch = objectives.collate([item], torch.zeros(1, 2))
    start, end = (tokenizer.convert_tokens_to_ids(name) for name in (BOS, END))
    for side, answer in enumerate(("cat", "dog")):
        assert tokenizer.decode(item[side], skip_special_tokens=True).split() == [f"123{answer}"]
        learned = batch.targets[0, side]
        written = learned[learned != IGNORED].tolist()
        assert tokenizer.decode(written[:-1]) == answer
        assert written[-1] == end
        assert item[side].count(start) == 1
        assert item[side][0] == start


@pytest.mark.parametrize(("chosen", "rejected"), [("cat", "dog " * 30), ("cat " * 30, "dog"), ("a " * 30, "b " * 40)])
def test_the_context_holds_both_answers_after_the_same_prompt(
    world: dict[str, Any], chosen: str, rejected: str
) -> None:
    """LLaMA-Factory 4402: the prompt was cut for the chosen answer, and the rejected one went beyond the limit."""
    found = fit_pair(pair(chosen, rejected, "the bird sees the tree. " * 4), world["words"], CONTEXT).item
    assert found is not None
    assert found.longest <= CONTEXT
    assert found.chosen[: found.start] == found.rejected[: found.start]
    assert min(len(found.chosen), len(found.rejected)) > found.start


@pytest.mark.parametrize("family", ["chatml", "llama-3", "mistral", "alpaca"])
def test_what_a_template_writes_behind_an_answer_is_no_part_of_it(family: str) -> None:
    """TRL 5813: a reward model was asked at another token than it was trained at; TRL 4481: two ends were trained.
    ChatML ends its turns with a line's end, which no policy writes in a rollout."""
    tokenizer = foreign("llama-3", family)
    tokenizer.pad_token = tokenizer.eos_token  # llm-course 33: what is padding too is trained all the same
    end, given = end_of_turn(tokenizer), pair("here", "there", "Where?")
    both = fit_pair(given, tokenizer, 200).item
    one = fit_answer(given["prompt"], "here", tokenizer, 200).item
    assert both is not None
    for ids in both[:2]:
        assert ids[-1] == end
        assert ids[both.start :].count(end) == 1
    assert one == (both.chosen, both.start)
    learned = objectives.collate([both], torch.zeros(1, 2)).targets
    assert [row[row != IGNORED][-1].item() for row in learned[0]] == [end, end]


def test_answers_that_differ_in_nothing_that_is_read_are_equal() -> None:
    """OpenRLHF 1311: pairs that became one on the way to tokens stayed, and taught nothing."""
    tokenizer = foreign("llama-3", "llama-3")  # its template strips white space
    assert fit_pair(pair("here", "here ", "Where?"), tokenizer, 200).reason == EQUAL
    assert fit_pair(pair("here", "there", "Where?"), tokenizer, 200).item is not None
    long = "the cat sees the bird. " * 90
    assert fit_pair(pair(f"{long} yes", f"{long} no", "Where?"), tokenizer, 60).item is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_margin_counts_whichever_row_of_a_batch_has_it(world: dict[str, Any], tmp_path: Path, order: int) -> None:
    """TRL 5539: the first row of a batch decided for all; ms-swift 9927: and each margin met every pair."""
    margins = [None, 2.0, "", 1.0][::order]
    rows = [pair("the cat", "the dog", str(number)) | {"margin": margin} for number, margin in enumerate(margins)]
    report = reward(RewardConfig(batch=4, steps=1, eval_every=0), world["base"], rows, [], tmp_path)
    loss = sum(math.log1p(math.exp(float(margin or 0))) for margin in margins) / 4
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert (report["pairs"], report["margin_mean"]) == (4, 0.75)
