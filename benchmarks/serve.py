"""`headwater serve` beside `transformers serve`: requests a second and time to the first token, by number of clients.

    .venv/bin/python benchmarks/serve.py FOLDER [--clients 1 16] [--seconds 30] [--rounds 3] [--tokens 32] [--batching]
    .venv/bin/python benchmarks/serve.py FOLDER --clients 100 --seconds 60 --rounds 1 --alone

FOLDER is a chat model as both read it. Each server is a command of its own on one core, with one thread and float32,
the clients on another; servers take turns, in an order that alternates. A client streams one chat after the other: 16
prompts of some 10 to 200 words, greedy, `--tokens` at most, so that both write the same. Loading isn't counted, nor
what was asked before the time began (each prompt once). `--batching` adds `transformers serve --continuous-batching`
as a third. `--alone`: ours only, as a check that nothing is lost.

A request counts when its stream ended in order, with a reason and usage; all others are lost, and told by their error.
Prints each round and, as its last line, one JSON object with medians and the median of the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

BIN = Path(sys.executable).parent
STORY = "the river brought the town its water and its trade and every spring it took a street or two away "
QUESTIONS = ("Who lives by a river?", "What is a spring?", "Name three towns.", "Why does water flow?")
PROMPTS = [f"{question} {(STORY * 12)[:length]}" for length in (20, 200, 500, 1000) for question in QUESTIONS]
Record = dict[str, Any]


def free_port() -> int:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


def commands(folder: str, port: int) -> dict[str, list[str]]:
    peer = [str(BIN / "transformers"), "serve", folder, "--port", str(port), "--dtype", "float32", "--device", "cpu"]
    return {
        "headwater": [str(BIN / "headwater"), "serve", folder, "--port", str(port), "--slots", "16"],
        "transformers": peer,
        "batching": [*peer, "--continuous-batching"],
    }


async def ask(client: AsyncOpenAI, model: str, prompt: str, tokens: int) -> Record:
    """One streamed chat: seconds to the first piece of text and to the end, tokens written, what was written."""
    began, first, text, reason, usage = time.perf_counter(), None, "", None, None
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], max_tokens=tokens, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    async for part in stream:
        usage = part.usage or usage
        for choice in part.choices:
            if choice.delta.content:
                first = first or time.perf_counter()
                text += choice.delta.content
            reason = choice.finish_reason or reason
    if reason is None or not text:
        raise ValueError("a stream without an end")
    ended = time.perf_counter()
    return {
        "first_s": (first or ended) - began,
        "s": ended - began,
        "tokens": usage and usage.completion_tokens,
        "text": text,
    }


async def load(url: str, model: str, clients: int, seconds: float, tokens: int) -> Record:
    """What so many clients got in so many seconds; each begins no request after their end, and all are waited for."""
    done: list[Record] = []
    lost: Counter[str] = Counter()
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)
    for prompt in PROMPTS:
        await ask(client, model, prompt, 2)
    began = time.perf_counter()

    async def one(number: int) -> None:
        turn = number
        while time.perf_counter() - began < seconds:
            try:
                done.append(await ask(client, model, PROMPTS[turn % len(PROMPTS)], tokens))
            except Exception as error:
                lost[f"{type(error).__name__}: {error}"[:200]] += 1
            turn += 1

    await asyncio.gather(*(one(number) for number in range(clients)))
    took = time.perf_counter() - began
    await client.close()
    first = sorted(record["first_s"] for record in done)
    return {
        "requests": len(done),
        "lost": sum(lost.values()),
        "errors": dict(lost),
        "requests_per_s": len(done) / took,
        "tokens_per_s": sum(record["tokens"] or 0 for record in done) / took,
        "first_s": statistics.median(first) if first else None,
        "first_95_s": first[int(0.95 * (len(first) - 1))] if first else None,
        "texts": sorted({record["text"] for record in done}),
    }


def serve(name: str, options: argparse.Namespace, clients: int) -> Record:
    """A server from its start to its end, and what clients got of it meanwhile."""
    cores = sorted(os.sched_getaffinity(0))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = ["taskset", "-c", str(cores[-1]), *commands(options.folder, port)[name]]
    began = time.perf_counter()
    with Path(options.log).open("ab") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        import urllib.request

        while True:
            if running.poll() is not None:
                raise SystemExit(f"{name} ended with {running.returncode}: see {options.log}")
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        start_s = time.perf_counter() - began
        os.sched_setaffinity(0, cores[:-1] or cores)
        model = Path(options.folder).name if name == "headwater" else options.folder
        return asyncio.run(load(url, model, clients, options.seconds, options.tokens)) | {"start_s": start_s}
    finally:
        os.sched_setaffinity(0, cores)
        running.terminate()
        running.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batching", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--log", default="/tmp/serve-benchmark.log")
    options = parser.parse_args()
    options.folder = str(Path(options.folder).resolve())
    names = (
        ["headwater"] if options.alone else ["headwater", "transformers", *(["batching"] if options.batching else [])]
    )
    told: Record = {}
    for clients in options.clients:
        found: dict[str, list[Record]] = {name: [] for name in names}
        texts: dict[str, list[str]] = {}
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                record = serve(name, options, clients)
                texts[name] = record.pop("texts")
                found[name].append(record)
                shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in record.items()}
                print(f"{clients} clients, round {number + 1}, {name}: {shown}", flush=True)
        figures = ("requests_per_s", "tokens_per_s", "first_s", "first_95_s")
        told[str(clients)] = {
            name: {key: round(statistics.median(one[key] for one in rows), 3) for key in figures}
            | {"requests": sum(one["requests"] for one in rows), "lost": sum(one["lost"] for one in rows)}
            for name, rows in found.items()
        }
        for name in names[1:]:
            pairs = list(zip(found["headwater"], found[name], strict=True))
            ratios = {key: round(statistics.median(a[key] / b[key] for a, b in pairs), 2) for key in figures}
            same = len(set(texts["headwater"]) & set(texts[name]))
            told[str(clients)][f"headwater / {name}"] = ratios
            told[str(clients)][f"texts equal to {name}"] = f"{same} of {len(texts['headwater'])}"
            print(f"{clients} clients, headwater / {name}: {ratios}; texts equal: {same} of {len(texts['headwater'])}")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "uvicorn")}
    versions |= {"python": platform.python_version()}
    shape = {"seconds": options.seconds, "rounds": options.rounds, "tokens": options.tokens}
    print(json.dumps({"bench": "serve", **shape, **told, "versions": versions, "machine": platform.machine()}))


if __name__ == "__main__":
    main()
