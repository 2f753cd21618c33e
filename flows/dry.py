"""A dry run: what of a recipe is done already, what would run, and what is skipped. Nothing is done or written.

It is the same pipeline, called by a run that only looks: a stage's fingerprint says whether its output is in the lake.
Of a stage that would run the outputs aren't known yet, so those that take them would run as well, or be found done
where it gives what it gave before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from datalake.archive import Archive
from datalake.identity import fingerprint
from datalake.lake.lake import Lake
from datalake.lake.records import StageReport
from datalake.lake.shards import find_shard
from datalake.places import home
from datalake.sources import Source
from datalake.sources.listing import list_archives
from flows.recipe import Recipe
from flows.run import Run
from flows.stages import StageName
from tasks.outputs import StandIn
from tasks.runtime import Runtime
from tasks.stage import C, O, Stage


@dataclass(frozen=True)
class Unknown(StandIn):
    """In place of a reference that a stage would give."""

    stage: str


def _each(value: Any) -> tuple[Any, ...]:
    """An input, or the several that are read as one."""
    return value if isinstance(value, tuple) else (value,)


class DryRun(Run):
    """A run that looks. `reports` says of each stage `cached`, `would run` or `skipped`."""

    def __init__(self, recipe: Recipe, lake: Lake, until: StageName | None = None):
        super().__init__(recipe, lake, until)
        self.reports: list[StageReport] = []

    def archives(self, sources: Sequence[Source]) -> list[Archive]:
        """Every archive with the version of its content, which isn't remembered.

        What is learnt of remote ones is kept in the cache where there is one already.
        """
        remote = self.recipe.runtime.remote
        with TemporaryDirectory(prefix="headwater-") as nowhere:
            if not remote.cache and not (home(self.lake.root) / "cache").is_dir():
                remote = remote.model_copy(update={"cache": nowhere})
            return list_archives(sources, self.lake, remote, remember=False)

    def do(self, stage: Stage[C, Any, O], config: C, inputs: Mapping[str, Any]) -> O:
        """Look whether a stage is done."""
        unknown = next(
            (one.stage for value in inputs.values() for one in _each(value) if isinstance(one, Unknown)), None
        )
        if unknown is not None:
            self._would_run(stage.name, f"what {unknown} gives isn't known yet")
            return stage.typed(config, lambda name: Unknown(stage.name))
        key = fingerprint(stage.payload(config, inputs))
        record = stage.built(self.lake, key)
        if record is None:
            self._would_run(stage.name, self._done(stage, config, inputs, key), key)
            return stage.typed(config, lambda name: Unknown(stage.name))
        self.report(record.reported("cached", 0.0))
        return stage.typed(config, record.outputs.__getitem__)

    def report(self, report: StageReport) -> None:
        """Note what is to be said of a stage."""
        self.reports.append(report)

    def _would_run(self, stage: str, note: str, key: str | None = None) -> None:
        self.report(StageReport(stage=stage, state="would run", seconds=0.0, fingerprint=key, note=note))

    def _done(self, stage: Stage[C, Any, O], config: C, inputs: Mapping[str, Any], key: str) -> str:
        """How many of a stage's shards are done, where it says which it has."""
        if stage.shards is None:
            return ""
        runtime = Runtime(self.recipe.runtime, self.lake.root, self.recipe.corpus, "", stage.key, key)
        shards = stage.shards(config, runtime, **inputs)
        done = sum(shard.folder is not None and find_shard(shard.folder) is not None for shard in shards)
        return f"{done:,} of {len(shards):,} shards are done"
