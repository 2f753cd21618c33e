"""Curation: one row per raw document, raw = documents + rejected, real pages kept and dropped for the right reasons."""

from __future__ import annotations

import gzip
import json
import pydoc
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import failed_rules

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch, curate_file
from datalake.curate.metrics.catalog import METRICS
from datalake.curate.metrics.measure import measure
from datalake.curate.rules_file import PRESETS, rule_sets
from datalake.curate.schema import CURATION
from datalake.document import Document, document_id
from datalake.tables import DOCUMENTS, RAW, to_table

# What only holds of English: stop words, word length, Latin terminals, FineWeb's English thresholds on lines.
ENGLISH_RULES = {
    rule
    for s in (*rule_sets("gopher"), *rule_sets("c4"), *rule_sets("fineweb"))
    for rule in s.rules
    if rule.languages == ("en",)
}


def document(text: str, language: str = "en", source: str = "common_crawl", score: float = 0.9) -> Document:
    return Document(
        id=document_id(source, language, text),
        text=text,
        source=source,
        uri=f"test:{len(text)}",
        language=language,
        language_score=score,
        attributes={"group": "g"},
    )


def prose(rng: random.Random, sentences: int = 12) -> str:
    """English-looking sentences that repeat nothing, three to a line."""
    common = ("the", "of", "and", "to", "that", "with", "have", "be")
    result = []
    for k in range(sentences):
        words = [
            rng.choice(common) if j % 3 else "".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9)))
            for j in range(12)
        ]
        result.append(" ".join(words).capitalize() + "." + ("\n" if k % 3 == 2 else " "))
    return "".join(result)


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    rng = random.Random(3)
    texts = [prose(rng) for _ in range(6)]
    documents = [
        *map(document, texts),
        document("Too short."),
        document("same line of the text again\n" * 40),
        document("我们在北京大学学习自然语言处理，这是一个很有意思的题目。\n", "zh"),
        document("def smallest(numbers):\n    return min(numbers, default=None)\n" * 20, source="code"),
        document("x" * 2000 + "\n", source="code"),
        document(" \n\x00\n "),
        document("", "und", score=0.0),
        document("\ufffd" * 50, "und", "table"),
        document("Une page française qui n'est pas très longue.", "fr"),
        document(
            "A short article. It says a thing or two about the town of Ham and its mayor, and then it ends.",
            "en",
            "wikipedia",
        ),
    ]
    return to_table(documents, RAW)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_raw_document_has_one_row_in_order_and_is_kept_or_rejected(raw: pa.Table, preset: str) -> None:
    curation, documents = curate_batch(raw, CurateConfig(preset=preset))
    assert curation.schema == CURATION
    assert documents.schema == DOCUMENTS
    assert curation["id"].to_pylist() == raw["id"].to_pylist()
    rows = curation.to_pylist()
    kept = [row["id"] for row in rows if row["verdict"] == "kept"]
    assert documents["id"].to_pylist() == kept
    assert documents.num_rows + sum(row["verdict"] == "rejected" for row in rows) == raw.num_rows
    for row in rows:
        assert (row["verdict"] == "kept") == (row["rule"] is None) == (row["rules"] == [])
        assert row["rules"][:1] == ([row["rule"]] if row["rule"] else [])
    if preset != "none":
        assert all(text.strip() for text in documents["text"].to_pylist())
    curation.validate(full=True)
    documents.validate(full=True)


def test_none_keeps_every_text_as_it_is(raw: pa.Table) -> None:
    curation, documents = curate_batch(raw, CurateConfig(preset="none"))
    assert documents.equals(raw)
    assert curation["chars"].to_pylist() == [len(text) for text in raw["text"].to_pylist()]


def test_auto_keeps_and_drops_each_for_its_reason(raw: pa.Table) -> None:
    rows = curate_batch(raw, CurateConfig())[0].to_pylist()
    assert [row["verdict"] for row in rows[:6]] == ["kept"] * 6
    assert "min_words" in rows[6]["rules"]
    assert rows[7]["rules"] == ["top_2gram", "top_3gram", "top_4gram", "max_char_dup", "min_prose"]
    assert rows[8]["rules"] == ["min_words"]
    assert rows[9]["verdict"] == "kept"
    assert rows[10]["rules"] == ["max_line", "mean_line"]
    assert rows[11]["rule"] == "min_words"
    assert rows[12]["rule"] == "min_words"
    assert rows[15]["rule_set"] == "wiki"
    assert rows[15]["rule"] == "min_words"


