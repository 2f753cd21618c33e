"""What package metadata says of a licence: npm, Cargo, Python, Composer, RubyGems, Maven and NuGet.

Metadata that says nothing (no such field, an inherited one) and metadata that says something unknown (`UNLICENSED`,
`Proprietary`) are two things: the first leaves the folders above to answer, the second is an answer.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import PurePosixPath
from typing import Any

from datalake.sources.licences.names import known_licence, may_mean, trove_licence, trove_names

_DOTS = 100  # in a line of TOML, whose parser takes long over deep keys (`a.a.a = 1`)
_LONGEST = 200  # characters kept of what metadata says
_SEE = re.compile(r"see licen[cs]e in\s+(\S.*)|file:\s*(\S.*)", re.IGNORECASE)
_GEM = re.compile(r"\.licenses?[ \t]*+=[ \t]*+([^\n]*)")
_QUOTED = re.compile(r"[\"']([^\"'\n]++)[\"']")
_WORDS = re.compile(r"%w[\[({<]([^\])}>\n]*+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A licence as metadata states it. `expression` is SPDX, None where it isn't known or stands in `file`."""

    expression: str | None
    words: str
    file: str = ""


def statement_of(path: str, content: bytes) -> Statement | None:
    """What a package file says of its licence; None where it says nothing, or can't be read."""
    read = _reader(path)
    if read is None:
        return None
    try:
        return read(content.decode("utf-8-sig", "replace"))
    except (ValueError, AttributeError, TypeError, RecursionError, MemoryError, SyntaxError, configparser.Error):
        return None


def is_package_file(path: str) -> bool:
    """Whether a file by its name is package metadata that is read here."""
    return _reader(path) is not None


def python_statement(metadata: Message) -> Statement | None:
    """What the core metadata of a Python distribution says: `License-Expression`, `License`, classifiers."""
    return _python(
        metadata.get("License-Expression"), metadata.get("License"), [*(metadata.get_all("Classifier") or [])]
    )


def _reader(path: str) -> Callable[[str], Statement | None] | None:
    name = PurePosixPath(path).name.lower()
    if name == "metadata" and ".dist-info/" not in path:
        return None
    return _NAMES.get(name) or _ENDINGS.get(PurePosixPath(name).suffix)


def _said(value: Any, any_of: bool = True) -> Statement | None:
    """A value as a statement: a name, an object that has one, or a list of those, of which one may be chosen."""
    names = [name for each in (value if isinstance(value, list) else [value]) if (name := _name(each))]
    if not names:
        return None
    known = [known_licence(name) for name in names]
    words = ", ".join(" ".join(name.split()) for name in names)[:_LONGEST]
    if None in known:
        see = _SEE.match(names[0]) if len(names) == 1 else None
        return Statement(None, words, (see[1] or see[2]).strip().strip("<>\"'") if see else "")
    if len(known) == 1:
        return Statement(known[0], words)
    each = sorted({f"({name})" if name and " " in name else str(name) for name in known})
    return Statement((" OR " if any_of else " AND ").join(each), words)


def _name(value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in ("type", "name", "text", "url") if value.get(key)), "an object")
    return "" if value is None else str(value).strip()


def _in_file(name: Any) -> Statement | None:
    return Statement(None, f"file {name}"[:_LONGEST], name) if isinstance(name, str) and name else None


def _npm(text: str) -> Statement | None:
    found = json.loads(text)
    return _said(found.get("license")) or _said(found.get("licence")) or _said(found.get("licenses"))


def _composer(text: str) -> Statement | None:
    return _said(json.loads(text).get("license"))


def _toml(text: str) -> dict[str, Any]:
    if any(line.count(".") > _DOTS for line in text.split("\n")):
        raise ValueError("keys too deep")
    return tomllib.loads(text)


def _cargo(text: str) -> Statement | None:
    found = _toml(text)
    for table in (found.get("package"), (found.get("workspace") or {}).get("package")):
        if not isinstance(table, dict):
            continue
        stated, file = table.get("license"), table.get("license-file")
        if not isinstance(stated, dict) and (said := _said(stated)):  # a table says `workspace = true`
            return said
        if not isinstance(file, dict) and (said := _in_file(file)):
            return said
    return None


