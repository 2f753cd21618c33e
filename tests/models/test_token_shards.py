"""Token shards give back every document, and equal input gives equal bytes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datalake.document import document_id
from datalake.errors import UserError
from models.text.config import BOS, EOS, TokenizerConfig
from models.text.shards import TokenShards, write_shard
from models.text.tokenizer import encode, special, train

TEXTS = ["The river runs to the sea.", "水往低处流。🌊", "", "x = [1, 22, 333]\n" * 40, "He wrote <|eos|> in the text."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train(TEXTS, TokenizerConfig(vocabulary=326), tmp_path_factory.mktemp("tokenizer") / "t")


def named(texts: list[str]) -> list[tuple[bytes, str]]:
    return [(document_id("table", "a", str(number)), text) for number, text in enumerate(texts)]


def test_every_document_is_its_tokens_between_bos_and_eos(tmp_path: Path, tokenizer) -> None:
    documents = named(TEXTS)
    written = write_shard(documents, tokenizer, tmp_path, "00000")
    shards = TokenShards(tmp_path)
    bos, eos = special(tokenizer, BOS), special(tokenizer, EOS)
    assert shards.ids == [number for number, _ in documents]
    for number, text in documents:
        found = shards.tokens(shards.number(number)).tolist()
        assert found == [bos, *encode(tokenizer, [text])[0], eos]
        assert tokenizer.decode(found[1:-1]) == text
        assert eos not in found[1:-1]
    assert written.tokens == shards.total == (tmp_path / "00000.bin").stat().st_size // 2
    assert written.bytes == shards.sizes.sum() == sum(len(text.encode()) for text in TEXTS)
    index = pq.read_table(tmp_path / "00000.index.parquet")
    assert index.column_names[:4] == ["id", "shard", "start", "length"]
    assert index["start"].to_pylist() == [0, *np.cumsum(shards.lengths)[:-1]]


def test_equal_documents_give_equal_bytes_and_nothing_else_is_left(tmp_path: Path, tokenizer) -> None:
    for folder in ("a", "b"):
        write_shard(iter(named(TEXTS * 100)), tokenizer, tmp_path / folder, "x")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["x.bin", "x.index.parquet"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_failing_source_leaves_nothing_behind(tmp_path: Path, tokenizer) -> None:
    def broken():
        yield from named(TEXTS)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_shard(broken(), tokenizer, tmp_path / "out", "x")
    assert list((tmp_path / "out").iterdir()) == []


def test_several_shards_read_as_one_and_travel_to_other_processes(tmp_path: Path, tokenizer) -> None:
    documents = named(TEXTS)
    write_shard(documents[3:], tokenizer, tmp_path, "b")
    write_shard(documents[:3], tokenizer, tmp_path, "a")
    write_shard([], tokenizer, tmp_path, "c")
    shards = TokenShards([tmp_path / "b.bin", tmp_path / "a.index.parquet"])
    assert shards.ids == [number for number, _ in documents[3:] + documents[:3]]
    shards.tokens(0)
    again = pickle.loads(pickle.dumps(shards))
    assert [again.tokens(n).tolist() for n in range(5)] == [shards.tokens(n).tolist() for n in range(5)]
    assert TokenShards(tmp_path).ids == [number for number, _ in documents]
    assert shards.tokens(0, 2, 3).tolist() == shards.tokens(0).tolist()[2:5]
    assert documents[0][0] in shards
    assert b"0" * 16 not in shards


def test_a_large_vocabulary_is_written_in_four_bytes(tmp_path: Path, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(type(tokenizer), "__len__", lambda self: 65536)
    write_shard(named(TEXTS), tokenizer, tmp_path, "wide")
    monkeypatch.undo()
    write_shard(named(TEXTS), tokenizer, tmp_path, "zslim")
    wide, slim = TokenShards(tmp_path / "wide.bin"), TokenShards(tmp_path / "zslim.bin")
    assert wide.tokens(0).dtype == np.uint32
    assert slim.tokens(0).dtype == np.uint16
    assert [wide.tokens(n).tolist() for n in range(5)] == [slim.tokens(n).tolist() for n in range(5)]


def test_what_is_no_shard_is_said_in_one_line(tmp_path: Path, tokenizer) -> None:
    with pytest.raises(UserError, match="no token shards"):
        TokenShards(tmp_path)
    with pytest.raises(UserError, match="no token shard at"):
        TokenShards(tmp_path / "nothing.bin")
    write_shard(named(TEXTS), tokenizer, tmp_path, "x")
    with pytest.raises(UserError, match="twice"):
        TokenShards([tmp_path, tmp_path])
    whole = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(whole[:-2])
    with pytest.raises(UserError, match="doesn't fit its index"):
        TokenShards(tmp_path)
    (tmp_path / "x.bin").unlink()
    with pytest.raises(UserError, match="missing beside its index"):
        TokenShards(tmp_path)


class Panic(BaseException):
    """As the tokenizer's Rust ends: no Exception."""


def test_a_document_that_the_tokenizer_fails_on_costs_no_other_its_tokens(
    tmp_path: Path, tokenizer, monkeypatch
) -> None:
    from models.text import shards as room

    def failing(words, texts):
        if any("333" in text for text in texts):
            raise Panic("retry-limit-in-match\nover")
        return encode(words, texts)

    monkeypatch.setattr(room, "encode", failing)
    documents = named(TEXTS)
    written = write_shard(documents, tokenizer, tmp_path, "00000")
    assert written.left_out == ((documents[3][0], "the tokenizer failed: retry-limit-in-match over"),)
    shards = TokenShards(tmp_path)
    assert shards.ids == [number for number, text in documents if "333" not in text]
    assert tokenizer.decode(shards.tokens(1)[1:-1].tolist()) == TEXTS[1]

    def interrupted(words, texts):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shard(documents, tokenizer, tmp_path / "b", "00000")
