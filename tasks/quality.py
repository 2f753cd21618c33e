"""The stage `quality`: a classifier of documents from labelled texts, judged on texts it never saw."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datalake.curate.scores.config import QualityConfig
from datalake.lake.copies import near_folder, workplace
from models.evaluation.intervals import wilson
from models.evaluation.ranking import Figure, ranking
from tasks.cluster import run_alone
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage

_STEPS = 20  # of the distribution of scores
_MINIMA = (0.01, 0.02, 0.05, *(step / 10 for step in range(1, 10)), 0.95, 0.98, 0.99)


def _train(config: QualityConfig, folder: Path) -> tuple[dict[str, int], list[bool], list[float]]:
    """Train; counts of the labelled texts, and of those held out which are good and what they score."""
    from datalake.curate.scores.quality import MODEL, QualityModel, probability, read_labels, train

    labels = read_labels(config)
    with workplace(folder) as here:
        train(labels.training, config, here)
    folder = near_folder(folder)
    model = QualityModel.trained(folder)
    counts = labels.counts | {
        "training": len(labels.training),
        "training good": sum(row.good for row in labels.training),
        "held out": len(labels.heldout),
        "held out good": sum(row.good for row in labels.heldout),
        "bytes": (folder / MODEL).stat().st_size,
    }
    return (
        counts,
        [row.good for row in labels.heldout],
        [probability(model.predictor, model.label, row.words) for row in labels.heldout],
    )


def figures(good: list[bool], scores: list[float], seed: int) -> dict[str, Figure]:
    """Accuracy at 0.5 (Wilson's interval), ROC AUC and average precision (bootstrap)."""
    right = sum((score >= 0.5) == truth for truth, score in zip(good, scores, strict=True))
    accuracy = Figure(right / len(good), *wilson(right, len(good)))
    return {"accuracy": accuracy, **ranking(good, scores, seed=seed)}


def distribution(good: list[bool], scores: list[float]) -> list[dict[str, Any]]:
    """How many texts, good and others, score within each twentieth of [0, 1]."""
    rows = [{"from": step / _STEPS, "to": (step + 1) / _STEPS, "good": 0, "others": 0} for step in range(_STEPS)]
    for truth, score in zip(good, scores, strict=True):
        rows[min(int(score * _STEPS), _STEPS - 1)]["good" if truth else "others"] += 1
    return rows


def minima(good: list[bool], scores: list[float]) -> list[dict[str, Any]]:
    """What a minimum would keep of the good texts and of the others, and how much of what it keeps is good."""
    rows = []
    for minimum in _MINIMA:
        kept = [truth for truth, score in zip(good, scores, strict=True) if score >= minimum]
        rows.append(
            {
                "minimum": minimum,
                "keeps of the good": round(sum(kept) / sum(good), 4),
                "keeps of the others": round((len(kept) - sum(kept)) / (len(good) - sum(good)), 4),
                "good among the kept": round(sum(kept) / len(kept), 4) if kept else None,
            }
        )
    return rows


class Classifier(NamedTuple):
    """A classifier of documents by quality."""

    model: Folder


@stage(Classifier, version="1", libraries=("floret", "rjieba", "numpy", "numba"))
def quality(config: QualityConfig, runtime: Runtime) -> Produced:
    """Train a quality classifier on labelled texts, and judge it on a seeded part of them that is held out."""
    folder = runtime.folder
    counts, good, scores = run_alone(_train, config, folder, runtime=runtime)
    found = figures(good, scores, config.seed)
    rows = minima(good, scores)
    return Produced(
        folders={"quality": folder},
        counts=counts,
        records_in=counts["rows"],
        records_out=counts["training"],
        equations=[
            (
                "rows = training + held out + left out",
                counts["rows"],
                sum(counts[name] for name in ("training", "held out", "repeated", "both labels", "without words")),
            )
        ],
        funnel=rows,
        evaluations=[
            {"checkpoint": "quality", "task": "quality", "metric": name, **value._asdict(), "n": len(good)}
            for name, value in found.items()
        ],
        report={
            "figures": {name: value._asdict() for name, value in found.items()},
            "distribution": distribution(good, scores),
            "minima": rows,
        },
        pages={"page": partial(page, counts, found, good, scores)},
    )


def page(counts: dict[str, int], found: dict[str, Figure], good: list[bool], scores: list[float]) -> str:
    """What the UI shows of the classifier, in markdown."""
    lines = [
        f"{counts['training']:,} texts trained ({counts['training good']:,} good),"
        f" {counts['held out']:,} judge ({counts['held out good']:,} good).",
        "",
        "| figure | value | 95% interval |",
        "| --- | ---: | --- |",
    ]
    lines += [f"| {name} | {value.value:.4f} | {value.low:.4f} to {value.high:.4f} |" for name, value in found.items()]
    lines += [
        "",
        "## Scores of the texts held out",
        "",
        "| from | to | good | others |",
        "| ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['from']:.2f} | {row['to']:.2f} | {row['good']:,} | {row['others']:,} |"
        for row in distribution(good, scores)
    ]
    return "\n".join(lines)
