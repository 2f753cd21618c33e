"""Compiled loops: `@kernel` compiles a plain function over arrays (numba) at its first call, and keeps what came of it.

Machine code is kept on disk under a digest of all that it is made from: the function's bytecode, the constants and
tables it reads, and the same of every kernel it calls, in whatever file they stand; the types of its arguments; numba's
version and the processor. So kernels and constants may be shared between files, code made from equal sources is found
by every clone, wheel and process, whatever the times and places of files, and no other code ever is. numba's own cache
looks at the file of the function alone and at an index that processes overwrite for each other.

It lies in NUMBA_CACHE_DIR, else in the user's cache folder, else beside this file; where none can be written to, each
process compiles for itself. All of it may be removed at any time. Where several processes need a kernel that isn't
there, one compiles it while the others wait.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import gc
import hashlib
import os
import pickle
import sys
import types
import uuid
import warnings
from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

_LIBRARIES = {"builtins", "math", "numpy", "numba"}  # what kernels read of these goes by its name
_DIGEST_BYTES = 32
_PATIENCE_S = 300.0  # then a process compiles for itself what another seems to be at


def kernel(function: Callable[..., Any] | None = None, /, *, inline: str = "never", nogil: bool = True) -> Any:
    """Make a function a kernel: `@kernel`, or `@kernel(inline="always")` for one whose body goes into its callers.

    Where `nogil`, other threads of Python run on while it does. What it reads besides its arguments (numbers, texts,
    tuples, arrays, kernels) is constant from its first call on.
    """
    if function is None:
        return lambda it: Kernel(it, {"inline": inline, "nogil": nogil})
    return Kernel(function, {"inline": inline, "nogil": nogil})


class Kernel:
    """A function that is compiled when it is called; numba is imported no sooner."""

    def __init__(self, function: types.FunctionType | Callable[..., Any], options: dict[str, Any]):
        assert isinstance(function, types.FunctionType)
        self.function, self._options = function, options
        self.__doc__, self.__name__ = function.__doc__, function.__name__

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives, compiled."""
        return self.dispatcher(*arguments)

    def __repr__(self) -> str:
        return f"kernel {self.function.__module__}.{self.function.__qualname__}"

    @cached_property
    def content(self) -> str:
        """The digest of what the kernel says. Raises TypeError where it reads something that has no content."""
        function = self.function
        read = {name: self._identity(name, value) for name, value in self._reads()}
        said = [_code(function.__code__), read, function.__annotations__, self._options]
        said.append([self._identity("a default", value) for value in function.__defaults__ or ()])
        return hashlib.sha256(repr(said).encode()).hexdigest()

    @cached_property
    def dispatcher(self) -> Any:
        """numba's dispatcher of this kernel, for Python."""
        dispatcher = self._dispatcher({})
        compiled = dispatcher.compile

        def compile_once(signature: Any) -> Any:
            try:
                return compiled(signature)
            finally:
                dispatcher._cache.end()

        dispatcher.compile = compile_once
        return dispatcher

    @cached_property
    def inner(self) -> Any:
        """That for other kernels: what Python would need to call it takes as long to compile as the function itself."""
        return self._dispatcher({"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _parts()[0]})

    def _dispatcher(self, more: dict[str, Any]) -> Any:
        import numba

        function = self.function
        known = {name: value.inner for name, value in self._reads() if isinstance(value, Kernel)}
        cells = tuple(
            types.CellType(known.get(name, cell.cell_contents))
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        )
        spelled = types.FunctionType(
            function.__code__, {**function.__globals__, **known}, function.__name__, function.__defaults__, cells
        )
        spelled.__qualname__, spelled.__module__ = function.__qualname__, function.__module__
        dispatcher = numba.njit(**self._options, **more)(spelled)
        dispatcher._cache = _Kept(self, bool(more))
        return dispatcher

    def _reads(self) -> Iterator[tuple[str, Any]]:
        """Names and values that the function reads besides its arguments."""
        function = self.function
        for name in sorted(_globals_read(function.__code__)):
            yield name, function.__globals__[name] if name in function.__globals__ else getattr(builtins, name)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield name, cell.cell_contents

    def _identity(self, name: str, value: Any) -> Any:
        if isinstance(value, Kernel):
            return value.content
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
        if isinstance(value, tuple):
            return getattr(value, "_fields", ""), [self._identity(name, item) for item in value]
        if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
            return value.__qualname__, value._fields
        module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", "numpy") or ""
        if module.partition(".")[0] in _LIBRARIES and hasattr(value, "__name__"):
            return module, value.__name__
        raise TypeError(f"{self!r} reads {name}, whose content can't be told ({type(value).__name__})")


def _globals_read(code: types.CodeType) -> set[str]:
    inner = (_globals_read(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    here = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return here.union(*inner)


def _code(code: types.CodeType) -> Any:
    """What a function's code does; the lines it stands on are left out."""
    constants = [_code(value) if isinstance(value, types.CodeType) else _constant(value) for value in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _constant(value: Any) -> Any:
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


@cache
def _parts() -> tuple[Any, Any]:
    """numba's compiler for kernels that kernels call, and what it makes: code to link with.

    It is optimised and made machine code of with the kernels that call it, not once for itself and again with each.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler

    class Part(JITCodeLibrary):
        """Without machine code there is nowhere to write a function's environment to, either: its callers do that."""

        @property
        def codegen(self) -> Any:
            return self

        def set_env(self, name: str, environment: Any) -> None:
            pass

        def get_pointer_to_function(self, name: str) -> int:
            self._ensure_finalized()
            return 0

        def serialize_using_object_code(self) -> Any:
            return self.serialize_using_bitcode()

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._finalized = True

    class Parts(Compiler):
        def __init__(self, typing: Any, target: Any, library: Any, *rest: Any):
            super().__init__(typing, target, library or Part(target.codegen(), "part"), *rest)

    return Parts, Part


class _Made(NamedTuple):
    """What numba asks for a library that it takes from disk; here it is one that is made already."""

    library: Any

    def unserialize_library(self, code: Any) -> Any:
        return self.library


class _Kept:
    """A kernel's machine code on disk, with the methods that numba's dispatcher asks of a cache.

    A file for each kernel and types of arguments, written whole: a digest of the rest, then numba's pickled result.
    """

    def __init__(self, of: Kernel, part: bool):
        self._kernel, self._part = of, part
        self._lock: FileLock | None = None
        self._collects = False

    @property
    def cache_path(self) -> str:
        """Where results are kept, for numba's statistics."""
        return next(map(str, _places()), "")

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The result of compiling for arguments of these types, None where none is kept whole."""
        context.refresh()
        name = self._name(signature, context.codegen())
        found = self._load(name, context)
        if found is None and not self._part:
            self._begin(name)
            found = self._load(name, context)  # where another process was at it
        return found

    def _load(self, name: str, context: Any) -> Any:
        from llvmlite.binding import parse_bitcode
        from numba.core.compiler import CompileResult

        for place in _places():
            try:
                data = (place / name).read_bytes()
            except OSError:
                continue
            digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if hashlib.sha256(body).digest() != digest:
                continue
            code, *rest = pickle.loads(body)
            if not self._part:
                return CompileResult._rebuild(context, code, *rest)
            library = _parts()[1](context.codegen(), code[0])
            library._final_module = parse_bitcode(code[2])
            library._finalize_final_module()
            asked = {"typing_context": context.typing_context, "get_executable": context.get_executable}
            stand_in = types.SimpleNamespace(codegen=partial(_Made, library), **asked)
            return CompileResult._rebuild(stand_in, code, *rest)._replace(target_context=context)
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a result."""
        from numba.core.serialize import dumps

        if not self._part:  # what it calls has machine code only now
            for environment in result._find_referenced_environments():
                result.codegen.set_env(environment.env_name, environment)
        if result.lifted or result.library.has_dynamic_globals:
            warnings.warn(
                f"{self._kernel!r} is compiled in every process: pass large arrays as arguments", stacklevel=2
            )
            return  # its code holds addresses
        body = dumps(result._reduce())
        name = self._name(signature, result.codegen)
        for place in _places():
            temporary = place / f".{name}.{uuid.uuid4().hex}.tmp"
            try:
                place.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(hashlib.sha256(body).digest() + body)
                temporary.replace(place / name)
                return
            except OSError:
                continue

    def _begin(self, name: str) -> None:
        """Wait until no other process compiles this; no search for circles in memory while this one does."""
        self._collects = gc.isenabled()
        gc.disable()
        for place in _places():
            with contextlib.suppress(OSError, NotImplementedError):
                place.mkdir(parents=True, exist_ok=True)
                self._lock = FileLock(place / f".{name}.lock", timeout=_PATIENCE_S)
                with contextlib.suppress(Timeout):
                    self._lock.acquire()
                return

    def end(self) -> None:
        """Nothing is being compiled any more."""
        if self._lock is not None:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
        if self._collects:
            gc.enable()
            self._collects = False

    def flush(self) -> None:
        """Nothing is ever stale."""

    def _name(self, signature: Any, codegen: Any) -> str:
        import numba
        from numba.core.sigutils import normalize_signature

        arguments = [_told(argument) for argument in normalize_signature(signature)[0]]
        here = (codegen.magic_tuple(), numba.__version__, sys.version_info[:2])
        digest = hashlib.sha256(repr((self._kernel.content, self._part, arguments, here)).encode()).hexdigest()
        return f"{self._kernel.function.__module__}.{self._kernel.function.__qualname__}-{digest}.kernel"


def _told(kind: Any) -> Any:
    """A type of numba's, as text; of tuples with names their names, too, which numba's own text leaves out."""
    from numba.core import types as numba_types

    if isinstance(kind, numba_types.BaseTuple):
        of = getattr(kind, "instance_class", None)
        fields = (of.__module__, of.__qualname__, getattr(kind, "fields", ())) if of else ()
        return type(kind).__name__, fields, [_told(item) for item in getattr(kind, "types", ())]
    return str(kind)


def _places() -> list[Path]:
    """Folders in which kernels may lie, in the order of preference."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen)]
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - where there is no home
    return [Path(caches) / "headwater" / "kernels", Path(__file__).parent / "__pycache__" / "kernels"]
