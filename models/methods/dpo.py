"""Direct preference optimisation: the tuned model learns which of two answers people prefer, without a reward model.

What the model said of every answer before the first step, the reference, is taken once and kept beside the states
(`models.rl.reference`); it needs no second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from models.methods.items import Items
from models.methods.pairs import Pair, contradictions, pairs_that_fit
from models.training.config import TunedConfig
from models.training.method import Begun, Ended, Method, Prepared

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
    return pairs_that_fit(config, base, pairs, heldout, "dpo")


def prepare(
    config: DpoConfig, data: Items[Answers], base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]
) -> Prepared:
    """The model in `base` learns to prefer the chosen answers, held near itself by beta."""
    import torch

    from datalake.files import folder_version
    from models.network.checkpoint import load_language_model
    from models.objectives.dpo import collate, dpo
    from models.rl.reference import Reference
    from models.training.loop import mean_loss, split

    version, per_token = folder_version(base), config.per_token or config.loss == "ipo"
    judged, train = sorted(data.drawn(), key=data.length), data.fitted.items
    objective = dpo(config.beta, config.loss, config.label_smoothing, config.per_token)

    def answers(items: Sequence[Answers]) -> list[tuple[list[int], int]]:
        return [(ids, pair.start) for pair in items for ids in (pair.chosen, pair.rejected)]

    seen = data.epochs.first(data.steps)
    before = Reference(version, answers(train), [2 * place + side for place in seen for side in (0, 1)])
    held = Reference(version, answers(judged))

    def batch(items: Sequence[Answers], reference: Reference, places: Sequence[int]) -> Any:
        pairs = [items[place] for place in places]
        said = reference.log_probs.view(-1, 2)[list(places)]
        if per_token:
            said = said / torch.tensor([[len(ids) - pair.start for ids in pair[:2]] for pair in pairs])
        return collate(pairs, said)

    def measure(network: Any) -> dict[str, float]:
        firsts = range(0, len(judged), config.batch)
        places = [range(first, min(first + config.batch, len(judged))) for first in firsts]
        return mean_loss(network, [batch(judged, held, some) for some in places], objective)

    def begin(begun: Begun) -> None:
        before.take(begun)
        if judged:
            held.take(begun)

    def finish(ended: Ended) -> dict[str, Any]:
        report = data.report("pairs", ended.step) | contradictions(pairs)
        if judged:
            report |= {f"heldout_{name}": ended.heldout[name] for name in ("loss", "accuracy", "margin")}
        return report

    return Prepared(
        model=load_language_model(base).eval(),
        objective=objective,
        batches=lambda step: [split(batch(train, before, data.epochs.items(step)), config.accumulation)],
        ahead=True,
        words=data.words,
        inputs={"base": version, "pairs": [[pair.chosen, pair.rejected] for pair in train]},
        measure=measure if judged else None,
        finish=finish,
        begin=begin,
    )


dpo = Method("dpo", DpoConfig, data, prepare, title="Direct preference optimisation", after="sft", version="3")
