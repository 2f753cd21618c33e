"""One model that answers many at once: requests join its running batch between two tokens and leave it when they end.

A thread of its own computes, so that one pass is under way at a time. What an answer becomes is a function of its
prompt, its seed and its sampling, not of who else is served meanwhile; log-probabilities are equal up to rounding.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from models.network.generate import pick, write

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is drawn. `top`: so many of the likeliest tokens are told beside each one written; None: no
    log-probabilities at all. These are the model's own, whatever the temperature."""

    new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    top: int | None = None


class Token(NamedTuple):
    """A token that was written, its log-probability (nats) and the likeliest in its place, where these were asked for;
    `ended`: why the answer ends with it, "stop" or "length"."""

    id: int
    log_prob: float | None = None
    top: Sequence[tuple[int, float]] = ()
    ended: str | None = None


@dataclass(slots=True, eq=False)
class Row:
    """One answer in the making. `deliver` is called in the engine's thread with each token, or with what went wrong.

    gone: set by whoever wants no more of it; its place is then free with the next token.
    """

    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[Token | Exception], None]
    gone: bool = False
    written: int = 0
    uniforms: list[float] = field(default_factory=list)


class BusyError(Exception):
    """More are waiting than the engine takes."""


class Engine:
    """Writes rows with one model, `slots` at once; `most` may wait. `vocabulary` rules out ids from there on."""

    def __init__(self, model: nn.Module, vocabulary: int, slots: int = 16, most: int = 1024) -> None:
        self.model: Any = model
        self.vocabulary, self.slots, self.most = vocabulary, slots, most
        self._there = threading.Condition()
        self._new: deque[Row] = deque()
        self._work: deque[Callable[[], None]] = deque()
        self._rows: dict[int, Row] = {}
        self._prompts: dict[int, list[int]] = {}
        self._number = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row]) -> None:
        """Have rows written. Raises BusyError where too many wait already."""
        with self._there:
            if self._closed or len(self._new) + len(rows) > self.most:
                raise BusyError
            self._new.extend(rows)
            self._there.notify()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Have something else done with the model, between two passes. Raises BusyError where too much waits."""
        future: Future[T] = Future()

        def done() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        with self._there:
            if self._closed or len(self._work) >= self.most:
                raise BusyError
            self._work.append(done)
            self._there.notify()
        return future

    def close(self) -> None:
        """End; what is being written is given up."""
        with self._there:
            self._closed = True
            self._there.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Rows that have no place yet."""
        return len(self._new)

    @property
    def busy(self) -> int:
        """Rows that are being written."""
        return len(self._rows)

    def _run(self) -> None:
        while True:
            with self._there:
                self._there.wait_for(lambda: self._new or self._work or self._closed)
                if self._closed:
                    return
            try:
                # A batch lasts until nothing is left of it: then its memory is free again.
                passes = write(
                    self.model, self._prompts, 1, self.slots, self._choose, self._follow, arrivals=self._arrivals
                )
                deque(passes, maxlen=0)
            except Exception as error:
                rows = list(self._rows.values())
                self._rows.clear()
                self._prompts.clear()
                for row in rows:
                    row.deliver(error)

    def _arrivals(self) -> Iterable[int]:
        """Other work is done first; then the numbers of as many new rows as there may be places."""
        with self._there:
            work, self._work = self._work, deque()
        for done in work:
            done()
        numbers = []
        with self._there:
            while self._new and len(self._rows) < self.slots:
                row = self._new.popleft()
                if row.gone or self._closed:
                    continue
                draw = torch.Generator().manual_seed(row.sampling.seed)
                row.uniforms = torch.rand(row.sampling.new_tokens, dtype=torch.float64, generator=draw).tolist()
                self._rows[self._number], self._prompts[self._number] = row, row.prompt
                numbers.append(self._number)
                self._number += 1
        return numbers

    def _choose(self, hidden_ND: Tensor, numbers: Sequence[int]) -> tuple[list[int], list[Token]]:
        rows = [self._rows[number] for number in numbers]
        logits_NV = self.model.logits(hidden_ND).float()[:, : self.vocabulary]
        if logits_NV.isnan().any():
            raise FloatingPointError("the model's numbers overflow")
        chosen = [0] * len(rows)
        alike: dict[tuple[float, float], list[int]] = {}
        for place, row in enumerate(rows):
            alike.setdefault((row.sampling.temperature, row.sampling.top_p), []).append(place)
        for (temperature, top_p), places in alike.items():
            uniform_N = torch.tensor(
                [rows[place].uniforms[rows[place].written] for place in places], dtype=torch.float64
            )
            picked = pick(logits_NV[places], uniform_N.to(logits_NV.device), temperature, top_p)
            for place, token in zip(places, picked.tolist(), strict=True):
                chosen[place] = token
        tokens = [Token(token) for token in chosen]
        asked = [place for place, row in enumerate(rows) if row.sampling.top is not None]
        if asked:
            log_probs_NV = logits_NV[asked].log_softmax(-1)
            for place, log_probs_V in zip(asked, log_probs_NV, strict=True):
                best = log_probs_V.topk(min(rows[place].sampling.top or 0, len(log_probs_V)))
                top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
                tokens[place] = Token(chosen[place], float(log_probs_V[chosen[place]]), top)
        return chosen, tokens

    def _follow(self, number: int, token: int, said: Token) -> Sequence[int]:
        row = self._rows[number]
        row.written += 1
        if token in row.sampling.stop_ids:
            said = said._replace(ended="stop")
        elif row.written == row.sampling.new_tokens:
            said = said._replace(ended="length")
        if not row.gone:
            row.deliver(said)
        if said.ended or row.gone or self._closed:
            del self._rows[number], self._prompts[number]
            return ()
        return (token,)


def embedding(model: nn.Module, ids: Sequence[int]) -> list[float]:
    """The mean of a text's last hidden states, of length 1. One text at a time: nothing depends on its neighbours."""
    device = next(model.parameters()).device
    with torch.no_grad():
        hidden_SD = model(torch.tensor([list(ids)], device=device))[0].float()
    mean_D = hidden_SD.mean(0)
    found: list[float] = (mean_D / mean_D.norm().clamp(min=1e-12)).tolist()
    return found
