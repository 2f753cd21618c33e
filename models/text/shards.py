"""Token shards: documents as tokens in a flat file, with an index that finds each of them again.

`<name>.bin` holds token ids one after the other, little-endian uint16 (uint32 for vocabularies above 65,535). Every
document is <|bos|>, its tokens, <|eos|>, or what its tokenizer has of these two. `<name>.index.parquet` has a row for
each document: its id, the shard's name, where it starts and how long it is in tokens, and the bytes of its text. Both
appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from datalake.atomic import sync, whole_file
from datalake.errors import UserError
from datalake.lake.copies import near_shard
from datalake.lake.parquet import read_table
from datalake.places import is_place, make_folder, place
from datalake.tables import ID
from models.text.tokenizer import edges, encode, vocabulary_size

INDEX = pa.schema(
    [
        ("id", ID),
        ("shard", pa.string()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
_BATCH = 256  # documents handed to the tokenizer at once: enough to use its threads, little memory
_CHARACTERS = 16_000_000  # of their text at once


LeftOut = tuple[bytes, str]  # a document's id, and why it has no tokens


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """What `write_shard` wrote: two paths, documents, tokens (those at their edges counted) and bytes of text.

    `left_out`: (id, why) of each document that the tokenizer failed on; it is not in the shard.
    """

    tokens_path: Path
    index_path: Path
    documents: int
    tokens: int
    bytes: int
    left_out: tuple[LeftOut, ...] = ()


def write_shard(
    documents: Iterable[tuple[bytes, str]], tokenizer: PreTrainedTokenizerBase, folder: Path | str, name: str
) -> ShardFiles:
    """Write documents (16-byte id, text) in their order as one shard. Equal documents and tokenizer give equal bytes.

    The index is renamed last: a shard exists when its index does.
    """
    folder = place(folder)
    make_folder(folder)
    vocabulary, (bos, eos) = vocabulary_size(tokenizer), edges(tokenizer)
    dtype = np.dtype("<u2") if vocabulary <= 65535 else np.dtype("<u4")
    before, after = ([] if token is None else [token] for token in (bos, eos))
    ids: list[bytes] = []
    lengths: list[int] = []
    sizes: list[int] = []
    left_out: list[tuple[bytes, str]] = []
    tokens_path, index_path = folder / f"{name}.bin", folder / f"{name}.index.parquet"
    with whole_file(index_path) as index, whole_file(tokens_path) as stream:  # the tokens are renamed first
        for batch in _batches(documents):
            for number, text, tokens in _encoded(tokenizer, batch):
                if isinstance(tokens, str):
                    left_out.append((number, tokens))
                    continue
                tokens = [*before, *tokens, *after]
                np.array(tokens, dtype).tofile(stream)
                ids.append(number)
                lengths.append(len(tokens))
                sizes.append(len(text.encode("utf-8", "replace")))
        length = np.array(lengths, np.int64)
        start = np.cumsum(length) - length
        table = pa.table([ids, [name] * len(ids), start, length, sizes], schema=INDEX)
        details = {"dtype": dtype.name, "vocabulary": str(vocabulary), "bos": str(bos), "eos": str(eos)}
        pq.write_table(table.replace_schema_metadata(details), index, compression="zstd")
    sync(folder)
    return ShardFiles(tokens_path, index_path, len(ids), int(length.sum()), sum(sizes), tuple(left_out))


def _batches(documents: Iterable[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
    """Documents in batches of so many, or of so much text."""
    batch: list[tuple[bytes, str]] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document[1])
        if len(batch) == _BATCH or size >= _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[tuple[bytes, str]]
) -> Iterator[tuple[bytes, str, list[int] | str]]:
    """Each document with its tokens, or with why the tokenizer failed on it: that costs no other document its own."""
    try:
        found: list[list[int] | str] = list(encode(tokenizer, [text for _, text in batch]))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the tokenizer's Rust is no Exception
        if len(batch) > 1:
            for one in batch:
                yield from _encoded(tokenizer, [one])
            return
        found = [f"the tokenizer failed: {' '.join(str(error).split())[:200]}"]
    for (number, text), tokens in zip(batch, found, strict=True):
        yield number, text, tokens


class TokenShards:
    """Documents of many shards by number, in the order of the shards given and, within one, of its index.

    `ids` (list of 16 bytes), `lengths` (int64, tokens) and `sizes` (int64, bytes of text) run over all documents.
    Files are mapped into memory when first read.
    """

    def __init__(self, places: Any):
        """`places`: one or several folders of shards (in the order of their paths), index files, or .bin files."""
        if isinstance(places, str) or is_place(places):
            places = [places]
        indices = [near_shard(index) for one in places for index in _indices(place(one))]
        self._files: list[tuple[Path, np.dtype]] = []
        self._maps: dict[int, np.ndarray] = {}
        self.ids: list[bytes] = []
        columns: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.vocabulary = 0
        for number, index in enumerate(indices):
            table = read_table(index)
            details = table.schema.metadata or {}
            if b"dtype" not in details:
                raise UserError(f"{index} is no index of token shards: give the folder that the tokenize stage wrote")
            path = index.with_name(index.name.removesuffix(".index.parquet") + ".bin")
            if not path.is_file():
                raise UserError(f"{path} is missing beside its index: run the recipe again")
            dtype = np.dtype(details[b"dtype"].decode()).newbyteorder("<")
            self.vocabulary = max(self.vocabulary, int(details[b"vocabulary"]))
            self._files.append((path, dtype))
            self.ids += table["id"].to_pylist()
            start, length = (table[column].to_numpy() for column in ("start", "length"))
            if length.sum() * dtype.itemsize != path.stat().st_size:
                raise UserError(f"{path} doesn't fit its index: run the recipe again")
            columns.append((np.full(len(start), number), start, length, table["bytes"].to_numpy()))
        empty = np.zeros(0, np.int64)
        self._shard, self._start, self.lengths, self.sizes = (
            np.concatenate(parts).astype(np.int64) if parts else empty
            for parts in (list(zip(*columns, strict=True)) or [()] * 4)
        )
        self._number = {document: number for number, document in enumerate(self.ids)}
        if len(self._number) != len(self.ids):
            raise UserError("a document is in these token shards twice: give each shard once")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total(self) -> int:
        """Tokens of all documents."""
        return int(self.lengths.sum())

    def number(self, document: bytes) -> int:
        """The number of a document. Raises KeyError for one that isn't here."""
        return self._number[document]

    def __contains__(self, document: object) -> bool:
        return document in self._number

    def tokens(self, number: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Token ids of a document, <|bos|> and <|eos|> included, or a stretch of them: a view into the file."""
        shard = int(self._shard[number])
        if shard not in self._maps:
            path, dtype = self._files[shard]
            self._maps[shard] = np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)
        first = int(self._start[number]) + start
        last = int(self._start[number] + self.lengths[number])
        return self._maps[shard][first : last if length is None else min(last, first + length)]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": {}}  # a mapped file travels as its name

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.ids)


def _indices(there: Path) -> list[Path]:
    if there.is_dir():
        found = sorted(there.rglob("*.index.parquet"))
        if not found:
            raise UserError(f"{there} holds no token shards: give the folder that the tokenize stage wrote")
        return found
    if there.suffix == ".bin":
        there = there.with_name(f"{there.stem}.index.parquet")
    if not there.is_file():
        raise UserError(f"no token shard at {there}: give the folder that the tokenize stage wrote")
    return [there]
