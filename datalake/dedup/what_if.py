"""What another similarity threshold would keep, from the verified pairs of texts that deduplication stored.

Documents with equal sets of shingles are one whatever the threshold. Of the others, a document goes when one before it
in the order of precedence stays and is at least as similar as the threshold: so the pairs are walked in that order.
Which documents are then removed for their meaning only a run tells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.config import DedupConfig, collision_probability
from datalake.errors import UserError


def check_threshold(base: DedupConfig, changed: DedupConfig) -> None:
    """Make sure that only the threshold differs, and that pairs from it on were stored.

    Raises:
        UserError: in one line, where only a rerun can tell.
    """
    names = [name for name in type(base).model_fields if getattr(base, name) != getattr(changed, name)]
    for name in names:
        if name in ("lines", "substrings"):
            raise UserError(f"deduplicate.{name} cuts parts out of documents, which only a run tells")
        if name != "threshold":
            raise UserError(f"deduplicate.{name} changes which documents are compared, so only a run tells")
    if changed.threshold < base.stored_from:
        raise UserError(
            f"deduplicate.threshold {changed.threshold:g} lies below {base.stored_from:g}, from which on pairs are"
            " stored: run the changed recipe"
        )


def removed(pairs: pa.Table, threshold: float) -> set[bytes]:
    """Ids of the documents that go at this threshold, from a table of pairs (schema PAIRS)."""
    a, b = pairs["a"].to_pylist(), pairs["b"].to_pylist()
    number = {id: k for k, id in enumerate(dict.fromkeys((*a, *b)))}
    first, second = (np.array([number[id] for id in ids], np.int64) for ids in (a, b))
    alike = pairs["similarity"].to_numpy()
    gone = np.zeros(len(number), np.bool_)
    gone[second[alike >= 1.0]] = True  # the same set as an earlier document's, which answers for both
    if threshold < 1.0:
        linked = (alike >= threshold) & (alike < 1.0) & ~gone[first] & ~gone[second]
        gone |= _settle(first[linked], second[linked], len(number))
    ids = list(number)
    return {ids[k] for k in np.flatnonzero(gone)}


def _settle(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Which of `count` documents go, where `first` precedes `second` in each pair: those whose first stays."""
    gone, settled = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    while True:
        fresh = np.zeros(count, np.bool_)
        fresh[second[settled[first] & ~gone[first] & ~settled[second]]] = True  # an earlier one stays
        gone |= fresh
        settled |= fresh
        waiting = np.zeros(count, np.bool_)
        waiting[second[~settled[first]]] = True
        stays = ~settled & ~waiting  # every earlier one has gone
        if not stays.any() and not fresh.any():
            return gone
        settled |= stays


def tell(
    pairs: pa.Table, documents: int, base: DedupConfig, changed: DedupConfig, counts: dict[str, int]
) -> dict[str, Any]:
    """The answer as plain values, with notes on what the pairs at hand don't show.

    `documents`: how many were compared; `counts`: what deduplication said of itself.
    """
    pairs = pairs.filter(pc.not_equal(pairs["level"], "semantic"))
    before, after = removed(pairs, base.threshold), removed(pairs, changed.threshold)
    notes = []
    if base.semantic is not None:
        notes.append("documents that go for their meaning count as kept here: a run judges anew which they are")
    # What goes for its address goes whatever the threshold, and is in no pair.
    compared = documents - counts.get("url", 0)
    for_meaning = counts.get("semantic", 0) - counts.get("semantic_copies", 0)  # else they would be kept
    if counts.get("kept", compared - len(before)) + for_meaning != compared - len(before):
        raise UserError("the pairs at hand don't give the duplicates at hand: run the recipe again first")
    signing = base.signing
    if changed.threshold < base.threshold:
        chance = collision_probability(changed.threshold, signing.bands, signing.rows)
        notes.append(
            f"a pair at {changed.threshold:g} was compared with a probability of {chance:.3f}: a run may find more"
        )
    elif changed.signing != signing:
        notes.append("a run would look with other bands, and may miss one or another of these pairs")
    # There each document was compared with those that stay at the old threshold alone.
    if counts.get("large_buckets"):
        notes.append("some buckets were too crowded for all their pairs: a run compares others, and may keep fewer")
    return {
        "documents": documents,
        "before": compared - len(before),
        "after": compared - len(after),
        "gained": len(before - after),
        "lost": len(after - before),
        "notes": notes,
        "gained_ids": before - after,
        "lost_ids": after - before,
    }
