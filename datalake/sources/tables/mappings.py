"""How the corpora that people publish name their columns: which is text, address, time, language, licence.

Schemas and licences as the corpora's own pages and papers give them:

- C4 (Raffel et al. 2020, arXiv:1910.10683; mC4 alike), RefinedWeb (Penedo et al. 2023, arXiv:2306.01116), FineWeb
  (Penedo et al. 2024, arXiv:2406.17557), FineWeb2 (Penedo et al. 2025, arXiv:2506.20920), Dolma (Soldaini et al. 2024,
  arXiv:2402.00159): ODC-By-1.0.
- OpenWebText (Gokaslan and Cohen 2019): text files in archives; CC0-1.0. Its lists of Reddit's links name pages
  without their text.
- The Pile (Gao et al. 2021, arXiv:2101.00027) and ROOTS (Laurençon et al. 2022, arXiv:2303.03915): a licence for each
  part, none for the whole; `meta` says the part, in ROOTS as a Python literal.
- ChineseWebText (Chen et al. 2023, arXiv:2311.01149; 2.0: 2024, arXiv:2411.19668): Apache-2.0; also in the shape of
  CCNet, which it is made from. WanJuan (He et al. 2023, arXiv:2308.10755): CC-BY-4.0.

A corpus's licence is that of the collection, not of the texts in it, whose authors gave none: documents that have it
say so in `attributes["licence_of"]`. A licence that a row names comes first.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from datalake.document import moment, utc

LONGEST_LITERAL = 100_000  # characters of a column that holds a mapping as text
_LONGEST_ATTRIBUTE = 1_000  # characters; longer values aren't metadata
_MOST_ATTRIBUTES = 64


@dataclass(frozen=True)
class Mapping:
    """Where a corpus keeps what. Paths as in `at`; `attributes` gives more names to values, beside their own."""

    text: str
    id: str = "id"
    uri: str = "url"
    language: str = ""
    language_score: str = ""
    licence: str = ""
    created: str = ""
    attributes: Dictionary[str, str] = field(default_factory=dict)
    of_collection: str | None = None  # the collection's licence


MAPPINGS: dict[str, Mapping] = {
    "c4": Mapping("text", created="timestamp", of_collection="ODC-By-1.0"),
    "refinedweb": Mapping(
        "content", created="timestamp", attributes={"subset": "dump"}, of_collection="ODC-By-1.0"
    ),
    "fineweb": Mapping(
        "text", language="language", language_score="language_score", created="date",
        attributes={"subset": "dump"}, of_collection="ODC-By-1.0",
    ),
    "fineweb2": Mapping(
        "text", language="language", language_score="language_score", created="date",
        attributes={"subset": "dump"}, of_collection="ODC-By-1.0",
    ),
    "openwebtext": Mapping("text", attributes={"subset": "subreddit"}, of_collection="CC0-1.0"),
    "dolma": Mapping(
        "text", uri="metadata.url|url|metadata.source_url", language="lang", created="created",
        licence="metadata.license|metadata.max_stars_repo_licenses|metadata.licenses", attributes={"subset": "source"},
        of_collection="ODC-By-1.0",
    ),
    "pile": Mapping("text", uri="meta.url", attributes={"subset": "meta.pile_set_name"}),
    "roots": Mapping(
        "text", uri="meta.url|meta.source_url", language="meta.lang|meta.language|lang", licence="meta.license",
        created="meta.timestamp|meta.date", attributes={"subset": "meta.source|meta.dataset|source"},
    ),
    "chinesewebtext": Mapping(
        "text|raw_content", id="id|digest", language="language", language_score="language_score",
        created="date_download", attributes={"subset": "source_type|domain.single_label|cc_segment"},
        of_collection="Apache-2.0",
    ),
    "wanjuan": Mapping(
        "content|text", language="language|lang", created="date", attributes={"subset": "source|data_source|type"},
        of_collection="CC-BY-4.0",
    ),
}  # fmt: skip

# The keys a row of a corpus has, the most telling first: `auto` takes the first whose keys are all there.
_SIGNS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (name, frozenset(keys.split()))
    for name, keys in (
        ("fineweb2", "text dump url language_script"),
        ("fineweb", "text dump url file_path"),
        ("refinedweb", "content url dump segment"),
        ("refinedweb", "content url timestamp image_urls"),
        ("chinesewebtext", "raw_content url date_download"),
        ("chinesewebtext", "text url source_type score"),
        ("chinesewebtext", "text domain toxicity quality_score"),
        ("dolma", "text source added"),
        ("dolma", "text source created metadata"),
        ("c4", "text timestamp url"),
    )
)


def recognise(row: Dictionary[str, Any]) -> str | None:
    """The name of the mapping for a row by the keys it has; None where they are no corpus's."""
    if found := _by_keys(frozenset(key for key in row if isinstance(key, str))):
        return found
    if "text" in row:
        meta = row.get("meta")
        if isinstance(meta, dict) and "pile_set_name" in meta:
            return "pile"
        if isinstance(meta, str) and spelt(meta) is not None:
            return "roots"
    if isinstance(row.get("content"), str) and "id" in row and "text" not in row:
        return "wanjuan"
    return None


@lru_cache(maxsize=4096)
def _by_keys(keys: frozenset[str]) -> str | None:
    return next((name for name, signs in _SIGNS if signs <= keys), None)


