"""Sampling is a pure function of (seed, step), loses no token, and can be turned back into documents."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from datalake.document import document_id
from datalake.errors import UserError
from models.network.masks import within_documents
from models.text.config import TokenizerConfig
from models.text.sampler import IGNORED, Sampler, heldout
from models.text.shards import TokenShards, write_shard
from models.text.tokenizer import train

CONTEXT, BATCH = 16, 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> TokenShards:
    folder = tmp_path_factory.mktemp("shards")
    texts = [f"document {number}: " + "words and numbers " * (number % 7) for number in range(20)] + ["long " * 60, ""]
    tokenizer = train(texts, TokenizerConfig(vocabulary=306), folder / "tokenizer")
    documents = [(document_id("table", "a", str(number)), text) for number, text in enumerate(texts)]
    for half in range(2):
        write_shard(documents[half::2], tokenizer, folder / "shards", f"{half}")
    return TokenShards(folder / "shards")


def sampler(shards: TokenShards, seed: int = 1, repetitions: int = 1, batch: int = BATCH) -> Sampler:
    return Sampler(shards, [(number, repetitions) for number in shards.ids], seed, CONTEXT, batch)


def rows_of_epoch(sampled: Sampler, epoch: int) -> list[dict[str, torch.Tensor]]:
    rows = []
    for row in range(epoch * sampled.windows, (epoch + 1) * sampled.windows):
        batch = sampled.batch(row // sampled.batch_size)
        names = ("tokens", "targets", "positions", "segments")
        rows.append({name: getattr(batch, name)[row % sampled.batch_size] for name in names})
    return rows


@pytest.mark.parametrize("repetitions", [1, 3])
def test_an_epoch_holds_every_token_and_every_target_as_often_as_it_should(shards, repetitions: int) -> None:
    sampled = sampler(shards, repetitions=repetitions)
    for epoch in (0, 2):
        rows = rows_of_epoch(sampled, epoch)
        tokens = Counter(int(t) for row in rows for t in row["tokens"][row["segments"] >= 0])
        targets = Counter(int(t) for row in rows for t in row["targets"] if t != IGNORED)
        whole, after_first = Counter(), Counter()
        for number in range(len(shards)):
            whole.update(shards.tokens(number).tolist() * repetitions)
            after_first.update(shards.tokens(number)[1:].tolist() * repetitions)
        assert tokens == whole
        assert targets == after_first


def test_a_target_is_the_next_token_of_the_same_document(shards) -> None:
    for row in rows_of_epoch(sampler(shards), 0):
        for t in range(CONTEXT - 1):
            same = row["segments"][t] == row["segments"][t + 1] != -1
            assert row["targets"][t] == (row["tokens"][t + 1] if same else IGNORED)
            assert row["positions"][t + 1] == (row["positions"][t] + 1 if same else 0)
        assert row["positions"][0] == 0


def test_a_step_is_turned_back_into_the_tokens_it_saw(shards) -> None:
    sampled = sampler(shards)
    for step in range(12):
        batch = sampled.batch(step)
        seen = [
            shards.tokens(shards.number(number), start, length) for number, start, length in sampled.documents(step)
        ]
        assert np.concatenate(seen).tolist() == batch.tokens[batch.segments >= 0].tolist()


def test_any_step_is_the_same_from_a_fresh_start_and_in_any_order(shards) -> None:
    forward = sampler(shards)
    batches = [forward.batch(step) for step in range(30)]
    for step in (29, 0, 17, 3):
        again = sampler(shards).batch(step)
        back = forward.batch(step)
        for name in ("tokens", "targets", "positions", "segments"):
            assert torch.equal(getattr(batches[step], name), getattr(again, name))
            assert torch.equal(getattr(batches[step], name), getattr(back, name))


def test_the_order_of_rows_doesnt_depend_on_how_many_make_a_batch(shards) -> None:
    wide, narrow = sampler(shards, batch=6), sampler(shards, batch=2)
    rows = torch.cat([narrow.batch(step).tokens for step in range(9)])
    assert torch.equal(torch.cat([wide.batch(step).tokens for step in range(3)]), rows)


def test_epochs_and_seeds_differ(shards) -> None:
    first, second = (torch.stack([r["tokens"] for r in rows_of_epoch(sampler(shards), epoch)]) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.stack([r["tokens"] for r in rows_of_epoch(sampler(shards, seed=2), 0)]))


def test_repetition_zero_leaves_a_document_out(shards) -> None:
    chosen = [(number, int(place == 3)) for place, number in enumerate(shards.ids)]
    sampled = Sampler(shards, chosen, 0, CONTEXT, BATCH)
    assert {number for step in range(4) for number, _, _ in sampled.documents(step)} == {shards.ids[3]}
    with pytest.raises(UserError, match="no document to train on"):
        Sampler(shards, [(number, 0) for number in shards.ids], 0, CONTEXT, BATCH)


def test_a_document_that_was_not_tokenized_is_said_in_one_line(shards) -> None:
    with pytest.raises(UserError, match="isn't in the token shards"):
        Sampler(shards, [(b"\x01" * 16, 1)], 0, CONTEXT, BATCH)


def test_held_out_windows_predict_each_token_once_in_order(shards) -> None:
    chosen = shards.ids[4:9]
    batches = list(heldout(shards, chosen, CONTEXT, BATCH))
    tokens = torch.cat([b.tokens[b.segments >= 0] for b in batches])
    expected = [shards.tokens(shards.number(number)) for number in chosen]
    assert tokens.tolist() == np.concatenate(expected).tolist()
    targets = torch.cat([b.targets[b.targets != IGNORED] for b in batches])
    assert targets.tolist() == np.concatenate([document[1:] for document in expected]).tolist()
    for place, document in enumerate(expected):
        assert sum(int((b.targets[b.segments == place] != IGNORED).sum()) for b in batches) == len(document) - 1
    assert sum(len(b.tokens) for b in batches) == -(-len(tokens) // CONTEXT)


def test_the_mask_keeps_documents_apart(shards) -> None:
    batch = sampler(shards).batch(0)
    mask = within_documents(batch.segments)[:, 0]
    for row, first, second in np.ndindex(*mask.shape):
        same = batch.segments[row, first] == batch.segments[row, second]
        assert bool(mask[row, first, second]) == bool(same and second <= first)