def test_a_source_with_a_name_of_its_own_is_judged_by_its_kind() -> None:
    text = "def smallest(numbers):\n    return min(numbers, default=None)\n"
    table = to_table([document(text, "und", source) for source in ("code", "mine", "other")], RAW)
    rows = curate_batch(table, CurateConfig(kinds={"mine": "code"}, languages=("en",)))[0].to_pylist()
    assert [(row["source"], row["rule_set"], row["verdict"]) for row in rows] == [
        ("code", "code", "kept"),
        ("mine", "code", "kept"),
        ("other", "any", "rejected"),
    ]


def test_what_provenance_says_is_passed_on(raw: pa.Table) -> None:
    _, documents = curate_batch(raw, CurateConfig())
    originals = {row["id"]: row for row in raw.to_pylist()}
    for row in documents.to_pylist():
        assert {k: v for k, v in row.items() if k != "text"} == {
            k: v for k, v in originals[row["id"]].items() if k != "text"
        }


def test_the_ledger_alone_gives_every_verdict_again(raw: pa.Table) -> None:
    for preset in PRESETS:
        for row in curate_batch(raw, CurateConfig(preset=preset))[0].to_pylist():
            rules = next(s for s in rule_sets(preset) if s.name == row["rule_set"]).rules
            metrics = {metric.name: row[metric.name] for metric in METRICS}
            assert failed_rules(metrics, rules, row["language"]) == [
                r for r in row["rules"] if r != "empty_after_edits"
            ]


def test_metrics_are_those_of_the_repaired_text() -> None:
    text = "cafe\u0301 \x00one\r\n\r\n\r\n\r\ntwo"
    row = curate_batch(to_table([document(text, "fr")], RAW), CurateConfig())[0].to_pylist()[0]
    want = measure(
        "caf\u00e9 one\n\ntwo".replace("one", "\ufffdone"), "fr", row["language_score"]
    )  # tables replace NUL
    assert {metric.name: row[metric.name] for metric in METRICS} == want


def test_c4_keeps_the_lines_that_end_a_sentence_and_drops_pages_with_none() -> None:
    good = (
        "This line has more than five words. And [1] two sentences.\nMenu\n"
        "Another line which ends as it should.\nNo end here at all you see\n"
    )
    rows, documents = curate_batch(to_table([document(good)], RAW), CurateConfig(preset="c4"))
    assert rows["c4_lines"].to_pylist() == [2]
    assert documents["text"].to_pylist() == [
        "This line has more than five words. And  two sentences.\nAnother line which ends as it should."
    ]
    for bad, rule in (
        (good + "function f() { return the value you want. }.\n", "curly_bracket"),
        (good + "Here is some lorem ipsum for your page.\n", "lorem_ipsum"),
        ("One line of five words.\nTwo.\nThree", "min_sentences"),
    ):
        rows, documents = curate_batch(to_table([document(bad)], RAW), CurateConfig(preset="c4"))
        assert rows["rule"].to_pylist() == [rule]
        assert documents.num_rows == 0


def test_refinedweb_takes_out_addresses_counters_and_snippets_and_drops_pages_that_lose_much() -> None:
    rng = random.Random(8)
    body = [prose(rng, 3).strip() for _ in range(14)]
    page = "\n".join(
        ["Sign-in to have the best of it", *body[:7], "1,234 likes", *body[7:], "See https://a.example/x?y=1"]
    )
    curation, documents = curate_batch(to_table([document(page)], RAW), CurateConfig(preset="refinedweb"))
    assert curation["verdict"].to_pylist() == ["kept"], curation["rules"].to_pylist()
    # "See" alone is less than two words.
    assert documents["text"].to_pylist() == ["\n".join(["to have the best of it", *body])]
    words = 7 + sum(len(line.split()) for line in body) + 2 + 1
    assert curation["dclm_removed"].to_pylist() == [pytest.approx((1 + 2 + 1) / words)]
    shouted = "\n".join([*body[:4], "BUY ALL OF THE BEST HERE AND NOW TODAY"])
    assert curate_batch(to_table([document(shouted)], RAW), CurateConfig(preset="dclm"))[0]["rules"].to_pylist() == [
        ["max_removed"]
    ]


