"""Wikipedia and any other MediaWiki: articles from XML exports (`pages-articles`; schemas export-0.3 to 0.11).

A record is a `<page>`. Pages are cut out of the byte stream first and parsed one by one: the stream needs the memory of
one page, and damage costs the pages it touches. What can't be decompressed, lies between pages without belonging
there, or isn't well-formed becomes one `Quarantined` a span, and reading goes on behind it.

Offsets and lengths are bytes of the decompressed stream (in UTF-8 where the export is UTF-16), except for damage of the
compression itself, where they are bytes of the file.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree

from datalake.document import Document, Entry, Passed, Quarantined, Refused, document_id
from datalake.extract.wikitext import clean
from datalake.language import detect
from datalake.sources.config import Wikipedia
from datalake.sources.protocol import InputShard, expand
from datalake.sources.streams import as_utf8, decompressed

KIND = "wikipedia"
_CLOSES = b"</page>"
_OPENS = re.compile(rb"<page(?:\s[^<>]*)?>")
_REDIRECT = re.compile(
    r"\s*#(?:redirect(?:ion)?|重定向|リダイレクト|넘겨주기|перенаправление|пренасочване)\b", re.IGNORECASE
)


def shards(config: Wikipedia) -> list[InputShard]:
    """One shard a dump file."""
    return [InputShard(KIND, name, path) for name, path in expand(config.paths)]


@dataclass
class _Site:
    """What the export's head says of its wiki."""

    base: str = ""  # address of a page without its title
    name: str = ""  # dbname, such as `enwiki`
    language: str = ""  # xml:lang of the export
    namespaces: dict[str, int] = field(default_factory=dict)  # lower-cased prefix -> key

    @property
    def links_to_drop(self) -> list[str]:
        """The wiki's own prefixes of files and categories."""
        return [name for name, key in self.namespaces.items() if key in (6, 14)]


def read(shard: InputShard, config: Wikipedia) -> Iterator[Entry]:
    """One entry a `<page>`: a document, refused (redirect, namespace, media_type, too_large, empty) or quarantined."""
    site = _Site()
    pages = 0
    seen = False
    for piece in _pieces(shard, config):
        if isinstance(piece, Quarantined):
            seen = True
            yield piece
        elif piece.kind == "head":
            site = _site(piece.content)
            seen = seen or b"<mediawiki" in piece.content
            yield Passed("siteinfo")
        else:
            pages += 1
            yield _page(piece, site, shard, config)
    if not pages and not seen:
        yield Quarantined(config.label, shard.name, "no_page", "an empty file", 0, 0)


@dataclass(slots=True)
class _Piece:
    """A span of the decompressed stream: the export's `head` or one `page`."""

    kind: str
    content: bytes
    offset: int


def _pieces(shard: InputShard, config: Wikipedia) -> Iterator[_Piece | Quarantined]:
    """The stream cut into head and pages; quarantined: damage, and text that belongs to neither."""
    limit = 2 * config.max_bytes + (1 << 16)  # of bytes held: escaped XML takes more room than the text in it
    buffer = b""
    base = 0  # offset of the buffer's first byte
    state = "head"  # then `between`, `page`, and `skip` behind the beginning of a page beyond the limit
    skipped = 0  # bytes of such a page that are gone already

    def lost(length: int, reason: str, detail: str) -> Quarantined:
        return Quarantined(config.label, shard.name, reason, detail, base - skipped, length + skipped)

    for chunk in as_utf8(decompressed(shard.path, shard.name, config.label)):
        if isinstance(chunk, Quarantined):
            if state in ("page", "skip"):
                yield lost(len(buffer), "truncated", "the page breaks off at damage")
            elif state == "head":
                yield _Piece("head", buffer, base)
            elif buffer.strip():
                yield lost(len(buffer), "no_page", _excerpt(buffer))
            base, buffer, state, skipped = base + len(buffer), b"", "between", 0
            yield chunk
            continue
        buffer += chunk
        while True:
            if state in ("head", "between"):
                match = _OPENS.search(buffer)
                if not match:
                    if len(buffer) > limit:
                        yield lost(len(buffer) - 16, "no_page", "text outside of pages")
                        base, buffer, state = base + len(buffer) - 16, buffer[-16:], "between"
                    break
                gap = buffer[: match.start()]
                if state == "head":
                    yield _Piece("head", gap, base)
                elif gap.strip():
                    yield lost(len(gap), "no_page", _excerpt(gap))
                base, buffer, state = base + len(gap), buffer[len(gap) :], "page"
            end = buffer.find(_CLOSES)
            again = _OPENS.search(buffer, 1 if state == "page" else 0, end if end >= 0 else len(buffer))
            if again:  # a page begins before the last one has ended
                yield lost(again.start(), "truncated", "a page without its end")
                base, buffer, state, skipped = base + again.start(), buffer[again.start() :], "page", 0
            elif end >= 0:
                end += len(_CLOSES)
                if state == "skip":
                    yield lost(end, "too_large", f"a page of more than {limit} bytes")
                else:
                    yield _Piece("page", buffer[:end], base)
                base, buffer, state, skipped = base + end, buffer[end:], "between", 0
            elif len(buffer) > limit:
                skipped += len(buffer) - 16  # what is left may hold the beginning of a tag
                base, buffer, state = base + len(buffer) - 16, buffer[-16:], "skip"
                break
            else:
                break
    if state == "head":
        if buffer.strip():
            yield lost(len(buffer), "no_page", "no <page>: not a MediaWiki XML export")
    elif state in ("page", "skip"):
        yield lost(len(buffer), "truncated", "the file ends inside a page")
    elif re.sub(rb"</mediawiki>", b"", buffer).strip():
        yield lost(len(buffer), "no_page", _excerpt(buffer))


