"""Which licences a text holds: the texts of common licences are known by sketches of them (see `data/licences.json`).

A sketch is the `SKETCH` smallest hashes of a text's normalised word trigrams; the share of a sketch that is found among
the trigrams of another text estimates how much of the licence stands in it (bottom-k containment, Broder 1997). So a
licence is found within a longer file, beside other licences, with other names and other line breaks. Of licences that
are contained in one another (BSD-2-Clause in BSD-3-Clause, MIT-0 in MIT) the one that stands whole and longest counts.
The sketches were made with `sketch` from the texts of the SPDX licence list.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import xxhash

SKETCH = 256
LEAST = 0.86  # of a licence has to stand in a text
LEAST_OWN = 0.6  # of what a licence has beyond the shorter one within it
SAME = 0.7  # of a licence's sketch in another's text: the two are variants
LONGEST = 200_000  # characters of a licence file that are looked at

_WORDS = re.compile(r"[a-z0-9]+")
_SPELLINGS = {"licence": "license", "licences": "licenses", "licenced": "licensed", "organisation": "organization"}
_RESTRICTED = re.compile(
    r"commons clause|non-?commercial use only|for non-?commercial use|non-?commercial purposes only", re.I
)


def trigrams(text: str) -> np.ndarray:
    """The sorted distinct 32-bit hashes of a text's word trigrams: lower case, punctuation and comment signs gone."""
    words = [_SPELLINGS.get(word, word) for word in _WORDS.findall(text[:LONGEST].lower())]
    hashes = {xxhash.xxh32_intdigest(" ".join(words[at : at + 3]).encode()) for at in range(len(words) - 2)}
    return np.array(sorted(hashes), np.uint32)


def sketch(text: str) -> np.ndarray:
    """The smallest `SKETCH` hashes of a text."""
    return trigrams(text)[:SKETCH]


@cache
def _known() -> tuple[list[str], list[np.ndarray], list[dict[int, np.ndarray]]]:
    """(identifiers, sketches, for each the longer variants that contain it with what only these have)."""
    file = Path(__file__).with_name("licences.json")
    rows = json.loads(file.read_text("utf-8"))
    names = sorted(rows)
    sketches = [_hashes(rows[name]["sketch"]) for name in names]
    variants = [{names.index(other): _hashes(own) for other, own in rows[name]["within"].items()} for name in names]
    return names, sketches, variants


def _hashes(text: str) -> np.ndarray:
    return np.frombuffer(b64decode(text), "<u4")


def licences_in(text: str) -> list[str]:
    """The SPDX identifiers of the licences whose texts stand in this one, sorted; empty where none is known.

    A text with a restriction on top (Commons Clause, non-commercial use) is none of them.
    """
    return list(_licences_in(text[:LONGEST]))


@lru_cache(maxsize=256)  # the files of a project have one header
def _licences_in(text: str) -> tuple[str, ...]:
    if _RESTRICTED.search(text):
        return ()
    have = trigrams(text)
    names, sketches, variants = _known()
    found_at = np.isin(np.concatenate(sketches), have)
    starts = np.cumsum([0, *(len(each) for each in sketches[:-1])])
    shares = (np.add.reduceat(found_at, starts, dtype=np.int64) / [len(each) for each in sketches]).tolist()
    found = {at for at, share in enumerate(shares) if share >= LEAST}
    dropped = set()
    for at in found:
        for other in sorted(found & variants[at].keys()):
            dropped.add(at if _share(variants[at][other], have) >= LEAST_OWN else other)
    kept = sorted(found - dropped)
    # Two revisions of one licence, neither within the other: the better one.
    for one in kept:
        for other in kept:
            if one < other and _alike(one, other):
                dropped.add(other if shares[one] >= shares[other] else one)
    return tuple(names[at] for at in kept if at not in dropped)


def _share(hashes: np.ndarray, have: np.ndarray) -> float:
    return float(np.isin(hashes, have, assume_unique=True).mean()) if len(hashes) else 0.0


@cache
def _alike(one: int, other: int) -> bool:
    """Whether two licences share half of their text, by the smallest hashes of both."""
    _, sketches, _ = _known()
    both = np.union1d(sketches[one], sketches[other])[:SKETCH]
    return _share(both, np.intersect1d(sketches[one], sketches[other])) >= 0.5
