"""What the stages that map over shards share: the shards of a table, done on the cluster, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datalake.errors import LostDataError
from datalake.lake.lake import TableRef
from datalake.lake.shards import ShardFile, ShardResult, find_shard
from datalake.places import place, several
from tasks.cluster import Shard, map_shards
from tasks.runtime import Runtime
from tasks.shown import events
from tasks.shown.artifacts import progress

Tell = Callable[[ShardResult], None]


@dataclass(frozen=True)
class Mapped:
    """Shards that were worked on: what came of those that are finished, by name, and why the others failed."""

    shards: Sequence[Shard]
    results: list[ShardResult]
    failed: dict[str, str]

    @cached_property
    def counts(self) -> dict[str, int]:
        """The shards' counts, added up."""
        return total(self.results)

    @property
    def keys(self) -> list[str]:
        """The keys of finished shards: the identity of what is made from all of them."""
        return [result.key for result in self.results]

    def files(self, table: str) -> list[ShardFile]:
        """The files of one table among the shards' files."""
        return files_of(self.results, table)

    def paths(self, table: str) -> list[str]:
        """Where those of them are that have rows."""
        return [file.path for file in self.files(table) if file.rows]

    def rows(self, table: str) -> int:
        """The rows of one table."""
        return sum(file.rows for file in self.files(table))

    def inputs(self) -> dict[str, ShardResult]:
        """Finished shards by the file of the table that each of them was made from."""
        made = {result.key: result for result in self.results}
        return {str(shard.payload): made[shard.key] for shard in self.shards if shard.key in made}


def map_all(
    work: Callable[[Shard], ShardResult],
    shards: Sequence[Shard],
    runtime: Runtime,
    tell: Tell | str,
    on_gpus: bool = False,
) -> Mapped:
    """Work on shards; `tell` hears of each that is finished, or is the title of a progress bar of its own."""
    if isinstance(tell, str):
        with progress(tell, len(shards)) as shown:
            return map_all(work, shards, runtime, shown, on_gpus)
    done, failed = [], {}
    for result in map_shards(work, shards, runtime, tell, on_gpus):
        tell_shard(result)
        if result.state == "failed":
            failed[result.name] = result.error
        else:
            done.append(result)
    return Mapped(shards, sorted(done, key=lambda result: (result.name, result.key)), failed)


def tell_shard(result: ShardResult) -> None:
    """Tell that a shard has come to its end."""
    level = "warning" if result.state == "failed" else "info"
    fields = {"shard": result.name, "shard_id": result.key, "state": result.state, "seconds": round(result.seconds, 3)}
    events.tell("shard", level, **fields, counts=result.counts, **({"error": result.error} if result.error else {}))


def map_table(
    work: Callable[[Shard], ShardResult],
    table: TableRef,
    config: Any,
    runtime: Runtime,
    tell: Tell | str,
    on_gpus: bool = False,
    only: Container[str] | None = None,
) -> Mapped:
    """Work on each file of a table, or on some of them, each known by its content and by `config`."""
    shards = [shard for shard in shards_of(table, runtime, config) if only is None or shard.payload in only]
    return map_all(work, shards, runtime, tell, on_gpus)


def total(results: Iterable[ShardResult]) -> dict[str, int]:
    """The shards' counts, added up."""
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    return dict(sorted(counts.items()))


def files_of(results: Iterable[ShardResult], table: str) -> list[ShardFile]:
    """The files of one table among the shards' files."""
    return [file for result in results for file in result.files if file.table == table]


def shards_of(ref: TableRef, runtime: Runtime, config: Any) -> list[Shard]:
    """A shard for each file of a table: its input version is the file's content, its name the one it was made under."""
    shards = []
    files = runtime.lake.files(ref)
    found = several(lambda path: find_shard(place(path).parent), files, runtime.lake.root)
    for path, made in zip(files, found, strict=True):
        if made is None:
            raise LostDataError(path, "its shard is incomplete")
        digest = next(file.digest for file in made.files if file.path == path)
        key = runtime.shard_key(config, digest)
        assert runtime.stage is not None
        shards.append(Shard(made.name, key, path, runtime.lake.shard_folder(runtime.stage.name, key)))
    return sorted(shards, key=lambda shard: (shard.name, shard.key))
