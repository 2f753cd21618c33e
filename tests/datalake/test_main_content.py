"""The extractor's parts: blocks as a reader sees them, features, flat trees, and which blocks a page keeps."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datalake.errors import UserError
from datalake.extract.html import blocks as b
from datalake.extract.html import main_content
from datalake.extract.html.charset import decode
from datalake.extract.html.features import FIRST_NAMES, SECOND_NAMES, first_features, second_features
from datalake.extract.html.forest import Forest, from_lightgbm, load, named, predict, scorer
from datalake.extract.html.main_content import load_model, probabilities, text_of, whole_text
from datalake.extract.html.page import extract
from datalake.identity import fingerprint
from datalake.sources.web.config import Extractor

PAGES = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples")) / "cc/pages"
TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_]+")


def lines(html: str) -> list[str]:
    """The text of each block."""
    page = b.cut(html)
    alone = np.zeros(len(page.blocks), np.bool_)
    out = []
    for k in range(len(alone)):
        alone[:] = False
        alone[k] = True
        out.append(text_of(page, alone))
    return out


def tags(html: str) -> list[str]:
    """The tag of each block's element."""
    page = b.cut(html)
    return [b.TAGS[page.elements[e, b.E_TAG]] for e in page.blocks[:, b.ELEMENT]]


def column(html: str, number: int) -> list[int]:
    return [int(value) for value in b.cut(html).blocks[:, number]]


@pytest.mark.parametrize(
    ("html", "texts"),
    [
        ("<p>one<p>two</p>three", ["one", "two", "three"]),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", ["- a", "- b", "- c"]),
        ("a <b>bold</b> <i>and</i>\n\tspaced", ["a bold and spaced"]),
        ("a<br>b", ["a", "b"]),
        ("a<!-- no <p>b</p> -->c<!-->d<!--->e", ["acde"]),
        ("<script>if (a < b) '<p>no'</script>yes<style>p{}</style>", ["yes"]),
        ("<script>never closed <p>a", []),
        ("<a title='>' href=x>link</a>", ["link"]),
        ("1 < 2 and 3 <4 <p", ["1 < 2 and 3 <4"]),
        ("&lt;b&gt; &amp; &#65;&#x42; &nosuch; caf&eacute;", ["<b> & AB &nosuch; café"]),
        ("<pre>a\n  b</pre>", ["a\n  b"]),
        ("<table><tr><td>1<td>2<tr><td>3", ["1", "2", "3"]),
        ("<TITLE>no</TITLE><H1>Yes</H1>", ["Yes"]),
        ("<?xml version='1.0'?><!doctype html>text", ["text"]),
        ("", []),
        ("   \n ", []),
    ],
)
def test_a_page_is_cut_at_block_level_tags_and_line_breaks(html: str, texts: list[str]) -> None:
    assert lines(html) == texts


def test_end_tags_that_may_be_left_out_are_implied() -> None:
    assert tags("<p>a<div>b</div>c") == ["p", "div", ""]
    assert tags("<dl><dt>a<dd>b<dt>c</dl>d") == ["dt", "dd", "dt", ""]
    assert tags("<table><tr><td>a</div><th>b</table>c") == ["td", "th", ""]
    assert column("<ul><li>a<li>b</ul>", b.ELEMENT) == [2, 3]


def test_what_a_block_counts() -> None:
    html = "<p>It is <a href=x>a link</a>, 42 <b>Bold</b> 中文。</p><p><a name=x>no link</a></p>"
    assert column(html, b.WORDS) == [8, 2]
    assert column(html, b.CHARS) == [len("It is a link, 42 Bold 中文。"), 7]
    assert column(html, b.LINK_CHARS) == [7, 0]  # white space belongs to what follows it
    assert column(html, b.BOLD_CHARS) == [5, 0]
    assert column(html, b.PUNCTUATION) == [2, 0]
    assert column(html, b.DIGITS) == [2, 0]
    assert column(html, b.UPPER) == [2, 0]
    assert column(html, b.ENDS_SENTENCE) == [1, 0]
    assert column(html, b.LINKS) == [1, 0]


def test_words_are_counted_as_the_projects_pattern_counts_them() -> None:
    for text in ("Ein Wort_mit Strich, 3.14 und naïve", "日本語 and 中文字", "a-b c'd", "ⅷ ½ ²"):
        assert column(text, b.WORDS) == [len(TOKEN.findall(text))]


