"""What goes wrong in alignment: one line that says what to do, and the next run goes on as if nothing had been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from tokenizers import Tokenizer

from datalake.errors import UserError
from models.methods.dpo import DpoConfig, dpo
from models.methods.grpo import GrpoConfig, grpo
from models.methods.kto import KtoConfig, kto
from models.methods.ppo import PpoConfig, ppo
from models.methods.prompted import sampling_of
from models.methods.reward import RewardConfig, reward
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.network.build import ScalarHead
from models.rl.heldout import other_reward_model
from models.text.tokenizer import load
from models.training.metrics import read_metrics

# A reward that calls on something else, which fails after so many calls while `fault` says how.
CALLS = """
import json, pathlib, time

def score(prompt, answer, row):
    fault = pathlib.Path({fault!r})
    if fault.exists():
        told = json.loads(fault.read_text())
        fault.write_text(json.dumps(told | {{"left": told["left"] - 1}}))
        if told["left"] <= 0 and told["how"] == "raises":
            raise ConnectionError("the judge is away\\nTraceback")
        if told["left"] <= 0 and told["how"] == "hangs":
            time.sleep(600)
        if told["left"] <= 0:
            return float("nan")
    return len(answer) / 10
"""
SMALL: dict[str, Any] = {"batch": 4, "steps": 3, "new_tokens": 4, "checkpoint_every": 1, "eval_every": 0}
ROWS = toys.asked(toys.reversals(12, seed=5))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A base, a reward model from it, and one that reads other tokens."""
    folder = tmp_path_factory.mktemp("faults")
    words = toys.words(folder / "words")
    base = toys.base(folder / "base", words)
    other = toys.words(folder / "other words")
    other.add_tokens(["another"])
    for name, its in (("judge", words), ("foreign", other)):
        network, _ = checkpoint.load(toys.base(folder / f"{name} trunk", its))
        checkpoint.save(ScalarHead(network, "zero"), its, folder / name)
    return {"folder": folder, "base": base, "judge": folder / "judge", "foreign": folder / "foreign"}


@pytest.fixture(scope="module")
def undisturbed(world: dict[str, Any]) -> tuple[Path, bytes]:
    """The file of a reward, and the weights of a run in which it never failed."""
    file, out = world["folder"] / "mine.py", world["folder"] / "undisturbed"
    file.write_text(CALLS.format(fault=str(world["folder"] / "fault.json")))
    grpo(GrpoConfig(group=2, rewards=(f"{file}:score",), **SMALL), world["base"], ROWS, [], None, out)
    return file, (out / "checkpoint" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", r"ConnectionError: the judge is away \(line \d+ of <grpo\.rewards>\); mend what it calls on"),
        ("nan", "it gave nan, which is no reward; mend"),
        ("hangs", r"it took longer than 0\.5 s; mend"),
    ],
)
def test_a_reward_that_fails_costs_the_step_it_failed_in(
    world: dict[str, Any], undisturbed: tuple[Path, bytes], tmp_path: Path, how: str, said: str
) -> None:
    file, weights = undisturbed
    fault = world["folder"] / "fault.json"
    entry = {"function": f"{file}:score", "seconds": 0.5 if how == "hangs" else 60.0}
    config = GrpoConfig(group=2, rewards=(entry,), **SMALL)  # type: ignore[arg-type]
    fault.write_text(json.dumps({"how": how, "left": 10}))
    with pytest.raises(UserError, match=rf"^grpo\.rewards: score \(.*\) failed on row [0-9a-f]{{32}}: {said}") as error:
        grpo(config, world["base"], ROWS, [], None, tmp_path)
    assert "\n" not in str(error.value)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    fault.unlink()
    report = grpo(config, world["base"], ROWS, [], None, tmp_path)
    assert report["computed"]["from_step"] == 2
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == weights


