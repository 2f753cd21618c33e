"""The one definition of what is held out, and the one rule by which fractional epochs become whole repetitions.

Both hash names, not positions, so they don't depend on the corpus around a document: a module that is held out is held
out on its web page, in its code, in instructions and in preferences alike, in every run with this seed.
"""

from __future__ import annotations

import math

import xxhash


def _fraction(*parts: bytes) -> float:
    """An even number in [0, 1) from a hash of the parts, equal everywhere."""
    return (xxhash.xxh3_64_intdigest(b"\x1f".join(parts)) >> 11) * 2.0**-53


def held_out(group: str, seed: int, share: float) -> bool:
    """Whether a group never trains: an even share of all names, nested (what 0.01 holds out, 0.05 does too)."""
    return _fraction(b"holdout", str(seed).encode(), group.encode("utf-8", "surrogatepass")) < share


def group_of(id: bytes, attributes: dict[str, str]) -> str:
    """The unit of hold-out of a record: its `group` attribute, else itself."""
    return attributes.get("group") or id.hex()


def repetitions(epochs: float, id: bytes, seed: int) -> int:
    """How often a document is seen: epochs rounded down, and once more for a fraction of the documents, by hash."""
    whole = math.floor(epochs)
    return whole + (_fraction(b"repeat", str(seed).encode(), id) < epochs - whole)
