"""A training step of the demo's shape, alone and beside a program that keeps both cores busy, in three ways.

    .venv/bin/python benchmarks/training_beside.py [--steps 20] [--rounds 2]

Ways: one process with two threads, as training does; one with four; two processes with one thread each and half of
the batch, whose gradients are added up once a step. Prints seconds a step (means, the first three left out) and how
many seconds of processor time there were for each second that went by; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from models.methods.pretrain import PretrainConfig
from models.network.build import build_model, keep_freed_memory
from models.objectives.next_token import next_token
from models.text.sampler import Batch
from models.training.optimizer import build_optimizer, scale_and_clip

WAYS = {"1 process, 2 threads": (1, 2), "1 process, 4 threads": (1, 4), "2 processes, 1 thread each": (2, 1)}
SPIN = "import os\nos.fork()\nwhile True: pass"
BATCH, CONTEXT, VOCABULARY, FIRST = 16, 256, 8192, 3


def train(rank: int, ranks: int, threads: int, steps: int, port: int, told: Any) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    if ranks > 1:
        where = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=ranks)
    config = PretrainConfig(layers=4, width=192, heads=6, kv_heads=2, context=CONTEXT, batch=BATCH, steps=steps)
    model = build_model(config.network(VOCABULARY), 0)
    optimizer, objective = build_optimizer(config, {"model": model}), next_token(False)
    generator, rows = torch.Generator().manual_seed(rank), BATCH // ranks
    began = used = 0.0
    for step in range(steps):
        if step == FIRST:
            began, used = time.perf_counter(), time.process_time()
        tokens = torch.randint(0, VOCABULARY, (rows, CONTEXT + 1), generator=generator)
        places = torch.arange(CONTEXT).expand(rows, CONTEXT).contiguous()
        batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), places, torch.zeros_like(places))
        loss = objective(model, batch)
        loss.total.backward()
        if ranks > 1:
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            torch.distributed.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        scale_and_clip(optimizer, 1 / (loss.targets * ranks), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    went = time.perf_counter() - began
    told.put((went / (steps - FIRST), (time.process_time() - used) / went))


def measure(ranks: int, threads: int, steps: int) -> tuple[float, float]:
    """Seconds a step, and seconds of processor time a second of all processes."""
    context = torch.multiprocessing.get_context("spawn")
    told = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = [(rank, ranks, threads, steps, port, told) for rank in range(ranks)]
    processes = [context.Process(target=train, args=one) for one in given]
    for process in processes:
        process.start()
    found = [told.get() for _ in processes]
    for process in processes:
        process.join()
    return max(seconds for seconds, _ in found), sum(share for _, share in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as in a run
    rows = []
    for number in range(options.rounds):
        for beside in (False, True):
            # A session of its own: the kernel shares the cores out between sessions, not between processes.
            busy = subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) if beside else None
            try:
                for way, (ranks, threads) in WAYS.items():
                    seconds, share = measure(ranks, threads, options.steps)
                    rows.append({"round": number + 1, "beside": beside, "way": way, "s": seconds, "cpu": share})
                    where = "beside" if beside else "alone "
                    print(
                        f"round {number + 1}  {where}  {way:28s} {seconds:.3f} s a step  {share:.2f} cores", flush=True
                    )
            finally:
                if busy is not None:
                    os.killpg(busy.pid, 9)
                    busy.wait()
    print(json.dumps({"bench": "training_beside", "steps": options.steps, "rows": rows}))


if __name__ == "__main__":
    main()
