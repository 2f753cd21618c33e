r"""Personal data: where a text holds some, and the text with placeholders in its place, `<EMAIL>`.

A compiled scan finds where something could be: an `@`, groups of digits that could be a number's, colons of an IPv6
address, the head of an IBAN. Patterns and checks look at these places alone, so a text without any costs one pass. What
has check digits or an authority is held to it: resident identity numbers (GB 11643: province, date of birth, ISO 7064
MOD 11-2), cards (ISO/IEC 7812: issuer and length, Luhn), IBANs (ISO 13616: length by country, ISO 7064 MOD 97-10), IP
addresses (`ipaddress`), numbers behind a plus sign (their country's plan, as `phonenumbers` has it), North American
numbers (NANP), Chinese ones (1[3-9] and area codes that begin with 0). Check digits and the registry of IBANs are those
of `python-stdnum`.

Precision goes before recall: what is within a longer run, a decimal, an amount or a web address is no number of a
person. Full-width forms and all kinds of dashes count as the plain ones. Names, postal addresses and what is spelled
out are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import phonenumbers
from stdnum import ean, iban, luhn, numdb
from stdnum.iso7064 import mod_11_2

from datalake.curate.checks.pii_config import KINDS, Kind
from datalake.text.characters import Points, points


class Span(NamedTuple):
    """Personal data of one kind at text[start:end]."""

    start: int
    end: int
    kind: Kind


def placeholder(kind: Kind) -> str:
    """What stands for data of this kind: `<RESIDENT_ID>`."""
    return f"<{kind.upper()}>"


def find(text: str, kinds: Sequence[Kind] = KINDS) -> list[Span]:
    """Personal data of these kinds, in order. Where finds overlap, the one with more to check it by is taken."""
    found: set[Span] = set()
    wanted = [kind for kind in _FINDERS if kind in kinds]
    if not wanted:
        return []
    for start, end, place in _scan(points(text), _classes()).tolist():
        before = max(0, start - _BEFORE)
        # One character for one: offsets stay those of the text.
        window = text[before : end + _BEHIND].translate(_PLAIN)
        for kind in wanted:
            finder, places = _FINDERS[kind]
            if places & place:
                spans = finder(window, start - before, end - before)
                found |= {Span(before + first, before + last, kind) for first, last in spans}
    return _apart(sorted(found))


def redact(text: str, spans: Sequence[Span]) -> str:
    """The text with a placeholder for each span (in order, without overlaps, as `find` gives them)."""
    parts, done = [], 0
    for start, end, kind in spans:
        parts += [text[done:start], placeholder(kind)]
        done = end
    return "".join((*parts, text[done:]))


def _apart(spans: list[Span]) -> list[Span]:
    """Spans without overlaps: of those that overlap, by the order of `_FINDERS`."""
    out: list[Span] = []
    group: list[Span] = []
    reach = -1
    order = list(_FINDERS)

    def close() -> None:
        if len(group) < 2:
            out.extend(group)
            return
        begin = group[0].start
        taken, covered = [], bytearray(reach - begin)  # characters of those taken
        for span in sorted(group, key=lambda s: (order.index(s.kind), s.start, -s.end)):
            if covered.find(1, span.start - begin, span.end - begin) < 0:
                covered[span.start - begin : span.end - begin] = b"\1" * (span.end - span.start)
                taken.append(span)
        out.extend(sorted(taken))

    for span in spans:
        if span.start >= reach:
            close()
            group = []
        group.append(span)
        reach = max(reach, span.end)
    close()
    return out


# Where something could be ---------------------------------------------------------------------------------------

_BEFORE, _BEHIND = 128, 256  # characters around a place that tell what it is
_DIGIT, _SEPARATOR, _AT, _COLON, _PLUS, _DOT, _UPPER, _LETTER = (1 << k for k in range(8))
# Kinds of places. NUMBER: 9 digits and more, 4 of them in a row; LONG: 13 and more.
_EMAILS, _NUMBER, _LONG, _SIGNED, _DOTTED, _COLONS, _HEAD = (1 << k for k in range(7))
_GAP = 3  # separators between two groups of digits of one number: ` - `, `) `
_LONGEST = 34  # digits in a row beyond which they are no number of a person

_PLAIN = {
    **{point: point - 0xFEE0 for point in range(0xFF01, 0xFF5F)},
    **dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000), 0x20),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), 0x2D),
}


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """Bits of each code point of the basic plane, shape (0x10000,)."""
    table = np.zeros(0x10000, np.uint8)
    for point in (*range(0x80), *_PLAIN):
        c = chr(_PLAIN.get(point, point))
        table[point] = (
            _DIGIT * ("0" <= c <= "9")
            | _SEPARATOR * (c in " -.()+\t")
            | _AT * (c == "@")
            | _COLON * (c == ":")
            | _PLUS * (c == "+")
            | _DOT * (c == ".")
            | _UPPER * ("A" <= c <= "Z")
            | _LETTER * ("A" <= c <= "Z" or "a" <= c <= "z")
        )
    return table


@numba.njit(cache=True, inline="always")
def _class(codes: Points, at: int, classes: npt.NDArray[np.uint8]) -> int:
    return classes[codes[at]] if 0 <= at < len(codes) and codes[at] < 0x10000 else 0


@numba.njit(cache=True, inline="always")
def _hexadecimal(code: int) -> bool:
    return 48 <= code <= 58 or 97 <= code <= 102 or 65 <= code <= 70 or code == 46  # with `:` and `.`


@numba.njit(cache=True, nogil=True)
def _scan(codes: Points, classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Places, shape (n, 3): start, end, and bits of what could be there."""
    size, at, n = len(codes), 0, 0
    out = np.empty((16, 3), np.int64)
    while at < size:
        kind = classes[codes[at]] if codes[at] < 0x10000 else 0
        if not kind & (_DIGIT | _AT | _COLON):
            at += 1
            continue
        if n + 2 > len(out):
            more = np.empty((2 * len(out), 3), np.int64)
            more[:n] = out[:n]
            out = more
        if kind & _AT:
            dots, end = 0, at + 1
            while end < size and end - at < 256 and dots == 0:
                following = _class(codes, end, classes)
                dots += following & _DOT != 0
                if not (following & (_LETTER | _DIGIT | _DOT) or codes[end] == 45):
                    break
                end += 1
            if dots:
                out[n, 0], out[n, 1], out[n, 2] = at, at + 1, _EMAILS
                n += 1
            at += 1
        elif kind & _COLON:
            start, end, colons, pairs = at, at, 0, 0
            while start > 0 and at - start < 4 and _hexadecimal(codes[start - 1]):
                start -= 1
            while end < size and _hexadecimal(codes[end]):
                colons += codes[end] == 58
                pairs += codes[end] == 58 and end > start and codes[end - 1] == 58
                end += 1
            # Global unicast addresses are those of 2000::/3.
            if (colons >= 7 or (pairs and colons >= 2)) and 50 <= codes[start] <= 51 and end - start < 64:
                out[n, 0], out[n, 1], out[n, 2] = start, end, _COLONS
                n += 1
            at = max(end, at + 1)  # a full-width colon is none of an address
        else:
            if (
                _class(codes, at - 1, classes) & _UPPER
                and _class(codes, at - 2, classes) & _UPPER
                and not _class(codes, at - 3, classes) & (_LETTER | _DIGIT)
                and _class(codes, at + 1, classes) & _DIGIT
            ):
                out[n, 0], out[n, 1], out[n, 2] = at - 2, at, _HEAD
                n += 1
            start = at
            while at - start < _GAP and _class(codes, start - 1, classes) & _SEPARATOR:
                start -= 1
            digits, longest, dots, plus, end = 0, 0, 0, False, at
            for k in range(start, at):
                plus |= _class(codes, k, classes) & _PLUS != 0
            while at < size:
                run = at
                while _class(codes, run, classes) & _DIGIT:
                    run += 1
                if run - at > _LONGEST:
                    at = run
                    break
                digits += run - at
                longest = max(longest, run - at)
                end = at = run
                while run - at < _GAP and _class(codes, run, classes) & _SEPARATOR:
                    run += 1
                if not _class(codes, run, classes) & _DIGIT:
                    break
                for k in range(at, run):
                    plus |= _class(codes, k, classes) & _PLUS != 0
                    dots += _class(codes, k, classes) & _DOT != 0
                at = run
            place = 0
            if digits >= 9 and longest >= 4:
                place |= _NUMBER
                if digits >= 13:
                    place |= _LONG
            if plus and digits >= 8:
                place |= _SIGNED
            if dots >= 3:
                place |= _DOTTED
            if place:
                out[n, 0], out[n, 1], out[n, 2] = start, end, place
                n += 1
    return out[:n]


