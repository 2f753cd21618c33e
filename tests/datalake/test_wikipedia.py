"""Exports of MediaWiki give one entry a page, whatever their compression and however damaged."""

from __future__ import annotations

import bz2
import gzip
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.errors import UserError
from datalake.sources.config import Wikipedia
from datalake.sources.wikipedia import read, shards

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
    (shard,) = shards(config)
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
        shards(Wikipedia(paths=[str(tmp_path / "none.xml")]))


def test_every_page_of_the_real_dumps_is_accounted_for(samples: Path) -> None:
    config = Wikipedia(paths=[str(samples / "wiki/*.bz2"), str(samples / "wiki/minidumps/*.bz2")])
    found = shards(config)
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
    assert Counter(entry.reason for entry in found if isinstance(entry, Refused)) == {"redirect": 100}
    documents = [entry for entry in found if isinstance(entry, Document)]
    assert len(documents) == 106
    assert Counter(document.language for document in documents)["en"] >= 105  # one is a list of names
    for markup in ("{{", "[[", "<ref", "'''", "\n|-", "&nbsp;"):
        assert sum(markup in document.text for document in documents) <= 6, markup


def test_the_demos_export_is_read_whole() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "demo"
    config = Wikipedia(paths=[str(folder / "*.xml")])
    for shard in shards(config):
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
