"""What a training method is given: local paths and plain values, made from a stage's references by their names.

A method says by the names of its parameters what it wants (`pairs`, `heldout`, `base`...); a stage is given references
by the names of what they are (`preferences`, `base`...). One more kind of data is one more function in `_READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datalake.errors import UserError
from datalake.lake.copies import near_folder
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.tokens import token_indices
from datalake.places import is_place
from models.training.method import Method
from tasks.dialogues import HoldOut, Tables, dialogues, each, nothing_left, pairs, prompts, warn_of_one_sided
from tasks.tokens import origins, training_documents


@dataclass
class Material:
    """The plain inputs of a method, and of which records they were made.

    items: the records that train, where these are rows of `tables` by their id; noun: what they are.
    records: how many there were. report: what is to be said of them.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    tables: tuple[str, ...] = ("documents",)
    noun: str = "documents"
    records: int = 0
    report: dict[str, Any] = field(default_factory=dict)


def material(method: Method[Any], lake: Lake, inputs: Mapping[str, Any]) -> Material:
    """What a method is given of a stage's inputs. Raises UserError where nothing is left to train on."""
    made = Material()
    for name, value in inputs.items():
        if name in _READERS:
            _READERS[name](made, method, lake, value, inputs)
        elif isinstance(value, FolderRef):
            made.inputs[name] = lake.path(value)
    made.inputs = {name: value for name, value in made.inputs.items() if name in method.inputs}
    return made


def at_hand(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a method where the work is done: folders on this machine's disk."""
    return {name: near_folder(value) if is_place(value) else value for name, value in inputs.items()}


def _conversations(made: Material, method: Method[Any], lake: Lake, ref: Tables, inputs: Mapping[str, Any]) -> None:
    """Dialogues to learn from, or, for a method that answers them, their prompts."""
    holdout: HoldOut = inputs["holdout"]
    train, heldout = dialogues(lake, ref, holdout)
    made.items, made.tables = train, _names(ref)
    if "prompts" in method.inputs:
        made.noun = "prompts"
        made.inputs |= {"prompts": prompts(train), "heldout": prompts(heldout)}
        made.records = len(train)
        return
    if not train:
        raise nothing_left("conversation", len(heldout), method.name)
    made.noun, made.records = "dialogues", _rows(ref)
    made.inputs |= {"conversations": train, "heldout": heldout}
    warn_of_one_sided(made.report, train, heldout, holdout.share, made.noun)


def _names(tables: Tables) -> tuple[str, ...]:
    """What tables are called in their corpus."""
    return tuple(ref.table.rpartition(".")[2] for ref in each(tables))


def _rows(tables: Tables) -> int:
    return sum(ref.rows for ref in each(tables))


def _preferences(made: Material, method: Method[Any], lake: Lake, ref: Tables, inputs: Mapping[str, Any]) -> None:
    """Pairs of answers, or, for a method that takes them, judgements: answers that stand alone as well."""
    holdout: HoldOut = inputs["holdout"]
    alone = "judgements" in method.inputs
    train, heldout = pairs(lake, ref, holdout, unpaired=alone)
    if not train:
        raise nothing_left("preference pair", len(heldout), method.name)
    made.noun = "judgements" if alone else "pairs"
    made.items, made.tables, made.records = train, _names(ref), _rows(ref)
    made.inputs |= {made.noun: train, "heldout": heldout}
    unpaired = made.records - len(train) - len(heldout)
    if unpaired:
        made.report["unpaired"] = unpaired
    warn_of_one_sided(made.report, train, heldout, holdout.share, made.noun)


def _tokens(made: Material, method: Method[Any], lake: Lake, ref: FolderRef, inputs: Mapping[str, Any]) -> None:
    """Token shards, and the documents that have tokens."""
    train, heldout = training_documents(lake, inputs["mixture"], ref, inputs["repetition_seed"])
    if not train:
        raise UserError("no document is left to train on: lower mixture.holdout, or choose a milder curate.preset")
    made.records = len(train)
    made.inputs |= {"shards": token_indices(lake, ref), "train": train, "heldout": heldout}
    made.inputs["origins"] = origins(lake, inputs["mixture"])


def _documents(made: Material, method: Method[Any], lake: Lake, ref: TableRef, inputs: Mapping[str, Any]) -> None:
    """What a policy may look through."""
    from models.rl.tools.search import Library

    if not ref.rows:
        raise UserError("tools: search has no documents, as curation kept none: choose a milder curate.preset")
    tables = {"documents": ref} | {name: inputs[name] for name in ("duplicates", "spans") if name in inputs}
    files = {name: lake.files(table) for name, table in tables.items()}
    made.inputs["documents"] = Library(**files, version=tuple(table.data_version for table in tables.values()))


_READERS: dict[str, Callable[[Material, Method[Any], Lake, Any, Mapping[str, Any]], None]] = {
    "conversations": _conversations,
    "documents": _documents,
    "preferences": _preferences,
    "tokens": _tokens,
}
