"""What of dialogues trains, to be looked at before anything is trained: stretches of text and whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datalake.errors import UserError

SHOWN = 3  # dialogues
_LONGEST = 400  # characters of a stretch

Stretch = tuple[str, bool]


def stretches(ids: Sequence[int], mask: Sequence[bool], words: Any) -> list[Stretch]:
    """A dialogue's text, special tokens and all, as (text, whether it trains); joined it is the whole.

    A first token is never a target, so it doesn't train.
    """
    on = [trains and place > 0 for place, trains in enumerate(mask)]
    edges = [place for place in range(len(ids)) if not place or on[place] != on[place - 1]]
    found: list[Stretch] = []
    before = ""
    for start, stop in zip(edges, [*edges[1:], len(ids)], strict=True):
        text = str(words.decode(ids[:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        found.append((text[len(before) :], on[start]))
        before = text
    return found


def view(dialogues: Sequence[tuple[list[int], list[bool]]], words: Any, shown: int = SHOWN) -> dict[str, Any]:
    """How many tokens of how many train, and some of the dialogues, the middle of long stretches left out."""
    targets = sum(sum(mask[1:]) for _, mask in dialogues)
    return {
        "tokens": sum(len(ids) for ids, _ in dialogues),
        "trained": targets,
        "dialogues": [
            [[_short(text), trains] for text, trains in stretches(ids, mask, words)]
            for ids, mask in dialogues[:: max(len(dialogues) // shown, 1)][:shown]
        ],
    }


def require_part(dialogues: Sequence[tuple[list[int], list[bool]]]) -> None:
    """Raises UserError unless some tokens of these dialogues train and some don't."""
    targets, tokens = sum(sum(mask[1:]) for _, mask in dialogues), sum(len(mask) - 1 for _, mask in dialogues)
    what = "no token" if not targets else "every token" if targets == tokens else ""
    if what:
        raise UserError(
            f"{what} of {len(dialogues):,} dialogues would train: the chat template marks "
            f"{'nothing' if not targets else 'everything'} as the assistant's; mend its generation blocks"
            " or name another sft.template"
        )


def _short(text: str) -> str:
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} … {text[-half:]}"
