"""Which parts of the kept documents are cut: repeated lines or paragraphs, and repeated runs of words.

Decided among documents that are no duplicates, in the order of precedence, from the marks of any number of shards.
Nothing depends on how documents are spread over shards, nor on how many hashes are looked at at once.

**Lines and paragraphs.** Hashes of all shards are joined a range at a time. A unit that `copies` documents or more hold
is cut from all places but its first (or from all places).

**Runs of words.** Fingerprints (marks.py) are joined likewise. Each place of a fingerprint is compared with its first
`limit` places: words are compared by their 64-bit hashes, outwards from the fingerprint to the longest equal run. A run
of at least `minimum` words stands earlier, so it is cut. A word of several runs belongs to the one that stands in the
earliest document. Where that place is cut itself, what stays is further ahead: `first` is the document in which the
words stay in the end.

Each cut follows from an earlier occurrence, so the first occurrence of everything stays, unless all copies are to go.
The two levels don't see each other's cuts; that holds for both together, since both look ahead in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import category

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.compiled import kernel
from datalake.dedup.config import DedupConfig
from datalake.dedup.runs import Runs
from datalake.dedup.spans.marks import Words, words_of
from datalake.dedup.spans.order import (
    Hashes,
    Ints,
    Table,
    as_ids,
    hash_ranges,
    kept_in_order,
    read_range,
)
from datalake.dedup.spans.schema import SPANS
from datalake.dedup.spans_config import LinesConfig, SubstringsConfig
from datalake.dedup.texts.signed import count
from datalake.lake.parquet import read_batches

AT_ONCE = 1 << 21  # rows of marks, of candidates or of spans that are in memory at a time
BATCH_ROWS = 1024

_OF_ALL = ("characters_cut", "characters_kept", "documents_cut", "emptied")  # counts over all levels, by `_covered`
WHOLE, SUBSTRING = 0, 1  # levels in scratch rows: a line or paragraph; a run of words


class MarkedShard(NamedTuple):
    """One shard: its documents (with `text`), and its marks of each level asked for, as files or tables."""

    documents: Table
    members: Table
    units: Table | None = None
    fingerprints: Table | None = None


class Spans:
    """The decision. `tables()` gives the spans (schema SPANS) in parts, in order; then `report` has the counts."""

    def __init__(
        self,
        shards: Sequence[MarkedShard],
        duplicates: Sequence[Table],
        config: DedupConfig,
        scratch: Path,
        at_once: int = AT_ONCE,
    ):
        """`scratch`: an empty folder of this decision's own. `at_once`: rows in memory at a time.

        Raises ValueError where a document has no decision in `duplicates`.
        """
        self.kept = kept_in_order([shard.members for shard in shards], duplicates, config)
        self.report: dict[str, int] = {}
        self._shards, self._config, self._scratch, self._at_once = shards, config, scratch, at_once
        # Rows: number of the document, start, end, level, number of the first (-1: none), copies.
        self._runs = Runs(scratch, "spans", 6)

    def tables(self) -> Iterator[pa.Table]:
        """Decides and yields."""
        if self._config.lines is not None:
            self._lines(self._config.lines)
        if self._config.substrings is not None:
            self._substrings(self._config.substrings)
        count = len(self.kept.ids)
        by_number = np.empty(count, np.int64)
        by_number[self.kept.numbers] = np.arange(count)
        ids, characters = self.kept.ids[by_number], self.kept.characters[by_number]
        written = SpanTables(self._config)
        for low, high in self._runs.blocks(count, self._at_once):
            rows = self._runs.between(low, high)
            first = np.where(rows[:, 4:5] < 0, np.uint64(0), ids[np.maximum(rows[:, 4], 0)])
            table = written.table(ids[low:high], characters[low:high], rows[:, 0] - low, rows[:, 1:], first)
            if table.num_rows:
                yield table
        self.report |= written.report

    # Lines and paragraphs ---------------------------------------------------------------------------------------

    def _joined(self, marks: Sequence[Table]) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Marks of kept documents by ranges of hashes: (hash, rank, other columns), sorted by hash, rank and place."""
        for low, high in hash_ranges(count(marks), self._at_once):
            parts = []
            for table, ranks in zip(marks, self.kept.ranks, strict=True):
                found = read_range(table, low, high)
                hashes, documents, *rest = (column.to_numpy().astype(np.int64) for column in found.columns)
                rank = ranks[documents]
                parts.append(np.stack((hashes, rank, *rest))[:, rank >= 0])
            rows = np.concatenate(parts, axis=1)
            rows = rows[:, np.lexsort(rows[2::-1])]
            yield rows[0], rows[1], rows[2:]

    def _lines(self, config: LinesConfig) -> None:
        marks = [shard.units for shard in self._shards if shard.units is not None]
        for hashes, rank, (start, end) in self._joined(marks) if marks else ():
            cut, first, copies = repeated(hashes, rank, config)
            number = self.kept.numbers[rank]
            firsts = number[first] if config.keep == "first" else np.full(len(rank), -1)
            level = np.full(len(rank), WHOLE)
            self._runs.add(np.stack((number, start, end, level, firsts, copies), axis=1)[cut])

    # Runs of words ----------------------------------------------------------------------------------------------

    def _substrings(self, config: SubstringsConfig) -> None:
        marks = [shard.fingerprints for shard in self._shards if shard.fingerprints is not None]
        count, gram = len(self.kept.ids), config.marking.gram
        # Rows: rank of the document, of the earlier one, how far apart the places are, place, copies.
        candidates = Runs(self._scratch, "candidates", 5)
        involved, crowded = np.zeros(count, np.bool_), 0
        for hashes, rank, (place,) in self._joined(marks) if marks else ():
            crowd, found = candidates_of(hashes, rank, place, config.limit, gram, self._at_once)
            crowded += crowd
            for rows in found:
                involved[rows[:, 0]] = True
                involved[rows[:, 1]] = True
                candidates.add(rows)
        self.report |= {"substring_candidates": candidates.total, "substring_crowded": crowded}

        begins, words = self._words(involved)
        blocks = ((low, high, candidates.between(low, high)) for low, high in candidates.blocks(count, self._at_once))
        self._write(cut_runs(blocks, words, begins, self.kept.words, config))

    def _texts(self, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
        """(rank, text) of the documents wanted by rank, in the order of the shards."""
        for shard, ranks in zip(self._shards, self.kept.ranks, strict=True):
            here = (ranks >= 0) & wanted[np.maximum(ranks, 0)] if len(wanted) else np.zeros(len(ranks), np.bool_)
            if not here.any():
                continue
            done = 0
            for batch in text_batches(shard.documents):
                rows = np.flatnonzero(here[done : done + batch.num_rows])
                texts = batch.column("text").take(pa.array(rows)).to_pylist()
                yield from zip(ranks[done + rows].tolist(), (text or "" for text in texts), strict=True)
                done += batch.num_rows

    def _words(self, involved: npt.NDArray[np.bool_]) -> tuple[Ints, Hashes]:
        """Word hashes of the documents involved, in a scratch file, and where each document's begin (by rank)."""
        begins, done = np.zeros(len(involved), np.int64), 0
        path = self._scratch / "words.bin"
        with path.open("wb") as out:
            for rank, text in self._texts(involved):
                hashes = words_of(text).hashes
                if len(hashes) != self.kept.words[rank]:
                    raise ValueError("documents and marks are of different texts: mark the shard again")
                hashes.tofile(out)
                begins[rank] = done
                done += len(hashes)
        return begins, np.asarray(np.memmap(path, np.uint64, "r")) if done else np.empty(0, np.uint64)

    def _write(self, pieces: Pieces) -> None:
        """Pieces in words become spans in characters."""
        rows: list[tuple[int, ...]] = []
        begins, ends = pieces.columns[:2]
        for rank, text in self._texts(ends > begins):
            of_document = [column[begins[rank] : ends[rank]].tolist() for column in pieces.columns[2:]]
            number = int(self.kept.numbers[rank])
            places = places_in(text, words_of(text), of_document[0], of_document[1])
            for (start, end), first, copies in zip(places, of_document[2], of_document[3], strict=True):
                rows.append((number, start, end, SUBSTRING, int(self.kept.numbers[first]), copies))
            if len(rows) >= self._at_once:
                self._runs.add(np.array(rows, np.int64))
                rows = []
        self._runs.add(np.array(rows, np.int64).reshape(-1, 6))


class SpanTables:
    """Rows of spans as tables (schema SPANS), counted: `report` has the counts of all tables so far."""

    def __init__(self, config: DedupConfig):
        unit = config.lines.unit if config.lines is not None else "line"
        asked = ((WHOLE, unit, config.lines), (SUBSTRING, "substring", config.substrings))
        self._levels = [(level, name) for level, name, section in asked if section is not None]
        self._names = pa.array([unit, "substring"])
        self.report = dict.fromkeys(("characters", *_OF_ALL), 0)
        for _, name in self._levels:
            self.report |= {f"{name}_spans": 0, f"{name}_documents": 0, f"{name}_characters": 0}

    def table(self, ids: Hashes, characters: Ints, document: Ints, rows: Ints, first: Hashes) -> pa.Table:
        """The spans of these documents: rows (start, end, level, whether a first one stays: at least 0, copies).

        `document`: whose each row is; rows are sorted by it. `first`: the ids of the first ones.
        """
        start, end, level, stays, copies = np.ascontiguousarray(rows.T)
        report = self.report
        report["characters"] += int(characters.sum())
        for name, value in zip(_OF_ALL, _covered(document, start, end, 0, characters), strict=True):
            report[name] += value
        for code, name in self._levels:
            of_level = level == code
            cut, _, documents, _ = _covered(document[of_level], start[of_level], end[of_level], 0, characters)
            report[f"{name}_spans"] += int(of_level.sum())
            report[f"{name}_documents"] += documents
            report[f"{name}_characters"] += cut
        return pa.Table.from_arrays(
            [
                as_ids(ids[document]),
                pa.DictionaryArray.from_arrays(pa.array(level), self._names).cast(pa.string()),
                pa.array(start),
                pa.array(end),
                as_ids(first, stays < 0),
                pa.array(copies),
            ],
            schema=SPANS,
        )


def repeated(hashes: Ints, rank: Ints, config: LinesConfig) -> tuple[npt.NDArray[np.bool_], Ints, Ints]:
    """Of units sorted by hash and rank: which are cut, where the first of each stands, how many documents hold it."""
    fresh, begins, copies = _groups(hashes, rank)
    group = np.cumsum(fresh) - 1
    cut = copies[group] >= config.copies
    if config.keep == "first":
        cut &= ~fresh
    return cut, begins[group], copies[group]


def candidates_of(
    hashes: Ints, rank: Ints, place: Ints, limit: int, gram: int, at_once: int
) -> tuple[int, Iterator[Ints]]:
    """Of fingerprints sorted by hash, rank and place: how many are crowded; and the candidates, about so many at once.

    Candidates are rows (rank of the document, of the earlier one, how far apart the places are, place, copies).
    """
    fresh, begins, copies = _groups(hashes, rank)
    group = np.cumsum(fresh) - 1
    earlier = np.arange(len(rank)) - begins[group]
    other = fresh.copy()
    other[1:] |= rank[1:] != rank[:-1]
    again = np.arange(len(rank)) - np.flatnonzero(other)[np.cumsum(other) - 1]
    ends = np.cumsum(np.minimum(earlier, limit))

    def found() -> Iterator[Ints]:
        done = 0
        while done < len(rank):  # so many places at once that candidates are about `at_once`
            upto = int(np.searchsorted(ends, (ends[done - 1] if done else 0) + at_once, side="right"))
            upto = max(upto, done + 1)
            yield _pair(rank, place, begins[group], again, copies[group], done, upto, limit, gram)
            done = upto

    return int(np.sum(earlier > limit)), found()


def cut_runs(
    blocks: Iterable[tuple[int, int, Ints]], words: Hashes, begins: Ints, lengths: Ints, config: SubstringsConfig
) -> Pieces:
    """What is cut from documents, numbered in order of precedence: of each, its words begin at `begins`.

    `blocks`: the candidates of documents `low` to `high`, sorted.
    """
    pieces = Pieces(len(lengths))
    for low, high, rows in blocks:
        bounds = np.searchsorted(rows[:, 0], np.arange(low, high + 1))
        for document in (low + np.flatnonzero(bounds[1:] > bounds[:-1])).tolist():
            of_document = rows[bounds[document - low] : bounds[document - low + 1]]
            matches = _match(of_document, words, begins, lengths, config.marking.gram, config.minimum)
            if len(matches):
                pieces.add(document, _settle(document, matches, lengths[document], *pieces.columns))
    return pieces


def text_batches(documents: Table) -> Iterator[pa.RecordBatch]:
    """The texts of a shard's documents, some at a time."""
    if isinstance(documents, pa.Table):
        yield from documents.select(["text"]).to_batches(max_chunksize=BATCH_ROWS)
        return
    yield from read_batches(documents, ["text"], BATCH_ROWS)


def _groups(hashes: Ints, rank: Ints) -> tuple[npt.NDArray[np.bool_], Ints, Ints]:
    """Of rows sorted by hash and rank: which begin a group of equal hashes, where groups begin, documents in each."""
    fresh = np.ones(len(hashes), np.bool_)
    fresh[1:] = hashes[1:] != hashes[:-1]
    other = fresh.copy()
    other[1:] |= rank[1:] != rank[:-1]
    begins = np.flatnonzero(fresh)
    return fresh, begins, np.add.reduceat(other.astype(np.int64), begins) if len(begins) else np.empty(0, np.int64)


@kernel
def _covered(number: Ints, start: Ints, end: Ints, low: int, characters: Ints) -> tuple[int, int, int, int]:
    """(characters in the spans, characters outside, documents with spans, documents of which nothing is outside).

    Spans are sorted by document and start; `characters` are the sizes of the documents from number `low` on. What is
    inside and what is outside are counted separately, so that their sum tells a span that is out of its text.
    """
    inside, outside, documents, emptied = 0, 0, 0, 0
    k = 0
    for d in range(len(characters)):
        first, gaps, upto = k, 0, 0
        while k < len(number) and number[k] == low + d:
            gaps += max(start[k] - upto, 0)
            inside += max(end[k] - max(start[k], upto), 0)
            upto = max(upto, end[k])
            k += 1
        gaps += max(characters[d] - upto, 0)
        outside += gaps
        if k > first:
            documents += 1
            emptied += gaps == 0
    return inside, outside, documents, emptied


@kernel
def _pair(
    rank: Ints, place: Ints, begins: Ints, again: Ints, copies: Ints, low: int, high: int, limit: int, gram: int
) -> Ints:
    """Candidates of the places low to high: each with up to `limit` first places of its fingerprint.

    From its `limit`-th place in one document on (`again` counts them), a fingerprint is compared with the place before
    alone. Left out is what the run around the place before covers: where both sides advance alike by at most `gram`.
    """
    out = np.empty((1024, 5), np.int64)
    count = 0
    for i in range(low, high):
        first, stop = begins[i], min(i, begins[i] + limit)
        if again[i] >= limit:
            first, stop = i - 1, i
        for j in range(first, stop):
            if j > begins[i] and rank[i - 1] == rank[i] and rank[j - 1] == rank[j]:
                step = place[i] - place[i - 1]
                paired = j - 1 < begins[i] + limit if again[i - 1] < limit else j == i - 1
                if paired and step <= gram and step == place[j] - place[j - 1]:
                    continue
            if count == len(out):
                out = np.concatenate((out, np.empty((count, 5), np.int64)))
            out[count, 0], out[count, 1] = rank[i], rank[j]
            out[count, 2], out[count, 3], out[count, 4] = place[i] - place[j], place[i], copies[i]
            count += 1
    return out[:count]


@kernel
def _match(candidates: Ints, words: Hashes, begins: Ints, lengths: Ints, gram: int, minimum: int) -> Ints:
    """Runs of one document that stand earlier: rows (start, end, earlier document, shift, copies), in words.

    `candidates` are sorted by the earlier document, shift and place; a run that stands at `start` stands there at
    `start` - shift.
    """
    out = np.empty((len(candidates), 5), np.int64)
    count = 0
    document, shift, upto, least = np.int64(-1), np.int64(0), np.int64(0), np.int64(0)
    reported = False
    for k in range(len(candidates)):
        d, e, apart, place, copies = candidates[k]
        if e == document and apart == shift and place < upto:
            if reported:  # another fingerprint of the run found before
                out[count - 1, 4] = min(out[count - 1, 4], copies)
            else:
                least = min(least, copies)
            continue
        here, there = begins[d], begins[e]
        start, end = place, place
        stop = min(lengths[d], lengths[e] + apart)
        while end < stop and words[here + end] == words[there + end - apart]:
            end += 1
        if end - start < gram:  # a collision of hashes
            continue
        while start > max(apart, 0) and words[here + start - 1] == words[there + start - 1 - apart]:
            start -= 1
        document, shift, upto, least = e, apart, end, copies
        reported = end - start >= minimum
        if reported:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3], out[count, 4] = start, end, e, apart, copies
            count += 1
    return out[:count]


