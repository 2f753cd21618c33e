"""A user's own metrics: functions of a file or a package, a column each, known by what they say."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from test_curate_curate import document, prose

from datalake.curate import again, curate
from datalake.curate.again import Stored, curate_again
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch, curate_file
from datalake.curate.metrics.user import Meter, cost, counts_of, names
from datalake.curate.rules import EMPTY
from datalake.curate.schema import CURATION, schema_with
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.lake.shards import ShardWriter
from datalake.tables import DOCUMENTS, RAW, to_table

FILE = """
def vowels(text: str, language: str) -> float:
    return sum(c in "aeiou" for c in text) / len(text) if text else None

def in_english(text, language):
    return 1 if language == "en" else float("nan")

def fails(text, language):
    if len(text) > 20:
        raise LookupError("too\\nlong")
    return "1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


@pytest.fixture
def raw() -> pa.Table:
    rng = random.Random(1)
    texts = [prose(rng) for _ in range(4)] + ["Too short.", "", "same line of the text again\n" * 40]
    return to_table([*map(document, texts), document("Une page française.", "fr")], RAW)


def config(*metrics: str, **more: object) -> CurateConfig:
    return CurateConfig.model_validate({"metrics": metrics, **more})


def test_a_function_is_a_column_of_its_name_for_every_document(file: Path, raw: pa.Table) -> None:
    chosen = config(f"{file}:vowels", f"{file}:in_english", preset="c4")
    table, documents = curate_batch(raw, chosen)
    assert table.schema == schema_with(["in_english", "vowels"])
    assert table.schema.names[len(CURATION) :] == ["in_english", "vowels"] == names(chosen)
    for text, value in zip(raw["text"].to_pylist(), table["vowels"].to_pylist(), strict=True):
        text = text.strip("\n")  # as it is measured, repaired
        assert value == (sum(map(text.count, "aeiou")) / len(text) if text else None)
    assert table["in_english"].to_pylist() == [1.0] * 7 + [None]
    without, same = curate_batch(raw, config(preset="c4"))
    assert table.select(CURATION.names) == without
    assert documents == same


def test_a_function_is_known_by_what_its_file_says_and_not_by_where_it_lies(file: Path, tmp_path: Path) -> None:
    print_ = fingerprint(config(f"{file}:vowels"))
    moved = shutil.copytree(file.parent, tmp_path / "elsewhere") / file.name
    assert fingerprint(config(f"{moved}:vowels")) == print_
    moved.write_text(FILE.replace("aeiou", "aeiouy"))
    assert fingerprint(config(f"{moved}:vowels")) != print_
    assert fingerprint(config()) not in (print_, fingerprint(config(f"{file}:fails")))


def test_workers_need_not_see_the_file(file: Path) -> None:
    chosen = CurateConfig.model_validate_json(config(f"{file}:vowels").model_dump_json())
    file.unlink()
    assert Meter(chosen)(["aeb"], ["en"]) == {"vowels": [2 / 3]}


