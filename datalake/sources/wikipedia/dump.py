"""Wikipedia and any other MediaWiki: articles from XML exports (`pages-articles`; schemas export-0.3 to 0.11).

A record is a `<page>`. Pages are cut out of the byte stream first and parsed one by one: the stream needs the memory of
one page, and damage costs the pages it touches. What can't be decompressed, lies between pages without belonging
there, or isn't well-formed becomes one `Quarantined` a span, and reading goes on behind it.

Offsets and lengths are bytes of the decompressed stream (in UTF-8 where the export is UTF-16), except for damage of the
compression itself, where they are bytes of the file. In a multistream dump they count from the bzip2 stream that begins
at the byte of the file which the attribute `stream` names (its index's own number; left out where it is 0), so that a
page has the same provenance whether the dump is read whole or in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from datalake.archive import Archive
from datalake.document import Entry, Passed, Quarantined, moment
from datalake.errors import UserError
from datalake.extract.html.references import unescape
from datalake.extract.wiki.wikitext import Options, clean, prefixes
from datalake.formats.multistream import SIGNATURE, Seam, first_bytes, index_beside, split, streams
from datalake.formats.sevenzip import SIGNATURE as SEVEN_ZIP
from datalake.formats.sevenzip import unpacked
from datalake.formats.streams import as_utf8, decompressed
from datalake.origin import Origin
from datalake.paths import expand
from datalake.remote.address import is_remote
from datalake.sources.wikipedia.config import Wikipedia

_NAMESPACE = re.compile(r"<namespace((?:\s[^<>]*?)?)(?:/>|>([^<]*)<)")
_KEY = re.compile(r"\bkey\s*=\s*[\"']\s*(-?\d{1,9})\s*[\"']")
_MOST_HEAD = 1 << 20  # bytes; siteinfo of the largest wikis has 10,000
_CLOSES = b"</page>"
_TAG = 1_000  # bytes of a page's start tag
_OPENS = re.compile(rb"<page(?:\s[^<>]{0,%d})?>" % _TAG)
_REDIRECT = re.compile(
    r"\s*#[ ]?(?:redirect(?:ion|ionnement)?|weiterleitung|redirección|redirecionamento|rinvia|rinvio|doorverwijzing|"
    r"patrz|przekieruj|yönlendirme|yönlendir|perenapravlenie|перенаправление|перенапр|перенаправлення|пренасочване|"
    r"виж|преусмери|ohjaus|uudelleenohjaus|omdirigering|omdiriger|přesměruj|átirányítás|alih|đổi|redirigi|"
    r"تحويل|تغییر_مسیر|תפנית|הפניה|เปลี่ยนทาง|अनुप्रेषित|重定向|重新導向|转向|転送|リダイレクト|넘겨주기)"
    r"(?:[^\S\n]*+(?::[^\S\n]*+)?(?=\n|$)|\s*+(?::\s*+)?(?=\[\[))|\s*#redirect\b",
    re.IGNORECASE,
)
# Templates that stand for a page which isn't here but elsewhere.
_SOFT_REDIRECT = re.compile(
    r"\{\{\s*(?:soft[ _]?redirect|wiktionary redirect|category redirect|wi|软重定向|軟重定向|soft link)\s*[|}]",
    re.IGNORECASE,
)
# Templates that make a page a disambiguation page, by language; `disambiguation needed` and hatnotes are others.
_DISAMBIGUATION = re.compile(
    r"\{\{\s*+(?:(?:[\w .'-]{0,40}[ _])?disambiguation|disambig(?:-\w+)?|disamb|dab|hndis|geodis|mil-unit-dis|"
    r"numberdis|schooldis|hospitaldis|letter[- ]?(?:number )?combdisambig|"
    r"消歧[义義](?:[页頁])?|[地人][名名]消歧[义義]|(?:[\w-]{1,10})?消歧[义義]|多义|多義|"
    r"aimai|曖昧さ回避|(?:人名の|地名の)曖昧さ回避|動音異義|동음이의(?:어)?(?: 문서)?|동명이인|"
    r"begriffsklärung|homonymie(?: [^|{}]{1,40})?|homonymes|desambiguación|desambiguacion|disambigua|desambiguação|"
    r"desambiguaç[aã]o|неоднозначность|неоднозначність|disambigg|многозначность|пояснителна страница|"
    r"ujednoznacznienie|doorverwijspagina|dp|förgrening|gren|peker|pekerside|flertydig|täsmennyssivu|rozcestník|"
    r"egyért|egyértelműsítő lap|dezambiguizare|desambiguació|anlam ayrımı|صفحة توضيح|توضيح|ابهام[‌ -]?زدایی|"
    r"פירושונים|बहुविकल्पी(?: शब्द)?|แก้กำกวม|(?:trang )?định hướng|disambig-id|αποσαφήνιση)\s*"
    r"(?:\|(?!(?:\s*+(?:[123]\s*+)?=)?[^{}|=]*\(توضيح\))[^{}]*+)?\}\}|__DISAMBIG__|"
    r"\[\[\s*(?:category|分类|分類|catégorie|kategorie|categoría)\s*:\s*"
    r"(?:(?:all )?disambiguation pages|消歧[义義](?:[页頁])?|homonymie|begriffsklärung|wikipedia:desambiguación)"
    r"\s*[|\]]",
    re.IGNORECASE,
)


def archives(config: Wikipedia) -> list[Archive]:
    """One a dump file; a multistream dump of more than `split_bytes` in parts (see `multistream.split`).

    A remote dump is one. A part's version is its file's content, like that of a whole file. The index of a dump
    that is itself among the paths is none. Raises UserError for a file that can't be read.
    """
    found = expand(config.paths)
    indexes = {str(index) for _, path in found if (index := index_beside(path))}
    out: list[Archive] = []
    for name, path in found:
        if path in indexes:
            continue
        if is_remote(path):  # read whole: where its streams begin is known once it is here
            out.append(Archive(config.kind, name, path))
            continue
        try:
            parts = split(path, config.split_bytes)
        except OSError as error:
            raise UserError(f"{path} can't be read ({error.strerror}): correct the path") from None
        out.extend(Archive(config.kind, name, path, spans=spans) for spans in parts)
    return out


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

    def options(self, config: Wikipedia) -> Options:
        """How its pages are rendered: by the head's language, else by the wiki's name (`zhwiki`)."""
        language = self.language or self.name.removesuffix("wiki")
        if self.name.startswith("simple"):
            language = "simple"
        chinese = language == "zh" or language in ("zh-cn", "zh-hans", "zh-tw", "zh-hant", "zh-hk")
        return Options(
            variant=config.variant,
            conversion=config.conversion if chinese else "none",
            language="zh" if chinese else language or "en",
            namespaces=prefixes(self.links_to_drop),
            infoboxes=config.infoboxes,
        )


def read(archive: Archive, config: Wikipedia) -> Iterator[Entry]:
    """One entry a `<page>`: a document, quarantined, or refused: redirect, namespace, media_type, disambiguation,
    too_large, empty.
    """
    origin = config.origin(archive)
    site = _head_of(archive, origin) if len(archive.spans) > 1 else _Site()
    seen = False  # a page, a head or damage

    def entry(piece: _Piece) -> Entry:
        nonlocal site, seen
        if piece.kind == "head":
            seen = seen or b"<mediawiki" in piece.content
            site = _site(piece.content)
            return Passed("siteinfo")
        seen = True
        return _page(piece, site, origin, config)

    for found in origin.entries(_Cutter(archive, config).pieces(_chunks(archive, origin)), entry):
        seen = seen or isinstance(found, Quarantined)
        yield found
    if not seen:
        yield origin.lost("no_page", "an empty file", 0, 0)


@dataclass(slots=True)
class _Piece:
    """A span of the decompressed stream: the export's `head` or one `page`. `stream`: see `_chunks`."""

    kind: str
    content: bytes
    offset: int
    stream: int

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return len(self.content)


