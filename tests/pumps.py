"""Worst inputs of regular expressions, made from the expressions themselves, and how time grows with them.

An expression is slow where a repeat can be entered, or left, at many places of a text that then fails. So of each
repeat the text before it, its own text over and over (by each kind of character that it takes) and a beginning of what
comes behind it are put together in the few ways that make a matcher try again: see `worst`. `growth` grows an input
until its time can be measured and tells how much longer four times as much takes.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

LONG = 40  # repeats that end before are no loops
_KINDS = " \na0=.,"  # kinds of characters; with the expression's own
_REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    ops.CATEGORY_DIGIT: str.isdecimal,
    ops.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    ops.CATEGORY_SPACE: str.isspace,
    ops.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    ops.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    ops.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}


def _takes(op: Any, value: Any, c: str) -> bool:
    """Whether an item of one character takes this one."""
    if op is ops.LITERAL:
        return chr(value) == c
    if op is ops.NOT_LITERAL:
        return chr(value) != c
    if op is ops.ANY:
        return c != "\n"
    if op is ops.RANGE:
        return bool(value[0] <= ord(c) <= value[1])
    if op is ops.CATEGORY:
        return _CATEGORIES[value](c)
    negated = value[0][0] is ops.NEGATE
    return any(_takes(*item, c) for item in value[negated:]) != negated


def _inner(op: Any, value: Any) -> list[Any]:
    """The sequences within an item: its alternatives, its group, what it repeats."""
    if op is ops.BRANCH:
        return list(value[1])
    if op is ops.SUBPATTERN:
        return [value[3]]
    if op is ops.ATOMIC_GROUP:
        return [value]
    if op in (*_REPEATS, ops.ASSERT):
        return [value[-1]]
    if op is ops.GROUPREF_EXISTS:
        return [value[1]]
    return []


def _literals(sequence: Any) -> Iterator[str]:
    for op, value in sequence:
        if op in (ops.LITERAL, ops.NOT_LITERAL):
            yield chr(value)
        elif op is ops.IN:
            yield from _literals(value)
        elif op is ops.RANGE:
            yield chr(value[0])
        for inner in _inner(op, value):
            yield from _literals(inner)


class _Maker:
    """Texts that a sequence takes, of one kind of character wherever it may be."""

    def __init__(self, alphabet: str):
        self.alphabet = alphabet

    def sample(self, sequence: Any, prefer: str) -> str:
        out: list[str] = []
        for op, value in sequence:
            if op in (ops.LITERAL,):
                out.append(chr(value))
            elif op in (ops.NOT_LITERAL, ops.ANY, ops.IN):
                out.append(next((c for c in prefer + self.alphabet if _takes(op, value, c)), ""))
            elif op in _REPEATS:
                out.append(self.sample(value[2], prefer) * value[0])
            elif op is ops.ASSERT or op in (ops.ASSERT_NOT, ops.AT, ops.GROUPREF):
                continue
            elif inner := _inner(op, value):
                out.append(self.sample(inner[0], prefer))
        return "".join(out)

    def repeats(self, sequence: Any, before: str, prefer: str, behind: str) -> Iterator[tuple[str, str, str]]:
        """(what stands before, what is repeated, what follows) of each long repeat, however deep."""
        items = list(sequence)
        for place, (op, value) in enumerate(items):
            here = before + self.sample(items[:place], prefer)
            rest = self.sample(items[place + 1 :], prefer) + behind
            if op in _REPEATS and value[1] >= LONG:
                yield here, self.sample(value[2], prefer), rest
            for inner in _inner(op, value):
                yield from self.repeats(inner, here, prefer, rest)


def is_plain(pattern: re.Pattern[Any]) -> bool:
    """Whether an expression is linear at sight: it has no long repeat but one that ends it, of single characters."""
    sequence = list(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    while sequence and sequence[-1][0] is ops.SUBPATTERN and not _long(sequence[:-1]):
        sequence = list(sequence[-1][1][3])
    if sequence and sequence[-1][0] in _REPEATS and not _long(sequence[-1][1][2]):
        sequence.pop()
    return not _long(sequence)


def _long(sequence: Any) -> bool:
    return any((op in _REPEATS and value[1] >= LONG) or any(map(_long, _inner(op, value))) for op, value in sequence)


def worst(pattern: re.Pattern[Any], how: str) -> list[tuple[str, str, str]]:
    """(beginning, text to repeat, end) of the inputs that could take an expression long.

    - `how`: `search`, which begins anywhere, or `match` and `fullmatch`, which begin at the beginning.
    """
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    sequence = parser.parse(
        source, pattern.flags & ~(re.DEBUG | (re.UNICODE if isinstance(pattern.pattern, bytes) else 0))
    )
    own = [*dict.fromkeys(_literals(sequence))]
    alphabet = "".join(dict.fromkeys([*_KINDS, *own]))
    maker = _Maker(alphabet)
    found: dict[tuple[str, str, str], None] = {}
    for prefer in [*_KINDS, *[c for c in own if not c.isalnum() and c not in _KINDS][:6]]:
        for before, pump, rest in maker.repeats(sequence, "", prefer, ""):
            if not pump:
                continue
            found[before, pump, "\x00"] = None
            found[before, pump, rest[:-1] + "\x00"] = None
            if how == "search":
                found["", before + pump, "\x00"] = None
                found["", before + pump + rest[:-1], "\x00"] = None
                if before:
                    found["", before, "\x00"] = None
        found["", prefer, "\x00"] = None
    return list(found)


def growth(run: Callable[[Any], object], build: Callable[[int], Any], most: int = 8_000, least: float = 1e-3) -> float:
    """How much longer four times an input takes, the input being grown until it takes `least` seconds.

    1 where `most` characters don't; a quadratic gives 16. Of this thread's own time, the least of several measurements.
    """
    size = 20
    while _time(run, build(size)) < least:
        if size >= most:
            return 1.0
        size = min(4 * size, most)
    ratio = math.inf
    for scale in (1, 1, 2, 4):
        short, long = build(scale * size), build(4 * scale * size)
        base = min(_time(run, short) for _ in range(3))
        ratio = min(ratio, min(_time(run, long) for _ in range(3)) / base)
        if ratio < 8 or base > 0.1:
            break
    return ratio


def _time(run: Callable[[Any], object], given: Any) -> float:
    start = time.thread_time()
    run(given)
    return time.thread_time() - start
