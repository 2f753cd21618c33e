"""PPO and GRPO: the identities of their passes on a real network, and the reversal game end to end."""

from typing import ClassVar

import pytest
import torch
from toys import asked, assert_told_alike, base, conversations, dialogue, reversals, words

from datalake.errors import UserError
from models.methods.grpo import GrpoConfig, grpo
from models.methods.ppo import PpoConfig, ppo
from models.methods.prompted import sampling_of
from models.methods.reward import RewardConfig, reward
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.network.build import ScalarHead
from models.network.config import LoraConfig, OpenModel
from models.rl import iterations, rollouts
from models.rl.engine import Engine
from models.rl.iterations import Iterations
from models.rl.policy import (
    ActorCritic,
    PolicyLoss,
    action_log_probs,
    action_positions,
    action_values,
    at_actions,
    policy,
    value_loss,
)
from models.rl.rewards import Rewards
from models.rl.rollouts import rows_of
from models.text.rendering import render
from models.training.metrics import read_metrics


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy that has begun to learn to reverse five digits, and a reward model that tells right from wrong."""
    folder = tmp_path_factory.mktemp("ppo")
    tokenizer = words(folder / "tokenizer")
    root = base(folder / "base", tokenizer, seed=1)
    game = [dialogue(*pair) for pair in reversals(600, seed=1)]
    sft(SftConfig(batch=64, steps=30, learning_rate=3e-3, warmup=0.1), root, conversations(game), [], folder / "sft")
    return {"folder": folder, "tokenizer": tokenizer, "root": root, "policy": folder / "sft" / "checkpoint"}


class TestRollouts:
    def roll(self, world, temperature=1.0, new_tokens=8, **more):
        config = PpoConfig(
            batch=16, minibatches=4, temperature=temperature, new_tokens=new_tokens, kl_coefficient=0.1,
            reward_model_weight=1.0, **more,
        )  # fmt: skip
        actor, tokenizer = checkpoint.load(world["policy"])
        reference, _ = checkpoint.load(world["policy"])
        critic = ScalarHead(checkpoint.load(world["policy"])[0], "zero")
        judge = ScalarHead(checkpoint.load(world["policy"])[0], "normal", torch.Generator().manual_seed(0))
        rows = asked([("1234567"[: 1 + place % 5], "") for place in range(16)])
        prompts = [render(row["messages"], tokenizer, prompt=True)[0] for row in rows]
        model = ActorCritic(actor, critic)
        engine = Engine(actor, sampling_of(config, tokenizer, actor))
        made = Iterations(
            config, model, reference, engine, prompts, rows, tokenizer, Rewards((), {"model": 1.0}), judge
        )
        laid, _ = made.roll_out(0)
        return model, tokenizer, [prompts[item] for item in made.order.items(0)], laid, made.figures

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_the_first_update_starts_at_ratio_1_exactly(self, world, temperature):
        model, tokenizer, _, rollouts, _ = self.roll(world, temperature)
        model.train()
        loss = policy(PolicyLoss(temperature, len(tokenizer)))(model, rows_of(rollouts, range(4)))
        assert float(loss.sums["ratio"]) == loss.targets
        assert float(loss.sums["approx_kl"]) == 0
        assert float(loss.sums["clip_fraction"]) == 0

    def test_another_temperature_is_another_ratio(self, world):
        model, tokenizer, _, rollouts, _ = self.roll(world, 0.7)
        loss = policy(PolicyLoss(1.0, len(tokenizer)))(model, rows_of(rollouts, range(4)))
        assert abs(float(loss.sums["ratio"]) - loss.targets) > 0.01

    def test_at_the_start_there_is_no_kl_and_no_value(self, world):
        _, _, _, rollouts, figures = self.roll(world)
        assert figures["kl_per_token"] == figures["kl_per_answer"] == 0
        assert torch.equal(rollouts.values, torch.zeros_like(rollouts.values))
        assert float(rollouts.advantages.sum()) == pytest.approx(0, abs=1e-4)

    def test_rows_are_prompt_then_answer_and_log_probs_those_of_each_row_alone(self, world):
        model, tokenizer, prompts, rollouts, _ = self.roll(world)
        for row, prompt in enumerate(prompts):
            count = int(rollouts.mask[row].sum())
            assert rollouts.tokens[row, : len(prompt)].tolist() == prompt
            answer = rollouts.actions[row, :count]
            assert rollouts.tokens[row, len(prompt) : len(prompt) + count].tolist() == answer.tolist()
            alone = torch.tensor([prompt + answer.tolist()])
            with torch.no_grad():
                logits = model.policy.logits(model.policy(alone))[0, :, : len(tokenizer)]
            expected = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, answer[:, None])[:, 0]
            torch.testing.assert_close(rollouts.log_probs[row, :count], expected, rtol=1e-4, atol=1e-4)

    def test_an_answer_that_never_ends_is_penalised(self, world):
        _, _, _, rollouts, figures = self.roll(world, new_tokens=1)
        ended = figures["eos_rate"]
        assert ended < 0.5
        # without KL and critic the returns of one-token answers are the final scores
        assert float(rollouts.returns.sum() / 16) == pytest.approx(figures["score"] - (1 - ended), abs=1e-4)

    def test_the_critics_gradient_stays_out_of_the_policy(self, world):
        model, _, _, rollouts, _ = self.roll(world)
        batch = rows_of(rollouts, range(4))
        values = action_values(model.critic, batch.tokens, batch.starts, batch.mask)
        value_loss(values, batch.values, batch.returns, 0.2).sum().backward()
        assert all(parameter.grad is None for parameter in model.policy.parameters())
        assert model.critic.head.weight.grad.abs().sum() > 0

    def test_entropy_is_that_of_the_distribution(self, world):
        model, tokenizer, _, rollouts, _ = self.roll(world)
        batch = rows_of(rollouts, [0])
        _, entropies = action_log_probs(
            model.policy, batch.tokens, batch.starts, batch.actions, batch.mask, 1.0, len(tokenizer)
        )
        logits = model.policy.logits(model.policy(batch.tokens))[0, int(batch.starts[0]) - 1, : len(tokenizer)]
        expected = torch.distributions.Categorical(logits=logits).entropy()
        assert entropies[0, 0].item() == pytest.approx(expected.item(), rel=1e-4)

    def test_the_entropy_bonus_has_the_gradient_of_the_entropy(self, world):
        model, tokenizer, _, rollouts, _ = self.roll(world)
        batch = rows_of(rollouts, range(4))
        given = batch.tokens, batch.starts, batch.actions, batch.mask, 0.7, len(tokenizer)
        head = model.policy.embed_tokens.weight

        def gradient(total):
            (found,) = torch.autograd.grad(total, head)
            return found

        ours = gradient(action_log_probs(model.policy, *given)[1].sum())
        positions = action_positions(batch.starts, batch.actions.shape[1], batch.tokens.shape[1])
        hidden = at_actions(model.policy(batch.tokens), positions)[batch.mask.bool()]
        logits = model.policy.logits(hidden)[:, : len(tokenizer)] / 0.7
        theirs = gradient(torch.distributions.Categorical(logits=logits).entropy().sum())
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


REVERSED = """
def right(prompt, answer, row):
    own = row["answer"]
    return (sum(a == b for a, b in zip(answer, own)) + (len(answer) == len(own))) / (len(own) + 1)
