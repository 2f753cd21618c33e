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
from datalake.dedup.schema import DUPLICATES
from datalake.dedup.spans.cut import cut, cut_texts, read_cuts
from datalake.dedup.spans.decide import MarkedShard, Spans
from datalake.dedup.spans.marks import CCNET_PUNCTUATION, mark, units_of, winnow, words_of
from datalake.dedup.spans.schema import SPANS
from datalake.dedup.spans_config import LinesConfig, SubstringMarking, SubstringsConfig
from datalake.dedup.texts.shingles import WORD, word_list
from datalake.document import Document, document_id
from datalake.lake.ledger import clean_view
from datalake.tables import DOCUMENTS, to_table

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


@pytest.mark.parametrize("seed", range(4))
def test_first_is_a_kept_document_in_which_the_words_stay(seed: int, tmp_path: Path) -> None:
    texts = planted(seed + 50)
    documents = in_order(texts)
    spans, _ = decide(documents, substrings(6, limit=10_000), tmp_path / "s")
    ids = documents["id"].to_pylist()
    stays = dict(zip(ids, (word_list(text) for text in left(documents, spans)), strict=True))
    for row in spans.to_pylist():
        assert ids.index(row["first"]) <= ids.index(row["id"])
        gone = word_list(texts[ids.index(row["id"])][row["start"] : row["end"]])
        assert set(gone) <= set(stays[row["first"]])
        if row["first"] != row["id"] and len(gone) > 1:
            pairs = set(itertools.pairwise(word_list(texts[ids.index(row["first"])])))
            assert sum(pair in pairs for pair in itertools.pairwise(gone)) > 0


@pytest.mark.parametrize("seed", range(3))
def test_every_window_that_is_in_the_corpus_still_has_each_of_its_words_somewhere_in_context(
    seed: int, tmp_path: Path
) -> None:
    """Nothing is lost whole: each pair of neighbouring words within a text stands in what is left, or at a seam."""
    documents = in_order(planted(seed + 70, alphabet=4))
    spans, _ = decide(documents, substrings(5, limit=10_000), tmp_path / "s")
    before = {word for text in documents["text"].to_pylist() for word in word_list(text)}
    after = {word for text in left(documents, spans) for word in word_list(text)}
    assert before == after


def test_a_run_of_exactly_the_minimum_is_cut_and_one_of_a_word_less_is_not(tmp_path: Path) -> None:
    shared = [f"word{k}" for k in range(50)]
    texts = [" ".join(shared), f"before {' '.join(shared)} after", f"ahead {' '.join(shared[1:])} behind"]
    for minimum, expected in ((49, [1, 2]), (50, [1]), (51, [])):
        documents = in_order(texts)
        spans, _ = decide(documents, substrings(minimum), tmp_path / str(minimum))
        ids = documents["id"].to_pylist()
        assert sorted(ids.index(row["id"]) for row in spans.to_pylist()) == expected


def test_cuts_fall_between_words_and_leave_line_breaks_where_lines_begin(tmp_path: Path) -> None:
    run = "one two three four five"
    texts = [
        f"{run}!",
        f"Before. «{run}»; after.",
        f"Title\n\n{run}.\n\nNext line",
        f"Within {run}.\nThen more",
        f"Only the end: {run}.  \n",
        f"A line.\n\n{run}",
        f"{run} and {run}",
        f"  ({run})\n",
        f"ONE, two; THREE\nfour... five 🙂 beside the emoji 🙂🙂 {run} 🙂",
    ]
    documents = in_order(texts)
    spans, report = decide(documents, substrings(5), tmp_path / "s")
    check(documents, spans, report)
    assert left(documents, spans) == [
        f"{run}!",
        "Before. «after.",
        "Title\n\nNext line",
        "Within \nThen more",
        "Only the end:",
        "A line.",
        "and",
        "",
        "beside the emoji 🙂🙂",
    ]
    assert report["emptied"] == 1


@pytest.mark.parametrize(
    ("before", "after", "left_over"),
    [
        ("/* ", ".\n */\n\n#include <stdio.h>", "#include <stdio.h>"),
        ("", "\n\n    @property\n", "    @property\n"),
        ("x\n# ", "\n    return x\n", "x\n    return x\n"),
        ("List:\n- ", "\n- next", "List:\n- next"),
        ("List:\n- ", ". “No”, $5", "List:\n- “No”, $5"),
        ("", " (so it is)", "(so it is)"),
        ("他说", "。《书名》", "他说《书名》"),
        ("f(", ")[next]", "f([next]"),
    ],
)
def test_what_belongs_to_the_words_after_a_run_stays(before: str, after: str, left_over: str, tmp_path: Path) -> None:
    run = "one two three four five"
    documents = in_order([run, before + run + after])
    spans, report = decide(documents, substrings(5), tmp_path / "s")
    check(documents, spans, report)
    assert left(documents, spans)[1] == left_over


