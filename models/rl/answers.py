"""Answers as tokens: what a policy wrote for a prompt, kept as ids from the moment of sampling to the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from models.training.device import Device


@dataclass(slots=True)
class Answer:
    """One rollout. `tokens` is all that follows the prompt: what the policy wrote and what tools gave back.

    written: which of the tokens the policy wrote; the others are observations and train nothing. log_probs: of
    sampling, in nats at the sampling temperature, one a token, 0 for observations. ended: with a stop token; else the
    answer is truncated. version: of the policy that wrote it, the steps that it had learned from.
    """

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    written: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    ended: bool = False
    version: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn: `new_tokens` at most are written for a prompt, over all its turns; `vocabulary` rules out
    ids from there on, the embedding's spare rows. Nothing else narrows what can be drawn: any top-p would sample from
    another distribution than the log-probabilities describe. `longest`: tokens of a prompt with its answer and what
    tools gave back, where a model that judges it holds fewer than the policy."""

    new_tokens: int
    temperature: float
    stop_ids: tuple[int, ...]
    vocabulary: int | None = None
    longest: int | None = None

    def room(self, model: Any) -> int:
        """Tokens of a prompt with its answer that a policy may come to."""
        context = int(model.config.context)
        return context if self.longest is None else min(context, self.longest)


Observe = Callable[[int, Answer], "list[int] | None"]  # the row's place and what it wrote -> what comes next, if any


class Engine(Protocol):
    """Whatever answers prompts, in process, in Ray's actors or in another program.

    version: of the weights that answers are written with; whoever changes those, moves it. exact: its log-probabilities
    are those of training's pass, to the bit.
    """

    version: int
    exact: bool

    def __call__(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], observe: Observe | None = None
    ) -> list[Answer]:
        """One answer to each prompt; a row's random numbers are a function of its own seed alone.

        `observe` is asked when a row has written a stop token: for the ids that follow, an observation and what opens
        the next turn, or None where the dialogue is over.
        """


class Actors(Protocol):
    """Makes an engine of other processes that hold the model as well; a stage that runs on a cluster has one."""

    def __call__(self, model: nn.Module, sampling: Sampling, workers: int, exact: bool, device: Device) -> Engine:
        """An engine of so many; exact: as of `models.rl.engine.Engine`; device: how precisely they compute."""