def test_equal_texts_have_an_equal_hash_whatever_their_markup() -> None:
    one, two, three = column("<p>Read more</p><div>read <b>MORE</b></div><p>read less</p>", b.HASH)
    assert one == two != three


def test_keywords_of_classes_and_hidden_elements() -> None:
    page = b.cut(
        "<div id=Comment-List class='x'>a</div><div style='color:red; DISPLAY : none'>b</div><div hidden>c</div>d"
    )
    element = page.elements[page.blocks[:, b.ELEMENT]]
    bits = element[0, b.E_KEYWORDS]
    assert {word for k, word in enumerate(b.KEYWORDS) if bits >> k & 1} == {"comment", "list"}
    assert element[:, b.E_HIDDEN].tolist() == [0, 1, 1, 0]
    assert whole_text(page) == "a\n\nd"


def test_layout_as_a_reader_sees_it() -> None:
    page = b.cut(
        "<h1>Head</h1><p>one<br>two<br><br>three</p><ul><li>x<li>y</ul>"
        "<table><tr><th>a<th>b</tr><tr><td>1<td>2</tr></table><pre>  k:\n    v\n</pre>"
    )
    assert whole_text(page) == "Head\n\none\ntwo\n\nthree\n\n- x\n- y\n\na | b\n1 | 2\n\n  k:\n    v"


def test_more_blocks_than_the_bound_lose_no_text() -> None:
    text = whole_text(b.cut("<p>w" * (b.MAX_BLOCKS + 1000)))
    assert text.count("w") == b.MAX_BLOCKS + 1000
    assert "w w w" in text  # the last block takes what is left


def test_features_of_blocks_by_name() -> None:
    page = b.cut(
        "<title>The long story</title><div class=nav><a href=x>Home</a></div>"
        "<div class=content><h1>The long story</h1><p>It went on, and on.</p><p>It went on, and on.</p></div>"
    )
    first, kinds = first_features(page)
    assert first.shape == (4, len(FIRST_NAMES))
    value = {name: first[:, k].tolist() for k, name in enumerate(FIRST_NAMES)}
    assert value["link_share"] == [1, 0, 0, 0]
    assert value["of_title"] == [0, 1, 0, 0]
    assert value["from_h1"] == [-1, 0, 1, 2]
    assert value["named_nav"] == [2, 0, 0, 0]
    assert value["named_content"] == [0, 2, 2, 2]
    assert value["same_text"] == [1, 1, 2, 2]
    assert value["same_kind"] == [1, 1, 2, 2]
    assert value["neighbour_-1_words"] == [-1, 1, 3, 5]
    assert value["neighbour_1_words"] == [3, 5, 5, -1]
    assert value["window_5_words"] == [14] * 4
    assert value["words_before"] == pytest.approx([0, 1 / 14, 4 / 14, 9 / 14])
    assert kinds.tolist() == [0, 1, 2, 2]
    second = second_features(np.array([0.0, 0.5, 1.0, 0.8]), first, kinds)
    assert second.shape == (4, len(SECOND_NAMES))
    value = {name: second[:, k].tolist() for k, name in enumerate(SECOND_NAMES)}
    assert value["score_-1"] == pytest.approx([-1, 0, 0.5, 1])
    assert value["content"] == pytest.approx([10.5] * 4)
    assert value["kind_score"] == pytest.approx([0, 0.5, 0.9, 0.9])
    assert value["rank"] == [3, 2, 0, 1]


def test_a_forest_adds_up_its_leaves() -> None:
    forest = Forest(
        np.array([0, ~2], np.int32),  # a split, and a tree that is one leaf
        np.array([1], np.int32),
        np.array([0.5], np.float32),
        np.array([~0], np.int32),
        np.array([~1], np.int32),
        np.array([-1.0, 2.0, 0.25], np.float32),
    )
    rows = np.array([[9, 0.5], [9, 0.6]], np.float32)
    assert predict(scorer(forest), rows) == pytest.approx([1 / (1 + np.exp(0.75)), 1 / (1 + np.exp(-2.25))])
    assert predict(scorer(load(named(forest, "x"), "x")), rows).tolist() == predict(scorer(forest), rows).tolist()