def test_a_word_again_and_again_is_left_once(tmp_path: Path) -> None:
    documents = in_order(["ha " * 500, "ha " * 9, "ha " * 40 + "so"])
    spans, report = decide(documents, substrings(10), tmp_path / "s")
    check(documents, spans, report)
    assert [text.split() for text in left(documents, spans)] == [["ha"], ["ha"] * 9, ["so"]]


def test_crowded_fingerprints_are_compared_with_their_first_places_and_counted(tmp_path: Path) -> None:
    """Thirty texts share half a run with everything; only the second half tells the last one from the 29th."""
    draw = random.Random(3)
    half = [f"h{k}" for k in range(5)]
    tails = [[f"t{draw.random()}" for _ in range(6)] for _ in range(29)]
    texts = [" ".join(half + tail) for tail in [*tails, tails[-1]]]
    documents = in_order(texts)
    all_compared, report = decide(documents, substrings(8, limit=100), tmp_path / "a")
    assert words_cut(documents, all_compared) == repeated_words(texts, 8)
    assert report["substring_crowded"] == 0
    _, report = decide(documents, substrings(8, limit=3), tmp_path / "b")
    assert report["substring_crowded"] > 0


# Lines and paragraphs ------------------------------------------------------------------------------------------------


def normal(unit: str, how: str) -> str:
    """Normalisation as published, in plain Python."""
    unit = unit.strip().lower()
    if how == "c4":
        return unit
    punctuation = "".join(chr(int(point, 16)) for point in CCNET_PUNCTUATION.split())
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    return re.sub(f"[{re.escape(punctuation + controls)}]", "", re.sub(r"\d", "0", unit))


def pieces_of(text: str, unit: str) -> list[str]:
    """Lines, or lines joined up to blank ones; blank ones left out."""
    if unit == "line":
        return [line for line in text.split("\n") if line.strip()]
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            found[-1].append(line)
        else:
            found.append([])
    return ["\n".join(lines) for lines in found if lines]


def size_of(unit: str, config: LinesConfig) -> int:
    return len(word_list(unit)) if config.measure == "words" else len(normal(unit, config.normalise))


def units_left(texts: Sequence[str], config: LinesConfig) -> list[list[str]]:
    """The lines or paragraphs that stay of each text, by the definition."""
    holders: dict[str, set[int]] = defaultdict(set)
    for number, text in enumerate(texts):
        for unit in pieces_of(text, config.unit):
            if size_of(unit, config) >= config.minimum:
                holders[normal(unit, config.normalise)].add(number)
    seen: set[str] = set()
    stays: list[list[str]] = []
    for text in texts:
        stays.append([])
        for unit in pieces_of(text, config.unit):
            key = normal(unit, config.normalise)
            enough = size_of(unit, config) >= config.minimum and len(holders[key]) >= config.copies
            if not enough or (config.keep == "first" and key not in seen):
                stays[-1].append(unit.strip())
            if enough:
                seen.add(key)
    return stays


LINES = [
    "Copyright 2019, all rights reserved", "  copyright 2021, ALL rights reserved ", "Cookies…", "cookies", "»Cookies«",
    "本站所有内容均受版权保护。", "本站所有内容均受版权保护", "ΟΔΟΣ ΣΟΦΟΣ", "οδος σοφος", "İstanbul'da bir gün",
    "i̇stanbul'da bir gün", "הספרייה פתוחה בכל יום", "🙂🙂 smile 🙂", "...", "----", "\t", " ", "", "", "\u3000",
    "\x00a\x07b", "ab", "a\tb", "٣ days", "3 days", "one two three four", "One two three FOUR", "１２", "2",
]  # fmt: skip


def mosaics(seed: int, documents: int = 25) -> list[str]:
    """Texts of lines that come again, in other dress and between blank ones."""
    draw = random.Random(seed)
    return ["\n".join(draw.choices(LINES, k=draw.randint(0, 9))) for _ in range(documents)]


