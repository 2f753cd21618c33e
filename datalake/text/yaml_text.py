"""YAML as people mean it, read into plain data: mappings, lists, text, numbers, true, false and null.

By YAML 1.2's core schema, so that `3e-3` is a number and `no` a text; a key given twice, an alias of itself, aliases
that expand without end, tags, a second document are errors that name their line. Nothing in it can run code.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator
from typing import Any

import yaml

__all__ = ["YamlError", "read_yaml"]

MAX_VALUES = 200_000  # with what aliases stand for
MAX_DEPTH = 100

_CORE = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL)?")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|nan|NaN|NAN)")
_KINDS = {"str", "int", "float", "bool", "null", "map", "seq"}


class YamlError(ValueError):
    """What is wrong with a text and in which line; the message is one line."""


def read_yaml(text: str | bytes, verbatim: Collection[str] = ()) -> Any:
    """The one document in `text` as plain data, None where there is none. Bytes must be UTF-8; a mark is skipped.

    Args:
        text: the document.
        verbatim: top-level keys below which scalars that aren't null stay text as written.

    Raises:
        YamlError: in one line.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise YamlError(f"line {line}: it isn't UTF-8: save it in that encoding") from None
    text = text.removeprefix("\ufeff")
    if (found := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise YamlError(f"line {line}: a character that no text has (U+{ord(found[0]):04X}): take it out")
    try:
        return _Reader(yaml.parse(text, _LOADER), verbatim).document()
    except yaml.MarkedYAMLError as error:
        raise YamlError(_told(error, text)) from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _told(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    problem = " ".join(str(error.problem or error.context).split())
    if mark is None:
        return problem
    if "cannot start any token" in problem:
        found = text.splitlines()[mark.line][mark.column : mark.column + 1]
        if found == "\t":
            problem = "a tab where only spaces may stand: use spaces"
        else:
            problem = f"a value can't begin with {found}: put it in quotes"
    return f"line {mark.line + 1}: {problem}"


class _Reader:
    """One pass over the events of a text."""

    def __init__(self, events: Iterator[Any], verbatim: Collection[str]):
        self._events = events
        self._verbatim = verbatim
        self._anchors: dict[str, tuple[Any, int] | None] = {}  # None: not yet complete
        self._values = 0

    def document(self) -> Any:
        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _error(event, "a second document begins: one file is one")
                value = self._value(next(self._events), 0, False)
        return value

    def _value(self, event: Any, depth: int, verbatim: bool) -> Any:
        if depth > MAX_DEPTH:
            raise _error(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        begun = self._values
        self._count(event, 1)
        if event.anchor:
            self._anchors[event.anchor] = None
        kind = self._kind(event)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, kind, verbatim)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                value.append(self._value(item, depth + 1, verbatim))
        else:
            value = self._mapping(depth, verbatim)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._values - begun)
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise _error(event, f"*{event.anchor} stands for nothing: there is no &{event.anchor} before it")
        known = self._anchors[event.anchor]
        if known is None:
            raise _error(event, f"*{event.anchor} stands within what it stands for")
        self._count(event, known[1])
        return copy.deepcopy(known[0])  # a value of its own, so that changing one changes no other

    def _count(self, event: Any, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES:,} values, with what its aliases stand for")

    def _mapping(self, depth: int, verbatim: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[Any] = []
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if isinstance(key, yaml.AliasEvent):
                name = self._alias(key)
                if not isinstance(name, str):
                    raise _error(key, "a key must be a name")
            elif isinstance(key, yaml.ScalarEvent):
                self._kind(key)
                name = key.value
                if key.anchor:
                    self._anchors[key.anchor] = (name, 1)
            else:
                raise _error(key, "a key must be a name, not a list or a mapping")
            if name in lines:
                raise _error(key, f"{name!r} is given twice, first in line {lines[name]}: leave one of them out")
            lines[name] = key.start_mark.line + 1
            value = self._value(next(self._events), depth + 1, verbatim or (depth == 0 and name in self._verbatim))
            if name == "<<" and isinstance(key, yaml.ScalarEvent) and key.implicit[0]:
                merged.extend(value if isinstance(value, list) else [value])
                if not all(isinstance(one, dict) for one in merged):
                    raise _error(key, "<< takes a mapping, or a list of them")
            else:
                found[name] = value
        for one in merged:
            found = {**one, **found}
        return found

    def _kind(self, event: Any) -> str | None:
        """What an explicit tag says a value is; None without one."""
        tag = event.tag
        if not tag or (tag == "!" and isinstance(event, yaml.ScalarEvent)):
            return "str" if tag else None
        kind = tag.removeprefix(_CORE)
        collection = {yaml.SequenceStartEvent: {"seq"}, yaml.MappingStartEvent: {"map"}}
        if kind == tag or kind not in collection.get(type(event), _KINDS - {"seq", "map"}):
            shown = f"!!{kind}" if kind != tag else tag
            raise _error(event, f"the tag {shown} has no meaning here: write the plain value")
        return kind


def _scalar(event: Any, kind: str | None, verbatim: bool) -> Any:
    text = event.value
    if kind == "str" or (kind is None and not event.implicit[0]):
        return text
    try:
        value = _resolved(text)
    except ValueError:  # Python's limit on digits
        raise _error(event, f"a number of {len(text):,} digits") from None
    if kind is None:
        return text if verbatim and value is not None else value
    wanted = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}[kind]
    if not isinstance(value, wanted) or (kind in ("int", "float") and isinstance(value, bool)):  # type: ignore[arg-type]
        raise _error(event, f"{text!r} is no !!{kind}")
    return float(value) if kind == "float" else value


def _resolved(text: str) -> Any:
    """A plain scalar's value."""
    if len(text) > 5_000:
        if _INT.fullmatch(text):
            raise ValueError("digits")
        return text
    if _NULL.fullmatch(text):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if (match := _NOT_FINITE.fullmatch(text)) is not None:
        return float(match[1] + ("inf" if match[2] else "nan"))
    return text


def _error(event: Any, problem: str) -> YamlError:
    return YamlError(f"line {event.start_mark.line + 1}: {problem}")
