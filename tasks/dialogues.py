"""Dialogues and pairs as training takes them. What is held out in the mixture is held out here, by the same rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from datalake.errors import UserError
from datalake.holdout import group_of, held_out, one_sided
from datalake.lake.lake import Lake, TableRef
from datalake.lake.parquet import read_table
from datalake.mixture.config import MixtureConfig

JUDGED = ("margin", "chosen_score", "rejected_score")  # attributes that say how much better an answer is


class HoldOut(BaseModel):
    """Which groups never train: the mixture's own seed and share, so one rule holds for texts and dialogues alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int
    share: float

    @classmethod
    def of(cls, mixture: MixtureConfig) -> HoldOut:
        """The hold-out of a mixture."""
        return cls(seed=mixture.seed, share=mixture.holdout)

    def __call__(self, id: bytes, attributes: dict[str, str]) -> bool:
        """Whether a record is held out."""
        return held_out(group_of(id, attributes), self.seed, self.share)


Tables = TableRef | Sequence[TableRef]


def each(tables: Tables) -> Sequence[TableRef]:
    """One table, or several that are read as one."""
    return [tables] if isinstance(tables, TableRef) else tables


def files_of(lake: Lake, tables: Tables) -> list[str]:
    """The files of one table, or of several that are read as one."""
    return [file for ref in each(tables) for file in lake.files(ref)]


def rows_in(files: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
    """The rows of files sorted by id, so that their order doesn't depend on how the archives were sharded."""
    rows = [row for file in files for row in read_table(file, columns).to_pylist()]
    return sorted(rows, key=lambda row: row["id"])


def dialogues(lake: Lake, ref: Tables, holdout: HoldOut) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Conversations as (training, held out), see `dialogues_in`."""
    return dialogues_in(files_of(lake, ref), holdout)


def dialogues_in(files: Sequence[str], holdout: HoldOut) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Conversations of files as (training, held out), each a dict of id, source, group, messages, tools, attributes.

    A message that isn't to be learned has `weight` "0"; one that calls tools has `tool_calls`, as OpenAI's.
    """
    split: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in rows_in(files, ["id", "source", "messages", "attributes"]):
        attributes = dict(row["attributes"] or ())
        messages = row["messages"]
        if "weights" in attributes:
            weights = json.loads(attributes["weights"])
            messages = [turn | {"weight": str(weight)} for turn, weight in zip(messages, weights, strict=True)]
        if "turns.tool_calls" in attributes:
            called = json.loads(attributes["turns.tool_calls"])
            messages = [_calling(turn, ids or ()) for turn, ids in zip(messages, called, strict=True)]
        item = {name: row[name] for name in ("id", "source")}
        item |= {"group": group_of(row["id"], attributes), "messages": messages, "tools": _offered(attributes)}
        item["attributes"] = attributes
        split[holdout(row["id"], attributes)].append(item)
    return split


def _calling(turn: dict[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """A message whose last lines are calls of tools, one for each of these ids, with them apart from its words."""
    if not ids:
        return turn
    lines = turn["content"].split("\n")
    calls = [
        {"type": "function", "id": id, "function": json.loads(line)}
        for id, line in zip(ids, lines[-len(ids) :], strict=True)
    ]
    return turn | {"content": "\n".join(lines[: -len(ids)]), "tool_calls": calls}


def _offered(attributes: dict[str, str]) -> list[dict[str, Any]]:
    """The tools that a dialogue may call, as OpenAI describes them; what isn't JSON is a description."""
    if "tools" not in attributes:
        return []
    try:
        tools = json.loads(attributes["tools"])
    except ValueError:
        tools = [attributes["tools"]]
    objects = [tool if isinstance(tool, dict) else {"description": str(tool)} for tool in tools]
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in objects]


def pairs(
    lake: Lake, ref: Tables, holdout: HoldOut, unpaired: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Preferences as (training, held out), each a dict of id, source, group, prompt, chosen, rejected, and of `JUDGED`
    what its source says of it.

    An answer that was judged by itself has no other to be compared with: it is left out, or has None for the other
    where `unpaired` ones are asked for.
    """
    split: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in rows_in(files_of(lake, ref), ["id", "source", "prompt", "chosen", "rejected", "attributes"]):
        attributes = dict(row.pop("attributes") or ())
        if not unpaired and (row["chosen"] is None or row["rejected"] is None):
            continue
        row["group"] = group_of(row["id"], attributes)
        row |= {name: attributes[name] for name in JUDGED if name in attributes}
        split[holdout(row["id"], attributes)].append(row)
    return split


def warn_of_one_sided(report: dict[str, Any], train: list[Any], heldout: list[Any], share: float, what: str) -> None:
    """Add to a report what is to be said of sources that are held out whole or not at all."""
    splits = {row["source"]: (0, 0) for row in (*train, *heldout)}
    for side, rows in enumerate((train, heldout)):
        for source, amount in Counter(row["source"] for row in rows).items():
            splits[source] = (amount, 0) if side == 0 else (splits[source][0], amount)
    if warnings := one_sided(splits, share, what):
        report["warnings"] = warnings


def nothing_left(what: str, heldout: int, stage: str) -> UserError:
    """The error of a stage that has nothing to train on."""
    if heldout:
        return UserError(
            f"all {heldout:,} {what}s are held out, none is left to train on: change mixture.seed or mixture.holdout"
        )
    return UserError(f"no {what} is left to train on: add some to `sources`, or set {stage} to null")


def prompts(dialogues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a policy is asked: dialogues up to their last answer, or whole where they end with a question.

    Of each also what reward functions are given: `id` (hex), `source`, the dialogue's own `answer`, its attributes.
    """
    asked = []
    for row in dialogues:
        messages = row["messages"]
        answered = bool(messages) and messages[-1]["role"] == "assistant"
        asked.append(
            {
                **row["attributes"],
                "id": row["id"].hex(),
                "source": row["source"],
                "messages": messages[:-1] if answered else messages,
                "tools": row.get("tools", []),
                "answer": messages[-1]["content"] if answered else "",
            }
        )
    return asked
