"""How well scores tell the better answer of a pair: by source, as probabilities, and for what of it length is enough.

People, and models in their place, prefer longer answers, and a reward model may learn nothing else (Singhal et al.
2023, arXiv 2310.03716). So the accuracy stands beside that of the rule "the longer one wins", and that on pairs of
equal length, where the rule says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.evaluation.intervals import wilson
from models.training.figures import Figure, bars, lines

Floats = npt.NDArray[np.float64]
EQUAL_LENGTH = 0.1  # of the longer answer: pairs that differ by no more are of equal length
BINS = 10
LENGTHS = 8  # groups of as many answers each, by their length, of which the mean score is shown


class Share(NamedTuple):
    """A share of pairs with its interval."""

    value: float
    low: float
    high: float
    n: int


class Scored(NamedTuple):
    """Pairs (N) with the scores of both answers, their lengths in tokens, the prompt left out, and their sources."""

    chosen: Floats
    rejected: Floats
    chosen_tokens: Floats
    rejected_tokens: Floats
    sources: Sequence[str]

    @classmethod
    def of(cls, pairs: Sequence[Any], scores: Sequence[float], sources: Sequence[str]) -> Scored:
        """From pairs of `chosen` and `rejected` token lists whose answers begin at `start`, the scores (2N) of both
        dialogues of each, one after the other, and the sources (N)."""
        flat = np.asarray(scores, np.float64)
        chosen = np.array([len(pair.chosen) - pair.start for pair in pairs], np.float64)
        rejected = np.array([len(pair.rejected) - pair.start for pair in pairs], np.float64)
        return cls(flat[0::2], flat[1::2], chosen, rejected, sources)

    @property
    def right(self) -> Floats:
        """1 where the chosen answer scores higher, 0.5 where both score alike, else 0."""
        return _above(self.chosen, self.rejected)


def shares(scored: Scored, confidence: float = 0.95) -> dict[str, Share]:
    """`accuracy`; `equal_length`, the accuracy on pairs of equal length; `longer_wins`, that of the rule; and the
    accuracy on each source, as `accuracy: SOURCE`, where there are several."""
    longest = np.maximum(scored.chosen_tokens, scored.rejected_tokens)
    equal = np.abs(scored.chosen_tokens - scored.rejected_tokens) <= EQUAL_LENGTH * longest
    names = np.array(scored.sources, dtype=object)
    found = {
        "accuracy": _share(scored.right, confidence),
        "equal_length": _share(scored.right[equal], confidence),
        "longer_wins": _share(_above(scored.chosen_tokens, scored.rejected_tokens), confidence),
    }
    several = sorted(set(scored.sources)) if len(set(scored.sources)) > 1 else []
    return found | {f"accuracy: {name}": _share(scored.right[names == name], confidence) for name in several}


def length_bias(scored: Scored) -> dict[str, float | None]:
    """Pearson's correlations: of an answer's score with its length, and of the scores' difference with that of the
    lengths. None where one of the two doesn't vary."""
    scores = np.concatenate([scored.chosen, scored.rejected])
    tokens = np.concatenate([scored.chosen_tokens, scored.rejected_tokens])
    margins, longer = scored.chosen - scored.rejected, scored.chosen_tokens - scored.rejected_tokens
    # Every pair is told from both sides: which of its answers is the chosen one must not matter.
    both = (np.concatenate([one, -one]) for one in (margins, longer))
    return {"score_length_correlation": _correlation(scores, tokens), "margin_length_correlation": _correlation(*both)}


def calibration(scored: Scored, bins: int = BINS, confidence: float = 0.95) -> dict[str, Any]:
    """How likely the scores say that the better scored answer is the chosen one, sigmoid of their distance, beside how
    often it was.

    `bins` of equal width from 0.5 to 1, each with its pairs, their mean predicted probability and the observed share
    with its interval; `ece`, the mean distance of the two over all pairs (Naeini et al. 2015, expected calibration
    error).
    """
    predicted = 1 / (1 + np.exp(-np.abs(scored.chosen - scored.rejected)))
    places = np.minimum(((predicted - 0.5) * 2 * bins).astype(int), bins - 1)
    rows, distance = [], 0.0
    for place in range(bins):
        here = places == place
        if n := int(here.sum()):
            expected, observed = float(predicted[here].mean()), float(scored.right[here].mean())
            _, low, high, _ = _share(scored.right[here], confidence)
            row = {"from": 0.5 + place / (2 * bins), "predicted": expected, "observed": observed}
            rows.append(row | {"low": low, "high": high, "pairs": n})
            distance += n * abs(expected - observed)
    return {"ece": distance / max(len(predicted), 1), "bins": rows}


