"""A decision over ranges: its steps, each a map over shards, ranges of a hash or batches, one after the other.

What is decided stands in `datalake.dedup.ranges`; here are the order of the steps, how wide each is, and what is still
there when a run is repeated. An item that is finished is found by its folder, a step by its mark; so what a step read
is removed as soon as nothing else reads it, and a run that was killed goes on with the items that it lacks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from datalake.atomic import write_atomically
from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges import decisions, firsts, groups, near, places, repeats
from datalake.dedup.ranges.shuffle import Plan, Task
from datalake.dedup.schema import DUPLICATES, PAIRS
from datalake.dedup.spans.decide import MarkedShard, SpanTables
from datalake.dedup.spans.schema import SPANS
from datalake.dedup.texts.signed import check_signing
from datalake.lake.shards import ShardFile, ShardResult, ShardWriter
from datalake.places import is_local, make_folder, remove_folder
from tasks.cluster import Shard, map_shards
from tasks.runtime import Runtime, RuntimeConfig
from tasks.shown.artifacts import progress

T = TypeVar("T")

PROCESS = 400 << 20  # bytes of the interpreter and what it has imported and compiled
IN_ONE = 267  # bytes a document where one process decides, measured (docs/scale.md)
IN_RANGE = 500  # and in a range, at the step that takes most
FEW = 100_000  # documents that one process takes whatever the budget
MOST = 2**31 - 1  # documents that one process can number


def ranges_of(documents: int, config: RuntimeConfig, one_process: bool = False) -> int:
    """Over how many ranges so many documents are decided; 1: in one process, where that is possible and they fit.

    `one_process`: what is asked for can't be done otherwise.
    """
    if one_process or config.ranges is not None:
        return 1 if one_process else config.ranges or 1
    memory = int(config.memory_gb * (1 << 30))
    if documents <= FEW or (PROCESS + IN_ONE * documents <= memory and documents <= MOST):
        return 1
    return max(config.workers, -(-IN_RANGE * documents // item_memory(config)), 2)


def item_memory(config: RuntimeConfig) -> int:
    """Bytes that one item may take beside what its process holds."""
    share = int(config.memory_gb * (1 << 30) / config.workers)
    return max(share - PROCESS, share // 4)


def sheaves_of(shards: Sequence[T], rows: Sequence[int], ranges: int) -> tuple[tuple[T, ...], ...]:
    """Runs of shards, about as many as there are ranges, of about as many documents each; `rows` are the shards'."""
    size = max(1, -(-sum(rows) // ranges))
    sheaves: list[list[T]] = [[]]
    filled = 0
    for shard, more in zip(shards, rows, strict=True):
        if filled >= size:
            sheaves.append([])
            filled = 0
        sheaves[-1].append(shard)
        filled += more
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


def _remove(scratch: Path) -> None:
    """Remove what lies between steps, and the stage's folder where nothing else is in it."""
    with suppress(FileNotFoundError):
        remove_folder(scratch)
    if is_local(scratch):
        with suppress(OSError):
            scratch.parent.rmdir()


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
    sheaves = sheaves_of([file.path for file in files], [file.rows for file in files], ranges)
    parts = len(outputs)
    root = scratch / f"{key[:16]}-{ranges}-{memory}"  # items of another plan are none of this one
    plan = Plan(root, sheaves, documents, ranges, memory, parts, tuple(curation))
    make_folder(root)
    steps = Steps(plan, runtime, "deduplicate")
    counts = _texts(steps, config)

    work = partial(_tables, plan, steps.widths | {"tables": parts}, config.url, _report(documents, counts, config.url))
    shards = [Shard(f"decide {k}", key, k, folder) for k, (folder, key) in enumerate(outputs)]
    with progress("deduplicate: tables", parts) as tell:
        done = list(map_shards(work, shards, runtime, tell))
    for result in done:
        if result.state == "failed":
            raise RuntimeError(f"deduplicate, {result.name}: {result.error}")
    _remove(scratch)
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


def cut_over_ranges(
    marked: Sequence[MarkedShard],
    rows: Sequence[int],
    duplicates: Sequence[str],
    config: DedupConfig,
    ranges: int,
    folder: Path,
    key: str,
    scratch: Path,
    runtime: Runtime,
) -> ShardResult:
    """What is cut from the documents that stay, as `datalake.dedup.spans.decide` decides; `rows`: of each shard.

    `scratch`: a folder of this decision's own, which is there as long as it isn't finished.
    """
    memory = item_memory(runtime.config)
    sheaves = sheaves_of(marked, rows, ranges)
    root = scratch / f"{key[:16]}-{ranges}-{memory}"
    files = tuple(tuple(str(shard.members) for shard in sheaf) for sheaf in sheaves)
    make_folder(root)
    steps = Steps(Plan(root, files, sum(rows), ranges, memory), runtime, "deduplicate")
    counts = _spans(steps, config, sheaves, duplicates)
    runs = counts.get("candidates", {})
    report = {f"substring_{name}": runs[name] for name in ("candidates", "crowded") if runs}
    found = [step for step in ("lines", "cuts") if step in counts]
    total = sum(counts[step]["spans"] for step in found)
    work = partial(_span_table, steps.plan, steps.widths | {"spans": 1}, config, found, total, report)
    with progress("deduplicate: spans", 1) as tell:
        (done,) = map_shards(work, [Shard("spans", key, 0, folder)], runtime, tell)
    if done.state == "failed":
        raise RuntimeError(f"deduplicate, spans: {done.error}")
    _remove(scratch)
    return done


def _spans(
    steps: Steps, config: DedupConfig, sheaves: Sequence[Sequence[MarkedShard]], duplicates: Sequence[str]
) -> dict[str, dict[str, int]]:
    """All steps before the table of spans; gives the counts of each."""
    plan, ordered = steps.plan, repeats.ordered_by(config)
    width, ranges = len(plan.sheaves), plan.ranges
    counts: dict[str, dict[str, int]] = {}

    def each(step: str, items: int, work: Callable[..., None], **given: Any) -> None:
        counts[step] = steps.map(step, items, partial(work, **given))

    each("decided", len(duplicates), repeats.decided, duplicates=duplicates)
    each("asked", width, repeats.asked)
    each("stays", ranges, repeats.stays)
    each("sample", width, repeats.sample, config=ordered)
    each("splitters", 1, places.splitters, config=ordered)
    each("order", width, repeats.order, config=ordered)
    each("places", ranges, repeats.places_of_kept, config=ordered)
    steps.drop("order")
    if config.lines is not None:
        each("units", width, repeats.marks, sheaves=sheaves, lines=True)
        each("lines", ranges, repeats.lines, config=config)
        steps.drop("units")
    if config.substrings is not None:
        each("prints", width, repeats.marks, sheaves=sheaves, lines=False)
        each("candidates", ranges, repeats.candidates, config=config)
        steps.drop("prints")
        joined, links = steps.hang_together("candidates")
        found = counts["candidates"]
        mean = counts["places"]["words"] // max(counts["places"]["documents"], 1)
        taken = (2 * links["linked"] + found["alone"]) * (8 * mean + 200) + 100 * found["candidates"]
        batches = max(1, -(-taken // (plan.memory // 3)))
        each("members", ranges, repeats.members, after=joined, batches=batches)
        each("words", width, repeats.words, sheaves=sheaves, batches=batches)
        each("runs", batches, repeats.runs, config=config)
        steps.drop("words")
        each("cuts", width, repeats.cuts, sheaves=sheaves)
    return counts


def _span_table(
    plan: Plan,
    widths: dict[str, int],
    config: DedupConfig,
    found: Sequence[str],
    total: int,
    report: dict[str, int],
    shard: Shard,
) -> ShardResult:
    task, written = Task(plan, "spans", 0, widths), SpanTables(config)
    assert shard.folder is not None
    with ShardWriter(shard.folder, "spans", shard.key, {"spans": SPANS}) as out:
        for table in repeats.spans_by_id(task, found, total, written):
            out.write("spans", table)
        for name, amount in (report | written.report).items():
            out.count(name, amount)
    return out.result
