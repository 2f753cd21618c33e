"""What documents hold of evaluation sets is cut from them, by sentences, and nothing else is."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.checks.cuts import WINDOW, cut, spans_of
from datalake.curate.checks.decontaminate import Index, Stretch, _original, _originals
from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.checks.evaluation_sets import EvaluationRow
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.what_if import ask
from datalake.document import Document, document_id
from datalake.tables import RAW, to_table

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
SLOGAN = "让我们更加紧密地团结在一起，为实现中华民族伟大复兴的中国梦而努力奋斗，不断创造新的辉煌"
HARBOUR = "It was a quiet morning in the harbour. {}Nobody had seen anything like it before.\n\nThen it rained."


def index(*rows: str, **more: Any) -> Index:
    config = DecontaminateConfig(paths={"paths": ["unread"], "version": "1"}, **more)
    return Index([EvaluationRow("set", "set", k, [row]) for k, row in enumerate(rows)], config)


@pytest.mark.parametrize(
    ("planted", "left"),
    [
        (QUESTION + " ", HARBOUR.format("")),
        (f'"{QUESTION}" ', HARBOUR.format("")),
        (f"\n{QUESTION.upper()}\n", HARBOUR.format("\n")),
        (f"\n\n{QUESTION}\n\n", HARBOUR.format("\n\n")),
        (f"Do you know this one? Well, {QUESTION} ", HARBOUR.format("Do you know this one? ")),
        (f"{QUESTION} {QUESTION.lower()} ", HARBOUR.format("")),
        (f"{QUESTION} You see? {QUESTION} ", HARBOUR.format("You see? ")),
    ],
)
def test_sentences_with_an_overlap_are_cut_and_the_rest_stays(planted: str, left: str) -> None:
    text = HARBOUR.format(planted)
    assert cut(text, index(QUESTION)) == (left, len(text) - len(left))


def test_chinese_is_cut_by_its_own_marks() -> None:
    text = "今天天气很好。老师说：“" + SLOGAN + "。”大家就回家了。\n\n" + SLOGAN + "！第二天下雨。"
    assert cut(text, index(SLOGAN)).text == "今天天气很好。大家就回家了。\n\n第二天下雨。"


def test_of_a_sentence_that_has_no_end_nearby_the_overlap_alone_is_cut() -> None:
    before, after = "word " * 200, " other" * 200
    assert cut(f"{before}{QUESTION[:-1]} {after}", index(QUESTION)).text == before + after.lstrip()
    inside = QUESTION[:-1] + " again" * 5 + "."
    assert cut(f"A. {inside} B.", index(QUESTION)).text == "A. B."
    long = QUESTION[:-1] + " again" * WINDOW + "."
    assert cut(f"A. {long} B.", index(QUESTION)).text == f"A. {'again ' * WINDOW}"[:-1] + ". B."


def test_of_code_whole_lines_are_cut_with_their_indentation() -> None:
    row = "def prime(n):\n    for k in range(2, int(n ** 0.5) + 1):\n        if n % k == 0:\n            return False\n"
    text = f"import math\n\n\n{row}    return n > 1\n\n\nclass A:\n    x = 1\n"
    made = index(row)
    assert cut(text, made, code=True).text == "import math\n\n\n    return n > 1\n\n\nclass A:\n    x = 1\n"


def test_a_text_without_an_overlap_is_left_as_it_is() -> None:
    text = "  \n\n A text.  \n\n\n\n with blanks \n"
    assert cut(text, index(QUESTION)) == (text, 0)
    assert cut("", index(QUESTION)) == ("", 0)


def test_an_overlap_that_cutting_makes_is_cut_as_well() -> None:
    words = QUESTION.split()
    text = f"Begin.\n{' '.join(words[:9])}\n{QUESTION}\n{' '.join(words[9:])}\nEnd."
    assert cut(text, index(QUESTION)).text == "Begin.\nEnd."
    nested = QUESTION
    for _ in range(20):
        nested = f"{' '.join(words[:9])}\n{nested}\n{' '.join(words[9:])}"
    assert cut(f"Begin.\n{nested}\nEnd.", index(QUESTION)).text == ""


WORDS = ["the", "cat", "sat", "on", "a", "mat.", "中", "文。", "\n", "x", "“", "”", "! "]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_text_nothing_of_the_sets_is_left_and_nothing_is_added(data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(WORDS), max_size=30)
    rows = [" ".join(data.draw(words)) for _ in range(2)]
    text = " ".join(data.draw(words)) + rows[0] + "".join(data.draw(words)) + rows[1][: data.draw(st.integers(0, 60))]
    made = index(*rows, ngram=5, shortest=5)
    for code in (False, True):
        left, characters = cut(text, made, code)
        assert made.overlap(left).ngrams == 0
        assert characters == len(text) - len(left)
        rest = iter(text)
        assert all(c in rest for c in left)


@settings(max_examples=200)
@given(st.text("aé½ﬃ①中\u0301각\u1100\u1161\u11a8 ", max_size=60), st.sets(st.integers(0, 80), min_size=1))
def test_places_in_the_text_are_the_same_whether_asked_for_one_or_many(text: str, places: set[int]) -> None:
    assert dict(_originals(text * 3, sorted(places))) == {place: _original(text * 3, place) for place in places}


def test_figures_between_two_cuts_go_with_them_and_sentences_stay() -> None:
    for between, amount in ((" 1 2 3 = 4.\n5 %\n", 1), (" Yes. ", 2), ("\n也好。\n", 2), ("\n", 1)):
        text = f"A b.\n{'x ' * 20}e.{between}{'y ' * 20}f.\nC d."
        first, second = text.index("x "), text.index("y ")
        stretches = [Stretch(first, first + 39, "set#0"), Stretch(second, second + 39, "set#1")]
        assert len(spans_of(text, stretches)) == amount


# ---- planted rows, at scale ----------------------------------------------------------------------------------------


def planted(samples: Path, amount: int) -> Iterator[tuple[str, str, list[str], str]]:
    """(language, text, rows planted in it, the text without them) of long pages."""
    rng = random.Random(7)
    with gzip.open(samples / "eval" / "gsm8k-test.jsonl.gz", "rt") as file:
        english = [json.loads(line)["question"] for line in file]
    with tarfile.open(samples / "eval" / "cmmlu.tar.gz") as archive:
        member = archive.extractfile("cmmlu/data/test/marketing.csv")
        assert member is not None
        chinese = [row["Question"] for row in csv.DictReader(io.TextIOWrapper(member, "utf-8"))]
    rows = {"en": [row for row in english if len(row) > 100], "zh": [row for row in chinese if len(row) > 30]}
    with gzip.open(samples / "cc" / "pages" / "pages-dev.jsonl.gz", "rt") as file:
        pages = [(page["lang"], page["gold_text"]) for line in file if (page := json.loads(line)).get("gold_text")]
    least = {"en": 4_000, "zh": 1_500}
    long = [[text for own, text in pages if own == language and len(text) > least[language]] for language in rows]
    for language, text in [(own, text) for own, many in zip(rows, long, strict=True) for text in many[: amount // 2]]:
        paragraphs = [paragraph for paragraph in text.split("\n") if paragraph.strip()]
        chosen = rng.sample(rows[language], rng.randrange(1, 4))
        made = list(paragraphs)
        for row in chosen:
            made.insert(rng.randrange(len(made) + 1), row)
        yield language, "\n".join(made), chosen, "\n".join(paragraphs)


def squeezed(text: str) -> str:
    return re.sub(r"\W", "", text)


def test_rows_planted_into_long_pages_are_gone_and_the_pages_stay(samples: Path) -> None:
    cases = list(planted(samples, 60))
    made = index(*dict.fromkeys(row for _, _, rows, _ in cases for row in rows))
    added = lost = 0
    for _, text, rows, page in cases:
        left, _ = cut(text, made)
        assert made.overlap(left).ngrams == 0
        assert not any(squeezed(row) in squeezed(left) for row in rows)
        added += len(squeezed(left)) - len(squeezed(page)) if len(left) > len(page) else 0
        lost += max(0, len(squeezed(page)) - len(squeezed(left)))
    assert {language for language, *_ in cases} == {"en", "zh"}
    assert added == 0
    assert lost <= 0.001 * sum(len(squeezed(page)) for *_, page in cases)


# ---- in curation ----------------------------------------------------------------------------------------------------


def raw_of(*texts: str, language: str = "en", source: str = "table") -> pa.Table:
    documents = [
        Document(id=document_id(source, str(k), text), text=text, source=source, uri=f"test:{k}", language=language)
        for k, text in enumerate(texts)
    ]
    return to_table(documents, RAW)


def configured(tmp_path: Path, *rows: str, preset: str = "none", **more: Any) -> CurateConfig:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps({"q": row}) + "\n" for row in rows), encoding="utf-8")
    return CurateConfig.model_validate({"preset": preset, "decontaminate": {"paths": [str(path)], **more}})


def test_an_article_is_not_lost_for_a_slogan(tmp_path: Path) -> None:
    paragraph = "会议听取了关于下半年工作的报告，讨论了城市更新、交通治理和老旧小区改造等议题，与会代表提出了不少建议。"
    article = "\n".join(f"第{k}段。{paragraph}" for k in range(600)) + f"\n会议强调，{SLOGAN}。散会后，代表们合影留念。"
    assert len(article) > 34_000
    raw = raw_of(article, f"{SLOGAN}。", language="zh")
    curation, documents = curate_batch(raw, configured(tmp_path, SLOGAN))
    rows = curation.to_pylist()
    assert [row["rule"] for row in rows] == [None, "contaminated"]
    (text,) = documents["text"].to_pylist()
    assert text == article.replace(f"会议强调，{SLOGAN}。", "")
    assert [row["contaminated_cut"] for row in rows] == [len(article) - len(text), 0]
    (span,) = rows[0]["contaminated_spans"]
    assert article[span["start"] : span["end"]] == f"会议强调，{SLOGAN}。"
    assert span["set"] == rows[0]["contaminated_set"] == "asked#0"
    strict, _ = curate_batch(raw, configured(tmp_path, SLOGAN, share=0))
    assert strict["rule"].to_pylist() == ["contaminated", "contaminated"]
    assert [row["contaminated_cut"] for row in strict.to_pylist()] == [0, 0]


def test_cuts_come_after_repair_and_line_edits_and_metrics_before(tmp_path: Path) -> None:
    line = "One can think of the many things that be in the world and what to do with them, number {}."
    cited = QUESTION.replace("friends", "friends[12]")
    text = "\n".join(line.format(word) for word in ("one", "two", "three", "four", "five", "six")) + f"\r\n{cited} Yes."
    config = configured(tmp_path, QUESTION, preset="c4")
    curation, documents = curate_batch(raw_of(text, text.replace(cited, "No.")), config)
    found = curation.to_pylist()
    assert [row["verdict"] for row in found] == ["kept", "kept"]
    assert found[0]["contaminated"] == 0  # the citation parts it, until the edits of C4 take it out
    assert found[0]["contaminated_cut"] > len(QUESTION)
    kept = documents["text"].to_pylist()[0]
    assert "Natalia" not in kept
    assert kept.endswith("number six.\nYes.")
    assert found[0]["chars"] == len(text) - 1


def test_a_document_of_which_nothing_is_left_is_rejected_and_what_if_knows(tmp_path: Path) -> None:
    question = " ".join(f"word{k}" for k in range(40)) + "."
    page = "\n".join(f"This is line number {k} of a page about something else altogether." for k in range(60))
    raw = raw_of(question, f"{page}\n{question}", f"{question} And more.", page)
    for preset in ("none", "ccnet"):
        loose = configured(tmp_path, question, preset=preset, share=1)
        curation, documents = curate_batch(raw, loose)
        first = {"none": "empty_after_edits", "ccnet": "min_chars"}[preset]
        assert curation["rule"].to_pylist()[0] == first
        assert documents.num_rows == {"none": 3, "ccnet": 2}[preset]
        for share in (0.0, 0.1, 0.6, 1.0):
            other = configured(tmp_path, question, preset=preset, share=share)
            rerun, _ = curate_batch(raw, other)
            for base, table in ((loose, curation), (other, rerun)):
                target = other if base is loose else loose
                told = rerun if base is loose else curation
                _, after = ask(table, base, target)
                assert after.columns().to_pylist() == told.select(["rule_set", "verdict", "rule", "rules"]).to_pylist()
