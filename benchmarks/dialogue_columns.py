"""What is kept of the rows of dialogues and pairs: shares of rows, of cells and of columns.

    python benchmarks/dialogue_columns.py FOLDER   # with `instruction` and `preference` below it

A cell counts where it holds something. It is used as text where every line of its text, or every value in it, is in the
messages or the answers of its row, as an attribute where it is in these or in the attributes, else lost. Marks of a
notation (`Human:`, Alpaca's frame) and lists of token ids beside their text don't count.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datalake.document import Conversation, Preference
from datalake.formats.rows.files import RowFile, row_files
from datalake.formats.rows.json import Row
from datalake.sources.dialogues import conversations, preferences
from datalake.sources.dialogues.config import Conversations, Preferences

_MARK = re.compile(r"^\s*(?:###.*|Below is an instruction.*|(?:Human|Assistant|USER|ASSISTANT|SYSTEM"
                   r"|FUNCTION RESPONSE) ?[:：]|[<|]+[\w ]+[|>]+:?|<functioncall>)+")  # fmt: skip


def leaves(value: Any, key: str = "") -> Iterator[str]:
    """The texts and numbers in a value, but the names of speakers."""
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, str(name))
    elif isinstance(value, list):
        if not (value and all(isinstance(item, int) for item in value)):
            for inner in value:
                yield from leaves(inner)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif value is not None and value == value and key not in ("from", "role") and str(value).strip():
        yield str(value)


def plain(text: str) -> str:
    return " ".join(text.split())


def said_by(entry: Conversation | Preference) -> tuple[str, str]:
    """All that an entry says: its texts, and its attributes."""
    if isinstance(entry, Conversation):
        texts: list[Any] = [[*turn["content"].split("\n"), turn["content"]] for turn in entry.messages]
    else:
        texts = [*(turn["content"] for turn in entry.prompt), entry.chosen, entry.rejected]
    return _plainly(texts), _plainly([entry.attributes, entry.uri])


def _plainly(values: list[Any]) -> str:
    return "\n".join(plain(leaf) for value in values for leaf in leaves(value))


def kept(cell: Any, said: str) -> bool:
    """Whether every line of a cell is said."""
    for leaf in leaves(cell):
        for part in re.split(r"\n|<\|endoftext\|>|<functioncall>", leaf):
            line = plain(_MARK.sub("", part))
            glaive = "'{" in line and all(word in said for word in re.findall(r"\w+", line))  # a call, made JSON
            nothing = line.strip(" <>.").lower() in ("", "noinput", "no input", "n/a")
            if line not in said and not glaive and not nothing:
                return False
    return True


@dataclass
class Kept:
    """What became of the rows and cells of a set. Cells are those that hold something."""

    rows: int = 0
    taken: int = 0
    cells: int = 0
    as_text: int = 0
    as_attribute: int = 0
    refused: int = 0
    columns: dict[str, bool] = field(default_factory=dict)  # whether a cell of it was ever used

    def line(self, name: str) -> str:
        """A row of the table."""
        lost = self.cells - self.as_text - self.as_attribute - self.refused
        unused = ", ".join(sorted(column for column, used in self.columns.items() if not used)) or "none"
        cells = (self.cells, self.as_text, self.as_attribute, self.refused, lost)
        return f"| {name} | {self.rows:,} | {self.taken:,} | {' | '.join(f'{each:,}' for each in cells)} | {unused} |"


def kept_of(path: Path, module: Any, config: Any) -> Kept:
    """What became of the rows of a file."""
    source = config(paths=[str(path)])
    (shard,) = module.archives(source)
    files = (file for file in row_files(shard.path, source.origin(shard)) if isinstance(file, RowFile))
    by_offset: dict[int, list[Any]] = {}
    for entry in module.read(shard, source):
        by_offset.setdefault(getattr(entry, "offset", -1), []).append(entry)
    out = Kept()
    for row in (row for file in files for row in file.rows() if isinstance(row, Row)):
        out.rows += 1
        found = [one for one in by_offset.get(row.offset, []) if isinstance(one, Conversation | Preference)]
        out.taken += bool(found)
        if not isinstance(row.value, dict):
            continue
        texts, attributes = ("\n".join(said) for said in zip(*map(said_by, found), strict=True)) if found else ("", "")
        for name, cell in row.value.items():
            if not any(leaves(cell)):
                continue
            out.cells += 1
            if not found:
                out.refused += 1
                continue
            as_text = kept(cell, texts)
            as_attribute = not as_text and kept(cell, f"{texts}\n{attributes}")
            out.as_text += as_text
            out.as_attribute += as_attribute
            out.columns[name] = out.columns.get(name, False) or as_text or as_attribute
    return out


def main(folder: Path) -> None:
    """Print a row of a table for each set."""
    print("| set | rows | kept | cells | as text | as attribute | of rows refused | lost | columns never used |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for kind, module, config in (
        ("instruction", conversations, Conversations),
        ("preference", preferences, Preferences),
    ):
        sets = {
            path.name.partition(".")[0]: kept_of(path, module, config) for path in sorted((folder / kind).glob("*.gz"))
        }
        whole = Kept()
        for name, each in sets.items():
            print(each.line(name))
            for number in ("rows", "taken", "cells", "as_text", "as_attribute", "refused"):
                setattr(whole, number, getattr(whole, number) + getattr(each, number))
        print(whole.line(f"**{kind}**"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
