"""Pretraining on one GPU: how fast beside a hand-written loop, and how far five minutes take 50M parameters.

    .venv/bin/python benchmarks/gpu.py speed [--sizes 50m,125m,350m,1b]
    .venv/bin/python benchmarks/gpu.py bytes --texts FOLDER_OR_FILE... [--seconds 300]
    .venv/bin/python benchmarks/gpu.py speed bytes --texts FILE... --smoke     # tiny, on a CPU, in less than a minute

`speed`: tokens a second, share of the device's peak (MFU, as `models/training/flops.py` defines it) and peak memory of
`fit` with pretraining's objective, and of transformers' Llama of the same shape in a loop of ten lines. Both compiled,
in bfloat16 beside float32 weights, 2,048 tokens a row, fused AdamW. Goals: 40% at 125M, 50% at 1B. A size that the
device has no memory for, or the time no room, is left out and said so.

`bytes`: 50M parameters trained by `pretrain` itself with Muon; goal: 0.97 bits for each byte of held-out text. The
texts (`.txt`, `.jsonl` with a field `text` or `gold_text`, or `.py`, gzipped or not) give a tokenizer, shards and the
held-out twentieth. Seconds are those of steps: a short run beforehand tells how many steps there is time for.

Each part stays under 8 minutes, compiling and all. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.methods.pretrain import PretrainConfig, pretrain
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.objectives.next_token import next_token
from models.text import tokenizer as tokenizers
from models.text.config import TokenizerConfig
from models.text.sampler import Batch
from models.text.shards import write_shard
from models.training.compilation import compiled
from models.training.device import choose, peak_memory_mb
from models.training.flops import Work, device_peak
from models.training.loop import Callback, Run, fit, split
from models.training.optimizer import build_optimizer
from models.training.schedule import build_schedule
from models.training.state import State

SIZES = {
    "50m": {"layers": 10, "width": 512, "heads": 4},
    "125m": {"layers": 14, "width": 768, "heads": 6},
    "350m": {"layers": 24, "width": 1024, "heads": 8},
    "1b": {"layers": 18, "width": 2048, "heads": 16},
}
GOALS = {"125m": 0.4, "1b": 0.5}
GOAL_BITS = 0.97
BUDGET_S, LEAST_S = 460.0, 90.0  # of a part; what a contestant needs, compiling and all
WARM = 3  # steps that make things ready


@dataclass(frozen=True)
class Scale:
    """Sizes of a run: rows of a micro-batch, micro-batches of an update, tokens of a row, ids, counted steps."""

    rows: int = 8
    parts: int = 4
    context: int = 2048
    vocabulary: int = 32768
    steps: int = 10
    compile: str = "on"
    shrink: bool = False

    def network(self, size: str) -> NetworkConfig:
        shape = {"layers": 2, "width": 64, "heads": 2} if self.shrink else SIZES[size]
        return NetworkConfig(**shape, vocabulary=self.vocabulary, context=self.context)


SMOKE = Scale(rows=2, parts=2, context=64, vocabulary=512, steps=2, compile="off", shrink=True)


def memory_of(device: torch.device) -> float:
    """Bytes of a GPU; those of a CPU don't matter here."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else math.inf


def tokens_of(scale: Scale) -> torch.Tensor:
    shape = (WARM + scale.steps, scale.rows * scale.parts, scale.context)
    return torch.randint(0, scale.vocabulary, shape, generator=torch.Generator().manual_seed(0))


def headwater(size: str, scale: Scale) -> list[float]:
    """Seconds of the counted steps."""
    device = choose("auto")
    model = build_model(scale.network(size), 0).to(device.device)
    tokens = tokens_of(scale)
    targets = tokens.roll(-1, 2)
    targets[..., -1] = -100
    places = torch.arange(scale.context).expand(tokens.shape[1:]).contiguous()
    seconds: list[float] = []

    class Clock(Callback):
        def on_step(self, run: Run, row: dict[str, float]) -> None:
            seconds.append(row["tokens"] / row["tokens_per_s"])

    fit(
        model,
        compiled(next_token(mask_documents=False), scale.compile, device.device, True),  # type: ignore[arg-type]
        lambda step: [split(Batch(tokens[step], targets[step], places, torch.zeros_like(places)), scale.parts)],
        build_optimizer(PretrainConfig(learning_rate=3e-4), {"model": model}),
        build_schedule("constant", len(tokens)),
        [Clock()],
        State(),
        steps=len(tokens),
        device=device,
    )
    return seconds[WARM:]


