"""What of dialogues trains, to be looked at before anything is trained: stretches of text and whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datalake.errors import UserError

SHOWN = 3  # dialogues
_LONGEST = 400  # characters of a stretch

Stretch = tuple[str, bool]
Dialogues = Sequence[tuple[list[int], list[bool]]]


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


def counts(dialogues: Dialogues) -> tuple[int, int]:
    """How many tokens train, and of how many."""
    return sum(sum(mask[1:]) for _, mask in dialogues), sum(len(ids) for ids, _ in dialogues)


def said(dialogues: Dialogues) -> str:
    """The same in words."""
    trained, tokens = counts(dialogues)
    return f"{trained:,} of {tokens:,} tokens train ({trained / max(tokens, 1):.1%})"


def visible(pieces: Sequence[Stretch]) -> list[Stretch]:
    """Stretches for people: the middle of a long one is left out, and the ends of lines are to be seen."""
    half = _LONGEST // 2
    cut = ((t if len(t) <= _LONGEST else f"{t[:half]} … {t[-half:]}", trains) for t, trains in pieces)
    return [(text.replace("\n", "⏎\n"), trains) for text, trains in cut]


def require_part(dialogues: Dialogues) -> None:
    """Raises UserError where every token of these dialogues would train."""
    trained, tokens = counts(dialogues)
    if trained == tokens - len(dialogues):  # a first token is no target
        raise all_or_nothing("every token", len(dialogues))


def all_or_nothing(which: str, dialogues: int) -> UserError:
    """The error of dialogues of which "no token" or "every token" would train."""
    marks = "nothing" if which == "no token" else "everything"
    return UserError(
        f"{which} of {dialogues:,} dialogues would train: the chat template marks {marks} as the assistant's;"
        " mend its generation blocks or name another sft.template"
    )
