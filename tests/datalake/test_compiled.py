"""Compiled loops are kept by what they are made from: code, constants and callees, wherever these stand."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from datalake import compiled

HELPER = """
from typing import NamedTuple
import numpy as np
from datalake.compiled import kernel
FACTOR = 2
TABLE = np.arange(4)

class Pair(NamedTuple):
    first: int
    second: int

@kernel
def scaled(value):
    return FACTOR * value + TABLE[0]

@kernel(inline="always")
def inner(value):
    return value + 100
"""
CALLER = """
from datalake.compiled import kernel
from toy.helper import Pair, inner, scaled

@kernel
def total(values):
    result = 0
    for value in values:
        result += scaled(inner(value))
    return result

@kernel
def first(pair: Pair):
    return pair.first
"""
Load = Callable[[], ModuleType]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two files with kernels, one of which calls those of the other."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text(HELPER)
    (folder / "caller.py").write_text(CALLER)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


def loaded() -> ModuleType:
    """The caller as a new process would have it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return importlib.import_module("toy.caller")


def total(values: list[int]) -> tuple[int, bool]:
    """What `total` gives, and whether it was found compiled."""
    caller = loaded()
    result = int(caller.total(np.array(values)))
    statistics = caller.total.dispatcher.stats
    assert sum(statistics.cache_hits.values()) + sum(statistics.cache_misses.values()) == 1
    return result, bool(statistics.cache_hits)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ("return FACTOR * value", "return 3 * value", 309),
        ("FACTOR = 2", "FACTOR = 4", 412),
        ("np.arange(4)", "np.arange(4) + 1", 207),
        ("value + 100", "value + 200", 406),
    ],
)
def test_a_change_in_another_file_compiles_the_caller_anew(toy: Path, old: str, new: str, result: int) -> None:
    assert total([3]) == (206, False)
    assert total([3]) == (206, True)
    replace(toy / "helper.py", old, new)
    assert total([3]) == (result, False)
    replace(toy / "helper.py", new, old)
    assert total([3]) == (206, True)  # what was made before is still there


def test_times_places_and_lines_of_files_compile_nothing_anew(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert total([1, 2]) == (406, False)
    for path in toy.iterdir():
        os.utime(path, (1, 1))
    assert total([1, 2]) == (406, True)
    elsewhere = toy.parent / "clone"
    shutil.copytree(toy, elsewhere / "toy")
    replace(elsewhere / "toy" / "caller.py", "\n@kernel", "\n# A comment.\n\n@kernel")
    monkeypatch.syspath_prepend(str(elsewhere))
    assert total([1, 2]) == (406, True)
    assert loaded().__file__ == str(elsewhere / "toy" / "caller.py")


def test_names_of_a_tuple_that_change_places_are_another_type(toy: Path) -> None:
    caller = loaded()
    assert caller.first(caller.Pair(first=1, second=2)) == 1
    replace(toy / "helper.py", "first: int\n    second: int", "second: int\n    first: int")
    caller = loaded()
    assert caller.first(caller.Pair(first=1, second=2)) == 1


def test_a_damaged_file_is_compiled_anew(toy: Path) -> None:
    assert total([1]) == (202, False)
    for path in (toy.parent / "kept").iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    assert total([1]) == (202, False)
    assert total([1]) == (202, True)


def test_where_nothing_can_be_written_it_is_compiled_each_time(toy: Path) -> None:
    (toy.parent / "kept").write_text("a file where the folder should be")
    assert total([1]) == (202, False)
    assert total([1]) == (202, False)


def test_processes_at_once_keep_what_each_of_them_compiled(toy: Path) -> None:
    code = "import numpy, toy.caller; print(toy.caller.total(numpy.array([1], numpy.{})))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(kind)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(toy.parent), *sys.path])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in ("int64", "int32")
    ]
    assert [process.communicate()[0] for process in processes] == ["202\n", "202\n"]
    caller = loaded()
    for kind in (np.int64, np.int32):
        assert caller.total(np.array([1], kind)) == 202
    assert sum(caller.total.dispatcher.stats.cache_hits.values()) == 2


def test_what_another_process_is_compiling_is_waited_for(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert total([1]) == (202, False)
    kept = toy.parent / "kept"
    made = {path: path.read_bytes() for path in kept.iterdir()}
    for path in made:
        path.unlink()

    class Lock(compiled.FileLock):
        """That another process had, which has compiled in the meantime."""

        def acquire(self, *arguments: Any, **named: Any) -> Any:
            for path, content in made.items():
                path.write_bytes(content)
            return super().acquire(*arguments, **named)

    monkeypatch.setattr(compiled, "FileLock", Lock)
    assert total([1]) == (202, True)
    assert {path.name for path in kept.iterdir()} == {path.name for path in made}, "locks are gone"
    assert gc.isenabled()


def test_kernels_that_others_call_are_taken_from_disk_as_well(toy: Path) -> None:
    assert total([1]) == (202, False)
    replace(toy / "caller.py", "result = 0", "result = 1")
    caller = loaded()
    assert caller.total(np.array([1])) == 203
    assert sum(caller.scaled.inner.stats.cache_hits.values()) == 1


def test_what_has_no_content_is_refused(toy: Path) -> None:
    replace(toy / "helper.py", "FACTOR = 2", "FACTOR = object()")
    with pytest.raises(TypeError, match=r"toy\.helper\.scaled reads FACTOR, whose content can't be told \(object\)"):
        total([1])
