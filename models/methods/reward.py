"""The reward model: a tuned decoder with a scalar head learns from pairs which answers people prefer.

The head starts at zero, so the loss starts at ln 2; after training it is put on the scale of every reward model (see
`models.rl.reward_model`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from models.methods.items import Items
from models.methods.pairs import MARGIN, Pair, contradictions, margin_of, pairs_that_fit
from models.training.config import TunedConfig
from models.training.method import Ended, Method, Prepared

if TYPE_CHECKING:
    from models.text.packing import Answers

NORMALISING_PAIRS = 256  # enough for a mean and a deviation to 5%, and never more than training saw


class RewardConfig(TunedConfig):
    """A reward model from pairs: Bradley-Terry on the difference of two scalar scores."""

    learning_rate: float = Field(3e-4, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.01, ge=0, le=10, title="Weight decay", description="On matrices only.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, title="Label smoothing", description="The share of pairs thought to be labelled wrongly."
    )
    margin: Literal["given", "scores", "none"] = Field(
        "given",
        title="Margin",
        description="By how much scores are to differ: what a pair's `margin` says; or else the distance of the scores"
        " that its answers were given; or nothing.",
    )
    margin_scale: float = Field(1.0, ge=0, le=1000, title="Margin scale", description="What a margin is multiplied by.")
    centring: float = Field(
        0.0,
        ge=0,
        le=100,
        title="Centring",
        description="Weight of the squared sum of a pair's two scores; 0.01 is usual.",
    )

    def margin_of(self, pair: Pair) -> float | None:
        """By how much a pair's scores are to differ; None where the pair's own margin is no number."""
        found = 0.0 if self.margin == "none" else margin_of(pair, self.margin == "scores")
        return None if found is None else self.margin_scale * found


def data(config: RewardConfig, base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]) -> Items[Answers]:
    """Pairs as two dialogues in tokens; one whose margin is no number is left out."""
    return pairs_that_fit(
        config, base, pairs, heldout, "reward", lambda pair: MARGIN if config.margin_of(pair) is None else ""
    )


def prepare(
    config: RewardConfig, data: Items[Answers], base: Path, pairs: Sequence[Pair], heldout: Sequence[Pair]
) -> Prepared:
    """The model in `base` with a scalar head learns to tell the answers of a pair apart.

    What `models.evaluation.preferences` measures of all held-out pairs that fit is in the report.
    """
    from datalake.files import folder_version
    from models.evaluation.preferences import Scored, drawn, measured
    from models.network.build import ScalarHead
    from models.network.checkpoint import load_language_model
    from models.objectives.bradley_terry import bradley_terry, bradley_terry_loss, collate, scores_of
    from models.rl.reward_model import normalise
    from models.training.epochs import draw
    from models.training.loop import mean_loss, split

    model = ScalarHead(load_language_model(base), "zero")
    rendered, held = data.fitted.items, data.heldout
    judged = data.in_batches(data.drawn(), collate)
    margins = [config.margin_of(pairs[number]) or 0.0 for number in data.fitted.numbers]

    def of_step(step: int) -> Any:
        places = data.epochs.items(step)
        return collate([rendered[place] for place in places], [margins[place] for place in places])

    def finish(ended: Ended) -> dict[str, Any]:
        report = data.report("pairs", ended.step) | contradictions(pairs)
        if any(margins):
            report["margin_mean"] = sum(margins) / len(margins)
        if held.items:
            scores = scores_of(model, [answer for pair in held.items for answer in pair[:2]], config.batch)
            scored = Scored.of(held.items, scores.tolist(), [heldout[n].get("source", "") for n in held.numbers])
            loss = bradley_terry_loss(scores[0::2] - scores[1::2]).mean()
            report |= {"heldout_pairs": len(held.items), "heldout_loss": float(loss)} | measured(scored)
            report["figures"] = drawn(scored)
        seen = min(NORMALISING_PAIRS, ended.step * config.batch)
        some = draw(config.seed, 1 << 21).permutation(len(rendered))[:seen]
        return report | normalise(model, [answer for place in some for answer in rendered[place][:2]], config.batch)

    return Prepared(
        model=model,
        objective=bradley_terry(config.label_smoothing, config.centring),
        batches=lambda step: [split(of_step(step), config.accumulation)],
        ahead=True,
        words=data.words,
        inputs={"base": folder_version(base), "pairs": [[pair.chosen, pair.rejected] for pair in rendered]}
        | ({"margins": margins} if any(margins) else {}),
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
    version="5",
    writes=False,
)
