"""A user's own metrics: plain functions `(text, language) -> float`, each a column of the curation table and ledger.

A function is one of `datalake.functions`: of a file (`folder/metrics.py:emoji_share`) or an installed package. It gets
the text as built-in metrics do, repaired, and the language as lid.176 names it; None and NaN are missing values.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from datalake import functions
from datalake.errors import UserError, first_line
from datalake.functions import Function
from datalake.printable import one_line

SECTION = "curate.metrics"


class _Config(Protocol):
    @property
    def metric_functions(self) -> tuple[Function, ...]: ...


def names(config: _Config) -> list[str]:
    """The names of a config's own metrics, in the order of their columns."""
    return sorted(function.name for function in config.metric_functions)


def read(entries: Sequence[str], taken: Collection[str]) -> tuple[Function, ...]:
    """The functions that these entries name, by name; nothing of them is run. `taken`: names that metrics can't have.

    Raises:
        UserError: in one line, where there is no such file, module or function, or its name can't be a column's.
    """
    found: dict[str, Function] = {}
    forbidden = {name.lower() for name in taken}  # SQL knows no case
    for entry in entries:
        name = entry.rpartition(":")[2]
        said = f"{SECTION}: {entry!r}"
        if name.lower() in forbidden:
            raise UserError(f"{said}: {name!r} is a metric or column already: give the function another name")
        if name.lower() in {other.lower() for other in found}:
            raise UserError(f"{said}: there are two metrics called {name!r}: give the functions different names")
        found[name] = functions.read(entry, SECTION)
    return tuple(found[name] for name in sorted(found))


def load(config: _Config) -> dict[str, Callable[[str, str], Any]]:
    """A config's own metrics, ready to be called, by name in the order of their columns.

    Raises:
        UserError: where one can't be imported here, or is another than when the recipe was read.
    """
    by_name = sorted((function.name, function) for function in config.metric_functions)
    return {name: functions.load(function, SECTION) for name, function in by_name}


Values = dict[str, list[float | None]]  # of each metric, None where it is missing
Measure = Callable[[Sequence[str], Sequence[str]], Values]  # from texts and their languages

# What a shard counts of its own metrics.
_DOCUMENTS, _FAILED, _NANOSECONDS, _ERROR = (
    f"own metric {what}:" for what in ("documents", "failed", "nanoseconds", "error")
)


class Meter:
    """Measures texts by a config's own metrics, but for those in `but`; `counts` says what that cost, and what failed.

    Raises:
        UserError: where a function can't be loaded here.
    """

    def __init__(self, config: _Config, but: Collection[str] = ()):
        self._functions = {name: function for name, function in load(config).items() if name not in but}
        self.counts: Counter[str] = Counter()

    def __call__(self, texts: Sequence[str], languages: Sequence[str]) -> Values:
        """Each metric of each text."""
        return {name: self._values(name, texts, languages) for name in self._functions}

    def _values(self, name: str, texts: Sequence[str], languages: Sequence[str]) -> list[float | None]:
        function, values = self._functions[name], []
        start = time.perf_counter_ns()
        for text, language in zip(texts, languages, strict=True):
            try:
                values.append(_number(function(text, language)))
            except (Exception, SystemExit) as error:
                values.append(None)
                self.counts[f"{_FAILED}{name}"] += 1
                if self.counts[f"{_FAILED}{name}"] == 1:
                    self.counts[f"{_ERROR}{name}:{type(error).__name__}: {one_line(first_line(error))}"] = 1
        self.counts[f"{_NANOSECONDS}{name}"] += time.perf_counter_ns() - start
        self.counts[f"{_DOCUMENTS}{name}"] += len(values)
        return values


def _number(given: Any) -> float | None:
    """What a function gave, as a column has it. Raises TypeError or ValueError where that is no number."""
    if given is None:
        return None
    if isinstance(given, str | bytes):
        raise TypeError(f"it gave a {type(given).__name__}, which is no number")
    value = float(given)
    if math.isinf(value):
        raise ValueError("it gave an infinite number")
    return None if math.isnan(value) else value


def counts_of(names: Iterable[str], counted: Mapping[str, int]) -> dict[str, int]:
    """Those of a shard's counts that are about these metrics."""
    own = {f"{kind}{name}" for kind in (_DOCUMENTS, _FAILED, _NANOSECONDS) for name in names}
    errors = tuple(f"{_ERROR}{name}:" for name in names)
    return {key: n for key, n in counted.items() if key in own or key.startswith(errors)}


class Cost(NamedTuple):
    """What a metric cost in a run, and where it failed."""

    name: str
    documents: int
    microseconds: float  # a document
    failed: int
    error: str

    @property
    def warning(self) -> str:
        """What a person must know of its failures; empty where there were none."""
        if not self.failed:
            return ""
        if self.failed == self.documents:
            return f"{self.name} FAILED ON ALL {self.documents:,} DOCUMENTS, its column is empty ({self.error})"
        return f"{self.name} failed on {self.failed:,} of {self.documents:,} documents, empty there ({self.error})"

    def __str__(self) -> str:
        return f"{self.name}: {self.microseconds:,.3g} µs a document"


def cost(name: str, counted: Mapping[str, int]) -> Cost:
    """What the counts of all shards say of a metric."""
    documents = counted.get(f"{_DOCUMENTS}{name}", 0)
    errors = sorted(key for key in counted if key.startswith(f"{_ERROR}{name}:"))
    return Cost(
        name,
        documents,
        counted.get(f"{_NANOSECONDS}{name}", 0) / 1_000 / max(documents, 1),
        counted.get(f"{_FAILED}{name}", 0),
        errors[0].removeprefix(f"{_ERROR}{name}:") if errors else "",
    )
