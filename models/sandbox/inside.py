"""The program that runs inside the sandbox: raises the walls around itself, then runs code, or tests against it.

It is started with no site-packages, no environment and three files open besides its own: the job (JSON), the status,
where it says what is shut off before it runs anything, and its end of the line where it has another to talk to. The
status is closed before anybody's code runs. Standard library alone.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import json
import os
import sys
import types
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import walls
from wire import GoneError, Wire, exported

sys.path.pop(0)
_DIGITS = 100_000  # of an integer that is written out


def main(job_file: int, status: int, reading: int, writing: int) -> None:
    """Does the job; -1 is a file that isn't there."""
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    room = walls.Room(*job["room"])
    shut = walls.raise_walls(room)
    os.chdir(room.folder)
    with open(status, "w", encoding="utf-8") as file:
        json.dump(shut, file)
    if not (job["unshielded"] or all(shut[what] for what in ("files", "network", "processes"))):
        os._exit(0)
    sys.path.extend(job["packages"])
    sys.set_int_max_str_digits(_DIGITS)
    if job["role"] == "run":
        _run(job["code"], job["show"])
        return
    wire = Wire(open(reading, "rb"), open(writing, "wb"), serves=job["role"] == "code")  # noqa: SIM115
    with contextlib.suppress(GoneError):
        if job["role"] == "code":
            _serve(wire, job["before"], job["code"])
        else:
            _judge(wire, job)
    sys.stdout.flush()
    os._exit(0)


def _run(code: str, show: bool) -> None:
    """Runs a program as `python FILE` does; with `show` what its last line gives is printed, as in a console."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    tree = ast.parse(code, "<program>")
    last = tree.body.pop() if show and tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<program>", "exec"), vars(module))
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<program>", "eval"), vars(module))
        if value is not None:
            print(repr(value))


def _serve(wire: Any, before: str, code: str) -> None:
    """Runs the code under test, and then whatever of it is called."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    with contextlib.suppress(Exception):  # what a prompt begins may be whole with its answer only
        exec(compile(before, "<before>", "exec"), vars(module))
    try:
        exec(compile(code, "<solution>", "exec"), vars(module))
    except Exception as error:
        wire.send(["failed", f"{type(error).__name__}: {error}"[:2000]])
        return
    names = wire.receive()
    wire.send(["defined", exported(vars(module), names, wire)])
    while True:
        wire.answer(wire.receive())


def _judge(wire: Any, job: dict[str, Any]) -> None:
    """Runs the tests, each `assert` of a source and each test function; results go to the verdict, line by line."""
    verdict = open(job["verdict"], "w", encoding="utf-8")  # noqa: PTH123, SIM115

    def tell(**said: Any) -> None:
        verdict.write(json.dumps(said) + "\n")
        verdict.flush()

    setup: dict[str, Any] = {"__name__": "tests"}
    with contextlib.suppress(Exception):
        exec(compile(job["before"], "<before>", "exec"), setup)
    trees = [ast.parse(source, "<tests>") for source in job["tests"]]
    entry = job["entry"]
    wanted = sorted({entry} - {""} | _free(trees) - set(setup))
    wire.send(wanted)
    try:
        match wire.receive():
            case ["failed", str(why)]:
                tell(passed=False, why=why)
                tell(ended=True)
                return
            case ["defined", dict(defined)]:
                pass
            case _:
                raise GoneError("the code wrote to the line that its results are sent on")
        for name, data in defined.items():
            if name in wanted:
                named = isinstance(data, list) and data[:1] == ["module"]
                setup[name] = _module(data[1]) if named else wire.decode(data)
        solution = sys.modules["solution"] = types.ModuleType("solution")
        vars(solution).update({name: setup[name] for name in defined if name in setup})
        for tree in trees:
            for passed, why in _results(tree, setup, setup.get(entry)):
                tell(passed=passed, why=why)
    except GoneError as error:
        tell(passed=False, why=str(error))
    tell(ended=True)


def _module(name: Any) -> Any:
    if not isinstance(name, str) or name.partition(".")[0] not in sys.stdlib_module_names:
        raise GoneError("the code wrote to the line that its results are sent on")
    return importlib.import_module(name)


def _free(trees: list[ast.Module]) -> set[str]:
    """The names that tests use and don't define; none of Python's own, which the code under test can't replace."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "solution":
            made |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "solution"]
    used |= {alias.name for node in imported for alias in node.names}
    return used - made - set(dir(builtins))


def _results(tree: ast.Module, given: dict[str, Any], candidate: Any) -> Any:
    """(whether it passed, why not) of each test of a source."""
    space = dict(given)
    for statement in tree.body:
        why = _tried(lambda statement=statement: exec(_compiled(statement), space))
        if isinstance(statement, ast.Assert) or why:
            yield not why, why
        if why and not isinstance(statement, ast.Assert):
            return
    own = [space[node.name] for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in space]
    for test in own:
        if test.__name__ == "check" and candidate is not None:
            why = _tried(lambda test=test: test(candidate))
        elif test.__name__.startswith("test") and not test.__code__.co_argcount:
            why = _tried(test)
        else:
            continue
        yield not why, why
    import unittest

    for node in tree.body:
        case = space.get(node.name) if isinstance(node, ast.ClassDef) else None
        if isinstance(case, type) and issubclass(case, unittest.TestCase):
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
                result = unittest.TestResult()
                test.run(result)
                wrong = [*result.errors, *result.failures]
                yield result.wasSuccessful(), wrong[0][1].strip().splitlines()[-1] if wrong else ""


def _compiled(statement: ast.stmt) -> Any:
    return compile(ast.Module([statement], []), "<tests>", "exec")


def _tried(test: Any) -> str:
    """Why a test failed; empty where it didn't."""
    try:
        test()
    except GoneError:
        raise
    except BaseException as error:  # a test may raise SystemExit too
        return f"{type(error).__name__}: {error}".strip()[:500]
    return ""


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
