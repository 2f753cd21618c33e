"""PPO: its formulas by hand, its identities on a real network, and the reversal game end to end."""

import math
from typing import ClassVar

import pytest
import torch
from toys import assert_told_alike, base, dialogue, reversals, words

from datalake.errors import UserError
from models.methods.ppo import PpoConfig, ppo, settings_of
from models.methods.reward import RewardConfig, reward
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.network.build import ScalarHead
from models.objectives.ppo import (
    ActorCritic,
    KLController,
    action_log_probs,
    action_positions,
    action_values,
    advantages_and_returns,
    at_actions,
    explained_variance,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from models.objectives.ppo import ppo as ppo_objective
from models.rl.iterations import Iterations
from models.rl.rollouts import RolloutSettings, roll_out, rows_of
from models.text.rendering import render
from models.text.tokenizer import stop_ids
from models.training.callbacks import Progress
from models.training.loop import fit
from models.training.metrics import read_metrics
from models.training.optimizer import build_optimizer
from models.training.schedule import schedule_of
from models.training.state import State

MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])


def noise(seed=0):
    return torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed)) * MASK


class TestAdvantages:
    def test_by_hand(self):
        rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, -1.0]])
        advantages, returns = advantages_and_returns(rewards, values, torch.ones(1, 3), gamma=0.9, lam=0.8)
        third = 2.0 - -1.0
        second = 0.0 + 0.9 * -1.0 - 1.0 + 0.72 * third
        first = 1.0 + 0.9 * 1.0 - 0.5 + 0.72 * second
        assert advantages[0].tolist() == pytest.approx([first, second, third])
        assert returns[0].tolist() == pytest.approx([first + 0.5, second + 1.0, third - 1.0])

    def test_undiscounted_with_lambda_1_and_no_critic_they_are_the_reward_to_go(self):
        rewards = noise()
        advantages, returns = advantages_and_returns(rewards, torch.zeros_like(MASK), MASK, 1.0, 1.0)
        to_go = rewards.flip(1).cumsum(1).flip(1) * MASK
        torch.testing.assert_close(advantages, to_go)
        torch.testing.assert_close(returns, to_go)

    def test_what_stands_behind_the_mask_changes_nothing(self):
        dirty = noise() + (1 - MASK) * 100
        clean = advantages_and_returns(noise(), noise(1), MASK, 0.99, 0.95)
        other = advantages_and_returns(dirty, noise(1) + (1 - MASK) * 7, MASK, 0.99, 0.95)
        torch.testing.assert_close(clean, other)

    def test_whitened_they_sum_to_0_with_deviation_1(self):
        white = whiten(noise() + 3 * MASK, MASK)
        assert float(white.sum()) == pytest.approx(0, abs=1e-5)
        assert float(white.square().sum() / MASK.sum()) == pytest.approx(1, abs=1e-4)
        assert torch.equal(white * (1 - MASK), torch.zeros_like(MASK))

    def test_whitening_equal_values_gives_zeros_and_never_nan(self):
        for value in (0.0, 2.0):
            assert torch.equal(whiten(value * MASK, MASK), torch.zeros_like(MASK))


class TestRewards:
    def test_the_score_stands_at_the_last_action_and_kl_at_each(self):
        log_probs, reference = noise(1), noise(2)
        rewards = token_rewards(torch.tensor([5.0, 6.0, 7.0]), log_probs, reference, MASK, 0.1)
        expected = -0.1 * (log_probs - reference) * MASK
        for row, last in enumerate([2, 3, 0]):
            expected[row, last] += 5.0 + row
        torch.testing.assert_close(rewards, expected)

    def test_k1_averages_to_the_kl_over_samples_of_the_policy(self):
        generator = torch.Generator().manual_seed(0)
        policy, reference = (torch.randn(9, generator=generator).log_softmax(0) for _ in range(2))
        drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)
        kl = (policy.exp() * (policy - reference)).sum()
        assert float((policy - reference)[drawn].mean()) == pytest.approx(float(kl), rel=0.02)


