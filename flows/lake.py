"""A lake as people ask it: what a command shows is a method here, which a notebook calls and the command prints.

Answers are plain values (texts, numbers, lists, mappings: ids in hex, times in ISO 8601), the very ones that `--json`
prints; only `query` gives an Arrow table.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import UserError, note
from datalake.lake.lake import Lake as Store
from datalake.lake.ledger import ask, plain_value

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from datalake.lake.records import Manifest

Row = dict[str, Any]


def _order(store: Store, manifest: Manifest) -> pa.Table | None:
    from tasks.learning import order

    return order(store, manifest)


MADE = {"order": _order}  # tables that are worked out where a query names them


class Lake:
    """A lake that runs have made. `store` is the same for programs: files, references, records.

    >>> lake = Lake("lake")                                        # doctest: +SKIP
    >>> lake.query("SELECT verdict, count(*) FROM demo.ledger GROUP BY ALL").to_pandas()    # doctest: +SKIP
    """

    def __init__(self, folder: str | Path = "lake"):
        """Open the lake in a folder. Raises UserError where there is none."""
        self.store = Store(folder).require()

    def query(self, sql: str, run: str | None = None, allow_files: bool = False) -> pa.Table:
        """The rows of a DuckDB query: every corpus as its last finished run left it, or as `run` did.

        `allow_files`: SQL may read and write files of this machine. Raises UserError where the SQL is wrong.
        """
        columns, table, notes = ask(self.store, sql, run, allow_files, _arrow, MADE)
        for said in notes:
            note(said)
        return table.rename_columns(columns)

    def explain(self, document: str | bytes) -> list[Row]:
        """What became of every record with this address or id, and why: see `datalake.explain`.

        An id is given in hex, or as it stands in a table. Raises UserError where there is no such record.
        """
        from datalake.explain import explain

        asked = document.hex() if isinstance(document, bytes) else document
        return [plain_value(story) for story in explain(self.store, asked)]

    def trace(self, checkpoint: str = "last", step: int | None = None) -> list[Row]:
        """The stages that a model rests on, nearest first; or, with a `step` from 1, what that training step saw.

        `checkpoint` is a stage of the last run (`ppo`), a tag, a folder, or a fingerprint. What a step saw has `uri`,
        `source`, `language`, `id` and `tokens`, a row each, of a document also `first_token`.

        Raises:
            UserError: where there is no such checkpoint or step.
        """
        from datalake.lake.trace import ancestors, find_checkpoint, with_addresses
        from flows.stages import ANSWERING, TRAINING

        record = find_checkpoint(self.store, checkpoint, TRAINING, ANSWERING)
        if step is None:
            return [plain_value(one) for one in ancestors(self.store, record)]
        from tasks.learning import rows_of_step

        tables, seen = rows_of_step(self.store, record, step)
        return [plain_value(row) for row in with_addresses(self.store, record, seen, tables)]

    def tags(self) -> list[Row]:
        """The names that people gave to checkpoints, by name: `tag`, `fingerprint`, `stage`, `note`, `created`..."""
        from datalake.lake.tags import tags

        return [plain_value(row) for _, row in sorted(tags(self.store).items())]

    def tag(self, checkpoint: str, name: str, note: str = "", move: bool = False) -> Row:
        """Give a checkpoint, as for `trace`, a name that commands take for it.

        Raises UserError where another has it and it isn't to `move`, or no tag may be called so.
        """
        from datalake.lake.tags import tag
        from datalake.lake.trace import find_checkpoint
        from flows.stages import ANSWERING, STAGES, TRAINING

        record = find_checkpoint(self.store, checkpoint, TRAINING, ANSWERING)
        if record.stage not in TRAINING:
            raise UserError(f"{checkpoint} is a record of {record.stage}, which makes no model: tag a checkpoint")
        row: Row = plain_value(tag(self.store, name, record, note, move, frozenset((*STAGES, "last", "newest"))))
        return row

    def runs(self) -> list[Row]:
        """The runs of the lake, oldest first: when, how long, how far, with which figures."""
        from flows.report.runs import all_runs

        return [plain_value(row) for row in all_runs(self.store)]

    def compare(self, first: str, second: str) -> Row:
        """What two runs (an id, or the beginning of one) differ in: recipe, stages, counts, figures, evaluations."""
        from datalake.lake.records import find_manifest
        from flows.report.runs import compare

        compared: Row = plain_value(compare(self.store, *(find_manifest(self.store, name) for name in (first, second))))
        return compared

    def what_if(self, recipe: str | Path, set: Sequence[str]) -> Row:
        """What a recipe that was run would keep if a value were another, from the ledger, without rerunning.

        `set` is what to change, such as `["curate.thresholds.min_words=30"]`. Counts before and after, gained and
        lost, by source, language and rule, and some of the documents. Raises UserError where only a run can tell.
        """
        from flows.what_if import what_if

        answer: Row = plain_value(what_if(self.store, Path(recipe), set))
        return answer

    def similar(self, text: str, corpus: str | None = None, threshold: float | None = None) -> list[Row]:
        """Near duplicates of a text among the documents of a corpus: `uri`, `id`, `similarity`, `verdict`, best first.

        Similarity is Jaccard's, of word shingles; `threshold` is the corpus' own where it isn't given.
        """
        from datalake.dedup.similar import similar

        return [plain_value(row) for row in similar(self.store, text, corpus, threshold)]

    def tokens(self, corpus: str | None = None) -> Row:
        """What there is to train on: `corpus`, its different `tokens`, and of the recipe that left them the tokenizer's
        `vocabulary` and pretraining's `context` (None: it has none).

        Raises UserError where no corpus has tokens, or several have and none is named.
        """
        from datalake.lake.corpora import corpora
        from datalake.lake.ledger import connect

        shown = {one.name: one for one in corpora(self.store) if corpus in (None, one.name)}
        if corpus is not None and not shown:
            raise UserError(f"no finished run of a corpus {corpus!r}: `headwater runs` lists what there is")
        connection = connect(self.store, shown=list(shown.values()))
        rows = connection.execute("SELECT schema FROM (SHOW ALL TABLES) WHERE name = 'tokens'").fetchall()
        found = [name for name in shown if (name,) in rows]
        if len(found) > 1:
            raise UserError(f"the lake has tokens of {', '.join(found)}: choose one with --corpus")
        total = 0
        for name in found:
            [[total]] = connection.execute(f'SELECT sum(distinct_tokens) FROM "{name}".tokens').fetchall()
        if not total:
            raise UserError(f"{self.store.root} has no tokens: run a recipe up to `--until tokenize` first")
        recipe = shown[found[0]].manifest.recipe
        return {
            "corpus": found[0],
            "tokens": int(total),
            "vocabulary": (recipe.get("tokenizer") or {}).get("vocabulary"),
            "context": (recipe.get("pretrain") or {}).get("context"),
        }

    def report(self, run: str = "last", out: Path | None = None) -> Row:
        """Write one HTML page about a run into the lake, or to `out`: `report` is its place."""
        from flows.report.page import write_report

        return write_report(self.store, run, out)

    def maintain(self, days: float = 30, abandoned: bool = False, apply: bool = False) -> Row:
        """What nothing in the lake needs any more, and hasn't changed for so many days: `found`, each with its `kind`,
        `path`, `bytes`, `files` and `why`. With `apply` it is removed. See `datalake.lake.upkeep`.

        Raises UserError for less than a day.
        """
        from datalake.lake.upkeep.maintain import maintain

        done = maintain(self.store, days, abandoned, apply)
        return {
            "applied": apply,
            "bytes": sum(one.bytes for one in (done.removed if apply else done.found)),
            "found": [one._asdict() | {"removed": one in done.removed} for one in done.found],
            "notes": done.notes,
        }

    def labels(self) -> Row:
        """What people said of answers (`pairs`) and of `documents`: how many labels, whose, how far they agree."""
        from flows.label.labels import Labels
        from flows.label.summary import summary

        return summary(Labels(self.store.root))

    def card(self, checkpoint: str, name: str, run: str | None = None, license: str | None = None) -> str:
        """The model card of a checkpoint that this lake made, in Markdown with the hub's head, called `name`.

        `checkpoint` as for `trace`, of the last run that has it or of `run`. Raises UserError where there is none.
        """
        from datalake.lake.records import find_manifest
        from datalake.lake.trace import find_checkpoint, find_manifest_of
        from flows.report.card import model_card
        from flows.stages import ANSWERING, TRAINING

        record = find_checkpoint(self.store, checkpoint, TRAINING, ANSWERING, run)
        manifest = find_manifest(self.store, run) if run else find_manifest_of(self.store, record)
        return model_card(self.store, record, manifest, name, license)

    def export_table(
        self, table: str, out: str | Path, run: str | None = None, license: str | None = None, force: bool = False
    ) -> Row:
        """Write a table (`demo.documents`) or the rows of a query as Parquet files with a dataset card.

        `run`: as that run left it. Raises UserError where there is no such table, or `out` is there already.
        """
        from datalake.lake.export import write_rows
        from flows.report.card import dataset_card
        from models.export.destination import CARD, destination

        out = Path(out).expanduser().absolute()
        with destination(out, force) as place:
            exported = write_rows(self.store, table, place / "data", run)
            card = dataset_card(self.store, table, exported, out.name, run, license)
            (place / CARD).write_text(card, encoding="utf-8")
        for said in exported.notes:
            note(said)
        return {
            "export": str(out),
            "rows": exported.rows,
            "files": [CARD, *(f"data/{name}" for name in exported.files)],
        }


def _arrow(result: duckdb.DuckDBPyConnection) -> pa.Table:
    """DuckDB's result as an Arrow table; sums of integers, 128 bits wide there, are int64 where they fit."""
    import pyarrow as pa

    with warnings.catch_warnings(action="ignore"):  # that a query's result is copied once more
        table: Any = result.to_arrow_table()
    for k, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            with suppress(pa.ArrowInvalid):
                table = table.set_column(k, field.name, table.column(k).cast(pa.int64()))
    return table