@pytest.mark.parametrize("unit", ["line", "paragraph"])
@pytest.mark.parametrize("keep", ["first", "none"])
@pytest.mark.parametrize("normalise", ["ccnet", "c4"])
@pytest.mark.parametrize(("minimum", "measure"), [(1, "characters"), (8, "characters"), (3, "words"), (1, "words")])
@pytest.mark.parametrize("copies", [2, 4])
def test_lines_left_are_those_of_the_definition(
    unit: str, keep: str, normalise: str, minimum: int, measure: str, copies: int, tmp_path: Path
) -> None:
    settings = {"unit": unit, "keep": keep, "normalise": normalise, "minimum": minimum, "measure": measure}
    config = lines(**settings, copies=copies)
    assert config.lines is not None
    for seed in range(3):
        documents = in_order(mosaics(seed))
        texts = documents["text"].to_pylist()
        spans, report = decide(documents, config, tmp_path / str(seed), shards=seed + 1)
        check(documents, spans, report)
        for text, after, expected in zip(texts, left(documents, spans), units_left(texts, config.lines), strict=True):
            assert [piece.strip() for piece in pieces_of(after, unit)] == expected
            if not expected and text.strip():
                assert after == "", "a text that loses all its lines has nothing left"
        assert all((row["first"] is None) == (keep == "none") for row in spans.to_pylist())
        assert all(row["level"] == unit and row["copies"] >= copies for row in spans.to_pylist())


def test_cut_lines_leave_no_blank_lines_behind(tmp_path: Path) -> None:
    texts = ["menu of the day\n\nfirst\n\nfoot of the page", "menu of the day\n\nsecond\n\n\nfoot of the page\n"]
    texts += ["third\n\nmenu of the day\n\nthird again", "menu of the day\n\nfoot of the page"]
    documents = in_order(texts)
    spans, report = decide(documents, lines(minimum=4), tmp_path / "s")
    check(documents, spans, report)
    assert left(documents, spans) == [texts[0], "second", "third\n\nthird again", ""]
    assert [row["copies"] for row in spans.to_pylist() if row["id"] == documents["id"][2].as_py()] == [4]
    assert report["line_spans"] == spans.num_rows == 5


# Both ----------------------------------------------------------------------------------------------------------------


BOTH = {"lines": LinesConfig(minimum=3), "substrings": SubstringsConfig(minimum=6)}


def corpus(seed: int) -> list[str]:
    draw = random.Random(seed)
    parts = planted(seed, 40)
    return [f"{draw.choice(LINES)}\n{part}\n{draw.choice(LINES)}\n\n{draw.choice(parts)}" for part in parts]


def test_spans_are_the_same_for_any_shards_files_order_and_number_of_hashes_at_once(tmp_path: Path) -> None:
    draw = random.Random(5)
    texts = corpus(1)
    sources = [draw.choice(["web", "wiki", "books"]) for _ in texts]
    created = [draw.choice([None, DAY, DAY + timedelta(days=1)]) for _ in texts]
    documents = make(texts, source=sources, created=created)
    config = DedupConfig(sources=("wiki", "web"), **BOTH)
    expected, report = decide(documents, config, tmp_path / "first")
    check(documents, expected, report)
    assert {row["level"] for row in expected.to_pylist()} == {"line", "substring"}
    shuffled = documents.take(pa.array(draw.sample(range(len(texts)), len(texts))))
    for k, (table, shards, at_once, files) in enumerate(
        [(documents, 3, 1, False), (documents, 41, 50, True), (shuffled, 2, 7, True), (shuffled, 1, 1 << 20, False)]
    ):
        found, counts = decide(table, config, tmp_path / str(k), shards, at_once=at_once, files=files)
        assert found == expected
        assert counts == report


def test_precedence_says_which_occurrence_stays(tmp_path: Path) -> None:
    run = " ".join(f"w{k}" for k in range(20))
    texts = [f"late {run} late", f"early {run} early", f"{run} and far longer than the others are, by many words"]
    table = make(texts, source=["web", "web", "wiki"], created=[DAY + timedelta(days=1), DAY, DAY + timedelta(days=2)])
    ids = table["id"].to_pylist()
    orders = {("created",): 1, ("length",): 2, ("source", "created"): 2}
    for k, (precedence, stays) in enumerate(orders.items()):
        config = DedupConfig(precedence=precedence, sources=("wiki",), substrings=SubstringsConfig(minimum=20))
        spans, _ = decide(table, config, tmp_path / str(k))
        assert {row["first"] for row in spans.to_pylist()} == {ids[stays]}
        assert {row["id"] for row in spans.to_pylist()} == set(ids) - {ids[stays]}


