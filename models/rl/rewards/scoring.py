"""Answers scored by a recipe's rewards: one column for each, checked, within a time limit."""

from __future__ import annotations

import copy
import ctypes
import inspect
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple

from datalake import functions
from datalake.errors import UserError, first_line
from datalake.printable import one_line
from models.rl.rewards.config import RewardFunction, labels

_LARGEST = 3e38  # what float32 holds, in which rewards are learned from
_GOES_ON = (
    "mend what it calls on and run again: the run goes on from its last saved step; one that is itself changed is"
    " another reward, which is learned from the first step on"
)


class Asked(NamedTuple):
    """A prompt, the answer that a policy gave, and what is known of the dialogue: `id`, `source`, `messages` (the
    prompt's), `answer` (the dialogue's own, "" where none) and its attributes by their names."""

    prompt: str
    answer: str
    row: dict[str, Any]


class Rewards:
    """The rewards of a recipe's section. `scored`: columns that come from elsewhere (the reward model's), and what
    each weighs in the sum.

    Raises:
        UserError: where a function can't be loaded here, or doesn't take its options.
    """

    def __init__(
        self,
        rewards: Sequence[RewardFunction],
        scored: Mapping[str, float] | None = None,
        section: str = "rewards",
    ) -> None:
        self.section = section
        names = labels(rewards, taken=list(scored or {}))
        self.weights = {**(scored or {}), **{n: r.weight for n, r in zip(names, rewards, strict=True)}}
        self._scored = list(scored or {})
        self._functions: dict[str, tuple[RewardFunction, Callable[..., Any]]] = {}
        for name, reward in zip(names, rewards, strict=True):
            function = functions.load(reward.said, section)
            _must_take(function, reward, f"{section}: {name}")
            self._functions[name] = reward, function

    @property
    def names(self) -> list[str]:
        """The columns, in their order."""
        return list(self.weights)

    def __call__(
        self, asked: Sequence[Asked], scored: Mapping[str, Sequence[float]] | None = None
    ) -> dict[str, list[float]]:
        """The rewards (N) of each answer by each function, and the columns scored elsewhere.

        Raises:
            UserError: one that names function, row and cause, where a function raises, takes longer than it may, or
                gives what is no finite number.
        """
        columns: dict[str, list[float]] = {}
        for name in self._scored:
            values = columns[name] = [float(value) for value in (scored or {})[name]]
            if bad := [place for place, value in enumerate(values) if not math.isfinite(value)]:
                raise UserError(
                    f"{self.section}: {name} gave {values[bad[0]]} for row {_id(asked[bad[0]])}: it is no reward; look "
                    "whether its training diverged"
                )
        for name, (reward, function) in self._functions.items():
            columns[name] = self._column(name, reward, function, asked)
        return columns

    def total(self, columns: Mapping[str, Sequence[float]]) -> list[float]:
        """The weighted sum of the columns, for each answer."""
        rows = zip(*(columns[name] for name in self.names), strict=True)
        return [sum(weight * value for weight, value in zip(self.weights.values(), row, strict=True)) for row in rows]

    def _column(
        self, name: str, reward: RewardFunction, function: Callable[..., Any], asked: Sequence[Asked]
    ) -> list[float]:
        call = partial(function, **reward.options)
        values: list[float] = [0.0] * len(asked)

        def score(place: int) -> None:
            prompt, answer, row = asked[place]
            values[place] = _number(call(prompt, answer, copy.deepcopy(row)))

        threads = min(int(getattr(function, "threads", 1)), len(asked))
        failed = _watched(score, len(asked), threads, reward.seconds)
        if failed is not None:
            place, why = failed
            which = f"{self.section}: {name} ({PurePath(reward.function).name}) failed on row {_id(asked[place])}"
            raise UserError(f"{which}: {one_line(why)}; {_GOES_ON}")
        return values


def _id(asked: Asked) -> str:
    return str(asked.row.get("id", "?"))


def _must_take(function: Callable[..., Any], reward: RewardFunction, said: str) -> None:
    """Raises UserError where a function can't be called as rewards are; builtins without a signature may be."""
    if inspect.iscoroutinefunction(function):
        raise UserError(f"{said} is async: rewards are plain functions (prompt, answer, row) -> float")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind("", "", {}, **reward.options)
    except TypeError as error:
        shown = f"def {reward.said.name}{signature}"
        raise UserError(
            f"{said} can't be called as (prompt, answer, row{''.join(f', {name}=' for name in reward.options)}): "
            f"{first_line(error)}; it is `{shown}`"
        ) from None


def _number(given: Any) -> float:
    """What a function gave, as a reward. Raises TypeError or ValueError where that is no finite number."""
    if given is None or isinstance(given, str | bytes):
        raise TypeError(f"it gave {'None' if given is None else repr(given)[:40]}, which is no number")
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"it gave a {type(given).__name__}, which is no number ({first_line(error)})") from None
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise ValueError(f"it gave {value}, which is no reward")
    return value


def _watched(work: Callable[[int], None], count: int, threads: int, seconds: float) -> tuple[int, str] | None:
    """Does all pieces of work, in threads of their own; the first that failed, and why, or None.

    A piece that takes longer than `seconds` has failed; its thread is told to end, and left where it doesn't listen
    (native code): it is a daemon, which keeps no process alive.
    """
    places: Iterator[int] = iter(range(count))
    lock, finished = threading.Lock(), threading.Condition()
    began: dict[int, tuple[int, float]] = {}  # thread -> piece of work, and since when
    failed: dict[int, str] = {}
    left = [threads]

    def run() -> None:
        own = threading.get_ident()
        try:
            while not failed:
                with lock:
                    place = next(places, None)
                if place is None:
                    break
                began[own] = place, time.monotonic()
                try:
                    work(place)
                except BaseException as error:  # a function may raise SystemExit too
                    failed[place] = _cause(error)
                finally:
                    began.pop(own, None)
        finally:
            with finished:
                left[0] -= 1
                finished.notify_all()

    for _ in range(threads):
        threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    while True:
        with finished:
            if not left[0]:
                break
            since = min((start for _, start in list(began.values())), default=time.monotonic())
            finished.wait(min(max(since + seconds - time.monotonic(), 0.001), 60.0))
        for thread, (place, start) in list(began.items()):
            if time.monotonic() - start >= seconds and left[0]:
                failed[place] = f"it took longer than {seconds:g} s"
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))
                return place, failed[place]
    return min(failed.items(), default=None)


def _cause(error: BaseException) -> str:
    """An error in a line, with the line of the user's file where there is one."""
    inside = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in (__file__, copy.__file__)]
    where = f" (line {inside[-1].lineno} of {PurePath(inside[-1].filename).name})" if inside else ""
    shown = first_line(error)
    return f"{shown}" if not inside else f"{type(error).__name__}: {shown}{where}"
