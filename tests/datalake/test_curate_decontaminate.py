"""Decontamination: every n-gram of an evaluation set is found wherever it stands, and nothing else is."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import shutil
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datalake.curate.checks import decontaminate
from datalake.curate.checks.decontaminate import Index, Overlap, _begins, _normal, _original, index_of
from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.checks.evaluation_sets import EvaluationRow, evaluation_rows, readings, stem
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.schema import CURATION
from datalake.document import Document, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.tables import RAW, to_table
from datalake.text.characters import tables

HAN = re.compile("[\u3400-\u9fff]")
INVISIBLE = "\xad\u200b\u2060\ufeff"
QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
CHINESE = "马斯洛的需要层次理论认为，人的需要从低到高依次是生理需要、安全需要、社会需要、尊重需要与自我实现的需要。"
Word = tuple[int, int, str]


def config(**more: Any) -> DecontaminateConfig:
    return DecontaminateConfig(paths={"paths": ["unread"], "version": "1"}, **more)


def index(*rows: str | Sequence[str], **more: Any) -> Index:
    made = [EvaluationRow("set", "set", k, [row] if isinstance(row, str) else list(row)) for k, row in enumerate(rows)]
    return Index(made, config(**more))


# ---- the same in plain Python: sets of tuples of words -------------------------------------------------------------


@lru_cache(1 << 17)
def lower(text: str) -> str:
    return "".join(map(chr, tables().lower[np.array([ord(c) for c in text], np.int64)].tolist()))


def exact_words(text: str) -> list[Word]:
    return [(m.start(), m.end(), m.group()) for m in re.finditer("[\u3400-\u9fff]|[^\\s\u3400-\u9fff]+", text)]


def normal_words(text: str) -> list[Word]:
    """Offsets are those in the normalised text."""
    plain = unicodedata.normalize("NFKC", text).translate(dict.fromkeys(map(ord, INVISIBLE)))
    found = re.finditer("[\u3400-\u9fff]|[^\\W_\u3400-\u9fff]+", plain)
    return [(m.start(), m.end(), lower(m.group())) for m in found]


def weight(word: str, exact: bool) -> int:
    return 1 if HAN.match(word) or (exact and word[0] >= "\u2000" and not word[0].isalnum()) else 2


def runs(words: list[Word], exact: bool, goal: int) -> list[tuple[int, int, tuple[str, ...]]]:
    found = []
    for first in range(len(words)):
        total, last = 0, first
        while last < len(words) and total < goal:
            total += weight(words[last][2], exact)
            last += 1
        if total >= goal:
            found.append((first, last, tuple(word for _, _, word in words[first:last])))
    return found


def lettered(words: Sequence[str], exact: bool) -> bool:
    total = sum(weight(word, exact) for word in words)
    return 2 * sum(weight(word, exact) for word in words if any(map(str.isalpha, word))) >= total


@lru_cache(2)
def looked_for(
    texts: tuple[str, ...], split: Callable[[str], list[Word]], n: int, shortest: int
) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    """n-grams of the rows, and the words of the rows that are too short to have one."""
    exact = split is exact_words
    grams: set[tuple[str, ...]] = set()
    wholes: set[tuple[str, ...]] = set()
    for own in texts:
        words = split(own)
        every = runs(words, exact, 2 * n)
        grams |= {gram for _, _, gram in every if lettered(gram, exact)} or {gram for _, _, gram in every}
        row = tuple(word for _, _, word in words)
        long = sum(weight(word, exact) for word in row) >= 2 * shortest
        if not every and (long or sum(bool(HAN.match(w)) for w in row) >= -(-13 * shortest // 8)):
            wholes |= {row} if lettered(row, exact) else set()
    return grams, wholes


def plain_overlap(
    texts: Sequence[str], text: str, split: Callable[[str], list[Word]], n: int = 13, shortest: int = 8
) -> tuple[int, float, int, int] | None:
    """(n-grams, share, start, end) at one level; the span is in the text that `split` speaks of."""
    exact = split is exact_words
    grams, wholes = looked_for(tuple(texts), split, n, shortest)
    words = split(text)
    plain = [word for _, _, word in words]
    hits: set[Any] = set()
    covered: set[int] = set()
    for first, last, gram in runs(words, exact, 2 * n):
        if gram in grams:
            hits.add(gram)
            covered |= set(range(first, last))
    ends = {first + len(gram) for first, _, gram in runs(words, exact, 2 * n) if gram in grams}
    begins = {first for first, _, gram in runs(words, exact, 2 * n) if gram in grams}
    for row in wholes:
        for first in range(len(words) - len(row) + 1):
            if tuple(plain[first : first + len(row)]) == row:
                hits.add(row)
                covered |= set(range(first, first + len(row)))
                begins.add(first)
                ends.add(first + len(row))
    if not hits:
        return None
    spans, start = [], None
    for k in range(len(words) + 1):
        if start is None and k in covered:
            start = k
        elif start is not None and k not in covered:
            spans.append((words[start][0], words[k - 1][1]))
            start = None
    begin, end = max(spans, key=lambda span: span[1] - span[0])
    return len(hits), len(covered) / len(words), begin, end


def agrees(texts: Sequence[str], text: str, found: Overlap, **more: int) -> None:
    exact = plain_overlap(texts, text, exact_words, **more)
    normal = plain_overlap(texts, text, normal_words, **more)
    levels = [level for level in (exact, normal) if level]
    assert found.level == ("exact" if exact else "normalised" if normal else None)
    assert found.ngrams == max((level[0] for level in levels), default=0)
    assert found.share == pytest.approx(max((level[1] for level in levels), default=0.0))
    if not levels:
        assert found == (0, 0.0, None, None, None, None)
        return
    assert found.start is not None
    assert found.end is not None
    if exact and (not normal or exact[3] - exact[2] >= found.end - found.start):
        assert (found.start, found.end) == exact[2:]
    elif normal and _normal(text) == text:
        assert (found.start, found.end) == normal[2:]


# ---- random and real text against it -------------------------------------------------------------------------------

ALPHABET = [
    "the",
    "The",
    "cat",
    "sat,",
    "on",
    "7",
    "a-b",
    "mat.",
    "中",
    "文",
    "文字",
    "1949年",
    "，",
    "ﬁne",
    "é",
    "É",
    "--",
]


@settings(max_examples=400)
@given(st.data())
def test_overlap_is_that_of_sets_of_tuples_on_random_words(data: st.DataObject) -> None:
    draw = data.draw
    words = st.lists(st.sampled_from(ALPHABET), max_size=14)
    gap = st.sampled_from([" ", "\n", ""])
    texts = [draw(gap).join(row) for row in draw(st.lists(words, min_size=1, max_size=4))]
    n = draw(st.integers(5, 7))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        own = draw(st.sampled_from(texts))
        begin = draw(st.integers(0, len(own)))
        parts += [own[begin : begin + draw(st.integers(0, 60))], draw(gap).join(draw(words))]
    text = draw(gap).join(parts)
    agrees(texts, text, index(*texts, ngram=n, shortest=5).overlap(text), n=n, shortest=5)


@settings(max_examples=300)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=3), st.text(max_size=20), st.text(max_size=20))
@example([" ".join("ﬁ①½㎞é가각ｶﾞ́") * 3], "e", "\u0301x")
@example(["\ud800 a b c d e f g h"], "\udfff", "")
def test_any_characters_at_all_are_compared_alike(texts: list[str], before: str, after: str) -> None:
    text = f"{before} {texts[0]} {after}"
    agrees(texts, text, index(*texts, ngram=5, shortest=5).overlap(text), n=5, shortest=5)


def test_real_rows_and_pages_agree_with_sets_of_tuples(samples: Path) -> None:
    rng = random.Random(5)
    with gzip.open(samples / "eval" / "gsm8k-test.jsonl.gz", "rt") as file:
        rows = ["\n".join(json.loads(line).values()) for line in file][:80]
    with tarfile.open(samples / "eval" / "cmmlu.tar.gz") as archive:
        member = archive.extractfile("cmmlu/data/test/marketing.csv")
        assert member is not None
        rows += ["\n".join(cells) for cells in csv.reader(io.TextIOWrapper(member, "utf-8"))][1:80]
    with gzip.open(samples / "cc" / "pages" / "pages-dev.jsonl.gz", "rt") as file:
        pages = [page for line in file if (page := json.loads(line).get("gold_text"))]
    pages = rng.sample(pages, 60)
    made = index(*rows)
    hit = 0
    for page in pages:
        place, row = rng.randrange(len(page) + 1), rng.choice(rows)
        cut = rng.randrange(len(row))
        text = page[:place][-1500:] + row[cut : cut + rng.randrange(20, 300)] + page[place:][:1500]
        found = made.overlap(text)
        hit += found.ngrams > 0
        agrees(rows, text, found)
    assert 20 < hit < 60


# ---- planted rows ---------------------------------------------------------------------------------------------------

PAGE = "It was a quiet morning in the harbour. {} Nobody in the village had seen anything like it before."


def test_a_verbatim_row_is_found_exactly_where_it_stands() -> None:
    text = PAGE.format(QUESTION)
    found = index("Another row that is about something else entirely and long enough, too, I think.", QUESTION).overlap(
        text
    )
    assert text[found.start : found.end] == QUESTION
    assert (found.level, found.row) == ("exact", "set#1")
    assert found.ngrams == len(QUESTION.split()) - 12
    assert found.share == pytest.approx(len(QUESTION.split()) / len(text.split()))


@pytest.mark.parametrize(
    "changed",
    [
        QUESTION.upper(),
        QUESTION.replace(",", " --").replace(" ", "  \n"),
        QUESTION.replace("friends", "*friends*").replace("clips", "“clips”"),
        QUESTION.replace("friends", "fri\xadends").replace("April", "Apr\u200bil"),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in QUESTION),  # full width
    ],
)
def test_a_row_in_other_case_punctuation_or_width_is_found(changed: str) -> None:
    text = PAGE.format(changed)
    found = index(QUESTION).overlap(text)
    assert (found.level, found.row, found.ngrams) == ("normalised", "set#0", len(QUESTION.split()) - 12)
    assert re.sub(r"[\W_]", "", text[found.start : found.end]) == re.sub(r"[\W_]", "", changed)


def test_offsets_are_those_of_the_text_as_given_whatever_normalising_does_before() -> None:
    text = (
        "ﬃ ½ ㎞ e\u0301 ① … \ufb01\u0301 각\u1100\u1161\u11a8 \U0001f469\u200d\U0001f680 " * 900
        + QUESTION.upper()
        + " ﬁn"
    )
    found = index(QUESTION).overlap(text)
    assert text[found.start : found.end] == QUESTION.upper().rstrip(".")


def test_chinese_is_found_with_and_without_spaces_and_punctuation() -> None:
    before, after = "今天的天气很好，我们一起去公园散步。", "然后大家就回家了。"
    made = index(CHINESE, QUESTION)
    text = before + CHINESE + after
    found = made.overlap(text)
    assert (found.level, found.row) == ("exact", "set#0")
    assert text[found.start : found.end] == CHINESE
    for changed in (re.sub(r"\W", "", CHINESE), " ".join(CHINESE), CHINESE.replace("、", "\n")):
        text = before + changed + after
        found = made.overlap(text)
        assert found.row == "set#0"
        assert re.sub(r"\W", "", text[found.start : found.end]) == re.sub(r"\W", "", CHINESE)


def test_chinese_with_figures_is_alike_with_and_without_spaces() -> None:
    row = "中华人民共和国于1949年10月1日在北京宣告成立，毛泽东担任中央人民政府主席"
    text = "据记载，" + re.sub(r"(\d+)", r" \1 ", row) + "。"
    assert index(row).overlap(text).row == "set#0"


@pytest.mark.parametrize(("words", "found"), [(12, 0), (13, 1), (14, 2)])
def test_near_misses_are_no_overlap(words: int, found: int) -> None:
    text = PAGE.format(" ".join(QUESTION.split()[:words]))
    assert index(QUESTION).overlap(text).ngrams == found


@pytest.mark.parametrize(("characters", "found"), [(25, 0), (26, 1), (27, 2)])
def test_thirteen_words_are_twenty_six_chinese_characters(characters: int, found: int) -> None:
    row = re.sub(r"\W", "", CHINESE)
    assert index(row).overlap("开始" + row[:characters] + "结束").ngrams == found


def test_a_word_in_the_middle_that_differs_parts_the_overlap() -> None:
    words = QUESTION.split()
    changed = [*words[:12], "never", *words[13:]]
    assert index(QUESTION).overlap(" ".join(changed)).ngrams == 0


def test_the_row_is_that_with_most_n_grams_in_the_longest_stretch() -> None:
    prompt = "You are given a question and have to choose the one right answer among the four that follow it now. "
    rows = [prompt + "What is this?", prompt + QUESTION]
    text = prompt + "\n\nSomething else.\n\n" + PAGE.format(rows[1])
    found = index(*rows).overlap(text)
    assert found.row == "set#1"
    assert text[found.start : found.end] == rows[1]


def test_short_rows_are_found_as_a_whole_and_shorter_ones_never() -> None:
    rows = [
        "How many days does a week on earth have?",
        "What is a week?",
        "世界上面积最大的国家是哪一个",
        "最大的国家是哪一个",
    ]
    made = index(*rows)
    assert [(s.rows, s.whole, s.ignored, s.ngrams) for s in made.sets] == [(4, 2, 2, 0)]
    assert made.overlap(f"Ask: {rows[0]} Seven.").row == "set#0"
    twice = index(rows[0], rows[0].upper()).overlap(f"Ask: {rows[0]} Seven.")
    assert (twice.ngrams, twice.row) == (1, "set#0")
    assert made.overlap(f"Ask: {rows[0].upper()} Seven.").level == "normalised"
    assert made.overlap("How many days does a week on earth last?").ngrams == 0
    assert made.overlap(rows[1]).ngrams == 0
    assert made.overlap(f"请问{rows[2]}？").row == "set#2"
    assert made.overlap(f"请问{rows[3]}？").ngrams == 0


def test_figures_are_no_overlap() -> None:
    figures = " ".join(map(str, range(40)))
    made = index(f"Compute the sum of these numbers for me please: {figures}")
    assert made.sets[0].numbers == 34
    assert made.overlap(f"Calendar\n{figures}").ngrams == 0
    assert index(figures).overlap(f"Calendar\n{figures}").ngrams == 28
    assert made.overlap("compute the sum of these numbers for me please 0 1 2 3").ngrams > 0


def test_boilerplate_of_many_rows_can_be_ignored() -> None:
    prompt = "Answer the following question with one of the four letters that stand before the answers below: "
    rows = [f"{prompt}Where is number {k} of the {name} kept?" for k, name in enumerate(["cat", "dog", "cow", "hen"])]
    assert index(*rows).overlap(prompt).ngrams == 4
    made = index(*rows, max_rows=3)
    assert made.overlap(prompt).ngrams == 0
    assert made.overlap(rows[2]).row == "set#2"
    assert made.sets[0].frequent == 7
    assert made.sets[0].frequent + made.sets[0].ngrams == index(*rows).sets[0].ngrams
    assert index(*rows, max_rows=4).overlap(prompt).ngrams == 4


def test_equal_hashes_of_other_words_are_no_overlap() -> None:
    made = index(QUESTION)
    other = " ".join(f"word{k}" for k in range(19))
    exact, normal = made._levels
    table = normal.grams
    forged = table._replace(
        keys=np.sort(index(other)._levels[1].grams.keys),
        filter=np.full_like(table.filter, 255),
    )
    ends = np.arange(1, 1 << forged.bits, dtype=np.uint64) << np.uint64(64 - forged.bits)
    forged = forged._replace(
        buckets=np.concatenate([[0], np.searchsorted(forged.keys, ends), [len(forged.keys)]]).astype(np.int32)
    )
    made._levels = (exact, normal._replace(grams=forged))
    assert made.overlap(other).ngrams == 0
    made._levels = (exact, index(other)._levels[1]._replace(grams=forged))
    assert made.overlap(other).ngrams > 0


# ---- robustness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n", "\ud800", "\x00" * 50, "．" * 100, "word " * 50, "字" * 100])
def test_odd_texts_hold_nothing(text: str) -> None:
    assert index(QUESTION, CHINESE).overlap(text) == Overlap(0, 0.0)


def test_no_rows_at_all() -> None:
    assert index().overlap(QUESTION) == Overlap(0, 0.0)
    assert index("", "?!").overlap(QUESTION) == Overlap(0, 0.0)


def test_a_line_of_ten_megabytes() -> None:
    filler = " ".join(f"w{k}" for k in range(1_300_000))
    text = f"{filler} {QUESTION} {'x' * 1_000_000}"
    assert len(text) > 10_000_000
    found = index(QUESTION).overlap(text)
    assert text[found.start : found.end] == QUESTION
    assert index(QUESTION).overlap("é" + text.upper() + "ﬁ").row == "set#0"


@settings(max_examples=300)
@given(st.text(max_size=30))
@example("e\u0301\u0323 ｶﾞ 각 ﬁ\u00ad½")
def test_every_normalised_character_is_traced_to_the_text(text: str) -> None:
    normal = _normal(text)
    for place in range(len(normal)):
        start, end = _original(text, place)
        assert normal[place] in _normal(text[start:end])
        assert len(_normal(text[:start])) <= place < len(_normal(text[:end]))


def test_what_joins_what_is_before_it_is_known() -> None:
    for point in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert not _begins(chr(int(parts[1], 16)))


# ---- reading sets ---------------------------------------------------------------------------------------------------


def test_readings_have_every_text_and_each_alternative_beside_the_rest() -> None:
    row = {"query": "Question: Where is the old cat?\nAnswer:", "choices": ["here", "there"], "gold": 1, "id": "q1"}
    assert readings(row) == [
        "Where is the old cat?\nhere\nthere\nq1",
        "Where is the old cat?",
        "Where is the old cat?\nhere",
        "Where is the old cat?\nthere",
        "here\nWhere is the old cat?",
        "there\nWhere is the old cat?",
    ]
    table = {"": "0", "Question": "最低层次是", "A": "尊重", "B": "生理", "Answer": "B"}
    assert readings(table)[:4] == ["0\n最低层次是\n尊重\n生理\nB", "最低层次是", "最低层次是\n尊重", "最低层次是\n生理"]
    assert "1995年之后信息安全的问题是" in readings({"Question": "1995年之后信息安全的问题是", "A": "甲", "B": "乙"})
    assert readings({"turns": ["one", "two"], "n": 3, "deep": {"a": [{"b": "three"}]}}) == ["one\ntwo\nthree"]
    assert readings("just text") == ["just text"]
    assert readings({"n": 1, "empty": " "}) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k-test.jsonl.gz", "gsm8k-test"),
        ("llmfoundry/piqa.jsonl", "llmfoundry/piqa"),
        ("cmmlu.tar.gz/cmmlu/data/dev/marketing.csv", "cmmlu/data/dev/marketing"),
        ("v1.2/set.v3.json", "v1.2/set.v3"),
    ],
)
def test_sets_are_named_by_file_and_member(name: str, expected: str) -> None:
    assert stem(name) == expected


def write_sets(folder: Path) -> None:
    folder.mkdir()
    (folder / "plain.txt").write_text(f"first line\n\n{QUESTION}\n", "utf-8")
    (folder / "README.md").write_text("A description of all these sets that is longer than thirteen words is no set.")
    with gzip.open(folder / "rows.jsonl.gz", "wt") as file:
        file.write('{"q": "short"}\n' + json.dumps({"question": QUESTION, "answer": "72"}) + "\n")
    table = "Question,A,B\n" + CHINESE + ",甲,乙\n"
    with tarfile.open(folder / "cmmlu.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("cmmlu/dev/one.csv")
        info.size = len(table.encode())
        archive.addfile(info, io.BytesIO(table.encode()))


def test_sets_are_read_in_every_form(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    made = index_of(DecontaminateConfig(paths=[str(tmp_path / "sets")]))
    assert made.overlap(CHINESE).row == "cmmlu/dev/one#0"
    assert made.overlap(QUESTION).row == "plain#2"
    assert [(s.set, s.rows) for s in made.sets] == [("cmmlu", 1), ("plain", 2), ("rows", 2)]
    assert index_of(DecontaminateConfig(paths=[str(tmp_path / "sets" / "rows*")])).overlap(QUESTION).row == "rows#1"


def test_a_damaged_set_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"q": "fine"}\n{"q": \n')
    with pytest.raises(UserError, match=r"evaluation set bad.jsonl can't be read .*mend it or leave it out"):
        list(evaluation_rows("bad.jsonl", str(tmp_path / "bad.jsonl")))


# ---- configuration and the ledger -----------------------------------------------------------------------------------


def test_identity_is_the_sets_content_and_not_their_place(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    shutil.copytree(tmp_path / "sets", tmp_path / "moved")
    first = DecontaminateConfig(paths=[str(tmp_path / "sets")])
    moved = DecontaminateConfig(paths=[str(tmp_path / "moved")])
    assert fingerprint(first) == fingerprint(moved)
    assert DecontaminateConfig.model_validate_json(first.model_dump_json()) == first
    (tmp_path / "moved" / "plain.txt").write_text("other")
    changed = DecontaminateConfig(paths=[str(tmp_path / "moved")])
    assert fingerprint(first) != fingerprint(changed)
    with pytest.raises(UserError, match="has changed since the recipe was read"):
        index_of(moved)
    given = CurateConfig.model_validate({"decontaminate": {"paths": [str(tmp_path / "sets")]}})
    assert fingerprint(given) != fingerprint(CurateConfig())


def test_paths_that_cannot_be_read_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*correct the path"):
        DecontaminateConfig(paths=[str(tmp_path / "gone")])
    with pytest.raises(ValueError, match="copy it here"):
        DecontaminateConfig(paths=["https://example.org/set.jsonl"])
    with pytest.raises(ValueError, match="more than the 6 of ngram"):
        config(ngram=6)


def test_one_index_is_built_in_a_process(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    made = DecontaminateConfig(paths=[str(tmp_path / "sets")])
    assert index_of(made) is index_of(made.model_copy())


def raw_of(*texts: str) -> pa.Table:
    documents = [
        Document(
            id=document_id("table", str(k), text), text=text, source="table", uri=f"test:{k}", language="en",
            language_score=0.9, attributes={},
        )
        for k, text in enumerate(texts)
    ]  # fmt: skip
    return to_table(documents, RAW)


def test_the_ledger_names_the_row_and_the_rule_rejects(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    raw = raw_of(PAGE.format(QUESTION), PAGE.format("Nothing."), PAGE.format(QUESTION.upper()) * 3, "")
    settings = DecontaminateConfig(paths=[str(tmp_path / "sets")])
    curation, documents = curate_batch(raw, CurateConfig(preset="none", decontaminate=settings))
    assert curation.schema == CURATION
    rows = curation.to_pylist()
    assert [row["rule"] for row in rows] == ["contaminated", None, "contaminated", None]
    assert [row["contaminated"] for row in rows] == [8, 0, 8, 0]
    assert [row["contaminated_level"] for row in rows] == ["exact", None, "normalised", None]
    assert [row["contaminated_set"] for row in rows] == ["plain#2", None, "plain#2", None]
    assert rows[0]["contaminated_share"] == pytest.approx(20 / 38)
    for row, text in zip(rows, raw["text"].to_pylist(), strict=True):
        found = text[row["contaminated_start"] : row["contaminated_end"]] if row["contaminated"] else ""
        assert found.upper().rstrip(".") == (QUESTION.upper().rstrip(".") if row["contaminated"] else "")
    assert documents["id"].to_pylist() == [rows[1]["id"], rows[3]["id"]]

    some = settings.model_copy(update={"share": 0.6})
    rows = curate_batch(raw, CurateConfig(preset="none", decontaminate=some))[0].to_pylist()
    assert [row["verdict"] for row in rows] == ["kept"] * 4
    assert [row["contaminated"] for row in rows] == [8, 0, 8, 0]


def test_a_text_is_looked_up_as_it_came_before_any_repair(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    text = "\ufeff\r\n\r\n\r\n\r\n" + PAGE.format(QUESTION).replace(" ", "\xa0 ") + " \t \r\n"
    settings = DecontaminateConfig(paths=[str(tmp_path / "sets")])
    [row] = curate_batch(raw_of(text), CurateConfig(preset="gopher", decontaminate=settings))[0].to_pylist()
    begin = text.index("Natalia")
    assert (row["contaminated_start"], row["contaminated_end"]) == (begin, text.index("May.") + 4)


def test_the_rule_comes_after_those_of_the_preset(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    settings = DecontaminateConfig(paths=[str(tmp_path / "sets")])
    row = curate_batch(raw_of(QUESTION), CurateConfig(preset="gopher", decontaminate=settings))[0].to_pylist()[0]
    assert row["rules"][0] == "min_words"
    assert row["rules"][-1] == "contaminated"


def test_without_sets_the_columns_are_null_and_the_rest_as_ever(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    raw = raw_of(PAGE.format("Nothing."), "Some other text of a few words.")
    without, documents = curate_batch(raw, CurateConfig())
    settings = DecontaminateConfig(paths=[str(tmp_path / "sets")])
    with_sets, same = curate_batch(raw, CurateConfig(decontaminate=settings))
    names = [name for name in CURATION.names if name.startswith("contaminated")]
    assert len(names) == 9
    assert all(without[name].null_count == 2 for name in names)
    assert without.drop_columns(names).equals(with_sets.drop_columns(names))
    assert documents.equals(same)


# ---- all of the samples ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every_set(samples: Path) -> Index:
    return index_of(DecontaminateConfig(paths=[str(samples / "eval")]))


def test_real_rows_find_themselves(samples: Path, every_set: Index) -> None:
    folder = samples / "eval"
    lost, other, rows = [], 0, 0
    for path in sorted(folder.rglob("*.gz")):
        for row in islice(evaluation_rows(path.relative_to(folder).as_posix(), str(path)), 0, None, 3):
            halves = sum(weight(word, False) for _, _, word in normal_words(row.readings[0]))
            if halves < 26:
                continue
            rows += 1
            found = every_set.overlap(row.readings[0])
            other += found.row != f"{row.set}#{row.number}"
            if not found.ngrams:
                lost.append((row.set, row.number, found))
    assert rows > 11_000
    assert lost == []
    assert other < 0.06 * rows  # GSM8K's test set and HumanEval are in two files: the first is named


def test_real_pages_hold_next_to_nothing_of_the_sets(samples: Path, every_set: Index) -> None:
    with gzip.open(samples / "cc" / "pages" / "pages-dev.jsonl.gz", "rt") as file:
        pages = [page for line in file if (page := json.loads(line).get("gold_text"))]
    found = [every_set.overlap(page) for page in pages]
    assert sum(overlap.ngrams > 0 for overlap in found) <= len(pages) // 50


def test_compiled_loops_hold_the_classes_of_characters() -> None:
    assert (decontaminate.SPACE, decontaminate.LETTER, decontaminate.ALNUM, decontaminate.IDEOGRAPH) == (1, 2, 4, 8)
