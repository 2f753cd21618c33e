"""Constraints: whether an answer keeps to what it was asked to look like, each by a rule that anyone can check.

The row's `constraints` are a list of mappings of one constraint and what it is told:

    [{words: {most: 50}}, {contains: [river, bridge]}, {language: zh}]

A constraint is a function of `CHECKS`, which gets the answer and what it is told, and says yes or no. Verifiable
instructions as a test of models go back to Zhou et al. 2023, arXiv 2311.07911; rules and prompts here are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datalake.text.language import detect
from datalake.text.words import WORD
from models.rl.rewards.format import json_valid

_ENDS = re.compile(r"[.!?](?=[\s\"'”’)]|$)|[。！？…]+")
_BULLET = re.compile(r"^ {0,8}(?:[-*+•·]|\d{1,3}[.)、．])[ \t]*\S", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t\r]*\n")
_SHORT = re.compile(r"\b(Mrs?|Ms|Dr|Prof|St|vs|e\.g|i\.e)\.(?=\s)")  # no sentence ends with them
_LATIN = re.compile(r"[A-Za-z]")
_BOLD = re.compile(r"\*\*[^*\n]{1,200}\*\*")

Range = Mapping[str, int]


def correct(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """1 where the answer keeps to all constraints of its row, else 0."""
    return float(all(_kept(answer, row)))


def share(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """The share of its row's constraints that the answer keeps to."""
    kept = _kept(answer, row)
    return sum(kept) / len(kept)


def _kept(answer: str, row: Mapping[str, Any]) -> list[bool]:
    constraints = row.get("constraints")
    if isinstance(constraints, str):  # a dialogue's attributes are texts
        constraints = json.loads(constraints)
    if not isinstance(constraints, list) or not constraints:
        raise ValueError("the row has no constraints")
    text = answer.strip()
    return [bool(text) and _check(name)(text, told) for one in constraints for name, told in one.items()]


def _check(name: str) -> Callable[[str, Any], bool]:
    if name not in CHECKS:
        raise ValueError(f"there is no constraint {name!r}: choose one of {', '.join(CHECKS)}")
    return CHECKS[name]


def _within(number: int, bounds: Range) -> bool:
    """Whether a number is `exactly` so, or at `least` and at `most`."""
    if wrong := bounds.keys() - {"least", "most", "exactly"}:
        raise ValueError(f"{', '.join(sorted(wrong))}: bounds are least, most and exactly")
    least, most = bounds.get("exactly", bounds.get("least", 0)), bounds.get("exactly", bounds.get("most", number))
    return least <= number <= most


def words(answer: str, bounds: Range) -> bool:
    """How many words; a Chinese character is one."""
    return _within(len(WORD.findall(answer)), bounds)


def sentences(answer: str, bounds: Range) -> bool:
    """How many sentences; what ends without a mark is one."""
    parts = _ENDS.split(_SHORT.sub(r"\1", answer))
    return _within(sum(bool(WORD.search(part)) for part in parts), bounds)


def paragraphs(answer: str, bounds: Range) -> bool:
    """How many paragraphs, parted by empty lines."""
    return _within(sum(bool(part.strip()) for part in _BLANK.split(answer)), bounds)


def lines(answer: str, bounds: Range) -> bool:
    """How many lines that aren't empty."""
    return _within(sum(bool(line.strip()) for line in answer.splitlines()), bounds)


def bullets(answer: str, bounds: Range) -> bool:
    """How many items of a list, with a mark or a number before each."""
    return _within(len(_BULLET.findall(answer)), bounds)


def bold(answer: str, bounds: Range) -> bool:
    """How many passages in **bold**."""
    return _within(len(_BOLD.findall(answer)), bounds)


def contains(answer: str, texts: Sequence[str]) -> bool:
    """Each of the texts stands in it, in any case."""
    return all(text.casefold() in answer.casefold() for text in texts)


def lacks(answer: str, texts: Sequence[str]) -> bool:
    """None of the texts stands in it, in any case; one of Latin letters counts as a whole word alone."""
    return not any(_times(answer, text) for text in texts)


def times(answer: str, told: Mapping[str, Any]) -> bool:
    """How often `text` stands in it: {text: tea, least: 2}."""
    return _within(_times(answer, told["text"]), {name: told[name] for name in told if name != "text"})


def _times(answer: str, text: str) -> int:
    edges = (r"\b", r"\b") if _LATIN.fullmatch(text[:1]) and _LATIN.fullmatch(text[-1:]) else ("", "")
    return len(re.findall(edges[0] + re.escape(text) + edges[1], answer, re.IGNORECASE))


def starts(answer: str, text: str) -> bool:
    """It begins with the text."""
    return answer.startswith(text)


def ends(answer: str, text: str) -> bool:
    """It ends with the text."""
    return answer.endswith(text)


def json_object(answer: str, keys: Sequence[str]) -> bool:
    """It is a JSON object with these keys, in a fenced block or bare; without keys, any JSON."""
    return bool(json_valid("", answer, {}, keys=keys))


def case(answer: str, which: str) -> bool:
    """Its letters are all `upper` or `lower` ones."""
    if which not in ("upper", "lower"):
        raise ValueError(f"case is {which!r}: choose upper or lower")
    return answer.isupper() if which == "upper" else answer.islower()


def language(answer: str, which: str) -> bool:
    """It is written in a language, by its code as lid.176 has it: `en`, `zh`, `fr`."""
    return detect(answer)[0] == which


def quoted(answer: str, _: Any) -> bool:
    """All of it stands between quotation marks."""
    return len(answer) > 1 and (answer[0], answer[-1]) in {('"', '"'), ("“", "”"), ("「", "」"), ("『", "』")}


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "words": words,
    "sentences": sentences,
    "paragraphs": paragraphs,
    "lines": lines,
    "bullets": bullets,
    "bold": bold,
    "contains": contains,
    "lacks": lacks,
    "times": times,
    "starts": starts,
    "ends": ends,
    "json": json_object,
    "case": case,
    "language": language,
    "quoted": quoted,
}
