"""Format: whether an answer has the form that was asked for, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from datalake.text.words import WORD


def tags(prompt: str, answer: str, row: dict[str, Any], *, names: Sequence[str] = ("think", "answer")) -> float:
    """1 where the answer is <think>...</think><answer>...</answer>: each tag once, in this order, something in each,
    and nothing but white space around them. A prompt that ends in the first tag has opened it already."""
    first = f"<{names[0]}>"
    text = first + answer if prompt.rstrip().endswith(first) else answer
    marks = [mark for name in names for mark in (f"<{name}>", f"</{name}>")]
    if any(text.count(mark) != 1 for mark in marks):
        return 0.0
    places = [text.index(mark) for mark in marks]
    if places != sorted(places):
        return 0.0
    ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
    gaps = [text[end:start] for end, start in zip([0, *ends], [*places, len(text)], strict=True)]
    return float(not any(gap.strip() for gap in gaps[::2]) and all(gap.strip() for gap in gaps[1::2]))


def json_valid(prompt: str, answer: str, row: dict[str, Any], *, keys: Sequence[str] = ()) -> float:
    """1 where the answer is JSON (RFC 8259), in a fenced block or bare; with `keys`, an object that has them all."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.partition("\n")[2][:-3]
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return 0.0
    return float(not keys or (isinstance(value, dict) and all(key in value for key in keys)))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def length(
    prompt: str,
    answer: str,
    row: dict[str, Any],
    *,
    least: int = 1,
    most: int = 1_000_000,
    buffer: int = 0,
    unit: str = "words",
) -> float:
    """1 where the answer has from `least` to `most` words (or `characters`), else 0; over `buffer` more of them it
    falls in a line (soft overlong punishment: Yu et al. 2025, DAPO, arXiv 2503.14476, equation 13)."""
    if unit not in ("words", "characters"):
        raise ValueError(f"unit is {unit!r}: choose words or characters")
    size = len(WORD.findall(answer)) if unit == "words" else len(answer)
    if size < least:
        return 0.0
    over = max(size - most, 0)
    return 1.0 if not over else max(0.0, 1 - over / (buffer + 1))


def language(prompt: str, answer: str, row: dict[str, Any], *, code: str = "") -> float:
    """1 where the answer is in this language, as lid.176 names it (en, zh); "" is that of the prompt. 0 where it is in
    another, or can't be told."""
    from datalake.text.language import detect

    said = [message["content"] for message in row.get("messages") or () if message.get("role") == "user"]
    wanted = code or detect(said[-1] if said else prompt)[0]
    return float(detect(answer)[0] == wanted)
