"""What training was given and couldn't use is named: in the stage's note, in a table; and each step's rows are told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import world
from world import Whole

from datalake.document import Conversation, Preference
from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.ledger import query
from datalake.lake.records import read_record
from datalake.lake.shards import ShardWriter
from datalake.tables import CONVERSATIONS, PREFERENCES, to_table
from models.methods.ppo import PpoConfig
from models.methods.pretrain import PretrainConfig
from models.methods.reward import RewardConfig
from models.methods.sft import SftConfig
from models.text.packing import EQUAL, NO_ANSWER, TOO_LONG
from tasks.dialogues import HoldOut
from tasks.learning import learning, rows_of_step
from tasks.log import RunLog
from tasks.runtime import Runtime, RuntimeConfig
from tasks.tracked import RUN_LOG, tracked

sft, reward, ppo = map(learning, ("sft", "reward", "ppo"))
SHORT = {"batch": 4, "steps": 2, "eval_every": 0, "context": 20}


def told(number: int, question: str, answer: str) -> Conversation:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(bytes([number] * 16), "s", f"u{number}", messages)


def preferred(number: int, question: str, chosen: str, rejected: str) -> Preference:
    return Preference(
        bytes([number] * 16), "s", f"u{number}", [{"role": "user", "content": question}], chosen, rejected
    )


def table(lake: Lake, name: str, schema: Any, rows: list[Any]) -> TableRef:
    with ShardWriter(lake.shard_folder(name, name), name, name, {name: schema}) as out:
        out.write(name, to_table(rows, schema))
    return lake.commit(f"small.{name}", schema, out.result.files, name)


def test_dialogues_pairs_and_prompts_left_out_are_named_and_said(whole: Whole, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    shutil.copytree(world.folder_of(whole.lake, whole.reports["pretrain"], "pretrain"), lake.root / "base")
    base = FolderRef(name="pretrain", path="base", fingerprint="b" * 64, data_version="b" * 64)
    long = "77777 " * 40
    talks = [told(1, "1", "2"), told(2, long, "2"), told(3, "3", long), told(4, "4", "5")]
    talks.append(Conversation(bytes([5] * 16), "s", "u5", [{"role": "user", "content": "5"}]))
    pairs = [preferred(1, "1", "2", "3"), preferred(2, "2", "4", "4"), preferred(3, long, "5", "6")]
    pairs.append(preferred(4, "4", long, long + "8"))
    conversations = table(lake, "conversations", CONVERSATIONS, talks)
    preferences = table(lake, "preferences", PREFERENCES, pairs)
    runtime = Runtime(RuntimeConfig(workers=1, cluster="inline", retries=0), lake.root, "small", "run-1")
    everything = HoldOut(seed=0, share=0.0)
    log = RunLog("run-1")
    token = RUN_LOG.set(log)
    try:
        given: dict[str, Any] = {"base": base, "holdout": everything}
        tuned = tracked(sft, SftConfig(**SHORT), runtime, conversations=conversations, **given)
        judge = tracked(reward, RewardConfig(**SHORT), runtime, preferences=preferences, **given)
        tracked(
            ppo,
            PpoConfig(batch=5, steps=1, new_tokens=6, epochs=1, minibatches=1),
            runtime,
            policy=tuned.model,
            reward_model=judge.model,
            conversations=conversations,
            holdout=everything,
        )
        tracked(sft, SftConfig(**SHORT), runtime, conversations=conversations, **given)
    finally:
        RUN_LOG.reset(token)
    notes = [report.note for report in log.reports]
    assert notes[0] == (
        f"warning: 1 of 5 dialogues left out (1 {NO_ANSWER}), by length 1 up to 4 tokens, "
        "2 of 5 dialogues cut to fit the context"
    )
    assert notes[1].startswith(
        f"warning: 2 of 4 pairs left out (1 {EQUAL}; 1 {TOO_LONG}), by length 1 up to 1 tokens, 1"
    )
    assert notes[1].endswith("tokens, 1 of 4 pairs cut to fit the context")
    assert notes[2] == "1 of 5 prompts cut to fit the context"
    assert (log.reports[3].state, log.reports[3].note) == ("cached", notes[0])

    _, rows = query(lake, "SELECT stage, id, reason, tokens, room FROM runs.left_out ORDER BY stage, id")
    assert [(stage, id[0], reason) for stage, id, reason, *_ in rows] == [
        ("reward", 2, EQUAL),
        ("reward", 4, TOO_LONG),
        ("sft", 5, NO_ANSWER),
    ]
    assert all(tokens > room for _, _, reason, tokens, room in rows if reason == TOO_LONG)
    assert {room for stage, *_, room in rows if stage == "sft"} == {20}

    records = [read_record(lake, str(report.fingerprint)) for report in log.reports[:3]]
    for record, steps, ids in zip(records, (2, 2, 1), ({1, 2, 3, 4}, {1, 3}, {1, 2, 3, 4, 5}), strict=True):
        assert record is not None
        for step in range(1, steps + 1):
            _, seen = rows_of_step(lake, record, step)
            assert {row["id"][0] for row in seen} == ids
        for step in (0, steps + 1):
            with pytest.raises(UserError, match=f"1 to {steps}"):
                rows_of_step(lake, record, step)


def test_a_step_of_every_stage_is_told_by_its_record(whole: Whole) -> None:
    lake = Lake(whole.lake)
    settings = {"pretrain": PretrainConfig, "sft": SftConfig, "reward": RewardConfig, "ppo": PpoConfig}
    for stage, kind in settings.items():
        record = read_record(lake, str(whole.reports[stage].fingerprint))
        assert record is not None
        config = kind.model_validate(record.payload["config"])
        [(first, last)] = world.rows(
            whole.lake, f"SELECT min(step), max(step) FROM runs.metrics WHERE stage = '{stage}'"
        )
        assert first == 1
        for step in (first, last):
            (table,), seen = rows_of_step(lake, record, step)
            known = {id for (id,) in world.rows(whole.lake, f"SELECT id FROM tiny.{table}")}
            assert {row["id"] for row in seen} <= known
            assert len(seen) == config.batch or stage == "pretrain"
            assert all(row["tokens"] > 0 for row in seen)
        with pytest.raises(UserError, match="another version"):
            rows_of_step(lake, record.model_copy(update={"version": "0"}), 1)
    mixture = read_record(lake, str(whole.reports["mixture"].fingerprint))
    assert mixture is not None
    with pytest.raises(UserError, match="has no steps"):
        rows_of_step(lake, mixture, 1)