def _excerpt(content: bytes) -> str:
    return " ".join(content[:200].decode("utf-8", "replace").split())[:80]


def _site(head: bytes) -> _Site:
    """What the head says of the wiki; patterns, not a parse, since a head may be cut or missing."""
    text = head.decode("utf-8", "replace")

    def first(pattern: str) -> str:
        match = re.search(pattern, text)
        return html.unescape(match[1]).strip() if match else ""

    site = _Site(name=first(r"<dbname>([^<]*)<"), language=first(r"<mediawiki[^>]*\bxml:lang=[\"']([^\"']+)"))
    if base := first(r"<base>([^<]*)<"):
        site.base = base.rpartition("/")[0] + "/"
    elif site.language:
        site.base = f"https://{site.language}.wikipedia.org/wiki/"
    for match in re.finditer(r"<namespace\b[^>]*\bkey=[\"'](-?\d+)[\"'][^>]*>([^<]*)<", text):
        site.namespaces[html.unescape(match[2]).strip().lower()] = int(match[1])
    return site


def _page(piece: _Piece, site: _Site, shard: InputShard, config: Wikipedia) -> Entry:
    """One `<page>` as the entry it becomes."""
    offset, length = piece.offset, len(piece.content)
    try:
        page = ElementTree.fromstring(piece.content)
    except ElementTree.ParseError as error:
        return Quarantined(config.label, shard.name, "xml", str(error), offset, length)
    title = " ".join((page.findtext("title") or "").split())
    if not title:
        return Quarantined(config.label, shard.name, "xml", "a page without a title", offset, length)
    revisions = page.findall("revision")
    revision = revisions[-1] if revisions else None  # histories list them from old to new
    page_id = (page.findtext("id") or "").strip() or title
    revision_id = ((revision.findtext("id") if revision is not None else "") or "").strip()
    identity = document_id(KIND, shard.name, f"{page_id}/{revision_id}")
    uri = site.base + quote(title.replace(" ", "_"), safe="/:;@!$&'()*,~")
    source = ((revision.findtext("text") if revision is not None else "") or "").strip()
    namespace = (page.findtext("ns") or "").strip()
    if not namespace:  # exports before schema 0.6
        prefix, colon, _ = title.lower().partition(":")
        namespace = str(site.namespaces.get(prefix, 0) if colon else 0)

    def refused(reason: str, detail: str = "") -> Refused:
        return Refused(identity, config.label, uri, reason, detail, "und", shard.name, offset, length)

    redirect = page.find("redirect")
    if (redirect is not None or _REDIRECT.match(source)) and not config.redirects:
        return refused("redirect", redirect.get("title", "") if redirect is not None else source[:200])
    if namespace not in [str(key) for key in config.namespaces]:
        return refused("namespace", namespace)
    model = ((revision.findtext("model") if revision is not None else "") or "wikitext").strip()
    if model != "wikitext":
        return refused("media_type", model)
    if len(source.encode("utf-8", "replace")) > config.max_bytes:
        return refused("too_large", f"{len(source)} characters")
    cleaned = clean(source, config.variant, site.links_to_drop)
    if not cleaned.text:
        return refused("empty")
    language, score = detect(
        cleaned.text,
        model=config.language.model,
        threshold=config.language.threshold,
        characters=config.language.characters,
    )
    attributes = {"title": title, "group": title, "page": page_id, "revision": revision_id}
    if site.name or site.language:
        attributes["site"] = site.name or site.language
    if site.language:
        attributes["site_language"] = site.language
    if cleaned.parser != "mwparserfromhell":
        attributes["parser"] = cleaned.parser
    return Document(
        id=identity,
        text=cleaned.text,
        source=config.label,
        uri=uri,
        language=language,
        language_score=score,
        licence=config.licence,
        created=_time(revision.findtext("timestamp") if revision is not None else None),
        archive=shard.name,
        offset=offset,
        length=length,
        attributes=attributes,
    )


def _time(timestamp: str | None) -> datetime | None:
    """A revision's time, such as 2014-07-23T10:35:56Z."""
    try:
        time = datetime.fromisoformat((timestamp or "").strip())
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
