"""Dialogues of all formats become messages; others are refused with their reason; docstrings answer."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.document import Conversation, Entry, Passed, Quarantined, Refused
from datalake.sources.dialogues import docstrings
from datalake.sources.dialogues.config import Conversations
from datalake.sources.dialogues.conversations import archives, read

U, A, S, T = "user", "assistant", "system", "tool"
KEYS = st.sampled_from(
    ["instruction", "input", "output", "system", "history", "instances", "prompt", "response", "messages",
     "conversations", "role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "tools",
     "chat", "data", "inputs", "targets", "message_id", "parent_id", "text", "replies", "rank", "message_tree_id",
     "deleted", "id", "license"]
)  # fmt: skip


def entries(path: Path | str, **options: object) -> list[Entry]:
    config = Conversations.model_validate({"paths": [str(path)], **options})
    return [entry for shard in archives(config) for entry in read(shard, config)]


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
        ({"instruction": "x", "context": "y", "response": "z", "category": "qa"}, [(U, "x\n\ny"), (A, "z")]),
        ({"inputs": "a", "targets": "b", "task": "t"}, [(U, "a"), (A, "b")]),
        ({"inputs": [3, 4], "inputs_pretokenized": "a", "targets": [5], "targets_pretokenized": "b"},
         [(U, "a"), (A, "b")]),
        ({"prompt": "Below is an instruction that says more.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n"
                    "### Response:\n", "response": "3"}, [(U, "Add.\n\n1 2"), (A, "3")]),
        ({"instruction": "Human:a\nAssistant:b\nHuman:c\nAssistant:", "input": "", "output": "d"},
         [(U, "a"), (A, "b"), (U, "c"), (A, "d")]),
        ({"data": ["a", "b", "c", "d"]}, [(U, "a"), (A, "b"), (U, "c"), (A, "d")]),
        ({"messages": [{"role": "developer", "content": "s"},
                       {"role": "user", "content": [{"type": "text", "text": "a"}]},
                       {"role": "assistant", "content": "b"}]}, [(S, "s"), (U, "a"), (A, "b")]),
        ({"messages": [{"role": "user", "content": "a"},
                       {"role": "assistant", "content": None, "tool_calls": [
                           {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                           {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
                       {"role": "tool", "tool_call_id": "1", "content": "p"},
                       {"role": "tool", "tool_call_id": "2", "content": "q"}, {"role": "assistant", "content": "b"}]},
         [(U, "a"), (A, '{"name": "f", "arguments": {"x": 1}}\n{"name": "g", "arguments": {}}'), (T, "p"),
          (T, "q"), (A, "b")]),
        ({"system": "SYSTEM: s",
          "chat": "USER: a\n\n\nASSISTANT: ok <functioncall> {\"name\": \"f\", \"arguments\": '{\"x\": 1}'} "
                  "<|endoftext|>\n\n\nFUNCTION RESPONSE: {\"y\": 2}\n\n\nASSISTANT: b <|endoftext|>"},
         [(S, "s"), (U, "a"), (A, 'ok\n{"name": "f", "arguments": {"x": 1}}'), (T, '{"y": 2}'), (A, "b")]),
        ({"prompt": {"text": "a", "role": "prompter", "replies": [
            {"text": "worse", "role": "assistant", "rank": 1, "replies": []},
            {"text": "best", "role": "assistant", "rank": 0, "replies": [
                {"text": "c", "role": "prompter", "replies": [
                    {"text": "gone", "role": "assistant", "deleted": True}]}]}]}},
         [(U, "a"), (A, "best")]),
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
        (turns(U, T, A), "order"), (turns(U, A, T), "unanswered"), (turns(U, A, T, U), "order"),
        (turns(U, A, A), "order"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "media"),
        ({"prompt": {"text": "a", "role": "prompter", "replies": []}}, "unanswered"), ({"instances": 3}, "format"),
        ({"chat": "hello", "system": ""}, "format"), ({"instruction": "x", "instances": []}, "unanswered"),
    ],
)  # fmt: skip
def test_what_is_no_dialogue_is_refused_with_its_reason(tmp_path: Path, row: Any, reason: str) -> None:
    refused = one(tmp_path, row)
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert refused.detail


def test_every_instance_of_a_task_is_a_record(tmp_path: Path) -> None:
    row = {"id": "t", "instruction": "Add.", "instances": [{"input": "1", "output": "1"}, {"output": ""}, 5]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    first, second, third = entries(tmp_path / "rows.jsonl")
    assert isinstance(first, Conversation)
    assert first.uri == "rows.jsonl#t"
    assert isinstance(second, Refused)
    assert (second.uri, second.reason) == ("rows.jsonl#t/instance 1", "empty")
    assert isinstance(third, Refused)
    assert third.reason == "format"


TREE = [  # id, parent, role, rank: a prompt with two answers, the better of which goes on twice
    ("p", None, "prompter", None), ("a1", "p", "assistant", 1), ("a0", "p", "assistant", 0),
    ("q0", "a0", "prompter", 0), ("b0", "q0", "assistant", 0), ("b1", "q0", "assistant", 1),
    ("q1", "a0", "prompter", 1), ("d", "b0", "prompter", 0),
]  # fmt: skip


def message_rows(tree: str = "t") -> list[dict[str, Any]]:
    keys = ("message_id", "parent_id", "role", "rank")
    return [
        {**dict(zip(keys, node, strict=True)), "text": node[0], "message_tree_id": tree, "lang": "en"} for node in TREE
    ]


def nested(node: str | None = None) -> list[dict[str, Any]]:
    rows = [row for row in message_rows() if row["parent_id"] == node]
    return [{**row, "replies": nested(row["message_id"])} for row in rows]


def spoken(entry: Entry) -> str:
    return " ".join(m["content"] for m in entry.messages) if isinstance(entry, Conversation) else entry.reason  # type: ignore[union-attr]


def test_messages_of_a_tree_become_its_best_way_or_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*message_rows(), *message_rows("u")]))
    best = ["joined", "branch", "joined", "joined", "p a0 q0 b0", "branch", "branch", "branch"]
    found = entries(path)
    assert [spoken(entry) for entry in found] == best * 2
    assert found[0].detail == "in rows.jsonl#b0"  # type: ignore[union-attr]
    assert found[4].attributes["tree"] == "t"  # type: ignore[union-attr]
    every = ["joined", "p a1", "joined", "joined", "p a0 q0 b0", "p a0 q0 b1", "branch", "branch"]
    assert [spoken(entry) for entry in entries(path, paths_of_tree="all")][:8] == every


def test_a_tree_becomes_its_best_way_or_all(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    path.write_text(json.dumps({"message_tree_id": "t", "tree_state": "ready", "prompt": nested()[0]}) + "\n")
    assert [spoken(entry) for entry in entries(path)] == ["p a0 q0 b0"]
    found = entries(path, paths_of_tree="all")
    assert [spoken(entry) for entry in found] == ["p a0 q0 b0", "p a0 q0 b1", "p a1"]
    assert [entry.uri for entry in found] == [f"trees.jsonl#t/{end}" for end in ("b0", "b1", "a1")]  # type: ignore[union-attr]


def test_messages_without_a_way_up_are_refused(tmp_path: Path) -> None:
    rows = message_rows()[:2]
    loop = [{**rows[1], "message_id": a, "parent_id": b} for a, b in (("x", "y"), ("y", "x"), ("z", "nobody"))]
    gone = [{**rows[1], "message_id": "g", "deleted": True}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *loop, *gone]))
    expected = ["joined", "p a1", "orphan", "orphan", "orphan", "deleted"]
    assert [spoken(entry) for entry in entries(tmp_path / "rows.jsonl")] == expected


def test_tools_are_kept_and_can_be_told_to_the_model(tmp_path: Path) -> None:
    tool = {"name": "f", "parameters": {}}
    for offered in ([tool], json.dumps([tool]), tool):
        row = {"system": "s", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
        plain = one(tmp_path, {**row, "tools": offered})
        assert isinstance(plain, Conversation)
        assert json.loads(plain.attributes["tools"]) == [tool]
        assert plain.messages[0] == {"role": "system", "content": "s"}
        told = one(tmp_path, {**row, "tools": offered}, tools="system")
        assert isinstance(told, Conversation)
        assert told.messages[0]["content"] == f"s\n\nTools:\n{json.dumps(tool)}"


def test_what_else_a_row_says_is_kept(tmp_path: Path) -> None:
    row = {
        "instruction": "x",
        "context": "",
        "response": "y",
        "category": "qa",
        "license": "cc-by-sa-3.0",
        "n": {"m": 1},
    }
    found = one(tmp_path, row)
    assert isinstance(found, Conversation)
    assert found.licence == "CC-BY-SA-3.0"
    assert (found.attributes["category"], found.attributes["n.m"], found.attributes["format"]) == ("qa", "1", "dolly")
    assert "response" not in found.attributes


def test_parquet_and_archives_hold_dialogues_too(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.parquet", "in/a.parquet")
        archive.writestr("README.md", "about")
        archive.writestr("in/b.jsonl", json.dumps(rows[0]))
    assert [spoken(entry) for entry in entries(tmp_path / "a.parquet")] == ["a b"]
    found = entries(tmp_path / "a.zip")
    assert [type(entry) for entry in found] == [Conversation, Passed, Conversation]
    assert found[0].uri == "a.zip/in/a.parquet#0"  # type: ignore[union-attr]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["user", "gpt", "{}"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=7) | JSON, max_size=5))
@settings(max_examples=200)
def test_any_rows_give_one_entry_each(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    rows = [
        {key: value for key, value in row.items() if key != "instances"} if isinstance(row, dict) else row
        for row in rows
    ]
    path = tmp_path_factory.mktemp("fuzz") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [{}, *rows]))
    found = entries(path)
    assert len(found) == len(rows) + 1
    assert all(isinstance(entry, Conversation | Refused) for entry in found)


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


# What the real files hold that is no dialogue: where it is an error of the file's own, it was looked up by hand.
REFUSED = {
    "instructionwild-seed_prompts_ch": {"unanswered": 429}, "instructionwild-seed_prompts_en": {"unanswered": 429},
    "llamafactory-dataset_info": {"format": 1}, "llmbox-alpaca_data_1k": {"empty": 1},
    "medicalgpt-sharegpt_zh_1K_format": {"empty": 1, "unanswered": 2},
}  # fmt: skip


def test_every_row_of_the_real_files_is_accounted_for(samples: Path) -> None:
    for path in sorted((samples / "instruction").glob("*.gz")):
        found = entries(path)
        assert len(found) == rows_of(path), path.name
        assert not any(isinstance(entry, Quarantined) for entry in found), path.name
        refused = Counter(entry.reason for entry in found if isinstance(entry, Refused))
        assert refused == REFUSED.get(path.name.partition(".")[0], {}), path.name


def test_real_calls_of_tools_are_in_canonical_json(samples: Path) -> None:
    count = 0
    for name in ("en", "zh"):
        path = samples / "instruction" / f"llamafactory-glaive_toolcall_{name}_demo.json.gz"
        rows = json.loads(gzip.decompress(path.read_bytes()))
        for row, entry in zip(rows, entries(path), strict=True):
            assert isinstance(entry, Conversation)
            assert json.loads(entry.attributes.get("tools", "[]")) == (json.loads(row["tools"]) if row["tools"] else [])
            for turn, message in zip(row["conversations"], entry.messages, strict=True):
                if turn["from"] == "function_call":
                    called = [json.loads(line) for line in message["content"].split("\n")]
                    given = json.loads(turn["value"])
                    assert called == (given if isinstance(given, list) else [given])
                    assert all(list(call) == ["name", "arguments"] for call in called)
                    count += 1
    assert count > 300


def test_the_frame_around_real_prompts_is_gone(samples: Path) -> None:
    for entry in entries(samples / "instruction" / "llmfoundry-dolly_hhrlhf_train_small.jsonl.gz"):
        assert isinstance(entry, Conversation)
        assert "### Response" not in entry.messages[0]["content"]
        assert "Below is an instruction" not in entry.messages[0]["content"]


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
    found = docstrings.archives("conversations")
    assert found == docstrings.archives("conversations")
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
