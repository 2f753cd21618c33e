"""The funnel: what became of every record of a corpus, asked of its committed tables, for whoever shows it.

A record that was read is taken, refused or quarantined; a document that was taken is kept or rejected. Tables are
given as their Parquet files by name, as a stage has them before its commit and a reference afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from datalake.lake.lake import Lake, Ref, TableRef
from datalake.lake.parquet import dataset

TAKEN = ("raw", "conversations", "preferences")  # the tables of records that were read and taken


@dataclass
class Fate:
    """What became of the records of a source, or of several."""

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    quarantined: Counter[str] = field(default_factory=Counter)  # by reason
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # by the first rule that a document failed

    @property
    def records(self) -> int:
        """All that was read."""
        return self.taken + self.refused.total() + self.quarantined.total()

    @property
    def decided(self) -> int:
        """Documents with a verdict."""
        return self.kept + self.rejected.total()

    @property
    def why(self) -> str:
        """The reasons for which records weren't taken, in one line."""
        reasons = [*sorted(self.quarantined.items()), *sorted(self.refused.items())]
        return ", ".join(f"{reason} {amount}" for reason, amount in reasons)


def funnel(files: Mapping[str, Sequence[str]]) -> dict[str, Fate]:
    """What became of each source's records, as far as these tables tell; a source without a record isn't there."""
    fates: dict[str, Fate] = {}

    def of(source: str) -> Fate:
        return fates.setdefault(source, Fate())

    for table in TAKEN:
        for (source,), rows in tally(files.get(table, ()), "source").items():
            of(source).taken += rows
    for (source, reason), rows in tally(files.get("refused", ()), "source", "reason").items():
        of(source).refused[reason] += rows
    for (source, reason), rows in tally(files.get("quarantine", ()), "source", "reason").items():
        of(source).quarantined[reason] += rows
    for (source, verdict, rule), rows in tally(files.get("curation", ()), "source", "verdict", "rule").items():
        if verdict == "kept":
            of(source).kept += rows
        else:
            of(source).rejected[rule] += rows
    return dict(sorted(fates.items()))


def funnel_of(lake: Lake, refs: Mapping[str, Ref]) -> dict[str, Fate]:
    """The funnel of a run by its references. Raises LostDataError where a table's files are gone."""
    tables = (*TAKEN, "refused", "quarantine", "curation")
    return funnel({name: lake.files(ref) for name in tables if isinstance(ref := refs.get(name), TableRef)})


def whole(fates: Iterable[Fate]) -> Fate:
    """All of them together."""
    total = Fate()
    for fate in fates:
        total.taken += fate.taken
        total.refused += fate.refused
        total.quarantined += fate.quarantined
        total.kept += fate.kept
        total.rejected += fate.rejected
    return total


def by_source(fates: Mapping[str, Fate], archives: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows to show of what was read, in the order of the sources; `archives`: how many each of them has."""
    rows = []
    for source, amount in archives.items():
        fate = fates.get(source, Fate())
        row = {"source": source, "archives": amount, "records": fate.records, "raw": fate.taken}
        row |= {"refused": fate.refused.total(), "quarantined": fate.quarantined.total(), "why": fate.why}
        rows.append(row)
    return rows


def tally(files: Sequence[str], *columns: str) -> Counter[tuple[Any, ...]]:
    """How many rows of a table have each combination of values of some columns."""
    counts: Counter[tuple[Any, ...]] = Counter()
    if files:
        for batch in dataset(files).scanner(columns=list(columns)).to_batches():
            groups = pa.Table.from_batches([batch]).group_by(list(columns)).aggregate([([], "count_all")])
            for *values, rows in zip(*(groups[name].to_pylist() for name in (*columns, "count_all")), strict=True):
                counts[tuple(values)] += rows
    return counts
