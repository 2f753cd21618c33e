"""`headwater export`: a checkpoint or a table with the card that its lineage writes, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Command
from huggingface_hub import DatasetCard, ModelCard
from test_report import EVIL, lake  # noqa: F401  a run made by hand
from world import Whole, rows

from datalake.lake.lake import Lake
from datalake.lake.records import find_manifest, read_record
from flows.lake import Lake as Face
from flows.report.card import bare_card, cell


def head(folder: Path) -> dict[str, Any]:
    """The hub's metadata of a card."""
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])


def test_a_stage_becomes_a_folder_whose_card_says_what_the_lake_says(
    whole: Whole, headwater: Command, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "tiny-ppo"
    ended = headwater("export", "ppo", out, "--gguf", "--lake", whole.lake, "--json")
    assert ended.status == 0, ended.err
    answer = json.loads(ended.out)
    assert answer["stage"] == "ppo"
    assert {"README.md", "config.json", "model.safetensors", "tiny-ppo.gguf", "Modelfile"} <= set(answer["files"])
    again = AutoTokenizer.from_pretrained(out)
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size >= len(again)
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    manifest = find_manifest(Lake(whole.lake))
    record = read_record(Lake(whole.lake), whole.reports["ppo"].fingerprint or "")
    assert record is not None
    assert manifest.run in card.text
    assert record.fingerprint[:16] in card.text
    # Every source that trains, with the rows that the lake counts.
    trains = rows(
        whole.lake,
        "SELECT m.source, d.licence, m.language, count(*) FROM tiny.mixture m JOIN tiny.documents d USING (id) "
        "WHERE m.split = 'train' GROUP BY ALL",
    )
    assert trains
    for source, licence, language, count in trains:
        assert f"| documents | {cell(source)} | {cell(licence)} | {language} | {count} | " in card.text
        assert source in card.data.datasets
    dropped = rows(whole.lake, "SELECT rule, count(*) FROM tiny.ledger WHERE verdict = 'rejected' GROUP BY ALL")
    assert dropped
    for rule, count in dropped:
        assert f"| {cell(rule)} | {count} | " in card.text
    results = {(row["task"], row["metric"]): row for row in evaluated(whole) if row["checkpoint"] == "ppo"}
    told = card.data.eval_results or []
    assert {(one.dataset_name, one.metric_type) for one in told} == set(results)
    for (task, metric), row in results.items():
        assert f"| {cell(task)} | {cell(metric)} | {row['value']:.4g} | " in card.text
    for stage in ("pretrain", "sft", "reward", "ppo"):
        assert f"### {stage}\n" in card.text
    assert "### dpo" not in card.text  # no ancestor of it
    assert "Energy was not measured" in card.text
    assert "not searched for evaluation sets" in card.text
    # There already: said in one line, and left alone; a folder outside any lake is exported with a card that says so.
    before = (out / "README.md").read_bytes()
    again_ended = headwater("export", "sft", out, "--lake", whole.lake)
    assert again_ended.status == 2
    assert again_ended.err.count("\n") == 1
    assert "--force" in again_ended.err
    assert (out / "README.md").read_bytes() == before
    ended = headwater("export", "sft", out, "--lake", whole.lake, "--force", "--license", "apache-2.0")
    assert ended.status == 0, ended.err
    assert not (out / "tiny-ppo.gguf").exists()
    assert head(out)["license"] == "apache-2.0"
    assert "| preferences |" not in (out / "README.md").read_text()  # which no ancestor of sft read
    ended = headwater("export", out, tmp_path / "copy", "--lake", tmp_path / "no lake")
    assert ended.status == 0, ended.err
    assert "belongs to no lake" in ended.err
    assert "**Not known here**" in (tmp_path / "copy" / "README.md").read_text()


def evaluated(whole: Whole) -> list[dict[str, Any]]:
    record = read_record(Lake(whole.lake), whole.reports["evaluate"].fingerprint or "")
    assert record is not None
    return record.report["results"]


def test_a_table_is_read_by_datasets(whole: Whole, headwater: Command, tmp_path: Path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    ended = headwater("export", "tiny.documents", tmp_path / "documents", "--lake", whole.lake, "--json")
    assert ended.status == 0, ended.err
    kept = rows(whole.lake, "SELECT id, text, uri FROM tiny.documents ORDER BY id")
    read = datasets.load_dataset(str(tmp_path / "documents"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted((row["id"], row["text"], row["uri"]) for row in read) == kept
    assert json.loads(ended.out)["rows"] == len(kept)
    card = DatasetCard.load(tmp_path / "documents" / "README.md")
    assert card.data.size_categories == "n<1K"
    assert "en" in card.data.language
    for source, count in rows(whole.lake, "SELECT source, count(*) FROM tiny.documents GROUP BY ALL"):
        told = [line for line in card.text.splitlines() if line.startswith(f"| {cell(source)} | ")]
        assert sum(int(line.split("|")[4].replace(",", "")) for line in told) == count
    sql = "SELECT source, sum(length(text)) AS characters FROM tiny.documents GROUP BY ALL ORDER BY ALL"
    ended = headwater("export", sql, tmp_path / "sums", "--lake", whole.lake)
    assert ended.status == 0, ended.err
    read = datasets.load_dataset(str(tmp_path / "sums"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [(row["source"], row["characters"]) for row in read] == rows(whole.lake, sql)
    assert f"    {sql}" in (tmp_path / "sums" / "README.md").read_text()


def test_bad_inputs_are_one_line_and_leave_nothing(lake: Lake, headwater: Command, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "empty").mkdir()
    for arguments, why in (
        (["toy.nothing", "out"], "nothing wrote a table nothing"),
        (["SELECT x FROM toy.documents", "out"], "the query failed"),
        (["toy.documents", "out", "--gguf"], "are for checkpoints"),
        (["toy.documents", "out", "--run", "1999"], "no finished run 1999"),
        (["sft", "out", "--type", "int3", "--gguf"], "float32, float16, bfloat16"),
        (["sft", "out", "--run", "1999"], "no finished run 1999"),
        (["empty", "out"], "not a checkpoint"),
    ):
        ended = headwater("export", *arguments, "--lake", lake.root)
        assert ended.status == 2, arguments
        assert why in ended.err
        assert ended.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_what_documents_say_is_no_markup_of_the_card(lake: Lake, tmp_path: Path) -> None:  # noqa: F811
    sql = f"SELECT id, '{EVIL}' AS source, 'a|b' AS licence, '[x](y)' AS language FROM toy.documents"
    Face(lake.root).export_table(sql, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    body = card.split("## Sources")[1].split("## Filters")[0]
    assert "\\<script\\>" in body
    assert "a\\|b" in body
    assert "\\[x\\](y)" in body
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["license_name"]) == ("other", "a|b")
    assert bare_card("a\n# b").count("\n# ") == 1


def test_a_full_disk_leaves_nothing(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from datalake.errors import UserError

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(UserError, match=r"can't be written \(No space left on device\)"):
        Face(lake.root).export_table("toy.documents", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
