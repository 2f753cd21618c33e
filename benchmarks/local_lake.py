"""How fast a local lake is, beside the same work by another tree of Headwater: the ratio of one run counts.

    .venv/bin/python benchmarks/local_lake.py --before ../main --rounds 7

Each round does the same in both trees, one after the other, in processes of their own: shards written, found and read
whole, a column of each read, a table committed, looked at as a cached stage is, and rows appended. Seconds are of CPU,
since the machine may be busy; the ratio is the median of `before / after`, above 1 where this tree is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("write", "find", "read", "column", "commit", "present", "append")

WORK = """
import json, sys, time
import pyarrow as pa
from datalake.lake.lake import Lake
from datalake.lake.parquet import read_batches, read_table
from datalake.lake.shards import ShardWriter, find_shard
from datalake.lake.tags import TAGS

root, shards = sys.argv[1], int(sys.argv[2])
schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
table = pa.table([range(200), [f"text {n} " * 20 for n in range(200)]], schema=schema)
lake = Lake(root).create()
folders = [lake.shard_folder("ingest", f"{n:064x}"[::-1]) for n in range(shards)]
lake.catalog
seconds = {}

def timed(name, work):
    start = time.process_time()
    seconds[name] = -start
    found = work()
    seconds[name] += time.process_time()
    return found

def write():
    made = []
    for number, folder in enumerate(folders):
        with ShardWriter(folder, str(number), folder.name, {"raw": schema}) as out:
            out.write("raw", table)
        made += out.result.files
    return made

files = timed("write", write)
timed("find", lambda: [find_shard(folder) for _ in range(10) for folder in folders])
timed("read", lambda: [list(read_batches(file.path)) for file in files])
timed("column", lambda: [read_table(file.path, ["id"]) for _ in range(5) for file in files])
ref = timed("commit", lambda: lake.commit("demo.raw", schema, files, "f" * 64))
timed("present", lambda: [lake.present(ref) for _ in range(50)])
row = dict.fromkeys(TAGS.names) | {"tag": "x"}
timed("append", lambda: [lake.append_rows("models.tags", TAGS, [row], str(n)) for n in range(10)])
print(json.dumps(seconds))
"""


def once(tree: Path, shards: int) -> dict[str, float]:
    """CPU seconds of each part in one tree."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", WORK, f"{folder}/lake", str(shards)],
            env=os.environ | {"PYTHONPATH": str(tree)},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the ratio of each part, and of all together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="another tree of Headwater")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shards", type=int, default=60)
    asked = parser.parse_args()
    rounds = []
    for number in range(asked.rounds + 1):
        order = [asked.before.absolute(), ROOT] if number % 2 else [ROOT, asked.before.absolute()]
        found = {tree: once(tree, asked.shards) for tree in order}
        if number:  # the first warms what there is to warm
            rounds.append((found[asked.before.absolute()], found[ROOT]))
    for part in (*PARTS, "all"):
        before = [sum(one.values()) if part == "all" else one[part] for one, _ in rounds]
        after = [sum(one.values()) if part == "all" else one[part] for _, one in rounds]
        ratio = statistics.median(b / a for b, a in zip(before, after, strict=True))
        print(f"{part:<8} {statistics.median(before):8.3f} s {statistics.median(after):8.3f} s   ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
