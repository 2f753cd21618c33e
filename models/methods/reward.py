"""The reward model: a tuned decoder with a scalar head learns from pairs which answers people prefer.

The head starts at zero, so the loss starts at ln 2; after training it is put on the scale of every reward model (see
`models.rl.reward_model`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from models.methods.items import Items
from models.training.config import TunedConfig
from models.training.method import Ended, Method, Prepared

if TYPE_CHECKING:
    from models.text.packing import Answers

Pair = Mapping[str, Any]  # prompt: messages, chosen: text, rejected: text
NORMALISING_PAIRS = 256  # enough for a mean and a deviation to 5%, and never more than training saw


class RewardConfig(TunedConfig):
    """A reward model from pairs: Bradley-Terry on the difference of two scalar scores."""

    learning_rate: float = Field(3e-4, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.01, ge=0, le=10, title="Weight decay", description="On matrices only.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, title="Label smoothing", description="The share of pairs thought to be labelled wrongly."
    )


def data(config: TunedConfig, base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]) -> Items[Answers]:
    """Pairs as two dialogues in tokens, at most the context long each.

    `models.text.packing` says what is cut and what is left out. Raises UserError when no pair is left.
    """
    from datalake.errors import UserError
    from models.network import checkpoint
    from models.text import tokenizer as tokenizers
    from models.text.packing import fit_all, fit_pair

    words, longest = tokenizers.load(base), checkpoint.context_of(base)
    context = min(config.context or longest, longest)
    train, judged = (fit_all(some, lambda pair: fit_pair(pair, words, context)) for some in (pairs, heldout))
    if not train.items:
        raise UserError(
            f"none of {len(pairs)} pairs fits in {context} tokens with two different answers ({train.why}): give"
            " others, or raise reward.context or pretrain.context"
        )
    return Items(config, train, judged, lambda pair: pair.longest, context, words)


def prepare(
    config: RewardConfig, data: Items[Answers], base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]
) -> Prepared:
    """The model in `base` with a scalar head learns to tell the answers of a pair apart.

    Held-out accuracy, over all pairs that fit, comes with its 95% Wilson interval.
    """
    from datalake.files import folder_version
    from models.evaluation.intervals import wilson
    from models.network.build import ScalarHead
    from models.network.checkpoint import load_language_model
    from models.objectives.bradley_terry import bradley_terry, collate
    from models.rl.reward_model import normalise
    from models.training.epochs import draw
    from models.training.loop import mean_loss, split

    model = ScalarHead(load_language_model(base), "zero")
    judged = data.in_batches(data.drawn(), collate)
    held = data.heldout.items

    def finish(ended: Ended) -> dict[str, Any]:
        report = data.report("pairs", ended.step, len(heldout))
        if held:
            figures = mean_loss(model, data.in_batches(held, collate), bradley_terry())
            low, high = wilson(figures["accuracy"] * len(held), len(held))
            report |= {
                "heldout_pairs": len(held),
                "heldout_loss": figures["loss"],
                "heldout_accuracy": figures["accuracy"],
                "heldout_accuracy_low": low,
                "heldout_accuracy_high": high,
            }
        rendered = data.fitted.items
        seen = min(NORMALISING_PAIRS, ended.step * config.batch)
        some = draw(config.seed, 1 << 21).permutation(len(rendered))[:seen]
        return report | normalise(model, [answer for place in some for answer in rendered[place][:2]], config.batch)

    return Prepared(
        model=model,
        objective=bradley_terry(config.label_smoothing),
        batches=lambda step: [split(collate(data.of_step(step)), config.accumulation)],
        words=data.words,
        inputs={"base": folder_version(base), "pairs": [[pair.chosen, pair.rejected] for pair in data.fitted.items]},
        measure=(lambda network: mean_loss(network, judged, bradley_terry())) if judged else None,
        finish=finish,
    )


reward = Method(
    "reward",
    RewardConfig,
    data,
    prepare,
    title="Reward model",
    after="sft",
    default=True,
    version="4",
    writes=False,
)
