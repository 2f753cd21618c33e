"""What the stages that map over shards share: the shards of a table, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datalake.errors import LostDataError
from datalake.lake.lake import TableRef
from datalake.lake.shards import ShardFile, ShardResult, find_shard
from tasks.cluster import Shard
from tasks.runtime import Runtime


def gather(results: Iterable[ShardResult]) -> tuple[list[ShardResult], dict[str, str]]:
    """Finished results in the order of their names, and why the others failed."""
    done, failed = [], {}
    for result in results:
        if result.state == "failed":
            failed[result.name] = result.error
        else:
            done.append(result)
    return sorted(done, key=lambda result: (result.name, result.key)), failed


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
    for path in runtime.lake.files(ref):
        made = find_shard(Path(path).parent)
        if made is None:
            raise LostDataError(path, "its shard is incomplete")
        digest = next(file.digest for file in made.files if file.path == path)
        key = runtime.shard_key(config, digest)
        assert runtime.stage is not None
        shards.append(Shard(made.name, key, path, runtime.lake.shard_folder(runtime.stage.name, key)))
    return sorted(shards, key=lambda shard: (shard.name, shard.key))
