"""What the labels of a lake come to: how many, by whom, and how far people agree (`models.evaluation.agreement`)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from flows.label.desk import KINDS
from flows.label.kinds import Kind, Row
from flows.label.labels import SKIPPED, Labels, by_item
from models.evaluation.agreement import cohen_kappa, krippendorff_alpha


def summary(labels: Labels) -> dict[str, Row]:
    """Of each kind that something was said of, by its name.

    `labels`, `items` that have some, `shared` by two annotators or more; `annotators`: what each did; `agreement`: a
    row for each measure, with Krippendorff's `alpha` of all, and Cohen's `kappa` of every two annotators, with the
    `items` that both judged. A figure is None where nothing can be said.
    """
    found = {}
    for name, kind in KINDS.items():
        rows = labels.rows(kind.table)
        if any(rows.values()):
            found[name] = _of(kind, rows, labels)
    return found


def _of(kind: Kind, rows: Mapping[str, dict[str, Row]], labels: Labels) -> Row:
    items = by_item(rows)
    skipped = labels.rows(f"{SKIPPED}/{kind.name}")
    beside = {table: labels.rows(table) for table in kind.beside}
    people: list[Row] = [
        {"annotator": name, "labels": len(mine), "skipped": len(skipped.get(name, {}))}
        | {table: len(theirs.get(name, {})) for table, theirs in beside.items()}
        for name, mine in rows.items()
        if mine or skipped.get(name)
    ]
    measures = kind.measures(list(items.values()))
    agreement: list[Row] = [
        {"measure": measure, "alpha": krippendorff_alpha(units, ordinal), "kappa": []}
        for measure, (units, ordinal) in measures.items()
    ]
    for first, second in combinations([one["annotator"] for one in people], 2):
        both = [
            {name: said[name] for name in (first, second)} for said in items.values() if {first, second} <= said.keys()
        ]
        for row in agreement if both else ():
            pairs: Any = kind.measures(both)[row["measure"]][0]
            row["kappa"].append({"first": first, "second": second, "items": len(both), "kappa": cohen_kappa(pairs)})
    return {
        "labels": sum(map(len, rows.values())),
        "items": len(items),
        "shared": sum(len(said) > 1 for said in items.values()),
        "annotators": people,
        "agreement": agreement,
    }
