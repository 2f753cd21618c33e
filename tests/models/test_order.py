"""A step that is told again is the step that was trained, counted as the metrics count."""

from __future__ import annotations

import pytest
import torch
from toys import asked, base, conversations, dialogue, reversals, shard, stories, words

from datalake.errors import UserError
from models.methods.ppo import PpoConfig, ppo
from models.methods.pretrain import PretrainConfig, pretrain
from models.methods.reward import RewardConfig, reward
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.objectives import assistant_tokens, bradley_terry
from models.rl.engine import Engine
from models.text import sampler
from models.text.shards import TokenShards
from models.training.metrics import read_metrics

SHORT = {"batch": 4, "steps": 7, "checkpoint_every": 100, "eval_every": 0, "warmup": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("order")
    tokenizer = words(folder / "tokenizer")
    return {"folder": folder, "tokenizer": tokenizer, "base": base(folder / "base", tokenizer)}


def steps_of(out):
    return [row["step"] for row in read_metrics(out / "metrics.jsonl")]


def test_pretraining(world, tmp_path, monkeypatch):
    folder = shard(tmp_path / "tokens", stories(20), world["tokenizer"])
    train = [(id, 1 + place % 2) for place, id in enumerate(TokenShards(folder).ids)]
    shape = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "context": 32}
    config = PretrainConfig(**shape, **SHORT)
    seen = []
    plain = sampler.Sampler.batch
    monkeypatch.setattr(sampler.Sampler, "batch", lambda self, step: seen.append(plain(self, step)) or seen[-1])
    pretrain(config, [folder], train, [], world["folder"] / "tokenizer", tmp_path / "out")
    tokens = TokenShards(folder)
    assert steps_of(tmp_path / "out") == list(range(1, 8))
    for step, batch in zip(range(1, 8), seen, strict=True):
        told = [
            tokens.tokens(tokens.number(id), first, count).tolist()
            for id, first, count in pretrain.seen(config, step, shards=[folder], train=train, heldout=[])
        ]
        read = batch.tokens[batch.segments >= 0].tolist()
        assert [token for piece in told for token in piece] == read
    for step in (0, 8, -1):
        with pytest.raises(UserError, match="7 steps, 1 to 7"):
            pretrain.seen(config, step, shards=[folder], train=train, heldout=[])


def test_supervised_tuning(world, tmp_path, monkeypatch):
    talks = [dialogue("9", "9")[:1], *[dialogue(*pair) for pair in reversals(17, seed=1)], dialogue("1", "7" * 60)]
    config = SftConfig(**SHORT)
    seen = []
    plain = assistant_tokens.collate
    monkeypatch.setattr(assistant_tokens, "collate", lambda items, packed: seen.append(items) or plain(items, packed))
    report = sft(config, world["base"], conversations(talks), [], tmp_path)
    assert (report["dropped"], report["cut"]) == (1, 1)
    given = {"base": world["base"], "conversations": conversations(talks), "heldout": []}
    fitted = sft.data(config, **given).fitted
    of = dict(zip(fitted.numbers, fitted.items, strict=True))
    assert steps_of(tmp_path) == list(range(1, 8))
    for step, items in zip(range(1, 8), seen, strict=True):
        told = sft.seen(config, step, **given)
        assert [of[number] for number, _ in told] == items
        assert [tokens for _, tokens in told] == [len(ids) for ids, _ in items]
    with pytest.raises(UserError, match="1 to 7"):
        sft.seen(config, 0, **given)


def test_the_reward_model_and_ppo(world, tmp_path, monkeypatch):
    prompt = [{"role": "user", "content": "1"}]
    pairs = [
        {"prompt": prompt, "chosen": "7", "rejected": "7"},
        *[{"prompt": prompt, "chosen": a, "rejected": b} for a, b in reversals(17, seed=2) if a != b],
    ]
    config = RewardConfig(**SHORT)
    seen = []
    plain = bradley_terry.collate
    monkeypatch.setattr(bradley_terry, "collate", lambda items, *more: seen.append(items) or plain(items, *more))
    reward(config, world["base"], pairs, [], tmp_path / "reward")
    given = {"base": world["base"], "pairs": pairs, "heldout": []}
    fitted = reward.data(config, **given).fitted
    of = dict(zip(fitted.numbers, fitted.items, strict=True))
    for step, items in zip(range(1, 8), seen, strict=True):
        assert [of[number] for number, _ in reward.seen(config, step, **given)] == items

    judge = tmp_path / "reward" / "checkpoint"
    few = PpoConfig(batch=4, minibatches=1, epochs=1, steps=3, new_tokens=4, checkpoint_every=100, exact="off")
    prompts = [{"messages": []}, *asked(reversals(5, seed=3))]
    answered = []
    plain = Engine.__call__
    monkeypatch.setattr(Engine, "__call__", lambda self, *given: answered.append(given[0]) or plain(self, *given))
    torch.manual_seed(0)
    report = ppo(few, world["base"], prompts, [], judge, tmp_path / "ppo")
    assert [line[:1] for line in report["left_out"]] == [[0]]
    given = {"policy": world["base"], "reward_model": judge, "prompts": prompts, "heldout": []}
    rendered = ppo.data(few, **given).fitted
    ids = dict(zip(rendered.numbers, rendered.items, strict=True))
    for step, rows in zip(range(1, 4), answered, strict=True):
        told = ppo.seen(few, step, **given)
        assert [ids[number] for number, _ in told] == rows


def test_a_context_is_told_without_the_weights(world, tmp_path):
    for model in (world["base"],):
        assert checkpoint.context_of(model) == checkpoint.load(model)[0].config.context
    with pytest.raises(UserError, match="can't be read"):
        checkpoint.context_of(tmp_path)
