"""Jupyter notebooks as source files: cells in order, each behind a `# %%` line, prose as comments, outputs left out.

That is the percent format, which editors and Jupytext read. The cells' sources stay as they are, magics too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

ENDING = ".ipynb"
_COMMENTS = {
    "python": "#", "r": "#", "julia": "#", "ruby": "#", "bash": "#", "shell": "#", "sage": "#", "perl": "#",
    "octave": "%", "matlab": "%", "sql": "--", "haskell": "--", "lua": "--", "clojure": ";", "scheme": ";",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook's text, the language of its kernel, and how many cells and outputs (left out) it has."""

    text: str
    language: str
    cells: int
    outputs: int


def read_notebook(text: str) -> Notebook:
    """A notebook out of its JSON, of format 3 or 4. Raises ValueError where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}"[:150]) from error
    cells = _cells(value)
    if cells is None:
        raise ValueError("no notebook: it has no cells")
    language = _language(value, cells)
    comment = _COMMENTS.get(language, "#" if not language else "//")
    parts: list[str] = []
    outputs = 0
    for cell in cells:
        if not isinstance(cell, dict):
            raise ValueError("a cell is no object")
        kind = str(cell.get("cell_type") or "code")
        source = _source(cell.get("source", cell.get("input", "")))
        outputs += len(cell["outputs"]) if isinstance(cell.get("outputs"), list) else 0
        if not source.strip():
            continue
        lines = source.rstrip().replace("\r\n", "\n").split("\n")
        if kind == "heading":
            lines[0] = f"{'#' * _level(cell)} {lines[0]}"
        if kind == "code":
            parts.append("\n".join([f"{comment} %%", *lines]))
        else:
            name = "raw" if kind == "raw" else "markdown"
            parts.append("\n".join([f"{comment} %% [{name}]", *(f"{comment} {line}".rstrip() for line in lines)]))
    return Notebook("\n\n".join(parts) + "\n" if parts else "", language, len(cells), outputs)


def _cells(value: Any) -> list[Any] | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("cells"), list):
        return list(value["cells"])
    sheets = value.get("worksheets")
    if not isinstance(sheets, list):
        return None
    return [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or []]


def _language(value: dict[str, Any], cells: list[Any]) -> str:
    """The kernel's language; of format 3 the cells'. Notebooks that don't say are Python's, as Jupyter has it."""
    data = value.get("metadata")
    found: Any = None
    if isinstance(data, dict):
        for table, key in (("language_info", "name"), ("kernelspec", "language"), ("kernelspec", "name")):
            inner = data.get(table)
            found = found or (inner.get(key) if isinstance(inner, dict) else None)
    found = found or next((c.get("language") for c in cells if isinstance(c, dict) and c.get("language")), "")
    language = str(found or "python").lower()[:40]
    return "python" if language.startswith(("python", "ipython")) else "r" if language == "ir" else language


def _level(cell: dict[str, Any]) -> int:
    level = cell.get("level")
    return level if isinstance(level, int) and 1 <= level <= 6 else 1


def _source(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(each) for each in value)
    return value if isinstance(value, str) else ""
