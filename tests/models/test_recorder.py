"""The sample table and held-out rewards of rollouts: a few answers of chosen steps, the same however a run was cut."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toys import base, words

from datalake.errors import UserError
from models.network import checkpoint
from models.network.build import ScalarHead
from models.network.checkpoint import load_language_model
from models.objectives.base import Loss
from models.objectives.bradley_terry import scores_of
from models.rl.answers import Answer
from models.rl.heldout import heldout, other_reward_model
from models.rl.recorder import LONG, Recorder
from models.training.callbacks import Checkpoints, Evaluation, Metrics
from models.training.config import TrainingConfig
from models.training.loop import Callback, fit
from models.training.metrics import SAMPLES, read_metrics
from models.training.optimizer import build_optimizer
from models.training.state import State, load_state


class Letters:
    """A tokenizer whose ids are characters."""

    decoded = 0

    def decode(self, ids: list[int], clean_up_tokenization_spaces: bool = True) -> str:
        assert not clean_up_tokenization_spaces  # every space is shown
        self.decoded += 1
        return "".join(map(chr, ids))


def answers(step: int, number: int = 8) -> list[Answer]:
    return [
        Answer(list(b"q%d" % place), list(b"a%d-%d" % (step, place)), [True] * 3 + [False], [0.0] * 4, place % 2 == 0)
        for place in range(number)
    ]


def run(out: Path, steps: int, stop: int | None = None, seed: int = 0, every: int = 4) -> Recorder:
    """A loop that learns nothing, with rollouts at each step; `stop` ends it by force."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    recorder = Recorder(Letters(), seed, every, rows=3)

    def batches(step: int) -> list[list[Any]]:
        made = answers(step)
        recorder.step(step, made, {"score": [place / 8 for place in range(8)], "kl": [math.nan] * 8})
        return [[torch.ones(4, 2)]]

    class Cut(Callback):
        def on_step(self, run: Any, row: dict[str, float]) -> None:
            if run.state.step == stop:
                raise KeyboardInterrupt

    saving = Checkpoints(out / "state", 3, "x")
    fit(
        model,
        lambda model, batch: Loss(model(batch).sum(), 4, {}),
        batches,
        build_optimizer(TrainingConfig(), {"all": model}),
        lambda step: 1.0,
        [recorder, Metrics(out / "metrics.jsonl"), Cut(), saving],
        load_state(out / "state", "x") if (out / "state").exists() else State(),
        steps=steps,
    )
    return recorder


