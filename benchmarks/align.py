"""Alignment on a CPU with a Llama of 8.9M parameters, beside TRL's trainers: SFT, reward models, GRPO; and what
exactness costs.

    .venv/bin/python benchmarks/align.py [sft reward grpo curves] [--rounds 5] [--steps 8] [--threads 2] [--kl 0]
                                                                    [--exactness]

Contestants, each in a process of its own, in turns, in an order that rotates from round to round:

- `sft`: Headwater's `sft`, packing on; `trl.SFTTrainer` on the same dialogues in the same batches, padded, and on the
  same dialogues as it packs them itself (best fit, padding-free); all count the assistant's tokens alone;
- `reward`: Headwater's `reward` and `trl.RewardTrainer` on the same pairs in the same batches;
- `grpo`: Headwater's `grpo` and `trl.GRPOTrainer`: the same prompts in the same steps, 8 answers to each, the same
  reward function, optimizer, rate, clips and loss; sampling alone beside the whole step. `curves`: the same for longer,
  once, with the mean score of each tenth of the steps;
- `--exactness`: GRPO and PPO with `exact: auto`, which holds here, beside `off` and `on`, and nothing else.

All start from one folder that both read, train in float32 without dropout at a constant rate, save and log nothing.
Dialogues and pairs are Alpaca's demonstration and HH-RLHF; the policy has seen what sums look like. What counts are
tokens of dialogues, padding left out, and answers. The first two steps aren't counted: they are start-up. The script
itself checks that the work is equal: tokens, answers, updates, and the loss of the first step.

Prints medians and, over the rounds, the median of the ratios, by the clock and by processor time, which other work on
the machine touches less. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from _command import in_turns
from _llama import ours
from _sums import right_digits, sums

ROOT = Path(__file__).parents[1]
SAMPLES = Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))
REWARD = str(Path(__file__).with_name("_sums.py")) + ":right_digits"
CONTEXT = 512
FIRST = 2  # steps that make things ready
DIALOGUES, PAIRS, PROMPTS, GROUP, NEW = 16, 8, 8, 8, 32  # of a step; answers to a prompt, tokens of an answer
WARM_UP = 30  # steps in which the policy learns what a sum looks like
RATE = {"sft": 5e-4, "reward": 3e-4, "grpo": 1e-4, "ppo": 1e-4}
EQUAL = 1e-4  # largest difference of two losses that are the same
GOALS = {"sft": 1.8, "grpo": 1.5, "exactness grpo": 1 / 1.3, "exactness ppo": 1 / 1.3}
Record = dict[str, Any]


def now() -> tuple[float, float]:
    """Seconds that went by, and seconds of processor time."""
    return time.perf_counter(), time.process_time()


# What is trained on


def conversations() -> list[list[Record]]:
    """Alpaca's demonstration as messages."""
    with gzip.open(SAMPLES / "instruction" / "llamafactory-alpaca_en_demo.json.gz", "rt", encoding="utf-8") as stream:
        rows = json.load(stream)
    return [
        [
            {"role": "user", "content": "\n".join(filter(None, (row["instruction"], row["input"])))},
            {"role": "assistant", "content": row["output"]},
        ]
        for row in rows
        if row["output"].strip()
    ]


def preferences() -> list[Record]:
    """HH-RLHF's pairs: the prompt as messages, two answers."""
    path = SAMPLES / "preference" / "hh-rlhf-harmless-base-test.jsonl.gz"
    pairs = []
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row = json.loads(line)
        chosen, rejected = (re.split(r"\n\n(Human|Assistant): ?", row[side])[1:] for side in ("chosen", "rejected"))
        answers = {chosen[-1].strip(), rejected[-1].strip()}
        if chosen[:-1] == rejected[:-1] and len(answers - {""}) == 2:
            turns = zip(chosen[0:-2:2], chosen[1:-2:2], strict=True)
            roles = {"Human": "user", "Assistant": "assistant"}
            prompt = [{"role": roles[who], "content": text.strip()} for who, text in turns]
            pairs.append({"prompt": prompt, "chosen": chosen[-1].strip(), "rejected": rejected[-1].strip()})
    return pairs


