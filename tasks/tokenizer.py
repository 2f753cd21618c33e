"""The stage `tokenizer`: byte-level BPE, trained on the documents that train."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from datalake.errors import UserError
from datalake.lake.copies import near_folder, workplace
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.parquet import read_table
from models.text.config import TokenizerConfig
from tasks.cluster import run_alone
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import shards_of
from tasks.stage import stage
from tasks.tokens import _pairs, mixture_ids, selected_texts


def _train_tokenizer(
    documents: list[str], mixture: list[str], spans: list[str], config: TokenizerConfig, folder: Path
) -> None:
    """Train on the documents of the train split, an even sample of them where they exceed the config's cap."""
    from datalake.dedup.spans.cut import read_cuts
    from models.text.tokenizer import train

    wanted = mixture_ids(mixture, "train")

    def columns() -> Iterator[tuple[pa.Array, pa.Array]]:
        for file in documents:
            ids = read_table(file, ["id"])["id"] if spans else wanted[:0]
            yield from selected_texts(file, wanted, read_cuts(spans, ids.filter(pc.is_in(ids, wanted))))

    size = sum(pc.sum(pc.binary_length(texts)).as_py() or 0 for _, texts in columns())
    share = min(1.0, config.sample_bytes / max(size, 1))
    texts = (text for id, text in _pairs(columns()) if int.from_bytes(id[:8], "big") < share * 2**64)
    with workplace(folder) as here:
        train(texts, config, here)


def _take_tokenizer(place: Path, folder: Path) -> int:
    """Write a tokenizer that exists, once it can keep documents apart; how many tokens it has."""
    from datalake.atomic import whole_folder
    from models.text import tokenizer as text

    words = text.load(near_folder(place))
    text.edges(words)
    with whole_folder(folder) as part:
        text.save(words, part)
    return len(words)


class Vocabulary(NamedTuple):
    """A tokenizer."""

    tokenizer: Folder


@stage(Vocabulary, version="4", libraries=("tokenizers", "transformers"))
def tokenizer(
    config: TokenizerConfig,
    runtime: Runtime,
    documents: TableRef,
    mixture: TableRef,
    spans: TableRef | None = None,
    base: FolderRef | None = None,
) -> Produced:
    """Train a byte-level BPE tokenizer on the mixture's training documents, or take one that exists: that of the model
    to go on from, or one that is named."""
    lake = runtime.lake
    folder = runtime.folder
    if base is not None and config.path:
        raise UserError("tokenizer.path and base name a tokenizer each: leave one of them out")
    if base is not None or config.path:
        place = Path(config.path.paths[0]) if base is None else lake.path(base)
        config.path.check("tokenizer.path")
        size = run_alone(_take_tokenizer, place, folder, runtime=runtime)
        return Produced(folders={"tokenizer": folder}, counts={"vocabulary": size}, report={"vocabulary": size})
    files = [shard.payload for shard in shards_of(documents, runtime, config)]
    cuts = lake.files(spans) if spans else []
    run_alone(_train_tokenizer, files, lake.files(mixture), cuts, config, folder, runtime=runtime)
    size = len(json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"])
    return Produced(
        folders={"tokenizer": folder},
        counts={"vocabulary": size},
        records_in=mixture.rows,
        records_out=size,
        report={"vocabulary": size},
    )