def at(row: Any, path: str) -> Any:
    """The value that a path leads to, None where it leads nowhere.

    A path is a column's name, or names of nested columns with dots between (`meta.url`; numbers are places in a list),
    several of these with `|` between (the first with a value counts) or `+` (texts joined by blank lines), or `=` and a
    constant. A column whose own name has such characters comes first.
    """
    if not path:
        return None
    if path.startswith("="):
        return path[1:]
    if isinstance(row, dict) and path in row:
        return row[path]
    if "|" in path:
        found = (at(row, part) for part in path.split("|"))
        return next((value for value in found if value is not None and value not in ("", [])), None)
    if "+" in path:
        parts = [as_text(at(row, part)) for part in path.split("+")]
        return (
            "\n\n".join(part for part in parts if part and part.strip()) if any(p is not None for p in parts) else None
        )
    first, dot, rest = path.partition(".")
    while dot:  # the longest name that leads on: names may have dots themselves
        inner = _inner(row, first)
        if inner is not None and (value := at(inner, rest)) is not None:
            return value
        more, dot, rest = rest.partition(".")
        first = f"{first}.{more}"
    return _inner(row, path) if not isinstance(row, dict) else None


def has(row: Dictionary[str, Any], path: str) -> bool:
    """Whether a row has one of a path's columns, whatever is in it."""
    return any(part in row or part.partition(".")[0] in row for part in (path, *path.replace("+", "|").split("|")))


def _inner(value: Any, name: str) -> Any:
    """An entry of a mapping, of a list, of Arrow's list of pairs, or of text that spells a mapping."""
    if isinstance(value, str):
        value = spelt(value)
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list):
        if name.isdecimal() and len(name) < 10 and int(name) < len(value):
            return value[int(name)]
        pairs = (item[1] for item in value if isinstance(item, tuple) and len(item) == 2 and item[0] == name)
        return next(pairs, None)
    return None


def spelt(text: str) -> dict[Any, Any] | None:
    """The mapping that a text spells in JSON or as a Python literal, None where it spells none."""
    if not text[:32].lstrip().startswith("{") or len(text) > LONGEST_LITERAL:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    return value if isinstance(value, dict) else None


def as_text(value: Any) -> str | None:
    """A value as a text: itself, or the texts of a list as lines; None where it is none."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(item for item in value if item.strip())
    return value if isinstance(value, str) else None


def attributes_of(row: Dictionary[str, Any], taken: frozenset[str]) -> dict[str, str]:
    """The plain values of a row as attributes, those of nested columns under `column.name`, without those taken."""
    found: dict[str, str] = {}
    for key, value in row.items():
        name = str(key)
        if name in taken:
            continue
        if isinstance(value, str) and (inside := spelt(value)) is not None:
            value = inside
        nested = value.items() if isinstance(value, dict) else [("", value)]
        for inner, item in nested:
            path = f"{name}.{inner}" if isinstance(value, dict) else name
            if path not in taken and len(found) < _MOST_ATTRIBUTES and (text := plain(item)):
                found[path] = text
    return found


def plain(value: Any) -> str:
    """A value worth keeping as attribute, as text; "" for nested, long or missing ones."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and value and len(value) <= 32 and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | timedelta):
        return str(value)
    try:
        if isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_ATTRIBUTE:
            return str(value)
    except ValueError:  # an integer of thousands of digits
        pass
    return ""


def time_of(value: Any) -> datetime | None:
    """A time given as such, in ISO 8601 or as seconds (or milliseconds) since 1970; without a zone it is UTC."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / (1000 if abs(value) > 1e11 else 1), UTC)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        return utc(value) if isinstance(value, datetime) else moment(value)
    except (TypeError, ValueError, OverflowError, OSError, AttributeError):
        return None


@lru_cache(maxsize=4096)
def language_code(named: str) -> str | None:
    """A language's name in BCP 47 or ISO 639 as lid.176 has it (`deu_Latn` -> `de`); None where it is no language."""
    import langcodes  # its tables take 50 ms

    try:
        tag = langcodes.standardize_tag(named.strip().replace("_", "-"), macro=True)
    except (ValueError, AttributeError):
        return None
    code = tag.partition("-")[0]
    return {"nb": "no", "und": None, "fil": "tl"}.get(code, code)


_CREATIVE = re.compile(
    r"(?:creativecommons\.org/licenses/|\bcc[- ]?)(by(?:-n[cd])?(?:-(?:sa|nd))?)[/ -]?v?(\d\.\d)?", re.I
)
_ZERO = re.compile(r"creativecommons\.org/publicdomain/zero|\bcc[- ]?0\b|\bcc[- ]zero\b", re.I)
_NAMES = {
    "odc-by": "ODC-By-1.0", "odc-by-1.0": "ODC-By-1.0", "odbl": "ODbL-1.0", "odbl-1.0": "ODbL-1.0",
    "pddl": "PDDL-1.0", "mit": "MIT", "mit license": "MIT", "apache-2.0": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause", "isc": "ISC", "unlicense": "Unlicense",
}  # fmt: skip
_IDENTIFIER = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def spdx(value: Any) -> str | None:
    """The SPDX expression of a licence as rows name it (several: all of them hold); None where it can't be told."""
    if isinstance(value, list | tuple):
        each = [spdx(item) for item in value]
        return " AND ".join(sorted({name for name in each if name})) if each and all(each) else None
    if not isinstance(value, str) or not value.strip():
        return None
    text = " ".join(value.split())
    if known := _NAMES.get(text.lower()):
        return known
    if _ZERO.search(text):
        return "CC0-1.0"
    if match := _CREATIVE.search(text):
        return f"CC-{match[1].upper()}-{match[2]}" if match[2] else None
    return text if _IDENTIFIER.fullmatch(text) and len(text) <= 200 else None