def tuned(name: str, options: argparse.Namespace, **more: Any) -> Any:
    """A config of ours: `--steps` and those before that count, a constant rate, nothing saved."""
    from models import methods

    steps = FIRST + options.steps
    shared = {"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "beta2": 0.999, "spike_sigma": 0.0}
    shared |= {"learning_rate": RATE[name], "checkpoint_every": 1_000_000, "eval_every": 0, "keep_state": False}
    return methods.METHODS[name].config(**(shared | {"steps": steps} | more))


def prepare(options: argparse.Namespace) -> Record:
    """Writes what all start from: a tokenizer, a base, dialogues and pairs that fit, and a policy that began to add."""
    from models.methods.sft import sft
    from models.network import checkpoint
    from models.text import tokenizer
    from models.text.config import TokenizerConfig
    from models.text.rendering import render

    dialogues, pairs = conversations(), preferences()
    texts = [message["content"] for messages in dialogues for message in messages]
    texts += [pair[side] for pair in pairs for side in ("chosen", "rejected")]
    words = tokenizer.train(texts, TokenizerConfig(vocabulary=8192), options.work / "tokenizer")
    base = checkpoint.save(ours(CONTEXT), words, options.work / "base")
    steps = FIRST + options.steps

    def fits(messages: list[Record]) -> bool:
        return len(render(messages, words)[0]) <= CONTEXT

    def both_fit(pair: Record) -> bool:
        return all(
            fits([*pair["prompt"], {"role": "assistant", "content": pair[side]}]) for side in ("chosen", "rejected")
        )

    draw = random.Random(0)
    draw.shuffle(dialogues)
    draw.shuffle(pairs)
    some = {"dialogues": list(islice(filter(fits, dialogues), steps * DIALOGUES))}
    some["pairs"] = list(islice(filter(both_fit, pairs), steps * PAIRS))
    (options.work / "data.json").write_text(json.dumps(some), encoding="utf-8")
    first = [
        {"messages": [*row["messages"], {"role": "assistant", "content": row["working"]}]} for row in sums(2048, seed=1)
    ]
    config = tuned("sft", options, steps=WARM_UP, batch=32, learning_rate=2e-3)
    report = sft(config, base, first, [], options.work / "start")
    return {"parameters": sum(one.numel() for one in ours(CONTEXT).parameters()), "loss": report["loss"]}


def data(options: argparse.Namespace, name: str) -> list[Any]:
    found: list[Any] = json.loads((options.work / "data.json").read_text(encoding="utf-8"))[name]
    return found


# Headwater


class Steps:
    """What is known of each step that has ended: when, by both clocks, its loss, and whatever else."""

    def __init__(self) -> None:
        self.rows: list[Record] = []

    def __call__(self, **more: Any) -> None:
        went, used = now()
        self.rows.append({"s": went, "cpu_s": used, **more})


class Stopwatch:
    """How long the latest sampling took, by both clocks."""

    def __enter__(self) -> None:
        self._start = now()

    def __exit__(self, *_: object) -> None:
        (start, used), (end, used_then) = self._start, now()
        self.told = {"sampling_s": end - start, "sampling_cpu_s": used_then - used}


def tuning(name: str, options: argparse.Namespace, given: list[Any], batch: int) -> tuple[Steps, list[int]]:
    """A method that goes through items once, and the items of its steps in their order."""
    from models import methods

    method, steps = methods.METHODS[name], Steps()
    config, base = tuned(name, options, batch=batch, context=CONTEXT), options.work / "base"
    with tempfile.TemporaryDirectory() as folder:
        method(config, base, given, [], Path(folder), on_step=lambda row: steps(loss=row["loss"]))
        order = [item[0] for step in range(len(steps.rows)) for item in method.data(config, base, given, []).seen(step)]
    return steps, order


def lengths_of_dialogues(options: argparse.Namespace) -> list[int]:
    from models.text import tokenizer
    from models.text.rendering import render

    words = tokenizer.load(options.work / "base")
    return [len(render(messages, words)[0]) for messages in data(options, "dialogues")]


def of_pairs(options: argparse.Namespace) -> list[Any]:
    from models.text import tokenizer
    from models.text.packing import fit_pair

    words = tokenizer.load(options.work / "base")
    return [fit_pair(pair, words, CONTEXT).item for pair in data(options, "pairs")]


def with_tokens(steps: Steps, order: list[int], lengths: list[int], batch: int) -> list[Record]:
    for number, row in enumerate(steps.rows):
        row["tokens"] = sum(lengths[item] for item in order[number * batch : (number + 1) * batch])
    return steps.rows


def headwater_sft(options: argparse.Namespace) -> Record:
    given = [{"messages": messages} for messages in data(options, "dialogues")]
    steps, order = tuning("sft", options, given, DIALOGUES)
    return {"steps": with_tokens(steps, order, lengths_of_dialogues(options), DIALOGUES)}


def headwater_reward(options: argparse.Namespace) -> Record:
    steps, order = tuning("reward", options, data(options, "pairs"), PAIRS)
    lengths = [len(pair.chosen) + len(pair.rejected) for pair in of_pairs(options)]
    return {"steps": with_tokens(steps, order, lengths, PAIRS)}


def rollouts(name: str, options: argparse.Namespace, **more: Any) -> Record:
    """GRPO or PPO on sums."""
    from models import methods
    from models.rl.engine import Engine

    method, steps, sampled = methods.METHODS[name], Steps(), Stopwatch()
    config = tuned(
        name, options, batch=PROMPTS * GROUP, new_tokens=NEW, epsilon=1e-8, samples_every=1_000_000,
        rewards=[REWARD], kl_coefficient=options.kl, **more,
    )  # fmt: skip
    given, answer = sums(PROMPTS * config.steps, seed=2), Engine.__call__

    def timed(self: Any, prompts: Any, *others: Any) -> Any:
        if len(prompts) != config.batch:  # the self-test of exactness
            return answer(self, prompts, *others)
        with sampled:
            return answer(self, prompts, *others)

    def on_step(row: Record) -> None:
        told = ("score", "answer_tokens", "eos_rate", "zero_variance", "logprob_gap", "loss")
        steps(answers=config.batch, **sampled.told, **{key: row[key] for key in told if key in row})

    Engine.__call__ = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        method(config, options.work / "start" / "checkpoint", given, [], None, Path(folder), on_step=on_step)
    return {"steps": steps.rows}


def headwater_grpo(options: argparse.Namespace, exact: str = "auto") -> Record:
    return rollouts("grpo", options, group=GROUP, exact=exact)


def headwater_ppo(options: argparse.Namespace, exact: str) -> Record:
    return rollouts("ppo", options, exact=exact)


# TRL


def settings(name: str, options: argparse.Namespace, folder: str, **more: Any) -> Record:
    """Arguments of a trainer that are not its defaults: those of `tuned`."""
    return {
        "output_dir": folder,
        "max_steps": FIRST + options.steps,
        "learning_rate": RATE[name],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "adam_beta2": 0.999,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **more,
    }


def in_order(trainer: Any) -> Any:
    """A trainer that takes its rows as they come, and remembers of each step its loss and the tokens it read."""
    import torch

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, model: Any, inputs: Any, *others: Any) -> Any:
            mask = inputs.get("attention_mask")
            self.read = inputs["input_ids"].numel() if mask is None else int(mask.sum())
            self.loss = super().training_step(model, inputs, *others)
            return self.loss

    return InOrder


