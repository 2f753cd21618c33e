"""Lists that a user gives: addresses held to a plain reading of the lists, toxic words to C4's own expression."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.checks.lists import BlockLists, address_keys, block_lists_of, entry_key, split_address
from datalake.curate.checks.lists_config import BlockConfig, ToxicConfig, list_files
from datalake.curate.checks.toxic import ToxicWords
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.what_if import NeedsRerunError, ask
from datalake.document import RAW, Document, document_id, to_table
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.text.automaton import Automaton


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def ut1(tmp_path: Path) -> Path:
    """A folder of categories as UT1's archive has them."""
    root = tmp_path / "ut1"
    write(root / "adult" / "domains", "bad.example", "www.worse.example", "bücher.example", "", "10.1.2.3", "foo bar")
    write(root / "adult" / "urls", "mixed.example/~user/x", "Pages.example/A%20b/", "query.example/view?id=7")
    write(root / "adult" / "usage", "black")
    write(root / "gambling" / "domains.gz", "casino.example", "bad.example")
    write(root / "README", "good.example")
    return root


@pytest.fixture
def lists(ut1: Path) -> BlockLists:
    return block_lists_of(BlockConfig(paths=[str(ut1)]))


@pytest.mark.parametrize(
    ("uri", "by"),
    [
        ("http://bad.example", "adult/domains: bad.example"),
        ("https://www.BAD.example.:8443/x?y#z", "adult/domains: bad.example"),
        ("https://a.b.bad.example/", "adult/domains: bad.example"),
        ("https://user:pw@shop.worse.example/", "adult/domains: worse.example"),
        ("https://Bücher.example/", "adult/domains: xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/", "adult/domains: xn--bcher-kva.example"),
        ("https://bücher。example/", "adult/domains: xn--bcher-kva.example"),
        ("http://10.1.2.3/", "adult/domains: 10.1.2.3"),
        ("http://mixed.example/~user/x/", "adult/urls: mixed.example/~user/x"),
        ("http://www.mixed.example:80/%7EUser//x/y/z.html?q=1", "adult/urls: mixed.example/~user/x"),
        ("http://pages.example/a b/c", "adult/urls: pages.example/a b"),
        ("http://query.example/view?id=7#top", "adult/urls: query.example/view?id=7"),
        ("ftp://casino.example/", "gambling/domains: casino.example"),
        ("<http://casino.example/>", "gambling/domains: casino.example"),
    ],
)
def test_listed_addresses_are_blocked_and_the_entry_is_named(lists: BlockLists, uri: str, by: str) -> None:
    assert lists.find(uri).by == by
    assert lists.find(uri).entries >= 1


@pytest.mark.parametrize(
    "uri",
    [
        "http://notbad.example/", "http://example/", "http://bad.example.org/", "http://mixed.example/",
        "http://mixed.example/~user/xy", "http://a.mixed.example/~user/x", "http://query.example/view?id=8",
        "http://query.example/view", "http://good.example/", "http://black/", "http://1.10.1.2.3/", "http://2.3/",
        "path/bad.example#3", "repository@abc/bad.example/x.py", "bad.example", "", "http://", "http://[::1]/",
        "http:///bad.example", "mailto:x@bad.example", "http://\ud800.example/", "http://" + "a." * 200 + "com/",
    ],
)  # fmt: skip
def test_other_addresses_are_not(lists: BlockLists, uri: str) -> None:
    assert lists.find(uri) == (0, None)


def test_what_is_read_is_counted(lists: BlockLists) -> None:
    assert [tuple(counts) for counts in lists.counts] == [
        ("adult/domains", 4, 1), ("adult/urls", 3, 0), ("gambling/domains", 2, 0),
    ]  # fmt: skip


def test_words_and_parts_of_words_in_addresses(tmp_path: Path) -> None:
    words, parts = write(tmp_path / "words.txt", "Bet", "色情"), write(tmp_path / "parts", "p0rn")
    lists = block_lists_of(BlockConfig(words=[str(words)], subwords=[str(parts)]))
    assert lists.find("http://x.example/play-BET_now") == (1, "words.txt: bet")
    assert lists.find("http://x.example/%E8%89%B2%E6%83%85/") == (1, "words.txt: 色情")
    assert lists.find("http://freep0rn.example/bet") == (2, "words.txt: bet")
    assert lists.find("http://better.example/alphabet") == (0, None)
    assert lists.find("http://x.example/free-p0-rn") == (1, "parts: p0rn")


