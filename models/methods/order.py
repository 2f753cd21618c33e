"""What each step of a training stage saw, told again from what the stage was given: a pure function of seed and step.

Steps are counted from 1, as in the metrics, the events of the spike guard and the curves: step 1 is the first update.
Items are told by their place in the list that the stage was given, row by row; documents by their id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datalake.errors import UserError
from models.methods import ppo, reward, sft
from models.network import checkpoint
from models.text import tokenizer as tokenizers
from models.text.packing import Messages
from models.text.sampler import Sampler
from models.text.shards import TokenShards
from models.training.config import PpoConfig, PretrainConfig, RewardConfig, SftConfig

Seen = tuple[int, int]  # the place of an item in its list, and how many of its tokens the step read


def pretrain_step(
    config: PretrainConfig, shards: TokenShards, train: Sequence[tuple[bytes, int]], step: int
) -> list[tuple[bytes, int, int]]:
    """The documents of a pretraining step, row by row: (id, its first token in the row, how many)."""
    taken(step, config.total_steps)
    return Sampler(shards, train, config.seed, config.context, config.batch).documents(step - 1)


def sft_step(config: SftConfig, base: Path, conversations: Sequence[Messages], step: int) -> list[Seen]:
    """The dialogues of a step of supervised tuning."""
    words, context = tokenizers.load(base), checkpoint.context_of(base)
    fitted = sft.fitting(conversations, words, min(config.context or context, context))
    order = sft.order_of(config, fitted)
    taken(step, config.steps or order.steps(config.epochs))
    return [(fitted.numbers[item], len(fitted.items[item][0])) for item in order.items(step - 1)]


def reward_step(config: RewardConfig, base: Path, pairs: Sequence[reward.Pair], step: int) -> list[Seen]:
    """The pairs of a step of the reward model; tokens are those of both answers with their prompts."""
    words, context = tokenizers.load(base), checkpoint.context_of(base)
    fitted = reward.fitting(pairs, words, min(config.context or context, context))
    order = reward.order_of(config, fitted)
    taken(step, config.steps or order.steps(config.epochs))
    return [(fitted.numbers[item], sum(map(len, fitted.items[item]))) for item in order.items(step - 1)]


def ppo_step(config: PpoConfig, policy: Path, reward_model: Path, prompts: Sequence[Messages], step: int) -> list[Seen]:
    """The prompts that a step of PPO answered; tokens are the prompt's."""
    room = min(checkpoint.context_of(policy), checkpoint.context_of(reward_model)) - config.new_tokens
    fitted = ppo.fitting(prompts, tokenizers.load(policy), room)
    taken(step, config.steps)
    order = ppo.Order(config, len(fitted.items))
    return [(fitted.numbers[item], len(fitted.items[item])) for item in order.items(step - 1)]


def taken(step: int, steps: int) -> None:
    """Raises UserError for a step that a stage of so many steps didn't take."""
    if not 1 <= step <= steps:
        raise UserError(f"step {step} is out of range: this stage took {steps} steps, 1 to {steps}")
