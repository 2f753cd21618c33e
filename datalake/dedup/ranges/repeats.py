"""Repeated lines and runs of words by ranges: as `datalake.dedup.spans.decide` decides, with no list of all documents.

    decided (a file of decisions)  which documents stay, by ranges of ids
    asked, stays                   (a sheaf, a range of ids): the rows of each sheaf that stay
    sample ... places              their order of precedence (`places`), told to the sheaves
    units, lines                   (a sheaf, a range of hashes): lines that several documents hold
    prints, candidates             (a sheaf, a range of hashes): fingerprints that come again, and who shares them
    members, words, runs, cuts     (a range of places, a sheaf, a batch, a sheaf): of documents that hang together by
                                   shared fingerprints a batch has the words, so its runs are matched as in one process
    spans (alone)                  the table, in the order of ids, and what it counts

What is cut from a document follows from documents that share a fingerprint with it, even through others: a batch holds
whole groups. All occurrences of one line, or of one fingerprint, are in one range and in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges import places
from datalake.dedup.ranges.groups import WIDTH as EDGE
from datalake.dedup.ranges.groups import Forest, linked
from datalake.dedup.ranges.near import SCATTER
from datalake.dedup.ranges.shuffle import INDEX, INDEX_BITS, Ints, Task
from datalake.dedup.runs import Runs, even_blocks
from datalake.dedup.spans.decide import (
    AT_ONCE,
    SUBSTRING,
    WHOLE,
    MarkedShard,
    SpanTables,
    candidates_of,
    cut_runs,
    places_in,
    repeated,
    text_batches,
)
from datalake.dedup.spans.marks import words_of
from datalake.dedup.tables import range_of
from datalake.dedup.texts.signed import batches_of, count, halves, same
from datalake.dedup.texts.sorting import sort_halves
from datalake.dedup.texts.spill import Spill
from datalake.places import room_beside

Sheaves: TypeAlias = Sequence[Sequence[MarkedShard]]

_DOCUMENT = 5  # id, characters, words, origin
_SPAN = 9  # id, start, end, level, whether a first one stays, copies, its id
_BATCH = 1 << 16


def ordered_by(config: DedupConfig) -> DedupConfig:
    """The order of precedence of parts: quality is a document's, so which copy of a line stays goes by the rest."""
    return config.model_copy(update={"precedence": tuple(c for c in config.precedence if c != "quality"), "url": False})


def decided(task: Task, duplicates: Sequence[str]) -> None:
    """Of the documents of one file of decisions: which stay."""
    out = task.table("ids", 3, task.plan.ranges)
    for batch in batches_of([duplicates[task.item]], ["id", "duplicate_of"], _BATCH):
        ids = halves(batch.column("id"))
        stays = batch.column("duplicate_of").is_null().to_numpy(zero_copy_only=False)
        out.add(range_of(ids[:, 0], task.plan.ranges), ids, stays.astype(np.int64))


def asked(task: Task) -> None:
    """The documents of a sheaf."""
    out, at = task.table("ids", 3, task.plan.ranges), task.item << INDEX_BITS
    for batch in batches_of(task.plan.sheaves[task.item], ["id"], _BATCH):
        ids = halves(batch.column("id"))
        out.add(range_of(ids[:, 0], task.plan.ranges), ids, at + np.arange(len(ids)))
        at += len(ids)


def stays(task: Task) -> None:
    """Of the documents of a range of ids those that stay, told to their sheaves.

    Raises ValueError where a document has no decision.
    """
    known = task.rows("decided", "ids", 3)
    known = known[sort_halves(known[:, :2].view(np.uint64))]
    keys = places.as_text(known[:, :2].view(np.uint64))
    out = task.table("kept", 1, len(task.plan.sheaves))
    for rows in task.blocks("asked", "ids"):
        at = np.searchsorted(keys, places.as_text(rows[:, :2].copy().view(np.uint64)))
        if not len(known) or not np.all(same(known[np.minimum(at, len(known) - 1), :2], rows[:, :2])):
            raise ValueError("some documents have no decision on duplicates: run deduplicate over all of them first")
        here = rows[known[at, 2] > 0, 2]
        out.add(here >> INDEX_BITS, here & INDEX)