def test_parts_are_compared_without_separators_and_soft_words_count_together(tmp_path: Path) -> None:
    parts, soft = write(tmp_path / "parts", "on-line.casino", "--"), write(tmp_path / "soft", "live", "cam", "girls")
    lists = block_lists_of(BlockConfig(subwords=[str(parts)], soft_words=[str(soft)]))
    assert lists.find("http://www.onlinecasi.no.example/") == (1, "parts: onlinecasino")
    assert lists.find("http://x.example/live/news?live=1") == (0, None)
    assert lists.find("http://cam.example/LIVE") == (2, "soft: cam")
    assert [tuple(counts) for counts in lists.counts] == [("parts", 1, 0), ("soft", 3, 0)]
    assert BlockConfig(soft_words=[str(soft)]).lists_version != BlockConfig(words=[str(soft)]).lists_version


LABEL = st.sampled_from(["a", "b", "www", "com", "1", "x-y"])
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATH = st.lists(st.sampled_from(["", "p", "q", "P", "%70"]), max_size=3).map(
    lambda parts: "".join(f"/{p}" for p in parts)
)


@settings(max_examples=300)
@given(st.lists(st.tuples(HOST, PATH), max_size=6), HOST, PATH)
def test_blocked_is_what_the_definition_says(entries: list[tuple[str, str]], host: str, path: str) -> None:
    def host_of(text: str) -> list[str]:
        labels = text.split(".")
        return labels[1:] if labels[0] == "www" and len(labels) > 2 else labels

    def path_of(text: str) -> list[str]:
        return [part.lower().replace("%70", "p") for part in text.split("/") if part]

    def listed(entry: tuple[str, str]) -> bool:
        theirs, below = host_of(entry[0]), path_of(entry[1])
        own, at = host_of(host), path_of(path)
        if below:
            return own == theirs and at[: len(below)] == below
        number = all(label.isdigit() for label in own)
        return own == theirs if number else own[-len(theirs) :] == theirs

    keys = {entry_key(f"{name}{rest}") for name, rest in entries}
    found = [key for key in address_keys(*split_address(f"https://{host}{path}")) if key in keys]
    assert bool(found) == any(map(listed, entries))


@settings(max_examples=300)
@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_line_and_any_address_are_read_without_an_error(text: str) -> None:
    entry_key(text)
    list(address_keys(*split_address(f"http://{text}")))
    split_address(text)


def test_many_entries_take_ten_bytes_each(tmp_path: Path) -> None:
    path = write(tmp_path / "many", *(f"site{k}.example" for k in range(200_000)))
    lists = BlockLists([("many", str(path))], [], [], [])
    assert lists._hashes.nbytes + lists._lists.nbytes == 2_000_000
    draw = random.Random(2)
    for k in (0, 199_999, *(draw.randrange(200_000) for _ in range(200))):
        assert lists.find(f"http://www.site{k}.example/x").by == f"many: site{k}.example"
        assert lists.find(f"http://site{k + 200_000}.example/x").by is None


def test_lists_that_moved_have_the_same_identity_and_lists_that_changed_another(ut1: Path, tmp_path: Path) -> None:
    write(ut1 / "adult" / "domains", "of-this-test-alone.example")  # no other left these lists in memory
    first = BlockConfig(paths=[str(ut1)])
    ut1.rename(tmp_path / "elsewhere")
    moved = BlockConfig(paths=[str(tmp_path / "elsewhere" / "*")])
    assert fingerprint(moved) == fingerprint(first)
    write(tmp_path / "elsewhere" / "adult" / "domains", "other.example")
    assert fingerprint(BlockConfig(paths=[str(tmp_path / "elsewhere")])) != fingerprint(first)
    with pytest.raises(UserError, match="changed meanwhile"):
        block_lists_of(moved)


def test_mistakes_are_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curate.block.*there is no .*correct the path"):
        BlockConfig(paths=[str(tmp_path / "gone")])
    with pytest.raises(ValueError, match=r"curate.block: give lists by"):
        BlockConfig()
    with pytest.raises(ValueError, match=r"read from this machine"):
        ToxicConfig(paths=["https://lists.example/en"])
    empty = write(tmp_path / "empty")
    with pytest.raises(UserError, match=r"has no entry: give one domain"):
        block_lists_of(BlockConfig(paths=[str(empty)]))
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"bad.example\n" * 99)[:-9])
    with pytest.raises(UserError, match=r"broken.gz can't be read"):
        block_lists_of(BlockConfig(paths=[str(tmp_path / "broken.gz")]))


# Toxic words ----------------------------------------------------------------------------------------------------


def definition(words: tuple[str, ...], text: str, bounded: bool) -> tuple[int, int]:
    """(occurrences, distinct): at every place, every word, with C4's boundaries."""
    left, right = (r"(?<!\w)", r"(?!\w)") if bounded else ("", "")
    counts = [len(re.findall(f"(?={left}{re.escape(word)}{right})", text)) for word in words]
    return sum(counts), sum(map(bool, counts))