def clock(steps: Steps, told: Callable[[], Record]) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps(**told())

    return Clock()


def trl_sft(options: argparse.Namespace, packing: bool = False) -> Record:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    base, steps, given = options.work / "base", Steps(), data(options, "dialogues")
    lengths = lengths_of_dialogues(options)
    rows = [{"messages": given[item]} for item in order_of("sft", options)]
    batch = DIALOGUES
    if packing:  # as many updates as the others: rows of a whole context, so many of them in each
        batch = max(1, round(sum(lengths) / CONTEXT / (FIRST + options.steps)))
    with tempfile.TemporaryDirectory() as folder:
        once = {"max_steps": -1, "num_train_epochs": 1} if packing else {}
        config = SFTConfig(
            **settings("sft", options, folder, **once),
            per_device_train_batch_size=batch, max_length=CONTEXT, packing=packing, assistant_only_loss=True,
        )  # fmt: skip
        trainer = in_order(SFTTrainer)(
            model=AutoModelForCausalLM.from_pretrained(base),
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(base),
        )
        trainer.add_callback(clock(steps, lambda: {"loss": float(trainer.loss), "tokens": trainer.read}))
        trainer.train()
    return {"steps": steps.rows}


def order_of(name: str, options: argparse.Namespace) -> list[int]:
    """The items of our steps, one after the other."""
    from models import methods

    batch = {"sft": DIALOGUES, "reward": PAIRS}[name]
    given = data(options, {"sft": "dialogues", "reward": "pairs"}[name])
    given = [{"messages": messages} for messages in given] if name == "sft" else given
    method, config = methods.METHODS[name], tuned(name, options, batch=batch, context=CONTEXT)
    ready = method.data(config, options.work / "base", given, [])
    return [item[0] for step in range(config.steps) for item in ready.seen(step)]


