"""What models write for training, as stages: rows with lineage, sums, resume without asking twice, pinned bytes."""

from __future__ import annotations

import importlib.metadata
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import toys
import world
from begun import Start, ended, kill_when, state
from completions import CompletionServer, Fault, completions
from test_golden import digest

from datalake.lake.lake import Lake
from flows.dry import DryRun
from flows.lake import Lake as Opened
from flows.parameters import resolve
from tasks.feedback import feedback
from tasks.instruct import instruct

VERBS = ["Describe", "Explain", "Compare", "Rewrite", "Summarise", "Translate", "Invent", "Criticise"]
NOUNS = ["winter mornings", "old bridges", "river trade", "grammar", "friendship", "tall towers", "salt", "silence"]


def answer(body: dict[str, Any]) -> Any:
    """Tasks where tasks are asked for, letters where a judge is, else an answer that says what was asked."""
    said, seed = body["messages"][-1]["content"], int(body["seed"])
    if said.startswith("You invent"):
        first = int(said.rpartition("numbered ")[2].split()[0])
        picked = [(VERBS[(seed + n) % 8], NOUNS[(seed // 8 + 3 * n) % 8], seed % 97 + n) for n in range(4)]
        lines = [f"{first + n}. {verb} {noun}, number {extra}." for n, (verb, noun, extra) in enumerate(picked)]
        return "\n".join([*lines, f"{first + 4}. Draw a picture of {picked[0][1]}."])
    if said.startswith("Here is a dialogue"):
        revised = said.index("[revised") if "[revised" in said else -1
        return "A" if 0 <= revised < said.index("[Answer B]") else "B"
    if said.endswith("any remark about it."):
        return f"[revised {seed}] {seed % 1000} better words, all of them new"
    return f"{seed} is what comes to mind when {said.split()[0].lower()} is asked, {seed % 13} times"


@pytest.fixture
def server() -> Any:
    with completions(answer) as running:
        yield running


def recipe(folder: Path, server: CompletionServer, **sections: Any) -> dict[str, Any]:
    endpoint = {"url": server.url, "model": "m", "retries": 1, "backoff_seconds": 0.001, "connections": 2}
    writer = {"endpoint": endpoint}
    return {
        "corpus": "small",
        "sources": [{"kind": "conversations", "paths": [str(world.dialogues(folder / "d.jsonl", 12))]}],
        "mixture": {"holdout": 0.2},
        "instruct": {"writer": writer, "rounds": 3, "requests": 2, "more": 6, "examples": 3, "instructions": 6},
        "feedback": {"writer": writer, "judge": writer, "prompts": 6, "answers": ["revised", "sampled"]},
        **{name: value for name, value in world.tiny_models().items() if name in ("sft", "dpo")},
        "reward": None,
        "ppo": None,
        "evaluate": None,
        "runtime": world.inline(),
        **sections,
    }


def test_what_is_written_is_learned_from_beside_what_is_given_and_says_where_it_comes_from(
    prefect_server: Any, server: CompletionServer, tmp_path: Path
) -> None:
    base = toys.base(tmp_path / "base", toys.words(tmp_path / "words"), context=64)
    lake, given = tmp_path / "lake", recipe(tmp_path, server, base=str(base))
    reports = world.run(given, lake)
    ran = {"ingest", "base", "instruct", "sft", "feedback", "dpo"}
    assert world.states(reports) == dict.fromkeys(ran, "ran")
    asked = len(server.asked)
    assert max(Counter(map(str, server.asked)).values()) == 1

    rows = world.rows(
        lake, "SELECT source, attributes['writer'], attributes['round'], attributes['seeds'] FROM small.instructions"
    )
    assert len(rows) >= 4
    assert {row[:2] for row in rows} == {("instruct", f"m at {server.url}")}
    known = {id.hex() for (id,) in world.rows(lake, "SELECT id FROM small.conversations")}
    known |= {id.hex() for (id,) in world.rows(lake, "SELECT id FROM small.instructions")}
    assert all(len(seeds.split()) >= 3 and known.issuperset(seeds.split()) for *_, seeds in rows)
    refused = dict(world.rows(lake, "SELECT reason, count(*) FROM small.instructions_refused GROUP BY ALL"))
    assert refused["keyword"] >= 1
    report = reports["instruct"]
    assert report.records_in == report.records_out + sum(refused.values())

    pairs = world.rows(lake, "SELECT attributes['how'], attributes['judge'], chosen, rejected FROM small.feedback")
    assert {judge for _, judge, *_ in pairs} == {f"m at {server.url}"}
    assert all(chosen.startswith("[revised") for how, _, chosen, _ in pairs if how == "revised")
    unused = dict(world.rows(lake, "SELECT reason, count(*) FROM small.feedback_refused GROUP BY ALL"))
    assert unused == {"inconsistent": 6}, "of two samples the judge always takes the second"
    assert len(pairs) == 6

    seen = Opened(lake).trace("sft", 1)
    assert {row["source"] for row in seen} <= {"conversations", "instruct"}
    assert all(row["uri"] for row in seen)
    assert world.states(world.run(given, lake)) == dict.fromkeys(ran, "cached")
    milder = given | {"instruct": given["instruct"] | {"jaccard": 0.9}}
    assert world.run(milder, lake, "instruct")["instruct"].state == "ran"
    assert len(server.asked) == asked, "another threshold asks nobody again"
    look = DryRun(resolve(given | {"instruct": given["instruct"] | {"seed": 5}}, []), Lake(lake))
    from flows.pipeline import pipeline

    pipeline(look)
    assert {one.stage: one.state for one in look.reports}["sft"] == "would run"


def test_an_endpoint_that_is_down_is_one_line_and_the_next_run_goes_on(
    prefect_server: Any, server: CompletionServer, tmp_path: Path
) -> None:
    lake, given = tmp_path / "lake", recipe(tmp_path, server)
    server.answer = lambda body: answer(body) if len(server.asked) <= 5 else Fault(503)
    with pytest.raises(Exception, match=r"the endpoint http.*fails after 2 tries: status 503.*the next run goes on"):
        world.run(given, lake, "instruct")
    kept = len(list((lake / "answers").rglob("*.json")))
    assert kept == 5
    before = len(server.asked)
    server.answer = answer
    assert world.run(given, lake, "instruct")["instruct"].state == "ran"
    every = Counter(map(str, server.asked[:5] + server.asked[before:]))
    assert max(every.values()) == 1


@pytest.mark.slow
def test_a_killed_run_asks_nothing_twice_that_was_answered(
    start: Start, prefect_server: Any, server: CompletionServer, tmp_path: Path
) -> None:
    given, stopped, let = recipe(tmp_path, server), 7, threading.Event()

    def held(body: dict[str, Any]) -> Any:
        if len(server.asked) >= stopped:
            let.wait(120)
        return answer(body)

    server.answer = held
    lake = tmp_path / "lake"
    killed = start(given, lake, "feedback", prefect_server.url)
    # Two are held; the others are answered and kept.
    kill_when(killed, lambda: len(list((lake / "answers").rglob("*.json"))) == stopped - 1 and server.active == 2)
    answered = {str(body) for body in server.asked[: stopped - 1]}
    before = len(server.asked)
    let.set()
    server.answer = answer
    body = ended(start(given, lake, "feedback", prefect_server.url))
    assert state(body, "feedback") == "ran"
    again = Counter(map(str, server.asked[before:]))
    assert max(again.values()) == 1
    assert not answered & again.keys()
    undisturbed = tmp_path / "undisturbed"
    world.run(given, undisturbed, "feedback")
    stages = ["instruct", "feedback"]
    assert world.parquet(lake, stages) == world.parquet(undisturbed, stages)


PINS = {
    "instruct": (
        "1",
        {
            "instructions": "99aa06d3014798d86001c324468d497f",
            "instructions_refused": "34ed0f542d2443a572483c021993e2f9",
        },
    ),
    "feedback": (
        "1",
        {"feedback": "99aa06d3014798d86001c324468d497f", "feedback_refused": "ba5213f46e325db3f31f1fb97b361de8"},
    ),
}


def test_what_a_tiny_model_writes_is_pinned(prefect_server: Any, tmp_path: Path) -> None:
    if importlib.metadata.version("torch").split("+")[0] != "2.13.0":
        pytest.skip("pinned with torch 2.13.0")
    base = toys.base(tmp_path / "base", toys.words(tmp_path / "words"), context=1024)
    draw = {"temperature": 1.0, "new_tokens": 300}
    given = {
        "corpus": "small",
        "base": str(base),
        "sources": [{"kind": "conversations", "paths": [str(world.dialogues(tmp_path / "d.jsonl", 8))]}],
        "instruct": {
            "writer": {"model": "base", "format": "text", **draw},
            "rounds": 2,
            "requests": 3,
            "least_words": 1,
        },
        "sft": None,
        "feedback": {
            "writer": {"model": "sft", **draw},
            "judge": {"model": str(base)},
            "prompts": 4,
            "answers": ["sampled"],
        },
        "runtime": world.inline(),
    }
    reports = world.run(given, tmp_path / "lake", "feedback")
    found = {
        name: (stage.version, {key: digest(tmp_path / "lake", ref) for key, ref in reports[name].outputs.items()})
        for name, stage in (("instruct", instruct), ("feedback", feedback))
    }
    assert found == PINS
