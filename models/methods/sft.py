"""Supervised tuning: a pretrained decoder learns to answer, from dialogues whose assistant's tokens alone count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from models.methods.items import Items
from models.training.config import TunedConfig
from models.training.method import Ended, Method, Prepared

if TYPE_CHECKING:
    from torch import nn

    from models.objectives.assistant_tokens import Dialogues
    from models.objectives.base import Loss
    from models.text.packing import Dialogue, Messages


class SftConfig(TunedConfig):
    """Supervised tuning on dialogues: the loss counts the assistant's tokens only."""

    learning_rate: float = Field(5e-4, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    epochs: float = Field(2.0, gt=0, le=1000, title="Epochs", description="Times every dialogue is seen.")
    balance: float = Field(
        0.01, ge=0, le=10, title="Balance", description="Weight of the load-balancing loss, for a model with experts."
    )


def data(
    config: SftConfig, base: Path, conversations: Sequence[Messages], heldout: Sequence[Messages]
) -> Items[Dialogue]:
    """Dialogues as tokens and assistant masks, at most a token longer than the context: the last is only ever a target.

    `models.text.packing` says what is cut and what is left out. Raises UserError when none is left.
    """
    from datalake.errors import UserError
    from models.network import checkpoint
    from models.text import tokenizer as tokenizers
    from models.text.packing import fit_all, fit_dialogue

    words, longest = tokenizers.load(base), checkpoint.context_of(base)
    context = min(config.context or longest, longest)
    train, judged = (
        fit_all(some, lambda messages: fit_dialogue(messages, words, context + 1)) for some in (conversations, heldout)
    )
    if not train.items:
        raise UserError(
            f"none of {len(conversations)} dialogues can be learned from in {context} tokens ({train.why}): give others"
            " or another base, or raise sft.context or pretrain.context"
        )
    return Items(config, train, judged, lambda dialogue: len(dialogue[0]), context, words)


def prepare(
    config: SftConfig,
    data: Items[Dialogue],
    base: Path,
    conversations: Sequence[Messages],
    heldout: Sequence[Messages],
) -> Prepared:
    """The model in `base` learns the assistant's tokens of these dialogues."""
    from datalake.files import folder_version
    from models.network.checkpoint import load_language_model
    from models.objectives.assistant_tokens import assistant_tokens, collate
    from models.training.loop import mean_loss, split

    model = load_language_model(base)
    drawn = data.drawn()
    judged = data.in_batches(drawn, collate)

    def objective(network: nn.Module, batch: Dialogues) -> Loss:
        return assistant_tokens(network, batch, config.balance)

    def finish(ended: Ended) -> dict[str, Any]:
        report = data.report("dialogues", ended.step)
        if judged:
            report |= {
                "heldout_dialogues": len(drawn),
                "heldout_loss_before": ended.before["loss"],
                "heldout_loss": ended.heldout["loss"],
                "heldout_token_accuracy": ended.heldout["token_accuracy"],
            }
        return report

    return Prepared(
        model=model,
        objective=objective,
        batches=lambda step: [split(collate(data.of_step(step)), config.accumulation)],
        words=data.words,
        inputs={
            "base": folder_version(base),
            "conversations": [[list(ids), list(mask)] for ids, mask in data.fitted.items],
        },
        measure=(lambda network: mean_loss(network, judged, assistant_tokens)) if judged else None,
        finish=finish,
    )


sft = Method(
    "sft", SftConfig, data, prepare, title="Supervised fine-tuning", after="pretrain", default=True, version="4"
)
