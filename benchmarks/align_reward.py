"""Reward models on a CPU: tokens a second of an 8.9M-parameter Llama with a scalar head, beside TRL's RewardTrainer.

    .venv/bin/python benchmarks/align_reward.py [--rounds 5] [--steps 8] [--threads 2]

Contestants, each in a process of its own, in turns, in an order that rotates from round to round:

- `headwater`: `fit` with the objective, optimizer and memory settings of the reward model;
- `trl`: `trl.RewardTrainer` with its defaults on the same pairs.

Both train in float32 on the same pairs of random tokens, answers of a length of their own each, in the same batches.
What counts are the tokens of answers and prompts, padding left out. The first two steps aren't counted; a contestant's
figure in a round is that of its median step. Prints medians and, over the rounds, the median ratio. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

SHAPE = {"vocabulary": 8192, "width": 256, "hidden": 688, "layers": 6, "heads": 4}
FIRST = 2  # steps that make things ready


def pairs(options: argparse.Namespace) -> list[list[tuple[list[int], list[int]]]]:
    """The pairs of each step, as token ids: a chosen and a rejected dialogue."""
    import numpy as np

    draw = np.random.default_rng(0)

    def one() -> list[int]:
        length = int(draw.integers(options.length // 2, options.length + 1))
        return [int(token) for token in draw.integers(1, SHAPE["vocabulary"], length)]

    return [[(one(), one()) for _ in range(options.batch)] for _ in range(FIRST + options.steps)]


def headwater(options: argparse.Namespace) -> list[float]:
    """When steps ended, in seconds."""
    from models.methods.reward import RewardConfig
    from models.network.build import ScalarHead, build_model
    from models.network.config import NetworkConfig
    from models.objectives.bradley_terry import bradley_terry, collate
    from models.training.loop import Callback, Run, fit
    from models.training.optimizer import build_optimizer
    from models.training.schedule import build_schedule
    from models.training.state import State

    given = pairs(options)
    model = ScalarHead(build_model(NetworkConfig(**SHAPE, context=options.length, tie=False), 0), "normal")
    ended: list[float] = []

    class Clock(Callback):
        def on_step(self, run: Run, row: dict[str, float]) -> None:
            ended.append(time.perf_counter())

    fit(
        model,
        bradley_terry(),
        lambda step: [[collate(given[step])]],
        build_optimizer(RewardConfig(), {"model": model}),
        build_schedule("constant", len(given)),
        [Clock()],
        State(),
        steps=len(given),
    )
    return ended


def trl(options: argparse.Namespace) -> list[float]:
    """When steps ended, in seconds."""
    import datasets
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=SHAPE["vocabulary"],
        hidden_size=SHAPE["width"],
        intermediate_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        num_key_value_heads=SHAPE["heads"],
        max_position_embeddings=options.length,
        use_cache=False,
        num_labels=1,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1}, "<unk>"))
    rows = [{"chosen_ids": chosen, "rejected_ids": rejected} for step in pairs(options) for chosen, rejected in step]
    ended: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    with tempfile.TemporaryDirectory() as folder:
        arguments = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            max_steps=FIRST + options.steps,
            max_length=options.length,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        InOrder(
            model=LlamaForSequenceClassification(shape).float(),
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>"),
            callbacks=[Clock()],
        ).train()
    return ended


CONTESTANTS = {"headwater": headwater, "trl": trl}


def alone(options: argparse.Namespace) -> None:
    """One contestant, in this process: prints its tokens a second."""
    import torch

    torch.set_num_threads(options.threads)
    ended = CONTESTANTS[options.only](options)
    tokens = [sum(len(ids) for pair in step for ids in pair) for step in pairs(options)]
    steps = zip(tokens[FIRST:], ended[FIRST - 1 :], ended[FIRST:], strict=False)
    print(json.dumps(statistics.median(amount / (end - start) for amount, start, end in steps)))


def main() -> None:
    """All contestants in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rounds", 5), ("steps", 8), ("threads", 2), ("batch", 8), ("length", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", choices=CONTESTANTS)
    options = parser.parse_args()
    if options.only:
        return alone(options)
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    numbers = ("steps", "threads", "batch", "length")
    told = [f"--{name}={getattr(options, name)}" for name in numbers]
    for turn in range(options.rounds):
        names = list(CONTESTANTS)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            done = subprocess.run(
                [sys.executable, __file__, "--only", name, *told],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(options.threads)},
            )
            found[name].append(float(done.stdout.splitlines()[-1]))
            print(f"round {turn + 1} {name}: {found[name][-1]:,.0f} tokens/s", flush=True)
    ratio = statistics.median(one / other for one, other in zip(found["headwater"], found["trl"], strict=True))
    for name, figures in found.items():
        print(f"{name}: {statistics.median(figures):,.0f} tokens/s")
    print(f"headwater / trl: {ratio:.2f}")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
    print(json.dumps({"tokens_per_s": found, "ratio": ratio, "versions": versions, "machine": platform.machine()}))
    return None


if __name__ == "__main__":
    main()