@kernel
def _settle(
    document: int,
    matches: Ints,
    length: int,
    begins: Ints,
    ends: Ints,
    starts: Ints,
    stops: Ints,
    roots: Ints,
    _copies: Ints,
) -> Ints:
    """What is cut from one document: disjoint rows (start, end, document where the words stay, copies), in words.

    `matches` are sorted by the earlier document; the pieces of all earlier documents are given by rank.
    """
    owner = np.full(length, -1, np.int32)
    for m in range(len(matches)):
        for at in range(matches[m, 0], matches[m, 1]):
            if owner[at] < 0:
                owner[at] = m
    room, count = 64, 0
    out = np.empty((room, 4), np.int64)
    at = 0
    while at < length:
        m = owner[at]
        if m < 0:
            at += 1
            continue
        stop = at
        while stop < length and owner[stop] == m:
            stop += 1
        earlier, shift, copies = matches[m, 2], matches[m, 3], matches[m, 4]
        while at < stop:
            source = at - shift
            # Where that place is within the earlier document's pieces, or in this one's so far.
            itself = earlier == document
            low, high = (0, count) if itself else (begins[earlier], ends[earlier])
            while low < high:
                middle = (low + high) // 2
                if (out[middle, 1] if itself else stops[middle]) <= source:
                    low = middle + 1
                else:
                    high = middle
            last = count if itself else ends[earlier]
            size = stop - at
            root = earlier
            if low < last:
                begin = out[low, 0] if itself else starts[low]
                if begin <= source:
                    size = min(size, (out[low, 1] if itself else stops[low]) - source)
                    root = out[low, 2] if itself else roots[low]
                else:
                    size = min(size, begin - source)
            if count and out[count - 1, 1] == at and out[count - 1, 2] == root:
                out[count - 1, 1] = at + size
                out[count - 1, 3] = min(out[count - 1, 3], copies)
            else:
                if count == room:
                    out = np.concatenate((out, np.empty((room, 4), np.int64)))
                    room *= 2
                out[count, 0], out[count, 1], out[count, 2], out[count, 3] = at, at + size, root, copies
                count += 1
            at += size
    return out[:count]