def _chunks(archive: Archive, origin: Origin) -> Iterator[bytes | Seam | Quarantined]:
    """The archive's bytes as UTF-8, with a `Seam` where a stream of a bzip2 file begins."""
    if archive.spans:
        yield from streams(archive.path, archive.spans[-1], origin)
        return
    with Path(archive.path).open("rb") as file:
        start = file.read(10)
    if start.startswith(SEVEN_ZIP):
        yield from as_utf8(unpacked(archive.path, origin))
    elif SIGNATURE.match(start) and not _utf16(first_bytes(archive.path, 0, 4)):
        yield from streams(archive.path, None, origin)
    else:
        yield from as_utf8(decompressed(archive.path, origin))


def _utf16(head: bytes) -> bool:
    return head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head


def _head_of(archive: Archive, origin: Origin) -> _Site:
    """The export's head, for a part that doesn't begin with it."""
    head = b""
    for chunk in streams(archive.path, archive.spans[0], origin):
        if isinstance(chunk, bytes):
            head += chunk
            if (match := _OPENS.search(head)) or len(head) > _MOST_HEAD:
                head = head[: match.start()] if match else head
                break
    return _site(head)


class _Cutter:
    """The stream cut into head and pages; quarantined: damage, and text that belongs to neither.

    `base` is the offset of the buffer's first byte, counted from the stream at byte `stream` of the file.
    """

    def __init__(self, archive: Archive, config: Wikipedia) -> None:
        self.origin = config.origin(archive)
        self.whole = not archive.spans
        self.limit = 2 * config.max_bytes + (1 << 16)  # of bytes held: escaped XML takes more room than the text in it
        self.buffer = bytearray()
        self.looked = 0  # bytes of the buffer in which neither a page's beginning nor its end is
        self.base = 0
        self.stream = 0
        # `head`, `between`, `page`, and `skip` behind the beginning of a page beyond the limit
        self.state = "between" if len(archive.spans) > 1 else "head"
        self.skipped = 0  # bytes of such a page that are gone already

    def pieces(self, chunks: Iterator[bytes | Seam | Quarantined]) -> Iterator[_Piece | Quarantined]:
        for chunk in chunks:
            if isinstance(chunk, Quarantined):
                yield from self.break_off("the page breaks off at damage")
                self.state = "between"
                yield chunk
            elif isinstance(chunk, Seam):
                if chunk.page:
                    yield from self.break_off("a page without its end")
                    self.stream, self.base = chunk.offset, 0
            else:
                self.buffer += chunk
                yield from self.complete()
        if self.state == "head" and self.whole:
            if self.buffer.strip():
                yield self.lost(len(self.buffer), "no_page", "no <page>: not a MediaWiki XML export")
            return
        yield from self.break_off("a page without its end")

    def lost(self, length: int, reason: str, detail: str) -> Quarantined:
        """So many bytes of the buffer, and what was skipped before them, as a quarantined span."""
        if self.stream:
            detail = f"{detail} (in the stream at byte {self.stream})"
        offset = self.base - self.skipped
        return self.origin.lost(reason, detail, offset, length + self.skipped)

    def drop(self, length: int, state: str) -> None:
        """Go on behind so many bytes of the buffer."""
        self.base += length
        del self.buffer[:length]
        self.looked = 0
        self.state = state

    def wait(self) -> None:
        """Go on when there is more, at the tag that may be cut off."""
        place = self.buffer.rfind(b"<", max(self.looked, len(self.buffer) - 2 * _TAG))
        self.looked = place if place >= 0 else len(self.buffer)

    def break_off(self, why: str) -> Iterator[_Piece | Quarantined]:
        """What stands in the buffer is all there is of it: nothing that follows belongs to it."""
        if self.state in ("page", "skip"):
            yield self.lost(len(self.buffer), "truncated", why)
        elif self.state == "head":
            yield _Piece("head", bytes(self.buffer), self.base, self.stream)
        elif self.buffer.replace(b"</mediawiki>", b"").strip():
            yield self.lost(len(self.buffer), "no_page", _excerpt(bytes(self.buffer[:200])))
        self.drop(len(self.buffer), "between")
        self.skipped = 0

    def complete(self) -> Iterator[_Piece | Quarantined]:
        """The pieces that the buffer holds whole."""
        while True:
            if self.state in ("head", "between"):
                match = _OPENS.search(self.buffer, self.looked)
                if not match:
                    if len(self.buffer) > self.limit:
                        yield self.lost(len(self.buffer) - 16, "no_page", "text outside of pages")
                        self.drop(len(self.buffer) - 16, "between")
                    else:
                        self.wait()
                    return
                gap = bytes(self.buffer[: match.start()])
                if self.state == "head":
                    yield _Piece("head", gap, self.base, self.stream)
                elif gap.strip():
                    yield self.lost(len(gap), "no_page", _excerpt(gap))
                self.drop(len(gap), "page")
            end = self.buffer.find(_CLOSES, self.looked)
            begin = max(self.looked, self.state == "page")
            again = _OPENS.search(self.buffer, begin, end if end >= 0 else len(self.buffer))
            if again:  # a page begins before the last one has ended
                yield self.lost(again.start(), "truncated", "a page without its end")
                self.drop(again.start(), "page")
                self.skipped = 0
            elif end >= 0:
                end += len(_CLOSES)
                if self.state == "skip":
                    yield self.lost(end, "too_large", f"a page of more than {self.limit} bytes")
                else:
                    yield _Piece("page", bytes(self.buffer[:end]), self.base, self.stream)
                self.drop(end, "between")
                self.skipped = 0
            else:
                if len(self.buffer) > self.limit:
                    self.skipped += len(self.buffer) - 16  # what is left may hold the beginning of a tag
                    self.drop(len(self.buffer) - 16, "skip")
                else:
                    self.wait()
                return