def bare(size: str, scale: Scale) -> list[float]:
    """The same of transformers' Llama in a loop written by hand."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape, device = scale.network(size), choose("auto")
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=shape.tie,
            use_cache=False,
        )
    ).to(device.device, torch.float32)
    forward = torch.compile(model, dynamic=False) if scale.compile == "on" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    seconds: list[float] = []
    for step in tokens_of(scale):
        started = time.perf_counter()
        for part in step.to(device.device).chunk(scale.parts):
            with device.computing():
                loss = forward(input_ids=part, labels=part).loss / scale.parts
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())  # wait for the device
        seconds.append(time.perf_counter() - started)
    return seconds[WARM:]


def speed(sizes: list[str], scale: Scale, until: float) -> dict[str, Any]:
    """Figures of both contestants for each size."""
    place = choose("auto").device
    memory = memory_of(place)
    found: dict[str, Any] = {}
    for size in sizes:
        shape = scale.network(size)
        for contestant in (headwater, bare):
            name = f"{size} {contestant.__name__}"
            if until - time.perf_counter() < LEAST_S or shape.parameters * 16 > memory / 2:
                found[name] = None
                print(f"{name:16s} left out: no {'time' if shape.parameters * 16 <= memory / 2 else 'memory'}")
                continue
            torch.compiler.reset()
            if place.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(place)
            started = time.perf_counter()
            median = statistics.median(contestant(size, scale))
            rows = scale.rows * scale.parts
            work = Work.of(build_model(shape, 0) if scale.shrink else _on_meta(shape))
            peak = device_peak(place)
            found[name] = {
                "parameters": shape.parameters,
                "tokens_per_s": rows * scale.context / median,
                "mfu": work.flops(rows, scale.context) / median / peak if peak and work else None,
                "memory_mb": peak_memory_mb(place),
                "all_s": time.perf_counter() - started,
            }
            told = {key: round(value, 3) for key, value in found[name].items() if value is not None}
            print(f"{name:16s} {told}  goal {GOALS.get(size, '-')}", flush=True)
    return found


def _on_meta(shape: NetworkConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model(shape, 0)


def documents(paths: list[Path]) -> Iterator[str]:
    """The texts of files and folders, in the order of their names."""
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            kind = file.name.removesuffix(".gz").rpartition(".")[2]
            if kind not in ("txt", "jsonl", "py"):
                continue
            raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            text = raw.decode("utf-8", errors="replace")
            for line in text.splitlines() if kind == "jsonl" else [text]:
                row = json.loads(line) if kind == "jsonl" else {"text": line}
                found = row.get("text") or row.get("gold_text") or ""
                if found:
                    yield found


def bits(paths: list[Path], seconds: float, scale: Scale) -> dict[str, Any]:
    """Bits a byte of held-out text after so many seconds of steps."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        texts = {hashlib.sha256(text.encode()).digest()[:16]: text for text in documents(paths)}
        if len(texts) < 20:
            raise SystemExit(f"{len(texts)} texts are too few: give --texts at least 20")
        words = tokenizers.train(
            list(texts.values()), TokenizerConfig(vocabulary=max(scale.vocabulary // 4, 300)), work / "words"
        )
        write_shard(texts.items(), words, work / "shards", "part-0")
        ids = sorted(texts)
        heldout, train = ids[::20], [(id, 1) for place, id in enumerate(ids) if place % 20]
        inputs = {"shards": [work / "shards"], "train": train, "heldout": heldout, "tokenizer": work / "words"}
        shape = scale.network("50m")
        config = PretrainConfig(
            layers=shape.layers, width=shape.width, heads=shape.heads, kv_heads=shape.heads, context=scale.context,
            batch=scale.rows * scale.parts * 4, accumulation=scale.parts * 4, learning_rate=3e-3,
            optimizer="adamw" if scale.shrink else "muon",  # whose bfloat16 a CPU computes slowly
            schedule="wsd", warmup=0.03, decay=0.65, floor=0.05, mask_documents=False, eval_every=0, eval_rows=256,
            checkpoint_every=1_000_000, keep_state=False,
        )  # fmt: skip
        trial = pretrain(config.model_copy(update={"steps": WARM + 5}), **inputs, out=work / "trial")
        a_step = config.batch * config.context / trial["tokens_per_s"]
        steps = max(int(seconds / a_step), WARM)
        report = pretrain(config.model_copy(update={"steps": steps}), **inputs, out=work / "run")
        size = sum(len(texts[id].encode()) for id in heldout)
        tokens = sum(len(words(texts[id], add_special_tokens=False)["input_ids"]) for id in heldout)
        told = {name: report[name] for name in ("parameters", "steps", "epochs", "heldout_loss", "tokens_per_s", "mfu")}
        figure = report["heldout_loss"] / math.log(2) * tokens / size
        told |= {"step_s": a_step, "texts": len(texts), "bits_per_byte": figure, "memory_mb": report["memory_mb"]}
        print(f"bits a byte {figure:.4f} (goal {GOAL_BITS}) after {steps} steps of {a_step:.2f} s", flush=True)
        return told


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["speed", "bytes"])
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--texts", nargs="*", type=Path, default=[])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(arguments)
    place = choose("auto").device
    if place.type == "cpu" and not options.smoke:
        raise SystemExit("no GPU here: --smoke tries the script in small on a CPU")
    if "bytes" in options.parts and not options.texts:
        raise SystemExit("bytes needs texts: --texts FOLDER_OR_FILE...")
    small = Scale(rows=2, parts=16)  # the same updates in less memory
    scale = SMOKE if options.smoke else Scale() if memory_of(place) > 60e9 else small
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
    told: dict[str, Any] = {"bench": "gpu", "device": name, "torch": torch.__version__, "smoke": options.smoke}
    if "speed" in options.parts:
        told["speed"] = speed(options.sizes.split(","), scale, time.perf_counter() + BUDGET_S)
    if "bytes" in options.parts:
        told["bytes"] = bits(options.texts, 2.0 if options.smoke else options.seconds, scale)
    print(json.dumps(told))
    return told


if __name__ == "__main__":
    main()
