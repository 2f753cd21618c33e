"""Which stage feeds which, which stages a recipe doesn't run, and why it says not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import StageReport
from flows.pipeline import pipeline
from flows.recipe import validate
from flows.run import Run
from flows.stages import STAGES
from tasks.outputs import Missing, given, maybe
from tasks.stage import Stage, refs_of

TABLE = {"kind": "table", "paths": ["in.jsonl"]}
ALL = [TABLE, {"kind": "conversations", "paths": ["c"]}, {"kind": "preferences", "paths": ["p"]}]
WRITER = {"endpoint": {"url": "http://host/v1", "model": "m"}}
WRITTEN: dict[str, Any] = {
    "instruct": {"writer": WRITER},
    "feedback": {"writer": WRITER},
    "grpo": {},
}  # null unless asked for
EVERYTHING: dict[str, Any] = {
    "corpus": "small",
    "sources": ALL,
    "quality": {"paths": {"paths": ["labels.jsonl"], "version": "0"}, "good": "hq"},
    "thresholds": {},
    "dpo": {},
    "kto": {},
}


class Drawn(Run):
    """A run that does nothing: each stage's inputs are noted, its outputs are references that name it."""

    def __init__(self, until: Any = None, **sections: Any):
        super().__init__(validate(EVERYTHING | sections, "small.yaml"), Lake("nowhere"), until)
        self.skipped: dict[str, str] = {}
        self.edges: dict[str, set[str]] = {}
        pipeline(self)

    def archives(self, sources: Sequence[Any]) -> list[Any]:
        return []

    def do(self, stage: Stage[Any, Any, Any], config: Any, inputs: Mapping[str, Any]) -> Any:
        self.edges[stage.name] = {f"{ref.fingerprint}.{ref.data_version}" for ref in refs_of(inputs)}

        def made(name: str) -> Any:
            return TableRef.model_construct(
                table="t.t", snapshot=None, fingerprint=stage.name, data_version=name, rows=1
            )

        return stage.typed(config, made)

    def report(self, report: StageReport) -> None:
        assert (report.state, report.seconds) == ("skipped", 0.0)
        self.skipped[report.stage] = report.note


def skipped(until: str | None = None, **sections: Any) -> dict[str, str]:
    skipped = Drawn(until, **sections).skipped
    return {stage: why for stage, why in skipped.items() if stage in sections or "is null" not in why}


def test_every_stage_takes_what_it_needs_from_those_before_it() -> None:
    run = Drawn(**WRITTEN)
    assert run.skipped == {}
    assert list(run.edges) == list(STAGES)
    assert run.edges == {
        "ingest": set(),
        "quality": set(),
        "curate": {"ingest.raw", "quality.quality"},
        "thresholds": {"curate.curation"},
        "deduplicate": {"curate.documents"},
        "mixture": {"curate.documents", "deduplicate.duplicates"},
        "tokenizer": {"curate.documents", "mixture.mixture"},
        "tokenize": {"curate.documents", "mixture.mixture", "tokenizer.tokenizer"},
        "pretrain": {"mixture.mixture", "tokenize.tokens", "tokenizer.tokenizer"},
        "instruct": {"ingest.conversations"},
        "sft": {"ingest.conversations", "instruct.instructions", "pretrain.pretrain"},
        "feedback": {"ingest.conversations", "instruct.instructions"},
        "dpo": {"ingest.preferences", "feedback.feedback", "sft.sft"},
        "kto": {"ingest.preferences", "feedback.feedback", "sft.sft"},
        "reward": {"ingest.preferences", "feedback.feedback", "sft.sft"},
        "ppo": {"ingest.conversations", "sft.sft", "reward.reward"},
        "grpo": {"ingest.conversations", "sft.sft", "reward.reward"},
        "evaluate": {
            "ingest.conversations",
            "ingest.preferences",
            "mixture.mixture",
            "tokenize.tokens",
            "pretrain.pretrain",
            "sft.sft",
            "dpo.dpo",
            "kto.kto",
            "reward.reward",
            "ppo.ppo",
            "grpo.grpo",
        },
    }


def test_what_is_cut_and_what_decides_are_taken_where_a_recipe_asks_for_them() -> None:
    run = Drawn(deduplicate={"precedence": ["quality"], "lines": {}})
    assert run.edges["deduplicate"] == {"curate.documents", "curate.curation"}
    assert all("deduplicate.spans" in run.edges[stage] for stage in ("mixture", "tokenizer", "tokenize"))


