"""Preferences as methods take them: rows with a prompt, a chosen and a rejected answer, one of which may be missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.methods.items import Items
from models.training.config import TunedConfig

if TYPE_CHECKING:
    from models.text.packing import Answers, Fit

# prompt: messages; chosen, rejected: texts; and where a row says so margin, chosen_score, rejected_score, source
Pair = Mapping[str, Any]
MARGIN = "a margin that is no number from 0 on"


def pairs_that_fit(
    config: TunedConfig,
    base: Path,
    pairs: Sequence[Pair],
    heldout: Sequence[Pair],
    section: str,
    refused: Callable[[Pair], str] = lambda pair: "",
) -> Items[Answers]:
    """Pairs as two dialogues in tokens, at most the context long each; `refused` says why one is left out, or nothing.

    `models.text.packing` says what is cut and what is left out. Raises UserError when no pair is left.
    """
    from datalake.errors import UserError
    from models.text.packing import Fit, fit_all, fit_pair

    words, context = words_and_context(config, base)

    def fit(pair: Pair) -> Fit[Answers]:
        reason = refused(pair)
        return Fit(None, 0, reason=reason) if reason else fit_pair(pair, words, context)

    train, judged = (fit_all(some, fit) for some in (pairs, heldout))
    if not train.items:
        raise UserError(
            f"none of {len(pairs)} pairs fits in {context} tokens with two different answers ({train.why}): give"
            f" others, or raise {section}.context or pretrain.context"
        )
    return Items(config, train, judged, lambda pair: pair.longest, context, words)


def words_and_context(config: TunedConfig, base: Path) -> tuple[Any, int]:
    """The tokenizer of a base, and the most tokens of an item."""
    from models.network import checkpoint
    from models.text import tokenizer as tokenizers

    longest = checkpoint.context_of(base)
    return tokenizers.load(base), min(config.context or longest, longest)


def margin_of(pair: Pair, scores: bool = False) -> float | None:
    """How much better a pair's chosen answer is by its own `margin`, or else, where `scores` count, by the distance of
    `chosen_score` and `rejected_score`, which may be ranks; 0 where it says nothing, None where that is no number from
    0 on."""
    told = [pair.get("margin")]
    if told[0] is None and scores:
        told = [pair.get(name) for name in ("chosen_score", "rejected_score")]
    if any(one is None or one == "" for one in told):
        return 0.0
    try:
        numbers = [float(one) for one in told if one is not None]
    except (TypeError, ValueError):
        return None
    margin = numbers[0] if len(numbers) == 1 else abs(numbers[0] - numbers[1])
    return margin if math.isfinite(margin) and margin >= 0 else None


def contradictions(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What a report says of rows that another row contradicts: the same prompt and answers, judged the other way round.

    Nothing where there are none.
    """

    def key(pair: Pair, better: str, worse: str) -> tuple[str, Any, Any]:
        return json.dumps(pair["prompt"], sort_keys=True), pair[better], pair[worse]

    told = {key(pair, "chosen", "rejected") for pair in pairs}
    count = sum(key(pair, "rejected", "chosen") in told for pair in pairs if pair["chosen"] != pair["rejected"])
    if not count:
        return {}
    warning = f"{count:,} of {len(pairs):,} judgements are contradicted by another of the same prompt and answers"
    return {"contradictions": count, "warnings": [warning]}
