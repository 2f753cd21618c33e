"""The one definition of what is held out, and the one rule by which fractional epochs become whole repetitions.

Both hash names, not positions, so they don't depend on the corpus around a document: a module that is held out is held
out on its web page, in its code, in instructions and in preferences alike, in every run with this seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import xxhash

_EXPECTED = 5.0  # held-out records of a source: if they were held out one by one, fewer than 1 in 100 had none


def _fraction(*parts: bytes) -> float:
    """An even number in [0, 1) from a hash of the parts, equal everywhere."""
    return (xxhash.xxh3_64_intdigest(b"\x1f".join(parts)) >> 11) * 2.0**-53


def held_out(group: str, seed: int, share: float) -> bool:
    """Whether a group never trains: an even share of all names, nested (what 0.01 holds out, 0.05 does too)."""
    return _fraction(b"holdout", str(seed).encode(), group.encode("utf-8", "surrogatepass")) < share


def group_of(id: bytes, attributes: dict[str, str]) -> str:
    """The unit of hold-out of a record: its `group` attribute, else itself."""
    return attributes.get("group") or id.hex()


def one_sided(splits: Mapping[str, tuple[int, int]], share: float, what: str = "documents") -> list[str]:
    """Warnings about sources that are held out whole, or not at all though they are large; each source: (train, held).

    Groups are held out, not documents: a source of one repository, host or title falls to one side.
    """
    warnings = []
    for source, (train, held) in sorted(splits.items()):
        if held and not train:
            told = f"all {held:,} {what} of {source} are held out, none trains: its groups are few"
            warnings.append(f"{told}; another mixture.seed, or a smaller mixture.holdout, would change that")
        elif not held and train * share >= _EXPECTED:
            told = f"none of the {train:,} {what} of {source} is held out: its groups are few"
            warnings.append(f"{told}; another mixture.seed would change that")
    return warnings


def repetitions(epochs: float, id: bytes, seed: int) -> int:
    """How often a document is seen: epochs rounded down, and once more for a fraction of the documents, by hash."""
    whole = math.floor(epochs)
    return whole + (_fraction(b"repeat", str(seed).encode(), id) < epochs - whole)
