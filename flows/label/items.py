"""What there is to judge: answers that checkpoints write, pairs that others wrote, documents of a corpus.

An item is known by its content: asking for the same again makes none twice. What can't be compared (an answer that is
empty, two that are equal, a prompt that doesn't fit the context) is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import UserError
from datalake.lake.lake import Lake
from flows.label.kinds import Row, identity

if TYPE_CHECKING:
    from datalake.lake.corpora import Corpus
    from flows.commands.chat import Chosen
    from flows.commands.dialogue import Sampling

CONVERSATIONS, PREFERENCES = TABLES = ("conversations", "preferences")
_AT_ONCE = 8  # prompts that a checkpoint answers in one pass

Messages = list[dict[str, str]]


def written(
    lake: Path, prompts: Sequence[Messages], chosen: Sequence[Chosen], sampling: Sampling
) -> Iterator[tuple[list[Row], Counter[str]]]:
    """Pairs of answers that one checkpoint writes, or two, a few at a time, and why others are none.

    What a checkpoint was asked before it isn't asked again (`lake/answers`).
    """
    from datalake.identity import fingerprint
    from models.synthesis.config import WriterConfig
    from models.synthesis.writer import writer

    config = WriterConfig(
        model="sft",
        temperature=max(sampling.temperature, 0.0),
        top_p=sampling.top_p,
        new_tokens=sampling.max_tokens,
        batch=_AT_ONCE,
    )
    writers = [writer(config, one.folder, "", lake / "answers") for one in chosen]
    sides = [(writers[-side], chosen[-side]) for side in (0, 1)]  # of one both
    for first in range(0, len(prompts), _AT_ONCE):
        some = prompts[first : first + _AT_ONCE]
        replies = []
        for side, (ask, _) in enumerate(sides):
            replies.append(ask(some, [int(fingerprint([sampling.seed, side, one])[:15], 16) for one in some]))
        rows, why = [], Counter[str]()
        for prompt, *said in zip(some, *replies, strict=True):
            problem = next((reply.problem.partition(":")[0] for reply in said if reply.problem), "")
            texts = [reply.text.strip() for reply in said]
            if problem or texts[0] == texts[1]:
                why[problem or "equal"] += 1
                continue
            who = [{name: str(value) for name, value in asdict(one).items() if value} for _, one in sides]
            rows.append(_pair(prompt, texts, who))
        yield rows, why


def _pair(prompt: Messages, answers: list[str], checkpoints: list[Row]) -> Row:
    return {
        "id": identity(prompt, answers, checkpoints),
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
            rows.append(_pair(_plain(prompt), texts, [{}, {}]))
    return rows


def _plain(messages: Iterable[Any]) -> Messages:
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


# Where prompts and pairs come from ----------------------------------------------------------------------------------


def corpus_with(lake: Lake, table: str, corpus: str | None) -> Corpus:
    """The corpus of this name, or the one of the last run that has the table. Raises UserError where there is none."""
    from datalake.lake.corpora import corpora

    found = [one for one in corpora(lake) if corpus in (None, one.name) and table in one.tables]
    if not found:
        named = f"the corpus {corpus!r}" if corpus else "no run"
        raise UserError(f"{named} has {'no ' if corpus else ''}{table}: name a file, or run a recipe that reads some")
    return max(found, key=lambda one: one.manifest.finished)


def pairs_of(lake: Lake, place: str, corpus: str | None) -> list[tuple[Messages, str | None, str | None]]:
    """Prompts with two answers: of a file, in any form that a source of preferences reads, or of the lake's."""
    if place == PREFERENCES:
        from tasks.dialogues import files_of, rows_in

        ref = corpus_with(lake, PREFERENCES, corpus).tables[PREFERENCES]
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

        ref = corpus_with(lake, CONVERSATIONS, corpus).tables[CONVERSATIONS]
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
    from datalake.sources.dialogues.preferences import pair
    from datalake.sources.dialogues.shapes import dialogues, prompt
    from datalake.sources.dialogues.turns import InvalidError, validate

    if not isinstance(row, dict):
        return []
    try:
        try:
            found = pair(row, Preferences(paths=(place,)))[0].prompt
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
    known = {identity(seed, one): one for one in prompts if one}
    return [known[key] for key in sorted(known)[:number]]


# Documents ------------------------------------------------------------------------------------------------------------


def documents(lake: Lake, rule: str | None, corpus: str | None, number: int, seed: int) -> list[Row]:
    """Documents of a corpus: half of those that were kept, half of those that were dropped, or failed the rule."""
    from flows.browse.documents import Documents, Filter

    found = corpus_with(lake, "curation", corpus)
    opened = Documents(lake, found)
    known = [name for name, _ in opened.facets()["rule"]]
    if rule is not None and rule not in known:
        raise UserError(f"--rule {rule}: no document of {found.name} failed it; some failed {', '.join(known)}")
    dropped = opened.sample(Filter(verdict="" if rule else "rejected", rule=rule or ""), number // 2, seed)
    kept = opened.sample(Filter(verdict="kept"), number - len(dropped), seed)
    names = ("id", "uri", "source", "language", "verdict", "rules", "text")
    about = {"corpus": found.name, "run": found.manifest.run}
    return [{name: row[name] for name in names} | about for row in (*dropped, *kept)]
