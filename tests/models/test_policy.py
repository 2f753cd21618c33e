"""Advantages, KL estimators and losses of learning from rollouts: by hand, and against published figures."""

import math

import pytest
import torch

from models.rl.advantages import (
    ADVANTAGES,
    Graded,
    explained_variance,
    gae,
    group,
    leave_one_out,
    whiten,
    without_variance,
)
from models.rl.kl import ESTIMATORS, KLController
from models.rl.policy import policy_loss, token_rewards, value_loss, weights_of

MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])


def noise(seed=0):
    return torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed)) * MASK


def grade(rewards, mask, values=None, gamma=1.0, lam=0.95, groups=None, scale=True):
    rows = torch.arange(len(mask)) if groups is None else torch.tensor(groups)
    return Graded(rewards, mask, rows, values, gamma, lam, scale)


class TestGeneralisedAdvantages:
    def test_by_hand(self):
        rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, -1.0]])
        advantages = gae(grade(rewards, torch.ones(1, 3), values, gamma=0.9, lam=0.8))
        third = 2.0 - -1.0
        second = 0.0 + 0.9 * -1.0 - 1.0 + 0.72 * third
        first = 1.0 + 0.9 * 1.0 - 0.5 + 0.72 * second
        assert advantages[0].tolist() == pytest.approx([first, second, third])

    @pytest.mark.parametrize(
        ("gamma", "lam", "returns"), [(1, 1, [6, 5, 3]), (0.5, 1, [2.75, 3.5, 3]), (1, 0.5, [3.625, 4.25, 3])]
    )
    def test_the_published_returns(self, gamma, lam, returns):
        values = torch.tensor([[0.5, 1.0, 1.5]])
        advantages = gae(grade(torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3), values, gamma, lam))
        assert (advantages + values)[0].tolist() == pytest.approx(returns)

    def test_what_a_tool_gave_back_changes_no_advantage(self):
        rewards, values = noise(3), noise(4)
        plain = gae(grade(rewards[1:2], MASK[1:2], values[1:2]))
        places = [0, 1, 4, 5]  # two tokens of a tool between the second action and the third
        mask, wide, told = torch.zeros(1, 6), torch.full((1, 6), 7.0), torch.full((1, 6), -3.0)
        mask[0, places], wide[0, places], told[0, places] = 1.0, rewards[1], values[1]
        spread = gae(grade(wide, mask, told))
        torch.testing.assert_close(spread[0, places], plain[0])
        assert spread[0, 2:4].tolist() == [0, 0]

    def test_undiscounted_with_lambda_1_and_no_critic_they_are_the_reward_to_go(self):
        rewards = noise()
        to_go = rewards.flip(1).cumsum(1).flip(1) * MASK
        torch.testing.assert_close(gae(grade(rewards, MASK, lam=1.0)), to_go)

    def test_what_stands_behind_the_mask_changes_nothing(self):
        dirty = noise() + (1 - MASK) * 100
        clean = gae(grade(noise(), MASK, noise(1), 0.99))
        other = gae(grade(dirty, MASK, noise(1) + (1 - MASK) * 7, 0.99))
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
        rewards = token_rewards(torch.tensor([5.0, 6.0, 7.0]), 0.1 * (log_probs - reference), MASK)
        expected = -0.1 * (log_probs - reference) * MASK
        for row, last in enumerate([2, 3, 0]):
            expected[row, last] += 5.0 + row
        torch.testing.assert_close(rewards, expected)

    def test_an_answer_of_nothing_has_no_reward_and_a_tool_s_tokens_none(self):
        mask = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        assert token_rewards(torch.tensor([5.0, 6.0]), torch.zeros(2, 2), mask).tolist() == [[0, 0], [6, 0]]
        broken = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
        assert token_rewards(torch.tensor([2.0]), torch.ones(1, 4), broken).tolist() == [[-1, 0, 1, 0]]

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
        loss, sums = policy_loss(new, old, advantages, torch.ones(1, 4), 0.2)
        assert float(loss.sum()) == pytest.approx(-1.1 - 1.2 + 0.8 + 1.5, abs=1e-5)
        assert float(sums["clip_fraction"]) == 2
        assert float(sums["ratio"]) == pytest.approx(4.6)
        assert float(sums["approx_kl"]) == pytest.approx(
            sum(r - 1 - math.log(r) for r in new.exp()[0].tolist()), rel=1e-5
        )

    @staticmethod
    def losses(advantages, ratios, **clips):
        found, sums = policy_loss(
            torch.tensor([ratios]).log(), torch.zeros(1, 3), torch.tensor([advantages]), torch.ones(1, 3), 0.2, **clips
        )
        return found[0].tolist(), float(sums["clip_fraction"])

    def test_the_published_vectors(self):
        found, clipped = self.losses([1.0, -1.0, 2.0], [0.5, 1.0, 1.5])
        assert found == pytest.approx([-0.5, 1, -2.4])
        assert sum(found) / 3 == pytest.approx(-0.6333, abs=1e-4)
        assert clipped == 1
        found, _ = self.losses([1.0, -1.0, -4.0], [0.5, 1.0, 10.0], dual_clip=3.0)
        assert found == pytest.approx([-0.5, 1, 12])

    def test_a_higher_clip_lets_good_answers_get_likelier(self):
        assert self.losses([1.0, 1.0, -1.0], [1.25, 1.5, 0.75], clip_high=0.28)[0] == pytest.approx([-1.25, -1.28, 0.8])

    def test_reinforce_is_the_loss_at_ratio_1(self):
        new = torch.tensor([[-0.5, -1.0, -1.5]], requires_grad=True)
        advantages = torch.tensor([[1.0, -1.0, 2.0]])
        loss, _ = policy_loss(new, new.detach(), advantages, torch.ones(1, 3), 0.2)
        loss.mean().backward()
        assert torch.equal(new.grad, -advantages / 3)
        assert float((-advantages * new.detach()).mean()) == pytest.approx(0.8333, abs=1e-4)

    def test_what_a_token_counts(self):
        assert torch.equal(weights_of(MASK, "token", 5), MASK)
        assert weights_of(MASK, "sequence", 5).sum(1).tolist() == pytest.approx([1, 1, 1])
        assert weights_of(MASK, "constant", 5).sum(1).tolist() == pytest.approx([0.6, 0.8, 0.2])
        assert weights_of(torch.zeros(1, 2), "sequence", 5).tolist() == [[0, 0]]

    def test_k3_is_never_negative_and_far_ratios_stay_finite(self):
        new = torch.tensor([[500.0, -500.0]], requires_grad=True)
        loss, sums = policy_loss(new, torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), torch.ones(1, 2), 0.2)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(new.grad).all()
        assert float(sums["approx_kl"]) >= 0

    def test_without_advantage_the_policy_gets_no_gradient(self):
        new = noise().requires_grad_()
        loss, _ = policy_loss(new, noise().detach(), whiten(torch.zeros_like(MASK), MASK), MASK, 0.2)
        loss.sum().backward()
        assert torch.equal(new.grad, torch.zeros_like(MASK))

    def test_the_value_loss_by_hand(self):
        values, old = torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2)
        # the first value moved beyond the clip: the worse of (1 - 0.5)^2 and (0.2 - 0.5)^2 counts
        loss = value_loss(values, old, torch.tensor([[0.5, 0.5]]), 0.2)
        assert float(loss.sum()) == pytest.approx(0.5 * (0.25 + 0.16))
        beyond = value_loss(values, old, torch.tensor([[1.0, 0.1]]), 0.2)
        assert float(beyond.sum()) == pytest.approx(0.5 * 0.64)

    def test_explained_variance_of_a_perfect_a_silent_and_a_constant_critic(self):
        returns = noise()
        assert explained_variance(returns, returns, MASK) == pytest.approx(1)
        assert explained_variance(torch.zeros_like(MASK), returns, MASK) == pytest.approx(0)
        assert explained_variance(returns, torch.ones_like(MASK), MASK) == 0


