"""What is kept of the rows of dialogues and pairs: shares of rows, of cells and of columns.

    python benchmarks/dialogue_columns.py FOLDER   # with `instruction` and `preference` below it

A cell counts where it holds something and its row became a dialogue or a pair; it is kept where every line of its text,
or every value in it, is in the messages, the answers or the attributes. Marks of a notation (`Human:`, Alpaca's frame)
and lists of token ids beside their text don't count. A column is kept where all its cells are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from datalake.document import Conversation, Preference
from datalake.sources import conversations, preferences
from datalake.sources.config import Conversations, Preferences
from datalake.sources.row_files import RowFile, row_files
from datalake.sources.rows import Row

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


def said_by(entry: Conversation | Preference) -> str:
    """All that an entry says."""
    values: list[Any] = [entry.attributes, entry.uri]
    if isinstance(entry, Conversation):
        values += [[*turn["content"].split("\n"), turn["content"]] for turn in entry.messages]
    else:
        values += [*(turn["content"] for turn in entry.prompt), entry.chosen, entry.rejected]
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


def main(folder: Path) -> None:
    """Print a row of a table for each kind."""
    for kind, module, config in (
        ("instruction", conversations, Conversations),
        ("preference", preferences, Preferences),
    ):
        rows = taken = cells = cells_kept = 0
        columns: dict[tuple[str, str], bool] = {}
        for path in sorted((folder / kind).glob("*.gz")):
            source = config(paths=[str(path)])
            (shard,) = module.shards(source)
            given = [
                row
                for file in row_files(shard.path, shard.name, "x")
                if isinstance(file, RowFile)
                for row in file.rows("x")
                if isinstance(row, Row)
            ]
            by_offset: dict[int, list[Any]] = {}
            for entry in module.read(shard, source):
                by_offset.setdefault(getattr(entry, "offset", -1), []).append(entry)
            for row in given:
                rows += 1
                found = [one for one in by_offset.get(row.offset, []) if isinstance(one, Conversation | Preference)]
                taken += bool(found)
                if not found or not isinstance(row.value, dict):
                    continue
                said = "\n".join(map(said_by, found))
                for name, cell in row.value.items():
                    if any(leaves(cell)):
                        cells += 1
                        fine = kept(cell, said)
                        cells_kept += fine
                        place = (path.name, str(name))
                        columns[place] = columns.get(place, True) and fine
        lost = sorted(f"{file.partition('.')[0]}:{name}" for (file, name), fine in columns.items() if not fine)
        shares = (
            f"{taken:,} of {rows:,}",
            f"{cells_kept:,} of {cells:,}",
            f"{sum(columns.values())} of {len(columns)}",
        )
        print("|", " | ".join((kind, *shares, ", ".join(lost))), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
