"""As much of Go's text/template as the templates of a Modelfile use: ranges, conditions, variables, texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_TOKEN = re.compile(r"(\{\{-?\s*.*?\s*-?\}\})", re.S)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[()]|[^\s()]+')


def render(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What Go writes for `.Messages`. Raises ValueError for what isn't known here."""
    parts = []
    pieces = _TOKEN.split(template)
    for place, piece in enumerate(pieces):
        if not piece.startswith("{{"):
            before = pieces[place - 1] if place else ""
            after = pieces[place + 1] if place + 1 < len(pieces) else ""
            piece = piece.lstrip() if before.endswith("-}}") else piece
            parts.append((None, piece.rstrip() if after.startswith("{{-") else piece))
        else:
            parts.append((_WORD.findall(piece.strip("{}").strip("-").strip()), ""))
    nodes, rest = _parse(parts)
    if rest:
        raise ValueError("an end too many")
    out: list[str] = []
    _run(nodes, {"Messages": messages}, {}, out)
    return "".join(out)


def _parse(parts: list[Any]) -> tuple[list[Any], list[Any]]:
    """Nodes up to an `end` or `else` at this depth, and what follows from there on."""
    nodes: list[Any] = []
    while parts:
        words, text = parts[0]
        if words is None or words[0] not in ("range", "if", "else", "end"):
            nodes.append(("text", text) if words is None else ("do", words))
            parts = parts[1:]
        elif words[0] in ("else", "end"):
            return nodes, parts
        else:
            node, parts = _block(words, parts[1:])
            nodes.append(node)
    return nodes, []


def _block(words: list[str], parts: list[Any]) -> tuple[Any, list[Any]]:
    body, rest = _parse(parts)
    (closing, _), rest = rest[0], rest[1:]
    other: list[Any] = []
    if closing[:2] == ["else", "if"]:
        nested, rest = _block(closing[1:], rest)
        return (words[0], words[1:], body, [nested]), rest
    if closing == ["else"]:
        other, rest = _parse(rest)
        rest = rest[1:]
    return (words[0], words[1:], body, other), rest


def _run(nodes: list[Any], dot: Mapping[str, Any], names: dict[str, Any], out: list[str]) -> None:
    for kind, *more in nodes:
        if kind == "text":
            out.append(more[0])
        elif kind == "do":
            words = more[0]
            if len(words) > 1 and words[1] in (":=", "="):
                names[words[0]] = _value(words[2:], dot, names)
            else:
                out.append(str(_value(words, dot, names)))
        elif kind == "range":
            for item in _value(more[0], dot, names):
                _run(more[1], item, names, out)
        else:
            _run(more[1] if _value(more[0], dot, names) else more[2], dot, names, out)


def _value(words: list[str], dot: Mapping[str, Any], names: dict[str, Any]) -> Any:
    terms, rest = [], words
    while rest:
        if rest[0] == "(":
            depth, end = 1, 1
            while depth:
                depth += {"(": 1, ")": -1}.get(rest[end], 0)
                end += 1
            terms.append(_value(rest[1 : end - 1], dot, names))
            rest = rest[end:]
            continue
        word, rest = rest[0], rest[1:]
        if word.startswith('"'):
            terms.append(json.loads(word))
        elif word.startswith("."):
            terms.append({name.lower(): value for name, value in dot.items()}[word[1:].lower()])
        elif word.startswith("$"):
            terms.append(names[word])
        else:
            terms.append({"eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "and": lambda a, b: a and b}[word])
    return terms[0](*terms[1:]) if callable(terms[0]) else terms[0]