class TestAgainstTheOthers:
    """Groups (6, 3), (9, 12) and (1)."""

    rewards, groups = torch.tensor([[6.0], [3.0], [9.0], [12.0], [1.0]]), (0, 0, 1, 1, 2)

    def test_the_published_vectors(self):
        given = grade(self.rewards, torch.ones(5, 1), groups=self.groups, scale=False)
        assert leave_one_out(given)[:, 0].tolist() == [3, -3, -3, 3, 0]
        assert group(given)[:, 0].tolist() == [1.5, -1.5, -1.5, 1.5, 0]

    def test_scaled_by_the_deviation_of_a_sample(self):
        scaled = group(grade(self.rewards, torch.ones(5, 1), groups=self.groups))[:, 0]
        assert scaled.tolist() == pytest.approx([0.7071, -0.7071, -0.7071, 0.7071, 0], abs=1e-4)

    def test_every_token_of_an_answer_has_its_advantage(self):
        rewards = torch.zeros_like(MASK)
        rewards[0, 2], rewards[1, 3] = 3.0, 1.0
        found = leave_one_out(grade(rewards, MASK, groups=(0, 0, 1)))
        assert found.tolist() == [[2, 2, 2, 0], [-2, -2, -2, -2], [0, 0, 0, 0]]

    @pytest.mark.parametrize("name", ["group", "leave_one_out"])
    def test_groups_of_any_size_in_any_order_are_each_by_itself(self, name):
        draw = torch.Generator().manual_seed(0)
        rewards, groups = torch.randn(9, 1, generator=draw), torch.tensor([2, 0, 2, 1, 0, 2, 2, 0, 3])
        mask = torch.ones(9, 1)
        whole = ADVANTAGES[name](Graded(rewards, mask, groups))
        for number in range(4):
            rows = groups == number
            alone = ADVANTAGES[name](Graded(rewards[rows], mask[rows], torch.zeros(int(rows.sum()), dtype=torch.long)))
            assert torch.allclose(whole[rows], alone, atol=1e-6)
        assert float(whole[8]) == 0  # a group of one

    def test_one_answer_apart_from_seven_alike_is_no_outlier_without_end(self):
        rewards = torch.tensor([0.0] + [0.95] * 7)[:, None]
        for estimate in (ADVANTAGES["group"], ADVANTAGES["leave_one_out"]):
            found = estimate(Graded(rewards, torch.ones(8, 1), torch.zeros(8, dtype=torch.long)))
            assert float(found.abs().max()) < 3
            assert float(found.sum().abs()) < 1e-5

    def test_groups_that_scored_alike_are_told(self):
        scores = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 5.0])
        assert without_variance(scores, torch.tensor([0, 0, 0, 1, 2, 1, 3])).tolist() == [
            False, False, False, True, True, True, True,
        ]  # fmt: skip

    def test_alike_they_give_no_advantage_whatever_the_estimator(self):
        rewards = torch.full((4, 3), 0.1) * torch.ones(4, 3)
        for name in ("group", "leave_one_out"):
            found = ADVANTAGES[name](grade(rewards, torch.ones(4, 3), groups=(0, 0, 1, 1)))
            assert found.abs().max() < 1e-5


