"""Documents, judged by whether they are worth training on: what the stage `quality` learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flows.label.kinds import Judgement, Kind, Row
from flows.label.labels import DOCUMENTS, now


class Worth(Judgement):
    """What the page sends."""

    choice: Literal["good", "bad"]


class Documents(Kind):
    """Documents of a corpus. An item has `text`, and what became of it: `verdict`, the `rules` that it failed."""

    name, table, body = "documents", DOCUMENTS, Worth

    def shown(self, item: Row, annotator: str) -> Row:
        """The text alone: what became of it would be believed."""
        return {"id": item["id"], "text": item["text"]}

    def rows(self, item: Row, annotator: str, said: Worth) -> dict[str, Row]:
        """A labelled text."""
        row = item | {"label": said.choice, "annotator": annotator, "time": now()}
        return {DOCUMENTS: row | ({"note": said.note} if said.note else {})}

    def said(self, row: Row, more: Mapping[str, Row]) -> Row:
        """The judgement as it was sent."""
        return {"choice": row["label"], "note": row.get("note", "")}

    def measures(self, items: Sequence[Mapping[str, Row]]) -> dict[str, tuple[list[list[Any]], bool]]:
        """Whether a text is good."""
        return {"label": ([[row["label"] for row in item.values()] for item in items], False)}
