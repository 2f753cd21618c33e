"""How fast models in curation are: documents a second of the quality classifier, and beside curation without one.

    python benchmarks/quality.py LAKE CORPUS

LAKE has a finished run of CORPUS with the stage `quality`. One process, seconds of its CPU; the best of three rounds.
The classifier is asked about every document, in whatever language, with both kinds of words.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.scores.quality import QualityModel
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import find_manifest
from datalake.tables import RAW


def best(work: Callable[[], Any], rounds: int = 3) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main(folder: str, corpus: str) -> None:
    lake = Lake(Path(folder))
    outputs = {k: ref for report in find_manifest(lake, corpus=corpus).stages for k, ref in report.outputs.items()}
    raw, trained = outputs["raw"], outputs["quality"]
    assert isinstance(raw, TableRef)
    assert isinstance(trained, FolderRef)
    table = pa.concat_tables(pq.read_table(path, columns=RAW.names, partitioning=None) for path in lake.files(raw))
    texts = table["text"].to_pylist()
    model = QualityModel.trained(lake.path(trained))
    million = sum(map(len, texts)) / 1e6
    print(f"{len(texts)} documents, {million:.1f} million characters")
    print("| | documents/CPU s | million characters/CPU s |\n| --- | ---: | ---: |")
    for kind in ("plain", "jieba"):
        one = model._replace(words=kind, language=None)
        seconds = best(lambda one=one: [one.score(text, "en") for text in texts])  # type: ignore[misc]
        print(f"| quality, words {kind} | {len(texts) / seconds:,.0f} | {million / seconds:.2f} |")
    config = CurateConfig(preset="fineweb")
    for name, place in (("curation without", None), ("curation with", lake.path(trained))):
        seconds = best(lambda place=place: curate_batch(table, config, place))  # type: ignore[misc]
        print(f"| {name} | {len(texts) / seconds:,.0f} | {million / seconds:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        print(__doc__)
