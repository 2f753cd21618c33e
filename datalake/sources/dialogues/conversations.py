"""Dialogues to learn from, in the formats people publish them in (see `dialogues`), one of them a row.

Where a row holds several (the instances of a seed task, all ways down a tree), each of them is a record. Where several
rows make one (the messages of a tree), each row is a record still: the one that ends the dialogue becomes it, those
before are refused as `joined`, replies ranked behind others as `branch`. What makes a dialogue valid is in `turns`;
others are refused with a reason: `format`, `role`, `order`, `unanswered`, `several` (answers), `empty`, `media`,
`weight`, `column` (one that holds more of what is asked), `deleted`, `orphan`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from datalake.archive import Archive
from datalake.document import Conversation, Entry, Passed, Quarantined, Refused
from datalake.formats.rows.files import RowFile, Shape, row_files
from datalake.formats.rows.json import Locators, Row
from datalake.formats.rows.nested import KEYS
from datalake.origin import OWN, Origin
from datalake.paths import expand
from datalake.sources.dialogues import docstrings, trees
from datalake.sources.dialogues.columns import Columns
from datalake.sources.dialogues.config import Conversations, Preferences
from datalake.sources.dialogues.shapes import HEADER, Dialogue, dialogues, whole
from datalake.sources.dialogues.turns import InvalidError, Messages, asked, validate
from datalake.sources.tables import mappings

_LONGEST_TREE = 10_000  # messages
# Keys of a turn or an exchange: a list of them is a dialogue, not rows.
_TURN = {"role", "content", "from", "value", "human", "assistant", "user", "bot", "input", "output", "weight", "loss"}
_TREE_KEYS = ("message_id", "parent_id", "text", "role", "deleted", "message_tree_id", "lang")


def archives(config: Conversations) -> list[Archive]:
    """One a file; `python:docstrings` gives the questions about the standard library."""
    return dialogue_archives(config)


def read(archive: Archive, config: Conversations) -> Iterator[Entry]:
    """One entry a dialogue: a conversation, or refused for what is wrong with it, or quarantined where malformed."""
    whole = config.origin(archive)
    if archive.path == docstrings.PATH:
        yield from docstrings.conversations(archive, whole)
        return
    for file in dialogue_files(archive, whole):
        if isinstance(file, RowFile):
            rows = file.rows(header=config.header, shape=_shape(config))
            yield from _Reading(file.origin, config).entries(rows)
        else:
            yield file


def _shape(config: Conversations) -> Shape:
    """What is a row: an object that a dialogue can be made of. What is a header: one with a column that has one."""
    every = config.paths_of_tree == "all"

    def is_row(value: dict[str, Any]) -> bool:
        if trees.is_message(value):
            return True
        return not value.keys() <= _TURN and any(one.problem is None for one in dialogues(value, config.format, every))

    return Shape(is_row, lambda names: not HEADER.isdisjoint(name.strip().lower() for name in names), KEYS)


def dialogue_archives(config: Conversations | Preferences) -> list[Archive]:
    """The files of a source of dialogues, and those of docstrings where it names them."""
    files = [path for path in config.paths if path != docstrings.PATH]
    out = [Archive(config.kind, name, path) for name, path in expand(files)] if files else []
    if docstrings.PATH in config.paths:
        out += docstrings.archives(config.kind)
    return sorted(out, key=lambda archive: archive.name)


def dialogue_files(archive: Archive, origin: Origin) -> Iterator[RowFile | Passed | Quarantined]:
    """The files of rows in an archive. Text files in archives are about the others."""
    for file in origin.framed(row_files(archive.path, origin)):
        if isinstance(file, RowFile) and file.form == "text" and file.name != archive.name:
            yield Passed("other_file")
        else:
            yield file


class _Reading:
    """One file being read, and which row ids were seen in it."""

    def __init__(self, origin: Origin, config: Conversations):
        self.origin, self.config = origin, config
        self.locators = Locators()

    def entries(self, rows: Iterator[Row | Quarantined]) -> Iterator[Entry]:
        """What the rows become, in their order."""
        return self.origin.entries(self._units(rows), self._unit)

    def _units(self, rows: Iterator[Row | Quarantined]) -> Iterator[Row | list[Row] | Quarantined]:
        """Rows, those that are messages of one tree together."""
        single = self.config.format in ("auto", "openassistant")
        tree: list[Row] = []
        for row in rows:
            if single and isinstance(row, Row) and trees.is_message(row.value):
                if tree and (_tree_of(tree[0]) != _tree_of(row) or len(tree) >= _LONGEST_TREE):
                    yield tree
                    tree = []
                tree.append(row)
                continue
            if tree:
                yield tree
                tree = []
            yield row
        if tree:
            yield tree

    def _unit(self, unit: Row | list[Row]) -> Iterator[Entry]:
        return self._tree(unit) if isinstance(unit, list) else self._row(unit)

    def _row(self, row: Row) -> Iterator[Entry]:
        own = row.value.get("id") if isinstance(row.value, dict) else None
        if own is None and isinstance(row.value, dict):
            own = row.value.get("message_tree_id")
        locator = self.locators.of(own, row.number)
        for found in dialogues(row.value, self.config.format, self.config.paths_of_tree == "all"):
            part = self.locators.of(f"{locator}/{found.part}", row.number) if found.part else locator
            yield self._entry(row, part, found)

    def _entry(self, row: Row, locator: str, found: Dialogue) -> Conversation | Refused | Quarantined:
        said = (message["content"] for message in found.messages)
        if damage := row.damage(self.origin, said):
            return damage
        try:
            if found.problem:
                raise found.problem
            validate(found.messages)
        except InvalidError as problem:
            return self.origin.refused(row, locator, problem.reason, problem.detail)
        value, attributes = row.value, dict(found.attributes)
        messages: Messages = [dict(message) for message in found.messages]
        if found.tools:
            attributes["tools"] = f"[{', '.join(found.tools)}]"
            if self.config.tools == "system":
                messages = _with_tools(messages, found.tools, attributes)
        licence = mappings.spdx(value.get("licence") or value.get("license")) or OWN
        attributes |= {"format": found.format, "group": asked(messages)}
        return self.origin.conversation(row, locator, messages, attributes, licence=licence)

    def _tree(self, rows: list[Row]) -> Iterator[Entry]:
        """What the messages of a tree become: those that end a dialogue it, the others refused."""
        locators = [self.locators.of(row.value["message_id"], row.number) for row in rows]
        nodes: list[dict[str, Any]] = [row.value for row in rows]
        first: dict[str, int] = {}
        for place, node in enumerate(nodes):
            first.setdefault(str(node["message_id"]), place)
        parents = [-1 if node["parent_id"] is None else first.get(str(node["parent_id"]), -2) for node in nodes]
        found = [
            trees.dialogue_of(nodes, way) for way in trees.ways(nodes, parents, self.config.paths_of_tree == "all")
        ]
        ends = {path.steps[-1]: path for path in found}
        led_to = {step: path.steps[-1] for path in reversed(found) for step in path.steps[:-1]}
        connected = trees.connected(parents)
        for place, (row, locator) in enumerate(zip(rows, locators, strict=True)):
            if path := ends.get(place):
                about = {"tree": path.tree, "lang": path.lang}
                about = {key: value for key, value in about.items() if value}
                found_here = Dialogue(path.messages, "openassistant", path.problem, "", about)
                yield self._entry(row, locator, whole(found_here, Columns(row.value), *_TREE_KEYS))
            elif place in led_to:
                yield self.origin.refused(row, locator, "joined", f"in {self.origin.uri(locators[led_to[place]])}")
            elif nodes[place].get("deleted"):
                yield self.origin.refused(row, locator, "deleted", "marked as deleted")
            elif not connected[place]:
                parent = nodes[place]["parent_id"]
                yield self.origin.refused(row, locator, "orphan", f"no way up to a prompt from {parent!r}")
            elif not found:
                yield self.origin.refused(row, locator, "unanswered", "no answer in its tree")
            else:
                end = self.origin.uri(locators[min(ends)])
                yield self.origin.refused(row, locator, "branch", f"not on the way to {end}")


def _with_tools(messages: Messages, tools: list[str], attributes: dict[str, str]) -> Messages:
    """The messages with the tools at the end of the system's, one JSON object a line; lists by message follow."""
    begun = messages[0]["role"] == "system"
    system, others = (messages[0]["content"], messages[1:]) if begun else ("", messages)
    content = "\n\n".join(part for part in (system, "\n".join(["Tools:", *tools])) if part)
    if not begun:
        for name, value in attributes.items():
            if name == "weights" or name.startswith("turns."):
                attributes[name] = json.dumps(
                    [0 if name == "weights" else None, *json.loads(value)], ensure_ascii=False
                )
    return [{"role": "system", "content": content}, *others]


def _tree_of(row: Row) -> Any:
    """What the messages of one tree have in common."""
    value = row.value
    return value.get("message_tree_id") or (value["message_id"] if value["parent_id"] is None else None)