def trl_reward(options: argparse.Namespace) -> Record:
    import datasets
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    base, steps, pairs = options.work / "base", Steps(), of_pairs(options)
    chosen = [pairs[item] for item in order_of("reward", options)]
    words = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=words.pad_token_id)
    model.score.weight.data.zero_()  # as ours starts
    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            **settings("reward", options, folder), per_device_train_batch_size=PAIRS, max_length=CONTEXT
        )
        trainer = in_order(RewardTrainer)(
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_list(
                [{"chosen_ids": pair.chosen, "rejected_ids": pair.rejected} for pair in chosen]
            ),
            processing_class=words,
        )
        trainer.add_callback(clock(steps, lambda: {"loss": float(trainer.loss), "tokens": trainer.read}))
        trainer.train()
    return {"steps": steps.rows}


def trl_grpo(options: argparse.Namespace) -> Record:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from models.methods.grpo import grpo

    start, steps = options.work / "start" / "checkpoint", Steps()
    given = sums(PROMPTS * (FIRST + options.steps), seed=2)
    config = tuned("grpo", options, batch=PROMPTS * GROUP, group=GROUP, rewards=[REWARD])
    order = grpo.data(config, start, given, []).order
    items = [item for step in range(config.steps) for item in order.items(step)[::GROUP]]
    rows = [{"prompt": given[item]["messages"], "answer": given[item]["answer"]} for item in items]
    latest: Record = {}
    sampled = Stopwatch()

    def scored(prompts: Any, completions: Any, answer: Any, **_: Any) -> list[float]:
        values = [
            right_digits("", completion[0]["content"], {"answer": gold})
            for completion, gold in zip(completions, answer, strict=True)
        ]
        groups = [values[first : first + GROUP] for first in range(0, len(values), GROUP)]
        latest["zero_variance"] = sum(len(set(group)) == 1 for group in groups) / len(groups)
        latest["score"], latest["answers"] = sum(values) / len(values), len(values)
        return values

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
            with sampled:
                found = super()._generate_single_turn(*given, **named)
            latest.update(sampled.told)
            latest["answer_tokens"] = sum(map(len, found[0])) / len(found[0])
            return found

    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            **settings("grpo", options, folder),
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=NEW,
            steps_per_generation=1,
            shuffle_dataset=False,
            epsilon_high=0.28,
            beta=options.kl,
        )
        trainer = Timed(
            model=AutoModelForCausalLM.from_pretrained(start),
            reward_funcs=scored,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(start),
            callbacks=[clock(steps, lambda: dict(latest))],
        )
        trainer.train()
    return {"steps": steps.rows}


PARTS: dict[str, dict[str, Callable[[argparse.Namespace], Record]]] = {
    "sft": {
        "headwater": headwater_sft,
        "trl": trl_sft,
        "trl_packed": lambda options: trl_sft(options, packing=True),
    },
    "reward": {"headwater": headwater_reward, "trl": trl_reward},
    "grpo": {"headwater": headwater_grpo, "trl": trl_grpo},
    "curves": {"headwater": headwater_grpo, "trl": trl_grpo},
    **{
        f"exactness {method.__name__.removeprefix('headwater_')}": {
            exact: partial(method, exact=exact) for exact in ("auto", "off", "on")
        }
        for method in (headwater_grpo, headwater_ppo)
    },
}


# Figures


def figures(part: str, rows: list[Record]) -> Record:
    """What a contestant did in a second of the clock and of processor time, over all steps that count."""
    counted, unit = rows[FIRST:], "tokens" if part in ("sft", "reward") else "answers"
    amount = sum(row[unit] for row in counted)
    told = {f"{unit}_per_{clock}": amount / (rows[-1][clock] - rows[FIRST - 1][clock]) for clock in ("s", "cpu_s")}
    told |= {"updates": len(counted), unit: amount}
    if unit == "answers":
        for clock in ("s", "cpu_s"):
            told[f"sampled_per_{clock}"] = amount / sum(row[f"sampling_{clock}"] for row in counted)
        told["answer_tokens"] = sum(row["answer_tokens"] for row in counted) / len(counted)
    return told


