"""A signal in training: it waits for the end of its step, the state is saved, and what follows is bit-equal."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from test_trainer import STEPS, assert_bit_equal, train, weights

from models.training.interrupt import Interrupts
from models.training.loop import Callback, Run
from models.training.metrics import read_metrics
from models.training.state import load_state


class Signal(Callback):
    """Sends this process a signal in the middle of a step, when its loss is known and its update is still to come."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step, self.after = number, step, 0

    def accept(self, run: Run, loss: float, norm: float) -> bool:
        if run.state.step + 1 == self.step:
            signal.raise_signal(self.number)
            self.after = run.state.step + 1
        return True


@pytest.fixture
def handlers() -> Any:
    """SIGTERM and SIGHUP raise here, as they do in a run; all handlers are put back."""

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)
    yield terminate
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "raised", "step"),
    [
        *((signal.SIGINT, KeyboardInterrupt, step) for step in (1, 5, 6, STEPS)),
        *((number, SystemExit, 5) for number in (signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_training_ends_after_the_step_saves_it_and_goes_on_bit_equal(
    tmp_path: Path, handlers: Any, number: int, raised: type[BaseException], step: int
) -> None:
    sender = Signal(number, step)
    with pytest.raises(raised):
        train(tmp_path / "interrupted", extra=[sender])
    assert sender.after == step
    assert load_state(tmp_path / "interrupted" / "state", "toy").step == step
    assert signal.getsignal(signal.SIGTERM) is handlers
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = train(tmp_path / "interrupted")
    assert_bit_equal(weights(model), weights(train(tmp_path / "whole")))
    told = read_metrics(tmp_path / "interrupted" / "metrics.jsonl")
    assert [row["step"] for row in told] == list(range(1, STEPS + 1))


def test_an_error_of_its_own_leaves_the_handlers_as_they_were(tmp_path: Path, handlers: Any) -> None:
    class Broken(Callback):
        def on_step(self, run: Run, row: dict[str, float]) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path, extra=[Broken()])
    assert signal.getsignal(signal.SIGTERM) is handlers


def test_another_thread_than_the_main_one_trains_without(tmp_path: Path, handlers: Any) -> None:
    seen: list[Any] = []

    def other() -> None:
        interrupts = Interrupts()
        seen.append(signal.getsignal(signal.SIGTERM))
        interrupts.close()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [handlers]
