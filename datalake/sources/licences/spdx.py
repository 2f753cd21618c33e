"""SPDX licence expressions: made canonical, judged permissive or not, and read off a source file's header.

Names are checked by `packaging.licenses`, which carries the SPDX list. In an expression OR offers a choice, so one
permissive side is enough; AND binds to both; an exception (WITH) only ever grants more.
"""

from __future__ import annotations

import re
from functools import cache

from datalake.sources.licences.texts import licences_in

HEAD = 6_000  # characters of a file in which its licence stands

_IDENTIFIER = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n]*)")
_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_LATER = r"(?:any later version|or later)"
# Notices that refer to a licence instead of quoting it, as its authors propose them; over words, single spaces between.
_NOTICES = (
    (re.compile(r"under the (?:terms of the )?apache license,? version 2\.0"), "Apache-2.0"),
    (re.compile(r"apache license,? v(?:ersion |\.)?2\.0(?! with llvm)"), "Apache-2.0"),
    (re.compile(r"mozilla public license,? v(?:ersion |\. ?)2\.0"), "MPL-2.0"),
    (re.compile(r"boost software license,? version 1\.0"), "BSL-1.0"),
    (re.compile(r"eclipse public license,? v(?:ersion |\. ?)2\.0"), "EPL-2.0"),
    (re.compile(r"eclipse public license,? v(?:ersion |\. ?)1\.0"), "EPL-1.0"),
    (re.compile(r"(?:under|see|terms of) the (?:terms of the )?mit license|mit licensed|license: mit\b"), "MIT"),
    (re.compile(r"by an? (?:bsd-style|bsd style) license"), ""),  # which one stands elsewhere
)
_GNU = re.compile(
    r"gnu (?P<kind>lesser|library|affero)? ?general public license.{0,200}?"
    r"version (?P<version>[123](?:\.[01])?)(?P<rest>.{0,120})"
)
_PROPRIETARY = re.compile(
    r"all rights reserved\b.{0,200}\b(?:proprietary|confidential)|\b(?:proprietary and confidential)\b"
)


@cache
def canonical_licence(text: str) -> str | None:
    """An SPDX expression in its canonical spelling, None where it isn't one."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(" ".join(text.split()).replace("/", " OR ")))
    except InvalidLicenseExpression:
        return None


def all_of(licences: list[str]) -> str | None:
    """The expression that binds to every one of these, sorted; None of none."""
    parts = sorted({f"({each})" if " OR " in each and len(set(licences)) > 1 else each for each in licences})
    return " AND ".join(parts) or None


def permissive(expression: str | None, allowed: frozenset[str]) -> bool:
    """Whether an expression allows use under one of these licences; unknown is no. `allowed`: SPDX identifiers."""
    tokens = _TOKEN.findall(expression or "")
    place = 0

    def either() -> bool:
        nonlocal place
        value = both()
        while place < len(tokens) and tokens[place].upper() == "OR":
            place += 1
            other = both()
            value = value or other
        return value

    def both() -> bool:
        nonlocal place
        value = one()
        while place < len(tokens) and tokens[place].upper() in ("AND", "WITH"):
            exception = tokens[place].upper() == "WITH"
            place += 1
            if exception:
                place += 1
            else:
                other = one()
                value = value and other
        return value

    def one() -> bool:
        nonlocal place
        token = tokens[place] if place < len(tokens) else ""
        place += 1
        if token == "(":
            value = either()
            place += 1
            return value
        return token.removesuffix("+") in allowed

    return bool(tokens) and either() and place >= len(tokens)


def header_licence(text: str) -> tuple[bool, str | None]:
    """(whether a file's header speaks of its licence, the SPDX expression or None where it isn't known)."""
    head = text[:HEAD]
    if "icen" not in head and "ICEN" not in head and "ropriet" not in head and "edistribution" not in head:
        return False, None
    named = [match[1] for match in _IDENTIFIER.finditer(head) if _comment(head, match.start())]
    if named:
        found = [canonical_licence(re.sub(r"(?:\*/|-->|\*\)|#\}|\"\"\"|['\"]).*$", "", each).strip()) for each in named]
        return True, None if None in found else all_of([each for each in found if each])
    notice = _opening(head)
    words = " ".join(re.sub(r"[#*/;%\-\"'!(){}<>|]+", " ", notice.lower()).replace("licence", "license").split())
    if match := _GNU.search(words):
        kind = {"lesser": "LGPL", "library": "LGPL", "affero": "AGPL"}.get(match["kind"] or "", "GPL")
        version = match["version"] if "." in match["version"] else f"{match['version']}.0"
        later = "or-later" if re.search(_LATER, match["rest"]) else "only"
        return True, canonical_licence(f"{kind}-{version}-{later}")
    if ("permission" in words or "redistribution" in words) and (quoted := licences_in(notice)):
        return True, all_of(quoted)
    for pattern, name in _NOTICES:
        if pattern.search(words):
            return bool(name), name or None
    return (True, None) if _PROPRIETARY.search(words) else (False, None)


def header_words(text: str) -> str:
    """What the tags of a file's header say, as they say it."""
    head = text[:HEAD]
    return ", ".join(match[1].strip() for match in _IDENTIFIER.finditer(head) if _comment(head, match.start()))[:200]


def _comment(head: str, place: int) -> bool:
    """Whether what stands before a tag on its line is a comment's sign: code that searches for the tag isn't tagged."""
    before = head[head.rfind("\n", 0, place) + 1 : place]
    return not re.search(r"[\w\"'`]", re.sub(r"\b(?:rem|dnl)\b", "", before, flags=re.IGNORECASE).replace('"""', ""))


def _opening(head: str) -> str:
    """The comment a file begins with: up to the first line of code, some of which may be a shebang or a docstring's."""
    lines = []
    inside = ""
    for line in head.split("\n"):
        bare = line.strip()
        if inside:
            lines.append(line)
            if inside in bare:
                inside = ""
            continue
        opener = next((end for start, end in _BLOCKS if bare.startswith(start)), "")
        if opener:
            lines.append(line)
            inside = "" if opener in bare[3:] else opener
        elif not bare or bare.startswith(("#", "//", "*", "--", ";", "%", "..", "@echo", "<?")):
            lines.append(line)
        else:
            break
    return "\n".join(lines)


_BLOCKS = (("/*", "*/"), ('"""', '"""'), ("'''", "'''"), ('r"""', '"""'), ("<!--", "-->"), ("(*", "*)"), ("{-", "-}"))