@pytest.mark.parametrize(
    ("compat", "kept"), [("", "five words of it."), ("paper", "three of it."), ("datatrove", "some of that'")]
)
def test_readings_of_c4_keep_other_lines(compat: str, kept: str) -> None:
    lines = ["There are five words of it.", "Only three of it.", "and some of that'", "no mark at the end"]
    page = "\n".join(lines * 2 + ["This is the last of the sentences here."] * 3)
    curation, documents = curate_batch(to_table([document(page)], RAW), CurateConfig(preset="c4", compat=compat))
    assert curation["verdict"].to_pylist() == ["kept"]
    last = {line for line in documents["text"].to_pylist()[0].split("\n") if line in lines}
    assert {line for line in last if line.endswith(kept)}
    assert last == {"": set(lines[:1]), "paper": set(lines[:2]), "datatrove": set(lines[:3])}[compat]


def test_chinesewebtext_drops_traditional_and_repeated_text_for_these_reasons() -> None:
    text = "".join(
        f"第{k}条，我们在北京大学学习了{k * 7919}种不同的自然语言处理方法，并且写成了报告。" for k in range(12)
    )
    texts = [
        text,
        text.replace("我们", "我們"),
        "我们在北京大学学习自然语言处理方法并且写成了报告。" * 20,
        "no Chinese at all " * 30,
    ]
    rows = curate_batch(to_table([document(t, "zh") for t in texts], RAW), CurateConfig(preset="chinesewebtext"))[
        0
    ].to_pylist()
    assert [row["rules"] for row in rows] == [[], ["traditional"], ["max_char_13gram"], ["min_han", "max_char_13gram"]]


def test_starcoder_asks_for_comments_and_moderate_data() -> None:
    line = "total = sum(values) / len(values)\n"
    files = [
        ("# why this is done at all\n" + line * 9, "Python", []),
        (line * 40, "Python", ["min_comments"]),
        ("# words and words\n" * 20 + line, "Python", ["max_comments"]),
        (line * 40, "Ruby", []),
        ('{"name": "value"}\n', "JSON", ["min_data_chars"]),
        ("<p>" + "plain words for readers\n" * 20 + "</p>", "HTML", []),
        ("<p>few words</p>" + "<div class='box'></div>\n" * 60, "HTML", ["min_html_ratio", "min_html_text"]),
    ]
    documents = [
        replace(document(text, "und", "code"), attributes={"programming_language": language})
        for text, language, _ in files
    ]
    rows = curate_batch(to_table(documents, RAW), CurateConfig(preset="code", compat="starcoder"))[0].to_pylist()
    assert [row["rules"] for row in rows] == [rules for *_, rules in files]


def test_a_document_of_which_edits_leave_nothing_is_rejected() -> None:
    config = CurateConfig(preset="c4", thresholds={"min_sentences": 0})
    rows, documents = curate_batch(to_table([document("Menu\nHome\nAbout")], RAW), config)
    assert rows["rules"].to_pylist() == [["empty_after_edits"]]
    assert documents.num_rows == 0


def test_line_edits_of_english_presets_leave_other_languages_whole() -> None:
    text = "菜单\n我们在北京大学学习自然语言处理\n这里没有句号\n[1] javascript"
    for preset in ("c4", "fineweb"):
        config = CurateConfig(preset=preset, thresholds={} if preset == "c4" else {"min_words": 0})
        _, documents = curate_batch(to_table([document(text, "zh")], RAW), config)
        assert documents["text"].to_pylist() == [text]


def test_languages_kept_can_be_named_and_code_is_not_asked(raw: pa.Table) -> None:
    rows = curate_batch(raw, CurateConfig(preset="gopher", languages=("zh", "fr")))[0].to_pylist()
    for row in rows:
        assert ("language" in row["rules"]) == (row["language"] not in ("zh", "fr") and row["source"] != "code")
        assert row["rule"] != "min_words" or row["language"] in ("zh", "fr") or row["source"] == "code"


def test_a_changed_threshold_changes_the_verdict_and_nothing_else(raw: pa.Table) -> None:
    before, _ = curate_batch(raw, CurateConfig())
    after, _ = curate_batch(raw, CurateConfig(thresholds={"wiki/min_words": 5}))
    assert after.to_pylist()[15]["verdict"] == "kept"
    names = [metric.name for metric in METRICS]
    assert before.select(names).equals(after.select(names))
    assert before.slice(0, 15).equals(after.slice(0, 15))


