"""Web pages from WARC archives and the text of WET archives (Common Crawl and any other crawler's).

Records are `response`, `resource` and `conversion`, and what a WAT archive's `metadata` says of such (`wat`);
`warcinfo`, `request`, other `metadata`, `revisit` and others are passed.
Framing is `datalake.formats.warc`; each record is then parsed by FastWARC and its page extracted by Resiliparse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from fastwarc.warc import WarcRecord

from datalake.archive import Archive
from datalake.document import Document, Entry, Passed, Quarantined, Refused, moment
from datalake.extract.html.charset import decode
from datalake.extract.html.page import extract, tidy
from datalake.extract.html.sniff import media_type_of
from datalake.formats import warc, wat
from datalake.formats.http import BodyError, BodyTooLargeError, decode_body
from datalake.origin import Origin
from datalake.sources.web.config import CommonCrawl, Pydoc
from datalake.sources.web.snapshots import whole_archives

RECORDS = ("response", "resource", "conversion")
MEDIA_TYPES = ("text/html", "application/xhtml+xml")
_NO_TYPE = ("", "unknown/unknown", "application/unknown", "*/*")  # what the MIME Sniffing standard takes for none
_TEXT = ("text/html", "text/plain", "text/xml")  # what a page's bytes may look like
_GZIP = b"\x1f\x8b\x08"
_HTTP_RECORD = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)


def archives(config: CommonCrawl) -> list[Archive]:
    """One a file; where an index picks records, one a group of them (see `crawl_index`)."""
    if config.index or config.where is not None:
        from datalake.sources.web import crawl_index  # DuckDB

        return crawl_index.archives(config)
    return [Archive(config.kind, name, path) for name, path in sorted(whole_archives(config).items())]


def read(archive: Archive, config: CommonCrawl) -> Iterator[Entry]:
    """One entry for each record of an archive, or for each that was picked; what can't be read is quarantined."""
    if not archive.spans:
        yield from read_archive(archive, config, host)
        return
    from datalake.sources.web import crawl_index

    origin = config.origin(archive)
    for name, one in crawl_index.records(archive, config.max_bytes):
        here = origin.within(name)
        yield from here.entries([one], partial(_as_entry, origin=here, config=config, group=host))


def host(uri: str) -> str:
    """The host of an address, lower case; empty where it has none."""
    try:
        return urlsplit(uri.strip("<>")).hostname or ""
    except ValueError:
        return ""


def read_archive(archive: Archive, config: CommonCrawl | Pydoc, group: Callable[[str], str]) -> Iterator[Entry]:
    """`read` for a whole file, with `group` telling the unit of hold-out from an address."""
    origin = config.origin(archive)
    make = partial(_as_entry, origin=origin, config=config, group=group)
    yield from origin.entries(warc.records(archive.path, config.max_bytes), make)


def _as_entry(
    one: warc.Record | warc.Fault, origin: Origin, config: CommonCrawl | Pydoc, group: Callable[[str], str]
) -> Entry:
    """What a record or fault of an archive becomes."""
    if isinstance(one, warc.Fault):
        return origin.quarantined(one, one.reason, one.detail)
    return Passed(one.type) if one.type not in RECORDS and not _is_wat(one) else _entry(one, origin, config, group)


def _is_wat(record: warc.Record) -> bool:
    """Whether a record describes a page: a `metadata` record of JSON, of the kind of record that holds pages."""
    if record.type != "metadata" or _media_type(record.headers.get("content-type", "")) != "application/json":
        return False
    found = wat.envelope(record.block or b"")
    return found is not None and wat.record_type(found) in RECORDS


