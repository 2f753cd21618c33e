"""Supervised tuning: a pretrained decoder learns to answer, from dialogues whose assistant's tokens alone count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datalake.errors import UserError
from datalake.files import folder_version
from datalake.identity import fingerprint
from models.network import checkpoint
from models.network.build import ScalarHead
from models.objectives.assistant_tokens import Dialogues, assistant_tokens, collate
from models.text.packing import Dialogue, Fitted, Messages, fit_all, fit_dialogue
from models.training.callbacks import Checkpoints, Evaluation, Metrics, Progress, SpikeGuard
from models.training.config import SftConfig
from models.training.epochs import Epochs, draw
from models.training.loop import Callback, context_of, fit, load_state, mean_loss, split
from models.training.optimizer import build_optimizer
from models.training.schedule import schedule_of


def sft(
    config: SftConfig,
    base: Path,
    conversations: Sequence[Messages],
    heldout: Sequence[Messages],
    out: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Tunes the model in `base` on dialogues and writes it to `out/checkpoint`; returns a report of plain values.

    A dialogue is made to fit the context as `models.text.packing` has it; the report counts those that were cut and
    dropped, by length too, and `left_out` has [number in `conversations`, reason, tokens, room] of each that was
    dropped. `out` holds `metrics.jsonl` and `state` as in pretraining. Raises UserError when no dialogue is left.
    """
    torch.manual_seed(config.seed)
    model, words = load_language_model(base)
    context = context_of(model, config.context)
    fitted = fitting(conversations, words, context)
    rendered = fitted.items
    if not rendered:
        raise UserError(
            f"none of {len(conversations)} dialogues can be learned from in {context} tokens ({fitted.why}): give"
            " others or another base, or raise sft.context or pretrain.context"
        )
    judged_dialogues = fitting(heldout, words, context).items
    order = draw(config.seed, 1 << 20).permutation(len(judged_dialogues))[: config.eval_rows]
    judged = in_batches([judged_dialogues[place] for place in order], config.batch)
    epochs = order_of(config, fitted)
    steps = config.steps or epochs.steps(config.epochs)
    identity = fingerprint(
        {
            "stage": "sft",
            "config": config,
            "base": folder_version(base),
            "conversations": [[list(ids), list(mask)] for ids, mask in rendered],
        }
    )

    def measure(network: nn.Module) -> dict[str, float]:
        return mean_loss(network, judged, assistant_tokens)

    guard, metrics = SpikeGuard(config.spike_sigma), Metrics(out / "metrics.jsonl")
    evaluation = Evaluation(measure, config.eval_every)
    callbacks: list[Callback] = [guard, *([evaluation] if judged else []), metrics, Progress(on_step)]
    before = mean_loss_of(model, judged)
    state = fit(
        model,
        assistant_tokens,
        lambda step: [split(collate([rendered[item] for item in epochs.items(step)]), config.accumulation)],
        build_optimizer(config, {"model": model}),
        schedule_of(config, steps),
        [*callbacks, Checkpoints(out / "state", config.checkpoint_every, identity)],
        load_state(out / "state", identity),
        steps=steps,
        clip=config.clip,
    )
    checkpoint.save(model, words, out / "checkpoint")
    report: dict[str, Any] = {
        "steps": state.step,
        "dialogues": len(rendered),
        **fitted.figures(context),
        "target_tokens": state.targets,
        "epochs": state.step / epochs.steps_per_epoch,
        "loss": metrics.last["loss"],
        "tokens_per_s": metrics.tokens_per_s,
        "skipped": len(guard.events),
    }
    if judged:
        report |= {
            "heldout_dialogues": len(order),
            "heldout_dropped": len(heldout) - len(judged_dialogues),
            "heldout_loss_before": before,
            "heldout_loss": evaluation.last["loss"],
            "heldout_token_accuracy": evaluation.last["token_accuracy"],
        }
    return report


def load_language_model(folder: Path) -> tuple[nn.Module, Any]:
    """The model in a checkpoint and its tokenizer. Raises UserError for a reward model, which can't write."""
    model, words = checkpoint.load(folder)
    if isinstance(model, ScalarHead):
        raise UserError(f"{folder} is a reward model: give the checkpoint of a language model")
    return model, words


def fitting(conversations: Sequence[Messages], words: Any, context: int) -> Fitted[Dialogue]:
    """Dialogues as tokens and assistant masks, at most `context` + 1 long: the last token is only ever a target."""
    return fit_all(conversations, lambda messages: fit_dialogue(messages, words, context + 1))


def order_of(config: SftConfig, fitted: Fitted[Dialogue]) -> Epochs:
    """Which of the dialogues that fit each step sees."""
    return Epochs([len(ids) for ids, _ in fitted.items], config.seed, config.batch)


def in_batches(dialogues: list[Dialogue], batch: int) -> list[Dialogues]:
    """Dialogues as batches of like length, for a figure over all of them."""
    dialogues = sorted(dialogues, key=lambda dialogue: len(dialogue[0]))
    return [collate(dialogues[first : first + batch]) for first in range(0, len(dialogues), batch)]


@torch.no_grad()
def mean_loss_of(model: nn.Module, judged: list[Dialogues]) -> float | None:
    """The loss before training, in nats per assistant token; None without dialogues."""
    return mean_loss(model.eval(), judged, assistant_tokens)["loss"] if judged else None
