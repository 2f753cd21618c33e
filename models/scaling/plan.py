"""What to train for a budget: the size and the tokens of the least loss, batch and rate, memory and time.

A budget of FLOPs is 6 N D, as the laws count it. Time counts attention's FLOPs as well, at a share of the device's peak
(MFU). Text that is seen again counts less than new text, and a plan that would see it too often, or whose states and
activations don't fit the device, is refused.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datalake.errors import UserError
from models.network.config import NetworkConfig
from models.scaling.cost import activation_bytes, attention_flops, shape, state_bytes
from models.scaling.fit import Fit
from models.scaling.laws import Chinchilla
from models.scaling.published import batch_tokens, learning_rate, worth
from models.training.gpus import GPUS, gpu

SMALLEST = 1e4  # parameters of a model that a plan is made for
MOST = 1e26  # FLOPs
EPOCHS = 4.0  # up to so many, text seen again is nearly as good as new (Muennighoff et al. 2023, arXiv 2305.16264)
MFU = 0.4
FILLED = 0.9  # of a device's memory


@dataclass(frozen=True)
class Machine:
    """So many devices of a kind: FLOPs a second and memory (GB of 10^9 bytes) of each, and the share of its peak that
    training is expected to reach. Several share a model's states (FSDP). chosen: a plan has to fit them."""

    name: str
    flops: float
    memory_gb: float
    count: int = 1
    mfu: float = MFU
    bfloat16: bool = True
    chosen: bool = True


def machine(name: str | None, count: int = 1, mfu: float = MFU) -> Machine:
    """Devices by the name of a GPU, or `cpu`: this machine's processor, as fast as it multiplies now. None: H100s that
    a plan needn't fit. Raises UserError for a name that isn't known."""
    if name is not None and name.lower() == "cpu":
        import psutil

        return Machine("this machine", _measured(), psutil.virtual_memory().total / 1e9, 1, mfu, bfloat16=False)
    found = gpu("H100" if name is None else name)
    if found is None:
        raise UserError(f"no GPU {name!r} is known: choose one of {', '.join(GPUS)}, or cpu")
    return Machine(name or "H100", *found, count, mfu, chosen=name is not None)


def _measured() -> float:
    """FLOPs a second of float32 matrix products here, the best of some."""
    matrix = np.ones((1024, 1024), np.float32)
    best = math.inf
    for _ in range(8):
        began = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - began)
    return 2 * 1024**3 / best


@dataclass(frozen=True)
class Text:
    """What there is to train on: a corpus by its name, its different tokens, and how often they may be seen."""

    name: str
    tokens: int
    epochs: float = EPOCHS


@dataclass(frozen=True)
class Plan:
    """A training. flops: 6 N D; loss with the interval that a training ends in, in 95 of 100 cases, in nats a token;
    batch in tokens; memory_gb of each device, with `rows` of the batch at once."""

    parameters: int
    tokens: int
    batch: int
    learning_rate: float
    loss: float
    loss_low: float
    loss_high: float
    memory_gb: float
    hours: float
    flops: float
    rows: int
    network: NetworkConfig
    epochs: float | None


