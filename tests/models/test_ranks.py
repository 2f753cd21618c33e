"""Several ranks train one model: the losses, the documents and the files are those of one process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import DiedError, losses, together
from ranked_work import merged, train
from safetensors.torch import load_file
from toys import base, conversations, dialogue, reversals, shard, stories, words

from datalake.errors import UserError
from models.methods import METHODS
from models.network import checkpoint
from models.network.build import ScalarHead, build_model
from models.network.config import LoraConfig, NetworkConfig
from models.parallel.ranks import ALONE, Ranks
from models.text import tokenizer as text
from models.text.shards import TokenShards
from models.training.loop import split
from models.training.metrics import read_metrics

STEPS = 20
SHORT = {"steps": STEPS, "accumulation": 2, "checkpoint_every": 5, "warmup": 0.1, "schedule": "constant"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Config and inputs of each method: two layers, rows and answers of unequal lengths."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer = words(folder / "tokenizer")
    model = base(folder / "base", tokenizer)
    torch.manual_seed(1)
    judge = ScalarHead(checkpoint.load_model(model), "normal", torch.Generator().manual_seed(1))
    checkpoint.save(judge, tokenizer, folder / "judge")
    tokens = shard(folder / "tokens", stories(40), tokenizer)
    ids = TokenShards(tokens).ids
    shape = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "context": 32}
    talks = [dialogue(*pair) for n in range(1, 6) for pair in reversals(7, seed=n, digits=n)]
    pairs = [
        {"prompt": [{"role": "user", "content": "1"}], "chosen": a, "rejected": b}
        for n in (3, 4, 5)
        for a, b in reversals(11, seed=n, digits=n)
        if a != b
    ]
    prompts = [{"messages": talk[:1], "answer": ""} for talk in talks]
    given = {
        "pretrain": (
            {"batch": 5, "eval_every": 10, **shape},
            {
                "shards": [tokens],
                "train": [(id, 1) for id in ids[:-4]],
                "heldout": list(ids[-4:]),
                "tokenizer": folder / "tokenizer",
            },
        ),
        "sft": (
            {"batch": 8, "eval_every": 10},
            {"base": model, "conversations": conversations(talks), "heldout": conversations(talks[:3])},
        ),
        "reward": ({"batch": 4, "eval_every": 10}, {"base": model, "pairs": pairs, "heldout": pairs[:3]}),
        "kto": ({"batch": 4, "eval_every": 10}, {"base": model, "judgements": pairs, "heldout": pairs[:3]}),
        "ppo": (
            {"batch": 8, "minibatches": 2, "new_tokens": 6, "epochs": 1},
            {
                "policy": model,
                "reward_model": folder / "judge",
                "prompts": prompts,
                "heldout": [],
            },
        ),
    }
    return {name: (METHODS[name].config(**(SHORT | config)), inputs) for name, (config, inputs) in given.items()}


@pytest.fixture(scope="module")
def one(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a method's run in one process, and the micro-batches of its updates."""
    done: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in done:
            out = tmp_path_factory.mktemp(name)
            report, taken = train(Ranks(), name, *world[name], out)
            done[name] = out, report, merged([taken])
        return done[name]

    return of


