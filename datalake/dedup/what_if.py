"""What another similarity threshold would keep, from the verified pairs of texts that deduplication stored.

Documents with equal sets of shingles are one whatever the threshold. Of the others, a document goes when one before it
in the order of precedence stays and is at least as similar as the threshold: so the pairs are walked in that order.
Which documents are then removed for their meaning only a run tells.

Of meaning only the pairs that decided are stored, and these don't tell what a higher threshold does: a document that it
sets free may be close to others, kept until now or set free as well, in pairs that nobody needed. All of them would be
as many as the square of a crowd. So the decision is made again, from the signatures and embeddings that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.config import DedupConfig, collision_probability
from datalake.errors import UserError

if TYPE_CHECKING:
    from datalake.dedup.texts.signed import Shard


def check_threshold(base: DedupConfig, changed: DedupConfig) -> None:
    """Make sure that only one threshold differs, and that what was stored tells of it.

    Raises:
        UserError: in one line, where only a rerun can tell.
    """
    names = [name for name in type(base).model_fields if getattr(base, name) != getattr(changed, name)]
    for name in names:
        if name in ("lines", "substrings"):
            raise UserError(f"deduplicate.{name} cuts parts out of documents, which only a run tells")
        if name == "semantic" and asks_of_meaning(base, changed):
            continue
        if name != "threshold":
            raise UserError(f"deduplicate.{name} changes which documents are compared, so only a run tells")
    if len(names) > 1:
        raise UserError("deduplicate.threshold and deduplicate.semantic.threshold: ask about one of them at a time")
    if changed.threshold < base.stored_from:
        raise UserError(
            f"deduplicate.threshold {changed.threshold:g} lies below {base.stored_from:g}, from which on pairs are"
            " stored: run the changed recipe"
        )
    if base.semantic and changed.semantic and changed.semantic.threshold < base.semantic.threshold:
        raise UserError(
            f"deduplicate.semantic.threshold {changed.semantic.threshold:g} lies below the run's"
            f" {base.semantic.threshold:g}, and only a run tells: run the changed recipe"
        )


def asks_of_meaning(base: DedupConfig, changed: DedupConfig) -> bool:
    """Whether the threshold of meaning differs, and nothing else of that level."""
    if base.semantic is None or changed.semantic is None or base.semantic == changed.semantic:
        return False
    return base.semantic.model_copy(update={"threshold": changed.semantic.threshold}) == changed.semantic


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
    notes = _of_spans(base)
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
    return _answer(documents, compared, before, after, notes)


def tell_of_meaning(
    duplicates: pa.Table,
    signatures: Sequence[Shard],
    embeddings: Sequence[Shard],
    curation: Sequence[Shard],
    changed: DedupConfig,
    threads: int,
    memory: int,
) -> dict[str, Any]:
    """The answer as plain values, as `tell` has it, by deciding again.

    `duplicates`: `id` and `duplicate_of` of the run; the others, and `memory` in bytes, are as `decide` takes them.

    Raises:
        UserError: in one line, where what was stored is gone, damaged or of other documents.
    """
    from datalake.dedup.decide import decide  # compiled code, which the pairs of texts do without

    try:
        again = decide(signatures, changed, threads, memory, curation=curation, embeddings=embeddings)
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"signatures or embeddings are gone or damaged ({why}): run the recipe again first") from None
    if again.report["documents"] != len(duplicates):
        raise UserError("the signatures at hand are not of the documents at hand: run the recipe again first")
    documents = len(duplicates)
    return _answer(documents, documents, _gone(duplicates), _gone(again.duplicates), _of_spans(changed))


def _answer(documents: int, compared: int, before: set[bytes], after: set[bytes], notes: list[str]) -> dict[str, Any]:
    """What is told where `before` and `after` are the ids of those that go, of so many compared."""
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


def _of_spans(config: DedupConfig) -> list[str]:
    if config.lines is None and config.substrings is None:
        return []
    return ["what `lines` and `substrings` cut is chosen among the documents that stay: a run cuts anew"]


def _gone(duplicates: pa.Table) -> set[bytes]:
    return set(duplicates.filter(duplicates["duplicate_of"].is_valid())["id"].to_pylist())
