"""Pairs of all formats become prompt, chosen and rejected; what is no pair is refused; docstrings give pairs."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.document import Entry, Passed, Preference, Quarantined, Refused
from datalake.sources.dialogues import docstrings
from datalake.sources.dialogues.config import Preferences
from datalake.sources.dialogues.preferences import archives, read
from datalake.tables import PREFERENCES, to_table

H, B = "\n\nHuman: ", "\n\nAssistant: "
KEYS = st.sampled_from(
    ["chosen", "rejected", "prompt", "instruction", "input", "question", "system", "conversations", "messages", "label",
     "completion", "completions", "response", "score", "overall_score", "history", "human_ref_A", "human_ref_B",
     "labels", "score_ratio", "response_0", "response_1", "better_response_id", "role", "content", "from", "value",
     "id", "license"]
)  # fmt: skip


def entries(path: Path | str, **options: object) -> list[Entry]:
    config = Preferences.model_validate({"paths": [str(path)], **options})
    return [entry for shard in archives(config) for entry in read(shard, config)]


def one(tmp_path: Path, row: Any, **options: object) -> Entry:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (entry,) = entries(tmp_path / "rows.jsonl", **options)
    return entry


ONE = [("user", "a")]
THREE = [("user", "a"), ("assistant", "b"), ("user", "c")]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"chosen": f"{H}a{B}yes", "rejected": f"{H}a{B}no"}, ONE),
        ({"chosen": f"{H}a{B}b{H}c{B}yes", "rejected": f"{H}a{B}b{H}c{B}no"}, THREE),
        ({"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "yes"},
          "rejected": {"from": "gpt", "value": "no"}}, ONE),
        ({"conversations": [{"from": "human", "value": "a"}], "chosen": "yes", "rejected": "no"}, ONE),
        ({"prompt": "a", "chosen": "yes", "rejected": "no"}, ONE),
        ({"instruction": "a", "input": "", "chosen": "yes", "rejected": "no"}, ONE),
        ({"system": "s", "question": "a", "chosen": "yes", "rejected": "no"}, [("system", "s"), *ONE]),
        ({"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}],
          "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no"}]}, ONE),
        ({"prompt": f"{H}a{B}b{H}c{B}", "chosen": "yes", "rejected": "no"}, THREE),
        ({"prompt": "a", "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}],
          "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no"}]}, ONE),
        ({"history": "a", "human_ref_A": "yes", "human_ref_B": "no", "labels": 1, "score_ratio": 3.0}, ONE),
        ({"history": "a", "human_ref_A": "no", "human_ref_B": "yes", "labels": 0, "score_ratio": 3.0}, ONE),
        ({"prompt": "a", "response_0": "no", "response_1": "yes", "better_response_id": 1}, ONE),
        ({"instruction": "a", "completions": [{"response": "no", "overall_score": 2.0},
                                              {"response": "so", "overall_score": 5}, {"response": "?"},
                                              {"response": "yes", "overall_score": 7.5}]}, ONE),
    ],
)  # fmt: skip
def test_every_format_becomes_prompt_and_two_answers(tmp_path: Path, row: Any, prompt: list[tuple[str, str]]) -> None:
    preference = one(tmp_path, row)
    assert isinstance(preference, Preference)
    assert [(message["role"], message["content"]) for message in preference.prompt] == prompt
    assert (preference.chosen, preference.rejected) == ("yes", "no")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "equal"),
        ({"prompt": "a", "chosen": "x", "rejected": " "}, "empty"),
        ({"prompt": "", "chosen": "x", "rejected": "y"}, "empty"),
        ({"chosen": f"{H}a{B}x", "rejected": f"{H}b{B}y"}, "prompt"),
        ({"chosen": f"{H}a{B}x{H}b", "rejected": f"{H}a{B}y"}, "order"),
        ({"chosen": f"{B}x", "rejected": f"{B}y"}, "empty"),
        ({"chosen": "x", "rejected": "y"}, "format"),
        ({"messages": [], "label": True}, "order"),
        ({"other": [], "label": True}, "format"),
        ({"prompt": "a", "chosen": 1, "rejected": "y"}, "format"),
        ({"history": "a", "human_ref_A": "x", "human_ref_B": "y", "labels": 2}, "label"),
        ({"history": "a", "human_ref_A": "x", "human_ref_B": "x", "labels": 1}, "equal"),
        ({"prompt": "a", "response_0": "x", "response_1": "y", "better_response_id": None}, "label"),
        ({"prompt": "a", "completions": [{"response": "x", "overall_score": 1}]}, "label"),
        ({"prompt": "a", "completions": [{"response": "x", "score": 1}, {"response": "y", "score": 1}]}, "equal"),
        ({"prompt": "a", "completion": "x", "label": "good"}, "label"),
        ({"prompt": "a", "completion": "", "label": True}, "empty"),
        ({"prompt": "a", "label": True}, "order"),
        ([1], "format"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_reason(tmp_path: Path, row: Any, reason: str) -> None:
    refused = one(tmp_path, row)
    assert isinstance(refused, Refused)
    assert refused.reason == reason


def test_the_safer_answer_can_be_preferred(tmp_path: Path) -> None:
    row = {"prompt": "a", "response_0": "x", "response_1": "y", "better_response_id": 1, "safer_response_id": 0,
           "is_response_0_safe": True, "is_response_1_safe": False}  # fmt: skip
    better, safer = one(tmp_path, row), one(tmp_path, row, prefer="safer")
    assert isinstance(better, Preference)
    assert isinstance(safer, Preference)
    assert (better.chosen, better.rejected, better.attributes["chosen_safe"]) == ("y", "x", "false")
    assert (safer.chosen, safer.rejected, safer.attributes["chosen_safe"]) == ("x", "y", "true")
    assert safer.attributes["prefer"] == "safer"


def test_pairs_whose_scores_are_near_can_be_refused(tmp_path: Path) -> None:
    row = {"history": "a", "human_ref_A": "x", "human_ref_B": "y", "labels": 1, "score_ratio": 1.9}
    assert isinstance(one(tmp_path, row), Preference)
    refused = one(tmp_path, row, least_ratio=2)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.detail) == ("ratio", "score_ratio 1.9 is below 2.0")
    assert isinstance(one(tmp_path, row | {"score_ratio": 2.0}, least_ratio=2), Preference)


def test_an_answer_judged_alone_has_no_partner(tmp_path: Path) -> None:
    good = one(tmp_path, {"prompt": "a", "completion": "x", "label": True})
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}]
    bad = one(tmp_path, {"messages": messages, "label": False})
    assert isinstance(good, Preference)
    assert isinstance(bad, Preference)
    assert good.prompt == bad.prompt == [{"role": "user", "content": "a"}]
    assert (good.chosen, good.rejected, bad.chosen, bad.rejected) == ("x", None, None, "x")
    table = to_table([good, bad], PREFERENCES)
    assert table.column("chosen").to_pylist() == ["x", None]


REFUSED = {"hh-rlhf-harmless-base-test": {"empty": 4, "order": 4, "prompt": 5}}


def test_every_row_of_the_real_files_is_accounted_for(samples: Path) -> None:
    for path in sorted((samples / "preference").glob("*.gz")):
        text = gzip.decompress(path.read_bytes()).decode()
        rows = json.loads(text) if text.lstrip().startswith("[") else list(map(json.loads, text.strip().split("\n")))
        found = entries(path)
        assert len(found) == len(rows), path.name
        assert not any(isinstance(entry, Quarantined) for entry in found), path.name
        refused = Counter(entry.reason for entry in found if isinstance(entry, Refused))
        assert refused == REFUSED.get(path.name.partition(".")[0], {}), path.name


def test_real_labels_become_the_side_they_name(samples: Path) -> None:
    path = samples / "preference" / "llamafactory-kto_en_demo.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))
    for row, entry in zip(rows, entries(path), strict=True):
        assert isinstance(entry, Preference)
        answer = row["messages"][-1]["content"].strip()
        assert (entry.chosen, entry.rejected) == ((answer, None) if row["label"] else (None, answer))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 2)
    | st.floats()
    | st.sampled_from(["user", "gpt", f"{H}a{B}b", "", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=7) | JSON, max_size=5))
@settings(max_examples=200)
def test_any_rows_give_one_entry_each(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [{}, *rows]))
    found = entries(path)
    assert len(found) == len(rows) + 1
    for entry in found:
        assert isinstance(entry, Preference | Refused)
        if isinstance(entry, Preference):
            assert entry.chosen != entry.rejected
            assert entry.chosen is None or entry.chosen.strip()


def test_real_dialogues_are_split_where_they_part(samples: Path) -> None:
    path = samples / "preference" / "hh-rlhf-harmless-base-test.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for entry in entries(path):
        if isinstance(entry, Preference):
            row = rows[int(entry.uri.rpartition("#")[2])]
            assert row["chosen"].rstrip().endswith(entry.chosen)
            assert row["rejected"].rstrip().endswith(entry.rejected)
            assert entry.prompt[-1]["role"] == "user"


def test_docstrings_give_pairs_with_every_kind_of_damage() -> None:
    found = entries(docstrings.PATH)
    pairs = [entry for entry in found if isinstance(entry, Preference)]
    assert len(pairs) >= 1500
    assert {type(entry) for entry in found} <= {Preference, Refused, Passed}
    assert all(pair.chosen != pair.rejected and pair.rejected for pair in pairs)
    damages = Counter(pair.attributes["damage"] for pair in pairs)
    assert set(docstrings.DAMAGES) <= set(damages)
    assert min(damages[damage] for damage in docstrings.DAMAGES) > 0.15 * len(pairs)
    for pair in pairs:
        if pair.attributes["damage"] in ("shuffled", "reversed"):
            assert sorted(pair.rejected.split()) == sorted(pair.chosen.split())


def test_pairs_about_dialogues_that_begin_alike_are_held_out_together(tmp_path: Path) -> None:
    rows = [
        {"chosen": f"{H}a{B}yes", "rejected": f"{H}a{B}no"},
        {"chosen": f"{H}a{B}b{H}c{B}yes", "rejected": f"{H}a{B}b{H}c{B}no"},
        {"prompt": "c", "chosen": "yes", "rejected": "no"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    groups = [entry.attributes["group"] for entry in entries(tmp_path / "rows.jsonl")]  # type: ignore[union-attr]
    assert groups[0] == groups[1] != groups[2]