class TestDistance:
    def test_the_published_estimates(self):
        difference = -1 - torch.tensor([0.0, -15.0, -30.0])
        assert ESTIMATORS["k1"](difference).tolist() == [-1, 14, 29]
        assert ESTIMATORS["k2"](difference).tolist() == [0.5, 98, 420.5]
        assert ESTIMATORS["k3"](difference)[:2].tolist() == pytest.approx([0.71828, 13], abs=1e-4)

    def test_far_ones_stay_finite_in_value_and_gradient(self):
        far = torch.tensor([500.0, -500.0, 29.0], requires_grad=True)
        found = ESTIMATORS["k3"](far)
        found.sum().backward()
        assert torch.isfinite(found).all()
        assert torch.isfinite(far.grad).all()

    def test_k3_averages_to_the_kl_and_is_never_negative(self):
        generator = torch.Generator().manual_seed(0)
        policy, reference = (torch.randn(9, generator=generator).log_softmax(0) for _ in range(2))
        drawn = torch.multinomial(policy.exp(), 400_000, replacement=True, generator=generator)
        estimates = ESTIMATORS["k3"]((policy - reference)[drawn])
        kl = (policy.exp() * (policy - reference)).sum()
        assert float(estimates.mean()) == pytest.approx(float(kl), rel=0.02)
        assert float(estimates.min()) >= 0

    def test_the_gradient_of_k2_is_that_of_the_kl_and_k1_has_none(self):
        generator = torch.Generator().manual_seed(1)
        logits, reference = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))

        def expected(estimator):
            given = logits.clone().requires_grad_()
            log_probs = given.log_softmax(0)
            weights = log_probs.detach().exp()  # samples of the policy, all of them at once
            (weights * estimator(log_probs - reference.log_softmax(0))).sum().backward()
            return given.grad

        given = logits.clone().requires_grad_()
        policy = given.log_softmax(0)
        (policy.exp() * (policy - reference.log_softmax(0))).sum().backward()
        torch.testing.assert_close(expected(ESTIMATORS["k2"]), given.grad)
        assert expected(ESTIMATORS["k1"]).abs().max() < 1e-12


class TestKLController:
    def test_the_published_step(self):
        controller = KLController(0.2, target=0.1, horizon=100)
        controller.update(0.2, rollouts=10)
        assert controller.coefficient == pytest.approx(0.204)

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
