"""Curation: raw documents in; a row with every metric and the verdict for each of them, and the kept documents, out.

    repair -> measure -> ask models -> judge -> line edits of what is kept

Metrics are those of the repaired text, under `auto` of its prose: blocks of code in pages and Markdown go with the
prose around them, whole. A preset with line edits (C4, FineWeb) applies them to English documents it
keeps; one of which nothing is left is rejected by the rule `empty_after_edits`. Always: raw = documents + rejected.

Where the recipe asks for personal data, what is found in the repaired text is counted, and what is kept has
placeholders in its place, after all other edits. Where it gives lists, addresses and texts are looked up in them.

Where evaluation sets are given, each raw text, before any repair, is looked up in them, whatever else became of it;
the rule `contaminated` comes after the preset's, so that as a first failed rule it names what only it rejects. Of what
is kept, sentences with an overlap are cut after the line edits: metrics, and so verdicts, are those of the whole text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.curate.checks.cuts import Cut, cut, spans_of
from datalake.curate.checks.decontaminate import Overlap, index_of
from datalake.curate.checks.lists import Blocked, block_lists_of
from datalake.curate.checks.pii import find, redact
from datalake.curate.checks.pii_config import Kind
from datalake.curate.checks.spam import spam_score
from datalake.curate.checks.toxic import toxic_words_of
from datalake.curate.config import CurateConfig
from datalake.curate.edits import keep_lines, keep_prose_lines, prose_of, repair
from datalake.curate.judge import COLUMNS, judge, rules_for
from datalake.curate.languages import CHINESE
from datalake.curate.metrics import user
from datalake.curate.metrics.catalog import METRICS, NAMES, PLACES
from datalake.curate.metrics.families.code import measure_code
from datalake.curate.metrics.measure import measure_array
from datalake.curate.metrics.prepared.document import (
    KEPT_AUTO,
    KEPT_C4,
    KEPT_DATATROVE,
    KEPT_DCLM,
    KEPT_FINEWEB,
    KEPT_PAPER,
)
from datalake.curate.rules import BLOCKED, CONTAMINATED, RuleSet
from datalake.curate.schema import CURATION, schema_with
from datalake.curate.scoring import fill
from datalake.lake.parquet import open_parquet
from datalake.tables import DOCUMENTS, RAW

_KINDS = {
    "auto": KEPT_AUTO,
    "c4": KEPT_C4,
    "c4-paper": KEPT_PAPER,
    "c4-datatrove": KEPT_DATATROVE,
    "fineweb": KEPT_FINEWEB,
    "refinedweb": KEPT_DCLM,
}
_LINES, _TOXIC_WORDS, _TOXIC_RATIO = map(NAMES.index, ("lines", "toxic_words", "toxic_ratio"))
_SPAM, _PII = map(NAMES.index, ("spam", "pii"))
_BATCH_BYTES, _BATCH_ROWS = 32 << 20, 4096


def _edited(text: str, rules: RuleSet, language: str, line_kinds: npt.NDArray[Any]) -> str:
    """A repaired text after the line edits of its rules, which touch English alone."""
    if rules.line_edits == "none" or language != "en":
        return text
    edit = keep_prose_lines if rules.code_apart else keep_lines
    return edit(text, [bool(k & _KINDS[rules.line_edits]) for k in line_kinds.tolist()], rules.line_edits)


def _asked(config: CurateConfig, kind: str) -> tuple[Kind, ...]:
    """The kinds of personal data that are looked for in a document from a source of this kind."""
    if config.pii is None:
        return ()
    return config.pii.code if kind == "code" else config.pii.kinds


def _look_for(text: str, kind: str, language: str, config: CurateConfig, values: np.ndarray[Any, Any]) -> None:
    """Look for terms, spam's and what the recipe names, and write what is found into the metrics of a measured text."""
    if config.toxic is not None and kind != "code":
        toxic = toxic_words_of(config.toxic).count(text, language)
        if toxic is not None:
            values[_TOXIC_WORDS] = toxic[0]
            values[_TOXIC_RATIO] = toxic[1] / values[_LINES] if values[_LINES] else np.nan
    if language in CHINESE and kind != "code":
        values[_SPAM] = spam_score(text, language)
    if config.pii is not None:
        values[_PII] = len(find(text, _asked(config, kind)))


