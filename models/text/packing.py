"""What of a dialogue, a pair of answers or a prompt a model's context holds, one rule for training and evaluation.

A dialogue to learn from is cut at its end: the beginning of a long answer still teaches. A pair and a prompt lose their
oldest turns, since what is judged or written stands last (a system message stays); where two answers don't fit with the
last turn alone, both are cut where the context ends. What can't be used even so is left out, with the reason.

Each function renders what it must and no more: the work grows with what there is, however many turns that has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from datalake.errors import UserError
from models.text.rendering import render

T = TypeVar("T")
Messages = Sequence[dict[str, str]]
Dialogue = tuple[list[int], list[bool]]  # token ids, and which of them are the assistant's
Answers = tuple[list[int], list[int]]  # two dialogues as token ids, the chosen one first

# Why something is left out.
NO_ANSWER = "no answer of the assistant"
NO_QUESTION = "no turn of the user"
ONE_ANSWER = "one answer, nothing to compare it with"
EQUAL = "two equal answers"
TOO_LONG = "longer than the context before an answer begins"


class Fit(NamedTuple, Generic[T]):
    """What became of one thing: the tokens that fit (None: left out, see `reason`), its tokens in all, and whether
    something of an answer was cut."""

    item: T | None
    tokens: int
    cut: bool = False
    reason: str = ""


class LeftOut(NamedTuple):
    """One thing that can't be used: its place in the list, why, and its length in tokens."""

    number: int
    reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Fitted(Generic[T]):
    """Of a list of things those that fit, in order, and the place of each in the list; how many of them were cut."""

    items: list[T]
    numbers: list[int]
    cut: int
    left_out: list[LeftOut]


def fit_all(things: Sequence[Any], fit: Callable[[Any], Fit[T]]) -> Fitted[T]:
    """Each of these things as `fit` has it."""
    items: list[T] = []
    numbers: list[int] = []
    left_out: list[LeftOut] = []
    cut = 0
    for number, thing in enumerate(things):
        found = fit(thing)
        if found.item is None:
            left_out.append(LeftOut(number, found.reason, found.tokens))
        else:
            items.append(found.item)
            numbers.append(number)
            cut += found.cut
    return Fitted(items, numbers, cut, left_out)


def fit_dialogue(messages: Messages, words: Any, limit: int) -> Fit[Dialogue]:
    """The beginning of a dialogue in at most `limit` tokens, up to the last of the assistant's that is in it.

    A message with `weight` "0" is read and not learned.
    """
    ids, mask = render(messages, words)
    mask = _weighed(messages, mask)
    last = _last(mask, limit)
    if last < 1:  # a first token is never a target
        return Fit(None, len(ids), reason=TOO_LONG if _last(mask, len(mask)) >= 1 else NO_ANSWER)
    return Fit((ids[: last + 1], mask[: last + 1]), len(ids), cut=any(mask[last + 1 :]))


def _weighed(messages: Messages, mask: list[bool]) -> list[bool]:
    """The mask without the assistant's turns that aren't to be learned. Raises UserError where these can't be told."""
    said = [message for message in messages if message["role"] == "assistant"]
    if all(message.get("weight") != "0" for message in said):
        return mask
    starts = [place for place, on in enumerate(mask) if on and not (place and mask[place - 1])]
    if len(starts) != len(said):
        raise UserError(
            "some of the assistant's turns aren't to be learned, and this tokenizer's chat template doesn't tell them "
            "apart: take another tokenizer, or leave those dialogues out"
        )
    left = list(mask)
    for message, start in zip(said, starts, strict=True):
        for place in range(start, len(mask)) if message.get("weight") == "0" else ():
            if not mask[place]:
                break
            left[place] = False
    return left


def _last(mask: list[bool], limit: int) -> int:
    """The last place before `limit` that is marked; -1 where none is."""
    return next((place for place in range(min(limit, len(mask)) - 1, -1, -1) if mask[place]), -1)


def fit_pair(pair: Mapping[str, Any], words: Any, context: int) -> Fit[Answers]:
    """The two dialogues of a pair (`prompt`: messages, `chosen`, `rejected`: texts) in `context` tokens each.

    Both see the same prompt, which starts with the user. Cut answers have no end token: they go on.
    """
    if pair["chosen"] is None or pair["rejected"] is None:
        return Fit(None, 0, reason=ONE_ANSWER)
    if pair["chosen"] == pair["rejected"]:
        return Fit(None, 0, reason=EQUAL)

    def both(messages: Messages) -> Answers:
        chosen, rejected = (
            render([*messages, {"role": "assistant", "content": pair[answer]}], words)[0]
            for answer in ("chosen", "rejected")
        )
        return chosen, rejected

    def fitting(messages: Messages) -> Answers | None:
        found = both(messages)
        return found if max(map(len, found)) <= context else None

    count, latest = latest_turns(pair["prompt"])
    if not count:
        return Fit(None, 0, reason=NO_QUESTION)
    found = most(count, lambda number: fitting(latest(number)))
    if found is not None:
        return Fit(found, max(map(len, found)))
    chosen, rejected = both(latest(1))
    tokens = max(len(chosen), len(rejected))
    if chosen[:context] == rejected[:context]:
        return Fit(None, tokens, reason=TOO_LONG)
    return Fit((chosen[:context], rejected[:context]), tokens, cut=True)


def fit_prompt(prompt: Messages, words: Any, room: int) -> Fit[list[int]]:
    """A prompt as tokens up to where the assistant is to speak, in at most `room` of them."""
    count, latest = latest_turns(prompt)
    if not count:
        return Fit(None, 0, reason=NO_QUESTION)

    def fitting(number: int) -> list[int] | None:
        ids, _ = render(latest(number), words, prompt=True)
        return ids if len(ids) <= room else None

    found = most(count, fitting)
    if found is None:
        return Fit(None, len(render(latest(1), words, prompt=True)[0]), reason=TOO_LONG)
    return Fit(found, len(found))


def latest_turns(
    messages: Messages, opening: Collection[str] = ("user",)
) -> tuple[int, Callable[[int], list[dict[str, str]]]]:
    """In how many ways a dialogue can lose its oldest turns, and what is left in each: 1 the least, the number all.

    What is left begins with the system message, where there is one, and then a turn of one of the roles in `opening`
    (or the first turn, when nothing is lost). No way at all where there is no turn.
    """
    system = list(messages[:1]) if messages and messages[0]["role"] == "system" else []
    turns = list(messages[len(system) :])
    starts = [place for place, message in enumerate(turns) if not place or message["role"] in opening]
    return len(starts), lambda number: [*system, *turns[starts[-number] :]]


def most(count: int, fits: Callable[[int], T | None]) -> T | None:
    """What `fits` gives for the largest number up to `count` for which it gives something; None where not even for 1.

    What holds a number holds every smaller one. Small numbers are asked first, so that the work follows what fits.
    """
    best: T | None = None
    low, high, number = 0, count + 1, 1
    while low + 1 < high:
        found = fits(number)
        if found is None:
            high = number
        else:
            low, best = number, found
        number = min(2 * low, count) if high > count else (low + high) // 2
    return best
