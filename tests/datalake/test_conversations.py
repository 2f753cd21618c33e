"""Dialogues of all formats become messages; others are refused with their reason; docstrings answer."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datalake.document import Conversation, Entry, Passed, Quarantined, Refused
from datalake.sources import docstrings
from datalake.sources.config import Conversations
from datalake.sources.conversations import read, shards

U, A, S, T = "user", "assistant", "system", "tool"


def entries(path: Path | str, **options: object) -> list[Entry]:
    config = Conversations.model_validate({"paths": [str(path)], **options})
    return [entry for shard in shards(config) for entry in read(shard, config)]


def one(tmp_path: Path, row: Any, **options: object) -> Entry:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (entry,) = entries(tmp_path / "rows.jsonl", **options)
    return entry


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, [(U, "Add.\n\n1 2"), (A, "3")]),
        ({"instruction": "Hi", "input": "", "output": "Ho", "system": "Be"}, [(S, "Be"), (U, "Hi"), (A, "Ho")]),
        ({"instruction": "c", "output": "d", "history": [["a", "b"]]}, [(U, "a"), (A, "b"), (U, "c"), (A, "d")]),
        ({"instruction": "x", "instances": [{"input": "y", "output": "z"}]}, [(U, "x\n\ny"), (A, "z")]),
        ({"prompt": "a", "response": "b"}, [(U, "a"), (A, "b")]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, [(U, "a"), (A, "b")]),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
                       {"role": "assistant", "content": "b"}]}, [(S, "s"), (U, "a"), (A, "b")]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "f()"},
                            {"from": "observation", "value": "1"}, {"from": "gpt", "value": "one"}]},
         [(U, "a"), (A, "f()"), (T, "1"), (A, "one")]),
    ],
)  # fmt: skip
def test_every_format_becomes_messages(tmp_path: Path, row: Any, expected: list[tuple[str, str]]) -> None:
    conversation = one(tmp_path, row)
    assert isinstance(conversation, Conversation)
    assert [(message["role"], message["content"]) for message in conversation.messages] == expected


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (turns(U), "unanswered"), (turns(U, A, U), "unanswered"), (turns(A, U), "order"), (turns(U, U, A), "order"),
        (turns(U, A, S), "order"), (turns(S), "empty"), (turns(), "empty"), (turns("wizard", A), "role"),
        (turns(T, A), "order"), ({"instruction": "x", "output": ""}, "empty"), ({"instruction": "x"}, "unanswered"),
        ({"instruction": "x", "output": 5}, "format"), ({"text": "x"}, "format"), ([1], "format"), ("x", "format"),
        ({"instruction": "x", "output": "y", "history": [["a"]]}, "format"), ({"messages": ["x"]}, "format"),
    ],
)  # fmt: skip
def test_what_is_no_dialogue_is_refused_with_its_reason(tmp_path: Path, row: Any, reason: str) -> None:
    refused = one(tmp_path, row)
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert refused.detail


def test_a_named_format_takes_no_other(tmp_path: Path) -> None:
    assert isinstance(one(tmp_path, {"instruction": "a", "output": "b"}, format="sharegpt"), Refused)


def test_malformed_rows_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n{oops\n{"instruction": "c", "output": "d"}\n')
    assert [type(entry) for entry in entries(path)] == [Conversation, Quarantined, Conversation]


def rows_of(path: Path) -> int:
    text = gzip.decompress(path.read_bytes()).decode()
    try:
        whole = json.loads(text)
    except ValueError:
        return sum(bool(line.strip()) for line in text.split("\n"))
    return len(whole) if isinstance(whole, list) else 1


def test_every_row_of_the_real_files_is_accounted_for(samples: Path) -> None:
    for path in sorted((samples / "instruction").glob("*.gz")):
        found = entries(path)
        assert len(found) == rows_of(path), path.name
        assert not any(isinstance(entry, Quarantined) for entry in found), path.name
        kept = sum(isinstance(entry, Conversation) for entry in found)
        if "seed_prompts" in path.name or "dataset_info" in path.name:  # questions without answers; no dialogues
            assert kept == 0, path.name
        else:
            assert kept >= 0.99 * len(found), path.name


def test_docstrings_answer_questions() -> None:
    found = entries(docstrings.PATH)
    conversations = [entry for entry in found if isinstance(entry, Conversation)]
    assert len(conversations) >= 1500
    assert len({conversation.id for conversation in conversations}) == len(conversations)
    assert all(20 <= len(conversation.messages[1]["content"]) <= 400 for conversation in conversations)
    assert {type(entry) for entry in found} <= {Conversation, Refused, Passed}
    by_name = {(c.attributes["name"], c.attributes["topic"]): c for c in conversations}
    dumps = by_name["json.dumps", "purpose"]
    assert dumps.messages[1]["content"] == "Serialize ``obj`` to a JSON formatted ``str``."
    assert "json.dumps" in dumps.messages[0]["content"]
    assert dumps.attributes["group"] == "json"
    parameters = by_name["bisect.insort_right", "parameters"].messages[1]["content"]
    assert parameters == "bisect.insort_right takes 5 parameters: a, x, lo=0, hi=None and key=None."
    first_words = Counter(c.messages[0]["content"].split(" ")[0] for c in conversations)
    assert len(first_words) >= 5  # several ways to ask


def test_docstrings_shards_change_with_the_source_and_hold_each_module_once() -> None:
    found = docstrings.shards("conversations")
    assert found == docstrings.shards("conversations")
    assert len({shard.version for shard in found}) == len(found)
    config = Conversations(paths=[docstrings.PATH])
    modules = [{e.attributes["module"] for e in read(s, config) if isinstance(e, Conversation)} for s in found]
    assert sum(map(len, modules)) == len(set().union(*modules))


def test_dialogues_that_begin_alike_are_held_out_together(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name three colours.", "output": "Red."},
        {"instruction": "name three colours", "output": "Blue."},
        {
            "messages": [
                {"role": r, "content": c} for r, c in ((U, "Name three colours!"), (A, "x"), (U, "y"), (A, "z"))
            ]
        },
        {"instruction": "Name four colours.", "output": "Red."},
        {"instruction": "?!", "output": "What?"},
        {"instruction": "!?", "output": "What?"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    groups = [entry.attributes["group"] for entry in entries(tmp_path / "rows.jsonl")]  # type: ignore[union-attr]
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups)) == 4
