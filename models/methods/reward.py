"""The reward model: a tuned decoder with a scalar head learns from pairs which answer people prefer.

The head starts at zero, so the loss starts at ln 2. After training it is scaled so that the answers of the training
pairs, chosen and rejected, score 0 on average with deviation 1, in the spirit of Ziegler et al. 2019 (section 2.1);
this changes no preference and puts every reward model on one scale for PPO. (On chosen answers alone the scale would be
off wherever the model tells pairs apart well: they then differ little from each other and much from all else.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datalake.errors import UserError
from datalake.files import folder_version
from datalake.identity import fingerprint
from models.evaluation.intervals import wilson
from models.methods.sft import load_language_model
from models.network import checkpoint
from models.network.build import ScalarHead
from models.objectives.bradley_terry import Pairs, bradley_terry, collate, final_scores, right_padded
from models.text.packing import Answers, Fitted, fit_all, fit_pair
from models.training.callbacks import Checkpoints, Evaluation, Metrics, Progress, SpikeGuard
from models.training.config import RewardConfig
from models.training.epochs import Epochs, draw
from models.training.loop import Callback, context_of, fit, load_state, mean_loss, split
from models.training.optimizer import build_optimizer
from models.training.schedule import schedule_of

Pair = Mapping[str, Any]  # prompt: messages, chosen: text, rejected: text
NORMALISING_PAIRS = 1024  # enough for a mean and a deviation to 3%


def reward(
    config: RewardConfig,
    base: Path,
    pairs: Sequence[Pair],
    heldout: Sequence[Pair],
    out: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains a reward model from the model in `base`, writes it to `out/checkpoint`, returns a report of plain values.

    A pair has `prompt` (messages), `chosen` and `rejected` (texts). Both are made to
    fit the context as `models.text.packing` has it; the report counts pairs that were cut and dropped, by length too,
    and `left_out` has [number in `pairs`, reason, tokens, room] of each that can't be used: no answer begins within the
    context, there is one answer only, or both are equal. Held-out accuracy comes with its 95% Wilson interval. Raises
    UserError when no pair is left.
    """
    torch.manual_seed(config.seed)
    body, words = load_language_model(base)
    model = ScalarHead(body, "zero")
    context = context_of(body, config.context)
    fitted = fitting(pairs, words, context)
    rendered = fitted.items
    if not rendered:
        raise UserError(
            f"none of {len(pairs)} pairs fits in {context} tokens with two different answers ({fitted.why}): give"
            " others, or raise reward.context or pretrain.context"
        )
    judged_pairs = fitting(heldout, words, context).items
    order = draw(config.seed, 1 << 20).permutation(len(judged_pairs))[: config.eval_rows]
    judged = in_batches([judged_pairs[place] for place in order], config.batch)
    epochs = order_of(config, fitted)
    steps = config.steps or epochs.steps(config.epochs)
    identity = fingerprint(
        {"stage": "reward", "config": config, "base": folder_version(base), "pairs": [list(pair) for pair in rendered]}
    )

    def measure(network: nn.Module) -> dict[str, float]:
        return mean_loss(network, judged, bradley_terry())

    guard, metrics = SpikeGuard(config.spike_sigma), Metrics(out / "metrics.jsonl")
    evaluation = Evaluation(measure, config.eval_every)
    callbacks: list[Callback] = [guard, *([evaluation] if judged else []), metrics, Progress(on_step)]
    state = fit(
        model,
        bradley_terry(config.label_smoothing),
        lambda step: [split(collate([rendered[item] for item in epochs.items(step)]), config.accumulation)],
        build_optimizer(config, {"model": model}),
        schedule_of(config, steps),
        [*callbacks, Checkpoints(out / "state", config.checkpoint_every, identity)],
        load_state(out / "state", identity),
        steps=steps,
        clip=config.clip,
    )
    model.eval()
    report: dict[str, Any] = {
        "steps": state.step,
        "pairs": len(rendered),
        **fitted.figures(context),
        "epochs": state.step / epochs.steps_per_epoch,
        "loss": metrics.last["loss"],
        "skipped": len(guard.events),
    }
    if judged_pairs:
        with torch.no_grad():
            figures = mean_loss(model, in_batches(judged_pairs, config.batch), bradley_terry())
        right = figures["accuracy"] * len(judged_pairs)
        low, high = wilson(right, len(judged_pairs))
        report |= {
            "heldout_pairs": len(judged_pairs),
            "heldout_dropped": len(heldout) - len(judged_pairs),
            "heldout_loss": figures["loss"],
            "heldout_accuracy": figures["accuracy"],
            "heldout_accuracy_low": low,
            "heldout_accuracy_high": high,
        }
    some = draw(config.seed, 1 << 21).permutation(len(rendered))[:NORMALISING_PAIRS]
    report |= normalise(model, [answer for place in some for answer in rendered[place]], config.batch)
    checkpoint.save(model, words, out / "checkpoint")
    return report


def fitting(pairs: Sequence[Pair], words: Any, context: int) -> Fitted[Answers]:
    """Pairs as two dialogues in tokens, at most `context` long each."""
    return fit_all(pairs, lambda pair: fit_pair(pair, words, context))


def order_of(config: RewardConfig, fitted: Fitted[Answers]) -> Epochs:
    """Which of the pairs that fit each step sees."""
    return Epochs([max(map(len, pair)) for pair in fitted.items], config.seed, config.batch)


def in_batches(pairs: list[Answers], batch: int) -> list[Pairs]:
    """Pairs as batches of like length, for a figure over all of them."""
    pairs = sorted(pairs, key=lambda pair: max(map(len, pair)))
    return [collate(pairs[first : first + batch]) for first in range(0, len(pairs), batch)]


@torch.no_grad()
def score(model: nn.Module, dialogues: Sequence[list[int]], batch: int) -> torch.Tensor:
    """The scores (N) of dialogues, in their order; they are run in batches of like length."""
    scores = torch.zeros(len(dialogues))
    order = sorted(range(len(dialogues)), key=lambda place: len(dialogues[place]))
    for first in range(0, len(order), batch):
        places = order[first : first + batch]
        scores[places] = final_scores(model, *right_padded([dialogues[place] for place in places])).float()
    return scores


@torch.no_grad()
def normalise(model: ScalarHead, dialogues: Sequence[list[int]], batch: int) -> dict[str, float]:
    """Moves and scales the head so that these dialogues score 0 on average with deviation 1.

    Scores that are all equal keep their scale. Returns the mean and deviation from before.
    """
    scores = score(model, dialogues, batch).double()
    mean, deviation = float(scores.mean()), float(scores.std(correction=0))
    gain = 1 / deviation if deviation > 1e-6 else 1.0
    model.head.weight.mul_(gain)
    model.head.bias.copy_((model.head.bias - mean) * gain)
    return {"score_mean_before": mean, "score_std_before": deviation}


def load_reward_model(folder: Path) -> tuple[ScalarHead, Any]:
    """The reward model in a folder that `reward` wrote, and its tokenizer. Raises UserError where there is none."""
    model, words = checkpoint.load(folder)
    if not isinstance(model, ScalarHead):
        raise UserError(f"{folder} is not a reward model: give the checkpoint that the reward stage wrote")
    return model, words
