"""What of a dialogue, a pair of answers or a prompt a model's context holds, one rule for training and evaluation.

A dialogue to learn from is cut at its end: the beginning of a long answer still teaches. Where no answer would begin in
the context, and where a pair or a prompt is too long, the oldest turns go first, since what is judged or written stands
last (a system message stays); then the middle of the texts before the answer, until it has the room to begin. Two
answers that don't fit even so are both cut where the context ends. What can't be used at all is left out, with the
reason.

Each function renders what it must and no more: the work grows with what there is, however many turns that has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from datalake.errors import UserError
from models.text.rendering import Messages, Tools, UnfitError, render
from models.text.tokenizer import end_of_turn

T = TypeVar("T")
Dialogue = tuple[list[int], list[bool]]  # token ids, and which of them are the assistant's


class Answers(NamedTuple):
    """Two dialogues as token ids that begin with one prompt; `start` is where the answers begin in both."""

    chosen: list[int]
    rejected: list[int]
    start: int

    @property
    def longest(self) -> int:
        """Tokens of the longer one."""
        return max(len(self.chosen), len(self.rejected))


# Why something is left out.
NO_ANSWER = "no answer of the assistant"
NO_QUESTION = "no turn of the user"
ONE_ANSWER = "one answer, nothing to compare it with"
EQUAL = "two equal answers"
EMPTY = "an empty answer"
TOO_LONG = "longer than the context before an answer begins"
REFUSED = "the chat template can't write it"

ROOM = 4  # an answer begins where it has this part of the context, or all that it needs
GAP = " … "  # stands for the middle of a text that is cut


class Fit(NamedTuple, Generic[T]):
    """What became of one thing: the tokens that fit (None: left out, see `reason`), its tokens in all, and whether
    something of it was cut: turns, the middle of a text, or the end of an answer."""

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
    """Of a list of things those that fit, in order, and the place of each in the list; the lengths in tokens of those
    that were cut, as they were before; what is left out."""

    items: list[T]
    numbers: list[int]
    cut_tokens: list[int]
    left_out: list[LeftOut]

    @property
    def cut(self) -> int:
        """How many were cut."""
        return len(self.cut_tokens)

    @property
    def why(self) -> str:
        """The commonest reason for which something is left out; empty where nothing is."""
        return next((reason for reason, _ in Counter(one.reason for one in self.left_out).most_common(1)), "")

    def figures(self, room: int) -> dict[str, Any]:
        """What a report says of it, plain values; `left_out` is lists of [number, reason, tokens, room]."""
        return {
            "cut": self.cut,
            "dropped": len(self.left_out),
            "cut_by_length": by_length(self.cut_tokens),
            "left_out_by_length": by_length(one.tokens for one in self.left_out),
            "left_out": [[*one, room] for one in self.left_out],
        }


def by_length(tokens: Iterable[int]) -> dict[str, int]:
    """How many things are of which length: "up to 512 tokens" are those of more than 256."""
    bounds = Counter(1 << max(length - 1, 0).bit_length() for length in tokens)
    return {f"up to {bound} tokens": count for bound, count in sorted(bounds.items())}


def fit_all(things: Sequence[Any], fit: Callable[[Any], Fit[T]]) -> Fitted[T]:
    """Each of these things as `fit` has it; one that the chat template can't write is left out."""
    fitted: Fitted[T] = Fitted([], [], [], [])
    for number, thing in enumerate(things):
        try:
            found = fit(thing)
        except UnfitError:
            found = Fit(None, 0, reason=REFUSED)
        if found.item is None:
            fitted.left_out.append(LeftOut(number, found.reason, found.tokens))
        else:
            fitted.items.append(found.item)
            fitted.numbers.append(number)
            if found.cut:
                fitted.cut_tokens.append(found.tokens)
    return fitted


def fit_dialogue(messages: Messages, words: Any, limit: int, tools: Tools = ()) -> Fit[Dialogue]:
    """A dialogue in at most `limit` tokens, up to the last of the assistant's that is in it.

    A message with `weight` "0" is read and not learned. `tools` are those that it may call.
    """
    write = partial(_learned, words=words, tools=tools)
    ids, mask = write(messages)
    tokens, lost = len(ids), False
    if _last(mask, tokens) < 1:  # a first token is never a target
        return Fit(None, tokens, reason=NO_ANSWER)
    if not _begins(mask, limit):
        later = _later(messages, write, limit)
        if later is None:
            return Fit(None, tokens, reason=TOO_LONG)
        (ids, mask), lost = later, True
    last = _last(mask, limit)
    return Fit((ids[: last + 1], mask[: last + 1]), tokens, cut=lost or any(mask[last + 1 :]))


def _later(messages: Messages, write: Callable[[Messages], Dialogue], limit: int) -> Dialogue | None:
    """A dialogue from the first later turn of the user whose answer begins within the limit, or else its last answer
    with as much of the texts before it as leaves it room; None where none does."""
    learned = [n for n, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != "0"]
    for start, first, system in _questions(messages, learned):
        if _begins(write([*system, *messages[start : first + 1]])[1], limit):
            return write([*system, *messages[start:]])
    asked = [*system, *messages[start : learned[-1]]]

    def fitting(kept: int) -> Dialogue | None:
        found = write([*shortened(asked, kept), messages[learned[-1]]])
        return found if _begins(found[1], limit) else None

    return longest(asked, fitting)


def _questions(messages: Messages, learned: Sequence[int]) -> Iterator[tuple[int, int, Messages]]:
    """Where each turn of the user stands and the answer to it, among those that are learned, and what comes before any
    turn: the system's message."""
    system = messages[:1] if messages[0]["role"] == "system" else []
    answers = iter(learned)
    answer = next(answers)
    yield len(system), answer, system
    for place in range(len(system) + 1, len(messages)):
        while answer < place:
            answer = next(answers, len(messages))
        if answer == len(messages):
            return
        if messages[place]["role"] == "user":
            yield place, answer, system


