"""What alignment trains on: complete pairs, held out by their groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from datalake.document import PREFERENCES, Preference, to_table
from tasks.alignment import HoldOut, pairs


class OneFile:
    """A lake whose tables are one file."""

    def __init__(self, path: Path):
        self.path = path

    def files(self, ref: object) -> list[str]:
        return [str(self.path)]


def preference(number: int, chosen: str | None, rejected: str | None) -> Preference:
    prompt = [{"role": "user", "content": f"question {number}"}]
    return Preference(bytes([number] * 16), "s", f"u{number}", prompt, chosen, rejected)


def test_answers_without_a_partner_are_no_pairs_to_train_on(tmp_path: Path) -> None:
    rows = [preference(1, "x", None), preference(2, "x", "y"), preference(3, None, "y")]
    pq.write_table(to_table(rows, PREFERENCES), tmp_path / "rows.parquet")
    train, heldout = pairs(OneFile(tmp_path / "rows.parquet"), None, HoldOut(seed=0, share=0.0))  # type: ignore[arg-type]
    assert [row["prompt"][0]["content"] for row in train] == ["question 2"]
    assert heldout == []
    train, heldout = pairs(OneFile(tmp_path / "rows.parquet"), None, HoldOut(seed=0, share=1.0))  # type: ignore[arg-type]
    assert [row["prompt"][0]["content"] for row in heldout] == ["question 2"]
    assert train == []
