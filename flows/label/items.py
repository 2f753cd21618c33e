"""Pairs of answers to judge: those that checkpoints write, and those that others wrote.

An item is known by its content: asking for the same again makes none twice. What can't be compared (an answer that is
empty, two that are equal, a prompt that doesn't fit the context) is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.lake.corpora import corpora
from datalake.lake.lake import Lake, TableRef
from flows.label.kinds import Row

if TYPE_CHECKING:
    from models.synthesis.config import WriterConfig

CONVERSATIONS, PREFERENCES = TABLES = ("conversations", "preferences")

Messages = list[dict[str, str]]


class Checkpoint(NamedTuple):
    """Who writes answers: a model's folder, and what is recorded of it."""

    folder: Path
    about: Row


def written(
    lake: Path, prompts: Sequence[Messages], checkpoints: Sequence[Checkpoint], config: WriterConfig, seed: int | None
) -> Iterator[tuple[list[Row], Counter[str]]]:
    """Pairs of answers that one checkpoint writes, or two, a few at a time, and why others are none.

    What a checkpoint was asked before it isn't asked again (`lake/answers`).
    """
    from models.synthesis.writer import writer

    writers = [writer(config, one.folder, "", lake / "answers") for one in checkpoints]
    sides = [(writers[-side], checkpoints[-side].about) for side in (0, 1)]  # of one checkpoint both
    for first in range(0, len(prompts), config.batch):
        some = prompts[first : first + config.batch]
        replies = [
            ask(some, [int(fingerprint([seed, side, one])[:15], 16) for one in some])
            for side, (ask, _) in enumerate(sides)
        ]
        rows, why = [], Counter[str]()
        for prompt, *said in zip(some, *replies, strict=True):
            problem = next((reply.problem.partition(":")[0] for reply in said if reply.problem), "")
            texts = [reply.text.strip() for reply in said]
            if problem or texts[0] == texts[1]:
                why[problem or "equal"] += 1
            else:
                rows.append(pair(prompt, texts, [about for _, about in sides]))
        yield rows, why


def pair(prompt: Messages, answers: list[str], checkpoints: list[Row]) -> Row:
    """An item, known by its content."""
    return {
        "id": fingerprint([prompt, answers, checkpoints])[:32],
        "prompt": prompt,
        "answers": answers,
        "checkpoints": checkpoints,
    }


def compared(pairs: Iterable[tuple[Messages, str | None, str | None]]) -> list[Row]:
    """Pairs that others wrote, without what they think of them: which is first says nothing."""
    rows = []
    for prompt, *answers in pairs:
        texts = sorted(text.strip() for text in answers if text and text.strip())
        if len(texts) == 2 and texts[0] != texts[1]:
            rows.append(pair(_plain(prompt), texts, [{}, {}]))
    return rows


def _plain(messages: Iterable[Any]) -> Messages:
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


# Where prompts and pairs come from ----------------------------------------------------------------------------------


def _table(lake: Lake, table: str, corpus: str | None) -> TableRef:
    """The table of the corpus of this name, or of the last run that has it. Raises UserError where there is none."""
    found = [one for one in corpora(lake) if corpus in (None, one.name) and table in one.tables]
    if not found:
        what = f"the corpus {corpus!r} has no" if corpus else "no run has"
        raise UserError(f"{what} {table}: name a file, or run a recipe that reads some")
    return max(found, key=lambda one: one.manifest.finished).tables[table]


def pairs_of(lake: Lake, place: str, corpus: str | None) -> list[tuple[Messages, str | None, str | None]]:
    """Prompts with two answers: of a file, in any form that a source of preferences reads, or of the lake's."""
    if place == PREFERENCES:
        from tasks.dialogues import files_of, rows_in

        ref = _table(lake, PREFERENCES, corpus)
        rows = rows_in(files_of(lake, ref), ["id", "prompt", "chosen", "rejected"])
        return [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    from datalake.document import Preference
    from datalake.sources import reader
    from datalake.sources.dialogues.config import Preferences

    config = Preferences(paths=(place,))
    read = reader("preferences")
    entries = [entry for archive in read.archives(config) for entry in read.read(archive, config)]
    found = [entry for entry in entries if isinstance(entry, Preference)]
    if not found:
        raise UserError(f"{place} holds no pairs of answers: see docs/sources.md, preferences, for the forms")
    return [(list(entry.prompt), entry.chosen, entry.rejected) for entry in found]


def prompts_of(lake: Lake, place: str, corpus: str | None) -> list[Messages]:
    """Prompts: of the lake's dialogues or pairs, or of a file of dialogues, pairs or rows that only ask."""
    if place == PREFERENCES:
        return [_plain(prompt) for prompt, _, _ in pairs_of(lake, place, corpus)]
    if place == CONVERSATIONS:
        from tasks.dialogues import files_of, rows_in

        ref = _table(lake, CONVERSATIONS, corpus)
        return [_asked(row["messages"]) for row in rows_in(files_of(lake, ref), ["id", "messages"])]
    found = [prompt for row in _rows(place) if (prompt := _prompt(row, place))]
    if not found:
        raise UserError(
            f"{place} holds no prompts: give rows with `prompt`, `messages`, or as docs/sources.md has them"
        )
    return found


def _asked(messages: Sequence[Any]) -> Messages:
    """A dialogue up to its last answer."""
    answered = bool(messages) and messages[-1]["role"] == "assistant"
    return _plain(messages[:-1] if answered else messages)


def _rows(place: str) -> Iterator[Any]:
    from datalake.formats.rows.files import RowFile
    from datalake.formats.rows.json import Row as FileRow
    from datalake.sources.dialogues.config import Preferences
    from datalake.sources.dialogues.conversations import dialogue_archives, dialogue_files

    config = Preferences(paths=(place,))
    for archive in dialogue_archives(config):
        for file in dialogue_files(archive, config.origin(archive)):
            if isinstance(file, RowFile):
                yield from (row.value for row in file.rows() if isinstance(row, FileRow))


def _prompt(row: Any, place: str) -> Messages:
    """What a row asks; nothing where it asks nothing."""
    from datalake.sources.dialogues.columns import Columns
    from datalake.sources.dialogues.config import Preferences
    from datalake.sources.dialogues.preferences import pair as pair_in
    from datalake.sources.dialogues.shapes import dialogues, prompt
    from datalake.sources.dialogues.turns import InvalidError, validate

    if not isinstance(row, dict):
        return []
    try:
        try:
            found = pair_in(row, Preferences(paths=(place,)))[0].prompt
        except InvalidError:
            said = next((one.messages for one in dialogues(row) if one.problem is None), None)
            found = prompt(Columns(row)) or [] if said is None else said
        asked = _asked(found)
        validate(asked, answered=False)
    except InvalidError:
        return []
    return asked


def sample(prompts: Iterable[Messages], number: int, seed: int) -> list[Messages]:
    """So many of them, none twice, by the hash of each and the seed."""
    known = {fingerprint([seed, one]): one for one in prompts if one}
    return [known[key] for key in sorted(known)[:number]]
