"""Questions made from documents: a sentence with a gap, beside a passage that fills it or one that doesn't.

A gap is a number, which a document states and nobody can guess. Of every two questions one stands beside the passage
that its sentence is from, where the number is right; the other beside a passage of another document, which says nothing
of it, where it is right to say so. English and Chinese are asked in their own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

PASSAGE = 700  # characters
_SENTENCE = re.compile(r"[^.!?。！？\n]{30,300}[.!?。！？]")
_NUMBER = re.compile(r"(?<![A-Za-z\d.,-])\d{2,4}(?![A-Za-z\d-]|[.,]\d)")
_GAP = "____"
_ASK = {
    "en": 'Passage:\n{passage}\n\nWhich number fills the gap, according to the passage alone? "{sentence}"\n'
    "If the passage does not say, answer that it does not say.",
    "zh": "短文：\n{passage}\n\n只根据短文回答，空格里应该填哪个数字？“{sentence}”\n如果短文没有提到，就回答没有提到。",
}


def items(documents: Sequence[tuple[str, str, str]], number: int) -> list[dict[str, Any]]:
    """At most so many rows `prompt`, `answer` ("" where the passage doesn't say), `supported`, `document`, in turn
    supported and not, made of documents (id, text, language), in their order."""
    facts = [fact for document in documents for fact in _facts(*document)]
    rows = []
    for place, (id_, passage, sentence, answer, language) in enumerate(facts):
        supported = place % 2 == 0
        beside = passage if supported else _other(facts, place, answer)
        if beside is not None:
            prompt = _ASK[language].format(passage=beside, sentence=sentence)
            rows.append(
                {"prompt": prompt, "answer": answer if supported else "", "supported": supported, "document": id_}
            )
        if len(rows) == number:
            break
    return rows


def _facts(id_: str, text: str, language: str) -> Iterator[tuple[str, str, str, str, str]]:
    """The first sentence of a document that has one number, once in its passage: (id, passage, sentence with a gap,
    number, language)."""
    for match in _SENTENCE.finditer(text[:20_000]):
        numbers = _NUMBER.findall(match[0])
        start = max(0, match.start() - PASSAGE // 2)
        passage = text[start : start + PASSAGE].strip()
        if len(numbers) == 1 and match[0].strip() in passage and passage.count(numbers[0]) == 1:
            yield id_, passage, _NUMBER.sub(_GAP, match[0].strip()), numbers[0], "zh" if language == "zh" else "en"
            return


def _other(facts: Sequence[tuple[str, str, str, str, str]], place: int, answer: str) -> str | None:
    """The passage of the next fact in the same language that doesn't have the answer."""
    language = facts[place][-1]
    for step in range(1, len(facts)):
        _, passage, _, _, theirs = facts[(place + step) % len(facts)]
        if theirs == language and answer not in passage:
            return passage
    return None