# What is there --------------------------------------------------------------------------------------------------
# A finder gets a window of plain characters and a place in it, and yields (start, end) within the window.

Spans = Iterator[tuple[int, int]]

_LOCAL = re.compile(r"[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}\Z")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?:[a-z]{2,24}|[A-Z]{2,24})(?![A-Za-z0-9_-])", re.ASCII
)
# Names that RFC 2606 keeps for examples, endings of files (`icon@2x.png`), versions (`core@1.0.0-beta.x`): nobody's.
_NOBODY = re.compile(
    r"(?:.*\.)?(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)|.*\.(?:png|jpe?g|gif|svg|webp|js|mjs|css|html?)"
    r"|\d+\.\d+\..*",
    re.IGNORECASE,
)


def _email(window: str, first: int, last: int) -> Spans:
    domain = _DOMAIN.match(window, last)
    if domain is None or _NOBODY.fullmatch(domain[0]):
        return
    local = _LOCAL.search(window, max(0, first - 64), first)
    # `git@` is what repositories are cloned by.
    if local is not None and window[local.start() : first] != "git" and window[first - 1] != ".":
        yield local.start(), domain.end()


_WEB = re.compile(r"(?:://|www\.|\.[a-z]{2,6}/)[!-~]*\Z", re.IGNORECASE)
_BEFORE_PART = re.compile(r"(?:[A-Za-z0-9_$#=&%€£¥]|[0-9][.,])\Z")
# Behind an amount: yuan, also of other countries (but 元旦, New Year), yen, won.
_BEHIND_PART = re.compile(r"[A-Za-z0-9_%=€£¥$]|[.,][0-9]| ?(?:人民币|(?:[美欧歐日港澳加韩韓]|新台)?[元圆圓円원](?!旦))")


