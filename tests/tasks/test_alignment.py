"""What alignment trains on: complete pairs, held out by their groups."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from datalake.document import Conversation, Preference
from datalake.lake.lake import TableRef
from datalake.tables import CONVERSATIONS, PREFERENCES, to_table
from tasks import learning
from tasks.dialogues import HoldOut, dialogues, nothing_left, pairs, prompts, warn_of_one_sided

TABLE = TableRef.model_construct(table="small.rows")


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
    train, heldout = pairs(OneFile(tmp_path / "rows.parquet"), TABLE, HoldOut(seed=0, share=0.0))  # type: ignore[arg-type]
    assert [row["prompt"][0]["content"] for row in train] == ["question 2"]
    assert heldout == []
    train, heldout = pairs(OneFile(tmp_path / "rows.parquet"), TABLE, HoldOut(seed=0, share=1.0))  # type: ignore[arg-type]
    assert [row["prompt"][0]["content"] for row in heldout] == ["question 2"]
    assert train == []


def test_what_a_source_says_not_to_learn_is_said_to_training(tmp_path: Path) -> None:
    messages = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    rows = [
        Conversation(bytes(16), "s", "u", messages, attributes={"weights": "[0, 0, 0, 1]"}),
        Conversation(bytes([1] * 16), "s", "v", messages),
    ]
    pq.write_table(to_table(rows, CONVERSATIONS), tmp_path / "rows.parquet")
    train, _ = dialogues(OneFile(tmp_path / "rows.parquet"), TABLE, HoldOut(seed=0, share=0.0))  # type: ignore[arg-type]
    assert [turn["weight"] for turn in train[0]["messages"]] == ["0", "0", "0", "1"]
    assert train[1]["messages"] == messages


def test_the_progress_bar_counts_steps_as_the_metrics_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    class Bar:
        def at(self, done: int, note: str = "") -> None:
            shown.append(done)

    @contextmanager
    def progress(*_: Any) -> Iterator[Bar]:
        yield Bar()

    def run_alone(work: Any, *arguments: Any, runtime: Any, poll: Any) -> dict[str, Any]:
        for step in (1, 2, 3):
            with (tmp_path / "metrics.jsonl").open("a") as stream:
                stream.write(json.dumps({"step": step, "loss": 1.0}) + "\n")
            poll()
        return {}

    monkeypatch.setattr(learning, "progress", progress)
    monkeypatch.setattr(learning, "run_alone", run_alone)
    config = SimpleNamespace(ranks=1, tracking=())
    runtime: Any = SimpleNamespace(folder=tmp_path, config=config, corpus="c", fingerprint="f", lake_root=tmp_path)
    learning.train_alone("sft", dict, 3, runtime, {})
    assert shown == [1, 2, 3]


def test_a_policy_is_asked_a_dialogue_up_to_its_last_answer_or_the_question_it_ends_with() -> None:
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    talks = [[question, answer], [question, answer, question], [question], []]
    known: dict[str, Any] = {"id": bytes(16), "source": "s", "tools": [], "attributes": {"level": "2", "id": "x"}}
    asked = prompts([known | {"messages": messages} for messages in talks])
    assert [row["messages"] for row in asked] == [[question], [question, answer, question], [question], []]
    assert [row["answer"] for row in asked] == ["a", "", "", ""]
    assert {(row["level"], row["id"], row["source"]) for row in asked} == {("2", "0" * 32, "s")}


def test_dialogues_and_pairs_of_a_source_that_is_held_out_whole_are_told() -> None:
    report: dict[str, Any] = {}
    warn_of_one_sided(report, [{"source": "a"}] * 3, [{"source": "a"}, {"source": "b"}], 0.05, "dialogues")
    (warning,) = report["warnings"]
    assert warning.startswith("all 1 dialogues of b are held out, none trains")
    report = {}
    warn_of_one_sided(report, [{"source": "a"}] * 3, [{"source": "a"}], 0.05, "dialogues")
    assert report == {}
    assert "mixture.seed" in str(nothing_left("conversation", 5, "sft"))
    assert "set sft to null" in str(nothing_left("conversation", 0, "sft"))
