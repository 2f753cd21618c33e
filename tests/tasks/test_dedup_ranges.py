"""Deduplication over ranges of hashes writes the files that one process writes, byte for byte."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ray import cloudpickle
from servers import S3Server
from stores import BUCKET

from datalake.dedup import decide as decide_module
from datalake.dedup import tables as tables_module
from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges import shuffle as shuffle_module
from datalake.dedup.ranges.groups import Forest, linked, write_edges
from datalake.dedup.ranges.shuffle import INDEX_BITS, Plan
from datalake.dedup.texts.components import join_pairs, settle_roots
from datalake.dedup.texts.sign import sign_file
from datalake.document import Document, document_id
from datalake.files import file_digest
from datalake.lake import shards as shards_module
from datalake.lake.shards import ShardFile, ShardResult
from datalake.places import place
from datalake.tables import DOCUMENTS, to_table
from tasks import ranges as ranges_module
from tasks.deduplicate import _decide
from tasks.ranges import decide_over_ranges, ranges_of
from tasks.runtime import Runtime, RuntimeConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])

DAY = datetime(2020, 1, 1, tzinfo=UTC)
RuntimeOf = Callable[..., Runtime]
CONFIGS = [
    DedupConfig(),
    DedupConfig(threshold=0.6, floor=0.3, bands=30, rows=2, bucket_limit=2, sources=("two", "one")),
    DedupConfig(url=True, precedence=("length", "created")),
    DedupConfig(precedence=("quality", "source"), bands=12, rows=1),
]


def corpus(seed: int, count: int) -> list[dict[str, Any]]:
    """Families of edited copies, equal texts and sets, documents without words, addresses that come again."""
    generator, rows = random.Random(seed), []
    while len(rows) < count:
        words = ["".join(generator.choices("abcdef", k=4)) for _ in range(generator.choice([0, 1, 4, 30, 60]))]
        for _ in range(generator.choice([1, 1, 2, 5, 12])):
            rate = generator.choice([0, 0, 0.01, 0.03, 0.06])
            edited = [word if generator.random() > rate else "changed" for word in words]
            text = generator.choice([" ", "  ", ", ", "\n"]).join(edited) + generator.choice(["", "", "!", "\n"])
            if generator.random() < 0.2:
                text = text.upper()
            uri = f"https://{generator.choice(['www.', ''])}a.org/{generator.randrange(count)}"
            created = generator.choice([None, DAY, DAY + timedelta(days=generator.randrange(3))])
            rows.append({"text": text, "uri": uri, "created": created, "source": generator.choice(["one", "two"])})
    generator.shuffle(rows)
    return rows[:count]


def signed(folder: Path, rows: list[dict[str, Any]], config: DedupConfig, per_shard: int) -> list[ShardFile]:
    """Shards of signatures, and one of curation beside."""
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    ids = [document_id("test", "a", str(k)) for k in range(len(rows))]
    documents = to_table([Document(id=id, **row) for id, row in zip(ids, rows, strict=True)], DOCUMENTS)
    for k in range(0, max(len(rows), 1), per_shard):
        path = folder / f"{k}.parquet"
        table = sign_file(documents.slice(k, per_shard), config)["signatures"]
        pq.write_table(table, path, row_group_size=7)
        files.append(ShardFile("signatures", str(path), table.num_rows, "", path.stat().st_size))
    quality = [None if k % 5 == 0 else (k * 7 % 4) / 4 for k in range(len(rows))]
    columns = {"id": pa.array(ids, pa.binary(16)), "quality": pa.array(quality, pa.float64())}
    pq.write_table(pa.table(columns).slice(3), folder / "curation.parquet")
    return files


def one_process(files: list[ShardFile], config: DedupConfig, folder: Path, parts: int = 1) -> list[ShardResult]:
    curation = [str(Path(files[0].path).parent / "curation.parquet")] if "quality" in config.precedence else []
    outputs = [(folder / str(k), f"{k}" * 64) for k in range(parts)]
    return _decide([file.path for file in files], curation, [], config, 1, 1.0, outputs)


def over_ranges(
    files: list[ShardFile], config: DedupConfig, ranges: int, folder: Path, runtime: Runtime, parts: int = 1
) -> list[ShardResult]:
    curation = [str(Path(files[0].path).parent / "curation.parquet")] if "quality" in config.precedence else []
    outputs = [(folder / str(k), f"{k}" * 64) for k in range(parts)]
    return decide_over_ranges(files, curation, config, ranges, outputs, folder / "scratch", runtime)


def contents(parts: list[ShardResult]) -> list[tuple[str, str, int]]:
    return [(file.table, file_digest(file.path), file.rows) for part in parts for file in part.files]


def check(files: list[ShardFile], config: DedupConfig, ranges: int, folder: Path, runtime: Runtime) -> dict[str, int]:
    one = one_process(files, config, folder / "one")
    over = over_ranges(files, config, ranges, folder / "over", runtime)
    for a, b in zip(one[0].files, over[0].files, strict=True):
        assert pq.read_table(a.path).to_pylist() == pq.read_table(b.path).to_pylist()
    assert contents(over) == contents(one)
    assert list(over[0].counts.items()) == list(one[0].counts.items())
    assert not (folder / "over" / "scratch").exists(), "what lies between is gone"
    return one[0].counts


@pytest.mark.parametrize("ranges", [1, 2, 7])
@pytest.mark.parametrize("config", CONFIGS)
def test_any_number_of_ranges_and_batches_gives_the_files_of_one_process(
    inline: RuntimeOf, tmp_path: Path, config: DedupConfig, ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "ROW_GROUP_ROWS", 16)  # so that rows lie in many groups, written in many steps
    for module in (decide_module, ranges_module.decisions):
        monkeypatch.setattr(module, "ROWS", 37)
    files = signed(tmp_path / "signed", corpus(ranges, 500), config, 90)
    widths: dict[str, int] = {}
    step = ranges_module.Steps.map
    monkeypatch.setattr(
        ranges_module.Steps,
        "map",
        lambda self, name, items, work: (widths.update({name: items}), step(self, name, items, work))[1],
    )
    counts = check(files, config, ranges, tmp_path, inline(memory_gb=0.0001))
    assert widths["compare"] > 5
    assert widths["kinds"] == ranges
    assert min(counts["near"], counts["exact"], counts["groups"], counts["candidates"]) > 10
    assert config.bucket_limit > 2 or min(counts["large_buckets"], counts["crowded"]) > 0
    assert not config.url or counts["url"] > 50


WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=9).map(" ".join)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": WORDS | st.sampled_from(["", "!", "a b c d e f g", "A  b, c d e f g", "a b c d e f h"]),
            "uri": st.sampled_from(["https://a.org", "http://www.a.org/", "https://b.org", "none"]),
            "created": st.sampled_from([None, DAY, DAY + timedelta(days=1)]),
            "source": st.sampled_from(["one", "two"]),
        }
    ),
    max_size=40,
)


@settings(max_examples=25)
@given(ROWS, st.integers(1, 7), st.integers(1, 50), st.booleans())
def test_whatever_the_documents_ranges_give_the_files_of_one_process(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], ranges: int, per_shard: int, url: bool
) -> None:
    folder = tmp_path_factory.mktemp("ranges")
    config = DedupConfig(url=url, ngram=2, threshold=0.5, bands=8, rows=1, bucket_limit=2)
    runtime = Runtime(RuntimeConfig(workers=1, cluster="inline", retries=0), folder, "tests")
    check(signed(folder / "signed", rows, config, per_shard), config, ranges, folder, runtime)


def template(pages: int) -> list[dict[str, Any]]:
    """One page a hundred times and more, each with a word of its own: a group as large as all."""
    words = ["".join(random.Random(k).choices("abcdef", k=5)) for k in range(80)]
    texts = [" ".join([*words[: 60 + k % 20], f"page{k}"]) for k in range(pages)] + [" ".join(words)] * pages
    return [{"text": text, "source": "one", "uri": "none"} for text in texts]


def test_a_group_and_a_text_as_large_as_all_pass_through_a_memory_that_holds_neither(
    inline: RuntimeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DedupConfig(bucket_limit=8, bands=40, rows=2)
    files = signed(tmp_path / "signed", template(400), config, 130)
    monkeypatch.setattr(shuffle_module, "LEAST", 1 << 10)  # so that sections lie in many batches
    spilled: list[int] = []
    release = ranges_module.near.Spill.release
    monkeypatch.setattr(
        ranges_module.near.Spill, "release", lambda self: (spilled.append(self.spilled), release(self))[1]
    )
    monkeypatch.setattr(ranges_module.decisions, "_SORTED", 1000)
    monkeypatch.setattr(ranges_module.near, "_SORTED", 10_000)  # so that no bucket's rows are held at once
    monkeypatch.setattr(ranges_module.near, "Forest", lambda out, room: Forest(out, 50))
    counts = check(files, config, 3, tmp_path, inline(memory_gb=0.0005))
    assert counts["largest_group"] > 600
    assert max(spilled) > 100_000, "bands and shingles of the group lay in files"


def test_parts_of_the_tables_are_the_same_however_they_were_made(
    inline: RuntimeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_module, "_DOCUMENTS", 200)
    parts = tables_module.parts_of(500)
    assert parts == 3
    files = signed(tmp_path / "signed", corpus(1, 500), DedupConfig(), 90)
    one = one_process(files, DedupConfig(), tmp_path / "one", parts)
    for ranges in (1, 2, 7):
        over = over_ranges(files, DedupConfig(), ranges, tmp_path / f"over-{ranges}", inline(), parts)
        assert contents(over) == contents(one)
        assert [part.counts for part in over] == [part.counts for part in one]
    one_process(files, DedupConfig(), tmp_path / "whole")
    for table in ("pairs", "duplicates"):
        read = [pq.read_table(tmp_path / "one" / str(k) / f"{table}.parquet") for k in range(parts)]
        assert all(part.num_rows for part in read)
        assert pa.concat_tables(read).equals(pq.read_table(tmp_path / "whole" / "0" / f"{table}.parquet"))


def test_two_workers_on_ray_write_the_same_files(on_ray: RuntimeOf, tmp_path: Path) -> None:
    files = signed(tmp_path / "signed", corpus(5, 300), DedupConfig(), 90)
    check(files, DedupConfig(), 2, tmp_path, on_ray())


def test_a_later_crawl_is_decided_as_all_at_once(inline: RuntimeOf, tmp_path: Path) -> None:
    config, rows = DedupConfig(sources=("one", "two")), corpus(3, 400)
    rows = [{**row, "source": "one" if k < 180 else "two"} for k, row in enumerate(rows)]
    both = signed(tmp_path / "both", rows, config, 90)
    earlier = both[:2]
    before = over_ranges(earlier, config, 2, tmp_path / "before", inline())
    after = over_ranges(both, config, 3, tmp_path / "after", inline())
    assert contents(before) == contents(one_process(earlier, config, tmp_path / "one before"))
    assert contents(after) == contents(one_process(both, config, tmp_path / "one after"))
    kept = pq.read_table(before[0].files[1].path).to_pylist()
    now = {row["id"]: row for row in pq.read_table(after[0].files[1].path).to_pylist()}
    assert all(now[row["id"]] == row for row in kept)


def test_a_document_given_twice_is_refused_by_its_id(inline: RuntimeOf, tmp_path: Path) -> None:
    files = signed(tmp_path / "signed", corpus(2, 100), DedupConfig(), 50)
    with pytest.raises(ValueError, match=r"document [0-9a-f]{32} appears twice") as one:
        one_process([*files, files[0]], DedupConfig(), tmp_path / "one")
    with pytest.raises(RuntimeError, match="appears twice: give every shard once") as over:
        over_ranges([*files, files[0]], DedupConfig(), 3, tmp_path / "over", inline(retries=0))
    assert str(one.value) in str(over.value)


class Killed(BaseException):
    """As a kill: nothing after it runs, and it is no failure of a shard."""


@pytest.mark.parametrize("after", [1, 9, 23, 40, 50])
def test_killed_anywhere_the_repetition_takes_up_what_is_finished(
    inline: RuntimeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    config, done, ran = DedupConfig(), 0, []
    files = signed(tmp_path / "signed", corpus(4, 300), config, 90)
    finish = ranges_module.Task.finish

    def killed(self: Any, *given: Any) -> ShardResult:
        nonlocal done
        done += 1
        if done > after:
            raise Killed
        return finish(self, *given)

    def noted(self: Any, *given: Any) -> ShardResult:
        ran.append((self.step, self.item))
        return finish(self, *given)

    monkeypatch.setattr(ranges_module.Task, "finish", noted)
    one = one_process(files, config, tmp_path / "one")
    over_ranges(files, config, 4, tmp_path / "unharmed", inline())
    every, ran = ran, []
    monkeypatch.setattr(ranges_module.Task, "finish", killed)
    with pytest.raises(Killed):
        over_ranges(files, config, 4, tmp_path / "over", inline())
    monkeypatch.setattr(ranges_module.Task, "finish", noted)
    over = over_ranges(files, config, 4, tmp_path / "over", inline())
    assert ran == every[after:], "only what was not finished"
    assert contents(over) == contents(one)


def test_one_process_decides_what_fits_the_memory_and_ranges_what_does_not() -> None:
    def ranges(documents: int, one_process: bool = False, **config: Any) -> int:
        return ranges_of(documents, RuntimeConfig(**{"workers": 2, "memory_gb": 4, **config}), one_process)

    assert ranges(14_000_000) == 1
    assert ranges(15_000_000) > 1
    assert ranges(15_000_000, one_process=True) == ranges(15_000_000, ranges=1) == 1
    assert ranges(10, memory_gb=0.001) == 1, "a few documents need no ranges"
    assert ranges(10, ranges=7) == 7
    assert ranges(3_000_000_000, memory_gb=10_000) > 1, "one process numbers documents by 31 bits"
    assert ranges(30_000_000, memory_gb=2) * (650 << 20) > 30_000_000 * 500


GRAPHS = st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79)), max_size=90)
PATH = [(k, k + 1) for k in range(79)]


@settings(max_examples=25)
@given(GRAPHS | st.permutations(PATH), st.integers(1, 5))
@example([(k, k - 1) for k in range(79, 0, -1)], 4)
def test_what_hangs_together_over_ranges_is_what_a_union_finds(
    tmp_path_factory: pytest.TempPathFactory, edges: list[tuple[int, int]], ranges: int
) -> None:
    each = 80 // ranges + 1
    root = tmp_path_factory.mktemp("groups")
    runtime = Runtime(RuntimeConfig(workers=1, cluster="inline", retries=0), root, "tests")
    steps = ranges_module.Steps(Plan(root, ((),), 80, ranges, 1 << 20), runtime, "test")

    def place(document: int) -> int:
        return document // each << INDEX_BITS | document % each

    def places(task: Any) -> None:
        task.counts["documents"] = each

    def scattered(task: Any) -> None:
        some = [sorted(edge, reverse=True) for k, edge in enumerate(edges) if k % ranges == task.item]
        rows = np.array([[place(a), place(b)] for a, b in some if a != b], np.int64).reshape(-1, 2)
        write_edges(task.table("links", 2, ranges), rows)

    def check(task: Any) -> None:
        assert linked(task, joined).tolist() == [place(k) for k in expected[task.item * each : task.item * each + each]]

    steps.map("places", ranges, places)
    steps.map("edges", ranges, scattered)
    joined, _ = steps.hang_together("edges")
    expected = np.arange(each * ranges)
    join_pairs(expected, *np.array([*edges, (0, 0)], np.int64).T.copy())
    settle_roots(expected)
    steps.map("check", ranges, check)


def test_what_lies_between_steps_may_lie_in_a_store(
    tmp_path: Path, inline: RuntimeOf, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIGS[1]
    files = signed(tmp_path / "in", corpus(3, 120), config, 30)
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    scratch = place(f"s3://{BUCKET}/between/scratch")
    made = decide_over_ranges(files, [], config, 3, [(tmp_path / "out", "0" * 64)], scratch, inline(retries=0))
    assert not scratch.exists()
    assert contents(made) == contents(one_process(files, config, tmp_path / "one"))
