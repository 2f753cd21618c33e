"""Repeated lines and runs of words over ranges of hashes: the file that one process writes, byte for byte."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges import repeats
from datalake.dedup.runs import Runs
from datalake.dedup.schema import DUPLICATES
from datalake.dedup.spans import decide as spans_module
from datalake.dedup.spans.decide import MarkedShard
from datalake.dedup.spans.marks import mark
from datalake.dedup.spans_config import LinesConfig, SubstringsConfig
from datalake.document import Document, document_id
from datalake.files import file_digest
from datalake.lake import shards as shards_module
from datalake.lake.shards import ShardResult
from datalake.tables import DOCUMENTS, to_table
from tasks import ranges as ranges_module
from tasks.deduplicate import _cut
from tasks.ranges import cut_over_ranges
from tasks.runtime import Runtime, RuntimeConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])

RuntimeOf = Callable[..., Runtime]
LINES = LinesConfig(minimum=2, normalise="c4")
RUNS = SubstringsConfig(minimum=5, limit=3)
CONFIGS = [
    DedupConfig(lines=LINES),
    DedupConfig(lines=LinesConfig(minimum=3, unit="paragraph", keep="none", copies=3), sources=("two", "one")),
    DedupConfig(substrings=RUNS),
    DedupConfig(lines=LINES, substrings=RUNS, precedence=("quality", "length", "source")),
    DedupConfig(lines=LINES, substrings=RUNS, precedence=()),
]


def texts(seed: int, count: int) -> list[str]:
    """Documents of several families that share lines and runs of words, some of them within themselves."""
    generator = random.Random(seed)
    words = [f"w{k}" for k in range(200)]
    stocks = [[" ".join(generator.choices(words, k=generator.randint(1, 14))) for _ in range(6)] for _ in range(12)]
    return [
        generator.choice(["\n", "\n\n", " "]).join(
            generator.choice(stock) if generator.random() < 0.3 else " ".join(generator.choices(words, k=8))
            for _ in range(generator.choice([0, 1, 3, 8]))
        )
        for stock in generator.choices(stocks, k=count)
    ]


def marked(
    folder: Path, documents: list[str], config: DedupConfig, per_shard: int
) -> tuple[list[dict[str, str]], list[int], list[str]]:
    """Shards of documents and marks, how many rows each has, and two files of decisions: every ninth one goes."""
    folder.mkdir(parents=True)
    rows = [
        Document(
            id=document_id("test", "a", str(k)), text=text, source=("one", "two")[k % 2], uri="none", attributes={}
        )
        for k, text in enumerate(documents)
    ]
    table, shards, sizes = to_table(rows, DOCUMENTS), [], []
    for k in range(0, max(len(rows), 1), per_shard):
        part = table.slice(k, per_shard)
        paths = {"documents": str(folder / f"{k}.parquet")}
        pq.write_table(part, paths["documents"])
        for section, name in ((config.lines, "units"), (config.substrings, "fingerprints")):
            if section is not None:
                members, marks = mark(part.to_batches(max_chunksize=7), section.marking)
                for what, made in (("members", members), (name, marks)):
                    paths[what] = str(folder / f"{k}-{name}-{what}.parquet")
                    pq.write_table(made, paths[what], row_group_size=50)
        shards.append(paths)
        sizes.append(part.num_rows)
    first = rows[0].id if rows else b""
    decided = [{"id": row.id, "duplicate_of": first if k % 9 == 8 else None} for k, row in enumerate(rows)]
    decided.sort(key=lambda row: row["id"])
    files = [str(folder / "duplicates-0.parquet"), str(folder / "duplicates-1.parquet")]
    for path, some in zip(files, (decided[: len(rows) // 2], decided[len(rows) // 2 :]), strict=True):
        pq.write_table(DUPLICATES.empty_table().from_pylist(some, DUPLICATES), path)
    return shards, sizes, files


def over_ranges(made: Any, config: DedupConfig, ranges: int, folder: Path, runtime: Runtime) -> ShardResult:
    shards, sizes, duplicates = made
    whole = [MarkedShard(**shard) for shard in shards]
    return cut_over_ranges(
        whole, sizes, duplicates, config, ranges, folder / "over", "1" * 64, folder / "scratch", runtime
    )


def check(made: Any, config: DedupConfig, ranges: int, folder: Path, runtime: Runtime) -> dict[str, int]:
    shards, _, duplicates = made
    one = _cut(shards, duplicates, config, folder / "one", "0" * 64)
    over = over_ranges(made, config, ranges, folder, runtime)
    assert pq.read_table(over.files[0].path).to_pylist() == pq.read_table(one.files[0].path).to_pylist()
    assert file_digest(over.files[0].path) == file_digest(one.files[0].path)
    assert list(over.counts.items()) == list(one.counts.items())
    assert not (folder / "scratch").exists(), "what lies between is gone"
    return one.counts


@pytest.mark.parametrize("ranges", [1, 2, 7])
@pytest.mark.parametrize("config", CONFIGS)
def test_any_number_of_ranges_and_batches_gives_the_file_of_one_process(
    inline: RuntimeOf, tmp_path: Path, config: DedupConfig, ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "ROW_GROUP_ROWS", 16)  # so that rows lie in many groups
    for module in (spans_module, repeats):  # so that the table is made in several steps
        monkeypatch.setattr(module, "AT_ONCE", 20)
    monkeypatch.setattr(spans_module.Spans.__init__, "__defaults__", (20,))
    widths: dict[str, int] = {}
    step = ranges_module.Steps.map
    monkeypatch.setattr(
        ranges_module.Steps,
        "map",
        lambda self, name, items, work: (widths.update({name: items}), step(self, name, items, work))[1],
    )
    made = marked(tmp_path / "marked", texts(ranges, 240), config, 50)
    counts = check(made, config, ranges, tmp_path, inline(memory_gb=0.0001))
    assert counts["documents_cut"] > 10
    assert widths.get("runs", 9) > 3
    assert widths["places"] == ranges
    assert config.substrings is None or min(counts["substring_spans"], counts["substring_crowded"]) > 20


DOCUMENT = st.lists(st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join), max_size=4).map("\n".join)


@settings(max_examples=20)
@given(st.lists(DOCUMENT, max_size=20), st.integers(1, 7), st.integers(1, 30), st.booleans())
def test_whatever_the_documents_ranges_give_the_file_of_one_process(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], ranges: int, per_shard: int, both: bool
) -> None:
    folder = tmp_path_factory.mktemp("ranges")
    config = DedupConfig(lines=LINES if both else None, substrings=RUNS)
    runtime = Runtime(RuntimeConfig(workers=1, cluster="inline", retries=0), folder, "tests")
    check(marked(folder / "marked", documents, config, per_shard), config, ranges, folder, runtime)


def test_a_group_as_large_as_all_passes_through_a_memory_that_does_not_hold_it(
    inline: RuntimeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = " ".join(f"common{k}" for k in range(60))
    documents = [f"{common} own{k} {' '.join(f'x{k}y{j}' for j in range(30))}" for k in range(200)]
    config = DedupConfig(substrings=SubstringsConfig(minimum=20, limit=4))
    spilled: list[int] = []
    touched = repeats.Spill.touched
    monkeypatch.setattr(
        repeats.Spill, "touched", lambda self, size: (spilled.append(self.spilled), touched(self, size))[1]
    )
    blocks: list[int] = []
    between = Runs.between
    monkeypatch.setattr(Runs, "between", lambda self, a, b: (blocks.append(b - a), between(self, a, b))[1])
    made = marked(tmp_path / "marked", documents, config, 90)
    counts = check(made, config, 3, tmp_path, inline(memory_gb=0.0001))
    assert counts["substring_documents"] > 150
    assert max(spilled) > 100_000, "its words lay in a file"


def test_two_workers_on_ray_write_the_same_file(on_ray: RuntimeOf, tmp_path: Path) -> None:
    config = DedupConfig(lines=LINES, substrings=RUNS)
    check(marked(tmp_path / "marked", texts(5, 100), config, 30), config, 2, tmp_path, on_ray())


def test_a_document_without_a_decision_is_told(inline: RuntimeOf, tmp_path: Path) -> None:
    config = DedupConfig(lines=LINES)
    shards, sizes, duplicates = marked(tmp_path / "marked", texts(5, 100), config, 30)
    with pytest.raises(RuntimeError, match="some documents have no decision on duplicates"):
        over_ranges((shards, sizes, duplicates[:1]), config, 2, tmp_path, inline(retries=0))


class Killed(BaseException):
    """As a kill: nothing after it runs, and it is no failure of a shard."""


@pytest.mark.parametrize("after", [3, 20, 38])
def test_killed_anywhere_the_repetition_takes_up_what_is_finished(
    inline: RuntimeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    config, ran = DedupConfig(lines=LINES, substrings=RUNS), []
    made = marked(tmp_path / "marked", texts(4, 100), config, 30)
    finish = ranges_module.Task.finish

    def noted(self: Any, *given: Any) -> ShardResult:
        if len(ran) == stop:
            raise Killed
        ran.append((self.step, self.item))
        return finish(self, *given)

    monkeypatch.setattr(ranges_module.Task, "finish", noted)
    stop = -1
    check(made, config, 3, tmp_path, inline())
    every, ran, stop = ran, [], after
    assert len(every) > after
    again = tmp_path / "again"
    with pytest.raises(Killed):
        over_ranges(made, config, 3, again, inline())
    ran, stop = [], -1
    over = over_ranges(made, config, 3, again, inline())
    assert ran == every[after:], "only what was not finished"
    assert file_digest(over.files[0].path) == file_digest(str(tmp_path / "one" / "spans.parquet"))
