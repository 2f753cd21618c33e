"""Our scores beside those of EleutherAI's harness, item by item: its tasks over the same rows, its own Transformers
backend over the same checkpoint.

HEADWATER_REAL_MODEL names a model to compare with besides the tiny one: a folder of a causal language model.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml

from models.evaluation import benchmark
from models.evaluation.exam import Settings
from models.evaluation.harness import run
from models.evaluation.judge import judge
from models.network.checkpoint import load
from models.text.tokenizer import load as load_tokenizer

pytest.importorskip("lm_eval", reason="EleutherAI's harness isn't installed: pip install lm_eval")
ITEMS = int(os.environ.get("HEADWATER_HARNESS_ITEMS", "12"))
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
TASKS = {
    "arc_easy": CHOICE | {"doc_to_text": "{{query}}\nAnswer:"},
    "piqa": CHOICE | {"doc_to_text": "{{query}}Answer:"},
    "lambada_openai": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": " {{continuation}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
}


@pytest.fixture(scope="module", params=["tiny", "real"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        if "HEADWATER_REAL_MODEL" not in os.environ:
            pytest.skip("HEADWATER_REAL_MODEL names no model")
        return Path(os.environ["HEADWATER_REAL_MODEL"])
    folder = tmp_path_factory.mktemp("tiny")
    return toys.base(folder / "base", toys.words(folder / "words"), context=1024)


@pytest.fixture(scope="module")
def files(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness's own task files over the samples' rows."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, task in TASKS.items():
        packed = (samples / "eval" / "llmfoundry" / f"{name}.jsonl.gz").read_bytes()
        rows = gzip.decompress(packed).splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_bytes(b"".join(rows[:ITEMS]))
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": f"local_{name}", "test_split": "test"} | data | task)
        )
    return folder


@pytest.fixture(scope="module")
def models(checkpoint: Path) -> tuple[Any, Any, Any]:
    """Our model and tokenizer, and the harness's own."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM

    model, tokenizer = load(checkpoint)
    other = load_tokenizer(checkpoint)
    if checkpoint.name == "base":  # texts of ours begin with <|bos|>, which Transformers has to be told
        begin = ("<|bos|>", other.bos_token_id)
        other.backend_tokenizer.post_processor = TemplateProcessing(single="<|bos|> $A", special_tokens=[begin])
    # In float64: thirty layers in float32 differ by 5e-6 with the rows that are computed together, the harness's from
    # its own as well.
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float64")
    return model.double(), tokenizer, HFLM(pretrained=network, tokenizer=other, batch_size=4)


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_the_harness_s_item_by_item(name: str, models: tuple[Any, Any, Any], files: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model, tokenizer, theirs = models
    task, manager = f"local_{name}", TaskManager(include_path=str(files), include_defaults=False)
    told = simple_evaluate(model=theirs, tasks=[task], task_manager=manager, bootstrap_iters=0)["samples"][task]
    assert len(told) == ITEMS
    for row, sample in zip(judge(model, tokenizer, benchmark.load(name), Settings(limit=ITEMS)), told, strict=True):
        assert str(sample["doc_id"]) == row.item
        likely = [float(nats) for nats, _ in sample["filtered_resps"]]
        assert [v for key, v in row.scores.items() if key.startswith("log_likelihood")] == pytest.approx(
            likely, rel=1e-6
        )
        assert row.figures["accuracy"][0] == float(sample["acc"])
        assert "acc_norm" not in sample or row.figures["accuracy_norm"][0] == float(sample["acc_norm"])


def test_its_tasks_ask_our_checkpoints(tmp_path: Path, files: Path) -> None:
    model, tokenizer = load(toys.base(tmp_path / "base", toys.words(tmp_path / "words"), context=1024))
    told = run(model, tokenizer, [f"local_{name}" for name in TASKS], files, limit=3)["samples"]
    for name in TASKS:
        ours = judge(model, tokenizer, benchmark.load(name), Settings(limit=3))
        for row, sample in zip(ours, told[f"local_{name}"], strict=True):
            likely = [float(nats) for nats, _ in sample["filtered_resps"]]
            assert [v for key, v in row.scores.items() if key.startswith("log_likelihood")] == likely
