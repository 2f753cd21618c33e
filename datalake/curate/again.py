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

import pyarrow as pa

from datalake.curate.config import CurateConfig
from datalake.curate.curate import CONTAMINATED, EMPTY, LANGUAGE, curate_batch, kept_documents, raw_batches
from datalake.curate.edits import repair
from datalake.curate.held import rules_for
from datalake.curate.metrics import user
from datalake.curate.rules import CLASSIFIER, verdict
from datalake.curate.schema import schema_with
from datalake.identity import file_digest, fingerprint, plain
from datalake.lake.parquet import open_parquet
from datalake.lake.shards import ShardResult, find_shard, write_atomically

# Settings that neither metrics nor edits depend on.
_OF_VERDICTS = ("metrics", "metric_functions", "extra_rules", "thresholds", "rules", "rules_version", "languages")


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
        if made is None or any(file_digest(file.path) != file.digest for file in made.files):
            return None
        files = {file.table: Path(file.path) for file in made.files}
        if files.keys() != {"curation", "documents"}:
            return None
        same = frozenset(name for name, print_ in self._functions.items() if functions.get(name) == print_)
        return Stored(files["curation"], files["documents"], made.counts, same)

    def remember(self, raw: Path, made: ShardResult, folder: Path) -> None:
        """Note a finished shard."""
        said = {"shard": folder.relative_to(self._folder.parents[1]).as_posix(), "functions": self._functions}
        write_atomically(self._file(raw), json.dumps(said, sort_keys=True).encode())

    def _file(self, raw: Path) -> Path:
        made = find_shard(raw.parent)
        digest = next(file.digest for file in made.files if Path(file.path) == raw) if made else file_digest(str(raw))
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
    rows = before.to_pylist()
    kinds = [config.kinds.get(row["source"], row["source"]) for row in rows]
    repaired = [
        repair(text or "", rules_for(config, kind, row["language"]).repair)
        for text, kind, row in zip(raw["text"].to_pylist(), kinds, rows, strict=True)
    ]
    own = meter(repaired, [row["language"] for row in rows])
    own |= {name: before[name].to_pylist() for name in stored.own}
    edited = iter(kept_before)
    anew: list[int] = []
    texts: dict[int, str] = {}
    for k, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        row |= {name: values[k] for name, values in own.items()}
        row |= {f"{CLASSIFIER}{name}": value for name, value in row["classifiers"] or ()}
        text = next(edited) if row["verdict"] == "kept" else None
        failed = []
        if config.languages is not None and row["language"] not in config.languages and kind != "code":
            failed.append(LANGUAGE)
        failed += verdict(row, rules_for(config, kind, row["language"]).rules, row["language"]).rules
        if not failed and row["rules"] == [EMPTY]:
            failed = [EMPTY]
        if not failed and text is None:
            anew.append(k)
        elif not failed and text is not None:
            texts[k] = text
        elif row[f"{CONTAMINATED}_cut"] is not None:
            row[f"{CONTAMINATED}_cut"] = 0
        row |= {"verdict": "rejected" if failed else "kept", "rule": failed[0] if failed else None, "rules": failed}
    schema = schema_with(user.names(config))
    if anew:
        values = {name: [column[k] for k in anew] for name, column in own.items()}
        made, documents = curate_batch(raw.take(pa.array(anew)), config, trained, lambda *_: values)
        fresh = iter(documents["text"].to_pylist())
        for k, row in zip(anew, made.to_pylist(), strict=True):
            rows[k] = row
            if row["verdict"] == "kept":
                texts[k] = next(fresh)
    changed = {"verdict", "rule", "rules", f"{CONTAMINATED}_cut", f"{CONTAMINATED}_left", *own}
    columns = [
        pa.array([row[field.name] for row in rows], field.type) if field.name in changed else before[field.name]
        for field in schema
    ]
    return pa.table(columns, schema=schema), kept_documents(raw, sorted(texts), [texts[k] for k in sorted(texts)])


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