class TestLosses:
    def test_the_policy_loss_by_hand(self):
        old = torch.zeros(1, 4)
        new = torch.tensor([[1.1, 1.5, 0.5, 1.5]]).log()
        advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
        total, sums = policy_loss(new, old, advantages, torch.ones(1, 4), 0.2)
        assert float(total) == pytest.approx(-1.1 - 1.2 + 0.8 + 1.5, abs=1e-5)
        assert float(sums["clip_fraction"]) == 2
        assert float(sums["ratio"]) == pytest.approx(4.6)
        assert float(sums["approx_kl"]) == pytest.approx(
            sum(r - 1 - math.log(r) for r in new.exp()[0].tolist()), rel=1e-5
        )

    def test_k3_is_never_negative_and_far_ratios_stay_finite(self):
        new = torch.tensor([[500.0, -500.0]], requires_grad=True)
        total, sums = policy_loss(new, torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), torch.ones(1, 2), 0.2)
        total.backward()
        assert torch.isfinite(total)
        assert torch.isfinite(new.grad).all()
        assert float(sums["approx_kl"]) >= 0

    def test_without_advantage_the_policy_gets_no_gradient(self):
        new = noise().requires_grad_()
        total, _ = policy_loss(new, noise().detach(), whiten(torch.zeros_like(MASK), MASK), MASK, 0.2)
        total.backward()
        assert torch.equal(new.grad, torch.zeros_like(MASK))

    def test_the_value_loss_by_hand(self):
        values, old = torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2)
        # the first value moved beyond the clip: the worse of (1 - 0.5)^2 and (0.2 - 0.5)^2 counts
        total = value_loss(values, old, torch.tensor([[0.5, 0.5]]), torch.ones(1, 2), 0.2)
        assert float(total) == pytest.approx(0.5 * (0.25 + 0.16))
        beyond = value_loss(values, old, torch.tensor([[1.0, 0.1]]), torch.ones(1, 2), 0.2)
        assert float(beyond) == pytest.approx(0.5 * 0.64)

    def test_explained_variance_of_a_perfect_a_silent_and_a_constant_critic(self):
        returns = noise()
        assert explained_variance(returns, returns, MASK) == pytest.approx(1)
        assert explained_variance(torch.zeros_like(MASK), returns, MASK) == pytest.approx(0)
        assert explained_variance(returns, torch.ones_like(MASK), MASK) == 0


