"""The stage `thresholds`: thresholds from the corpus itself, as a rule set that curation can take."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from datalake.atomic import write_atomically
from datalake.curate.thresholds import ThresholdsConfig
from datalake.lake.copies import workplace
from datalake.lake.lake import TableRef
from datalake.places import room_beside
from tasks.cluster import run_alone
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage

RULES = "rules.yaml"


def _propose(
    files: list[str], config: ThresholdsConfig, threads: int, memory_gb: float, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, dict[str, int]]]:
    """Write `rules.yaml`; the rows to show, and the languages pooled by rule set."""
    from datalake.curate.propose import propose, rules_yaml, table

    with workplace(folder) as here:
        with TemporaryDirectory(prefix=".spill-", dir=room_beside(here)) as spill:
            proposals = propose(files, config, threads, memory_gb, Path(spill))
        write_atomically(here / RULES, rules_yaml(proposals, config).encode())
    return list(table(proposals)), proposals.pooled


class Proposed(NamedTuple):
    """A file of rules that the next curation can take."""

    thresholds: Folder


@stage(Proposed, version="1", libraries=("duckdb", "pyyaml"))
def thresholds(config: ThresholdsConfig, runtime: Runtime, curation: TableRef) -> Produced:
    """Propose thresholds for the rules in use from the distributions of their metrics, language by language."""
    folder, width = runtime.folder, runtime.config
    files = runtime.lake.files(curation)
    rows, pooled = run_alone(_propose, files, config, width.workers, width.memory_gb, folder, runtime=runtime)
    methods = Counter(row["method"] for row in rows)
    proposed = sum(n for method, n in methods.items() if method != "published")
    return Produced(
        folders={"thresholds": folder},
        counts={"proposed": proposed, "published kept": methods["published"]},
        records_in=curation.rows,
        records_out=proposed,
        funnel=rows,
        report={"thresholds": rows, "pooled": pooled, "rules": runtime.lake.relative(folder / RULES)},
    )