def curate_batch(
    raw: pa.Table | pa.RecordBatch,
    config: CurateConfig,
    trained: Path | None = None,
    measure: user.Measure | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Judge raw documents (schema RAW); `trained` is the folder of the quality classifier, where the recipe trains one.

    `measure` gives the values of the recipe's own metrics.

    Returns (curation, documents): a row of schema CURATION, with own metrics after it, per document, in the order
    given, and the kept documents (schema DOCUMENTS) with their edited text, in the same order.
    """
    table = pa.Table.from_batches([raw]) if isinstance(raw, pa.RecordBatch) else raw
    texts, scores = table["text"].to_pylist(), table["language_score"].to_pylist()
    sources = [source or "" for source in table["source"].to_pylist()]
    languages = [language or "und" for language in table["language"].to_pylist()]
    kinds = [config.kinds.get(source, source) for source in sources]
    pairs = list(zip(sources, languages, strict=True))
    rules_of = {pair: rules_for(config, *pair) for pair in set(pairs)}
    held = [rules_of[pair] for pair in pairs]
    metrics = np.full((len(texts), len(METRICS)), np.nan)
    programs = _programming_languages(table)
    index = index_of(config.decontaminate) if config.decontaminate is not None else None
    overlaps: list[Overlap | None] = []
    spans: list[list[dict[str, Any]] | None] = []
    blocked: list[Blocked | None] = [None] * len(texts)
    if config.block is not None:
        lists = block_lists_of(config.block)
        blocked = [lists.find(uri or "") for uri in table["uri"].to_pylist()]
    line_kinds = []
    for row, (text, kind, language, rules) in enumerate(zip(texts, kinds, languages, held, strict=True)):
        overlap, stretches = (None, []) if index is None else index.look(text or "")
        overlaps.append(overlap)
        told = spans_of(text, stretches, kind == "code")
        spans.append([{"start": span.start, "end": span.end, "set": span.row} for span in told] or None)
        texts[row] = text = repair(text or "", rules.repair)
        metrics[row], lines = measure_array(prose_of(text) if rules.code_apart else text, language, scores[row])
        line_kinds.append(lines)
        if kind == "code" and programs[row]:
            measure_code(text, programs[row], metrics[row, PLACES["code"]])
        _look_for(text, kind, language, config, metrics[row])
    own = (measure or user.Meter(config))(texts, languages)
    scored = fill(texts, languages, metrics, config, trained)

    columns: dict[str, Any] = {
        "id": table["id"].combine_chunks(),
        "source": pa.array(sources, pa.string()),
        "language": pa.array(languages, pa.string()),
    }
    for k, metric in enumerate(METRICS):
        values = pa.array(np.ascontiguousarray(metrics[:, k]), pa.float64(), from_pandas=True)
        columns[metric.name] = values.cast(pa.int64()) if metric.whole else values
    columns[BLOCKED] = pa.array([None if found is None else found.entries for found in blocked], pa.int64())
    columns[f"{BLOCKED}_by"] = pa.array([None if found is None else found.by for found in blocked], pa.string())
    columns |= _contamination(overlaps)
    columns[f"{CONTAMINATED}_spans"] = pa.array(spans, CURATION.field(f"{CONTAMINATED}_spans").type)
    classified = [[(name, values[row]) for name, values in scored.items()] or None for row in range(len(texts))]
    columns["classifiers"] = pa.array(classified, CURATION.field("classifiers").type)

    columns |= {name: pa.array(values, pa.float64()) for name, values in own.items()}

    judged = judge(pa.table(columns), config)
    kept, emptied = judged.kept, np.zeros(len(texts), np.bool_)
    cuts: list[Cut | None] = []
    for row, (text, kind, language, rules) in enumerate(zip(texts, kinds, languages, held, strict=True)):
        taken = None
        overlap = overlaps[row]
        # What cuts would leave is told of documents that hold something of evaluation sets, rejected ones included.
        if kept[row] or (overlap is not None and overlap.share):
            text = _edited(text, rules, language, line_kinds[row])
            if index is not None:
                taken = cut(text, index, kind == "code")
                text = taken.text
        cuts.append(taken)
        if kept[row]:
            nothing_left_counts = not rules.keep_empty or (taken is not None and taken.characters)
            emptied[row] = bool(nothing_left_counts) and not text.strip()
            texts[row] = redact(text, find(text, _asked(config, kind))) if metrics[row, _PII] > 0 else text
    judged = judged.emptied(emptied)
    kept = judged.kept
    columns |= dict(zip(COLUMNS, judged.columns().itercolumns(), strict=True))
    columns[f"{CONTAMINATED}_cut"] = pa.array(
        [
            None if overlap is None else taken.characters if taken is not None and stays else 0
            for overlap, taken, stays in zip(overlaps, cuts, kept.tolist(), strict=True)
        ],
        pa.int64(),
    )
    columns[f"{CONTAMINATED}_left"] = pa.array(
        [len(taken.text.strip()) if taken is not None and taken.characters else None for taken in cuts], pa.int64()
    )
    schema = schema_with(user.names(config))
    curation = pa.table([columns[name] for name in schema.names], schema=schema)
    return curation, kept_documents(table, np.flatnonzero(kept), list(itertools.compress(texts, kept)))


def kept_documents(raw: pa.Table, rows: npt.NDArray[np.int64], texts: Sequence[str]) -> pa.Table:
    """The documents in these rows of raw, schema DOCUMENTS, with their edited texts."""
    kept = raw.take(pa.array(rows, pa.int64()))
    kept = kept.set_column(kept.schema.get_field_index("text"), RAW.field("text"), pa.array(texts, pa.large_string()))
    return kept.select(DOCUMENTS.names).cast(DOCUMENTS)


def _contamination(overlaps: Sequence[Overlap | None]) -> dict[str, pa.Array]:
    """The columns that say what documents hold of evaluation sets."""
    fields = {"": "ngrams"} | {f"_{name}": name for name in ("share", "level", "start", "end")} | {"_set": "row"}
    return {
        f"{CONTAMINATED}{ending}": pa.array(
            [None if found is None else getattr(found, field) for found in overlaps],
            CURATION.field(f"{CONTAMINATED}{ending}").type,
        )
        for ending, field in fields.items()
    }


def _programming_languages(table: pa.Table) -> list[str]:
    """`attributes["programming_language"]` of each row, empty where it has none."""
    found = pc.map_lookup(table["attributes"], "programming_language", "first")
    return [name or "" for name in found.to_pylist()]


def curate_file(
    path: str | Path, config: CurateConfig, trained: Path | None = None, measure: user.Measure | None = None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Curate a Parquet file of schema RAW, a slice of a row group at a time: pairs of (curation, documents).

    `trained` and `measure` as in `curate_batch`.

    Memory is bounded by the largest row group and some 32 MiB of texts. Raises ValueError where a column is missing.
    """
    for table in raw_batches(path):
        yield curate_batch(table, config, trained, measure)


def raw_batches(path: str | Path) -> Iterator[pa.Table]:
    """A Parquet file of schema RAW, a slice of a row group at a time. Raises ValueError where a column is missing."""
    with open_parquet(path) as file:
        missing = [name for name in RAW.names if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{path} is no table of raw documents: column {missing[0]!r} is missing")
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=RAW.names)
            rows = max(1, min(_BATCH_ROWS, table.num_rows * _BATCH_BYTES // max(1, table.nbytes)))
            for start in range(0, table.num_rows, rows):
                yield table.slice(start, rows)
