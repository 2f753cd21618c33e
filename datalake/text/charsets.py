"""Text of files that nobody serves, whose character set is declared inside or not at all.

A byte-order mark, UTF-8, what the file declares, else what it looks like (chardetng). A declared name is first one of
the web's encodings, which read more than Python's codecs of the same names, then one of Python's codecs.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import Any

from chardetng_py import EncodingDetector

from datalake.text import encodings
from datalake.text.encodings import encoding_of

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"),
)  # fmt: skip
# What Python's source, domain names and tests are written with.
_NO_CHARSETS = frozenset(
    ("undefined", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "unicode_escape", "raw_unicode_escape")
)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f]")
_DETECTED = 100_000
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_LOOKED_AT = 8_000  # bytes in which git looks for zeros
_LOOKED_INTO = 1 << 20  # bytes of a stream
_LONGEST_LINE = 1 << 24  # bytes of a line that is held whole
_NOISE = 100  # bytes of which one may be a control character


def decoded(content: bytes, declared: str = "") -> tuple[str, str] | None:
    """A file's text and the character set it was in; None where it is no text.

    Bytes that don't belong become U+FFFD, if they are few; a declaration under which most are damaged doesn't count.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            text = content[len(mark) :].decode(name, "replace")
            return None if damaged(text) else (text, name)
    if b"\0" in content[:_LOOKED_AT]:
        return None
    if b"\x1b$" in content and content.isascii() and detected(content) == "iso-2022-jp":
        return encodings.decode(content, "iso-2022-jp"), "iso-2022-jp"
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    if _NOISE * len(_CONTROLS.findall(content[:_LOOKED_AT])) > len(content[:_LOOKED_AT]):
        return None
    if declared and (found := _by_name(content, declared)) and not damaged(found[0]):
        return found
    text = content.decode("utf-8", "replace")
    if few_wrong(text):
        return text, "utf-8"
    name = detected(content)
    text = encodings.decode(content, name)
    return None if damaged(text) else (text, name)


def streamed(chunks: Iterator[bytes | Any], told: Callable[[str], None]) -> Iterator[bytes | Any]:
    """A stream of lines in UTF-8, whatever it was in; `told` hears of a character set that isn't UTF-8.

    The first bytes beyond ASCII, and what follows up to `_LOOKED_INTO`, decide. What isn't bytes passes through.
    Memory: what decides, or the longest line.
    """
    pending: list[bytes] = []  # from the first bytes beyond ASCII on, then of a line that hasn't ended
    size = 0
    name = ""
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            if pending:
                name = name or _streamed_name(b"".join(pending), told)
                yield _in_utf_8(b"".join(pending), name)
                pending, size = [], 0
            yield chunk
        elif name == "utf-8" or (not name and not pending and chunk.isascii()):
            yield chunk
        else:
            end = chunk.rfind(b"\n") + 1
            size += len(chunk)
            if not name and size < _LOOKED_INTO:
                pending.append(chunk)
                continue
            if not name:
                name = _streamed_name(b"".join(pending) + chunk, told)
            if name == "utf-8" or end or size > _LONGEST_LINE:
                cut = len(chunk) if name == "utf-8" or not end else end
                yield _in_utf_8(b"".join((*pending, chunk[:cut])), name)
                pending = [chunk[cut:]] if cut < len(chunk) else []
                size = len(chunk) - cut
            else:
                pending.append(chunk)
    if pending:
        yield _in_utf_8(b"".join(pending), name or _streamed_name(b"".join(pending), told))


def _streamed_name(content: bytes, told: Callable[[str], None]) -> str:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(content)  # the last character may be cut
    noise = _NOISE * len(_CONTROLS.findall(content[:_LOOKED_AT])) > len(content[:_LOOKED_AT])
    if noise or few_wrong(text):
        return "utf-8"
    name = detected(content)
    if damaged(encodings.decode(content, name)):
        return "utf-8"
    told(name)
    return name


def _in_utf_8(content: bytes, name: str) -> bytes:
    return content if name == "utf-8" else encodings.decode(content, name).encode("utf-8")


def _by_name(content: bytes, name: str) -> tuple[str, str] | None:
    """Bytes in a character set by its name; None where it is the name of none."""
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ImportError, ValueError):
        codec = ""
    if found := encoding_of(name) or encoding_of(codec.replace("_", "-")):
        return encodings.decode(content, found), found
    if not codec or codec in _NO_CHARSETS:
        return None
    try:
        return content.decode(codec, "replace"), codec
    except (LookupError, ValueError):  # a codec that makes no text
        return None


def detected(data: bytes, host: str = "") -> str:
    """The encoding of bytes that say nothing of it, by chardetng: for bytes that are all ASCII, windows-1252."""
    beyond = _BEYOND_ASCII.search(data, _DETECTED // 2)  # where all before it is ASCII, which tells nothing
    start = beyond.start() if beyond and data[: beyond.start()].isascii() else 0
    detector = EncodingDetector()
    detector.feed(data[start : start + _DETECTED], last=len(data) <= start + _DETECTED)
    end = host.rpartition(".")[2]
    tld = end.encode() if end.isascii() and end.isalpha() and end.islower() else None
    return encoding_of(detector.guess(tld=tld, allow_utf8=False)) or "utf-8"


def beyond_ascii(text: str) -> int:
    """How many characters of a text aren't ASCII."""
    return len(text) - len(text.encode("ascii", "ignore"))


def few_wrong(text: str) -> bool:
    """Whether a text that was read as UTF-8 is: of what isn't ASCII at most one in five is U+FFFD.

    Of bytes in another charset nearly all are.
    """
    return 5 * text.count("\ufffd") <= beyond_ascii(text)


def damaged(text: str) -> bool:
    """Whether at least half of what isn't ASCII is U+FFFD."""
    wrong = text.count("\ufffd")
    return wrong > 0 and 2 * wrong >= beyond_ascii(text)
