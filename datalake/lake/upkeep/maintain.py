"""Upkeep of a lake: what nothing names any more is listed with its size, and removed where that is wanted.

    temporary   what writers that were killed left under temporary names, and what was set aside as damaged
    shards      shards of stages that no reference names: of runs that never finished
    lists       lists of files that no record and no manifest names
    snapshots   Iceberg's snapshots but each table's last, and metadata files that no other snapshot needs
    results     Prefect's results of stages that have no record
    states      states of trainings that have finished, those that more steps could go on from included
    abandoned   folders and states of stages that never finished: what the same command would go on from

Never touched are: what a record, a manifest or a checkpoint names (a tag names a checkpoint, and all records stay); the
tables of all runs; what a stage in progress may use; what has changed within `days`; whatever isn't known here. Each
removal is one by itself and leaves the lake whole: a kill at any moment loses nothing but the rest of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.upkeep.expiry import expire
from datalake.lake.upkeep.named import ANY, Named, named
from datalake.lake.upkeep.waste import Waste, last_change, names, waste

DAYS = 30
_DAY_S = 86_400.0
_BEGUN = ("shards", "states", "abandoned")  # what a stage has begun with, or may find, before anything names it


@dataclass
class Upkeep:
    """What nothing needs; what of it was removed; what stays for now, in words."""

    found: list[Waste]
    removed: list[Waste] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def maintain(lake: Lake, days: float = DAYS, abandoned: bool = False, apply: bool = False) -> Upkeep:
    """List what nothing in a lake needs and what hasn't changed for so many days; remove it with `apply`.

    What is `abandoned` is left out unless asked for. Stages that would begin wait while things are removed.

    Raises:
        UserError: for less than a day: what has just been written may not be named yet.
    """
    if not days >= 1:
        raise UserError(f"{days:g} days: at least 1, since what has just been written may not be named yet")
    before, holds = time.time() - days * _DAY_S, named(lake)
    found = [one for one in waste(lake, holds, before) if abandoned or one.kind != "abandoned"]
    if not apply:
        return _unused(lake, found, holds)
    with lake.still():
        upkeep = _unused(lake, found, holds := named(lake))
        for one in upkeep.found:
            if one.kind == "snapshots":
                expire(lake, one.path.removeprefix("warehouse/").replace("/", "."), before, holds.snapshots)
            elif last_change(lake.root / one.path) < before:
                lake.remove(one.path)
            else:
                continue
            upkeep.removed.append(one)
    return upkeep


def _unused(lake: Lake, found: Sequence[Waste], holds: Named) -> Upkeep:
    """Leave out what is named after all, what may be, and what a stage in progress may use."""
    running = lake.running()
    busy = set(running.values())
    left, used, unclear = [], list[Waste](), list[Waste]()
    for one in found:
        stage = one.path.split("/")[1] if one.path.startswith(("shards/", "folders/")) else ANY
        if one.kind not in ("temporary", "snapshots") and names(holds, lake, one.path):
            continue
        if one.kind == "shards" and holds.unclear & {ANY, stage}:
            unclear.append(one)
        elif one.kind in _BEGUN and (busy if stage == ANY else busy & {ANY, stage}):
            used.append(one)
        else:
            left.append(one)
    notes = list(holds.notes)
    if used:
        who = ", ".join(f"{stage or 'a stage'} {fingerprint[:16]}" for fingerprint, stage in sorted(running.items()))
        notes.append(f"{_amount(used)} stay while stages run that may use them: {who}")
    if unclear:
        notes.append(f"{_amount(unclear)} stay, as not all that records name can be told: run their recipes again")
    return Upkeep(left, notes=notes)


def _amount(things: Sequence[Waste]) -> str:
    return f"{len(things):,} things of {sum(one.bytes for one in things):,} bytes"
