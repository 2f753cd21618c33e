"""Curation once more, from what is stored: documents that were measured are judged again, and measured by new metrics.

A shard that was curated by a config with the same metrics but for the recipe's own, and with the same edits, holds all
built-in metrics of its documents and the edited text of those it kept. So where own metrics, extra rules, thresholds or
languages kept have changed, what is new is computed and the rest read. A document that is kept now and was rejected
before is curated from the start, since its edited text is stored nowhere. What comes out is what curation from the
start gives, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datalake.atomic import write_atomically
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch, kept_documents, raw_batches
from datalake.curate.edits import repair
from datalake.curate.judge import COLUMNS, rejudge, rules_for
from datalake.curate.judge import stored as verdicts
from datalake.curate.metrics import user
from datalake.curate.rules import CONTAMINATED
from datalake.curate.schema import CURATION, schema_with
from datalake.errors import LostDataError
from datalake.files import file_digest
from datalake.identity import fingerprint, plain
from datalake.lake.copies import near
from datalake.lake.parquet import open_parquet
from datalake.lake.shards import ShardResult, find_shard

# Settings that neither metrics nor edits depend on.
_OF_VERDICTS = ("metrics", "metric_functions", "extra_rules", "thresholds", "rules", "languages")


class Stored(NamedTuple):
    """A shard that was curated before: its files, what it counted, and the own metrics in it that are the same now."""

    curation: Path
    documents: Path
    counts: dict[str, int]
    own: frozenset[str]


class Measured:
    """Which shard of a stage holds the metrics of which raw file: a small file for each in the lake."""

    def __init__(self, lake: Path, stage: Any, config: CurateConfig):
        """`stage`: what all shards of the stage have in common that shapes them."""
        said: dict[str, Any] = plain(config)
        fields = {name: value for name, value in said.items() if name not in _OF_VERDICTS}
        fields["sets"] = [rules.model_dump(mode="json", exclude={"rules"}) for rules in config.rule_sets]
        self._folder = lake / "measured" / fingerprint([stage, fields])[:32]
        self._functions = {function.name: fingerprint(function) for function in config.metric_functions}

    def find(self, raw: Path) -> Stored | None:
        """The shard of this raw file, if there is one and all of it is as it was written."""
        try:
            found = json.loads(self._file(raw).read_bytes())
            folder, functions = self._folder.parents[1] / found["shard"], dict(found["functions"])
            made = find_shard(folder)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        try:
            files = {file.table: near(file.path) for file in made.files} if made is not None else {}
        except LostDataError:
            return None
        if made is None or files.keys() != {"curation", "documents"}:
            return None
        same = frozenset(name for name, print_ in self._functions.items() if functions.get(name) == print_)
        return Stored(files["curation"], files["documents"], made.counts, same)

    def remember(self, raw: Path, made: ShardResult, folder: Path) -> None:
        """Note a finished shard."""
        said = {"shard": folder.relative_to(self._folder.parents[1]).as_posix(), "functions": self._functions}
        write_atomically(self._file(raw), json.dumps(said, sort_keys=True).encode())

    def _file(self, raw: Path) -> Path:
        made = find_shard(raw.parent)
        digest = next(file.digest for file in made.files if file.path == str(raw)) if made else file_digest(str(raw))
        return self._folder / digest[:2] / f"{digest}.json"


def curate_again(
    path: str | Path, stored: Stored, config: CurateConfig, trained: Path | None, meter: user.Meter
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """As `curate_file`, from what is stored; `meter` measures what isn't."""
    curation, documents = _Rows(stored.curation), _Rows(stored.documents)
    for raw in raw_batches(path):
        before = curation.take(raw.num_rows)
        texts = documents.take(before["verdict"].to_pylist().count("kept"))["text"].to_pylist()
        yield _batch(raw, before, texts, stored, config, trained, meter)


def _batch(
    raw: pa.Table,
    before: pa.Table,
    kept_before: list[str],
    stored: Stored,
    config: CurateConfig,
    trained: Path | None,
    meter: user.Meter,
) -> tuple[pa.Table, pa.Table]:
    languages = before["language"].to_pylist()
    repaired = [
        repair(text or "", rules_for(config, source, language).repair)
        for text, source, language in zip(raw["text"].to_pylist(), before["source"].to_pylist(), languages, strict=True)
    ]
    own = meter(repaired, languages)
    own |= {name: before[name].to_pylist() for name in stored.own}
    schema = schema_with(user.names(config))
    columns = {name: before[name] for name in CURATION.names}
    columns |= {name: pa.array(values, pa.float64()) for name, values in own.items()}
    known = verdicts(before)
    judged, unknown = rejudge(pa.table(columns), config, known)
    columns |= dict(zip(COLUMNS, judged.columns().itercolumns(), strict=True))
    cut = columns[f"{CONTAMINATED}_cut"]
    none_cut = pc.if_else(pc.is_valid(cut), pa.scalar(0, pa.int64()), pa.scalar(None, pa.int64()))
    columns[f"{CONTAMINATED}_cut"] = pc.if_else(pa.array(judged.kept), cut, none_cut)
    curation = pa.table([columns[name] for name in schema.names], schema=schema)

    texts = dict(zip(np.flatnonzero(known.kept).tolist(), kept_before, strict=True))
    anew = np.flatnonzero(unknown)
    stays = judged.kept.copy()
    if len(anew):
        values = {name: [column[k] for k in anew.tolist()] for name, column in own.items()}
        made, documents = curate_batch(raw.take(pa.array(anew)), config, trained, lambda *_: values)
        stays[anew] = [verdict == "kept" for verdict in made["verdict"].to_pylist()]
        texts |= dict(zip(anew[stays[anew]].tolist(), documents["text"].to_pylist(), strict=True))
        order = np.arange(len(stays))
        order[anew] = len(stays) + np.arange(len(anew))
        curation = pa.concat_tables([curation, made]).take(pa.array(order)).combine_chunks()
    rows = np.flatnonzero(stays)
    return curation, kept_documents(raw, rows, [texts[k] for k in rows.tolist()])


class _Rows:
    """The rows of a Parquet file from the front, some at a time."""

    def __init__(self, path: Path):
        file = open_parquet(path)
        self._batches = file.iter_batches(batch_size=1024)
        self._left = file.schema_arrow.empty_table()

    def take(self, count: int) -> pa.Table:
        """The next rows. Raises ValueError where the file has fewer."""
        parts = [self._left]
        while sum(part.num_rows for part in parts) < count:
            batch = next(self._batches, None)
            if batch is None:
                break
            parts.append(pa.Table.from_batches([batch]))
        table = pa.concat_tables(parts)
        if table.num_rows < count:
            raise ValueError("a stored shard has fewer rows than the raw file that it was made of")
        self._left = table.slice(count)
        return table.slice(0, count).combine_chunks()
