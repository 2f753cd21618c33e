"""What a model said of items, as rows of the ledger, and figures with intervals over them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from models.evaluation.exam import Exam
from models.evaluation.intervals import Result, bootstrap, wilson

Figures = dict[str, tuple[float, float]]  # by metric what an item adds above and below the fraction bar
# What metrics begin with
_LESS_IS_BETTER = ("perplexity", "bits_per_byte", "loss", "invented")
_NO_BETTER = ("ended", "chance", "unigram_", "longer_wins", "refused")
_EXPONENTIAL = ("perplexity",)  # exp of the ratio; others are the ratio
_LARGEST = math.log(sys.float_info.max)


@dataclass(slots=True)
class Judged:
    """An item as it was asked, answered and scored: a row of the ledger.

    prompt: as the model was given it. answer: what it wrote, or the choice it found likeliest. figures: see `Figures`.
    scores: plain numbers behind them, such as each choice's log-likelihood. cut: whether the prompt was longer than the
    context. documents: those that trained it and hold the item's text.
    """

    task: str
    item: str
    seed: int
    shots: int
    reasons: bool
    prompt: str
    answer: str
    target: str
    figures: Figures
    scores: dict[str, float] = field(default_factory=dict)
    cut: bool = False
    documents: list[str] = field(default_factory=list)


def better(metric: str) -> int:
    """1 where a metric is better higher, -1 where lower, 0 where it says nothing about which model is better."""
    return -1 if metric.startswith(_LESS_IS_BETTER) else 0 if metric.startswith(_NO_BETTER) else 1


def figure(metric: str, above: float, below: float) -> float:
    """A metric's value from what all items add above and below the fraction bar; a perplexity may be infinite."""
    value = above / below if below else math.nan
    if metric not in _EXPONENTIAL:
        return value
    return math.inf if value > _LARGEST else math.exp(value)


def results(rows: Sequence[Judged], confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> list[Result]:
    """Figures over items, each with its interval: Wilson's where every item is right or wrong, else the bootstrap's
    over items. In the order of tasks, and of each one's metrics."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for metric, parts in row.figures.items():
            found.setdefault((row.task, metric), []).append(parts)
    made = []
    for (task, metric), items in found.items():
        above, below = np.array(items, np.float64).T
        if set(below) == {1.0} and set(above) <= {0.0, 1.0}:
            low, high = wilson(float(above.sum()), len(items), confidence)
        else:
            low, high = (figure(metric, end, 1.0) for end in bootstrap(above, below, confidence, resamples, seed))
        made.append(Result(task, metric, figure(metric, float(above.sum()), float(below.sum())), low, high, len(items)))
    return made


def tell_documents(rows: Iterable[Judged], exams: Sequence[Exam], find: Callable[[list[str]], list[list[str]]]) -> None:
    """Tell rows the documents that hold their items; `find` gives for each text the names of those that contain it."""
    texts = {
        (one.benchmark.name, question.item.name): text
        for one in exams
        for question, text in zip(one.questions, one.texts, strict=True)
    }
    found = dict(zip(texts, find(list(texts.values())), strict=True))
    for row in rows:
        row.documents = found[row.task, row.item]


def figures_of(rows: Sequence[Judged], **options: Any) -> list[dict[str, Any]]:
    """The results of rows as mappings; of a task that was asked in several ways for each, with `shots` and `reasons`.
    `options`: those of `results`."""
    return [asdict(result) | way for way, own in several_ways(rows) for result in results(own, **options)]


def several_ways(rows: Sequence[Judged]) -> list[tuple[dict[str, Any], list[Judged]]]:
    """The rows of each task by how they were asked, with these ways where there are several."""
    found: dict[str, dict[tuple[int, bool], list[Judged]]] = {}
    for row in rows:
        found.setdefault(row.task, {}).setdefault((row.shots, row.reasons), []).append(row)
    return [
        ({"shots": shots, "reasons": reasons} if len(ways) > 1 else {}, own)
        for ways in found.values()
        for (shots, reasons), own in ways.items()
    ]


def named(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure as a row of `runs.evaluations`, whose task says how it was asked where there are several ways."""
    if "shots" not in figure:
        return figure
    way = f"{figure['shots']} shots{', reasons' if figure['reasons'] else ''}"
    return {name: value for name, value in figure.items() if name not in ("shots", "reasons")} | {
        "task": f"{figure['task']} ({way})"
    }


def contamination(rows: Sequence[Judged], **options: Any) -> list[dict[str, Any]]:
    """For each task how many of its rows have `documents`, those in training that hold their item: `task`, `share` with
    `low` and `high`, `n`, `items` (`item`, `documents`), and the results `without` them, over `clean` items.
    `options`: those of `results`."""
    made = []
    for way, own in several_ways(rows):
        held = [{"item": row.item, "documents": row.documents} for row in own if row.documents]
        clean = [row for row in own if not row.documents]
        low, high = wilson(len(held), len(own))
        share = {"task": own[0].task, "share": len(held) / len(own), "low": low, "high": high, "n": len(own)}
        without = list(map(asdict, results(clean, **options)))
        made.append(share | way | {"items": held, "clean": len(clean), "without": without})
    return made


def beside(figures: Iterable[dict[str, Any]], held: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures with `seen`, the share of their items that training documents hold, and the value `without` these (None
    where none is left), by what `contamination` says of the same rows; as they are where it says nothing."""
    known = {}
    for row in held:
        values = {one["metric"]: one["value"] for one in row["without"]}
        known[row["task"], row.get("shots"), row.get("reasons")] = row["share"], values
    made = []
    for figure in figures:
        share, values = known.get((figure["task"], figure.get("shots"), figure.get("reasons")), (None, {}))
        seen = {} if share is None else {"seen": share, "without": values.get(figure["metric"])}
        made.append(figure | seen)
    return made


def as_row(judged: Judged) -> dict[str, Any]:
    """A row of `runs.answers`: plain values, a metric's value in `scores` beside the numbers behind it."""
    row = asdict(judged)
    figures = row.pop("figures")
    row["scores"] = {name: above / below if below else math.nan for name, (above, below) in figures.items()} | row[
        "scores"
    ]
    return row
