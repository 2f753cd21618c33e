"""Kahneman-Tversky optimisation: the tuned model learns from answers that are each judged good or bad.

An answer that was judged by itself is one judgement, a pair is two: the chosen answer is good, the rejected one bad.
The reference point of a step is estimated before it from its whole batch, so that the loss is the same whatever the
accumulation; what the reference says of answers, mismatched ones too, is taken once (`models.rl.reference`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from models.methods.items import Items
from models.methods.pairs import Pair, contradictions, words_and_context
from models.training.config import TunedConfig
from models.training.method import Begun, Ended, Method, Prepared

if TYPE_CHECKING:
    from models.objectives.kto import Judged
    from models.text.packing import Fit


class KtoConfig(TunedConfig):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024) of judgements, in pairs or not."""

    batch: int = Field(
        16, ge=2, le=65536, title="Batch", description="Judged answers per step; the reference point is told from them."
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    beta: float = Field(0.1, gt=0, le=100, title="Beta", description="How closely the model stays to where it began.")
    desirable_weight: float = Field(
        1.0, ge=0, le=1000, title="Desirable weight", description="Of good answers; raise it where they are few."
    )
    undesirable_weight: float = Field(
        1.0, ge=0, le=1000, title="Undesirable weight", description="Of bad answers; raise it where they are few."
    )


def data(config: KtoConfig, base: Path, judgements: Sequence[Pair], heldout: Sequence[Pair]) -> Items[Judged]:
    """Rows as judged answers in tokens, two of a pair, at most the context long each.

    `models.text.packing` says what is cut and what is left out. Raises UserError when none is left.
    """
    from datalake.errors import UserError
    from models.objectives.kto import Judged
    from models.text.packing import Fit, Fitted, fit_all, fit_answer, fit_pair

    words, context = words_and_context(config, base)

    def fit(row: Pair) -> Fit[list[Judged]]:
        if row["chosen"] is not None and row["rejected"] is not None:
            pair = fit_pair(row, words, context)
            two = pair.item and [
                Judged(pair.item.chosen, pair.item.start, True),
                Judged(pair.item.rejected, pair.item.start, False),
            ]
            return Fit(two, *pair[1:])
        good = row["chosen"] is not None
        one = fit_answer(row["prompt"], (row["chosen"] if good else row["rejected"]) or "", words, context)
        return Fit(one.item and [Judged(*one.item, good)], *one[1:])

    def flat(rows: Sequence[Pair]) -> Fitted[Judged]:
        fitted = fit_all(rows, fit)
        each = [(one, number) for some, number in zip(fitted.items, fitted.numbers, strict=True) for one in some]
        items, numbers = [one for one, _ in each], [number for _, number in each]
        return Fitted(items, numbers, fitted.cut_tokens, fitted.left_out)

    train, judged = flat(judgements), flat(heldout)
    if not train.items:
        raise UserError(
            f"none of {len(judgements)} judgements has an answer that fits in {context} tokens ({train.why}): give"
            " others, or raise kto.context or pretrain.context"
        )
    return Items(config, train, judged, lambda one: len(one.tokens), context, words)


def prepare(
    config: KtoConfig, data: Items[Judged], base: Path, judgements: Sequence[Pair], heldout: Sequence[Pair]
) -> Prepared:
    """The model in `base` learns to give good answers more often and bad ones less, held near itself by beta."""
    import torch

    from datalake.files import folder_version
    from models.network.checkpoint import load_language_model
    from models.objectives.kto import baseline, collate, kto, mismatched
    from models.rl.reference import Reference, log_probs_of
    from models.training.loop import mean_loss, split

    version, train, drawn = folder_version(base), data.fitted.items, data.drawn()
    objective = kto(config.beta, config.desirable_weight, config.undesirable_weight)
    running: list[Begun] = []

    class Batches:
        """Batches of judged answers with what the reference says of them, and of their prompts with other answers."""

        def __init__(self, judged: Sequence[Judged], batches: Sequence[Sequence[int]]) -> None:
            self.judged, self.batches = judged, batches
            wanted = {place for places in batches for place in places}
            self.before = Reference(version, [one[:2] for one in judged], wanted)
            others = [mismatched([judged[place] for place in places], data.context) for places in batches]
            bounds = [0, *accumulate(map(len, others))]
            self.passes = [list(range(*ends)) for ends in pairwise(bounds)]
            self.others = Reference(
                version, [one for some in others for one in some], passes=[p for p in self.passes if p]
            )

        def take(self, begun: Begun) -> None:
            self.before.take(begun)
            self.others.take(begun)

        def __getitem__(self, number: int) -> Any:
            """A batch; its baseline is that of the model as it is now."""
            places, wrong = list(self.batches[number]), self.passes[number]
            point = torch.zeros(())
            if wrong:
                (said,) = log_probs_of(running[-1], [[self.others.answers[place] for place in wrong]])
                point = baseline(said, self.others.log_probs[wrong])
            return collate([self.judged[place] for place in places], self.before.log_probs[places], point)

    before = Batches(train, [data.epochs.items(step) for step in range(data.steps)])
    order = sorted(range(len(drawn)), key=lambda place: data.length(drawn[place]))
    held = Batches(drawn, [order[first : first + config.batch] for first in range(0, len(order), config.batch)])

    def begin(begun: Begun) -> None:
        running.append(begun)
        before.take(begun)
        if drawn:
            held.take(begun)

    def finish(ended: Ended) -> dict[str, Any]:
        good = sum(one.desirable for one in train)
        report = data.report("judgements", ended.step) | contradictions(judgements)
        report |= {"desirable": good, "undesirable": len(train) - good}
        if drawn:
            report |= {f"heldout_{name}": ended.heldout[name] for name in ("loss", "accuracy", "margin", "kl")}
        return report

    return Prepared(
        model=load_language_model(base).eval(),
        objective=objective,
        batches=lambda step: [split(before[step], config.accumulation)],
        words=data.words,
        inputs={"base": version, "judgements": [[list(one.tokens), one.start, one.desirable] for one in train]},
        measure=(lambda network: mean_loss(network, [held[k] for k in range(len(held.batches))], objective))
        if drawn
        else None,
        finish=finish,
        begin=begin,
    )


kto = Method("kto", KtoConfig, data, prepare, title="Kahneman-Tversky optimisation", after="sft", version="2")