class Pieces:
    """What is cut from each document so far, in words: `columns` are begins, ends (by rank), starts, stops, roots,
    copies (by piece)."""

    def __init__(self, documents: int):
        self._bounds = np.zeros((2, documents), np.int64)
        self._rows = np.empty((4, 1024), np.int64)
        self._count = 0

    @property
    def columns(self) -> tuple[Any, ...]:
        """Begins and ends of documents, then starts, stops, roots and copies of pieces."""
        return self._bounds[0], self._bounds[1], *self._rows

    def add(self, rank: int, rows: Ints) -> None:
        """The pieces of one more document."""
        count = self._count + len(rows)
        if count > self._rows.shape[1]:
            self._rows = np.concatenate((self._rows, np.empty((4, max(count, self._rows.shape[1])), np.int64)), axis=1)
        self._rows[:, self._count : count] = rows.T
        self._bounds[:, rank] = self._count, count
        self._count = count


def places_in(text: str, words: Words, starts: list[int], stops: list[int]) -> Iterator[tuple[int, int]]:
    """Where pieces of words are in characters.

    A run that begins a line and is followed by a line break goes as whole lines: the next word's line stays as it is,
    with its indentation and signs. One that begins within a line and ends one leaves the line break. Within a line what
    is attached to the next word stays with it. At the beginning and the end of a text a run takes all there is.
    """
    count, k = len(words.starts), 0
    while k < len(starts):
        last = k  # of the pieces without a word between them
        while last + 1 < len(starts) and starts[last + 1] == stops[last]:
            last += 1
        first, after = starts[k], stops[last]
        begin, end = int(words.starts[first]) if first else 0, len(text)
        earlier = int(words.ends[first - 1]) if first else 0
        before = text[earlier:begin] if first else "\n"
        if after < count:
            ended, following = int(words.ends[after - 1]), int(words.starts[after])
            end = ended + _with_run(text[ended:following], "\n" in before)
            if first and "\n" in before and "\n" in text[ended:end]:
                begin = earlier + before.rindex("\n") + 1
        elif first:
            begin = earlier + len(before.rstrip())
        bounds = [begin, *(int(words.starts[start]) for start in starts[k + 1 : last + 1]), end]
        yield from pairwise(bounds)
        k = last + 1


def _with_run(gap: str, begins_line: bool) -> int:
    """How many of the characters between a run and the next word go with the run."""
    if "\n" in gap:
        return gap.rindex("\n") + 1 if begins_line else gap.index("\n")
    size = len(gap)
    while size and not gap[size - 1].isspace():
        size -= 1
    if not size:  # no white space: quotation marks and brackets that open are the next word's
        size = len(gap)
        while size and category(gap[size - 1]) in ("Ps", "Pi"):
            size -= 1
    return size
