"""A user's own metrics: plain functions `(text, language) -> float`, each a column of the curation table and ledger.

A function is in a file (`folder/metrics.py:emoji_share`) or in an installed package (`package.module:emoji_share`). It
gets the text as built-in metrics do, repaired, and the language as lid.176 names it; None and NaN are missing
values. A file's text is part of the config: it is what the functions are known by, wherever the file lies, and what
workers run that can't see the file. So a file must be whole by itself: it may import installed packages, not its
neighbours. A function of a package is known by the digest of its module's file and the package's version, and every
worker has to have the package.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from datalake.errors import UserError, first_line
from datalake.files import file_digest
from datalake.printable import one_line

SECTION = "curate.metrics"
_LARGEST_FILE = 1 << 20  # bytes: its text is part of every record of what was run

Function = Callable[[str, str], Any]


class MetricFunction(BaseModel):
    """A function as it was when the recipe was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(title="Function")
    module: str = Field(default="", title="Module", description="Where it is installed; empty: it is of a file")
    content: str = Field(title="Content", description="The file's text; of a module its digest and package version")


class _Config(Protocol):
    @property
    def metric_functions(self) -> tuple[MetricFunction, ...]: ...


def names(config: _Config) -> list[str]:
    """The names of a config's own metrics, in the order of their columns."""
    return sorted(function.name for function in config.metric_functions)


def absolute(entry: str) -> str:
    """An entry whose file is found from any folder."""
    place, colon, name = entry.rpartition(":")
    return f"{os.path.abspath(os.path.expanduser(place))}{colon}{name}" if _is_file(place) else entry  # noqa: PTH100, PTH111


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def read(entries: Sequence[str], taken: Collection[str]) -> tuple[MetricFunction, ...]:
    """The functions that these entries name, by name; nothing of them is run. `taken`: names that metrics can't have.

    Raises:
        UserError: in one line, where there is no such file, module or function, or its name can't be a column's.
    """
    functions: dict[str, MetricFunction] = {}
    forbidden = {name.lower() for name in taken}  # SQL knows no case
    for entry in entries:
        place, colon, name = entry.rpartition(":")
        said = f"{SECTION}: {entry!r}"
        if not colon or not place:
            raise UserError(f"{said} is no FILE:function nor package.module:function: write it as one of these")
        if not name.isidentifier():
            raise UserError(f"{said}: {name!r} is no name of a function: correct it")
        if name.lower() in forbidden:
            raise UserError(f"{said}: {name!r} is a metric or column already: give the function another name")
        if name.lower() in {other.lower() for other in functions}:
            raise UserError(f"{said}: there are two metrics called {name!r}: give the functions different names")
        functions[name] = _of_file(said, place, name) if _is_file(place) else _of_module(said, place, name)
    return tuple(functions[name] for name in sorted(functions))


def _of_file(said: str, place: str, name: str) -> MetricFunction:
    path = Path(place)
    if not path.is_file():
        raise UserError(f"{said}: there is no file {place!r}: correct the path")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{said}: {place!r} can't be read ({first_line(error)}): correct it") from None
    if len(data) > _LARGEST_FILE:
        raise UserError(f"{said}: {place!r} is larger than {_LARGEST_FILE >> 20} MB: give metrics their own file")
    _must_define(said, text, name)
    return MetricFunction(name=name, content=text.replace("\r\n", "\n"))


def _of_module(said: str, module: str, name: str) -> MetricFunction:
    version, text = _installed(said, module)
    if text is not None:
        _must_define(said, text, name)
    return MetricFunction(name=name, module=module, content=version)


def _installed(said: str, module: str) -> tuple[str, str | None]:
    """A module's version (digest of its file, and its package's), and its source where there is one."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError, SyntaxError):
        found = None
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise UserError(f"{said}: there is no module {module!r} installed here: install it, or name a file (FILE.py)")
    package = module.partition(".")[0]
    homes = importlib.metadata.packages_distributions().get(package, ())
    versions = [f"{home} {importlib.metadata.version(home)}" for home in sorted(set(homes))]
    text = Path(found.origin).read_text(encoding="utf-8") if found.origin.endswith(".py") else None
    return ", ".join([file_digest(found.origin), *versions]), text


def _must_define(said: str, text: str, name: str) -> None:
    """Raises UserError where a file is no Python, or has nothing of this name; the file isn't run for it."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{said}: the file is no Python ({first_line(error)}): correct it") from None
    defined: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
    if name not in defined and "*" not in defined:
        raise UserError(f"{said}: there is no function {name!r} in it: correct the name")


def load(config: _Config) -> dict[str, Function]:
    """A config's own metrics, ready to be called, by name in the order of their columns.

    Raises:
        UserError: where one can't be imported here, or is another than when the recipe was read.
    """
    return {name: _loaded(function) for name, function in sorted((f.name, f) for f in config.metric_functions)}


@lru_cache(maxsize=256)
def _loaded(function: MetricFunction) -> Function:
    said = f"{SECTION}: {function.name}"
    try:
        if function.module:
            if _installed(said, function.module)[0] != function.content:
                raise UserError(f"{said}: {function.module} is another here than where the recipe was read")
            found = getattr(importlib.import_module(function.module), function.name)
        else:
            found = _run(function.content)[function.name]
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{said} can't be loaded ({reason}): a file may import installed packages alone") from None
    if not callable(found):
        raise UserError(f"{said} is no function: name one that takes a text and its language")
    return found


@lru_cache(maxsize=64)
def _run(text: str) -> dict[str, Any]:
    """What a file defines."""
    defined: dict[str, Any] = {"__name__": "metrics_of_the_recipe"}
    exec(compile(text, f"<{SECTION}>", "exec"), defined)
    return defined


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
