"""Values and calls between the process that has the tests and the one that has the code under test.

What passes is JSON: plain values of exact built-in types, and handles of what has to stay where it is. So neither
side runs anything of the other's: an object of the code under test never compares itself with what a test expects.
Standard library alone.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import sys
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, BinaryIO

_LONGEST = 1 << 26  # bytes of a message
_PLAIN = (type(None), bool, int, float, str)
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"l": list, "t": tuple, "s": set, "f": frozenset, "q": deque}


class GoneError(Exception):
    """The other side has ended, or sends what is no message."""


class Wire:
    """One end of the line. `serves`: whether the other side may ask for more of what it has a handle of than calls."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO, serves: bool) -> None:
        self.reading, self.writing, self.serves = reading, writing, serves
        self.kept: list[Any] = []  # what the other side has handles of

    def send(self, message: Any) -> None:
        """One message."""
        try:
            self.writing.write(json.dumps(message).encode() + b"\n")
            self.writing.flush()
        except OSError as error:
            raise GoneError("the code has ended") from error

    def receive(self) -> Any:
        """The next message. Raises GoneError at the end."""
        line = self.reading.readline(_LONGEST)
        if not line.endswith(b"\n"):
            raise GoneError("the code has ended by itself")
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GoneError("the code wrote to the line that its results are sent on") from error

    def encode(self, value: Any) -> Any:
        """A value as JSON; what has no plain form as a handle."""
        if type(value) in _PLAIN:
            return value
        for kind in (bool, int, float, str):
            if isinstance(value, kind):  # an enumeration's member, say
                return kind.__str__(value) if kind is str else kind(value)
        for name, make in _SEQUENCES.items():
            if isinstance(value, make):  # type: ignore[arg-type]
                return [name, [self.encode(item) for item in value]]
        match value:
            case dict():
                return ["d", [[self.encode(key), self.encode(item)] for key, item in value.items()]]
            case bytes() | bytearray():
                return ["b", value.hex()]
            case complex():
                return ["c", [value.real, value.imag]]
            case range():
                return ["r", [value.start, value.stop, value.step]]
            case Decimal():
                return ["D", str(value)]
            case Fraction():
                return ["F", str(value)]
            case type() if getattr(builtins, getattr(value, "__name__", ""), None) is value:
                return ["T", getattr(value, "__name__", "")]
            case Proxy() if object.__getattribute__(value, "_wire") is self:
                return ["back", object.__getattribute__(value, "_handle")]
        if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
            return self.encode(value.tolist())
        self.kept.append(value)
        return ["o", len(self.kept) - 1]

    def decode(self, data: Any) -> Any:
        """What was encoded. Raises GoneError for what wasn't."""
        if type(data) in _PLAIN:
            return data
        try:
            name, held = data
            if name in _SEQUENCES:
                return _SEQUENCES[name]([self.decode(item) for item in held])
            match name:
                case "d":
                    return {self.decode(key): self.decode(item) for key, item in held}
                case "b":
                    return bytes.fromhex(held)
                case "c":
                    return complex(*held)
                case "r":
                    return range(*held)
                case "D":
                    return Decimal(held)
                case "F":
                    return Fraction(held)
                case "T" if isinstance(getattr(builtins, held), type):
                    return getattr(builtins, held)
                case "o":
                    return Proxy(self, int(held))
                case "back":
                    return self.kept[held]
        except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            raise GoneError("the code wrote to the line that its results are sent on") from error
        raise GoneError("the code wrote to the line that its results are sent on")

    def ask(self, what: str, handle: Any, *arguments: Any, **named: Any) -> Any:
        """What the other side gives for a call, or whatever else is asked of one of its objects. Raises what it raised,
        where that is an error of Python's own."""
        sent = [self.encode(argument) for argument in arguments]
        self.send([what, handle, sent, {name: self.encode(item) for name, item in named.items()}])
        while True:
            message = self.receive()
            match message:
                case ["gives", value, changed]:
                    for place, now in changed:
                        _replace(arguments[place], self.decode(now))
                    return self.decode(value)
                case ["raises", str(name), str(text)]:
                    raise _error(name, text)
                case [str(), _, list(), dict()]:
                    self.answer(message)
                case _:
                    raise GoneError("the code wrote to the line that its results are sent on")

    def answer(self, message: Any) -> None:
        """Does what the other side asks for."""
        what, handle, sent, named = message
        try:
            arguments = [self.decode(argument) for argument in sent]
            before = [json.dumps(argument) for argument in sent]
            value = self._do(what, handle, arguments, {name: self.decode(item) for name, item in named.items()})
            reply = ["gives", self.encode(value)]
            now = [self.encode(argument) if type(argument) in (list, dict, set) else None for argument in arguments]
            pairs = enumerate(zip(now, before, strict=True))
            reply.append(
                [[place, item] for place, (item, was) in pairs if item is not None and json.dumps(item) != was]
            )
        except GoneError:
            raise
        except Exception as error:
            reply = ["raises", type(error).__name__, str(error)[:2000]]
        self.send(reply)

    def _do(self, what: str, handle: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        thing = self.kept[handle]
        if what == "call":
            return thing(*arguments, **named)
        if not self.serves:
            raise TypeError("what a test hands over can be called, and nothing else")
        match what:
            case "get":
                return getattr(thing, arguments[0])
            case "set":
                return setattr(thing, *arguments)
            case "item":
                return thing[arguments[0]]
            case "iter":
                return _Steps(thing)
            case "next":
                return thing.step()
            case "len":
                return len(thing)
            case "str":
                return str(thing)
        raise TypeError(f"nothing answers {what}")


class _Steps:
    """An iterator whose end is a value."""

    def __init__(self, thing: Any) -> None:
        self.steps = iter(thing)

    def step(self) -> list[Any]:
        """[the next item], or [] at the end."""
        return [item for _, item in zip(range(1), self.steps, strict=False)]


def _error(name: str, text: str) -> Exception:
    """An error of the other side, as Python's own of that name where there is one."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # UnicodeDecodeError and its like take more
            return kind(text)
    return RuntimeError(f"{name}: {text}")


def _replace(value: Any, now: Any) -> None:
    """Makes a list, dict or set what the other side made of its copy."""
    if type(value) is list and type(now) is list:
        value[:] = now
    elif type(value) in (dict, set) and type(now) is type(value):
        value.clear()
        value.update(now)


class Proxy:
    """An object of the other side. It compares by identity alone, whatever its own class says."""

    def __init__(self, wire: Wire, handle: int) -> None:
        object.__setattr__(self, "_wire", wire)
        object.__setattr__(self, "_handle", handle)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What it gives when it is called there."""
        return _ask(self, "call", *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "item", key)

    def __iter__(self) -> Any:
        steps = _ask(self, "iter")
        while item := _ask(steps, "next"):
            yield item[0]

    def __next__(self) -> Any:
        for item in self:
            return item
        raise StopIteration

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return str(_ask(self, "str"))

    __contains__ = None


def _ask(proxy: Proxy, what: str, *arguments: Any, **named: Any) -> Any:
    wire, handle = object.__getattribute__(proxy, "_wire"), object.__getattribute__(proxy, "_handle")
    return wire.ask(what, handle, *arguments, **named)


def exported(defined: dict[str, Any], names: Sequence[str], wire: Wire) -> dict[str, Any]:
    """Of these names what a module defines, as JSON; modules of the standard library by their names."""
    module = type(sys)
    found = {}
    for name in names:
        if name not in defined:
            continue
        value = defined[name]
        if isinstance(value, module):
            if value.__name__.partition(".")[0] in sys.stdlib_module_names:
                found[name] = ["module", value.__name__]
        else:
            found[name] = wire.encode(value)
    return found