def _alone(window: str, start: int, end: int) -> bool:
    """Whether a number stands by itself: no part of a word, a decimal, an amount, or a web address."""
    if _BEHIND_PART.match(window, end) or _BEFORE_PART.search(window, max(0, start - 2), start):
        return False
    return _WEB.search(window, max(0, start - _BEFORE), start) is None


_INTERNATIONAL = re.compile(r"\+ ?\(?[1-9](?:[ .()-]{0,3}\d){7,14}(?!\d)")
_BUT_THE_LAST = re.compile(r"(.*\d)[ .()-]+\d+\Z")
_SIGNED_DECIMAL = re.compile(r"\+ ?\d+\.\d+[ (]")  # `+45.20 1234.50`: a row of a table
# Area code, exchange and line of the North American plan; an area code is no N9X and no N11.
_NANP = re.compile(
    r"(?:1[ .-]{1,2})?(?:\((?!.11)[2-9][0-8]\d\)[ .-]{0,2}|(?!.11)[2-9][0-8]\d([-.]))[2-9]\d\d(?(1)\1|[ .-])\d{4}(?!\d)"
)
_MOBILE = re.compile(
    r"(?:(?:\((?:\+|00)?86\)|(?:(?:\+|00) ?)?86)[ -]{0,2})?1[3-9]\d(?:\d{8}|([ .-])\d{4}\1\d{4})(?!\d)"
)
_LANDLINE = re.compile(
    r"(?:\((?:86-?)?0(?:10|2\d|[3-9]\d\d)\) ?|86-(?:10|2\d|[3-9]\d\d)-"
    r"|(?:(?:\+|00)?86[ -])?0(?:10|2\d|[3-9]\d\d)(?: ?- ?| (?=[2-8]\d{6,7}(?!\d))))"
    r"[2-8]\d{2,3}[ -]?\d{4}(?!\d)"
)


