"""What of a training config is identity: all that shapes weights, and nothing else."""

from __future__ import annotations

import pytest

from datalake.identity import fingerprint
from models.methods.ppo import PpoConfig
from models.methods.pretrain import PretrainConfig
from models.methods.reward import RewardConfig
from models.methods.sft import SftConfig

HABITS = {"checkpoint_every": 7, "eval_every": 7, "eval_rows": 7, "activation_checkpointing": True}


@pytest.mark.parametrize("kind", [PretrainConfig, SftConfig, RewardConfig, PpoConfig])
def test_how_often_to_save_and_to_look_is_no_identity(kind) -> None:
    habits = {name: value for name, value in HABITS.items() if name in kind.model_fields}
    assert fingerprint(kind()) == fingerprint(kind(**habits))
    assert kind(**habits) != kind()
    assert fingerprint(kind()) != fingerprint(kind(seed=1))
    assert fingerprint(kind()) != fingerprint(kind(compile="on"))
    assert fingerprint(kind()) != fingerprint(kind(learning_rate=0.5))
