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

from datalake.archive import InputShard
from datalake.document import Document, Entry, Passed, Quarantined, Refused, document_id
from datalake.formats.containers import Member, archive_members, is_archive
from datalake.formats.streams import as_utf8, decompressed
from datalake.paths import expand
from datalake.sources.books.gutenberg import chapters, reflow, release, strip_frame
from datalake.sources.config import Books
from datalake.sources.entries import entries, framed, unlike
from datalake.text.charsets import decoded
from datalake.text.language import UNDETERMINED, detect

__all__ = ["read", "shards", "strip_frame"]

KIND = "books"
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


def shards(config: Books) -> list[InputShard]:
    """One shard a file or archive."""
    return [InputShard(KIND, name, path) for name, path in expand(config.paths)]


def read(shard: InputShard, config: Books) -> Iterator[Entry]:
    """One entry a book or chapter: a document, refused (empty, too_large, media_type) or quarantined."""
    if is_archive(shard.path):
        members = archive_members(shard, config.label, config.max_bytes)
        yield from unlike(entries(members, partial(_member, shard=shard, config=config), config.label, shard.name))
        return
    parts: list[bytes] = []
    size = 0
    for chunk in framed(as_utf8(decompressed(shard.path, shard.name, config.label)), config.label, shard.name):
        if isinstance(chunk, Quarantined):
            yield chunk
            return
        parts.append(chunk)
        size += len(chunk)
        if size > config.max_bytes:
            break
    whole = Member("", b"".join(parts) if size <= config.max_bytes else None, 0, size)
    yield from entries([whole], partial(_book, shard=shard, config=config), config.label, shard.name)


def _member(member: Member, shard: InputShard, config: Books) -> Iterator[Entry]:
    if member.name.lower().endswith(_OTHERS) or "__MACOSX" in member.name.split("/"):
        return iter([Passed("other_file")])
    return _book(member, shard, config)


def _book(member: Member, shard: InputShard, config: Books) -> Iterator[Entry]:
    locator = member.name or "0"
    here = f"{shard.name}#{locator}"

    def refused(reason: str, detail: str = "") -> Refused:
        identity = document_id(KIND, shard.name, locator)
        where = {"archive": shard.name, "offset": member.offset, "length": member.length}
        return Refused(identity, config.label, here, reason, detail, "und", **where)  # type: ignore[arg-type]

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
    if _HTML.search(member.name or shard.name):
        from datalake.extract.html.page import extract

        text = extract(text, main_content=False).text
    text, found = strip_frame(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        yield refused("empty")
        return
    how = config.language
    language, score = detect(text, model=how.model.path, threshold=how.threshold, characters=how.characters)
    if language == UNDETERMINED:
        language = _LANGUAGES.get(found.get("language", "").lower(), UNDETERMINED)
    uri = f"https://www.gutenberg.org/ebooks/{found['ebook']}" if "ebook" in found else here
    found |= {"charset": charset} if charset != "utf-8" else {}
    found |= {"group": found.get("title") or "/".join(part for part in (shard.name, member.name) if part)}
    parts = chapters(text) if config.unit == "chapter" else [("", text)]
    for number, (heading, part) in enumerate(parts):
        chapter = {"chapter": heading, "chapter_number": str(number)} if config.unit == "chapter" else {}
        at = f"{locator}/{number}" if chapter else locator
        yield Document(
            id=document_id(KIND, shard.name, at),
            text=(reflow(part) if config.reflow else part).strip("\n"),
            source=config.label,
            uri=(f"{uri}#{number}" if uri != here else f"{shard.name}#{at}") if chapter else uri,
            language=language,
            language_score=score,
            licence=config.licence,
            created=release(found.get("release_date", "")),
            archive=shard.name,
            offset=member.offset,
            length=member.length,
            attributes=found | {key: value for key, value in chapter.items() if value},
        )
