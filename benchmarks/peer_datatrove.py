"""datatrove's filters and its FineWeb pipeline, for `curate.py` to run beside Headwater in an interpreter of their own.

    PEER_PYTHON benchmarks/peer_datatrove.py filters TEXTS.jsonl RESULT.jsonl
    PEER_PYTHON benchmarks/peer_datatrove.py verdicts TEXTS.jsonl RESULT.jsonl
    PEER_PYTHON benchmarks/peer_datatrove.py pipeline FOLDER_OF_WARC RESULT.jsonl --lid lid.176.ftz

PEER_PYTHON is a Python 3.11 with `datatrove[io,processing]==0.10.1 spacy jieba lxml_html_clean`. `filters` gives every
text to every filter, so that none is spared work by the one before it, and writes each filter's verdict on each text;
`verdicts` gives it to the filters of a preset one after the other, until one drops it;
`pipeline` is examples/fineweb.py without its URL lists, up to deduplication. Both print one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def processor() -> float:
    """Seconds of processor time of this process and of those it has waited for, as the extractor's are at its end."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def quality_filters() -> list[Any]:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]


def filters(texts: Path, result: Path) -> dict[str, Any]:
    """Each filter on each text: seconds per filter; reasons into `result`, a line per text."""
    from datatrove.data import Document

    rows = [json.loads(line) for line in texts.open(encoding="utf-8")]
    steps = quality_filters()
    for step in steps:  # what is loaded at the first use
        step.filter(Document(text="A first text. It has two sentences, and little more than that.", id="0"))
    seconds = dict.fromkeys((type(step).__name__ for step in steps), 0.0)
    with result.open("w", encoding="utf-8") as out:
        for row in rows:
            reasons = {}
            for step in steps:
                document = Document(text=row["text"], id="0")
                start = processor()
                try:
                    verdict = step.filter(document)
                except ZeroDivisionError:
                    verdict = (False, "division by zero")
                seconds[type(step).__name__] += processor() - start
                reasons[type(step).__name__] = None if verdict is True else str(verdict[1] if verdict else "dropped")
            out.write(json.dumps({"id": row["id"], "reasons": reasons}) + "\n")
    return {"documents": len(rows), "seconds": seconds, "total": sum(seconds.values())}


def chinese_filters() -> list[Any]:
    """The steps of fineweb-2-pipeline.py with the numbers of configs/cmn_Hani.yml."""
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    language = "cmn_Hani"
    return [
        GopherRepetitionFilter(
            dup_line_frac=0.287,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            top_n_grams=((2, 0.256), (3, 0.201), (4, 0.171)),
            dup_n_grams=((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
            language=language,
        ),
        FineWebQualityFilter(
            line_punct_thr=0.106,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.178,
            language=language,
        ),
        GopherQualityFilter(
            min_avg_word_length=1,
            max_avg_word_length=5,
            max_non_alpha_words_ratio=0.735,
            stop_words=list("的年在月是和日了於·為有被人中为他與後也而由"),
            language=language,
        ),
    ]


def presets(language: str) -> dict[str, list[Any]]:
    """The steps that Headwater's presets are held against, on texts in this language that are there already."""
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter

    if language == "zh":
        return {"fineweb2": chinese_filters()}
    return {
        "gopher": [GopherRepetitionFilter(), GopherQualityFilter()],
        "c4": [C4QualityFilter()],
        "fineweb": quality_filters(),
    }


def verdicts(texts: Path, result: Path) -> dict[str, Any]:
    """The first reason for which each preset's steps, one after the other, drop each text; null where it is kept."""
    from datatrove.data import Document

    rows = [json.loads(line) for line in texts.open(encoding="utf-8")]
    with result.open("w", encoding="utf-8") as out:
        for row in rows:
            answer: dict[str, Any] = {"id": row["id"]}
            for name, steps in presets(row["language"]).items():
                document, reason = Document(text=row["text"], id="0"), None
                for step in steps:
                    try:
                        verdict = step.filter(document)
                    except ZeroDivisionError:
                        verdict = (False, "division by zero")
                    if verdict is not True:
                        reason = str(verdict[1] if verdict else "dropped")
                        break
                answer[name] = reason
            out.write(json.dumps(answer) + "\n")
    return {"documents": len(rows)}


def pipeline(folder: Path, result: Path, lid: Path) -> dict[str, Any]:
    """WARC files to kept Parquet, one task: seconds of the run, and the kept addresses into `result`."""
    import pyarrow.parquet as pq
    import trafilatura  # noqa: F401  (else its import takes the first page's whole second)
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import LanguageFilter
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils import lid as language_models

    language_models.FT176LID.MODEL_URL = "file://" + str(lid.resolve())
    work = Path(tempfile.mkdtemp())
    os.environ["HF_HOME"] = str(work / "hf")
    steps = [
        WarcReader(str(folder), glob_pattern="*.warc.gz"),
        Trafilatura(favour_precision=True, timeout=1),
        LanguageFilter(languages=["en"]),
        *quality_filters(),
        ParquetWriter(str(work / "kept")),
    ]
    start = processor()
    LocalPipelineExecutor(pipeline=steps, tasks=1, workers=1, logging_dir=str(work / "logs")).run()
    total = processor() - start
    pages, dropped = 0, {}
    for block in json.loads((work / "logs" / "stats.json").read_text()):
        for name, value in block["stats"].items():
            amount = value["total"] if isinstance(value, dict) else value
            if "Warc" in block["name"] and name == "documents":
                pages = amount
            if name.startswith("dropped_"):
                dropped[name.removeprefix("dropped_")] = amount
    addresses = []
    for file in sorted((work / "kept").rglob("*.parquet")):
        table = pq.read_table(file)
        addresses += [
            {"uri": dict(row["metadata"] or {}).get("url", ""), "characters": len(row["text"])}
            for row in table.to_pylist()
        ]
    result.write_text("".join(json.dumps(one) + "\n" for one in addresses), encoding="utf-8")
    shutil.rmtree(work, ignore_errors=True)
    return {"pages": int(pages), "kept": len(addresses), "total": total, "dropped": dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mode", choices=("filters", "verdicts", "pipeline"))
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--lid", type=Path)
    given = parser.parse_args()
    if given.mode == "verdicts":
        print(json.dumps(verdicts(given.source, given.result)))
    elif given.mode == "filters":
        print(json.dumps(filters(given.source, given.result)))
    else:
        print(json.dumps(pipeline(given.source, given.result, given.lid)))


if __name__ == "__main__":
    main()
