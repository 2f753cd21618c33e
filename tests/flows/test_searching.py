"""A policy looks through the documents of its own recipe while it answers, in a run of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toys
import world

from datalake.lake.lake import Lake
from datalake.lake.records import read_record
from models.text.tool_calls import Call


def test_an_answer_searches_the_documents_of_the_lake(
    prefect_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every turn of a policy that nobody taught stands for a call, and half of its tokens end one."""
    words = toys.words(tmp_path / "words")
    monkeypatch.setattr("models.rl.tools.turns._calls", lambda *_: [Call("search", {"query": "vermilion kettle"})])
    monkeypatch.setattr("models.text.tokenizer.stop_ids", lambda *_: list(range(0, len(words), 2)))
    rows = [{"id": str(n), "text": f"{world.prose(n, 20)} A vermilion kettle boils."} for n in (1, 2, 2)]
    (tmp_path / "rewards.py").write_text("def length(prompt, answer, row):\n    return float(len(answer))\n")
    grpo = {
        "rewards": [f"{tmp_path}/rewards.py:length"], "batch": 8, "group": 4, "steps": 2, "new_tokens": 4, "turns": 1,
        "tools": [{"tool": "search", "options": {"results": 3, "characters": 30}}], "samples_every": 1, "samples": 8,
    }  # fmt: skip
    recipe = {
        "corpus": "small",
        "sources": [
            {"kind": "table", "paths": [str(world.jsonl(tmp_path / "texts.jsonl", rows))]},
            {"kind": "conversations", "paths": [str(world.dialogues(tmp_path / "talks.jsonl", 20))]},
        ],
        "curate": {"preset": "none"},
        "base": str(toys.base(tmp_path / "base", words, context=2048)),
        **dict.fromkeys(("pretrain", "sft", "reward", "ppo", "evaluate")),
        "grpo": grpo,
        "runtime": world.inline(),
    }
    lake = tmp_path / "lake"
    reports = world.run(recipe, lake)
    assert reports["grpo"].state == "ran"
    answers = [answer for (answer,) in world.rows(lake, "SELECT answer FROM runs.samples")]
    found = [answer for answer in answers if "vermilion kettle" in answer]
    assert found
    assert all("\n2. " in answer and "\n3. " not in answer for answer in found)  # the third is a duplicate

    plain = world.run(recipe | {"grpo": grpo | {"tools": ["calculator"], "steps": 1}}, lake)
    records = [read_record(Lake(lake), one["grpo"].fingerprint or "") for one in (reports, plain)]
    searching, reckoning = (set(record.inputs) for record in records if record is not None)
    assert searching - reckoning == {"documents", "duplicates"}