def test_a_function_of_an_installed_package_is_known_by_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "headwater_toy_metrics"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = config("headwater_toy_metrics.inner:vowels")
    assert Meter(chosen)(["aeb"], ["en"]) == {"vowels": [2 / 3]}
    (package / "inner.py").write_text(FILE.replace("aeiou", "aeiouy"))
    assert fingerprint(config("headwater_toy_metrics.inner:vowels")) != fingerprint(chosen)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{folder}/other.py:vowels", "there is no file"),
        ("{folder}/mine.py:consonants", "there is no function 'consonants' in it"),
        ("{folder}/mine.py", "is no FILE:function nor package.module:function"),
        ("{folder}/mine.py:no-name", "'no-name' is no name of a function"),
        ("{folder}/taken.py:words", "'words' is a metric or column already"),
        ("{folder}/taken.py:Uri", "'Uri' is a metric or column already"),
        ("{folder}/taken.py:cut_by", "'cut_by' is a metric or column already"),
        ("{folder}/broken.py:f", "the file is no Python"),
        ("no_such_package.metrics:f", "there is no module 'no_such_package.metrics' installed here"),
        ("json:no_such_function", "there is no function 'no_such_function' in it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_when_the_recipe_is_read(file: Path, entry: str, message: str) -> None:
    (file.parent / "taken.py").write_text("def words(t, l): ...\ndef Uri(t, l): ...\ndef cut_by(t, l): ...\n")
    (file.parent / "broken.py").write_text("def f(:\n")
    with pytest.raises(ValidationError, match=message) as caught:
        config(entry.format(folder=file.parent))
    (error,) = caught.value.errors()
    assert "\n" not in error["msg"]
    assert "curate.metrics" in error["msg"]


def test_two_of_one_name_are_refused(file: Path) -> None:
    shutil.copy(file, file.with_name("again.py"))
    with pytest.raises(ValidationError, match="there are two metrics called 'vowels'"):
        config(f"{file}:vowels", f"{file.with_name('again.py')}:vowels")


def test_what_cannot_be_loaded_is_a_users_error(file: Path) -> None:
    file.write_text("import no_such_package\nfrom no_such_package import metric\n")
    with pytest.raises(UserError, match=r"metric can't be loaded \(ModuleNotFoundError: No module named"):
        Meter(config(f"{file}:metric"))
    file.write_text("metric = 3\n")
    with pytest.raises(UserError, match="metric is no function"):
        Meter(config(f"{file}:metric"))


def test_a_failure_costs_its_document_the_value_and_is_said_once(file: Path) -> None:
    meter = Meter(config(f"{file}:fails", f"{file}:in_english"))
    assert meter(["x" * 21, "y" * 21, "short"], ["en"] * 3)["fails"] == [None] * 3
    meter(["x" * 21], ["en"])
    said = cost("fails", meter.counts)
    assert (said.documents, said.failed) == (4, 4)
    assert said.warning == "fails FAILED ON ALL 4 DOCUMENTS, its column is empty (LookupError: too)"
    fine = cost("in_english", meter.counts)
    assert (fine.documents, fine.failed, fine.warning) == (4, 0, "")
    assert str(fine).startswith("in_english: ")
    assert str(fine).endswith(" µs a document")
    assert counts_of(["fails"], meter.counts).keys() < meter.counts.keys()


def shard(folder: Path, raw: Path, chosen: CurateConfig) -> Stored:
    """A shard as the stage leaves it."""
    meter = Meter(chosen)
    with ShardWriter(folder, "s", "k", {"curation": schema_with(names(chosen)), "documents": DOCUMENTS}) as out:
        for decisions, documents in curate_file(raw, chosen, None, meter):
            out.write("curation", decisions)
            out.write("documents", documents)
    return Stored(folder / "curation.parquet", folder / "documents.parquet", {}, frozenset())


@pytest.fixture
def uncalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many documents the built-in kernels measured."""
    measured: list[int] = []
    real = curate.measure_array

    def counting(*arguments: object) -> object:
        measured.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(curate, "measure_array", counting)
    return measured


def test_a_new_metric_is_computed_alone_and_gives_what_all_anew_would(
    file: Path, raw: pa.Table, tmp_path: Path, uncalled: list[int]
) -> None:
    pq.write_table(raw, tmp_path / "raw.parquet", row_group_size=3)
    file.write_text(FILE + "\ncalls = []\ndef counted(text, language):\n    calls.append(1)\n    return len(calls)\n")
    before = config(f"{file}:vowels", preset="fineweb")
    stored = shard(tmp_path / "before", tmp_path / "raw.parquet", before)._replace(own=frozenset(["vowels"]))
    assert len(uncalled) == raw.num_rows
    uncalled.clear()
    after = config(f"{file}:vowels", f"{file}:in_english", preset="fineweb")
    meter = Meter(after, but=stored.own)
    parts = list(curate_again(tmp_path / "raw.parquet", stored, after, None, meter))
    assert uncalled == []
    assert counts_of(["vowels"], meter.counts) == {}  # the old function wasn't called
    assert cost("in_english", meter.counts).documents == raw.num_rows
    for got, want in zip(parts, curate_file(tmp_path / "raw.parquet", after), strict=True):
        assert got == want


@pytest.mark.parametrize("back", [False, True])
def test_changed_verdicts_measure_only_what_is_kept_now_and_was_not(
    file: Path, raw: pa.Table, tmp_path: Path, uncalled: list[int], back: bool
) -> None:
    pq.write_table(raw, tmp_path / "raw.parquet", row_group_size=3)
    configs = [
        config(f"{file}:vowels", preset="c4"),
        config(f"{file}:vowels", preset="c4", thresholds={"min_sentences": 100}, languages=["de"]),
    ]
    before, after = reversed(configs) if back else configs
    stored = shard(tmp_path / "before", tmp_path / "raw.parquet", before)._replace(own=frozenset(["vowels"]))
    uncalled.clear()
    parts = list(curate_again(tmp_path / "raw.parquet", stored, after, None, Meter(after, but=stored.own)))
    measured = len(uncalled)
    whole = list(curate_file(tmp_path / "raw.parquet", after))
    assert parts == whole
    judged = [rules for decisions, _ in whole for rules in decisions["rules"].to_pylist()]
    before_that = pq.read_table(stored.curation)["rules"].to_pylist()
    pass_now = [not rules or rules == [EMPTY] for rules in judged]
    passed = [not rules or rules == [EMPTY] for rules in before_that]
    newly = sum(now and not then for now, then in zip(pass_now, passed, strict=True))
    assert measured == newly
    assert bool(newly) == back


def test_stored_shards_are_taken_only_whole(file: Path, raw: pa.Table, tmp_path: Path) -> None:
    lake, chosen = tmp_path / "lake", config(f"{file}:vowels", preset="c4")
    with ShardWriter(lake / "shards/ingest/aa/a", "raw", "a", {"raw": RAW}) as out:
        out.write("raw", raw)
    made = Path(out.result.files[0].path)
    known = again.Measured(lake, "stage 1", chosen)
    assert known.find(made) is None
    folder = lake / "shards/curate/bb/b"
    with ShardWriter(folder, "raw", "b", {"curation": schema_with(["vowels"]), "documents": DOCUMENTS}) as written:
        for decisions, documents in curate_file(made, chosen):
            written.write("curation", decisions)
            written.write("documents", documents)
    known.remember(made, written.result, folder)
    found = known.find(made)
    assert found is not None
    assert (found.curation, found.own) == (folder / "curation.parquet", {"vowels"})
    file.write_text(FILE.replace("aeiou", "aeiouy"))
    other = again.Measured(lake, "stage 1", config(f"{file}:vowels", preset="c4", thresholds={"min_sentences": 9}))
    changed = other.find(made)
    assert changed is not None
    assert changed.own == set()
    for stage, different in (("stage 2", chosen), ("stage 1", config(preset="fineweb"))):
        assert again.Measured(lake, stage, different).find(made) is None
    data = bytearray((folder / "curation.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "curation.parquet").write_bytes(bytes(data))
    assert known.find(made) is None
