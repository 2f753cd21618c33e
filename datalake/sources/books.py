"""Books: long plain texts, one document a file; Project Gutenberg's frame around them is taken off.

Files stand alone (compressed or not) or in zip and tar archives; a record is a text file. Gutenberg's header gives
title, author, language and release; its licence text before `*** START OF` and after `*** END OF` isn't the book.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from datalake.document import Document, Entry, Quarantined, Refused, document_id
from datalake.language import detect
from datalake.sources.config import Books
from datalake.sources.files import Member, archive_members, is_archive
from datalake.sources.protocol import InputShard, expand
from datalake.sources.streams import as_utf8, decompressed

KIND = "books"
_START = re.compile(r"^\s*\*\*\*\s*START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*$", re.IGNORECASE | re.MULTILINE)
_END = re.compile(
    r"^\s*(?:\*\*\*\s*END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg)[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD = re.compile(r"^(Title|Author|Language|Release Date|Translator|Editor):[ \t]*([^\n]+)$", re.MULTILINE)
_CREDIT = re.compile(r"\A\s*(?:Produced by|E-text prepared by|Transcribed (?:from|by))[^\n]*(?:\n(?!\n)[^\n]*)*", re.I)


def shards(config: Books) -> list[InputShard]:
    """One shard a file or archive."""
    return [InputShard(KIND, name, path) for name, path in expand(config.paths)]


def read(shard: InputShard, config: Books) -> Iterator[Entry]:
    """One entry a text file: a document, refused (empty, too_large) or quarantined (encoding, damage)."""
    if is_archive(shard.path):
        for member in archive_members(shard, config.label, config.max_bytes):
            yield member if not isinstance(member, Member) else _book(member, shard, config)
        return
    parts: list[bytes] = []
    size = 0
    for chunk in as_utf8(decompressed(shard.path, shard.name, config.label)):
        if isinstance(chunk, Quarantined):
            yield chunk
            return
        parts.append(chunk)
        size += len(chunk)
        if size > config.max_bytes:
            break
    yield _book(Member("", b"".join(parts) if size <= config.max_bytes else None, 0, size), shard, config)


def strip_frame(text: str) -> tuple[str, dict[str, str]]:
    """A Gutenberg text without header and footer, and what the header says (`title`, `author`, ...)."""
    start = _START.search(text)
    end = _END.search(text, start.end() if start else 0)
    if not start:
        return text, {}
    found = {match[1].lower().replace(" ", "_"): match[2].strip() for match in _FIELD.finditer(text[: start.start()])}
    body = text[start.end() : end.start() if end else len(text)]
    return _CREDIT.sub("", body).strip("\n"), found


def _book(member: Member, shard: InputShard, config: Books) -> Entry:
    identity = document_id(KIND, shard.name, member.name or "0")
    uri = f"{shard.name}#{member.name or 0}"
    if member.content is None or len(member.content) > config.max_bytes:
        detail = f"{member.length} bytes"
        return Refused(
            identity, config.label, uri, "too_large", detail, "und", shard.name, member.offset, member.length
        )
    try:
        text = member.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = member.content.decode("cp1252")  # older Gutenberg files
        except UnicodeDecodeError as error:
            return Quarantined(
                config.label, shard.name, "encoding", f"{member.name}: {error}", member.offset, member.length
            )
    text, found = strip_frame(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        return Refused(identity, config.label, uri, "empty", "", "und", shard.name, member.offset, member.length)
    how = config.language
    language, score = detect(text, model=how.model, threshold=how.threshold, characters=how.characters)
    return Document(
        id=identity,
        text=text,
        source=config.label,
        uri=uri,
        language=language,
        language_score=score,
        licence=config.licence,
        archive=shard.name,
        offset=member.offset,
        length=member.length,
        attributes=found | {"group": found.get("title") or member.name or shard.name},
    )
