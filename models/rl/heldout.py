"""What a policy's answers to held-out prompts are worth, by the reward it learns from and by another.

The reward of the prompts that train may rise because the policy found what the reward overrates. Another reward model,
which nothing was learned from, doesn't rise with it: the two drawing apart is what reward hacking looks like (Gao et
al. 2023, arXiv 2210.10760).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from datalake.errors import UserError
from models.objectives.bradley_terry import scores_of
from models.rl.answers import Answer
from models.rl.reward_model import load_reward_model
from models.training.epochs import draw

Scorer = Callable[[Sequence[Answer]], Sequence[float]]

_STREAM = 1 << 23  # of random numbers: the seeds of held-out answers


def heldout(
    answered: Callable[[Sequence[list[int]], Sequence[int]], Sequence[Answer]],
    prompts: Sequence[list[int]],
    scorers: Mapping[str, Scorer],
    seed: int,
) -> Callable[[nn.Module], dict[str, float]]:
    """A `measure` of `Prepared`: the mean of each scorer over one answer to each prompt; `answered` has them written,
    by prompts and seeds.

    A prompt's random numbers are the same each time, so figures differ by what the policy learned and not by luck.
    """
    seeds = draw(seed, _STREAM).integers(2**62, size=len(prompts)).tolist()

    def measure(_: nn.Module) -> dict[str, float]:
        answers = answered(prompts, seeds)
        return {name: _mean(scorer(answers)) for name, scorer in scorers.items()}

    return measure


def other_reward_model(folder: Path, words: Any, batch: int, longest: int = 0) -> tuple[str, Scorer, nn.Module]:
    """Another reward model by its folder: the name of its figure, `other_<name>`, its scorer, and its network, which
    has to go to the device. Raises UserError where it reads other tokens than `words` writes, or fewer than the
    `longest` prompt with its answer may have."""
    judge, judges_words = load_reward_model(folder)
    if words.get_vocab() != judges_words.get_vocab():
        raise UserError(f"{folder} has another tokenizer than the policy: name a reward model trained from its base")
    context = int(judge.trunk.config.context)  # type: ignore[union-attr, arg-type]
    if context < longest:
        raise UserError(
            f"{folder} reads {context} tokens, and a held-out prompt with its answer may have {longest}: lower"
            " new_tokens, or name a reward model with a longer context"
        )
    judge.eval().requires_grad_(False)
    place = folder.parent if folder.name in ("checkpoint", "model") else folder

    def by_model(answers: Sequence[Answer]) -> list[float]:
        values: list[float] = scores_of(judge, [answer.prompt + answer.tokens for answer in answers], batch).tolist()
        return values

    return f"other_{place.name}", by_model, judge


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
