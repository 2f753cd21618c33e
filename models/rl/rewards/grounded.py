"""Grounded answers: whether an answer says what a document says, and says so where the document doesn't.

The row's `answer` is what the document has, a text or a number; "" where nothing there supports any answer, and to say
that it isn't there is right. That is told by `PHRASES`, or as a refusal (`models.rl.rewards.refusal`).
"""

from __future__ import annotations

import re
from typing import Any

from datalake.text.words import WORD
from models.rl.rewards.refusal import refuses

PHRASES = (
    r"(?:\b(?:not|never|nowhere)|n['’]t) (?:\w{1,20} ){0,3}"
    r"(?:mention|state|say|said|specif|provide|given|contain|include|indicate|tell|discuss)",
    r"\b(?:no|not enough|insufficient) (?:\w{1,20} ){0,2}(?:information|mention|answer|detail|indication)",
    r"\b(?:cannot|can['’]t|can not|could(?: not|n['’]t)) be (?:determined|answered|known|found)",
    r"\b(?:unknown|unanswerable|not in the (?:text|passage|document)|(?:do not|don['’]t) know)\b",
    r"(?:没有|未|并未|并没有)(?:被)?(?:提到|提及|说明|给出|提供|涉及|说)",
    r"(?:无法|不能)(?:确定|回答|得知|判断)|不知道|没有(?:相关|足够)?(?:的)?信息",
)
_ABSENT = re.compile("|".join(PHRASES), re.IGNORECASE)


def correct(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """1 where the answer has the words of the row's answer in a row; where that is empty, says that there is none."""
    if not isinstance(row.get("answer"), str | int | float):
        raise ValueError("the row has no answer of its document: give it `answer`, empty where nothing supports one")
    right = _words(str(row["answer"]))
    absent = bool(_ABSENT.search(answer)) or refuses(answer)
    if not right:
        return float(absent)
    said = _words(answer)
    return float(not absent and any(said[at : at + len(right)] == right for at in range(len(said))))


def invented(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """1 where the answer says something of what the document doesn't support, else 0."""
    return float(not row.get("answer") and not correct(prompt, answer, row))


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]