def _all(word: str, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(f"(?={re.escape(word)})", text)


WORDS = st.lists(st.text("ab -中_é\U0001f600", min_size=1, max_size=4), min_size=1, max_size=8)


@settings(max_examples=500)
@given(WORDS, st.text("ab -中_éx\n\U0001f600\ud800", max_size=40), st.booleans(), st.sampled_from([1, 5, 1 << 16]))
def test_the_automaton_finds_what_the_definition_does(words: list[str], text: str, bounded: bool, block: int) -> None:
    automaton = Automaton(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datalake.text.automaton._BLOCK", block)
        hits = automaton.look(text, bounded)
        counts = automaton.counts(text)
    if not bounded:
        assert [counts[k] for k in range(len(automaton.words))] == [
            len(re.findall(f"(?={re.escape(word)})", text)) for word in automaton.words
        ]
        ends = [(m.start() + len(w), -len(w), k) for k, w in enumerate(automaton.words) for m in _all(w, text)]
        assert hits.first == (min(ends)[2] if ends else -1), "of those that end first the longest"
    assert hits[:2] == definition(automaton.words, text, bounded)
    assert (hits.first >= 0) == (hits.occurrences > 0)
    if bounded:  # C4's own expression
        alternatives = "|".join(map(re.escape, automaton.words))
        assert bool(re.search(rf"(?:\W|^)({alternatives})(?:\W|$)", text)) == (hits.occurrences > 0)


def test_lists_are_by_language_and_c4_allows_some_words(tmp_path: Path) -> None:
    files = [
        ("en", str(write(tmp_path / "en", "Bad Word", "ass"))),
        ("zh.txt", str(write(tmp_path / "zh.txt", "性", "坏话"))),
        ("mine.txt", str(write(tmp_path / "mine.txt", "xyz"))),
    ]
    toxic = ToxicWords(files)
    assert toxic.count("A BAD WORD, a class, (ass). Ass! xyz", "en") == (4, 3)
    assert toxic.count("男性坏话说坏话", "zh") == toxic.count("男性坏话说坏话", "yue") == (2, 1)
    assert toxic.count("ass xyz", "fr") == (1, 1)
    assert toxic.count("axyzb", "ja") == toxic.count("axyzb", "th") == toxic.count("axyzb", "wuu") == (1, 1)
    assert toxic.count("axyzb", "ko") == (0, 0)
    assert ToxicWords(files[:1]).count("ass", "fr") is None
    assert ToxicWords([files[1]]).count("", "zh") == (0, 0)


def test_a_domain_called_www_is_not_all_that_is_below_its_ending(tmp_path: Path) -> None:
    lists = block_lists_of(BlockConfig(paths=[str(write(tmp_path / "domains", "www.com"))]))
    asked = ("http://www.com/x", "http://a.www.com", "http://shop.com", "http://com/")
    assert [lists.find(uri).entries for uri in asked] == [1, 1, 0, 0]


def test_lists_with_a_name_of_three_letters_serve_the_language_as_it_is_told_here(tmp_path: Path) -> None:
    files = [(name, str(write(tmp_path / name, "gago"))) for name in ("fil.txt", "yue")]
    words = ToxicWords(files)
    found = {language: words.count("gago", language) for language in ("tl", "yue", "fil", "zh", "en")}
    assert found == {"tl": (1, 1), "yue": (1, 1), "fil": None, "zh": None, "en": None}


def test_words_are_composed_comments_are_none_and_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_bytes("\ufeff# a list\r\n#\r\n\r\ncafe\u0301\r\n#tag\r\n".encode())
    assert ToxicWords([("en.txt", str(path))]).count("A caf\xe9 # a list #tag", "en") == (2, 2)
    for encoding in ("gbk", "utf-16", "utf-16-le"):
        path.write_text("坏话\nbad\n", encoding=encoding)
        with pytest.raises(UserError, match=r"curate.toxic: .*en.txt isn't UTF-8: save it"):
            ToxicWords([("en.txt", str(path))])
        with pytest.raises(UserError, match=r"curate.block: .*en.txt isn't UTF-8: save it"):
            block_lists_of(BlockConfig(words=[str(path)]))
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match=r"has no word: give one a line"):
        ToxicWords([("en.txt", str(path))])


# In curation ----------------------------------------------------------------------------------------------------


def documents(*rows: tuple[str, str, str, str]) -> pa.Table:
    return to_table(
        [
            Document(id=document_id(source, uri, text), text=text, source=source, uri=uri, language=language)
            for uri, source, language, text in rows
        ],
        RAW,
    )


def test_a_batch_has_rules_columns_and_placeholders_of_them_all(ut1: Path, tmp_path: Path) -> None:
    toxic = write(tmp_path / "toxic" / "en.txt", "ass")
    write(tmp_path / "toxic" / "zh.txt", "坏话")
    raw = documents(
        ("http://shop.bad.example/x", "common_crawl", "en", "fine words"),
        ("http://good.example/a", "common_crawl", "en", "ass of x@mail.org,\nand more ass"),
        ("http://good.example/b", "common_crawl", "zh", "电话13812345678，坏话"),
        ("http://good.example/c", "common_crawl", "de", "Tel. +49 30 1234567, a@b.de, c@d.de"),
        ("repository@1/x.py", "code", "en", "ass = 'x@mail.org'  # +49 30 1234567\n"),
    )
    config = CurateConfig.model_validate(
        {
            "preset": "none",
            "block": {"paths": [str(ut1)]},
            "toxic": {"paths": [str(toxic.parent)], "maximum": 1},
            "pii": {"maximum": 2},
        }
    )
    curation, kept = curate_batch(raw, config)
    rows = curation.select(["rules", "blocked", "blocked_by", "toxic_words", "toxic_ratio", "pii"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (["blocked"], 1, "adult/domains: bad.example", 0, 0.0, 0),
        (["toxic_words"], 0, None, 2, 0.5, 1),
        ([], 0, None, 1, 1.0, 1),
        (["pii"], 0, None, None, None, 3),
        ([], 0, None, None, None, 1),
    ]
    assert kept["text"].to_pylist() == ["电话<PHONE>，坏话", "ass = '<EMAIL>'  # +49 30 1234567\n"]

    # Another number is asked of the table; other lists or kinds need a run.
    def changed(section: str, **values: object) -> CurateConfig:
        return CurateConfig.model_validate({**plain, section: {**plain[section], **values}})

    plain = config.model_dump()
    for other, amount in (
        (changed("pii", maximum=3), 3),
        (changed("pii", maximum=None), 3),
        (changed("toxic", maximum=0), 1),
    ):
        before, after = ask(curation, config, other)
        rerun = curate_batch(raw, other)[0]
        assert (before.kept.sum(), after.kept.sum()) == (2, amount)
        assert after.columns().to_pylist() == rerun.select(["rule_set", "verdict", "rule", "rules"]).to_pylist()
    for other in (changed("pii", kinds=("email",)), changed("block", paths=[str(toxic)], lists_version="")):
        with pytest.raises(NeedsRerunError):
            ask(curation, config, other)
    with pytest.raises(NeedsRerunError, match="pii"):
        ask(curation, config, config.model_copy(update={"pii": None}))


def test_c4_rejects_pages_with_a_listed_word_where_a_list_is_given(tmp_path: Path) -> None:
    text = "The darn river is very old. It has a bridge over it. Nobody waited there for long."
    raw = documents(("http://x.example/", "common_crawl", "en", text))
    toxic = ToxicConfig(paths=[str(write(tmp_path / "en", "darn"))])
    rules = [
        curate_batch(raw, config)[0]["rules"].to_pylist()[0]
        for config in (
            CurateConfig(preset="c4", toxic=toxic),
            CurateConfig(preset="c4", toxic=toxic, thresholds={"max_toxic_words": 1}),
            CurateConfig(preset="c4"),
        )
    ]
    assert rules == [["max_toxic_words"], [], []]


def test_nothing_is_looked_for_unless_the_recipe_asks(ut1: Path) -> None:
    raw = documents(("http://bad.example/", "common_crawl", "en", "x@mail.org"))
    curation, kept = curate_batch(raw, CurateConfig(preset="none"))
    names = ["verdict", "blocked", "blocked_by", "toxic_words", "toxic_ratio", "pii"]
    assert list(curation.select(names).to_pylist()[0].values()) == ["kept", None, None, None, None, None]
    assert kept["text"].to_pylist() == ["x@mail.org"]


def test_placeholders_come_after_line_edits_and_metrics_before_them() -> None:
    line = "One can write to somebody.else@mail.org about the many things that be."
    text = "\n".join(f"{line[:-1]} {k} times." for k in "abcdefg") + "\nno end mark x@mail.org"
    raw = documents(("http://good.example/", "common_crawl", "en", text))
    config = CurateConfig.model_validate({"preset": "c4", "pii": {}})
    curation, kept = curate_batch(raw, config)
    assert (curation["pii"].to_pylist(), curation["chars"].to_pylist()) == ([8], [len(text)])
    (clean,) = kept["text"].to_pylist()
    assert clean.count("<EMAIL>") == 7
    assert "@" not in clean


def test_list_names_are_those_of_categories(ut1: Path, tmp_path: Path) -> None:
    names = [name for name, _ in list_files([str(ut1), str(ut1 / "README")], "x")]
    assert names == ["README", "adult/domains", "adult/urls", "gambling/domains"]
