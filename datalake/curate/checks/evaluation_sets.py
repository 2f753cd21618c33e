"""Evaluation sets: the rows of the files a user names, each as the texts to look for in documents.

A row is looked for in several *readings*. The first is all its texts in their order. A row with alternatives (a list
of texts, or columns A, B, C, D) also has the rest of the row alone, since a page may letter the alternatives otherwise,
and each of them behind and before that rest, as a page would have the question with the one right answer, or the
sentence with its blank filled in: the overlap across that seam is in no other reading. Labels of prompts (`Question:`,
`Answer:`) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from datalake.document import Passed, Quarantined
from datalake.errors import UserError
from datalake.formats.rows.files import COMPRESSIONS, RowFile, row_files
from datalake.formats.rows.json import split_lines
from datalake.origin import Origin

_ENDINGS = {*COMPRESSIONS, ".zip", ".tar", ".tgz", ".tbz2", ".txz", ".parquet", ".csv", ".tsv", ".txt", ".text",
            ".json", ".jsonl", ".ndjson", ".jsonlines"}  # fmt: skip
_LABEL = re.compile(
    r"\A\s*(?:question|problem|answer|问题|答案|q|a|问|答)\s*+[:：]\s*+|\b(?:answer|答案)\s*+[:：]\s*+\Z", re.IGNORECASE
)
WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
_COLUMN = re.compile(r"[A-Z]")
_STEM = 3  # words; the question of a row has at least so many, its number or category doesn't
_LONGEST = 1 << 26  # bytes of a row


@dataclass(slots=True)
class EvaluationRow:
    """A row: its set's name, the file's, its number from 0, and its readings."""

    set: str
    file: str
    number: int
    readings: list[str]


def stem(name: str) -> str:
    """A file's name without the endings that say its form; of an archive's member, `archive/member` without both's."""
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        path = PurePosixPath(part)
        while path.suffix.lower() in _ENDINGS:
            path = path.with_suffix("")
        if not parts or parts[-1] != path.name:  # archives often hold one folder of their own name
            parts.append(path.name)
    return "/".join(parts)


def evaluation_rows(name: str, path: str, near: int = 26) -> Iterator[EvaluationRow]:
    """The rows with text of one file of evaluation sets, members of an archive one after the other.

    Raises:
        UserError: where something can't be read: a set with a hole in it would let documents through.
    """
    whole = stem(name)
    try:
        for file in row_files(path, Origin("evaluation", "evaluation", name)):
            if isinstance(file, Passed):
                continue
            if isinstance(file, Quarantined):
                raise _damage(file)
            if file.form == "text" and PurePosixPath(file.name).suffix.lower() == ".md":
                continue  # the description beside a set
            member = stem(file.name)
            for number, value in _values(file):
                if found := readings(value, near):
                    yield EvaluationRow(member, whole, number, found)
    except OSError as error:
        raise UserError(f"evaluation set {path} can't be read ({error.strerror}): correct the path") from None


def _values(file: RowFile) -> Iterator[tuple[int, Any]]:
    """(number, value) of every row; of a text file, every line."""
    if file.form == "text":
        for number, line in enumerate(split_lines(file.chunks, file.origin, _LONGEST)):
            if isinstance(line, Quarantined):
                raise _damage(line)
            yield number, line[1].decode("utf-8", "replace")
        return
    for row in file.rows():
        if isinstance(row, Quarantined):
            raise _damage(row)
        yield row.number, row.value


def _damage(what: Quarantined) -> UserError:
    return UserError(
        f"evaluation set {what.archive} can't be read ({what.reason}: {what.detail}): mend it or leave it out"
    )


def readings(value: Any, near: int = 26) -> list[str]:
    """The readings of a row, the first one with all its texts; none where it has no text.

    Of what stands before or behind an alternative, the nearest `near` words are taken.
    """
    texts: list[str] = []
    alternatives: list[list[str]] = []
    _collect(value, texts, alternatives)
    if not texts:
        return []
    found = ["\n".join(texts)]
    among = {id(text) for choices in alternatives for text in choices}
    rest = "\n".join(text for text in texts if id(text) not in among and len(WORD.findall(text)) >= _STEM)
    if rest and alternatives:
        words = list(WORD.finditer(rest))
        # Farther from the seam there is nothing that isn't in the first reading.
        head, tail = (rest, rest) if len(words) <= near else (rest[: words[near].start()], rest[words[-near].start() :])
        found.append(rest)
        for choices in alternatives:
            found += [f"{tail}\n{choice}" for choice in choices] + [f"{choice}\n{head}" for choice in choices]
    return list(dict.fromkeys(found))


def _collect(value: Any, texts: list[str], alternatives: list[list[str]]) -> None:
    """Every text within a value in its order, and those of them that are alternatives."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        if text := _LABEL.sub("", value).strip():
            texts.append(text)
    elif isinstance(value, dict):
        columns: list[str] = []
        for key, item in value.items():
            before = len(texts)
            _collect(item, texts, alternatives)
            if isinstance(item, str) and _COLUMN.fullmatch(str(key)):
                columns += texts[before:]
        if len(columns) > 1:
            alternatives.append(columns)
    elif isinstance(value, list | tuple):
        before = len(texts)
        for item in value:
            _collect(item, texts, alternatives)
        if len(value) > 1 and all(isinstance(item, str) for item in value):
            alternatives.append(texts[before:])