def test_a_reward_that_is_itself_changed_is_another_and_is_learned_from_the_start(
    world: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    for body in ("    return 1 / 0", "    return len(answer) / 10"):
        file.write_text(f"def score(prompt, answer, row):\n    if len(answer) < 0:\n        return 0\n{body}\n")
        config = GrpoConfig(group=2, rewards=(f"{file}:score",), **SMALL)  # type: ignore[arg-type]
        if "/ 0" in body:
            with pytest.raises(UserError, match=r"ZeroDivisionError.*another reward, which is learned from the first"):
                grpo(config, world["base"], ROWS, [], None, tmp_path, states=tmp_path / "states")
    report = grpo(config, world["base"], ROWS, [], None, tmp_path, states=tmp_path / "states")
    assert (report["computed"]["from_step"], report["steps"]) == (0, 3)


@pytest.mark.parametrize(
    ("judge", "said"), [("foreign", "have different tokenizers"), ("base", "is not a reward model")]
)
@pytest.mark.parametrize("method", [ppo, grpo], ids=lambda method: method.name)
def test_a_judge_that_cannot_judge_is_one_line_before_anything_is_written(
    world: dict[str, Any], tmp_path: Path, judge: str, said: str, method: Any
) -> None:
    config = (PpoConfig if method is ppo else GrpoConfig)(**SMALL | {"group": 2})
    with pytest.raises(UserError, match=said) as error:
        method(config, world["base"], ROWS, [], world[judge], tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_prompt_longer_than_the_context_is_cut_and_counted(world: dict[str, Any], tmp_path: Path) -> None:
    rows = [*ROWS[:5], *toys.asked([("7 " * 40, "")]), *ROWS[5:]]
    report = ppo(PpoConfig(**SMALL | {"steps": 2}), world["base"], rows, [], world["judge"], tmp_path)
    assert (report["steps"], report["prompts"], report["cut"], report["left_out"]) == (2, len(rows), 1, [])


@pytest.mark.parametrize(
    ("method", "config"),
    [(dpo, DpoConfig), (kto, KtoConfig), (reward, RewardConfig)],
    ids=lambda one: getattr(one, "name", ""),
)
def test_answers_that_are_all_equal_are_one_line(
    world: dict[str, Any], tmp_path: Path, method: Any, config: Any
) -> None:
    pairs = [
        {"prompt": toys.dialogue(question, "")[:1], "chosen": answer, "rejected": answer, "source": "s"}
        for question, answer in toys.reversals(6, seed=1)
    ]
    with pytest.raises(UserError, match="two equal answers") as error:
        method(config(batch=2, steps=1), world["base"], pairs, [], tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for m in messages %}[{{ m['content'] if loop.last else 'x' }}]{% endfor %}",
            r"can't write it.*generation",
        ),
        ("{% generation %}{% for m in messages %}{{ m['content'] }}{% endfor %}{% endgeneration %}", "every token"),
        (
            "{% for m in messages %}{{ m['content'] }}{% generation %}{% endgeneration %}{% endfor %}",
            r"marks nothing as the assistant's.*generation",
        ),
    ],
    ids=["no marks", "marks all", "marks nothing"],
)
def test_a_template_that_does_not_tell_what_the_assistant_said_is_one_line(
    world: dict[str, Any], tmp_path: Path, template: str, said: str
) -> None:
    words = load(world["base"])
    words.chat_template = template
    base = toys.base(tmp_path / "base", words)
    talks = toys.conversations([toys.dialogue(*pair) * 2 for pair in toys.reversals(4, seed=1, digits=2)])
    with pytest.raises(UserError, match=said) as error:
        sft(SftConfig(batch=2, steps=1), base, talks, [], tmp_path / "out")
    assert "generation" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "checkpoint").exists()


def rewarded(folder: Path, body: str) -> str:
    (folder / "told.py").write_text(f"def told(prompt, answer, row):\n    {body}\n")
    return f"{folder / 'told.py'}:told"