class TestSamples:
    def test_the_first_every_so_many_and_the_last_steps_are_kept(self, tmp_path: Path) -> None:
        recorder = run(tmp_path, 10)
        rows = read_metrics(tmp_path / SAMPLES)
        assert [row["step"] for row in rows] == [step for step in (1, 4, 8, 10) for _ in range(3)]
        for row in rows:
            place = int(row["prompt"][1:])
            assert row["answer"] == f"a{row['step'] - 1}-{place}"
            assert row["figures"] == {"score": place / 8, "kl": None}
            assert (row["tokens"], row["ended"]) == (3, place % 2 == 0)
        # texts are made of what is drawn alone
        assert recorder.words.decoded == 10 * 3 * 2

    def test_which_are_kept_is_of_seed_and_step(self, tmp_path: Path) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            run(tmp_path / name, 8, seed=seed)
        a, b, c = ((tmp_path / name / SAMPLES).read_bytes() for name in "abc")
        assert a == b != c
        drawn = {row["step"]: [] for row in read_metrics(tmp_path / "a" / SAMPLES)}
        for row in read_metrics(tmp_path / "a" / SAMPLES):
            drawn[row["step"]].append(row["prompt"])
        assert len({tuple(prompts) for prompts in drawn.values()}) > 1, "each step draws others"

    @pytest.mark.parametrize("stop", [1, 5, 8, 10])
    def test_a_run_that_was_cut_has_every_answer_once(self, tmp_path: Path, stop: int) -> None:
        run(tmp_path / "whole", 10)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", 10, stop)
        run(tmp_path / "cut", 10)
        assert (tmp_path / "cut" / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()

    def test_a_run_cut_after_its_last_state_keeps_the_last_answers(self, tmp_path: Path) -> None:
        run(tmp_path / "whole", 10)
        run(tmp_path / "again", 10)
        run(tmp_path / "again", 10)  # from the state of step 10: no step is taken
        assert (tmp_path / "again" / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()

    def test_fewer_answers_than_asked_for_are_all_there_are(self) -> None:
        recorder = Recorder(Letters(), 0, 1, rows=9)
        recorder.step(0, answers(0, 2), {"score": [0, 1]})
        assert len(recorder.latest) == 2
        recorder.step(1, [], {})
        assert recorder.latest == []

    def test_what_is_long_loses_its_middle_and_other_scripts_stay(self) -> None:
        recorder = Recorder(Letters(), 0, 1, rows=1)
        long = Answer([ord(letter) for letter in "你好\u2028x"], [97] * 3 * LONG + [98], [True], [0.0], True)
        recorder.step(0, [long], {})
        (line,) = recorder.latest
        row = json.loads(line)
        assert row["prompt"] == "你好\u2028x"
        assert "你好" in line
        assert LONG < len(row["answer"]) < LONG + 10
        assert row["answer"].endswith("b")


class Echo:
    """An engine whose answer is its seed; it counts what it is asked."""

    def __init__(self) -> None:
        self.seeds: list[list[int]] = []

    def __call__(self, prompts: Sequence[list[int]], seeds: Sequence[int], observe: Any = None) -> list[Answer]:
        self.seeds.append(list(seeds))
        return [Answer(prompt, [5 + place], [True], [0.0], True) for place, prompt in enumerate(prompts)]


class TestHeldOut:
    def test_every_scorer_is_a_figure_and_luck_is_the_same_each_time(self) -> None:
        engine, model = Echo(), nn.Linear(1, 1)
        measure = heldout(
            engine,
            [[1], [2], [3]],
            {"score": lambda made: [answer.tokens[0] for answer in made], "other_x": lambda made: [0.5] * len(made)},
            seed=3,
        )
        before = torch.get_rng_state()
        assert measure(model) == {"score": 6.0, "other_x": 0.5}
        measure(model)
        assert torch.equal(before, torch.get_rng_state())
        assert engine.seeds[0] == engine.seeds[1]
        assert len(set(engine.seeds[0])) == 3
        evaluation = Evaluation(measure, 10)
        assert evaluation.prefix == "heldout_", "so the row has heldout_score and heldout_other_x"

    def test_another_reward_model_scores_what_the_policy_wrote(self, tmp_path: Path) -> None:
        tokenizer = words(tmp_path / "tokenizer")
        root = base(tmp_path / "base", tokenizer)
        judge = ScalarHead(load_language_model(root), "normal", torch.Generator().manual_seed(1))
        checkpoint.save(judge, tokenizer, tmp_path / "gold" / "checkpoint")
        name, scorer, network = other_reward_model(tmp_path / "gold" / "checkpoint", tokenizer, 2)
        assert name == "other_gold"
        assert not any(parameter.requires_grad for parameter in network.parameters())
        made = [Answer([1, 2], [3, 4]), Answer([5], [6])]
        expected = scores_of(judge.eval(), [[1, 2, 3, 4], [5, 6]], 2).tolist()
        assert scorer(made) == pytest.approx(expected, abs=1e-6)
        with pytest.raises(UserError, match="is not a reward model"):
            other_reward_model(root, tokenizer, 2)

    def test_one_of_another_tokenizer_is_one_line(self, tmp_path: Path) -> None:
        tokenizer = words(tmp_path / "tokenizer")
        judge = ScalarHead(load_language_model(base(tmp_path / "base", tokenizer)), "zero")
        checkpoint.save(judge, tokenizer, tmp_path / "gold")

        class Other:
            def get_vocab(self) -> dict[str, int]:
                return {"a": 0}

        with pytest.raises(UserError, match="gold has another tokenizer than the policy"):
            other_reward_model(tmp_path / "gold", Other(), 2)