def test_duplicates_neither_are_cut_nor_stand_for_what_is(tmp_path: Path) -> None:
    run = " ".join(f"w{k}" for k in range(20))
    documents = in_order([f"{run} a", f"b {run}", f"c {run}"])
    ids = documents["id"].to_pylist()
    for k, config in enumerate((substrings(20), lines(minimum=1))):
        spans, report = decide(documents, config, tmp_path / str(k), removed=ids[:1])
        check(documents, spans, report, removed=ids[:1])
        assert {(row["id"], row["first"]) for row in spans.to_pylist()} == ({(ids[2], ids[1])} if k == 0 else set())


def test_a_document_without_a_decision_is_an_error(tmp_path: Path) -> None:
    documents = in_order(["a", "b"])
    members, marks = mark(documents.to_batches(), BOTH["lines"].marking)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no decision on duplicates"):
        Spans([MarkedShard(documents, members, marks)], [], lines(), tmp_path)


def test_no_documents_give_no_spans(tmp_path: Path) -> None:
    documents = in_order([])
    spans, report = decide(documents, DedupConfig(**BOTH), tmp_path / "s")  # type: ignore[arg-type]
    assert spans.num_rows == report["characters"] == 0


# The kernels ---------------------------------------------------------------------------------------------------------


def strange(seed: int) -> str:
    draw = random.Random(seed)
    kinds = [
        lambda: chr(draw.randrange(0x110000)),
        lambda: chr(draw.randrange(0xD800, 0xE000)),
        lambda: draw.choice("İIıiΣσς\u0307\u0345'·\u00ad_ \n\t中国㐀鿿䷀𠀀e\u0301Ⅷ²"),
        lambda: draw.choice("abc "),
        lambda: bytes(draw.randrange(256) for _ in range(4)).decode("utf-8", "replace"),
    ]
    return "".join(draw.choice(kinds)() for _ in range(draw.randrange(300)))


@pytest.mark.parametrize("seed", range(300))
def test_words_are_those_of_the_definition_and_know_their_places(seed: int) -> None:
    text = strange(seed)
    hashes, starts, ends = words_of(text)
    lower, place = "", []  # of each lower-cased character: the one it comes from
    for at, character in enumerate(text):
        low = character.lower() if character == "İ" else text.lower()[len(lower)]
        lower += low
        place += [at] * len(low)
    assert lower == text.lower()
    found = [(match[0], place[match.start()], place[match.end() - 1] + 1) for match in WORD.finditer(lower)]
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == [(a, b) for _, a, b in found]
    by_word = defaultdict(set)
    for (word, _, _), value in zip(found, hashes.tolist(), strict=True):
        by_word[word].add(value)
    assert all(len(values) == 1 for values in by_word.values())
    assert len({next(iter(values)) for values in by_word.values()}) == len(by_word)


@pytest.mark.parametrize("seed", range(40))
def test_lines_of_strange_texts_cover_them_in_order(seed: int) -> None:
    text = "\n".join(strange(1000 * seed + k)[:40] for k in range(12))
    for unit, how in itertools.product(("line", "paragraph"), ("ccnet", "c4")):
        found = units_of(text, LinesConfig(unit=unit, minimum=1, measure="characters", normalise=how).marking)  # type: ignore[arg-type]
        expected = [piece for piece in pieces_of(text, unit) if normal(piece, how)]
        assert len(found.hashes) == len(expected)
        for start, end, piece in zip(found.starts.tolist(), found.ends.tolist(), expected, strict=True):
            assert piece.strip() in text[start:end]


@pytest.mark.parametrize("minimum", [2, 3, 10, 51])
def test_winnowing_keeps_one_fingerprint_in_every_run_of_the_minimum_and_few_in_all(minimum: int) -> None:
    draw = random.Random(minimum)
    marking = SubstringsConfig(minimum=minimum).marking
    assert marking.gram + marking.window - 1 == minimum
    words = words_of(" ".join(f"w{draw.randrange(10_000)}" for _ in range(5_000))).hashes
    hashes, positions = winnow(words, marking)
    for begin in range(len(words) - minimum + 1):
        at = positions.searchsorted(begin)
        assert positions[at] + marking.gram <= begin + minimum
    assert len(hashes) < 1.2 * 2 / (marking.window + 1) * len(words), "the density of winnowing is 2 / (window + 1)"
    shifted, others = winnow(words[7:], marking)
    common = set(zip(hashes.tolist(), (positions - 7).tolist(), strict=True))
    assert len(common & set(zip(shifted.tolist(), others.tolist(), strict=True))) >= len(shifted) - 2


