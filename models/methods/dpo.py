"""Direct preference optimisation: the tuned model learns which of two answers people prefer, without a reward model.

What the model said of every answer before the first step, the reference, is taken once; it needs no second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from models.methods.items import Items
from models.methods.reward import Pair
from models.methods.reward import data as pairs_that_fit
from models.training.config import TunedConfig
from models.training.method import Ended, Method, Prepared

if TYPE_CHECKING:
    from models.text.packing import Answers


class DpoConfig(TunedConfig):
    """Direct preference optimisation (Rafailov et al. 2023), or its identity form (Azar et al. 2023)."""

    learning_rate: float = Field(5e-5, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    beta: float = Field(0.1, gt=0, le=100, title="Beta", description="How closely the model stays to where it began.")
    loss: Literal["sigmoid", "ipo"] = Field("sigmoid", title="Loss", description="Of a pair's margin.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, title="Label smoothing", description="The share of pairs thought to be labelled wrongly."
    )
    per_token: bool = Field(
        False, title="Per token", description="Answers count by their mean log-probability, not its sum."
    )


def data(config: DpoConfig, base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]) -> Items[Answers]:
    """Pairs as the reward model takes them."""
    return pairs_that_fit(config, base, pairs, heldout)


def prepare(
    config: DpoConfig, data: Items[Answers], base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]
) -> Prepared:
    """The model in `base` learns to prefer the chosen answers, held near itself by beta."""
    import torch

    from datalake.files import folder_version
    from models.network.checkpoint import load_language_model
    from models.objectives.dpo import answer_log_probs, collate, dpo
    from models.training.loop import mean_loss, split

    model = load_language_model(base).eval()
    per_token = config.per_token or config.loss == "ipo"
    judged, train = sorted(data.drawn(), key=data.length), data.fitted.items

    @torch.no_grad()
    def reference(items: Sequence[Answers]) -> torch.Tensor:
        found = torch.zeros(len(items), 2)
        order = sorted(range(len(items)), key=lambda number: data.length(items[number]))
        for first in range(0, len(order), config.batch):
            places = order[first : first + config.batch]
            batch = collate([items[place] for place in places], found[places])
            found[places] = answer_log_probs(model, batch, per_token).float()
        return found

    before, held = reference(train), reference(judged)
    objective = dpo(config.beta, config.loss, config.label_smoothing, config.per_token)
    batches = [
        collate(judged[first : first + config.batch], held[first : first + config.batch])
        for first in range(0, len(judged), config.batch)
    ]

    def of_step(step: int) -> Any:
        places = data.epochs.items(step)
        return collate([train[place] for place in places], before[places])

    def finish(ended: Ended) -> dict[str, Any]:
        report = data.report("pairs", ended.step, len(heldout))
        if batches:
            report |= {f"heldout_{name}": ended.heldout[name] for name in ("loss", "accuracy", "margin")}
        return report

    return Prepared(
        model=model,
        objective=objective,
        batches=lambda step: [split(of_step(step), config.accumulation)],
        words=data.words,
        inputs={"base": folder_version(base), "pairs": [[pair.chosen, pair.rejected] for pair in train]},
        measure=(lambda network: mean_loss(network, batches, objective)) if batches else None,
        finish=finish,
    )


dpo = Method("dpo", DpoConfig, data, prepare, title="Direct preference optimisation", after="sft", version="2")
