"""JSON lines to documents without duplicates: the `headwater run` of it beside rensa's whole path, on one core.

    .venv/bin/python benchmarks/jsonl_to_clean.py --peer-python PEER/bin/python [--documents 300000] [--rounds 3]
        [--folder build/jsonl] [--pages PAGES.jsonl.gz]

PEER is a virtual environment with `rensa==0.5.0` (see `peer_dedup.py`). Both read the same files, made once by
`_dedup_corpus.py`, and take turns, each pinned to one core with everything it starts. rensa reads with the standard
library, makes shingles in Python, signs, asks its index and joins clusters; what it finds isn't verified and nothing is
written but names. Headwater ingests, tells the language, curates with the preset `none`, signs, verifies every pair and
commits raw documents, curation, documents, signatures, pairs and duplicates to a new lake: `whole` is the command from
its start to its end, `stages` the seconds of the stages alone. Medians over the rounds; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
from _command import headwater_run, on_one_core, taking_turns
from _dedup_corpus import Corpus, corpus


def as_json_lines(documents: Corpus) -> Path:
    """The corpus as `id` and `text`, a file a Parquet file; where they lie."""
    place = documents.folder / "jsonl"
    place.mkdir(exist_ok=True)
    for file in documents.files:
        target = place / f"{file.stem}.jsonl"
        if target.exists():
            continue
        part = target.with_suffix(".part")
        with part.open("w", encoding="utf-8") as out:
            for row in pq.read_table(file, columns=["name", "text"]).to_pylist():
                out.write(json.dumps({"id": row["name"], "text": row["text"]}, ensure_ascii=False) + "\n")
        part.replace(target)
    return place


def recipe(place: Path, work: Path) -> Path:
    lines = [
        "corpus: bench",
        "sources:",
        f"  - {{kind: table, paths: ['{place}/*.jsonl']}}",
        "curate: {preset: none}",
        "deduplicate: {threshold: 0.7}",
    ]
    path = work / "recipe.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def ours(place: Path, work: Path) -> dict[str, float]:
    return headwater_run(recipe(place, work), "deduplicate", work)


def rensa(python: str, place: Path, work: Path) -> dict[str, float]:
    script = str(Path(__file__).with_name("peer_dedup.py"))
    whole, printed = on_one_core(
        [python, script, "rensa", "whole", str(place), str(work / "rensa")], work / "rensa.log"
    )
    return {"whole": whole, "stages": json.loads(printed)["seconds"]}


def main() -> None:
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="an interpreter with rensa")
    parser.add_argument("--documents", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/jsonl"), help="of the corpus and what is written")
    parser.add_argument("--pages", type=Path, default=samples / "cc" / "pages" / "pages-dev.jsonl.gz")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    folder = given.folder.resolve()
    documents = corpus(folder, given.pages, given.documents, given.seed)
    place = as_json_lines(documents)
    contestants = {"headwater": lambda: ours(place, folder)}
    if given.peer_python:
        contestants["rensa"] = lambda: rensa(given.peer_python, place, folder)
    medians = taking_turns(contestants, given.rounds)
    print(json.dumps({"documents": documents.documents, "bytes": documents.bytes, **medians}))


if __name__ == "__main__":
    main()
