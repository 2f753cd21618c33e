"""What an epoch of pretraining is made of, in tokens: the mixture joined with the index of the token shards.

The mixture is asked for, and shared out, in words, since it is made before there is a tokenizer; what a source comes to
in tokens depends on its language and the tokenizer. `<corpus>.tokens` tells it by source and language.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from datalake.errors import LostDataError, first_line
from datalake.holdout import repetitions
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.parquet import scan

if TYPE_CHECKING:
    import duckdb


def token_indices(lake: Lake, tokens: FolderRef) -> list[Path]:
    """The index files of token shards, in their fixed order. Raises LostDataError where their list can't be read."""
    path = lake.path(tokens) / "tokens.json"
    try:
        listed = [shard["index"] for shard in json.loads(path.read_bytes())["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LostDataError(str(path), first_line(error)) from None
    return [lake.inside(index) for index in listed]


def add_tokens_view(connection: duckdb.DuckDBPyConnection, corpus: str, indices: list[Path], seed: int) -> None:
    """Make `<corpus>.tokens`, beside a `mixture` whose repetitions are drawn by `seed`.

    `documents` train; `tokens` are those of an epoch, each document as often as it is seen; `share` is of all of these;
    `distinct_tokens` counts each document once. `heldout_documents` and `heldout_tokens` never train.
    """
    name = f"repetitions of {corpus}"
    connection.create_function(
        name, lambda epochs, id: repetitions(epochs, bytes(id), seed), ["DOUBLE", "BLOB"], "BIGINT"
    )
    connection.execute(f"""
        CREATE VIEW "{corpus}".tokens AS
        SELECT source, language, documents, tokens, tokens / nullif(sum(tokens) OVER (), 0) AS share, distinct_tokens,
               heldout_documents, heldout_tokens
        FROM (SELECT source, language,
                     count(*) FILTER (times > 0) AS documents,
                     coalesce(sum(length * times), 0)::BIGINT AS tokens,
                     coalesce(sum(length) FILTER (times > 0), 0)::BIGINT AS distinct_tokens,
                     count(*) FILTER (split = 'heldout') AS heldout_documents,
                     coalesce(sum(length) FILTER (split = 'heldout'), 0)::BIGINT AS heldout_tokens
              FROM (SELECT source, language, split, i.length AS length,
                           CASE WHEN split = 'train' THEN "{name}"(epochs, m.id) ELSE 0 END AS times
                    FROM "{corpus}".mixture m
                    JOIN (SELECT id, sum(length) AS length FROM {scan([str(index) for index in indices])} GROUP BY id) i
                    ON i.id = m.id)
              GROUP BY source, language)
        ORDER BY tokens DESC, source, language""")