"""


@pytest.fixture(scope="module")
def half(world):
    """A policy that gets about half of three digits right, the prompts, and what counts as right."""
    folder = world["folder"]
    game = [dialogue(*pair) for pair in reversals(2000, seed=1, digits=3)]
    tuning = SftConfig(batch=64, steps=50, learning_rate=3e-3, warmup=0.1, schedule="constant")
    sft(tuning, world["root"], conversations(game), [], folder / "half")
    (folder / "rewards.py").write_text(REVERSED)
    rows = asked(reversals(2000, seed=5, digits=3))
    return folder / "half" / "checkpoint", rows, (f"{folder / 'rewards.py'}:right",)


LEARNING = {
    "batch": 128,
    "steps": 30,
    "new_tokens": 6,
    "warmup": 0,
    "checkpoint_every": 100,
    "truncated": "keep",
    "exact": "on",
}


@pytest.mark.parametrize(
    ("method", "config"),
    [
        (ppo, {"epochs": 4, "minibatches": 1, "learning_rate": 2e-3, "critic_learning_rate": 3e-3, "lam": 1.0,
               "kl_control": "fixed", "kl_coefficient": 0.01}),
        (grpo, {"epochs": 2, "learning_rate": 2e-3}),
        pytest.param(grpo, {"epochs": 2, "learning_rate": 2e-3, "advantage": "leave_one_out", "aggregate": "sequence",
                "kl_in": "reward", "kl_estimator": "k1", "kl_coefficient": 0.01}, marks=pytest.mark.slow),
        pytest.param(grpo, {"epochs": 2, "learning_rate": 2e-3, "scale": False, "aggregate": "constant",
                "kl_coefficient": 0.01}, marks=pytest.mark.slow),
    ],
    ids=["ppo", "grpo", "rloo", "dr_grpo"],
)  # fmt: skip
def test_it_learns_to_reverse_digits_by_the_reward_alone(half, tmp_path, method, config):
    start, rows, rewards = half
    given = method.config(**LEARNING, **config, rewards=rewards)
    method(given, start, rows, rows[:32], None, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    scores = [row["score"] for row in rows]
    print([round(score, 2) for score in scores])
    assert scores[0] < 0.7
    assert sum(scores[-3:]) / 3 >= scores[0] + 0.15
    assert rows[-1]["eos_rate"] > 0.9
    assert rows[-1]["reward_right"] == pytest.approx(scores[-1], abs=1e-6)
    assert rows[-1]["heldout_score"] > rows[0]["score"] + 0.1
    assert all(row["approx_kl"] < 0.3 for row in rows)
    assert all(abs(row["ratio"] - 1) < 0.2 for row in rows)
    assert {row["logprob_gap"] for row in rows} == {0.0}


def test_groups_that_scored_alike_teach_nothing_and_are_counted(half, tmp_path):
    """Their gradient is zero: all of them alike leave the weights as they were."""
    start, rows, _ = half
    (tmp_path / "rewards.py").write_text("def always(prompt, answer, row):\n    return 1.0\n")
    config = GrpoConfig(
        batch=16, group=4, steps=2, new_tokens=4, kl_coefficient=0.5, rewards=(f"{tmp_path / 'rewards.py'}:always",)
    )
    grpo(config, start, rows, [], None, tmp_path)
    for row in read_metrics(tmp_path / "metrics.jsonl"):
        assert row["zero_variance"] == 1
        assert row["loss"] == 0
        assert row["targets"] == 0
        assert row["score"] == 1
    weights = [(folder / "model.safetensors").read_bytes() for folder in (start, tmp_path / "checkpoint")]
    assert weights[0] == weights[1]


def test_truncated_answers_may_train_nothing(half, tmp_path):
    start, rows, rewards = half
    config = GrpoConfig(batch=16, group=4, steps=1, new_tokens=2, truncated="mask", rewards=rewards)
    grpo(config, start, rows, [], None, tmp_path)
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert row["eos_rate"] < 0.5
    assert row["targets"] < 0.5 * 16 * row["answer_tokens"]


def test_what_a_tool_gives_back_is_seen_and_trains_nothing(world, tmp_path, monkeypatch):
    """A policy that calls a calculator at once, as a stand-in for one that has learned to."""
    prompts = asked(reversals(8, seed=2, digits=1))
    (tmp_path / "rewards.py").write_text("def long(prompt, answer, row):\n    return float(len(answer))\n")
    given = GrpoConfig(
        batch=8, group=4, steps=1, new_tokens=4, rewards=(f"{tmp_path / 'rewards.py'}:long",), tools=("calculator",),
        exact="off",
    )  # fmt: skip
    laid = []
    plain = rollouts.lay_out
    monkeypatch.setattr(iterations, "lay_out", lambda answers, device: laid.extend(answers) or plain(answers, device))
    monkeypatch.setattr("models.rl.tools.turns._calls", lambda turn, words: [None] if turn else [])
    tokenizer = words(tmp_path / "tokenizer")
    start = base(tmp_path / "base", tokenizer, context=2048)
    stops = list(range(0, len(tokenizer), 2))  # half of all tokens end a turn, so that turns are many
    monkeypatch.setattr("models.text.tokenizer.stop_ids", lambda *_: stops)
    grpo(given, start, prompts, [], None, tmp_path / "out")
    (row,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    seen = [answer for answer in laid if not all(answer.written)]
    assert seen
    assert all(answer.log_probs[place] == 0.0 for answer in seen for place, on in enumerate(answer.written) if not on)
    assert row["targets"] <= sum(sum(answer.written) for answer in laid)
    assert row["answer_tokens"] == pytest.approx(sum(sum(answer.written) for answer in laid) / 8)


def test_the_self_test_asks_the_model_that_trains(half, tmp_path, monkeypatch):
    """On its device, adapters and all: not the one that was loaded."""
    start, rows, rewards = half
    adapted = []
    monkeypatch.setattr("models.rl.exact.holds", lambda model, sampling: bool(adapted.append(hasattr(model, "lora"))))
    config = GrpoConfig(batch=8, group=4, steps=1, new_tokens=2, lora=LoraConfig(rank=2), rewards=rewards)
    grpo(config, start, rows, [], None, tmp_path)
    assert adapted == [True]


@pytest.mark.parametrize("method", [ppo, grpo])
def test_where_sampling_is_exact_its_log_probabilities_are_taken_and_looked_at(half, tmp_path, monkeypatch, method):
    """The weights are those of a run that computes all of them; a sampler that errs is found out, and not believed."""
    start, rows, rewards = half
    said, plain, lay_out = [], iterations.log_probs_of, iterations.lay_out

    def wrong(answers, device):
        laid = lay_out(answers, device)
        laid.sampled.mul_(1 + 2**-20)
        return laid

    def counting(network, laid, config, vocabulary):
        said.append(len(laid.tokens))
        return plain(network, laid, config, vocabulary)

    monkeypatch.setattr(iterations, "log_probs_of", counting)
    ends, counts = {}, {}
    for name, exact in (("on", "on"), ("auto", "auto"), ("wrong", "auto")):
        if name == "wrong":
            monkeypatch.setattr(iterations, "lay_out", wrong)
        said.clear()
        config = method.config(
            batch=16, accumulation=4, steps=2, new_tokens=4, learning_rate=1e-3, exact=exact, rewards=rewards
        )
        method(config, start, rows, [], None, tmp_path / name)
        ends[name], _ = checkpoint.load(tmp_path / name / "checkpoint")
        counts[name] = sum(said) - 2 * config.batch  # but for the reference's
        gaps = {row["logprob_gap"] for row in read_metrics(tmp_path / name / "metrics.jsonl")}
        assert (gaps == {0.0}) is (name != "wrong")
    assert counts["on"] == 2 * config.batch
    assert counts["auto"] == 2 * config.rows < counts["on"]
    assert counts["wrong"] == counts["on"] + counts["auto"]
    for name in ("auto", "wrong"):
        for ours, theirs in zip(ends[name].parameters(), ends["on"].parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", [ppo, grpo])
def test_in_bfloat16_the_first_ratio_is_one_and_the_gap_is_told(half, tmp_path, method):
    """Old log-probabilities are computed as precisely as new ones; those of sampling differ, and nobody hides it."""
    start, rows, rewards = half
    once = {"epochs": 1, "minibatches": 1, "batch": 16, "steps": 1, "new_tokens": 4, "rewards": rewards}
    method(method.config(**once, precision="bfloat16"), start, rows, [], None, tmp_path)
    [row] = read_metrics(tmp_path / "metrics.jsonl")
    assert row["ratio"] == pytest.approx(1, abs=1e-6)
    assert row["approx_kl"] == pytest.approx(0, abs=1e-9)
    assert 0 < row["logprob_gap"] < 0.2
    with pytest.raises(UserError, match=r"precision to float32"):
        method(method.config(**once, precision="bfloat16", exact="on"), start, rows, [], None, tmp_path / "on")


def test_nothing_that_judges_is_said_in_one_line(half, tmp_path):
    start, rows, _ = half
    with pytest.raises(UserError, match=r"name functions in grpo\.rewards"):
        grpo(GrpoConfig(batch=16, new_tokens=4), start, rows, [], None, tmp_path)


class TestWithALearnedReward:
    config = PpoConfig(
        batch=64, steps=12, epochs=2, minibatches=2, new_tokens=8, learning_rate=2e-3, critic_learning_rate=2e-3,
        checkpoint_every=2, kl_target=3.0, kl_horizon=256, accumulation=2, missing_eos_penalty=0.3, lam=1.0,
    )  # fmt: skip
    prompts: ClassVar = asked(reversals(50, seed=7))

    @pytest.fixture(scope="class")
    def judged(self, world):
        """Answers with sevens are better."""
        pairs = [
            {"prompt": dialogue(question, "")[:1], "chosen": answer[:3] + "77", "rejected": answer.replace("7", "1")}
            for question, answer in reversals(300, seed=3)
        ]
        config = RewardConfig(batch=32, steps=15, learning_rate=3e-3)
        report = reward(config, world["policy"], pairs, pairs[:50], world["folder"] / "reward")
        assert report["heldout_accuracy"] > 0.9
        return world["folder"] / "reward" / "checkpoint"

    @pytest.fixture(scope="class")
    def whole(self, world, judged, tmp_path_factory):
        out = tmp_path_factory.mktemp("whole")
        return out, ppo(self.config, world["policy"], self.prompts, [], judged, out)

    def test_the_score_rises_while_kl_stays_bounded(self, whole):
        out, report = whole
        rows = read_metrics(out / "metrics.jsonl")
        print([(round(row["score"], 2), round(row["kl_per_answer"], 2)) for row in rows])
        assert report["score_last"] > report["score_first"] + 0.3
        assert rows[0]["kl_per_answer"] == 0
        assert 0 < rows[-1]["kl_per_answer"] < 10
        assert {"entropy", "clip_fraction", "approx_kl", "explained_variance", "eos_rate", "kl_coefficient"} <= rows[
            0
        ].keys()

    def test_another_reward_model_judges_held_out_answers_and_shapes_nothing(self, world, judged, whole, tmp_path):
        other = self.config.model_copy(update={"other_reward_model": OpenModel(paths=[str(judged)]), "eval_every": 4})
        ppo(other, world["policy"], self.prompts, self.prompts[:8], judged, tmp_path)
        rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "heldout_score" in row]
        assert [row["step"] for row in rows] == [4, 8, 12]
        for row in rows:
            assert row["heldout_other_reward"] == pytest.approx(row["heldout_score"], abs=1e-5)
        weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (tmp_path, whole[0])]
        assert weights[0] == weights[1]

    def test_a_run_cut_in_the_middle_ends_with_the_same_bytes(self, world, judged, whole, tmp_path):
        def cut(row):
            if row["step"] == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ppo(self.config, world["policy"], self.prompts, [], judged, tmp_path, on_step=cut)
        report = ppo(self.config, world["policy"], self.prompts, [], judged, tmp_path)
        weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (tmp_path, whole[0])]
        assert weights[0] == weights[1]
        assert_told_alike(report, whole[1])
        steady = [
            [{**row, "tokens_per_s": 0, "data_s": 0, "memory_mb": 0} for row in read_metrics(folder / "metrics.jsonl")]
            for folder in (tmp_path, whole[0])
        ]
        assert steady[0] == steady[1]

    def test_the_controller_moves_the_coefficient(self, whole):
        rows = read_metrics(whole[0] / "metrics.jsonl")
        assert rows[0]["kl_coefficient"] == self.config.kl_coefficient
        assert rows[1]["kl_coefficient"] == pytest.approx(self.config.kl_coefficient * (1 - 0.2 * 64 / 256))

    def test_prompts_that_leave_no_room_are_said_in_one_line(self, world, judged, tmp_path):
        config = self.config.model_copy(update={"new_tokens": 21})  # of 24
        with pytest.raises(UserError, match=r"lower ppo\.new_tokens"):
            ppo(config, world["policy"], asked([("1" * 30, "")]), [], judged, tmp_path)
        assert not (tmp_path / "checkpoint").exists()


def test_rollouts_that_do_not_divide_are_refused_when_the_config_is_made():
    with pytest.raises(ValueError, match="multiple of minibatches"):
        PpoConfig(batch=10, minibatches=4)
