"""Two answers to a prompt, compared: which is better, by how much, is each harmless, what would be right.

The two are `a` and `b` of an item; which of them stands on the left differs by item and annotator, and is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from flows.label.kinds import Judgement, Kind, Row, Text, draw
from flows.label.labels import CONVERSATIONS, PREFERENCES, now

# By how much scores are to differ, by grade: Llama 2's "margin small" (Touvron et al. 2023, arXiv:2307.09288, table 28)
MARGINS = {1: 0.0, 2: 0.3333, 3: 0.6667, 4: 1.0}


class Comparison(Judgement):
    """What the page sends. choice: from -4, the left answer is much better, over 0, neither is, to 4."""

    choice: int = Field(ge=-4, le=4)
    harmless: tuple[bool, bool] = (True, True)  # left, right
    correction: Text = ""


class Pairs(Kind):
    """Pairs of answers. An item has `prompt`, messages, `answers`, two texts, and `checkpoints`, who wrote them."""

    name, table, beside, body = "pairs", PREFERENCES, (CONVERSATIONS,), Comparison

    def shown(self, item: Row, annotator: str) -> Row:
        """The prompt and both answers, as they stand on the page."""
        answers = item["answers"][:: -1 if flipped(item["id"], annotator) else 1]
        return {"id": item["id"], "prompt": item["prompt"], "answers": answers}

    def rows(self, item: Row, annotator: str, said: Comparison) -> dict[str, Row]:
        """A preference, and the dialogue with the corrected answer where there is one.

        Answers are written as turns, so that no reader takes what a model wrote for more than a text.
        """
        turn = -1 if flipped(item["id"], annotator) else 1
        grade, harmless = said.choice * turn, said.harmless[::turn]
        who: Row = {"annotator": annotator, "time": now()}
        who |= {f"checkpoint_{side}": one for side, one in zip("ab", item["checkpoints"], strict=True) if one}
        row: Row = {"id": item["id"], "prompt": item["prompt"]}
        row |= {f"response_{side}": _turn(text) for side, text in zip("ab", item["answers"], strict=True)}
        row |= {"winner": "tie" if not grade else "a" if grade < 0 else "b", "grade": grade}
        if grade:
            row["margin"] = MARGINS[abs(grade)]
        row |= {f"harmless_{side}": one for side, one in zip("ab", harmless, strict=True)}
        row |= {"left": "a" if turn > 0 else "b", **who} | ({"note": said.note} if said.note else {})
        found = {PREFERENCES: row}
        if said.correction and said.correction not in (text.strip() for text in item["answers"]):
            messages = [*item["prompt"], _turn(said.correction)]
            found[CONVERSATIONS] = {"id": item["id"], "messages": messages, **who}
        return found

    def said(self, row: Row, more: Mapping[str, Row]) -> Row:
        """The comparison as it was sent."""
        turn = 1 if row["left"] == "a" else -1
        corrected = more.get(CONVERSATIONS, {}).get("messages", [{}])[-1].get("content", "")
        harmless = [row["harmless_a"], row["harmless_b"]][::turn]
        return {
            "choice": row["grade"] * turn,
            "harmless": harmless,
            "correction": corrected,
            "note": row.get("note", ""),
        }

    def measures(self, items: Sequence[Mapping[str, Row]]) -> dict[str, tuple[list[list[Any]], bool]]:
        """Which is better, by how much, and of every answer whether it is harmless."""
        rows = [list(item.values()) for item in items]
        return {
            "better": ([[row["winner"] for row in said] for said in rows], False),
            "grade": ([[row["grade"] for row in said] for said in rows], True),
            "harmless": ([[row[f"harmless_{side}"] for row in said] for said in rows for side in "ab"], False),
        }


def flipped(id: str, annotator: str) -> bool:
    """Whether the second answer stands on the left for this annotator: by a hash, as often as not."""
    return draw("side", id, annotator) < 0.5


def _turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