def every_gram(gram: int) -> SubstringMarking:
    """Windows of one gram: every gram is a fingerprint."""
    return SubstringMarking(gram=gram, window=1)


@pytest.mark.parametrize("minimum", [2, 7, 20])
def test_of_equal_hashes_winnowing_takes_the_rightmost_in_every_window(minimum: int) -> None:
    """Against the definition: so that what is chosen in a window depends on nothing outside it."""
    draw = random.Random(minimum)
    marking = SubstringsConfig(minimum=minimum).marking
    words = words_of(" ".join(draw.choices("aab", k=400))).hashes
    run = [tuple(words[k : k + marking.gram].tolist()) for k in range(len(words) - marking.gram + 1)]
    hash_of = {gram: winnow(words[k:], every_gram(marking.gram))[0][0] for k, gram in enumerate(run)}
    chosen = set()
    for begin in range(len(run) - marking.window + 1):
        chosen.add(max(range(begin, begin + marking.window), key=lambda k: (-int(hash_of[run[k]]), k)))
    hashes, positions = winnow(words, marking)
    assert positions.tolist() == sorted(chosen)
    assert hashes.tolist() == [hash_of[run[k]] for k in sorted(chosen)]


@pytest.mark.parametrize(("line", "words"), [("İa", 2), ("aİb", 2), ("İ中", 2), ("a中", 2), ("中a䷀b", 3), ("x_y", 2)])
def test_words_of_a_line_are_counted_by_the_definition(line: str, words: int) -> None:
    assert len(word_list(line)) == words
    for minimum in (words, words + 1):
        assert len(units_of(line, LinesConfig(minimum=minimum).marking).hashes) == (minimum == words)


def test_a_line_of_ten_megabytes_and_one_of_spaces_are_read(tmp_path: Path) -> None:
    long = "wort " * 2_000_000
    spaces = " " * 1_000_000 + "\n" + "!?" * 500_000
    documents = in_order([long, spaces, long + "\nend", "", "\n\n\n"])
    config = DedupConfig(precedence=("created",), **BOTH)  # type: ignore[arg-type]
    spans, report = decide(documents, config, tmp_path / "s")
    check(documents, spans, report)
    assert [len(text) for text in left(documents, spans)] == [4, len(spaces), 3, 0, 3]


def test_cut_takes_spans_that_overlap_in_any_order() -> None:
    assert cut("0123456789", [(5, 7), (1, 3), (2, 4), (6, 7), (9, 10)]) == "0478"
    assert cut("🙂é中", [(0, 1)]) == "é中"
    assert cut("abc", []) == "abc"
    assert cut("abc", [(0, 3), (1, 2)]) == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_view_of_clean_texts_is_what_cut_leaves(seed: int) -> None:
    """In SQL and in Python, for spans that overlap, abut and reach the ends of texts of all kinds of characters."""
    import duckdb

    draw = random.Random(seed)
    texts = [re.sub("[\ud800-\udfff\0]", "?", strange(seed * 100 + k)) or "-" for k in range(60)]
    documents = make(texts)
    rows: list[Row] = []
    for id, text in zip(documents["id"].to_pylist(), texts, strict=True):
        for _ in range(draw.choice([0, 0, 1, 2, 5])):
            start, end = sorted(draw.choices([0, len(text), *range(len(text) + 1)], k=2))
            if start < end:
                level = draw.choice(["line", "substring"])
                rows.append({"id": id, "level": level, "start": start, "end": end, "first": None, "copies": 2})
    rows.append({"id": documents["id"][0].as_py(), "level": "line", "start": 0, "end": len(texts[0]), "copies": 2})
    spans = pa.Table.from_pylist(rows, SPANS)
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA small")
    for name, table in (("documents", documents), ("spans", spans)):
        connection.register(f"given_{name}", table)
        connection.execute(f"CREATE VIEW small.{name} AS SELECT * FROM given_{name}")
    connection.execute(clean_view("small", deduplicated=False, spans=True))
    found = dict(connection.execute("SELECT id, text FROM small.clean").fetchall())
    expected = dict(zip(documents["id"].to_pylist(), left(documents, spans), strict=True))
    assert "" in expected.values()
    assert found == {id: text for id, text in expected.items() if text}
    columns = [row[0] for row in connection.execute("DESCRIBE small.clean").fetchall()]
    assert columns == DOCUMENTS.names