def test_a_recipe_runs_as_far_as_its_sources_allow_and_says_why_not_further() -> None:
    assert skipped(sources=[TABLE]) == {
        "sft": "no source of conversations",
        "dpo": "no source of preferences",
        "kto": "no source of preferences",
        "reward": "no source of preferences",
        "ppo": "it needs reward",
    }
    only_dialogues = skipped(sources=ALL[1:])
    assert list(only_dialogues) == [stage for stage in STAGES[1:] if stage not in WRITTEN]
    before_models = STAGES[1 : STAGES.index("instruct")]
    assert {only_dialogues[stage] for stage in before_models} == {"no source of documents"}
    assert only_dialogues["sft"] == "it needs pretrain"
    assert only_dialogues["evaluate"] == "it needs pretrain"


def test_a_section_set_to_null_is_skipped_with_what_needs_it() -> None:
    assert skipped(pretrain=None) == {
        "pretrain": "`pretrain` is null in the recipe",
        "sft": "it needs pretrain",
        "dpo": "it needs sft",
        "kto": "it needs sft",
        "reward": "it needs sft",
        "ppo": "it needs reward",
        "evaluate": "it needs pretrain",
    }
    assert skipped(reward=None) == {"reward": "`reward` is null in the recipe", "ppo": "it needs reward"}
    for stage in ("quality", "thresholds", "ppo", "evaluate"):
        assert skipped(**{stage: None}) == {stage: f"`{stage}` is null in the recipe"}


def test_an_open_model_needs_no_documents_and_is_gone_on_from_where_there_are_some(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    base = str(tmp_path / "model.gguf")
    for pretrain in ({}, {"pretrain": None}):
        tuned = Drawn(base=base, sources=ALL[1:], **pretrain)
        assert {stage: tuned.edges[stage] for stage in ("base", "sft", "reward", "ppo")} == {
            "base": set(),
            "sft": {"ingest.conversations", "base.base"},
            "reward": {"ingest.preferences", "sft.sft"},
            "ppo": {"ingest.conversations", "sft.sft", "reward.reward"},
        }
        assert "base.base" in tuned.edges["evaluate"]
    judged = Drawn(base=base, sources=ALL[1:], sft=None)
    assert judged.edges["reward"] == {"ingest.preferences", "base.base"}
    assert judged.edges["ppo"] == {"ingest.conversations", "base.base", "reward.reward"}
    grown = Drawn(base=base)
    assert "base.base" in grown.edges["tokenizer"] & grown.edges["pretrain"]
    assert grown.edges["sft"] == {"ingest.conversations", "pretrain.pretrain"}


def test_until_skips_what_comes_after_it() -> None:
    for place, stage in enumerate(STAGES):
        assert skipped(stage, **WRITTEN) == dict.fromkeys(STAGES[place + 1 :], f"after --until {stage}")
    assert skipped("sft", sft=None)["reward"] == "after --until sft"
    with pytest.raises(ValueError, match="no stage 'nothing'"):
        Drawn("nothing")


def test_what_is_missing_stays_missing_and_what_may_be_is_none() -> None:
    reason, folder = Missing("no source of documents"), FolderRef.model_construct(path=Path("x"))
    assert maybe(reason) is None
    assert maybe(folder) is folder
    assert given(reason, 1) is reason
    assert given(folder, 1) == 1


def test_what_a_model_writes_needs_the_run_s_own_where_that_is_asked_to() -> None:
    own: dict[str, Any] = {"instruct": {"writer": {"model": "base"}}, "feedback": {"writer": {"model": "sft"}}}
    run = Drawn(**own)
    assert run.edges["instruct"] == {"ingest.conversations", "pretrain.pretrain"}
    assert run.edges["feedback"] == {"ingest.conversations", "instruct.instructions", "sft.sft"}
    assert skipped(sft=None, **own)["feedback"] == "it needs sft"
    seeded = Drawn(sources=[TABLE], **WRITTEN)
    assert seeded.edges["sft"] == {"instruct.instructions", "pretrain.pretrain"}
    assert seeded.edges["dpo"] == {"feedback.feedback", "sft.sft"}
