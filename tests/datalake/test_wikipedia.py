"""Exports of MediaWiki give one entry a page, whatever their compression and however damaged."""

from __future__ import annotations

import bz2
import gzip
import random
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import py7zr
import pytest

from datalake.archive import Archive
from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.errors import UserError
from datalake.sources.wikipedia.config import Wikipedia
from datalake.sources.wikipedia.dump import archives, read

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Test</sitename><dbname>testwiki</dbname><base>https://test.example/wiki/Main_Page</base>
  <namespaces><namespace key="0" case="first-letter" /><namespace key="1">Talk</namespace>
  <namespace key="6">Bildo</namespace></namespaces></siteinfo>
"""
TAIL = "</mediawiki>\n"
PROSE = "Water is a chemical substance that covers most of the surface of the Earth, and all life needs it."


def page(number: int, text: str = PROSE, ns: int = 0, extra: str = "", title: str = "", model: str = "wikitext") -> str:
    return (
        f"  <page><title>{title or f'Page {number}'}</title><ns>{ns}</ns><id>{number}</id>{extra}<revision>"
        f"<id>{number + 1000}</id><timestamp>2020-01-02T03:04:05Z</timestamp><model>{model}</model>"
        f'<text xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


def entries(path: Path, **options: object) -> list[Entry]:
    config = Wikipedia.model_validate({"paths": [str(path)], **options})
    (shard,) = archives(config)
    return list(read(shard, config))


def dump(tmp_path: Path, content: bytes, name: str = "wiki.xml") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def kinds(found: list[Entry]) -> Counter[str]:
    return Counter(type(entry).__name__ for entry in found if not isinstance(entry, Passed))


def test_a_page_is_a_document_with_its_provenance(tmp_path: Path) -> None:
    content = (HEAD + page(7, PROSE + " [[Bildo:x.png]]", title="Deep water") + TAIL).encode()
    head, document = entries(dump(tmp_path, content))
    assert head == Passed("siteinfo")
    assert isinstance(document, Document)
    assert document.text == PROSE
    assert document.uri == "https://test.example/wiki/Deep_water"
    assert document.language == "en"
    assert document.licence == "CC-BY-SA-4.0"
    assert document.created == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert document.attributes == {
        "title": "Deep water", "group": "Deep water", "page": "7", "revision": "1007",
        "site": "testwiki", "site_language": "en",
    }  # fmt: skip
    assert content[document.offset : document.offset + document.length].startswith(b"<page>")
    assert content[document.offset : document.offset + document.length].endswith(b"</page>")


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (page(1, extra='<redirect title="Page 2" />'), "redirect"),
        (page(1, "#REDIRECT [[Page 2]]"), "redirect"),
        (page(1, "#重定向 [[水]]"), "redirect"),
        (page(1, "{{soft redirect|wikt:water}}"), "redirect"),
        (page(1, "Water may be:\n* [[a]]\n{{disambiguation|geo}}"), "disambiguation"),
        (page(1, "水可以指：\n* [[甲]]\n{{消歧义}}"), "disambiguation"),
        (page(1, "* [[a]] __DISAMBIG__"), "disambiguation"),
        (page(1, "* [[a]]\n[[Category:Disambiguation pages]]"), "disambiguation"),
        (page(1, ns=1, title="Talk:Page"), "namespace"),
        (page(1, "{{nothing}}"), "empty"),
        (page(1, ""), "empty"),
        (page(1, "x = 1", model="javascript"), "media_type"),
        (page(1, "word " * 400), "too_large"),
    ],
)
def test_what_is_no_article_is_refused_with_its_reason(tmp_path: Path, xml: str, reason: str) -> None:
    _, refused = entries(dump(tmp_path, (HEAD + xml + TAIL).encode()), max_bytes=1000)
    assert isinstance(refused, Refused)
    assert refused.reason == reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_compression_and_encoding_change_no_text(tmp_path: Path, encoding: str, pack: type) -> None:
    xml = HEAD + page(1, "水是生命之源，它覆盖了地球表面的大部分。") + page(2) + TAIL
    found = entries(dump(tmp_path, pack(xml.encode(encoding))))
    assert [entry.text for entry in found if isinstance(entry, Document)] == [
        "水是生命之源，它覆盖了地球表面的大部分。",
        PROSE,
    ]
    assert kinds(found) == {"Document": 2}


def test_a_page_that_is_not_well_formed_costs_itself_alone(tmp_path: Path) -> None:
    broken = page(2).replace("</title>", "</titel>")
    found = entries(dump(tmp_path, (HEAD + page(1) + broken + page(3) + TAIL).encode()))
    assert kinds(found) == {"Document": 2, "Quarantined": 1}
    (lost,) = (entry for entry in found if isinstance(entry, Quarantined))
    assert lost.reason == "xml"
    assert lost.offset == len((HEAD + page(1)).encode()) + 2


def test_a_page_without_its_end_costs_itself_alone(tmp_path: Path) -> None:
    broken = page(2).replace("</page>", "")
    found = entries(dump(tmp_path, (HEAD + page(1) + broken + page(3) + TAIL).encode()))
    assert [type(entry).__name__ for entry in found] == ["Passed", "Document", "Quarantined", "Document"]


def test_a_page_whose_tag_is_damaged_is_not_lost_silently(tmp_path: Path) -> None:
    broken = page(2).replace("<page>", "<pa?e>")
    found = entries(dump(tmp_path, (HEAD + page(1) + broken + page(3) + TAIL).encode()))
    assert kinds(found) == {"Document": 2, "Quarantined": 1}


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_truncated_dump_gives_what_can_be_read_and_says_so(tmp_path: Path, cut: float, pack: type) -> None:
    whole = pack((HEAD + "".join(page(number, PROSE + f" {number**5}" * 40) for number in range(60)) + TAIL).encode())
    found = entries(dump(tmp_path, whole[: int(len(whole) * cut)]))
    assert any(isinstance(entry, Quarantined) for entry in found)
    if pack is bytes:
        assert kinds(found)["Document"] == pytest.approx(60 * cut, abs=2)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_damaged_stream_costs_only_its_own_pages(tmp_path: Path, pack: type) -> None:
    streams = [pack((HEAD if number == 0 else "").encode() + page(number).encode()) for number in range(5)]
    damaged = bytearray(streams[2])
    damaged[len(damaged) // 2] ^= 0xFF
    found = entries(dump(tmp_path, b"".join([*streams[:2], bytes(damaged), *streams[3:]])))
    numbers = [entry.attributes["page"] for entry in found if isinstance(entry, Document)]
    assert {"0", "1", "3", "4"} <= set(numbers)
    assert any(isinstance(entry, Quarantined) and entry.reason == "damaged" for entry in found)


@pytest.mark.parametrize(
    "content", [b"", b"no xml at all", b"\0" * 100, b"\x1f\x8b\x08\x00broken", b"BZh91AY&SYbroken"]
)
def test_what_is_no_dump_is_quarantined_never_raised(tmp_path: Path, content: bytes) -> None:
    found = entries(dump(tmp_path, content))
    assert kinds(found)["Quarantined"] >= 1
    assert kinds(found)["Document"] == 0


def test_a_page_beyond_the_limit_is_not_held(tmp_path: Path) -> None:
    found = entries(dump(tmp_path, (HEAD + page(1, "word " * 400_000) + page(2) + TAIL).encode()), max_bytes=1000)
    assert kinds(found) == {"Quarantined": 1, "Document": 1}
    assert [entry.reason for entry in found if isinstance(entry, Quarantined)] == ["too_large"]


def test_ids_depend_on_name_page_and_revision_not_on_the_place(tmp_path: Path) -> None:
    content = (HEAD + page(1) + TAIL).encode()
    (tmp_path / "elsewhere").mkdir()
    first, second = (entries(dump(folder, content))[1] for folder in (tmp_path, tmp_path / "elsewhere"))
    assert first == second


def test_a_missing_file_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        archives(Wikipedia(paths=[str(tmp_path / "none.xml")]))


def test_every_page_of_the_real_dumps_is_accounted_for(samples: Path) -> None:
    config = Wikipedia(paths=[str(samples / "wiki/*.bz2"), str(samples / "wiki/minidumps/*.bz2")])
    found = archives(config)
    assert len(found) == 16
    for shard in found:
        if shard.name.startswith("enwiki-latest"):
            continue  # read by the next test
        raw = bz2.decompress(Path(shard.path).read_bytes())
        text = raw.decode("utf-16") if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else raw.decode()
        counts = kinds(list(read(shard, config)))
        assert counts.total() == text.count("<page>"), shard.name
        assert counts["Quarantined"] == 0
        assert counts["Document"] > 0


def test_the_english_dump_has_a_hundred_redirects(samples: Path) -> None:
    found = entries(samples / "wiki/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
    reasons = Counter(entry.reason for entry in found if isinstance(entry, Refused))
    assert reasons == {"redirect": 100, "disambiguation": 8}
    documents = [entry for entry in found if isinstance(entry, Document)]
    assert len(documents) == 98
    assert Counter(document.language for document in documents)["en"] >= 97  # one is a list of names
    for markup in ("{{", "[[", "<ref", "'''", "\n|-", "&nbsp;"):
        assert sum(markup in document.text for document in documents) <= 6, markup


def test_the_demos_export_is_read_whole() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "demo"
    config = Wikipedia(paths=[str(folder / "*.xml")])
    for shard in archives(config):
        found = [entry for entry in read(shard, config) if not isinstance(entry, Passed)]
        documents = [entry for entry in found if isinstance(entry, Document)]
        language = shard.name.removeprefix("wiki-").removesuffix(".xml")
        assert len(found) == Path(shard.path).read_text(encoding="utf-8").count("<page>")
        assert len(documents) >= 24
        assert {document.language for document in documents} == {language}
        assert {entry.reason for entry in found if isinstance(entry, Refused)} == {"redirect", "namespace"}
        assert not any(isinstance(entry, Quarantined) for entry in found)
        for document in documents:
            assert "{{" not in document.text
            assert "-{" not in document.text
            assert len(document.text) > (200 if language == "en" else 100), document.uri


def test_a_link_that_needs_a_choice_is_no_disambiguation_page(tmp_path: Path) -> None:
    content = PROSE + " [[Mercury]]{{disambiguation needed|date=May 2020}}"
    assert kinds(entries(dump(tmp_path, (HEAD + page(1, content) + TAIL).encode())))["Document"] == 1
    article = (HEAD + page(1, PROSE + "{{dab}}") + TAIL).encode()
    assert kinds(entries(dump(tmp_path, article), disambiguations=True))["Document"] == 1


def test_the_last_revision_of_a_history_is_the_page(tmp_path: Path) -> None:
    old = page(1, "Old words.")
    new = page(1).partition("<revision>")[2]
    both = old.replace("</revision></page>", "</revision><revision>" + new)
    (document,) = (e for e in entries(dump(tmp_path, (HEAD + both + TAIL).encode())) if isinstance(e, Document))
    assert document.text == PROSE


def test_a_chinese_wiki_is_converted_and_others_are_not(tmp_path: Path) -> None:
    words = "這是軟體的發展，它覆蓋了許多領域。"
    chinese = HEAD.replace('xml:lang="en"', 'xml:lang="zh"')
    for head, expected in ((chinese, "这是软体的发展，它覆盖了许多领域。"), (HEAD, words)):
        (document,) = (
            e for e in entries(dump(tmp_path, (head + page(1, words, title="軟體") + TAIL).encode()))
            if isinstance(e, Document)
        )  # fmt: skip
        assert document.text == expected
        assert document.attributes["title"] == "軟體"


# Dumps of many streams

STREAMS = [
    HEAD,
    *("".join(page(10 * number + n, f"{PROSE} {number * n}") for n in range(4)) for number in range(9)),
    TAIL,
]


def multistream(tmp_path: Path, streams: list[bytes], index: bool = False) -> Path:
    path = dump(tmp_path, b"".join(streams), "xwiki-pages-articles-multistream.xml.bz2")
    if index:
        lines, offset = [], 0
        for number, stream in enumerate(streams[:-1]):
            lines += [f"{offset}:{10 * (number - 1) + n}:A: page" for n in range(4)] if number else []
            offset += len(stream)
        name = "xwiki-pages-articles-multistream-index.txt.bz2"
        (tmp_path / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    return path


def whole_and_parts(path: Path, size: int) -> tuple[list[Entry], list[list[Entry]]]:
    whole = Wikipedia(paths=[str(path)], split_bytes=0)
    parts = Wikipedia(paths=[str(path)], split_bytes=size)
    (one,) = archives(whole)
    return list(read(one, whole)), [list(read(shard, parts)) for shard in archives(parts)]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(("size", "count"), [(1, 10), (800, 5), (10**9, 1)])
def test_parts_of_a_dump_give_exactly_the_whole(tmp_path: Path, index: bool, size: int, count: int) -> None:
    path = multistream(tmp_path, [bz2.compress(text.encode()) for text in STREAMS], index)
    whole, parts = whole_and_parts(path, size)
    assert [entry for part in parts for entry in part] == whole
    assert kinds(whole) == {"Document": 36}
    assert (len(parts) == 1) == (count == 1)
    if size == 1:
        assert len(parts) == count
    assert all(entry.uri.startswith("https://test.example/wiki/") for entry in whole if isinstance(entry, Document))


def test_parts_of_a_damaged_dump_give_exactly_the_whole(tmp_path: Path) -> None:
    streams = [bz2.compress(text.encode()) for text in STREAMS]
    content = b"".join(streams)
    bounds = [sum(map(len, streams[:n])) for n in range(len(streams))]
    rng = random.Random(1)
    places = [*bounds, *(bound - 3 for bound in bounds[1:]), *(rng.randrange(len(content)) for _ in range(60))]
    for place in places:
        length = rng.choice([1, 5, 300])
        damaged = content[:place] + rng.choice([b"", rng.randbytes(length), bytes(length)]) + content[place + length :]
        for size in (1, 700):
            whole, parts = whole_and_parts(dump(tmp_path, damaged, "x.xml.bz2"), size)
            assert [entry for part in parts for entry in part] == whole, place


def test_pages_that_reach_across_streams_are_not_cut(tmp_path: Path) -> None:
    text = (HEAD + "".join(page(number) for number in range(30)) + TAIL).encode()
    content = b"".join(bz2.compress(text[place : place + 700]) for place in range(0, len(text), 700))
    whole, parts = whole_and_parts(dump(tmp_path, content, "x.xml.bz2"), 1)
    assert kinds(whole) == {"Document": 30}
    assert [entry for part in parts for entry in part] == whole


def test_a_page_is_found_again_by_its_stream_and_offset(tmp_path: Path) -> None:
    path = multistream(tmp_path, [bz2.compress(text.encode()) for text in STREAMS])
    for entry in entries(path):
        if isinstance(entry, Document):
            stream = bz2.BZ2Decompressor().decompress(path.read_bytes()[int(entry.attributes["stream"]) :])
            assert stream[entry.offset : entry.offset + entry.length].startswith(b"<page><title>" + b"Page ")


def test_the_index_is_no_dump_and_a_wrong_one_does_no_harm(tmp_path: Path) -> None:
    path = multistream(tmp_path, [bz2.compress(text.encode()) for text in STREAMS], index=True)
    config = Wikipedia(paths=[str(tmp_path)], split_bytes=1)
    assert {shard.name for shard in archives(config)} == {path.name}
    index = tmp_path / "xwiki-pages-articles-multistream-index.txt.bz2"
    index.write_bytes(bz2.compress(b"7:1:Page\nno line\n99999999:2:Page"))
    whole, parts = whole_and_parts(path, 1)
    assert len(parts) == 10
    assert [entry for part in parts for entry in part] == whole


def test_parts_are_told_apart_and_keep_the_archives_name(tmp_path: Path) -> None:
    path = multistream(tmp_path, [bz2.compress(text.encode()) for text in STREAMS])
    found = archives(Wikipedia(paths=[str(path)], split_bytes=1))
    assert len({shard.part for shard in found}) == len(found) == 10
    assert {shard.name for shard in found} == {path.name}


def seven_zip(tmp_path: Path, content: bytes) -> bytes:
    path = tmp_path / "made.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writestr(content, "wiki.xml")
    return path.read_bytes()


def test_a_7z_archive_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    content = (HEAD + "".join(page(number) for number in range(2_000)) + TAIL).encode()
    packed = seven_zip(tmp_path, content)
    found = entries(dump(tmp_path, packed, "wiki.xml.7z"))
    assert kinds(found) == {"Document": 2_000}
    reading = read(*_one(dump(tmp_path, packed, "wiki.xml.7z")))
    assert next(reading) == Passed("siteinfo")
    reading.close()  # ends the thread that unpacks
    assert not [thread for thread in threading.enumerate() if "_extract" in thread.name]


def _one(path: Path) -> tuple[Archive, Wikipedia]:
    config = Wikipedia(paths=[str(path)])
    return archives(config)[0], config


@pytest.mark.parametrize("cut", [8, 40, 0.5, 0.99])
def test_a_damaged_7z_archive_is_quarantined_never_raised(tmp_path: Path, cut: float) -> None:
    packed = seven_zip(
        tmp_path, (HEAD + "".join(page(number, f"{PROSE} {number**7}") for number in range(500))).encode()
    )
    found = entries(dump(tmp_path, packed[: int(cut if cut > 1 else len(packed) * cut)], "wiki.xml.7z"))
    assert kinds(found)["Quarantined"] >= 1
