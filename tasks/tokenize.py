"""The stage `tokenize`: token shards with their index, one for each file of documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from datalake.atomic import remove_leftovers, write_atomically
from datalake.dedup.spans.cut import read_cuts
from datalake.identity import fingerprint
from datalake.lake.copies import near_folder, workplace
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.parquet import read_table
from datalake.lake.shards import ShardFile, ShardResult, finish_shard, written_file
from datalake.places import place
from tasks.cluster import Shard
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import map_all, shards_of
from tasks.stage import stage
from tasks.tokens import _pairs, selected_texts, split_documents


class TokenizeConfig(BaseModel):
    """Nothing to set: the tokenizer and the documents say it all."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _left_out_file(folder: Path, failed: Sequence[tuple[bytes, str]]) -> ShardFile:
    """Documents without tokens, and why, beside the tokens of the others."""
    path = folder / "left_out.parquet"
    rows = [{"id": id, "reason": reason} for id, reason in failed]
    sink = pa.BufferOutputStream()
    schema = pa.schema([("id", pa.binary(16)), ("reason", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, write_page_checksum=True)
    write_atomically(path, sink.getvalue().to_pybytes())
    return written_file("left_out", path, len(rows))


def _tokenize_shard(shard: Shard) -> ShardResult:
    """The tokens of the documents chosen from one file."""
    from models.text.shards import write_shard
    from models.text.tokenizer import load

    documents, chosen, cuts, tokenizer_folder = shard.payload
    assert shard.folder is not None
    remove_leftovers(shard.folder)
    wanted = pa.chunked_array([pa.array(chosen, pa.binary(16))])
    texts = _pairs(selected_texts(documents, wanted, cuts))
    written = write_shard(texts, load(near_folder(tokenizer_folder)), shard.folder, "tokens")
    result = ShardResult(shard.name, shard.key)
    for table, path in (("index", written.index_path), ("tokens", written.tokens_path)):
        result.files.append(written_file(table, path, written.documents))
    result.counts = {"documents": written.documents, "tokens": written.tokens, "bytes": written.bytes}
    if written.left_out:
        result.counts["left_out"] = len(written.left_out)
        result.files.append(_left_out_file(shard.folder, written.left_out))
    finish_shard(shard.folder, result)
    return result


class Tokenized(NamedTuple):
    """The list of token shards."""

    tokens: Folder


@stage(Tokenized, version="4", libraries=("tokenizers", "transformers", "numpy"))
def tokenize(
    config: TokenizeConfig,
    runtime: Runtime,
    documents: TableRef,
    mixture: TableRef,
    tokenizer: FolderRef,
    repetition_seed: int,
    spans: TableRef | None = None,
) -> Produced:
    """Encode every document that trains or is held out into memory-mapped token shards with an index."""

    lake = runtime.lake
    train, heldout = split_documents(lake, mixture, repetition_seed)
    wanted = pa.array([*(id for id, times in train if times), *heldout], pa.binary(16))
    files = lake.files(spans) if spans else []
    shards = []
    for shard in shards_of(documents, runtime, config):
        # A shard's tokens change with the documents chosen in its file and what is cut from these, not with what is
        # chosen and cut elsewhere.
        ids = read_table(shard.payload, ["id"])["id"]
        chosen = ids.filter(pc.is_in(ids, wanted)).to_pylist()
        if not chosen:
            continue
        source = {"file": shard.key, "ids": fingerprint(chosen), "tokenizer": tokenizer.data_version}
        cuts = read_cuts(files, pa.array(chosen, pa.binary(16)))
        if cuts:
            source["cut"] = fingerprint({id.hex(): spans for id, spans in cuts.items()})
        key = runtime.shard_key(config, source)
        payload = (shard.payload, chosen, cuts, lake.path(tokenizer))
        shards.append(Shard(shard.name, key, payload, lake.shard_folder("tokenize", key)))
    done = map_all(_tokenize_shard, shards, runtime, "tokenize")
    results, counts = done.results, done.counts
    listed = [
        {"index": lake.relative(place(r.files[0].path)), "digests": [f.digest for f in r.files], **r.counts}
        for r in results
    ]
    with workplace(runtime.folder) as here:
        write_atomically(here / "tokens.json", json.dumps({"shards": listed}, indent=1, sort_keys=True).encode())
    return Produced(
        folders={"tokens": runtime.folder},
        named={"tokens": [file for result in results for file in result.files]},
        counts=counts,
        records_in=mixture.rows,
        records_out=counts.get("documents", 0),
        equations=[]
        if done.failed
        else [
            (
                "documents chosen = with tokens + left out",
                len(wanted),
                counts.get("documents", 0) + counts.get("left_out", 0),
            )
        ],
        unfinished=done.failed,
        left_out=[
            row for r in results for f in r.files if f.table == "left_out" for row in read_table(f.path).to_pylist()
        ],
        note=f"{counts['left_out']:,} documents left out: the tokenizer failed on them" if "left_out" in counts else "",
    )