def _kept(task: Task, config: DedupConfig, names: list[str]) -> Iterator[tuple[pa.RecordBatch, Ints, Ints]]:
    """Batches of a sheaf: the rows that stay, their keys, and where in the sheaf they are."""
    kept = np.sort(task.rows("stays", "kept", 1)[:, 0])
    at = 0
    for batch, keys in places.keyed(task, config, names):
        begin, end = np.searchsorted(kept, (at, at + batch.num_rows))
        rows = kept[begin:end] - at
        yield batch.take(pa.array(rows)), keys[rows].view(np.int64), kept[begin:end]
        at += batch.num_rows


def sample(task: Task, config: DedupConfig) -> None:
    """Some of the keys of a sheaf's documents that stay."""
    step = max(1, task.plan.documents // (places.SAMPLE * task.plan.ranges))
    out, seen = task.table("keys", len(config.precedence) + 2, 1), 0
    for _, keys, _ in _kept(task, config, []):
        out.add(0, keys[-seen % step :: step])
        seen += len(keys)


def order(task: Task, config: DedupConfig) -> None:
    """A sheaf's documents that stay, each to its range of the order."""
    wide = len(config.precedence) + 2
    bounds = places.splitters_of(task, wide)
    out = task.table("documents", wide + _DOCUMENT - 2, task.plan.ranges)
    for batch, keys, rows in _kept(task, config, ["words"]):
        sizes = (batch.column("characters").to_numpy(), batch.column("words").to_numpy())
        sections = np.searchsorted(bounds, places.as_text(keys.view(np.uint64)), side="right")
        out.add(sections, keys, *sizes, (task.item << INDEX_BITS) + rows)


def places_of_kept(task: Task, config: DedupConfig) -> None:
    """A range's documents in order; their places to the sheaves, their sizes to the ranges of ids."""
    rows = places.in_order(task, config, _DOCUMENT)
    at, origin = (task.item << INDEX_BITS) + np.arange(len(rows)), rows[:, 4]
    task.table("ranks", 2, len(task.plan.sheaves)).add(origin >> INDEX_BITS, origin & INDEX, at)
    ids = rows[:, :2]
    task.table("sizes", 3, task.plan.sections).add(range_of(ids[:, 0], task.plan.sections), ids, rows[:, 2])
    task.counts["words"] = int(rows[:, 3].sum())


# Marks ----------------------------------------------------------------------------------------------------------


def marks(task: Task, sheaves: Sheaves, lines: bool) -> None:
    """The lines, or the fingerprints, of a sheaf's documents that stay, to the ranges of their hashes."""
    sheaf, ranges = sheaves[task.item], task.plan.ranges
    of_row = np.full(count(task.plan.sheaves[task.item]), -1, np.int64)
    for rows in task.blocks("places", "ranks"):
        of_row[rows[:, 0]] = rows[:, 1]
    ids = np.empty((len(of_row) if lines else 0, 2), np.uint64)
    at = 0
    for batch in batches_of(task.plan.sheaves[task.item], ["id"], _BATCH) if lines else ():
        ids[at : at + batch.num_rows] = halves(batch.column("id"))
        at += batch.num_rows
    names = ["hash", "document", *(["start", "end"] if lines else ["position"])]
    out, at = task.table("marks", 6 if lines else 3, ranges), 0
    for shard in sheaf:
        for batch in batches_of([shard.units if lines else shard.fingerprints], names, _BATCH):
            hashes, document, *rest = (column.to_numpy().astype(np.int64) for column in batch.columns)
            place = of_row[at + document]
            some = np.flatnonzero(place >= 0)
            beside = [ids[at + document[some]]] if lines else []
            rest = [column[some] for column in rest]
            out.add(range_of(hashes[some], ranges), hashes[some], place[some], *rest, *beside)
        at += count([shard.members])


def lines(task: Task, config: DedupConfig) -> None:
    """Lines that documents of a range of hashes hold again."""
    assert config.lines is not None
    rows = task.rows("units", "marks", 6)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    cut, first, copies = repeated(rows[:, 0], rows[:, 1], config.lines)
    stays = 0 if config.lines.keep == "first" else -1
    ids = rows[cut, 4:6]
    out = task.table("spans", _SPAN, task.plan.sections)
    sections = range_of(ids[:, 0], task.plan.sections)
    out.add(sections, ids, rows[cut, 2], rows[cut, 3], WHOLE, stays, copies[cut], rows[first[cut], 4:6])
    task.counts["spans"] = out.rows


# Runs of words --------------------------------------------------------------------------------------------------


def candidates(task: Task, config: DedupConfig) -> None:
    """Places of a range's fingerprints with earlier ones of the same, and who hangs together by them."""
    assert config.substrings is not None
    rows = task.rows("prints", "marks", 3)
    rows = np.ascontiguousarray(rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))].T)
    gram, limit = config.substrings.marking.gram, config.substrings.limit
    crowded, found = candidates_of(rows[0], rows[1], rows[2], limit, gram, max(task.plan.memory // 400, 1000))
    out = task.table("candidates", 5, task.plan.ranges)
    edges = Forest(task.table("links", EDGE, task.plan.ranges), task.plan.memory // 128)
    task.counts["alone"] = 0
    for some in found:
        out.add(some[:, 0] >> INDEX_BITS, some)
        itself = some[:, 0] == some[:, 1]
        task.counts["alone"] += int(itself.sum())
        edges.add(some[~itself, :2])
    edges.close()
    task.counts |= {"candidates": out.rows, "crowded": crowded}


def members(task: Task, after: str, batches: int) -> None:
    """Documents of a range that have candidates or are an earlier one's, and the candidates, to their batches."""
    documents, first = task.own("places", "documents", _DOCUMENT), linked(task, after)
    at = (task.item << INDEX_BITS) + np.arange(len(first))
    taken = first != at
    for rows in task.blocks(after, "children"):
        taken[rows[:, 1] & INDEX] = True
    batch = range_of(first.view(np.uint64) * SCATTER, batches)
    out = task.table("candidates", 5, batches)
    for rows in task.blocks("candidates", "candidates"):
        taken[rows[:, 0] & INDEX] = True
        out.add(batch[rows[:, 0] & INDEX], rows)
    here = np.flatnonzero(taken)
    origin = documents[here, 4]
    to = task.table("members", 6, len(task.plan.sheaves))
    facts = (at[here], batch[here], documents[here, 3], documents[here, :2])
    to.add(origin >> INDEX_BITS, origin & INDEX, *facts)


def _texts(task: Task, sheaves: Sheaves, wanted: Ints) -> Iterator[tuple[int, str]]:
    """(number among the wanted, text) of rows of a sheaf, which are given in order, each once."""
    at = 0
    for shard in sheaves[task.item]:
        for batch in text_batches(shard.documents):
            begin, end = np.searchsorted(wanted, (at, at + batch.num_rows))
            texts = batch.column("text").take(pa.array(wanted[begin:end] - at)).to_pylist()
            yield from zip(range(begin, end), (text or "" for text in texts), strict=True)
            at += batch.num_rows


def words(task: Task, sheaves: Sheaves, batches: int) -> None:
    """The words of a sheaf's documents that take part, to their batches.

    Raises ValueError where a text isn't the one that was marked.
    """
    rows = task.rows("members", "members", 6)
    rows = rows[np.argsort(rows[:, 0])]
    out, values = task.table("members", 5, batches), task.table("words", 1, batches)
    for k, text in _texts(task, sheaves, rows[:, 0]):
        hashes = words_of(text).hashes
        if len(hashes) != rows[k, 3]:
            raise ValueError("documents and marks are of different texts: mark the shard again")
        batch, one = int(rows[k, 2]), rows[k : k + 1]
        out.add(batch, one[:, 1], (task.item << INDEX_BITS) + one[:, 0], one[:, 3:6])
        values.add(batch, hashes)


def runs(task: Task, config: DedupConfig) -> None:
    """What is cut from the documents of a batch, in words, told to their sheaves."""
    assert config.substrings is not None
    plan, facts = task.plan, task.rows("words", "members", 5)
    out = task.table("pieces", 8, len(plan.sheaves))
    if not len(facts):
        return
    begins = np.cumsum(facts[:, 2]) - facts[:, 2]
    order = np.argsort(facts[:, 0])
    begins, facts = begins[order], facts[order]
    place, lengths = facts[:, 0].copy(), facts[:, 2].copy()
    with (
        TemporaryDirectory(prefix=".runs-", dir=room_beside(plan.root / "spill")) as name,
        Spill(plan.memory // 2, plan.memory // 8, name) as spill,
    ):
        values, at = spill.empty(int(lengths.sum()), np.uint64), 0
        for rows in task.blocks("words", "words"):
            values[at : at + len(rows)] = rows[:, 0].view(np.uint64)
            at += len(rows)
            spill.touched(rows.nbytes)
        found, at_once = Runs(Path(name), "candidates", 5), max(plan.memory // 400, 1000)
        for rows in task.blocks("members", "candidates"):
            found.add(np.column_stack((np.searchsorted(place, rows[:, :2]), rows[:, 2:])))
        blocks = ((low, high, found.between(low, high)) for low, high in found.blocks(len(place), at_once))
        first, last, *columns = cut_runs(blocks, values, begins, lengths, config.substrings).columns
    document = np.repeat(np.arange(len(place)), last - first)  # pieces lie one after the other, as documents do
    starts, stops, roots, copies = (column[: len(document)] for column in columns)
    origin = facts[document, 1]
    ids = facts[:, 3:5]
    out.add(origin >> INDEX_BITS, origin & INDEX, ids[document], starts, stops, copies, ids[roots])


def cuts(task: Task, sheaves: Sheaves) -> None:
    """Pieces in words of a sheaf's documents become spans in characters."""
    rows = task.rows("runs", "pieces", 8)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    wanted, bounds = np.unique(rows[:, 0], return_index=True)
    bounds = np.append(bounds, len(rows))
    out = task.table("spans", _SPAN, task.plan.sections)
    for k, text in _texts(task, sheaves, wanted):
        here = rows[bounds[k] : bounds[k + 1]]
        found = np.array([*places_in(text, words_of(text), here[:, 3].tolist(), here[:, 4].tolist())], np.int64)
        section = int(range_of(here[:1, 1].copy(), task.plan.sections)[0])
        out.add(section, here[:, 1:3], found, SUBSTRING, 0, here[:, 5], here[:, 6:8])
    task.counts["spans"] = out.rows


# The table ------------------------------------------------------------------------------------------------------


def spans_by_id(task: Task, steps: Sequence[str], total: int, written: SpanTables) -> Iterator[pa.Table]:
    """SPANS in the order of ids, parted into the tables that one process would write: `total` spans, of these steps."""
    plan = task.plan
    amount = sum(task.made("places", k)["documents"] for k in range(plan.ranges))
    bounds, done = [high for _, high in even_blocks(amount, total, AT_ONCE)], 0
    documents, rows = np.empty((0, 3), np.int64), np.empty((0, _SPAN + 1), np.int64)  # the last column: whose it is
    for section in range(plan.sections):
        more = task.rows("places", "sizes", 3, section, plan.sections)
        more = more[sort_halves(more[:, :2].view(np.uint64))]
        found = [np.empty((0, _SPAN), np.int64)]
        for step in steps:
            found.append(task.rows(step, "spans", _SPAN, section, plan.sections))
        spans = np.concatenate(found)
        whose = np.searchsorted(_keys(more), _keys(spans))
        order = np.lexsort((spans[:, 4], spans[:, 3], spans[:, 2], whose))
        rows = np.concatenate((rows, np.column_stack((spans, whose + len(documents)))[order]))
        documents = np.concatenate((documents, more))
        while bounds and bounds[0] - done <= len(documents):
            size = bounds.pop(0) - done
            end = int(np.searchsorted(rows[:, _SPAN], size))
            ids, here = documents[:size, :2].view(np.uint64), rows[:end]
            table = written.table(ids, documents[:size, 2], here[:, _SPAN], here[:, 2:7], here[:, 7:9].view(np.uint64))
            if table.num_rows:
                yield table
            done += size
            documents, rows = documents[size:], rows[end:].copy()
            rows[:, _SPAN] -= size


def _keys(rows: Ints) -> np.ndarray:
    return places.as_text(np.ascontiguousarray(rows[:, :2]).view(np.uint64))
