"""The guard against spikes on a run that has none: its false alarms, and what it costs.

    .venv/bin/headwater run recipes/demo.yaml --until mixture --lake lake
    .venv/bin/python benchmarks/spikes.py --lake lake [--steps 10000] [--batch 16] [--folder build/spikes]

The demo's model (recipes/demo.yaml) learns from the demo's documents for many epochs, with `spike_window: 16`; every
update that was refused is a false alarm. Rates go from warm-up to the floor as in any run. `--batch` below the demo's
16 rows makes steps cheaper and losses noisier, which is the harder case. With --folder what was trained is kept there,
and the same command goes on from it. Cost: the seconds within the guard, of all
seconds of steps, of this process. Planted documents: `pytest -m slow tests/models/test_spikes.py`.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from headwater import Lake
from models.methods.pretrain import PretrainConfig, pretrain
from models.text import tokenizer as tokenizers
from models.text.config import TokenizerConfig
from models.text.shards import write_shard
from models.training.metrics import read_metrics
from models.training.spikes import SpikeGuard

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.yaml"
WINDOW = 16


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path, default=Path("lake"))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    rows = Lake(options.lake).query("SELECT id, text FROM demo.clean ORDER BY id").to_pylist()
    section = recipe["pretrain"] | {"steps": options.steps, "spike_window": WINDOW, "eval_every": 0}
    config = PretrainConfig(**section | ({"batch": options.batch} if options.batch else {}))
    spent = 0.0

    def timed(call: Any) -> Any:
        def measured(*given: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return call(*given)
            finally:
                spent += time.perf_counter() - began

        return measured

    for name in ("accept", "on_step", "saved"):
        setattr(SpikeGuard, name, timed(getattr(SpikeGuard, name)))
    with contextlib.ExitStack() as stack:
        work = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vocabulary = TokenizerConfig(vocabulary=recipe["tokenizer"]["vocabulary"])
        if not (work / "run").exists():
            words = tokenizers.train([row["text"] for row in rows], vocabulary, work / "words")
            write_shard([(row["id"], row["text"]) for row in rows], words, work / "shards", "part-0")
        train = [(row["id"], 1) for row in rows]
        inputs = {"shards": [work / "shards"], "train": train, "heldout": [], "tokenizer": work / "words"}
        before = max((row["step"] for row in read_metrics(work / "run" / "metrics.jsonl")), default=0)
        report = pretrain(config, **inputs, out=work / "run")
        metrics = read_metrics(work / "run" / "metrics.jsonl")
    seconds = sum(row["tokens"] / row["tokens_per_s"] for row in metrics if row["step"] > before)
    told = {
        "steps": report["steps"],
        "epochs": report["epochs"],
        "parameters": report["parameters"],
        "batch": config.batch,
        "alarms": report["skipped"],
        "loss": report["loss"],
        "seconds": seconds,
        "guard_seconds": spent,
        "overhead": spent / seconds,
    }
    print(f"{told['alarms']} alarms in {told['steps']:,} steps; the guard took {told['overhead']:.3%} of the time")
    print(json.dumps(told))
    return told


if __name__ == "__main__":
    main()
