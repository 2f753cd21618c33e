"""Small worlds for tests of training: a tokenizer, documents in shards, a reversal game for SFT, reward and PPO."""

from __future__ import annotations

import random
from pathlib import Path

from models.network import checkpoint
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.text.config import TokenizerConfig
from models.text.shards import write_shard
from models.text.tokenizer import train

DIGITS = "0123456789"


def words(folder: Path):
    """A tokenizer that has met the stories: most of their words are one token."""
    return train([text for _, text in stories(20, seed=9)], TokenizerConfig(vocabulary=326), folder)


def stories(number: int, seed: int = 0) -> list[tuple[bytes, str]]:
    """Documents that can be learned: sentences of a small grammar."""
    draw = random.Random(seed)
    documents = []
    for place in range(number):
        text = " ".join(
            f"the {draw.choice(['cat', 'dog', 'cow'])} {draw.choice(['sees', 'eats', 'likes'])} "
            f"the {draw.choice(['bird', 'tree', 'milk'])}."
            for _ in range(draw.randint(2, 12))
        )
        documents.append((place.to_bytes(16, "big"), text))
    return documents


def shard(folder: Path, documents, tokenizer):
    """Documents as one token shard; returns its folder."""
    write_shard(documents, tokenizer, folder, "part-0")
    return folder


def base(folder: Path, tokenizer, context: int = 24, seed: int = 0) -> Path:
    """A checkpoint with fresh weights, two layers, 0.1M parameters."""
    shape = NetworkConfig(layers=2, width=64, heads=4, kv_heads=2, context=context).sized(len(tokenizer))
    return checkpoint.save(build_model(shape, seed), tokenizer, folder)


def reversals(number: int, seed: int, digits: int = 5):
    """Pairs of (digits, the digits reversed)."""
    draw = random.Random(seed)
    asked = ["".join(draw.choice(DIGITS) for _ in range(digits)) for _ in range(number)]
    return [(question, question[::-1]) for question in asked]


def dialogue(question: str, answer: str):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def asked(pairs) -> list[dict]:
    """Questions and their answers as a policy's prompts."""
    return [
        {"id": f"{place:032x}", "source": "game", "messages": dialogue(question, "")[:1], "answer": answer}
        for place, (question, answer) in enumerate(pairs)
    ]


def conversations(dialogues):
    """Dialogues as methods that learn from them are given them."""
    return [{"messages": messages} for messages in dialogues]


def assert_told_alike(report: dict, other: dict) -> None:
    """Two reports of one training: equal but for how fast it went and where it began."""
    apart = {"tokens_per_s": 0, "memory_mb": 0, "computed": {}}
    assert {**report, **apart} == {**other, **apart}
