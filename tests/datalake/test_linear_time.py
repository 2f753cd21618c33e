"""Everything that reads text takes time in proportion to it, on the worst input that could be thought of.

Two ways: every regular expression of the house, on inputs made from it (`pumps`); and whole functions on inputs that
each of them once was slow on, or could be. No test looks at seconds, but at how much longer four times as much takes.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pumps
import pytest

HOUSE = Path(__file__).parents[2]
FLOORS = ("datalake", "models", "tasks", "flows")
METHODS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
FLAGS_AT = {"compile": 1, "sub": 4, "subn": 4, "split": 3}  # places of the flags; 2 of the other functions

# Expressions of which inputs are bounded by who uses them, and so may be worse than linear within the bound.
BOUNDED = {
    "datalake.curate.pii._WEB": "128 characters before a number",
    "datalake.sources.code_marks._GENERATED": "the first 4,000 characters of a file",
    "datalake.sources.pydoc._SYSTEM": "pages of this Python's own pydoc",
    "datalake.sources.pydoc._VOLATILE": "pages of this Python's own pydoc",
    "datalake.sources.gutenberg._FIRST": "the first 3,000 characters of a header, its blanks made one",
}
# Expressions made while running, and why they are linear.
MADE = {
    ("datalake.extract.wikichinese", "re.compile"): "a class of characters",
    ("datalake.remote.files", "re.search"): "one character of a class",
    ("datalake.sources.languages", "re.compile"): "all that are made are values of the module, and tried",
    ("datalake.sources.pydoc", "re.sub"): "a text as it is",
    ("datalake.sources.redact", "re.compile"): "tried as `redact._patterns()`",
    ("datalake.sources.wikipedia", "re.search"): "tried by `_site`",
}


def _modules() -> list[str]:
    files = (path for floor in FLOORS for path in sorted((HOUSE / floor).rglob("*.py")))
    return [
        ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        for path in files
        if re.search(r"^import re$|^from re import|^import regex", path.read_text("utf-8"), re.MULTILINE)
    ]


def _patterns(name: str) -> Iterator[tuple[str, re.Pattern[Any], str]]:
    """(name, expression, `search`, `match` or `fullmatch`: how it is used) of each regular expression of a module."""
    module = importlib.import_module(name)
    tree = ast.parse((HOUSE / (name.replace(".", "/") + ".py")).read_text("utf-8"))
    assert "from re import" not in ast.unparse(tree), "functions of `re` are called by their full names"
    nodes = list(ast.walk(tree))
    used: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
    names = {
        id(n.value): n.targets[0].id for n in nodes if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("re."):
            continue
        function = ast.unparse(node.func)
        if function == "re.escape":
            continue
        assert function[3:] in {*METHODS, "compile"}, f"{name}:{node.lineno}: {function} isn't known here"
        place = FLAGS_AT.get(function[3:], 2)
        flags = [*node.args[place : place + 1], *(word.value for word in node.keywords if word.arg == "flags")]
        try:
            pattern = re.compile(*(_value(part, module) for part in [node.args[0], *flags[:1]]))
        except NameError:
            assert (name, function) in MADE, f"{name}:{node.lineno}: what could the worst input of this be? See MADE"
            continue
        own = names.get(id(node), "")
        how = {function[3:]} if function != "re.compile" else used.get(own, {"search"})
        yield f"{name}.{own or node.lineno}", pattern, _weakest(how)
    for value, label in [
        *_held(vars(module), name),
        *([(p, "_MORE") for _, p, _ in module._patterns()] if name.endswith(".redact") else []),
    ]:
        if isinstance(value, re.Pattern):
            yield label, value, _weakest(used.get(label.rpartition(".")[2], {"search"}))


def _value(node: ast.expr, module: Any) -> Any:
    return eval(compile(ast.Expression(node), module.__file__, "eval"), vars(module))


def _weakest(how: set[str]) -> str:
    return "search" if how - {"match", "fullmatch"} else "match" if "match" in how else "fullmatch"


def _held(value: Any, label: str) -> Iterator[tuple[Any, str]]:
    """Values in dictionaries and sequences, however deep."""
    if isinstance(value, dict):
        for key, one in list(value.items()):
            if not str(key).startswith("__"):
                yield from _held(one, f"{label}.{key}")
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _held(one, label)
    else:
        yield value, label


@pytest.mark.parametrize("module", _modules())
def test_every_regular_expression_takes_time_in_proportion_to_its_text(module: str) -> None:
    slow = []
    seen = set()
    for label, pattern, how in _patterns(module):
        if (pattern, how) in seen or label in BOUNDED or pumps.is_plain(pattern):
            continue
        seen.add((pattern, how))
        for before, pump, after in pumps.worst(pattern, how):

            def build(size: int, before: str = before, pump: str = pump, after: str = after) -> str | bytes:
                text = before + pump * (size // len(pump) + 1) + after
                return text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text

            def run(text: str | bytes) -> None:
                found = pattern.finditer(text) if how == "search" else [getattr(pattern, how)(text)]
                for _ in found:
                    pass

            if (ratio := pumps.growth(run, build)) > 8:
                slow.append(
                    f"{label}: {before!r}, {pump!r} over and over, {after!r}: {ratio:.0f} times for 4 times as much"
                )
                break
    assert not slow, "\n".join(slow)


def test_a_slow_expression_is_found() -> None:
    for pattern in (r"\s+$", r"<!--.*?-->", r"(a|b)*c", r"a\s*b?\s*c", r"\[(.*)\]", r"x(?:a+)+y"):
        compiled = re.compile(pattern, re.DOTALL)

        def slow(before: str, pump: str, after: str) -> bool:
            def run(text: str) -> None:
                for _ in compiled.finditer(text):
                    pass

            return pumps.growth(run, lambda size: before + pump * (size // len(pump) + 1) + after, 2_000) > 8

        assert not pumps.is_plain(compiled)
        if pattern != r"x(?:a+)+y":  # exponential: it wouldn't end
            assert any(slow(*worst) for worst in pumps.worst(compiled, "search")), pattern