def _phone(window: str, first: int, last: int) -> Spans:
    for match in _INTERNATIONAL.finditer(window, first, last):
        start, end = match.span()
        # Figures behind a number may have been taken for its last groups: `+1 212 555 0123 24 hours`.
        while end > start and not _assigned(window[start:end]):
            shorter = _BUT_THE_LAST.match(window, start, end)
            end = shorter.end(1) if shorter else start
        if end > start and not _SIGNED_DECIMAL.match(window, start, end) and _alone(window, start, end):
            yield start, end
    for pattern in (_MOBILE, _LANDLINE, _NANP):
        for match in pattern.finditer(window, first, last):
            start, end = match.span()
            # `-` and figures before or behind make it part of a longer number; a Chinese one may have an extension.
            joined = start > 1 and window[start - 1] == "-" and window[start - 2].isdigit()
            if pattern is _NANP:
                joined |= window[end : end + 1] == "-" and window[end + 1 : end + 2].isdigit()
            if not joined and _alone(window, start, end):
                yield start, end


def _assigned(number: str) -> bool:
    """Whether what begins with a plus sign is a number that its country's plan has (`phonenumbers`, of E.164)."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


_SSN = re.compile(r"(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?!\d)")


def _ssn(window: str, first: int, last: int) -> Spans:
    for match in _SSN.finditer(window, first, last):
        start, end = match.span()
        if window[start - 1 : start] != "-" and window[end : end + 1] != "-" and _alone(window, start, end):
            yield start, end


# GB/T 2260: provinces, Hong Kong, Macau and Taiwan (71, 81, 82; 83 for residents from Taiwan).
_PROVINCES = frozenset(
    """
    11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83
    """.split()  # noqa: SIM905
)
_RESIDENT = re.compile(r"\d{6}([ -]?)(?:18|19|20)\d{6}\1\d{3}[\dXx]")


def _resident_id(window: str, first: int, last: int) -> Spans:
    for match in _RESIDENT.finditer(window, first, last + 1):  # X is no digit
        number = re.sub(r"[ -]", "", match[0])
        if resident_number(number) and _alone(window, *match.span()):
            yield match.span()


def resident_number(number: str) -> bool:
    """Whether 18 characters are a Chinese resident identity number (GB 11643-1999): province, date, check character."""
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return number[:2] in _PROVINCES and mod_11_2.is_valid(number.upper())


# Every place where a card's number may begin: a figure before it would hide it otherwise.
_CARD = re.compile(
    r"(?<!\d)(?=(\d{13,19}(?!\d)|\d{4}([ -])\d{4}\2\d{4}\2\d{4}(?:\2\d{3})?(?!\d)|\d{4}([ -])\d{6}\3\d{4,5}(?!\d)))"
)
# ISO/IEC 7812 issuers: digits they begin with, from and to, and the lengths that they have.
_ISSUERS = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 19)),  # Discover
    ("644", "659", (16, 19)),
    ("300", "305", (14,)),  # Diners Club
    ("36", "36", (14,)),
    ("38", "39", (14, 16)),
    ("3528", "3589", (16, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("2200", "2204", (16,)),  # Mir
)


def _card(window: str, first: int, last: int) -> Spans:
    end = 0
    for match in _CARD.finditer(window, first, last):
        if match.start() >= end and card_number(re.sub(r"[ -]", "", match[1])) and _alone(window, *match.span(1)):
            end = match.end(1)
            yield match.span(1)


def card_number(digits: str) -> bool:
    """Whether digits are a payment card's: an issuer's, of the length that it issues, with Luhn's check digit.

    One digit over and over is none, nor is a barcode (EAN-13), which Visa's old numbers are as long as.
    """
    if not any(len(digits) in lengths and low <= digits[: len(low)] <= high for low, high, lengths in _ISSUERS):
        return False
    if not luhn.is_valid(digits) or len(set(digits)) == 1:
        return False
    return len(digits) != 13 or not ean.is_valid(digits)


@cache
def _iban_length(country: str) -> int:
    """Characters of an IBAN of this country (ISO 13616 registry), 0 where it has none."""
    [(_, properties), *_] = numdb.get("iban").info(f"{country}00")
    groups = re.findall(r"(\d{1,3})!", properties.get("bban", ""))
    return 4 + sum(map(int, groups)) if groups else 0


_IBAN = re.compile(r"[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,30}")


def _iban(window: str, first: int, last: int) -> Spans:
    match = _IBAN.match(window, first)
    if match is None:
        return
    end = first
    for _ in range(_iban_length(window[first : first + 2])):
        end += window[end : end + 1] == " "
        end += 1
    if end <= match.end() and iban.is_valid(window[first:end], check_country=False) and _alone(window, first, end):
        yield first, end


_QUAD = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)", re.ASCII)
_VERSION = re.compile(
    r"(?:\bv|\bver\.?|version|release|build|firmware|section|chapter|§|版本|版)\W{0,3}\Z|[A-Za-z]/\Z|-\Z|"
    r"(?:grad|updat)[a-z]{1,5} (?:from|to) \Z|\.\d{1,3} to \Z",
    re.IGNORECASE,
)
# A word and a blank before numbers that are all below 100, as one in forty addresses has them: `MongoDB 4.4.2.11`. Some
# words say that it is one.
_NAME = re.compile(r"([A-Za-z]{2,16})\s\Z")
_SAYS_ADDRESS = re.compile(
    r"ip|ipv|address(?:es)?|hosts?|server|dns|gateway|client|visitor|user|from|at|via|by|is|was|to|ping", re.IGNORECASE
)


def _named(window: str, start: int) -> bool:
    """Whether a word stands before a number as the name does before its version."""
    name = _NAME.search(window, max(0, start - 17), start)
    return name is not None and _SAYS_ADDRESS.fullmatch(name[1]) is None


_PORT = re.compile(r":\d{2,5}\b|/(?:[89]|[12]\d|3[0-2])\b(?!\.)")


def _ip(window: str, first: int, last: int) -> Spans:
    if ":" in window[first:last]:
        end = last
        while window[end - 1] == "." or (window[end - 1] == ":" and window[end - 2] != ":"):
            end -= 1
        around = window[first - 1 : first] + window[end : end + 1] if first else window[end : end + 1]
        if _public(IPv6Address, window[first:end]) and not any(c.isascii() and c.isalnum() for c in around):
            yield first, end
        return
    for match in _QUAD.finditer(window, first, last):
        # Single figures and `2.0.0.16` are sections and versions, and behind such a word so is anything.
        numbered = (
            len(match[0]) == 7
            or ".0.0." in match[0]
            or _VERSION.search(window, max(0, match.start() - 16), match.start())
            or (
                max(map(int, match[0].split("."))) < 100
                and _named(window, match.start())
                and not _PORT.match(window, match.end())
            )
        )
        if not numbered and _public(IPv4Address, match[0]):
            yield match.span()


def _public(kind: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        address = kind(text)
    except ValueError:
        return False
    unicast = address.version == 4 or int(address) >> 125 == 1  # 2000::/3; the rest isn't given to anyone
    return address.is_global and unicast and not address.is_multicast


# In the order in which overlapping finds are decided.
_FINDERS: dict[Kind, tuple[Callable[[str, int, int], Spans], int]] = {
    "email": (_email, _EMAILS),
    "ip": (_ip, _DOTTED | _COLONS),
    "iban": (_iban, _HEAD),
    "resident_id": (_resident_id, _LONG),
    "card": (_card, _LONG),
    "ssn": (_ssn, _NUMBER),
    "phone": (_phone, _NUMBER | _SIGNED),
}