def _excerpt(content: bytes) -> str:
    return " ".join(content[:200].decode("utf-8", "replace").split())[:80]


def _site(head: bytes) -> _Site:
    """What the head says of the wiki; patterns, not a parse, since a head may be cut or missing."""
    text = head.decode("utf-8", "replace")

    def first(pattern: str) -> str:
        match = re.search(pattern, text)
        return unescape(match[1]).strip() if match else ""

    site = _Site(
        name=first(r"<dbname(?:\s[^<>/]*)?>([^<]*)<"),
        language=first(r"<mediawiki\s[^<>]*\bxml:lang\s*=\s*[\"']\s*([^\"'<>]+)"),
    )
    if base := first(r"<base(?:\s[^<>/]*)?>([^<]*)<"):
        site.base = base.rpartition("/")[0] + "/"
    elif site.language:
        site.base = f"https://{site.language}.wikipedia.org/wiki/"
    for match in _NAMESPACE.finditer(text):
        if key := _KEY.search(match[1]):  # an empty element, as that of articles is, has no name
            site.namespaces[unescape(match[2] or "").strip().lower()] = int(key[1])
    return site


def _page(piece: _Piece, site: _Site, origin: Origin, config: Wikipedia) -> Entry:
    """One `<page>` as the entry it becomes."""
    try:
        page = ElementTree.fromstring(piece.content)
    except ElementTree.ParseError as error:
        return origin.quarantined(piece, "xml", str(error))
    title = " ".join((page.findtext("title") or "").split())
    if not title:
        return origin.quarantined(piece, "xml", "a page without a title")
    revisions = page.findall("revision")
    revision = revisions[-1] if revisions else None  # histories list them from old to new
    page_id = (page.findtext("id") or "").strip() or title
    revision_id = ((revision.findtext("id") if revision is not None else "") or "").strip()
    locator = f"{page_id}/{revision_id}"
    uri = site.base + quote(title.replace(" ", "_"), safe="/:;@!$&'()*,~")
    source = ((revision.findtext("text") if revision is not None else "") or "").strip()
    namespace = (page.findtext("ns") or "").strip()
    if not namespace:  # exports before schema 0.6
        prefix, colon, _ = title.lower().partition(":")
        namespace = str(site.namespaces.get(prefix, 0) if colon else 0)

    refused = partial(origin.refused, piece, locator, uri=uri)
    redirect = page.find("redirect")
    if (redirect is not None or _REDIRECT.match(source)) and not config.redirects:
        return refused("redirect", redirect.get("title", "") if redirect is not None else source[:200])
    if not config.redirects and (soft := _SOFT_REDIRECT.search(source[:2_000])):
        return refused("redirect", "soft: " + source[soft.start() : soft.start() + 200])
    if namespace not in [str(key) for key in config.namespaces]:
        return refused("namespace", namespace)
    model = ((revision.findtext("model") if revision is not None else "") or "wikitext").strip()
    if model != "wikitext":
        return refused("media_type", model)
    if len(source.encode("utf-8", "replace")) > config.max_bytes:
        return refused("too_large", f"{len(source)} characters")
    if not config.disambiguations and (found := _DISAMBIGUATION.search(source)):
        return refused("disambiguation", found[0][:200])
    created = moment((revision.findtext("timestamp") if revision is not None else None) or "")
    text = clean(source, site.options(config), title, created)
    if not text:
        return refused("empty")
    attributes = {"title": title, "group": title, "page": page_id, "revision": revision_id}
    if site.name or site.language:
        attributes["site"] = site.name or site.language
    if site.language:
        attributes["site_language"] = site.language
    if piece.stream:
        attributes["stream"] = str(piece.stream)
    return origin.document(piece, locator, text, attributes, uri=uri, created=created)