class _NotTakenError(Exception):
    """Ends the reading of a record with a refusal."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _entry(
    record: warc.Record, origin: Origin, config: CommonCrawl | Pydoc, group: Callable[[str], str]
) -> Document | Refused | Quarantined:
    """What one record becomes."""
    uri = record.headers.get("warc-target-uri", "").strip().removeprefix("<").removesuffix(">")  # as wget writes it
    try:
        if record.block is None:
            raise _NotTakenError("too_large", str(record.block_length))
        text, attributes = _text(record, record.block, config)
        if not text:
            raise _NotTakenError("empty")
    except _NotTakenError as refusal:
        return origin.refused(record, record.locator, refusal.reason, refusal.detail, uri=uri)
    except BodyError as error:
        return origin.quarantined(record, error.reason, str(error))
    attributes["group"] = group(uri)
    if record.inner:
        attributes["inner_offset"] = str(record.inner)
    if "warc-truncated" in record.headers:
        attributes["truncated"] = record.headers["warc-truncated"]
    attributes = {name: value for name, value in attributes.items() if value}
    created = moment(record.headers.get("warc-date", ""))
    return origin.document(record, record.locator, text, attributes, uri=uri, created=created)


def _text(record: warc.Record, block: bytes, config: CommonCrawl | Pydoc) -> tuple[str, dict[str, str]]:
    """The text of a record and what its headers say of it."""
    declared = record.headers.get("content-type", "")
    if record.type == "conversion":
        if _media_type(declared) not in ("text/plain", *_NO_TYPE):
            raise _NotTakenError("media_type", _media_type(declared))
        return tidy(block.decode("utf-8", "replace")), {"media_type": "text/plain", "charset": "utf-8"}
    if record.type == "metadata" and (found := wat.envelope(block)) is not None:
        return wat.document(found)
    status = ""
    if record.type == "response":
        if _media_type(declared) not in ("application/http", *_NO_TYPE):
            raise _NotTakenError("media_type", _media_type(declared))
        status, declared, block = _http(record, block, config.max_bytes)
    media_type = _media_type(declared)
    if not block.strip():
        raise _NotTakenError("empty")
    if block.startswith(_GZIP):  # compressed, and no header says so
        try:
            block = decode_body(block, [], ["gzip"], config.max_bytes, cut=True)
        except BodyTooLargeError:
            raise _NotTakenError("too_large", f"decodes to more than {config.max_bytes}") from None
        except BodyError:
            pass  # sniffed as what it is
    sniffed = media_type_of(block)
    if sniffed not in _TEXT or (media_type in _NO_TYPE and sniffed != "text/html"):
        raise _NotTakenError("media_type", sniffed)
    if media_type in _NO_TYPE:
        media_type = sniffed
    if media_type not in MEDIA_TYPES:
        raise _NotTakenError("media_type", media_type)
    charset = _CHARSET.search(declared)
    html, codec = decode(block, charset[1] if charset else None, host(record.headers.get("warc-target-uri", "")))
    page = extract(html, config.main_content, config.extractor.name, config.extractor.model.path)
    return page.text, {"status": status, "media_type": media_type, "charset": codec, "title": page.title}


def _http(record: warc.Record, block: bytes, max_bytes: int) -> tuple[str, str, bytes]:
    """Status, Content-Type and decoded body of an HTTP response of status 200."""
    if not block.startswith((b"HTTP/", b"ICY ")):
        raise BodyError("http_header", "no status line")
    # Under a header of our own: the record's may be too odd for FastWARC to see that it holds HTTP.
    block = _with_crlf(block)
    message = WarcRecord.from_bytes(b"%sContent-Length: %d\r\n\r\n%s" % (_HTTP_RECORD, len(block), block))
    try:
        message.parse_http(auto_decode="none", max_header_len=1 << 20)
    except (OSError, ValueError) as error:
        raise BodyError("http_header", str(error)[:200]) from None
    headers = message.http_headers
    status = _status(block)
    if status is None or headers is None:
        raise BodyError("http_header", "no status")
    if 300 <= status < 400 and status != 304:
        raise _NotTakenError("redirect", str(status))
    if status != 200:
        raise _NotTakenError("status", str(status))
    declared = headers.get("content-type") or ""
    if _media_type(declared) not in (*MEDIA_TYPES, *_NO_TYPE):
        raise _NotTakenError("media_type", _media_type(declared))
    try:
        body = decode_body(
            message.reader.read(),
            headers.get_multiple("transfer-encoding"),
            headers.get_multiple("content-encoding"),
            max_bytes,
            cut="warc-truncated" in record.headers,
        )
    except BodyTooLargeError:
        raise _NotTakenError("too_large", f"decodes to more than {max_bytes}") from None
    return str(status), declared, body


def _with_crlf(block: bytes) -> bytes:
    """The message with CRLF in its header: FastWARC takes a header of bare newlines for one without an end."""
    first = block.find(b"\n")
    end = block.find(b"\n\n")
    if first <= 0 or end < 0 or block[first - 1 : first] == b"\r" or b"\r\n\r\n" in block[:end]:
        return block
    header = re.sub(rb"\r?\n", b"\r\n", block[: end + 2])
    return header + block[end + 2 :]


def _status(block: bytes) -> int | None:
    """The status of a response's first line (`HTTP/1.1 200 OK`, `ICY 200 OK`)."""
    words = block[:64].split(None, 2)
    return int(words[1]) if len(words) > 1 and len(words[1]) == 3 and words[1].isdigit() else None


def _media_type(content_type: str) -> str:
    """`text/html` of `Text/HTML; charset=utf-8`."""
    return content_type.partition(";")[0].partition(",")[0].strip().lower()
