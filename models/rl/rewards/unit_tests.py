r"""Unit tests: whether the code that an answer holds passes them, run in the sandbox (`models.sandbox`).

The row's `tests` are Python (`assert f(2) == 4`, `def test_...`, `def check(candidate)` as HumanEval has it, Chen et
al. 2021, arXiv 2107.03374; a unittest.TestCase), a JSON list of such, as MBPP has them, or a JSON list of
`{"input": ..., "output": ...}`: what a program reads and must then write. `entry_point` names the function that is
tested, where tests don't; `setup` is what stands before answer and tests, such as HumanEval's prompt.
"""

from __future__ import annotations

import ast
import json
import os
import re
import textwrap
from typing import Any

from models.sandbox import Limits, Verdict, run, verify

# Within a list a block stands further in than Markdown has it at the margin.
_FENCE = re.compile(r"^( {0,8})```([^\n`]{0,40})\n", re.MULTILINE)
_CLOSED = re.compile(r"^( {0,11})```[ \t\r]{0,40}$", re.MULTILINE)
_DEEPER = 3  # than where it was opened a block may be closed; else the marks are text within


def correct(
    prompt: str,
    answer: str,
    row: dict[str, Any],
    *,
    seconds: float = 10.0,
    memory_mb: int = 1024,
    unshielded: bool = False,
) -> float:
    """1 where the answer's code passes all tests of its row within the limits, else 0.

    Raises:
        UserError: where the sandbox has no walls here, and `unshielded` doesn't do without; the tests are no Python.
        ValueError: where the row has no tests.
    """
    return float(verdict(answer, row, Limits(seconds, memory_mb, unshielded=unshielded)).right)


def share(
    prompt: str,
    answer: str,
    row: dict[str, Any],
    *,
    seconds: float = 10.0,
    memory_mb: int = 1024,
    unshielded: bool = False,
) -> float:
    """The share of the tests that the answer's code passes; 0 where they don't end within the limits."""
    return verdict(answer, row, Limits(seconds, memory_mb, unshielded=unshielded)).share


# They wait for other processes: as many at once as there are cores.
correct.threads = share.threads = os.cpu_count() or 1  # type: ignore[attr-defined]


def verdict(answer: str, row: dict[str, Any], limits: Limits) -> Verdict:
    """What the tests of a row say of an answer."""
    given = row.get("tests") or row.get("test") or row.get("test_list") or ""
    tests = _listed(given)
    if not tests:
        raise ValueError("the row has no `tests`")
    entry, before = str(row.get("entry_point") or ""), str(row.get("setup") or "")
    code = code_of(answer, entry, before)
    if all(isinstance(test, dict) for test in tests):
        return _programs(code, tests, limits)
    return verify(code, [str(test) for test in tests], entry, before, limits)


def _listed(given: Any) -> list[Any]:
    if isinstance(given, str) and given.lstrip()[:1] == "[":
        try:
            given = json.loads(given)
        except ValueError:
            return [given]
    return list(given) if isinstance(given, list | tuple) else [given] if given else []


def _programs(code: str, tests: list[dict[str, Any]], limits: Limits) -> Verdict:
    """Programs that read and write: white space at the ends of lines and of the whole doesn't matter."""
    verdict = Verdict(whole=True)
    for test in tests:
        ran = run(code, str(test.get("input", "")), limits)
        if ran.state == "ended" and not ran.code and _lines(ran.output) == _lines(str(test.get("output", ""))):
            verdict.passed += 1
        else:
            verdict.failed += 1
            verdict.why = verdict.why or ran.error or f"it wrote {ran.output[:200]!r}"
    return verdict


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def code_of(answer: str, entry: str = "", before: str = "") -> str:
    """The code of an answer: its last fenced block, of several the last that defines `entry`; without any the answer
    itself, which may go on where `before` ends, in the middle of a function."""
    blocks = fenced(answer)
    if blocks:
        defining = [block for block in blocks if entry and f"def {entry}(" in block]
        return textwrap.dedent((defining or blocks)[-1])
    goes_on = before and (answer[:1] in " \t" or not _parses(answer)) and _parses(before + answer)
    return before + answer if goes_on else answer


def fenced(answer: str) -> list[str]:
    """The fenced blocks of an answer, of Python or of no named language; one that doesn't end goes to the end."""
    blocks, at = [], 0
    while opened := _FENCE.search(answer, at):
        deepest = len(opened[1]) + _DEEPER
        closed = next((end for end in _CLOSED.finditer(answer, opened.end()) if len(end[1]) <= deepest), None)
        language = opened[2].strip().lower()
        end = closed.start() if closed else len(answer)
        if language.partition(" ")[0] in ("", "python", "py", "python3"):
            blocks.append(answer[opened.end() : end])
        at = closed.end() if closed else len(answer)
    return blocks


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