def check_equal(part: str, steps: dict[str, list[Record]]) -> None:
    """Raises SystemExit where contestants didn't do the same work: updates, tokens or answers, and losses at first."""
    first, *others = steps
    unit = "tokens" if part in ("sft", "reward") else "answers"
    for name in others:
        ours, theirs = steps[first], steps[name]
        amounts = [[row[unit] for row in rows] for rows in (ours, theirs)]
        packed = name == "trl_packed"  # other dialogues in a step, and one update more or less
        if sum(amounts[0]) != sum(amounts[1]) or not (packed or amounts[0] == amounts[1]):
            raise SystemExit(f"{part}: {first} and {name} did other work: {unit} of their steps {amounts}")
        apart = 0.0 if packed or unit == "answers" else abs(ours[0]["loss"] - theirs[0]["loss"])
        if apart > EQUAL:
            raise SystemExit(f"{part}: the first losses of {first} and {name} differ by {apart:.2g}")


def tenths(rows: list[Record]) -> list[float]:
    """The mean score of each tenth of the steps."""
    bounds = [round(len(rows) * part / 10) for part in range(11)]
    return [
        round(statistics.mean(row["score"] for row in rows[start:stop]), 3)
        for start, stop in pairwise(bounds)
        if start < stop
    ]


def summary(rounds: dict[str, list[Record]]) -> Record:
    """Medians of each contestant's figures, and of the ratio of the first's to each other's over the rounds."""
    first, *others = rounds
    medians = {
        name: {key: round(statistics.median(one[key] for one in all_of), 1) for key in all_of[0]}
        for name, all_of in rounds.items()
    }
    ratios = {
        name: {
            key: round(statistics.median(a[key] / b[key] for a, b in zip(rounds[first], rounds[name], strict=True)), 3)
            for key in rounds[first][0]
            if "_per_" in key
        }
        for name in others
    }
    return {"medians": medians, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    for name, value in {"rounds": 5, "steps": 8, "threads": 2, "curve-steps": 100}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kl", type=float, default=0.0, help="weight of the KL to the start, in both losses")
    parser.add_argument("--exactness", action="store_true", help="GRPO and PPO exact beside not, and nothing else")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        import torch

        torch.set_num_threads(options.threads)
        part, _, name = options.contestant.partition(":")
        print(json.dumps(prepare(options) if part == "prepare" else PARTS[part][name](options)))
        return
    parts = [part for part in PARTS if part.startswith("exactness")] if options.exactness else options.parts
    parts = parts or ["sft", "reward", "grpo", "curves"]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}; there are sft, reward, grpo, curves")
    told: Record = {}
    with tempfile.TemporaryDirectory() as work:

        def run(names: list[str], rounds: int, steps: int) -> Any:
            words = ["--steps", str(steps), "--threads", str(options.threads), "--kl", str(options.kl), "--work", work]
            return in_turns(__file__, names, rounds, words, options.threads)

        for _, start in run(["prepare"], 1, options.steps):
            print(f"{start['parameters']:,} parameters; the policy's loss on sums is {start['loss']:.3f}", flush=True)
        for part in parts:
            curves = part == "curves"
            rounds, steps = (1, options.curve_steps - FIRST) if curves else (options.rounds, options.steps)
            found: dict[str, list[Record]] = {name: [] for name in PARTS[part]}
            latest: dict[str, list[Record]] = {}
            for contestant, printed in run([f"{part}:{name}" for name in found], rounds, steps):
                name = contestant.partition(":")[2]
                latest[name] = printed["steps"]
                found[name].append(figures(part, printed["steps"]))
                shown = {key: round(value, 1) for key, value in found[name][-1].items()}
                print(f"{part} round {len(found[name])} {name}: {shown}", flush=True)
                if curves:
                    print(f"{part} {name}: score by tenths {tenths(latest[name])}", flush=True)
            check_equal(part, latest)
            told[part] = summary(found) | {"rounds": found}
            if curves:
                told[part]["scores"] = {name: tenths(rows) for name, rows in latest.items()}
            if part.startswith("exactness"):
                gaps = [row["logprob_gap"] for row in latest["auto"]]
                told[part]["logprob_gap"] = max(gaps)
            for name, ratios in told[part]["ratios"].items():
                goal = f" (goal {GOALS[part]:.2f})" if part in GOALS else ""
                print(f"{part}: {next(iter(found))} / {name}: {ratios}{goal}", flush=True)
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
    sizes = {"rounds": options.rounds, "steps": options.steps, "threads": options.threads}
    print(json.dumps({"bench": "align", **sizes, **told, "versions": versions, "machine": platform.machine()}))


if __name__ == "__main__":
    main()
