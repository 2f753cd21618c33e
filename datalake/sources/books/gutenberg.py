"""Project Gutenberg's plain texts: the frame around a book, what its header says, its paragraphs and its chapters.

The frame has changed since 1991. What is known here: `*** START OF THE/THIS PROJECT GUTENBERG EBOOK ... ***` and its
end (also without spaces, and over two lines); the `SMALL PRINT!` of the older ones, whose last line begins the book;
the older last lines (`End of Project Gutenberg's ...`, and in French, German, Italian, Spanish, Dutch, Portuguese); a
header or footer whose mark is missing, told by the phrases that are in all of them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise

_EBOOK = r"(?:E-?TEXT|E-?BOOK)"
_START = re.compile(r"^[ \t]*\*{2,3}[ \t]*START OF (?:THE |THIS )?(?:COPYRIGHTED )?PROJECT GUTENBERG", re.I | re.M)
_SMALL_PRINT_END = re.compile(
    r"^.*\*END\*?[ \t]*(?:THE )?SMALL PRINT!?.*$|^.*END.{0,3}THE SMALL PRINT!.*$", re.I | re.M
)
_SMALL_PRINT = re.compile(r"^.*\*{2,3}START\*{2,3}[ \t]*THE SMALL PRINT", re.I | re.M)
_ENDS = re.compile(
    r"^[ \t]*+(?:\*{2,3}[ \t]*+END OF (?:THE |THIS )?(?:COPYRIGHTED )?PROJECT GUTENBERG"
    r"|(?:\*{1,3}[ \t]*+)?(?:This is the )?End of (?:the |this )?Project Gutenberg"
    r"|END OF THE PROJECT GUTENBERG|\*{3}[ \t]*START: FULL LICENSE"
    r"|Fin (?:de|du|of) (?:the |ce )?Proje[ct]+t? Gutenberg|Ende? (?:dieses?|des|von) Proje[ck]t[ -]Gutenberg"
    r"|Fine (?:del|di|dell['’]) ?Proge?tto Gutenberg|Fine (?:di|del|dell['’]e-?book) .{0,40}Project Gutenberg"
    r"|Final? del? Proyecto Gutenberg|Fin de(?:l| este) .{0,20}Proyecto Gutenberg|Einde? van (?:het )?Project Gutenberg"
    r"|Fim do? (?:Projeto|Project) Gutenberg|Ende dieses E-?(?:textes|books))",
    re.I | re.M,
)
_FOOTER = re.compile(
    r"^[ \t]*(?:Updated editions will replace the previous one|This file should be named .{1,40}\.(?:txt|zip)"
    r"|Section 1\. ?General Terms of Use and Redistributing Project Gutenberg)",
    re.I | re.M,
)
_HEADER = re.compile(
    r"Project Gutenberg|(?:e-?book|e-?text) is for the use of anyone|almost no restrictions whatsoever"
    r"|^(?:Title|Author|Translator|Editor|Illustrator|Language|Release Date|Posting Date|Character set encoding):"
    r"|Copyright laws are changing|Please take a look at the important information|Produced by|www\.gutenberg\.",
    re.I | re.M,
)
_FIELDS = "Title|Author|Translator|Editor|Illustrator|Language|Release Date|Posting Date|Original Publication|Credits"
_FIELD = re.compile(rf"^({_FIELDS}):[ \t]*([^\n]+(?:\n[ \t]+[^\n]+)*)", re.M)
_NUMBER = re.compile(rf"\[?\b{_EBOOK}[ \t]*#[ \t]*(\d{{1,6}})\b\]?", re.I)
_FIRST = re.compile(
    rf"Project Gutenberg(?:['’]s)?[ \t]+(?:{_EBOOK}[ \t]*,?[ \t]*(?:of[ \t]+)?)?(.{{2,200}}?)"
    r"(?:,?[ \t]+by[ \t]+([^\n*#]{2,100}?))?[ \t]*\**$",
    re.I | re.M,
)
_CREDIT = re.compile(
    r"\A\s*(?:Produced by|E-?text (?:prepared|produced) by|Transcribed (?:from|by)|This e-?(?:text|book) was (?:pre"
    r"pared|produced|created|transcribed)|Prepared by|Scanned by|HTML version by|\[?Note: (?:Project Gutenberg|Images "
    r"of)|See \d+-h\.htm|\(https?://(?:www\.)?gutenberg)[^\n]*(?:\n(?!\s*\n)[^\n]*)*",
    re.I,
)
_BLANKS = re.compile(r"[ \t]+")
_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
           "november", "december")  # fmt: skip
_DATE = re.compile(r"([A-Za-z]{3,9})\.?(?:[ \t]+(\d{1,2}))?,?[ \t]+(\d{4})")
_ISO = re.compile(r"\b(\d{4})-(\d{2})(?:-(\d{2}))?\b")


def strip_frame(text: str) -> tuple[str, dict[str, str]]:
    """A Gutenberg text without header and footer, and what the header says (`title`, `author`, `ebook`, ...).

    A text that isn't one of Project Gutenberg's stays as it is, with nothing said.
    """
    begin = _begin(text)
    if begin is None:
        if not re.search(r"Project Gutenberg", text.lstrip()[:200], re.I):
            return text, {}
        begin = _behind_header(text)
        if not text[begin:].strip():  # about Project Gutenberg, not of it
            return text, {}
    found = _said(text[:begin] or text[:2_000])
    ends = [match.start() for pattern in (_ENDS, _FOOTER, _SMALL_PRINT) if (match := pattern.search(text, begin))]
    body = text[begin : min(ends, default=len(text))].strip("\n")
    for _ in range(4):
        body, changed = _CREDIT.subn("", body, count=1)
        body = body.strip("\n")
        if not changed:
            break
    return body, found


def _begin(text: str) -> int | None:
    """Where the book begins by the header's last mark; None where there is none."""
    if match := _START.search(text):
        line_end = text.find("\n", match.end())
        line = text[match.start() : line_end if line_end >= 0 else len(text)]
        if not line.rstrip().endswith("*"):  # a long title goes on in the next lines
            closing = text.find("***", match.start() + 6 + len(match[0]) - len(match[0].lstrip()))
            blank = text.find("\n\n", match.end())
            if closing >= 0 and (blank < 0 or closing < blank):
                line_end = text.find("\n", closing)
        return line_end + 1 if line_end >= 0 else len(text)
    match = _SMALL_PRINT_END.search(text)
    if match and match.start() <= max(20_000, len(text) // 2):
        return min(match.end() + 1, len(text))
    return None


def _behind_header(text: str) -> int:
    """Where the header ends that has no mark: behind the last of the first paragraphs with one of its phrases."""
    place = end = 0
    for number, paragraph in enumerate(re.finditer(r"(?:[^\n]+\n?)+", text)):
        if number >= 25:
            break
        if _HEADER.search(paragraph[0]):
            end = paragraph.end()
            place = number
        elif number - place > 3:
            break
    return end


def _said(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _FIELD.finditer(header):
        found.setdefault(match[1].lower().replace(" ", "_"), " ".join(match[2].split()))
    if number := _NUMBER.search(header):
        found["ebook"] = number[1].lstrip("0") or "0"
    if "title" not in found and (first := _FIRST.search(_BLANKS.sub(" ", header[:3_000]))):
        found["title"] = first[1].strip(" ,.*")
        if first[2]:
            found.setdefault("author", first[2].strip(" ,.*"))
    for name in ("release_date", "posting_date"):
        if name in found:
            found[name] = _NUMBER.sub("", found[name]).strip(" ,[]")
    found["rights"] = (
        "copyrighted" if re.search(r"COPYRIGHTED Project Gutenberg", header) else "public domain in the USA"
    )
    return {key: value for key, value in found.items() if value}


def release(date: str) -> datetime | None:
    """The day of a release date as headers write it (`June 25, 2008`, `August, 1998`: its first); None for others."""
    if match := _ISO.search(date):
        numbers = int(match[1]), int(match[2]), int(match[3] or 1)
    elif match := _DATE.search(date):
        month = next((place for place, name in enumerate(_MONTHS, 1) if name.startswith(match[1].lower())), 0)
        numbers = int(match[3]), month, int(match[2] or 1)
    else:
        return None
    try:
        return datetime(*numbers, tzinfo=UTC)
    except ValueError:
        return None


def reflow(text: str) -> str:
    """Hard-wrapped lines joined to paragraphs; verse, tables and headings stay as they are.

    Lines were wrapped if they broke where they had to: the next line's first word would not have fitted. A paragraph
    in which nine of ten breaks are so is prose. The width is what the widest lines reach that are no exception.
    """
    blocks = re.split(r"(\n[ \t]*\n\s*)", text)
    lengths = sorted(len(line) for block in blocks[::2] if "\n" in block for line in block.split("\n")[:-1])
    if not lengths:
        return text
    width = lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    return "".join(block if number % 2 else _joined(block, width) for number, block in enumerate(blocks))


def _joined(block: str, width: int) -> str:
    lines = block.split("\n")
    if len(lines) < 2 or width < 40:
        return block
    if sum(line.startswith(("  ", "\t")) for line in lines) > 1 or any("   " in line.strip() for line in lines):
        return block
    forced = sum(
        len(line) + 1 + len(following.split(maxsplit=1)[0] if following.split() else "") > width - 2
        for line, following in pairwise(lines)
    )
    if forced < 0.9 * (len(lines) - 1):
        return block
    parts = [lines[0].rstrip()]
    end = parts[0][-2:]
    for line in lines[1:]:
        glued = end == "--" or re.fullmatch(r"\w-", end)  # a dash, or a word that has its hyphen anyway
        parts += ["" if glued else " ", line.strip()]
        end = "".join((end, *parts[-2:]))[-2:]
    return "".join(parts)


_ROMAN = r"[IVXLC]{1,8}"
_HEADING = re.compile(
    r"^[ \t]*(?:"
    r"(?:chapter|book|part|canto|letter|stave|act|kapitel|buch|teil|chapitre|livre|partie|capitolo|libro|parte|cap[ií]tulo"
    rf"|hoofdstuk|luku)\b\.?[ \t]+(?:the[ \t]+)?(?:\d+|{_ROMAN}|[a-z]+)\b[^\n]{{0,80}}"
    rf"|{_ROMAN}\.?|第[〇零一二三四五六七八九十百千\d]+[章回节節卷][^\n]{{0,40}}"
    r")[ \t]*$",
    re.I | re.M,
)
_ALONE = re.compile(r"(?:\n[ \t]*\n[ \t]*|\A\s*)\Z")
SHORTEST_CHAPTER = 300  # characters; what is shorter is a line of a table of contents, or a heading over another


def chapters(text: str) -> list[tuple[str, str]]:
    """(heading, text with it) of each chapter; joined they are the text. What stands before the first has no heading.

    A heading stands alone between blank lines or begins its paragraph.
    """
    starts = [
        match.start()
        for match in _HEADING.finditer(text)
        if _ALONE.search(text, max(0, match.start() - 200), match.start())
    ]
    pieces: list[tuple[str, str]] = []
    held = text[: starts[0]] if starts else text
    heading = ""
    for begin, end in pairwise([*starts, len(text)]):
        piece = text[begin:end]
        if held.strip() and len(held) >= SHORTEST_CHAPTER:
            pieces.append((heading, held))
            held, heading = "", ""
        heading = heading or piece.strip().partition("\n")[0].strip()
        held += piece
    if held:
        pieces.append((heading, held))
    return pieces
