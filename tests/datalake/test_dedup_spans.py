"""Repeated lines, paragraphs and word runs are cut wherever they come again, and their first occurrence stays."""

from __future__ import annotations

import itertools
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.dedup.config import DedupConfig
from datalake.dedup.cut import cut, cut_texts, read_cuts
from datalake.dedup.marks import CCNET_PUNCTUATION, mark, units_of, winnow, words_of
from datalake.dedup.schema import DUPLICATES
from datalake.dedup.shingles import WORD, word_list
from datalake.dedup.spans import MarkedShard, Spans
from datalake.dedup.spans_config import LinesConfig, SubstringsConfig
from datalake.dedup.spans_schema import SPANS
from datalake.document import DOCUMENTS, Document, document_id, to_table

DAY = datetime(2020, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def make(texts: Sequence[str], **columns: list[Any]) -> pa.Table:
    documents = []
    for k, text in enumerate(texts):
        row = {name: values[k] for name, values in columns.items()}
        key = row.pop("id", None) or document_id("test", "a", str(k))
        documents.append(Document(**{"id": key, "text": text, "source": "table", "uri": f"a#{k}", **row}))
    return to_table(documents, DOCUMENTS)


def in_order(texts: Sequence[str]) -> pa.Table:
    """Documents whose order of precedence is the order of the list."""
    return make(texts, created=[DAY + timedelta(days=k) for k in range(len(texts))])


def decide(
    documents: pa.Table,
    config: DedupConfig,
    scratch: Path,
    shards: int = 1,
    removed: Sequence[bytes] = (),
    at_once: int = 1 << 20,
    files: bool = False,
) -> tuple[pa.Table, dict[str, int]]:
    """Spans and report, by way of marks for each of `shards` slices, as tables or as files."""
    step = max(1, -(-documents.num_rows // shards))
    parts = [documents.slice(k, step) for k in range(0, documents.num_rows, step)] or [documents]
    scratch.mkdir(parents=True)

    def stored(table: pa.Table, name: str) -> Any:
        if not files:
            return table
        pq.write_table(table, scratch / name, row_group_size=7)
        return scratch / name

    marked = []
    for k, part in enumerate(parts):
        batches = part.to_batches(max_chunksize=5)
        tables: dict[str, Any] = {}
        if config.lines is not None:
            members, marks = mark(batches, config.lines.marking)
            tables |= {"members": stored(members, f"{k}-lm"), "units": stored(marks, f"{k}-u")}
        if config.substrings is not None:
            members, marks = mark(batches, config.substrings.marking)
            tables |= {"members": stored(members, f"{k}-m"), "fingerprints": stored(marks, f"{k}-f")}
        marked.append(MarkedShard(documents=stored(part, f"{k}-d"), **tables))
    ids = documents["id"].to_pylist()
    kept = next(id for id in ids if id not in removed) if ids else None
    rows = [{"id": id, "duplicate_of": kept if id in removed else None} for id in ids]
    decision = Spans(marked, [pa.Table.from_pylist(rows, DUPLICATES)], config, scratch, at_once)
    return pa.concat_tables([SPANS.empty_table(), *decision.tables()]), decision.report


def lines(**more: Any) -> DedupConfig:
    return DedupConfig(precedence=("created",), lines=LinesConfig(**more))


def substrings(minimum: int, **more: Any) -> DedupConfig:
    return DedupConfig(precedence=("created",), substrings=SubstringsConfig(minimum=minimum, **more))


def left(documents: pa.Table, spans: pa.Table) -> list[str]:
    """What is left of each text."""
    cuts = read_cuts([spans], documents["id"])
    return list(cut_texts(documents["id"].combine_chunks(), documents["text"].combine_chunks(), cuts).to_pylist())


def check(documents: pa.Table, spans: pa.Table, report: dict[str, int], removed: Sequence[bytes] = ()) -> None:
    """What must hold of every decision."""
    assert spans.schema == SPANS
    texts = dict(zip(documents["id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    rows = spans.to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["id"], row["start"], row["end"], row["level"]))
    for row in rows:
        assert 0 <= row["start"] < row["end"] <= len(texts[row["id"]])
        assert row["id"] not in removed
        assert row["first"] is None or (row["first"] in texts and row["first"] not in removed)
        assert row["copies"] >= 1
    kept = {id: text for id, text in texts.items() if id not in removed}
    after = dict(zip(texts, left(documents, spans), strict=True))
    assert report["characters"] == sum(map(len, kept.values()))
    assert report["characters_kept"] == sum(len(after[id]) for id in kept)
    assert report["characters_cut"] == report["characters"] - report["characters_kept"]
    assert report["documents_cut"] == len({row["id"] for row in rows})
    assert report["emptied"] == sum(after[id] == "" and texts[id] != "" for id in kept)


# Runs of words -------------------------------------------------------------------------------------------------------


def repeated_words(texts: Sequence[str], minimum: int) -> list[set[int]]:
    """For each text, in order, the numbers of its words within a run of `minimum` that stands earlier: all windows."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for text in texts:
        words = word_list(text)
        repeated: set[int] = set()
        for k in range(len(words) - minimum + 1):
            window = tuple(words[k : k + minimum])
            if window in seen:
                repeated.update(range(k, k + minimum))
            seen.add(window)
        found.append(repeated)
    return found


def words_cut(documents: pa.Table, spans: pa.Table) -> list[set[int]]:
    """For each text the numbers of its words that are cut; a word is cut whole or not at all."""
    cuts = read_cuts([spans], documents["id"])
    found = []
    for id, text in zip(documents["id"].to_pylist(), documents["text"].to_pylist(), strict=True):
        _, starts, ends = words_of(text)
        numbers = set()
        for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            inside = [place for place in range(start, end) if any(a <= place < b for a, b in cuts.get(id, ()))]
            assert len(inside) in (0, end - start)
            if inside:
                numbers.add(number)
        found.append(numbers)
    return found


def planted(seed: int, documents: int = 30, alphabet: int = 3, chinese: bool = False) -> list[str]:
    """Random texts with runs taken from earlier ones, themselves, and runs of one word."""
    draw = random.Random(seed)
    letters = "甲乙丙丁戊己庚辛" if chinese else "abcdefgh"
    vocabulary = ["".join(letter) for letter in itertools.product(letters, repeat=1 if chinese else alphabet)]
    texts: list[list[str]] = []
    for _ in range(documents):
        words: list[str] = []
        for _ in range(draw.randint(0, 6)):
            source = draw.choice([*texts, words]) if texts else words
            begin = draw.randrange(len(source) + 1)
            kind = draw.random()
            if kind < 0.45:
                words += source[begin : begin + draw.randint(1, 40)]
            elif kind < 0.5:
                words += [draw.choice(vocabulary)] * draw.randint(1, 30)
            else:
                words += draw.choices(vocabulary, k=draw.randint(1, 30))
        texts.append(words)
    joints = ["", "，", "。\n", " "] if chinese else [" ", ", ", ".\n\n", "\n", " - "]
    return ["".join(word + draw.choice(joints) for word in words).rstrip("，, ") for words in texts]


@pytest.mark.parametrize("chinese", [False, True])
@pytest.mark.parametrize("minimum", [2, 5, 8, 13])
@pytest.mark.parametrize("seed", range(6))
def test_the_words_cut_are_those_of_every_window_that_stands_earlier(
    seed: int, minimum: int, chinese: bool, tmp_path: Path
) -> None:
    texts = planted(seed, chinese=chinese)
    documents = in_order(texts)
    spans, report = decide(documents, substrings(minimum, limit=10_000), tmp_path / "s", shards=seed + 1)
    check(documents, spans, report)
    assert words_cut(documents, spans) == repeated_words(texts, minimum)
    assert any(words_cut(documents, spans))
    assert report["substring_crowded"] == 0