def _pyproject(text: str) -> Statement | None:
    found = _toml(text)
    tool = found.get("tool") or {}
    for table in (found.get("project"), tool.get("poetry"), (tool.get("flit") or {}).get("metadata")):
        if not isinstance(table, dict):
            continue
        stated = table.get("license")
        if isinstance(stated, dict):
            if "file" in stated:
                return _python(None, None, table.get("classifiers") or []) or _in_file(stated["file"])
            stated = stated.get("text")
        if said := _python(None, stated, table.get("classifiers") or []):
            return said
    return None


def _setup_cfg(text: str) -> Statement | None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    if not parser.has_section("metadata"):
        return None
    table = dict(parser.items("metadata"))
    classifiers = (table.get("classifiers") or table.get("classifier") or "").split("\n")
    return _python(table.get("license_expression"), table.get("license"), classifiers)


def _setup_py(text: str) -> Statement | None:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or _called(node.func) != "setup":
            continue
        given = {each.arg: each.value for each in node.keywords if each.arg}
        stated, classifiers = given.get("license"), given.get("classifiers")
        words = stated.value if isinstance(stated, ast.Constant) and isinstance(stated.value, str) else None
        listed = classifiers.elts if isinstance(classifiers, ast.List | ast.Tuple) else []
        return _python(None, words, [str(each.value) for each in listed if isinstance(each, ast.Constant)])
    return None


def _called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _core(text: str) -> Statement | None:
    return python_statement(Parser().parsestr(text, headersonly=True))


def _python(expression: Any, stated: Any, classifiers: list[str]) -> Statement | None:
    names = trove_names([str(each).strip() for each in classifiers])
    for value in (expression, stated):
        if isinstance(value, str) and value.strip() and value.strip().lower() not in ("unknown", "none"):
            said = _said(value)
            told = trove_licence(names)
            if said and said.expression is None and not said.file and told and may_mean(said.words, told):
                return Statement(told, said.words)  # "BSD", and a classifier that says which
            return said
    return Statement(trove_licence(names), ", ".join(names)[:_LONGEST]) if names else None


def _gemspec(text: str) -> Statement | None:
    match = _GEM.search(text)
    if not match:
        return None
    names = _QUOTED.findall(match[1])
    if words := _WORDS.search(match[1]):
        names = words[1].split()
    return _said(names or match[1].strip(), any_of=False) if names or match[1].strip("[] \t") else None


def _pom(text: str) -> Statement | None:
    block = _element(text, "licenses")
    if not block:
        return None
    parts = block.split("<license>")[1:]
    return _said([_element(part, "name") or _element(part, "url") or "a licence without a name" for part in parts])


def _nuget(text: str) -> Statement | None:
    for tag in ("PackageLicenseExpression", "PackageLicenseUrl", "licenseUrl"):
        if value := _element(text, tag):
            return _said(value.removeprefix("https://licenses.nuget.org/"))
    if file := _element(text, "PackageLicenseFile"):
        return _in_file(file)
    value = _element(text, "license")  # of a .nuspec
    return (_in_file(value) if 'type="file"' in text else _said(value)) if value else None


def _element(text: str, tag: str) -> str:
    """What stands in the first element of a name, without comments; "" where there is none, or one inside is."""
    start = text.find(f"<{tag}>")
    start = text.find(f"<{tag} ") if start < 0 else start
    start = text.find(">", start) + 1 if start >= 0 else 0
    end = text.find(f"</{tag}>", start)
    return text[start:end].strip() if start and end >= 0 else ""


_NAMES: dict[str, Callable[[str], Statement | None]] = {
    "package.json": _npm, "bower.json": _npm, "composer.json": _composer, "cargo.toml": _cargo,
    "pyproject.toml": _pyproject, "setup.cfg": _setup_cfg, "setup.py": _setup_py, "pkg-info": _core,
    "metadata": _core, "pom.xml": _pom,
}  # fmt: skip
_ENDINGS: dict[str, Callable[[str], Statement | None]] = {
    ".gemspec": _gemspec, ".csproj": _nuget, ".fsproj": _nuget, ".vbproj": _nuget, ".nuspec": _nuget, ".pom": _pom,
}  # fmt: skip
