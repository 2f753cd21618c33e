"""Five digits reversed: a network that can hold the game learns it from a reward alone, exactly on policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from game import SETTINGS, from_answers, from_rewards, mean_of_five


def test_the_start_answers_about_half_rightly_and_learns_in_a_few_steps(tmp_path: Path) -> None:
    rows = from_rewards("grpo", 0, tmp_path, steps=25)
    assert 0.45 < rows[0]["score"] < 0.55
    assert mean_of_five(rows)[-1] > rows[0]["score"] + 0.1
    assert max(row["logprob_gap"] for row in rows) == 0.0


@pytest.mark.slow
def test_the_network_can_hold_the_game(tmp_path: Path) -> None:
    assert from_answers(tmp_path)["heldout_token_accuracy"] > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_learned_from_the_reward_alone(name: str, seed: int, tmp_path: Path) -> None:
    rows = from_rewards(name, seed, tmp_path)
    assert rows[0]["score"] < 0.55
    assert max(mean_of_five(rows)) >= 0.99
    assert max(row["logprob_gap"] for row in rows) == 0.0