def test_a_file_is_curated_as_its_rows_are_and_in_bounded_pieces(raw: pa.Table, tmp_path: Path) -> None:
    many = pa.concat_tables([raw] * 400).combine_chunks()
    pq.write_table(many, tmp_path / "raw.parquet", row_group_size=5000)
    pairs = list(curate_file(tmp_path / "raw.parquet", CurateConfig()))
    assert [curation.num_rows for curation, _ in pairs] == [4096, 904, 1400]
    curation, documents = curate_batch(raw, CurateConfig())
    assert pa.concat_tables([c for c, _ in pairs]).slice(16 * 399).equals(curation)
    assert pa.concat_tables([d for _, d in pairs]).num_rows == 400 * documents.num_rows


def test_record_batches_and_empty_tables_are_taken(raw: pa.Table) -> None:
    table = curate_batch(raw, CurateConfig())
    batch = curate_batch(raw.combine_chunks().to_batches()[0], CurateConfig())
    assert all(a.equals(b) for a, b in zip(table, batch, strict=True))
    curation, documents = curate_batch(raw.slice(0, 0), CurateConfig())
    assert (curation.num_rows, documents.num_rows) == (0, 0)
    assert (curation.schema, documents.schema) == (CURATION, DOCUMENTS)


def test_a_file_without_the_columns_of_raw_is_refused_with_the_reason(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="column 'id' is missing"):
        list(curate_file(tmp_path / "other.parquet", CurateConfig()))


def test_pages_of_pydoc_are_kept() -> None:
    modules = ("json", "bisect", "textwrap", "statistics", "heapq", "string", "fractions", "argparse", "csv", "shutil")
    pages = [document(pydoc.plain(pydoc.render_doc(name)), source="pydoc") for name in modules]
    curation, documents = curate_batch(to_table(pages, RAW), CurateConfig())
    assert documents.num_rows == len(modules), curation.select(["rule", "words", "alpha_words"]).to_pylist()


def chinese(samples: Path) -> list[Document]:
    documents = []
    with gzip.open(samples / "cc" / "pages" / "pages-dev.jsonl.gz", "rt", encoding="utf-8") as stream:
        for page in map(json.loads, stream):
            if page.get("gold_text") and page["lang"] == "zh":
                documents.append(document(page["gold_text"], "zh"))
    with gzip.open(samples / "text" / "chinesewebtext-2021-43-cleared1.jsonl.gz", "rt", encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            documents.append(document(row["raw_content"], "zh"))
    return documents


@pytest.mark.parametrize("preset", PRESETS)
def test_no_chinese_text_is_lost_to_a_rule_for_english(samples: Path, preset: str) -> None:
    documents = chinese(samples)
    assert len(documents) > 150
    rows = curate_batch(to_table(documents, RAW), CurateConfig(preset=preset))[0].to_pylist()
    english = {rule.name for rule in ENGLISH_RULES}
    own = {rule.name: rule for s in rule_sets(preset) for rule in s.rules}
    for row in rows:
        if row["rule_set"] in ("chinese", "fineweb2-zh"):
            chosen = next(s for s in rule_sets(preset) if s.name == row["rule_set"])
            assert set(row["rules"]) <= {rule.name for rule in chosen.rules}
        else:
            assert not [name for name in row["rules"] if name in english and own[name] in ENGLISH_RULES]


def test_auto_keeps_most_chinese_prose_and_drops_menus(samples: Path) -> None:
    rows = curate_batch(to_table(chinese(samples), RAW), CurateConfig())[0].to_pylist()
    pages, crawl = rows[:-100], rows[-100:]  # main content by hand; a crawl's lines, advertising included
    assert sum(row["verdict"] == "kept" for row in pages) / len(pages) > 0.85
    assert sum(row["verdict"] == "kept" for row in crawl) / len(crawl) > 0.5
    menu = "\n".join(f"{word}{k}" for k in range(20) for word in ("首页", "新闻", "体育", "财经", "登录"))
    row = curate_batch(to_table([document(menu, "zh")], RAW), CurateConfig())[0].to_pylist()[0]
    assert {"min_prose", "min_stop_share", "min_stop_words"} <= set(row["rules"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.text(max_size=200), st.sampled_from(("en", "zh", "ja", "ko", "th", "und"))), max_size=4),
    st.sampled_from(PRESETS),
)
def test_no_text_makes_curation_raise(texts: list[tuple[str, str]], preset: str) -> None:
    table = to_table([document(text, language, score=0.0) for text, language in texts], RAW)
    curation, documents = curate_batch(table, CurateConfig(preset=preset))
    kept = curation["verdict"].to_pylist().count("kept")
    assert (curation.num_rows, documents.num_rows) == (len(texts), kept)
