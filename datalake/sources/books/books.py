"""Books: long plain texts, one document a file or a chapter; Project Gutenberg's frame around them is taken off.

Files stand alone (compressed or not) or in zip and tar archives; a record is a text or HTML file, or a chapter of one
(`unit`). What Gutenberg's header says is kept: title, author, language, release, number. Its books are in the public
domain in the United States, or under their author's terms where it says so (`attributes["rights"]`): no SPDX identifier
says the first, so `licence` is the configured one.

Memory: a few times `max_bytes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from datalake.archive import Archive
from datalake.document import Entry, Passed, Quarantined
from datalake.formats.containers import Member, archive_members, is_archive
from datalake.formats.streams import as_utf8, decompressed
from datalake.origin import Origin, unlike
from datalake.paths import expand
from datalake.sources.books.config import Books
from datalake.sources.books.gutenberg import chapters, reflow, release, strip_frame
from datalake.text.charsets import decoded
from datalake.text.language import UNDETERMINED

__all__ = ["archives", "read", "strip_frame"]

# Files that come along with books in their archives and are none.
_OTHERS = (".jpg", ".jpeg", ".png", ".gif", ".svg", ".css", ".js", ".mid", ".mp3", ".ogg", ".pdf", ".epub", ".mobi",
           ".xml", ".rdf", ".opf", ".ncx", ".ttf", ".otf", ".woff", ".ds_store")  # fmt: skip
_DECLARED = re.compile(
    rb"^Character set encoding:[ \t]*+(?:Unicode )?((?:[\w.:-]++| ++(?=[\w.:-]))++)[ \t]*+\r?$", re.I | re.M
)
_HTML = re.compile(r"\.x?html?(?:\.\w+)?\Z", re.I)
_NAMES = {"iso-latin-1": "iso-8859-1", "latin-1": "iso-8859-1", "ansi": "windows-1252", "shift-jis": "shift_jis"}
_LANGUAGES = {
    "english": "en", "french": "fr", "german": "de", "italian": "it", "spanish": "es", "portuguese": "pt",
    "dutch": "nl", "finnish": "fi", "swedish": "sv", "danish": "da", "norwegian": "no", "latin": "la", "greek": "el",
    "hungarian": "hu", "polish": "pl", "czech": "cs", "russian": "ru", "chinese": "zh", "japanese": "ja",
    "esperanto": "eo", "catalan": "ca", "tagalog": "tl", "welsh": "cy", "irish": "ga", "icelandic": "is",
}  # fmt: skip


def archives(config: Books) -> list[Archive]:
    """One a file or archive."""
    return [Archive(config.kind, name, path) for name, path in expand(config.paths)]


def read(archive: Archive, config: Books) -> Iterator[Entry]:
    """One entry a book or chapter: a document, refused (empty, too_large, media_type) or quarantined."""
    origin = config.origin(archive)
    make = partial(_book, origin=origin, config=config)
    if is_archive(archive.path):
        members = archive_members(archive.path, origin, config.max_bytes)
        yield from unlike(origin.entries(members, lambda one: [Passed("other_file")] if _is_other(one) else make(one)))
        return
    parts: list[bytes] = []
    size = 0
    for chunk in origin.framed(as_utf8(decompressed(archive.path, origin))):
        if isinstance(chunk, Quarantined):
            yield chunk
            return
        parts.append(chunk)
        size += len(chunk)
        if size > config.max_bytes:
            break
    yield from origin.entries([Member("", b"".join(parts) if size <= config.max_bytes else None, 0, size)], make)


def _is_other(member: Member) -> bool:
    return member.name.lower().endswith(_OTHERS) or "__MACOSX" in member.name.split("/")


def _book(member: Member, origin: Origin, config: Books) -> Iterator[Entry]:
    locator = member.name or "0"
    refused = partial(origin.refused, member, locator)
    content = member.content
    if content is None or len(content) > config.max_bytes:
        yield refused("too_large", f"{member.length} bytes")
        return
    declared = _DECLARED.search(content[:20_000])
    name = declared[1].decode("ascii", "replace").strip().lower().replace(" ", "-") if declared else ""
    found_text = decoded(content, _NAMES.get(name, name))
    if found_text is None:
        yield refused("media_type", "no text")
        return
    text, charset = found_text
    if _HTML.search(member.name or origin.archive):
        from datalake.extract.html.page import extract

        text = extract(text, main_content=False).text
    text, found = strip_frame(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        yield refused("empty")
        return
    language, score = origin.language_of(text)
    if language == UNDETERMINED:
        language = _LANGUAGES.get(found.get("language", "").lower(), UNDETERMINED)
    uri = f"https://www.gutenberg.org/ebooks/{found['ebook']}" if "ebook" in found else None
    found |= {"charset": charset} if charset != "utf-8" else {}
    found |= {"group": found.get("title") or "/".join(part for part in (origin.archive, member.name) if part)}
    parts = chapters(text) if config.unit == "chapter" else [("", text)]
    for number, (heading, part) in enumerate(parts):
        chapter = {"chapter": heading, "chapter_number": str(number)} if config.unit == "chapter" else {}
        yield origin.document(
            member,
            f"{locator}/{number}" if chapter else locator,
            (reflow(part) if config.reflow else part).strip("\n"),
            found | {key: value for key, value in chapter.items() if value},
            uri=f"{uri}#{number}" if uri and chapter else uri,
            language=(language, score),
            created=release(found.get("release_date", "")),
        )