@pytest.mark.parametrize(("weight", "score"), [(1e6, 1e15), (1e-37, 25.0)])
@pytest.mark.parametrize("method", [ppo, grpo], ids=lambda method: method.name)
def test_rewards_without_measure_are_clipped_and_every_figure_is_a_number(
    world: dict[str, Any], tmp_path: Path, method: Any, weight: float, score: float
) -> None:
    """OpenRLHF 1240, verl 6361: one value that isn't finite, and all that is summed with it is none."""
    entry = {"function": rewarded(tmp_path, "return 3e38 if len(answer) % 2 else 2e38"), "weight": weight}
    given = {"rewards": (entry,), "minibatches": 1, "group": 2, "steps": 2, "missing_eos_penalty": 0.0}
    report = method(method.config(**SMALL | given), world["base"], ROWS, ROWS[:2], None, tmp_path / "out")
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    figures = ("score", "score_std", "reward", "loss", "length_correlation")
    assert all(isinstance(row[figure], int | float) for row in rows for figure in figures)
    assert report["score_first"] == pytest.approx(score, rel=0.3)
    assert 9 < rows[0]["reward"] <= 10


@pytest.mark.parametrize(
    "weights", [{"reward_model_weight": 0.0}, {"function": 0.0}, {"function": 0.0, "reward_model_weight": 0.0}]
)
def test_rewards_that_all_weigh_nothing_are_refused(tmp_path: Path, weights: dict[str, float]) -> None:
    given: dict[str, Any] = {name: value for name, value in weights.items() if name != "function"}
    if "function" in weights:
        given["rewards"] = ({"function": rewarded(tmp_path, "return 1"), "weight": weights["function"]},)
    with pytest.raises(ValueError, match="every reward weighs 0"):
        GrpoConfig(**given)


def test_a_token_behind_a_gap_of_the_vocabulary_can_be_written(world: dict[str, Any]) -> None:
    """tokenspeed 326: where ids have gaps, their number is less than the largest, and the end couldn't be drawn."""
    words = load(world["base"])
    told = json.loads(words.backend_tokenizer.to_str())
    largest = max(words.get_vocab().values())
    told["added_tokens"].append(told["added_tokens"][-1] | {"id": largest + 5, "content": "<|far|>"})
    told["model"]["vocab"]["<|far|>"] = largest + 5
    words._tokenizer = Tokenizer.from_str(json.dumps(told))
    assert len(words) < largest + 6
    assert sampling_of(GrpoConfig(), words).vocabulary == largest + 6


def test_a_judge_of_a_shorter_context_is_asked_about_nothing_that_it_cannot_read(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tinker-cookbook 506: with what tools gave back a dialogue went beyond what was read."""
    words = load(world["base"])
    start = toys.base(tmp_path / "base", words, context=4096)
    config = PpoConfig(**SMALL | {"steps": 1, "batch": 8, "new_tokens": 16, "exact": "off", "tools": ("calculator",)})
    short = [row | {"messages": toys.dialogue("1", "")[:1]} for row in ROWS]
    context = 18 + max(map(len, ppo.data(config, start, short, []).fitted.items))  # the prompt, an answer, no more
    judge, _ = checkpoint.load(toys.base(tmp_path / "trunk", words, context=context))
    checkpoint.save(ScalarHead(judge, "zero"), words, tmp_path / "judge")
    monkeypatch.setattr("models.rl.tools.turns._calls", lambda turn, words: [None] if turn else [])
    stops = list(range(0, len(words), 2))  # half of all tokens end a turn
    monkeypatch.setattr("models.text.tokenizer.stop_ids", lambda *_: stops)
    seen: list[int] = []
    monkeypatch.setattr(
        "models.rl.iterations.scores_of",
        lambda model, dialogues, batch: seen.extend(map(len, dialogues)) or torch.zeros(len(dialogues)),
    )
    ppo(config, start, short, [], tmp_path / "judge", tmp_path / "out")
    assert 0 < max(seen) <= context


def test_another_reward_model_that_reads_less_than_is_written_is_one_line(world: dict[str, Any]) -> None:
    assert other_reward_model(world["judge"], load(world["base"]), 4, 24)[0] == f"other_{world['judge'].name}"
    with pytest.raises(UserError, match="judge reads 24 tokens, and a held-out prompt with its answer may have 25"):
        other_reward_model(world["judge"], load(world["base"]), 4, 25)
