"""A decision over ranges: its steps, each a map over shards, ranges of a hash or batches, one after the other.

What is decided stands in `datalake.dedup.ranges`; here are the order of the steps, how wide each is, and what is still
there when a run is repeated. An item that is finished is found by its folder, a step by its mark; so what a step read is
removed as soon as nothing else reads it, and a run that was killed goes on with the items that it lacks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from datalake.atomic import write_atomically
from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges import decisions, firsts, groups, near, places
from datalake.dedup.ranges.shuffle import Plan, Task
from datalake.dedup.schema import DUPLICATES, PAIRS
from datalake.dedup.texts.signed import check_signing
from datalake.lake.shards import ShardFile, ShardResult, ShardWriter
from tasks.cluster import Shard, map_shards
from tasks.runtime import Runtime, RuntimeConfig
from tasks.shown.artifacts import progress

PROCESS = 400 << 20  # bytes of the interpreter and what it has imported and compiled
IN_ONE = 267  # bytes a document where one process decides, measured (docs/scale.md)
IN_RANGE = 500  # and in a range, at the step that takes most
FEW = 100_000  # documents that one process takes whatever the budget
MOST = 2**31 - 1  # documents that one process can number


def ranges_of(documents: int, config: RuntimeConfig, one_process: bool) -> int:
    """Over how many ranges so many documents are decided; 1: in one process, where that is possible and they fit.

    `one_process`: what is asked for can't be done otherwise.
    """
    if one_process or config.ranges is not None:
        return 1 if one_process else config.ranges or 1
    memory = int(config.memory_gb * (1 << 30))
    if documents <= FEW or PROCESS + IN_ONE * documents <= memory and documents <= MOST:
        return 1
    return max(config.workers, -(-IN_RANGE * documents // item_memory(config)), 2)


def item_memory(config: RuntimeConfig) -> int:
    """Bytes that one item may take beside what its process holds."""
    share = int(config.memory_gb * (1 << 30) / config.workers)
    return max(share - PROCESS, share // 4)


def sheaves_of(files: Sequence[ShardFile], ranges: int) -> tuple[tuple[str, ...], ...]:
    """Runs of shards, about as many as there are ranges, of about as many documents each."""
    size = max(1, -(-sum(file.rows for file in files) // ranges))
    sheaves: list[list[str]] = [[]]
    filled = 0
    for file in files:
        if filled >= size:
            sheaves.append([])
            filled = 0
        sheaves[-1].append(file.path)
        filled += file.rows
    return tuple(tuple(sheaf) for sheaf in sheaves)


def _work(plan: Plan, widths: dict[str, int], step: str, work: Callable[[Task], None], shard: Shard) -> ShardResult:
    with Task(plan, step, shard.payload, widths) as task:
        work(task)
        return task.finish(shard.name, shard.key)


@dataclass
class Steps:
    """Steps that were done, and how many items each had."""

    plan: Plan
    runtime: Runtime
    title: str
    widths: dict[str, int] = field(default_factory=dict)

    def map(self, step: str, items: int, work: Callable[[Task], None]) -> dict[str, int]:
        """Work on all items of a step, unless that was done before. Gives their counts added up.

        Of the counts that begin with `largest` those of the item with the largest, of two the earlier place.

        Raises:
            RuntimeError: where an item failed; those that didn't are found by the next run.
        """
        self.widths[step] = items
        mark = self.plan.root / step / "done.json"
        if mark.exists():
            return dict(json.loads(mark.read_bytes()))
        shards = (Shard(f"{step} {k}", f"{step}-{k}", k, self.plan.folder(step, k)) for k in range(items))
        run = partial(_work, self.plan, self.widths, step, work)
        counts: dict[str, int] = {}
        with progress(f"{self.title}: {step}", items) as tell:
            for result in map_shards(run, shards, self.runtime, tell):
                if result.state == "failed":
                    raise RuntimeError(f"{self.title}, {result.name}: {result.error}")
                _add(counts, result.counts)
        write_atomically(mark, json.dumps(counts).encode())
        return counts

    def drop(self, step: str, *tables: str) -> None:
        """Remove what nothing reads any more: these tables of a step, or all."""
        for folder in (self.plan.folder(step, k) for k in range(self.widths[step])):
            for path in folder.glob("*.arrow") if not tables else (folder / f"{table}.arrow" for table in tables):
                path.unlink(missing_ok=True)

    def hang_together(self, step: str) -> tuple[str, dict[str, int]]:
        """Rounds of joining and spreading the edges of a step; gives the last join, with its counts."""
        ranges = self.plan.ranges
        for turn in count(1):
            joined, spread = f"join-{turn}", f"spread-{turn}"
            counts = self.map(joined, ranges, partial(groups.join, after=step))
            self.drop(step, "links")
            changed = counts["changed"] + self.map(spread, ranges, partial(groups.spread, after=joined))["changed"]
            if not changed:
                break
            self.drop(joined)
            step = spread
        return joined, counts


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    largest = {name: value for name, value in more.items() if name.startswith("largest")}
    for name, value in more.items():
        if name not in largest:
            counts[name] = counts.get(name, 0) + value

    def rank(of: dict[str, int]) -> tuple[int, int]:
        return of.get("largest", 0), -of.get("largest_place", 0)

    if largest and rank(largest) > rank(counts):
        counts |= largest


def decide_over_ranges(
    files: Sequence[ShardFile],
    curation: Sequence[str],
    config: DedupConfig,
    ranges: int,
    outputs: Sequence[tuple[Path, str]],
    scratch: Path,
    runtime: Runtime,
) -> list[ShardResult]:
    """Pairs and duplicates over all signatures, as `datalake.dedup.decide` decides, in parts: a folder and key each.

    `scratch`: a folder of this decision's own, which is there as long as it isn't finished.
    """
    for file in files:
        check_signing(file.path, config.signing)
    documents, key = sum(file.rows for file in files), outputs[0][1]
    memory = item_memory(runtime.config)
    sheaves, parts = sheaves_of(files, ranges), len(outputs)
    root = scratch / f"{key[:16]}-{ranges}-{memory}"  # items of another plan are none of this one
    plan = Plan(root, sheaves, documents, ranges, memory, parts, tuple(curation))
    root.mkdir(parents=True, exist_ok=True)
    steps = Steps(plan, runtime, "deduplicate")
    counts = _texts(steps, config)

    work = partial(_tables, plan, steps.widths | {"tables": parts}, config.url, _report(documents, counts, config.url))
    shards = [Shard(f"decide {k}", key, k, folder) for k, (folder, key) in enumerate(outputs)]
    with progress("deduplicate: tables", parts) as tell:
        done = list(map_shards(work, shards, runtime, tell))
    for result in done:
        if result.state == "failed":
            raise RuntimeError(f"deduplicate, {result.name}: {result.error}")
    shutil.rmtree(scratch, ignore_errors=True)
    order = {key: k for k, (_, key) in enumerate(outputs)}
    return sorted(done, key=lambda result: order[result.key])


def _texts(steps: Steps, config: DedupConfig) -> dict[str, dict[str, int]]:
    """All steps before the tables; gives the counts of each."""
    plan, url = steps.plan, config.url
    sheaves, ranges = len(plan.sheaves), plan.ranges
    counts: dict[str, dict[str, int]] = {}

    def each(step: str, items: int, work: Callable[..., None], **given: Any) -> None:
        counts[step] = steps.map(step, items, partial(work, **given))

    each("sample", sheaves, places.sample, config=config)
    each("splitters", 1, places.splitters, config=config)
    each("order", sheaves, places.order, config=config)
    each("places", ranges, places.places, config=config)
    steps.drop("order")
    if url:
        each("addresses", ranges, firsts.addresses)
    each("keys", ranges, firsts.keys, url=url)
    each("firsts", ranges, firsts.firsts)
    steps.drop("keys", "texts", "sets")
    each("kinds", ranges, firsts.kinds)
    steps.drop("firsts", "texts", "sets")
    each("buckets", sheaves, near.buckets, config=config)
    each("edges", ranges, near.edges, config=config)
    steps.drop("buckets")
    joined, links = steps.hang_together("edges")
    batches = _batches(links["linked"], counts["kinds"], config, plan.memory)
    each("members", ranges, near.members, after=joined, batches=batches)
    steps.drop(joined)
    each("shingles", sheaves, near.shingles, config=config, batches=batches)
    each("compare", batches, near.compare, config=config)
    steps.drop("shingles")
    each("settle", ranges, decisions.settle, url=url)
    if url:
        each("versions", ranges, decisions.versions)
    return counts


def _batches(linked: int, nodes: dict[str, int], config: DedupConfig, memory: int) -> int:
    """Into how many batches the nodes that aren't alone go, so that one is about a third of the memory.

    `linked`: those that are no first of a group, so at least half of them.
    """
    mean = nodes["shingles"] // max(nodes["nodes"], 1)
    return max(1, -(-2 * linked * (8 * mean + 24 * config.signing.bands + 200) // (memory // 3)))


def _report(documents: int, counts: dict[str, dict[str, int]], url: bool) -> dict[str, int]:
    """What `datalake.dedup.decide.Decision.report` says."""
    settled, compared = counts["settle"], counts["compare"]
    largest: dict[str, int] = {}
    for some in (counts["members"], compared):
        _add(largest, {name: value for name, value in some.items() if name.startswith(("largest", "groups"))})
    several = largest.get("largest", 0) > 1
    return {
        "documents": documents,
        "kept": settled["kept"],
        **({"url": counts["keys"]["url"]} if url else {}),
        "exact": settled["exact"],
        "near": settled["near"],
        "pairs": sum(counts[step].get("pairs", 0) for step in ("firsts", "compare", "settle")),
        **{name: compared.get(name, 0) for name in ("candidates", "large_buckets", "crowded")},
        "groups": largest.get("groups", 0),
        "largest_group": largest["largest"] if several else 0,
        "largest_group_kept": largest["largest_kept"] if several else 0,
    }


def _tables(plan: Plan, widths: dict[str, int], url: bool, report: dict[str, int], shard: Shard) -> ShardResult:
    """One part of the tables; the first has the report."""
    task = Task(plan, "tables", shard.payload, widths)
    assert shard.folder is not None
    with ShardWriter(shard.folder, "decide", shard.key, {"pairs": PAIRS, "duplicates": DUPLICATES}) as out:
        for rows in decisions.pairs_by_id(task):
            out.write("pairs", rows)
        for rows in decisions.duplicates_by_id(task, url):
            out.write("duplicates", rows)
        for name, amount in report.items() if not shard.payload else ():
            out.count(name, amount)
    return out.result