def grown(rng: np.random.Generator, trees: int, width: int, leaves: int) -> Forest:
    """Trees of any shape with up to `leaves` leaves, features and thresholds at random."""
    roots, left, right, value = [], [], [], 0
    for _ in range(trees):
        ends: list[tuple[list[int], int]] = [(roots, len(roots))]
        roots.append(0)
        for _ in range(int(rng.integers(0, leaves))):
            where, place = ends.pop(int(rng.integers(len(ends))))
            where[place] = len(left)
            ends += [(left, len(left)), (right, len(right))]
            left.append(0)
            right.append(0)
        for where, place in ends:
            where[place] = ~value
            value += 1
    splits = len(left)
    return Forest(
        np.array(roots, np.int32),
        rng.integers(0, width, splits).astype(np.int32),
        rng.normal(size=splits).round(1).astype(np.float32),
        np.array(left, np.int32),
        np.array(right, np.int32),
        rng.normal(size=value).astype(np.float32),
    )


@pytest.mark.parametrize("leaves", [1, 2, 31, 64])
def test_trees_that_are_not_walked_give_what_walking_them_gives(leaves: int) -> None:
    rng = np.random.default_rng(leaves)
    forest = grown(rng, 50, 6, leaves)
    for count in (0, 1, 63, 64, 65, 300):
        rows = rng.normal(size=(count, 6)).round(1).astype(np.float32)  # often equal to a threshold
        rows[: count // 9, 0] = np.nan  # is at most nothing
        sums = np.zeros(count)
        for root in forest.roots:
            for row in range(count):
                node = root
                while node >= 0:
                    goes_left = rows[row, forest.feature[node]] <= forest.threshold[node]
                    node = (forest.left if goes_left else forest.right)[node]
                sums[row] += forest.value[~node]
        assert predict(scorer(forest), rows).tolist() == (1.0 / (1.0 + np.exp(-sums))).tolist()


def test_a_tree_too_large_and_one_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="train with at most 64"):
        scorer(grown(np.random.default_rng(2), 20, 3, 90))
    forest = grown(np.random.default_rng(3), 1, 3, 20)
    forest.left[-1] = 0  # leads back to the root
    with pytest.raises(ValueError, match="no trees"):
        scorer(forest)


def test_flat_trees_predict_what_lightgbm_predicts() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 5)).astype(np.float32)
    target = (rows[:, 0] * rows[:, 1] > 0.1).astype(float)
    options: dict[str, Any] = {"objective": "cross_entropy", "num_leaves": 15, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(options, lightgbm.Dataset(rows, target), 30)
    ours = predict(scorer(from_lightgbm(booster.dump_model())), rows)
    assert np.abs(ours - booster.predict(rows)).max() < 1e-6


def test_a_page_keeps_its_article_and_leaves_out_what_surrounds_it() -> None:
    story = "".join(
        f"<p>Paragraph {k} tells, at some length and in whole sentences, what happened on day {k} of the journey.</p>"
        for k in range(8)
    )
    page = (
        "<title>A journey</title><div class=menu><ul>"
        + "".join(f"<li><a href=/{k}>Section {k}</a>" for k in range(12))
        + f"</ul></div><div class=article><h1>A journey</h1>{story}</div>"
        + "<div class=footer>Copyright | <a href=/p>Privacy policy</a> | <a href=/t>Terms of use</a></div>"
    )
    text = extract(page).text
    assert all(f"Paragraph {k} tells" in text for k in range(8))
    assert "Section" not in text
    assert "Privacy" not in text
    assert "Section 3" in extract(page, main_content=False).text


STORY = "".join(
    f"<p>Paragraph {k} tells, at some length and in whole sentences, what happened on day {k} of the journey.</p>"
    for k in range(8)
)


@pytest.mark.parametrize("title", ["", "<title>News</title>", "<title>A journey of days - The Paper</title>"])
def test_a_block_that_says_the_heading_again_is_left_out(title: str) -> None:
    page = (
        f"{title}<article><p>A Journey of Days</p><h1>A journey of days</h1>{STORY}<p>A journey of days</p></article>"
    )
    text = extract(page).text
    assert text.lower().count("a journey of days") == 1
    assert text.startswith("A journey of days\n\nParagraph 0")  # as the heading, not as the line before it


@pytest.mark.parametrize(
    "title",
    [
        *("A long journey &#8211; The Paper", "The Paper | A long journey", "The Paper: A long journey"),
        *("A long journey", "A long journey » 2012 » The Paper", "A  Long\nJourney"),
    ],
)
def test_a_part_of_the_title_is_a_heading(title: str) -> None:
    page = f"<title>{title}</title><article><p>A long journey</p>{STORY}<p>A long journey</p></article>"
    text = extract(page).text
    assert text.startswith("A long journey\n\nParagraph 0")
    assert text.count("A long journey") == 1


@pytest.mark.parametrize(
    ("title", "line"),
    [
        ("Yesterday", "Yesterday"),  # too short to be told from a line that is meant
        ("A long journey home", "A long journey"),  # a part that nothing parts from the rest
        ("A long-journey home", "A long"),
        ("Another title", "A long journey"),
        ("", "..."),
    ],
)
def test_lines_that_are_no_heading_may_be_said_again(title: str, line: str) -> None:
    page = f"<title>{title}</title><article>{STORY}<p>{line}</p>{STORY}<p>{line}</p>{STORY}</article>"
    assert extract(page).text.count(line) == 2


def test_other_extractors_can_be_asked() -> None:
    page = "<body><nav><a href=/>Home</a></nav><main><p>The content of the page is this paragraph.</p></main></body>"
    assert extract(page, True, "resiliparse").text == "The content of the page is this paragraph."
    pytest.importorskip("trafilatura")
    assert "content of the page" in extract(page, True, "trafilatura").text


def test_trafilatura_is_asked_as_fineweb_asks_it_and_remembers_no_page() -> None:
    pytest.importorskip("trafilatura")
    told = "The harbour was closed for the winter, and the fishermen mended nets in the long hall, says who was there."
    once = "Nobody had seen the lighthouse keeper since the first storm of the year came over the bay."
    comment = "I was there myself and it was not like that at all, says a reader who writes a comment."
    body = "".join(f"<p>{text}</p>" for text in (once, *[told] * 6))
    page = f"<html><body><article><h1>News</h1>{body}</article><div id='comments'><p>{comment}</p></div></body></html>"
    first = extract(page, True, "trafilatura").text
    assert first.count(told) < 6
    assert first.count(once) == 1
    assert comment not in first
    assert all(extract(page, True, "trafilatura").text == first for _ in range(5))


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"no\.npz is no model"):
        load_model(str(tmp_path / "no.npz"))
    with np.load(main_content.MODEL) as arrays:
        np.savez(tmp_path / "old.npz", **(dict(arrays) | {"features": np.array(["words"])}))
    with pytest.raises(UserError, match="trained for other features"):
        load_model(str(tmp_path / "old.npz"))