def close(out: Path, other: Path, limit: float = 1e-5) -> None:
    mine, theirs = losses(out), losses(other)
    assert len(mine) == len(theirs) == STEPS
    assert max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) < limit


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("data", name) for name in ("pretrain", "sft", "ppo")),
        *(("fsdp", "ppo"), ("tensor", "pretrain")),
        *(pytest.param("data", name, marks=pytest.mark.slow) for name in ("reward", "kto")),
        *(pytest.param("fsdp", name, marks=pytest.mark.slow) for name in ("pretrain", "sft", "reward", "kto")),
        *(pytest.param("tensor", name, marks=pytest.mark.slow) for name in ("ppo", "sft", "reward", "kto")),
    ],
)
def test_two_ranks_have_the_losses_of_one(world: Any, one: Any, tmp_path: Path, kind: str, name: str) -> None:
    alone, report, taken = one(name)
    (told, first), (_, second) = together(train, name, *world[name], tmp_path, kind=kind)
    close(tmp_path, alone)
    assert told["computed"]["ranks"] == 2
    assert told["target_tokens"] == report["target_tokens"]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, STEPS + 1))
    if kind == "tensor":  # ranks compute all together
        assert first == second
        first, second = ([update[rank::2] for update in first] for rank in (0, 1))
    if name not in ("kto", "ppo"):  # whose batches hold what the ranks' own arithmetic gave
        assert merged([first, second]) == taken
    assert all(len(a) == len(b) == 1 for a, b in zip(first[:10], second[:10], strict=True))
    mine, theirs = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (tmp_path, alone))
    assert max(float((mine[key] - theirs[key]).abs().max()) for key in theirs) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape"), [("expert", {"experts": 4}), ("tensor", {"qk_norm": True, "tie": False})])
def test_ranks_that_hold_parts_go_on_from_a_state_of_one(world: Any, tmp_path: Path, kind: str, shape: Any) -> None:
    """Experts of their own; heads with norms, and a head of its own."""
    config, inputs = world["sft"]
    tokenizer = text.load(inputs["base"])
    network = NetworkConfig(layers=2, width=64, heads=4, kv_heads=2, context=24, **shape).sized(len(tokenizer))
    inputs = inputs | {"base": checkpoint.save(build_model(network, 1), tokenizer, tmp_path / "base")}
    train(Ranks(), "sft", config, inputs, tmp_path / "one")
    together(train, "sft", config, inputs, tmp_path / "two", kind=kind)
    close(tmp_path / "one", tmp_path / "two")
    for before, after in ((1, 2), (2, 1)):
        out = tmp_path / f"{before}-{after}"
        with pytest.raises(DiedError):
            together(train, "sft", config, inputs, out, (signal.SIGKILL, 13), size=before, kind=kind)
        files = {path.name for path in max((out / "state").glob("step-*")).iterdir()}
        assert files == {"state.json", "state.pt", *(f"rank-{rank}.pt" for rank in range(1, before))}
        together(train, "sft", config, inputs, out, size=after, kind=kind)
        close(tmp_path / "one", out)
        mine, theirs = (load_file(f / "checkpoint" / "model.safetensors") for f in (out, tmp_path / "one"))
        assert max(float((mine[key] - theirs[key]).abs().max()) for key in theirs) < 1e-4


@pytest.mark.parametrize("kind", ["fsdp", pytest.param("data", marks=pytest.mark.slow)])
def test_adapters_and_the_tokens_that_they_bring_along(world: Any, tmp_path: Path, kind: str) -> None:
    """Of a base that never saw the tokens of the chat template: their rows are one."""
    config, inputs = world["sft"]
    config = config.model_copy(update={"lora": LoraConfig(rank=4), "learning_rate": 3e-3})
    model, tokenizer = checkpoint.load(inputs["base"])
    with torch.no_grad():
        model.embed_tokens.weight[text.control_ids(tokenizer)] = 0.1  # type: ignore[index, operator]
    inputs = inputs | {"base": checkpoint.save(model, tokenizer, tmp_path / "base")}
    report, _ = train(Ranks(), "sft", config, inputs, tmp_path / "one")
    assert "<|end|>" in report["learned_tokens"]
    (told, _), _ = together(train, "sft", config, inputs, tmp_path / "two", kind=kind)
    assert told["learned_tokens"] == report["learned_tokens"]
    close(tmp_path / "one", tmp_path / "two")
    out = tmp_path / "killed"
    with pytest.raises(DiedError):
        together(train, "sft", config, inputs, out, (signal.SIGKILL, 13), kind=kind)
    train(Ranks(), "sft", config, inputs, out)
    close(tmp_path / "one", out)
    mine, theirs = (load_file(run / "checkpoint" / "model.safetensors") for run in (out, tmp_path / "one"))
    end = text.end_of_turn(tokenizer)
    assert torch.allclose(mine["model.embed_tokens.weight"], theirs["model.embed_tokens.weight"], atol=1e-4)
    assert not torch.allclose(theirs["model.embed_tokens.weight"][end], torch.tensor(0.1), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"optimizer": "muon", "muon_learning_rate": 0.002}, 1e-3),
        pytest.param({"precision": "bfloat16"}, 2e-2, marks=pytest.mark.slow),
    ],
)
def test_sharded_in_bfloat16_and_by_muon(world: Any, tmp_path: Path, change: Any, limit: float) -> None:
    config, inputs = world["pretrain"]
    config = config.model_copy(update=change)
    train(Ranks(), "pretrain", config, inputs, tmp_path / "one")
    together(train, "pretrain", config, inputs, tmp_path / "two", kind="fsdp")
    close(tmp_path / "one", tmp_path / "two", limit)


