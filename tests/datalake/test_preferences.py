"""Pairs of all formats become prompt, chosen and rejected; what is no pair is refused; docstrings give pairs."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datalake.document import Entry, Passed, Preference, Quarantined, Refused
from datalake.sources import docstrings
from datalake.sources.config import Preferences
from datalake.sources.preferences import read, shards

H, B = "\n\nHuman: ", "\n\nAssistant: "


def entries(path: Path | str, **options: object) -> list[Entry]:
    config = Preferences.model_validate({"paths": [str(path)], **options})
    return [entry for shard in shards(config) for entry in read(shard, config)]


def one(tmp_path: Path, row: Any) -> Entry:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (entry,) = entries(tmp_path / "rows.jsonl")
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
        ([1], "format"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_reason(tmp_path: Path, row: Any, reason: str) -> None:
    refused = one(tmp_path, row)
    assert isinstance(refused, Refused)
    assert refused.reason == reason


def test_every_row_of_the_real_files_is_accounted_for(samples: Path) -> None:
    for path in sorted((samples / "preference").glob("*.gz")):
        text = gzip.decompress(path.read_bytes()).decode()
        rows = json.loads(text) if text.lstrip().startswith("[") else list(map(json.loads, text.strip().split("\n")))
        found = entries(path)
        assert len(found) == len(rows), path.name
        kept = sum(isinstance(entry, Preference) for entry in found)
        assert not any(isinstance(entry, Quarantined) for entry in found), path.name
        assert kept >= 0.99 * len(rows), path.name


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
