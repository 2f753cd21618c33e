"""What stages hand to each other: references to what lies in the lake, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from datalake.lake.lake import FolderRef, TableRef

T = TypeVar("T")

if TYPE_CHECKING:
    # A type checker takes what stands in for a reference for any reference, so outputs are handed on as they are; what
    # runs the stages (`flows.run.Run`) calls none that would be given one.
    StandIn = Any
else:
    StandIn = object


@dataclass(frozen=True)
class Missing(StandIn):
    """In place of a reference that isn't there: the reason, which travels to every stage that would need it."""

    reason: str


Table = TableRef | Missing
Folder = FolderRef | Missing


def maybe(reference: T | Missing) -> T | None:
    """A reference that a stage can do without: None where it is missing."""
    return None if isinstance(reference, Missing) else reference


def given(reference: Table | Folder, config: T) -> T | Missing:
    """The config of a stage that is worth running only where a reference that it doesn't take is there."""
    return reference if isinstance(reference, Missing) else config


def together(*references: Table) -> Any:
    """The tables that are there, as one input: one of them, or several; where none is, why the first one isn't."""
    there = [one for one in references if not isinstance(one, Missing)]
    return tuple(there) if len(there) > 1 else (there or references)[0]


def first(*references: Folder) -> Folder:
    """The first reference that is there; where none is, why the first one isn't."""
    return next((one for one in references if not isinstance(one, Missing)), references[0])