def test_targets_are_unequal_here(world: Any) -> None:
    config, inputs = world["pretrain"]
    data = METHODS["pretrain"].data(config, **METHODS["pretrain"].given(inputs))
    counts = [int((part.targets >= 0).sum()) for part in split(data.sampler.batch(0), 2)]
    assert counts[0] != counts[1]


def test_a_batch_too_small_for_every_rank_is_the_same_batch(world: Any, tmp_path: Path) -> None:
    config, inputs = world["sft"]
    few = config.model_copy(update={"batch": 17})  # 35 dialogues: two steps of 17, one of 1
    train(Ranks(), "sft", few, inputs, tmp_path / "one")
    (_, first), (_, second) = together(train, "sft", few, inputs, tmp_path / "two")
    assert 0 in {len(a) for a in first + second}
    close(tmp_path / "one", tmp_path / "two")


def test_a_signal_to_one_rank_saves_the_same_step_on_all(world: Any, one: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"SystemExit\(143\)|KeyboardInterrupt"):
        together(train, "pretrain", *world["pretrain"], tmp_path, (signal.SIGTERM, 7))
    saved = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert saved[-1] in ("step-000000007", "step-000000008")
    (report, _), _ = together(train, "pretrain", *world["pretrain"], tmp_path)
    assert report["computed"]["from_step"] == int(saved[-1][5:])
    close(tmp_path, one("pretrain")[0])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), pytest.param(2, 2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["pretrain", pytest.param("ppo", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["fsdp", pytest.param("data", marks=pytest.mark.slow), pytest.param("tensor", marks=pytest.mark.slow)]
)
def test_killed_and_resumed_in_another_number(
    world: Any, one: Any, tmp_path: Path, kind: str, name: str, before: int, after: int
) -> None:
    out = tmp_path / "killed"
    with pytest.raises(DiedError) as died:
        together(train, name, *world[name], out, (signal.SIGKILL, 13), size=before, kind=kind)
    assert died.value.signals == [-signal.SIGKILL] * before
    answers = together(train, name, *world[name], out, size=after, kind=kind)
    begun = answers[0][0]["computed"]["from_step"]
    assert begun in (5, 10)
    alone, _, taken = one(name)
    close(out, alone)
    if name != "ppo":
        assert merged([taken for _, taken in answers[: 1 if kind == "tensor" else 2]]) == taken[begun:]
    if before == after:
        together(train, name, *world[name], tmp_path / "whole", kind=kind)
        assert losses(out) == losses(tmp_path / "whole")
        mine, theirs = (load_file(f / "checkpoint" / "model.safetensors") for f in (out, tmp_path / "whole"))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_a_batch_that_ranks_cannot_share_is_refused(world: Any, tmp_path: Path) -> None:
    config, inputs = world["sft"]
    with pytest.raises(RuntimeError, match=r"sft\.accumulation is 3, and 2 ranks each take an equal share"):
        together(train, "sft", config.model_copy(update={"accumulation": 3}), inputs, tmp_path)
    ALONE.fits("sft", 3, "adamw")
    two = Ranks()
    two.size = 2
    with pytest.raises(UserError, match="a multiple of 2"):
        two.fits("sft", 3, "adamw")