def _learned(messages: Messages, words: Any, tools: Tools) -> Dialogue:
    ids, mask = render(messages, words, tools=tools)
    return ids, _weighed(messages, mask)


def _begins(mask: list[bool], limit: int) -> bool:
    """Whether the first answer has room for its beginning."""
    start = next(place for place, on in enumerate(mask) if on)
    end = next((place for place in range(start, len(mask)) if not mask[place]), len(mask))
    return start + _beginning(end - start, limit) <= limit


def _beginning(tokens: int, limit: int) -> int:
    """The least of an answer of so many tokens that a context must hold."""
    return min(tokens, max(limit // ROOM, 1))


def shortened(messages: Messages, kept: int) -> list[dict[str, Any]]:
    """Messages with the middle of each text cut where it has more than `kept` characters."""

    def short(text: str) -> str:
        ahead = kept - kept // 2
        return text if len(text) <= kept else text[:ahead] + GAP + text[len(text) - kept // 2 :] if kept else ""

    return [message | {"content": short(message["content"])} for message in messages]


def longest(messages: Messages, fits: Callable[[int], T | None]) -> T | None:
    """What `fits` gives for the most characters that each text may keep; None where nothing is little enough."""
    most_of_all = max((len(message["content"]) for message in messages), default=0)
    return most(most_of_all + 1, lambda number: fits(number - 1))


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
    if not pair["chosen"].strip() or not pair["rejected"].strip():
        return Fit(None, 0, reason=EMPTY)
    return _fit_answers(pair, words, context)


def fit_answer(prompt: Messages, answer: str, words: Any, context: int) -> Fit[tuple[list[int], int]]:
    """A prompt with one answer as token ids, in `context` of them, and where the answer begins; cut as a pair is."""
    if not answer.strip():
        return Fit(None, 0, reason=EMPTY)
    found = _fit_answers({"prompt": prompt, "chosen": answer, "rejected": ""}, words, context)
    item = None if found.item is None else (found.item.chosen, found.item.start)
    return Fit(item, found.tokens, found.cut, found.reason)


def _fit_answers(pair: Mapping[str, Any], words: Any, context: int) -> Fit[Answers]:
    def both(messages: Messages) -> Answers:
        chosen, rejected = (
            render([*messages, {"role": "assistant", "content": pair[answer]}], words, masked=False)[0]
            for answer in ("chosen", "rejected")
        )
        opening = render(messages, words, prompt=True)[0]
        start = _alike(opening, chosen, rejected)
        return Answers(_said(chosen, start, stop), _said(rejected, start, stop), start)

    def fitting(number: int) -> Answers | None:
        found = both(latest(number))
        return found if found.longest <= context else None

    def beginning(kept: int) -> Answers | None:
        prompt = shortened(latest(1), kept)
        found = both(prompt)
        needed = _beginning(found.longest - found.start, context)
        return found if found.start + needed <= context else None

    stop = end_of_turn(words)
    count, latest = latest_turns(pair["prompt"])
    if not count:
        return Fit(None, 0, reason=NO_QUESTION)
    whole = both(pair["prompt"])
    tokens = whole.longest
    if whole.chosen == whole.rejected:  # but for white space that the template leaves out
        return Fit(None, tokens, reason=EQUAL)
    if tokens <= context:
        return Fit(whole, tokens)
    found = most(count - 1, fitting)
    if found is not None:
        return Fit(found, tokens, cut=True)
    cut = longest(latest(1), beginning)
    if cut is None or cut.chosen[:context] == cut.rejected[:context]:
        return Fit(None, tokens, reason=TOO_LONG)
    return Fit(Answers(cut.chosen[:context], cut.rejected[:context], cut.start), tokens, cut=True)


def _said(ids: list[int], start: int, stop: int | None) -> list[int]:
    """A dialogue up to the token that ends its answer, which begins at `start`: what a template writes behind that, as
    a line's end, no policy writes, and a score read there is of another token than in rollouts."""
    last = next((place for place in range(len(ids) - 1, start - 1, -1) if ids[place] == stop), len(ids) - 1)
    return ids[: last + 1]


def _alike(*sequences: Sequence[int]) -> int:
    """How many tokens sequences begin with that are the same in all."""
    least = min(map(len, sequences))
    return next((place for place in range(least) if len({s[place] for s in sequences}) > 1), least)


def fit_prompt(prompt: Messages, words: Any, room: int, tools: Sequence[Any] = ()) -> Fit[list[int]]:
    """A prompt as tokens up to where the assistant is to speak, in at most `room` of them; `tools`: those on offer."""
    count, latest = latest_turns(prompt)
    if not count:
        return Fit(None, 0, reason=NO_QUESTION)

    def fitting(messages: Messages) -> list[int] | None:
        ids, _ = render(messages, words, prompt=True, tools=tools)
        return ids if len(ids) <= room else None

    whole = render(prompt, words, prompt=True, tools=tools)[0]
    if len(whole) <= room:
        return Fit(whole, len(whole))
    found = most(count - 1, lambda number: fitting(latest(number)))
    if found is None:
        found = longest(latest(1), lambda kept: fitting(shortened(latest(1), kept)))
    return Fit(found, len(whole), cut=bool(found), reason="" if found else TOO_LONG)


def latest_turns(
    messages: Messages, opening: Collection[str] = ("user",)
) -> tuple[int, Callable[[int], list[dict[str, Any]]]]:
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
