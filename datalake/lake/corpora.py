"""A corpus as a lake shows it: the tables of its last finished run, and of earlier ones what that run didn't go on to.

A run that ended early (`--until ingest`) leaves no later tables. Each is then taken from the last run that has it, and
whoever shows it says so. What belongs together is joined alone: `ledger` and `clean` take an earlier run's table only
where the stage that wrote it read the very data that is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from datalake.lake.lake import Lake, Ref, TableRef
from datalake.lake.records import Manifest, find_manifest, manifests, read_record


@dataclass(frozen=True)
class Corpus:
    """One corpus: the run that it is shown by, its tables by short name, and those that an earlier run left."""

    manifest: Manifest
    tables: dict[str, TableRef]
    earlier: dict[str, Manifest] = field(default_factory=dict)
    continued: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The corpus' name, which is the tables' namespace."""
        return self.manifest.corpus

    def joined(self, base: str) -> dict[str, TableRef]:
        """The tables that were made from one another, `base` among them; none where there is no such table."""
        if base not in self.tables:
            return {}
        if base in self.continued:
            return {name: ref for name, ref in self.tables.items() if name in self.continued}
        run = self.earlier[base].run
        return {
            name: ref for name, ref in self.tables.items() if name in self.earlier and self.earlier[name].run == run
        }

    def notes(self, names: Iterable[str]) -> list[str]:
        """For those of these tables that an earlier run left, a line for each run that says so."""
        by_run: dict[str, list[str]] = {}
        for name in sorted(set(names) & self.earlier.keys()):
            by_run.setdefault(self.earlier[name].run, []).append(f"{self.name}.{name}")
        return [
            f"{', '.join(found)}: as run {run} left {'it' if len(found) == 1 else 'them'};"
            f" the last run, {self.manifest.run}, ended after {self.manifest.until}"
            for run, found in by_run.items()
        ]


def later_refs(manifest: Manifest, stage: str | None) -> dict[str, Ref]:
    """What the stages after `stage` left in a run."""
    names = [report.stage for report in manifest.stages]
    later = manifest.stages[names.index(stage) + 1 :] if stage in names else []
    return {name: ref for report in later for name, ref in report.outputs.items()}


def corpora(lake: Lake, run: str | None = None) -> list[Corpus]:
    """Every corpus of a lake by its last finished run, or the one corpus of `run` as that run alone left it.

    Raises:
        UserError: when there is no such run.
    """
    if run:
        return [corpus_of(lake, find_manifest(lake, run))]
    found: dict[str, list[Manifest]] = {}
    for manifest in manifests(lake):
        found.setdefault(manifest.corpus, []).append(manifest)
    return [corpus_of(lake, last, before) for *before, last in found.values()]


def corpus_of(lake: Lake, manifest: Manifest, before: Sequence[Manifest] = ()) -> Corpus:
    """A run's tables; where it ended early, those of later stages by the latest run `before` it (oldest first)."""
    tables = {name: ref for name, ref in manifest.refs.items() if isinstance(ref, TableRef)}
    earlier: dict[str, Manifest] = {}
    for run in reversed(before) if manifest.until else ():
        for name, ref in later_refs(run, manifest.until).items():
            if isinstance(ref, TableRef) and name not in tables:
                tables[name], earlier[name] = ref, run
    continued = set(tables) - set(earlier)
    for name in earlier:  # in the order of stages: what a table was made from comes before it
        record = read_record(lake, tables[name].fingerprint)
        read = [ref for refs in record.inputs.values() for ref in refs] if record else []
        sources = [(ref.table.split(".")[-1], ref.data_version) for ref in read if isinstance(ref, TableRef)]
        if sources and all(
            source in continued and tables[source].data_version == version for source, version in sources
        ):
            continued.add(name)
    return Corpus(manifest, tables, earlier, frozenset(continued))
