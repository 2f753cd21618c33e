"""Binary bodies under the name of pages: told by their bytes, refused with their type."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from pathlib import Path

import pytest

from datalake.document import Document, Refused
from datalake.extract.html.sniff import media_type_of
from datalake.sources import reader
from datalake.sources.web.config import CommonCrawl


def docx() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("word/document.xml", "<w:document><w:p>river</w:p></w:document>")
    return data.getvalue()


NOISE = random.Random(3).randbytes(3000)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"ID3\x03\0\0\0\0\x0f\x76TIT2" + NOISE, "audio/mpeg"),
        (b"\xff\xfb\x90\x64\0\0\0" + NOISE, "application/octet-stream"),
        (docx(), "application/zip"),
        (b"%PDF-1.5 <html>", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n" + NOISE, "image/png"),
        (b"GIF89a" + NOISE, "image/gif"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + NOISE, "video/mp4"),
        (b"OggS\0\2" + NOISE, "application/ogg"),
        (b"MZ\x90\0\3\0\0\0" + NOISE, "application/octet-stream"),
        (b"7z\xbc\xaf\x27\x1c\0\4" + NOISE, "application/octet-stream"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + NOISE, "image/webp"),
        (gzip.compress(NOISE), "application/x-gzip"),
        (NOISE, "application/octet-stream"),
        (b"<!DOCTYPE html><p>river", "text/html"),
        (b"\n\n  <HTML>", "text/html"),
        (b"Warning: mysql_connect() <br />\n<html>", "text/html"),
        (b"<section>river</section>", "text/html"),
        (b"\x00<!doctype html><html><body>a stray zero", "text/html"),
        (b"<html><body>" + b"page " * 40 + b"\x01 with one control character", "text/html"),
        ("<html><p>川の流れ".encode("utf-16"), "text/html"),
        ("<html><p>river and bridge".encode("utf-16le"), "text/html"),
        (b"<html><p>\x1b$B;3\x1b(B", "text/html"),
        (b"BMW <p>cars</p><div class=a>", "text/html"),
        (b"river and bridge", "text/plain"),
        (b"<?xml version='1.0'?><html>", "text/xml"),
        (b"", "text/plain"),
    ],
)
def test_what_bytes_are(body: bytes, kind: str) -> None:
    assert media_type_of(body) == kind


PAGE = (
    b"<html><body><p>" + b"The quiet river crossed the old stone bridge near the village. " * 20 + b"</p></body></html>"
)


def record(body: bytes, declared: str = "text/html", uri: str = "http://a.example/river") -> bytes:
    block = f"HTTP/1.1 200 OK\r\nContent-Type: {declared}\r\n\r\n".encode() + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {uri}\r\nContent-Type: application/http\r\n"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def test_pages_that_are_none_are_refused_with_their_type(tmp_path: Path) -> None:
    bodies = [PAGE, docx(), b"ID3\x03\0\0\0\0\x0f\x76" + NOISE, gzip.compress(PAGE), gzip.compress(docx()), NOISE]
    (tmp_path / "a.warc").write_bytes(b"".join(map(record, bodies)))
    source, config = reader("common_crawl"), CommonCrawl(paths=[str(tmp_path / "a.warc")])
    found = list(source.read(source.archives(config)[0], config))
    assert [type(entry) for entry in found] == [Document, Refused, Refused, Document, Refused, Refused]
    assert found[0].text == found[3].text  # type: ignore[union-attr]
    told = [(entry.reason, entry.detail) for entry in found if isinstance(entry, Refused)]
    kinds = ["application/zip", "audio/mpeg", "application/zip", "application/octet-stream"]
    assert told == [("media_type", kind) for kind in kinds]


def test_without_a_declared_type_only_markup_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(record(PAGE, "") + record(b"river and bridge", "") + record(NOISE, "*/*"))
    source, config = reader("common_crawl"), CommonCrawl(paths=[str(tmp_path / "a.warc")])
    found = list(source.read(source.archives(config)[0], config))
    assert [getattr(entry, "detail", "page") for entry in found] == ["page", "text/plain", "application/octet-stream"]


def test_an_address_in_brackets_is_the_address(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(record(PAGE, uri="<http://a.example/river>"))
    source, config = reader("common_crawl"), CommonCrawl(paths=[str(tmp_path / "a.warc")])
    (found,) = source.read(source.archives(config)[0], config)
    assert isinstance(found, Document)
    assert (found.uri, found.attributes["group"]) == ("http://a.example/river", "a.example")
