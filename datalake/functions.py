"""A user's own functions, as a recipe names them: `FILE.py:function`, or `package.module:function` where installed.

A file's text is part of the config: it is what the functions are known by, wherever the file lies, and what workers run
that can't see the file. So a file must be whole by itself: it may import installed packages, not its neighbours. A
function of a package is known by the digest of its module's file and the package's version, and every worker has to
have the package.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import os
import sys
import types
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from datalake.errors import UserError, first_line
from datalake.files import file_digest

_LARGEST_FILE = 1 << 20  # bytes: its text is part of every record of what was run


class Function(BaseModel):
    """A function as it was when the recipe was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(title="Function")
    module: str = Field(default="", title="Module", description="Where it is installed; empty: it is of a file")
    content: str = Field(title="Content", description="The file's text; of a module its digest and package version")


def absolute(entry: str) -> str:
    """An entry whose file is found from any folder."""
    place, colon, name = entry.rpartition(":")
    return f"{os.path.abspath(os.path.expanduser(place))}{colon}{name}" if _is_file(place) else entry  # noqa: PTH100, PTH111


def beside(entry: str, folder: Path) -> str:
    """An entry whose file, named by a relative path, lies in this folder; any other text as it is."""
    place, _, name = entry.rpartition(":")
    here = place.endswith(".py") and name.isidentifier() and not Path(place).is_absolute() and (folder / place)
    return f"{here}:{name}" if here and here.is_file() else entry


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def read(entry: str, section: str) -> Function:
    """The function that an entry of a recipe's section names; nothing of it is run.

    Raises:
        UserError: in one line, where there is no such file, module or function.
    """
    place, colon, name = entry.rpartition(":")
    said = f"{section}: {entry!r}"
    if not colon or not place:
        raise UserError(f"{said} is no FILE:function nor package.module:function: write it as one of these")
    if not name.isidentifier():
        raise UserError(f"{said}: {name!r} is no name of a function: correct it")
    return _of_file(said, place, name) if _is_file(place) else _of_module(said, place, name)


def _of_file(said: str, place: str, name: str) -> Function:
    path = Path(place)
    if not path.is_file():
        raise UserError(f"{said}: there is no file {place!r}: correct the path")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{said}: {place!r} can't be read ({first_line(error)}): correct it") from None
    if len(data) > _LARGEST_FILE:
        raise UserError(f"{said}: {place!r} is larger than {_LARGEST_FILE >> 20} MB: give functions their own file")
    _must_define(said, text, name)
    return Function(name=name, content=text.replace("\r\n", "\n"))


def _of_module(said: str, module: str, name: str) -> Function:
    version, text = _installed(said, module)
    if text is not None:
        _must_define(said, text, name)
    return Function(name=name, module=module, content=version)


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
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
    if name not in defined and "*" not in defined:
        raise UserError(f"{said}: there is no function {name!r} in it: correct the name")


@lru_cache(maxsize=256)
def load(function: Function, section: str) -> Callable[..., Any]:
    """A function that a section names, ready to be called.

    Raises:
        UserError: where it can't be imported here, or is another than when the recipe was read.
    """
    said = f"{section}: {function.name}"
    try:
        if function.module:
            if _installed(said, function.module)[0] != function.content:
                raise UserError(f"{said}: {function.module} is another here than where the recipe was read")
            found = getattr(importlib.import_module(function.module), function.name)
        else:
            found = vars(_run(function.content, section))[function.name]
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{said} can't be loaded ({reason}): a file may import installed packages alone") from None
    if not callable(found):
        raise UserError(f"{said} is no function: name one")
    called: Callable[..., Any] = found
    return called


@lru_cache(maxsize=64)
def _run(text: str, section: str) -> types.ModuleType:
    """A file as a module; one that can be looked up by its name, as dataclasses and pickle do."""
    name = f"recipe_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    module = types.ModuleType(name)
    module.__file__ = f"<{section}>"
    linecache.cache[module.__file__] = (len(text), None, text.splitlines(keepends=True), module.__file__)
    sys.modules[name] = module
    try:
        exec(compile(text, module.__file__, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module