def measured(scored: Scored, said: Callable[[str], str] = "heldout_{}".format) -> dict[str, Any]:
    """All of it as a report has it, plain values: every share with `_low`, `_high` and `_pairs`, the two correlations,
    `ece`, the bins of `calibration`, and `accuracy_by_source`."""
    report: dict[str, Any] = {}
    by_source: dict[str, dict[str, float]] = {}
    for name, share in shares(scored).items():
        if name.startswith("accuracy: "):
            by_source[name.removeprefix("accuracy: ")] = share._asdict()
        elif share.n:
            name = name if name == "accuracy" else f"{name}_accuracy" if name == "equal_length" else name
            report |= {said(name): share.value, said(f"{name}_low"): share.low, said(f"{name}_high"): share.high}
            report |= {} if name == "accuracy" else {said(f"{name}_pairs"): share.n}
    told = calibration(scored)
    report |= {said(name): value for name, value in length_bias(scored).items()}
    report |= {said("ece"): told["ece"], said("calibration"): told["bins"]}
    return report | ({said("accuracy_by_source"): by_source} if by_source else {})


def drawn(scored: Scored) -> list[Figure]:
    """The same as pictures: calibration, accuracies with their intervals, and mean scores by length."""
    told, found, bias = calibration(scored), shares(scored), length_bias(scored)
    observed = [[row[name] for row in told["bins"]] for name in ("predicted", "observed", "low", "high")]
    names = {"accuracy": "all pairs", "equal_length": "of equal length", "longer_wins": "rule: the longer one wins"}
    accuracies = {names.get(name, name): share for name, share in found.items() if share.n}
    values = list(accuracies.values())
    related = [f"{value:.2f}" if value is not None else "none" for value in bias.values()]
    return [
        lines(
            "calibration",
            {"observed": observed, "if it were right": ([0.5, 1.0], [0.5, 1.0])},
            "probability that the better scored answer is the chosen one",
            "share of pairs where it is",
            f"By the scores' distance, as the loss reads them; expected error {told['ece']:.3f}, 95% intervals.",
        ),
        bars(
            "accuracy on held-out pairs",
            [f"{name} ({share.n:,})" for name, share in accuracies.items()],
            [share.value for share in values],
            [share.low for share in values],
            [share.high for share in values],
            note="With 95% intervals; the dashed line is chance.",
            chance=0.5,
        ),
        lines(
            "score by length",
            {
                "chosen": _by_length(scored.chosen_tokens, scored.chosen),
                "rejected": _by_length(scored.rejected_tokens, scored.rejected),
            },
            "tokens of an answer",
            "mean score",
            f"Correlation of score and length {related[0]}; of a pair's differences in both {related[1]}.",
        ),
    ]


def _by_length(tokens: Floats, scores: Floats) -> tuple[list[float], list[float]]:
    """Mean length and mean score of groups of answers by length, as many in each, and of one length all in one."""
    order = np.argsort(tokens, kind="stable")
    edges = [0, *(np.flatnonzero(np.diff(tokens[order])) + 1).tolist(), len(order)]  # where one length ends
    even = np.linspace(0, len(order), LENGTHS + 1)
    cuts = sorted({edges[int(np.abs(np.array(edges) - place).argmin())] for place in even})
    groups = [order[first:last] for first, last in pairwise(cuts)]
    return [float(tokens[group].mean()) for group in groups], [float(scores[group].mean()) for group in groups]


def _above(better: Floats, worse: Floats) -> Floats:
    return (better > worse) + 0.5 * (better == worse)


def _share(right: Floats, confidence: float) -> Share:
    n = len(right)
    return Share(float(right.mean()) if n else math.nan, *wilson(float(right.sum()), n, confidence), n)


def _correlation(one: Floats, other: Floats) -> float | None:
    if len(one) < 2 or not one.std() or not other.std():
        return None
    return float(np.corrcoef(one, other)[0, 1])
