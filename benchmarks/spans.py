"""How fast repeated lines and word runs are found, and how much of a real corpus they are.

    .venv/bin/python benchmarks/spans.py [--folder DIR] [--megabytes 100] [--ranges 8] [--memory-gb 1]

The texts are Python files (of the installed packages unless a folder is given), which share licences, imports and whole
functions; no near duplicates are removed before, but equal files. One process; seconds are those of its processor time.
With --ranges each level is also decided in a new process by itself, at once and over so many ranges of hashes, one
after the other, of which each may take --memory-gb: seconds, peak memory, and whether the files are the same.
"""

from __future__ import annotations

import argparse
import resource
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _dedup_corpus import peak_mb
from dedup import in_a_process

sys.path.insert(0, str(Path(__file__).parents[1]))

from datalake.dedup.config import DedupConfig
from datalake.dedup.schema import DUPLICATES
from datalake.dedup.spans.decide import MarkedShard, Spans
from datalake.dedup.spans.marks import mark
from datalake.dedup.spans_config import LinesConfig, SubstringsConfig
from datalake.document import Document, document_id
from datalake.tables import DOCUMENTS, to_table

FILES_PER_SHARD = 2_000


def texts(folder: Path, size: int) -> list[str]:
    """Distinct texts of the folder's Python files, up to so many characters."""
    found: dict[str, None] = {}
    total = 0
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(errors="replace")
        if text.strip() and text not in found:
            found[text] = None
            total += len(text)
            if total >= size:
                break
    return list(found)


def peak() -> int:
    """Most memory this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Print a table: a row a level."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_paths()["purelib"]))
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--ranges", type=int, help="decide over so many ranges, too")
    parser.add_argument("--memory-gb", type=float, default=1, help="of each range")
    given = parser.parse_args()
    all_texts = texts(given.folder, given.megabytes * 1_000_000)
    size = sum(map(len, all_texts))
    print(f"{len(all_texts):,} files, {size:,} characters, {peak()} MB held before")
    print("| level | mark MB/s | decide s | spans | documents | characters cut | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    warm = in_shards(all_texts[:50])
    for name, config in (
        ("lines", DedupConfig(lines=LinesConfig())),
        ("paragraphs", DedupConfig(lines=LinesConfig(unit="paragraph"))),
        ("substrings", DedupConfig(substrings=SubstringsConfig())),
    ):
        measure(warm, config)
        marking, deciding, report = measure(in_shards(all_texts), config, given.ranges, given.memory_gb)
        level = "paragraph" if name == "paragraphs" else name[:-1]
        cut = report[f"{level}_characters"]
        print(
            f"| {name} | {size / 1e6 / marking:.1f} | {deciding:.1f} | {report[f'{level}_spans']:,} |"
            f" {report[f'{level}_documents']:,} | {cut:,} ({cut / size:.1%}) | {peak()} |"
        )


def in_shards(some: list[str]) -> list[pa.Table]:
    """Tables of documents."""
    documents = [
        Document(id=document_id("bench", "a", str(k)), text=text, source="code", uri=str(k))
        for k, text in enumerate(some)
    ]
    return [to_table(documents[k : k + FILES_PER_SHARD], DOCUMENTS) for k in range(0, len(documents), FILES_PER_SHARD)]


def decided(marked: list[MarkedShard], kept: Path, config: DedupConfig, ranges: int, memory_gb: float) -> list[Any]:
    """In a process of its own: seconds, the peak in MB, the same before, and the digest of the file."""
    from tasks.deduplicate import _cut
    from tasks.ranges import cut_over_ranges
    from tasks.runtime import Runtime, RuntimeConfig

    before, begun, folder = peak_mb(), time.process_time(), kept.parent / f"decided-{ranges}"
    if ranges == 1:
        paths = [{name: str(path) for name, path in shard._asdict().items() if path} for shard in marked]
        done = _cut(paths, [str(kept)], config, folder, "0" * 64)
    else:
        runtime = Runtime(RuntimeConfig(workers=1, cluster="inline", memory_gb=memory_gb), kept.parent, "spans")
        rows = [pq.read_metadata(shard.members).num_rows for shard in marked]
        scratch = kept.parent / "between"
        done = cut_over_ranges(marked, rows, [str(kept)], config, ranges, folder, "0" * 64, scratch, runtime)
    return [time.process_time() - begun, peak_mb(), before, done.files[0].digest]


def compare(marked: list[MarkedShard], kept: Path, config: DedupConfig, ranges: int, memory_gb: float) -> None:
    """Print what one process and ranges take."""
    one, over = (in_a_process(decided, marked, kept, config, k, memory_gb) for k in (1, ranges))
    same = "the same file" if one[3] == over[3] else "OTHER FILES"
    for name, found in (("one process", one), (f"{ranges} ranges, {same}", over)):
        print(f"{name}: {found[0]:.1f} s of processor time, peak {found[1]:,} MB, {found[2]:,} MB of them before")


def measure(
    shards: list[pa.Table], config: DedupConfig, ranges: int | None = None, memory_gb: float = 1
) -> tuple[float, float, dict[str, int]]:
    """Seconds to mark and to decide, and what was decided."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        section = config.lines or config.substrings
        assert section is not None
        which = "units" if config.lines else "fingerprints"
        marked = []
        begun = time.process_time()
        for k, documents in enumerate(shards):
            members, marks = mark(documents.to_batches(max_chunksize=1024), section.marking)
            paths = {part: folder / f"{k}-{part}.parquet" for part in ("documents", "members", which)}
            for table, path in zip((documents, members, marks), paths.values(), strict=True):
                pq.write_table(table, path, compression="zstd", row_group_size=16_384)
            marked.append(MarkedShard(**paths))
        marking = time.process_time() - begun
        ids = [id for documents in shards for id in documents["id"].to_pylist()]
        kept = pa.Table.from_pylist([{"id": id} for id in ids], DUPLICATES)
        (folder / "scratch").mkdir()
        begun = time.process_time()
        spans = Spans(marked, [kept], config, folder / "scratch")
        for _ in spans.tables():
            pass
        deciding = time.process_time() - begun
        if ranges:
            pq.write_table(kept.sort_by("id"), folder / "kept.parquet")
            compare(marked, folder / "kept.parquet", config, ranges, memory_gb)
        return marking, deciding, spans.report


if __name__ == "__main__":
    main()