class Planner:
    """Plans by one law, for one machine, text (None: as much as it takes) and length of rows."""

    def __init__(self, fit: Fit, machine: Machine, text: Text | None, vocabulary: int, context: int):
        if not isinstance(fit.law, Chinchilla):
            raise ValueError("a plan needs Chinchilla's form of the law, which has a floor")
        self.fit, self.law, self.machine, self.text = fit, fit.law, machine, text
        self.vocabulary, self.context = vocabulary, context

    def of_flops(self, flops: float) -> Plan:
        """The plan that spends so many. Raises UserError where the text or the machine doesn't bear it."""
        size, tokens = self._split(min(flops, MOST))
        if size < SMALLEST or flops > MOST:
            raise UserError(
                f"a budget of {flops:.3g} FLOPs makes no model: plans are made from {self._least:.1g} to {MOST:.0e}"
                " FLOPs"
            )
        epochs = self._epochs(tokens)
        seen = self._worth(tokens)
        low, high = self.fit.interval(size, seen)
        batch = batch_tokens(tokens)
        network = shape(size, self.vocabulary, self.context)
        rows, memory = self._memory(size, network, max(1, round(batch / self.context)))
        return Plan(
            parameters=round(size),
            tokens=round(tokens),
            batch=max(1, round(batch)),
            learning_rate=learning_rate(size, tokens),
            loss=self.fit.loss(size, seen),
            loss_low=low,
            loss_high=high,
            memory_gb=memory / 1e9,
            hours=self._hours(flops),
            flops=flops,
            rows=rows,
            network=network,
            epochs=epochs,
        )

    def of_hours(self, hours: float) -> Plan:
        """The plan that so many GPU hours pay for, all devices together."""
        return self.of_flops(_solved(lambda flops: self._hours(flops) * self.machine.count, hours, "GPU hours"))

    def of_loss(self, loss: float) -> Plan:
        """The cheapest plan that is expected to reach a loss. Raises UserError for one that no budget reaches."""
        floor = self.fit.constants["E"]
        if loss <= floor:
            raise UserError(
                f"a loss of {loss:g} is below what this law gives any model (E = {floor:.4g}): ask for more"
            )

        def gained(flops: float) -> float:
            size, tokens = self._split(flops)
            return -self.fit.loss(size, self._worth(tokens))

        if gained(self._least) > -loss:
            raise UserError(
                f"a loss of {loss:g} needs no plan: the smallest model that is planned, of {SMALLEST:,.0f} parameters,"
                f" is expected to reach {-gained(self._least):.4g}"
            )
        return self.of_flops(_solved(gained, -loss, f"a loss of {loss:g}", told=False))

    def _split(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss."""
        size = self.law.best_size(self.fit.parameters, flops)
        return size, flops / 6 / size

    def _worth(self, tokens: float) -> float:
        """New tokens that these are worth, of the text there is."""
        return tokens if self.text is None else worth(tokens, self.text.tokens)

    @cached_property
    def _least(self) -> float:
        return _solved(lambda flops: self._split(flops)[0], SMALLEST, "a size")

    def _epochs(self, tokens: float) -> float | None:
        """How often the text is seen. Raises UserError where that is too often."""
        if self.text is None:
            return None
        text, epochs = self.text, tokens / self.text.tokens
        if epochs <= text.epochs:
            return epochs
        flops = _solved(lambda flops: self._split(flops)[1], text.epochs * text.tokens, "tokens")
        less = (
            f"give --flops {_down(flops)} at most, " if flops > self._least else ""
        )  # else there is no model so small
        raise UserError(
            f"the plan wants {_short(tokens)} tokens, and {text.name} has {_short(text.tokens)}: {epochs:.3g} epochs,"
            f" worth {_short(worth(tokens, text.tokens))} new tokens, where {text.epochs:g} epochs are the limit;"
            f" {less}add text, or raise --epochs"
        )

    def _hours(self, flops: float) -> float:
        """Time on the machine, attention's FLOPs counted."""
        size, tokens = self._split(flops)
        work = flops + tokens * attention_flops(size, self.vocabulary, self.context)
        return work / (self.machine.flops * self.machine.mfu * self.machine.count) / 3600

    def _memory(self, size: float, network: NetworkConfig, batch: int) -> tuple[int, float]:
        """Rows at once, a power of two, that leave the device some room, and the bytes that they take with a device's
        share of the states. Raises UserError where one row is too many."""
        machine = self.machine
        states, room = state_bytes(size, machine.bfloat16), machine.memory_gb * 1e9 * FILLED

        def taken(rows: int) -> float:
            return states / machine.count + activation_bytes(network, rows * self.context, machine.bfloat16)

        rows = 1
        while 2 * rows <= batch / machine.count and taken(2 * rows) <= room:
            rows *= 2
        if taken(rows) > room and machine.chosen:
            left = room - activation_bytes(network, self.context, machine.bfloat16)
            mend = f"--gpus {math.ceil(states / left)}, or " if left > 0 else ""
            raise UserError(
                f"a model of {_short(size)} parameters takes {taken(rows) / 1e9:,.1f} GB on each device, and"
                f" {machine.name} has {machine.memory_gb:g}, of which {FILLED:.0%} can be filled: give {mend}a smaller"
                " budget, a shorter --context or a larger device"
            )
        return rows, taken(rows)


def _solved(function: Callable[[float], float], wanted: float, what: str, told: bool = True) -> float:
    """The FLOPs at which an increasing function of them has this value."""
    low, high = 0.0, math.log(MOST)
    amount = f"{wanted:g} {what}" if told else what
    if not function(math.exp(low)) <= wanted <= function(math.exp(high)):
        raise UserError(f"no plan has {amount}: give another amount")
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if function(math.exp(middle)) < wanted else (low, middle)
    return math.exp(high)


def _short(amount: float) -> str:
    """1.2B, 34M, 5.6k."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if amount >= unit:
            return f"{amount / unit:.3g}{name}"
    return f"{amount:.3g}"


def _down(amount: float) -> str:
    """Two digits of a number, rounded down."""
    power = 10 ** (math.floor(math.log10(amount)) - 1)
    return f"{math.floor(amount / power) * power:.2g}"
