"""Pretraining on a CPU: tokens a second of an 8.9M-parameter Llama, beside transformers.Trainer and hand-written loops.

    .venv/bin/python benchmarks/pretrain.py [--rounds 5] [--steps 8] [--threads 2] [--compiled]

Contestants, each in a process of its own, in turns, in an order that rotates from round to round:

- `headwater`: `fit` with pretraining's objective, optimizer and memory settings; with `--compiled` also compiled;
- `trainer`: `transformers.Trainer` with its defaults on the same tokens;
- `bare`: the same `LlamaForCausalLM` in a loop of five lines (fused AdamW, gradients clipped);
- `bare_kept`: that loop with glibc told to keep freed memory, as Headwater does.

All train in float32 on rows of one document each, from the same random tokens. The first two steps aren't counted; a
contestant's figure in a round is that of its median step. Prints medians and, over the rounds, the median ratio of
`headwater` to each other, by the clock and by processor time; the goals are 1.2 of `trainer` and 1.0 of `bare_kept`.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from _command import in_turns
from _llama import SHAPE, ours, theirs

GOALS = {"trainer": 1.2, "bare_kept": 1.0}
FIRST = 2  # steps that make things ready


def now() -> tuple[float, float]:
    """Seconds that went by, and seconds of processor time."""
    return time.perf_counter(), time.process_time()


def rows(options: argparse.Namespace, steps: int) -> Any:
    import torch

    shape = (steps, options.batch, options.length)
    return torch.randint(0, SHAPE["vocabulary"], shape, generator=torch.Generator().manual_seed(0))


def headwater(options: argparse.Namespace, compile: str = "off") -> list[tuple[float, float]]:
    """When steps ended."""
    import torch

    from models.methods.pretrain import PretrainConfig
    from models.objectives.next_token import next_token
    from models.text.sampler import Batch
    from models.training.compilation import compiled
    from models.training.loop import Callback, Run, fit
    from models.training.optimizer import build_optimizer
    from models.training.schedule import build_schedule
    from models.training.state import State

    steps = FIRST + options.steps
    model = ours(options.length)
    tokens = rows(options, steps)
    targets = tokens.roll(-1, 2)
    targets[..., -1] = -100
    positions = torch.arange(options.length).expand(tokens.shape[1:]).contiguous()
    ended: list[tuple[float, float]] = []

    class Clock(Callback):
        def on_step(self, run: Run, row: dict[str, float]) -> None:
            ended.append(now())

    fit(
        model,
        compiled(next_token(), compile, torch.device("cpu"), True),  # type: ignore[arg-type]
        lambda step: [[Batch(tokens[step], targets[step], positions, torch.zeros_like(positions))]],
        build_optimizer(PretrainConfig(learning_rate=3e-4), {"model": model}),
        build_schedule("constant", steps),
        [Clock()],
        State(),
        steps=steps,
    )
    return ended


def trainer(options: argparse.Namespace) -> list[tuple[float, float]]:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    steps = FIRST + options.steps
    data = [{"input_ids": row, "labels": row} for row in rows(options, steps).flatten(0, 1)]
    ended: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(now())

    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, place: int) -> Any:
            return data[place]

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            max_steps=steps,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            learning_rate=3e-4,
        )
        Trainer(model=theirs(options.length), args=arguments, train_dataset=Rows(), callbacks=[Clock()]).train()
    return ended


def bare(options: argparse.Namespace, kept: bool = False) -> list[tuple[float, float]]:
    import torch

    from models.network.build import keep_freed_memory

    if kept:
        keep_freed_memory()
    model = theirs(options.length).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ended: list[tuple[float, float]] = []
    for batch in rows(options, FIRST + options.steps):
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ended.append(now())
    return ended


CONTESTANTS: dict[str, Callable[[argparse.Namespace], list[tuple[float, float]]]] = {
    "headwater": headwater,
    "trainer": trainer,
    "bare": bare,
    "bare_kept": lambda options: bare(options, kept=True),
    "headwater_compiled": lambda options: headwater(options, "on"),
}


def contend(options: argparse.Namespace) -> None:
    """One contestant in this process: prints its figure."""
    import torch

    from models.training.device import peak_memory_mb

    torch.set_num_threads(options.threads)
    start, _ = now()
    ended = CONTESTANTS[options.contestant](options)
    pairs = list(zip(ended[FIRST - 1 :], ended[FIRST:], strict=False))
    went, used = (statistics.median(later[clock] - earlier[clock] for earlier, later in pairs) for clock in (0, 1))
    figures = {
        "tokens_per_s": options.batch * options.length / went,
        "tokens_per_cpu_s": options.batch * options.length / used,
        "memory_mb": peak_memory_mb(torch.device("cpu")),
        "first_step_s": ended[0][0] - start,
    }
    print(json.dumps(figures))


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of every contestant's figures, and the median over rounds of Headwater's ratio to each: by the time that
    went by, and by processor time, which other work on the machine touches less."""

    def ratios(figure: str) -> dict[str, float]:
        speeds = {name: [one[figure] for one in all_of] for name, all_of in rounds.items()}
        return {
            name: round(statistics.median(a / b for a, b in zip(speeds["headwater"], others, strict=True)), 3)
            for name, others in speeds.items()
            if name != "headwater"
        }

    return {
        "medians": {
            name: {key: round(statistics.median(one[key] for one in all_of), 1) for key in all_of[0]}
            for name, all_of in rounds.items()
        },
        "ratios": ratios("tokens_per_s"),
        "cpu_ratios": ratios("tokens_per_cpu_s"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"rounds": 5, "steps": 8, "threads": 2, "batch": 8, "length": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contend(options)
        return
    names = [name for name in CONTESTANTS if options.compiled or name != "headwater_compiled"]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    given = {"threads": options.threads, "steps": options.steps, "batch": options.batch, "length": options.length}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    for name, figures in in_turns(__file__, names, options.rounds, words, options.threads):
        rounds[name].append(figures)
        went, used = figures["tokens_per_s"], figures["tokens_per_cpu_s"]
        print(f"round {len(rounds[name])}  {name:18s} {went:8.0f} tokens/s {used:8.0f} tokens/cpu s", flush=True)
    told = summary(rounds)
    for name, figures in told["medians"].items():
        goal = f"  (goal {GOALS[name]})" if name in GOALS else ""
        ratio = ""
        if name in told["ratios"]:
            ratio = f"  headwater x {told['ratios'][name]:.2f}, by processor time {told['cpu_ratios'][name]:.2f}{goal}"
        print(f"{name:18s} {figures['tokens_per_s']:8.0f} tokens/s  {figures['memory_mb']:6.0f} MB{ratio}")
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")}
    print(json.dumps({"bench": "pretrain", **vars(options), **told, "rounds_of": rounds, "versions": versions}))


if __name__ == "__main__":
    main()