@given(
    st.lists(st.sampled_from(["<p>", "</p>", "<td>", "a ", "<a href=x>", "中。", "<title>", "</title>", "&#x", "<br>"]))
)
@settings(max_examples=100)
def test_probabilities_are_probabilities(parts: list[str]) -> None:
    page = b.cut("".join(parts))
    if len(page.blocks):
        likely = probabilities(page, load_model())
        assert ((likely > 0) & (likely < 1)).all()


def test_real_pages_agree_with_their_gold() -> None:
    """The shipped model has seen these pages: this holds code and model together, it is no measure of quality."""
    if not PAGES.is_dir():
        pytest.skip(f"no samples at {PAGES}")
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with gzip.open(PAGES / "pages-dev.jsonl.gz", "rt", encoding="utf-8") as rows:
        gold = {row["origin"]: row for row in map(json.loads, rows) if "gold_text" in row}
    scores = []
    with (PAGES / "pages-dev-00000.warc.gz").open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            row = gold.get(record.headers.get("X-Sample-Origin") or "")
            if row is None or row["origin"].startswith("pagesignal"):  # whose gold is markup
                continue
            found = Counter(TOKEN.findall(extract(decode(record.reader.read())[0]).text.lower()))
            wanted = Counter(TOKEN.findall(row["gold_text"].lower()))
            scores.append(2 * (found & wanted).total() / max(1, found.total() + wanted.total()))
    assert len(scores) > 150
    assert sum(scores) / len(scores) > 0.93


def test_the_model_that_ships_is_for_these_features() -> None:
    model = load_model()
    assert model.first.feature.max() < len(FIRST_NAMES)
    assert model.second.feature.max() < len(SECOND_NAMES)
    assert main_content.MODEL.stat().st_size < 200_000


def test_a_model_or_a_library_enters_identity_by_its_version(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.npz").write_bytes(b"one model")
    (tmp_path / "c.npz").write_bytes(b"another")
    one, moved, other = (fingerprint(Extractor(model=str(tmp_path / f"{name}.npz"))) for name in "abc")
    assert one == moved != other
    assert fingerprint(Extractor()) not in (one, other)
    with pytest.raises(ValidationError, match="there is no file"):
        Extractor(model=str(tmp_path / "missing"))
    pytest.importorskip("trafilatura")
    assert Extractor(name="trafilatura").library.startswith(f"{version('trafilatura')}, ")