class TestKLController:
    def test_it_moves_towards_the_target_by_at_most_a_fifth(self):
        for kl, factor in [(6.0, 1.0), (6.6, 1.1), (60.0, 1.2), (5.4, 0.9), (0.0, 0.8), (-3.0, 0.8)]:
            controller = KLController(0.1, target=6.0, horizon=64)
            controller.update(kl, rollouts=64)
            assert controller.coefficient == pytest.approx(0.1 * factor)

    def test_the_horizon_slows_it_and_fixed_stays(self):
        slow, fixed = KLController(0.1, 6.0, horizon=640), KLController(0.1)
        for controller in (slow, fixed):
            controller.update(60.0, rollouts=64)
        assert (slow.coefficient, fixed.coefficient) == (pytest.approx(0.102), 0.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy that has begun to learn to reverse five digits, and a reward model that tells right from wrong."""
    folder = tmp_path_factory.mktemp("ppo")
    tokenizer = words(folder / "tokenizer")
    root = base(folder / "base", tokenizer, seed=1)
    game = [dialogue(*pair) for pair in reversals(600, seed=1)]
    sft(SftConfig(batch=64, steps=30, learning_rate=3e-3, warmup=0.1), root, game, [], folder / "sft")
    return {"folder": folder, "tokenizer": tokenizer, "root": root, "policy": folder / "sft" / "checkpoint"}


def settings(tokenizer, rows, temperature=1.0, new_tokens=8):
    return RolloutSettings(
        new_tokens=new_tokens,
        temperature=temperature,
        rows=rows,
        stop_ids=tuple(stop_ids(tokenizer)),
        vocabulary=len(tokenizer),
        missing_eos_penalty=1.0,
        reward_clip=10.0,
        gamma=1.0,
        lam=0.95,
    )


class TestRollouts:
    def roll(self, world, temperature=1.0, new_tokens=8):
        policy, tokenizer = checkpoint.load(world["policy"])
        reference, _ = checkpoint.load(world["policy"])
        critic = ScalarHead(checkpoint.load(world["policy"])[0], "zero")
        judge = ScalarHead(checkpoint.load(world["policy"])[0], "normal", torch.Generator().manual_seed(0))
        prompts = [
            render([{"role": "user", "content": "1234567"[: 1 + place % 5]}], tokenizer, prompt=True)[0]
            for place in range(16)
        ]
        model = ActorCritic(policy, critic)
        made = roll_out(
            model,
            reference,
            judge,
            prompts,
            settings(tokenizer, 4, temperature, new_tokens),
            0.1,
            torch.Generator().manual_seed(0),
        )
        return model, tokenizer, prompts, *made

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_the_first_update_starts_at_ratio_1_exactly(self, world, temperature):
        model, tokenizer, _, rollouts, _ = self.roll(world, temperature)
        model.train()
        loss = ppo_objective(temperature, vocabulary=len(tokenizer))(model, rows_of(rollouts, range(4)))
        assert float(loss.sums["ratio"]) == loss.targets
        assert float(loss.sums["approx_kl"]) == 0
        assert float(loss.sums["clip_fraction"]) == 0

    def test_another_temperature_is_another_ratio(self, world):
        model, tokenizer, _, rollouts, _ = self.roll(world, 0.7)
        loss = ppo_objective(1.0, vocabulary=len(tokenizer))(model, rows_of(rollouts, range(4)))
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
        value_loss(values, batch.values, batch.returns, batch.mask, 0.2).backward()
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


class RightDigits(torch.nn.Module):
    """A judge by rule: at every token, the share of the answer's digits so far that are the question's, reversed."""

    def __init__(self, tokenizer, digits):
        super().__init__()
        self.end, self.digits = tokenizer.get_vocab()["<|end|>"], digits

    def forward(self, tokens):
        values = torch.zeros(tokens.shape)
        for row, ids in enumerate(tokens.tolist()):
            asked = ids[2 : 2 + self.digits]  # <|bos|><|user|>digits<|end|><|assistant|>
            answer = ids[4 + self.digits : 4 + 2 * self.digits]
            values[row] = sum(a == b for a, b in zip(answer, asked[::-1], strict=False)) / self.digits
        return values


def test_it_learns_to_reverse_digits(world):
    """From a policy that gets about half the digits right, by the reward alone."""
    game = [dialogue(*pair) for pair in reversals(2000, seed=1, digits=3)]
    tuning = SftConfig(batch=64, steps=50, learning_rate=3e-3, warmup=0.1, schedule="constant")
    sft(tuning, world["root"], game, [], world["folder"] / "half")
    start = world["folder"] / "half" / "checkpoint"
    config = PpoConfig(
        batch=128, steps=30, epochs=4, minibatches=1, new_tokens=6, learning_rate=2e-3, critic_learning_rate=3e-3,
        lam=1.0, kl_control="fixed", kl_coefficient=0.01, missing_eos_penalty=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    policy, tokenizer = checkpoint.load(start)
    reference, _ = checkpoint.load(start)
    model = ActorCritic(policy, ScalarHead(checkpoint.load(start)[0], "zero"))
    prompts = [render(dialogue(*pair)[:1], tokenizer, prompt=True)[0] for pair in reversals(2000, seed=5, digits=3)]
    judge = RightDigits(tokenizer, 3)
    iterations = Iterations(config, model, reference, judge, prompts, settings_of(config, tokenizer))
    rows = []
    fit(
        model,
        ppo_objective(1.0, vocabulary=len(tokenizer)),
        iterations,
        build_optimizer(config, {"policy": policy, "critic": model.critic}, {"critic": config.critic_learning_rate}),
        schedule_of(config, config.steps),
        [iterations, Progress(rows.append)],
        State(),
        steps=config.steps,
    )
    scores = [row["score"] for row in rows]
    print([round(score, 2) for score in scores])
    assert scores[0] < 0.65
    assert sum(scores[-3:]) / 3 >= scores[0] + 0.3
    assert rows[-1]["eos_rate"] > 0.9
    assert rows[-1]["kl_per_answer"] < 5
    assert all(row["approx_kl"] < 0.3 for row in rows)


class TestWithALearnedReward:
    config = PpoConfig(
        batch=64, steps=12, epochs=2, minibatches=2, new_tokens=8, learning_rate=2e-3, critic_learning_rate=2e-3,
        checkpoint_every=2, kl_target=3.0, kl_horizon=256, accumulation=2, missing_eos_penalty=0.3, lam=1.0,
    )  # fmt: skip
    prompts: ClassVar = [dialogue(*pair)[:1] for pair in reversals(50, seed=7)]

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
        return out, ppo(self.config, world["policy"], judged, self.prompts, out)

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

    def test_a_run_cut_in_the_middle_ends_with_the_same_bytes(self, world, judged, whole, tmp_path):
        def cut(row):
            if row["step"] == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ppo(self.config, world["policy"], judged, self.prompts, tmp_path, on_step=cut)
        report = ppo(self.config, world["policy"], judged, self.prompts, tmp_path)
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
            ppo(config, world["policy"], judged, [dialogue("1" * 30, "")[:1]], tmp_path)
        assert not (tmp_path / "checkpoint").exists()


def test_rollouts_that_do_not_divide_are_refused_when_the_config_is_made():
    with pytest.raises(ValueError, match="multiple of minibatches"):
        PpoConfig(batch=10, minibatches=4)
