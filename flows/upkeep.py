"""The flow that keeps a lake small: `headwater maintain` on a schedule, with what it found as a table in the UI."""

from __future__ import annotations

from typing import Annotated, Any

import tasks.apart  # noqa: F401

# isort: split
from prefect import flow
from pydantic import Field

from datalake.lake.upkeep.maintain import DAYS
from flows.flows import in_one_line, lake_folder, surroundings
from flows.lake import Lake
from flows.parameters import LakeFolder
from tasks.shown import artifacts

_MOST = 100  # rows of the table in the UI


@flow(name="maintain")
@in_one_line
def maintain(
    apply: bool = False,
    days: Annotated[int, Field(ge=1, le=3650)] = DAYS,
    abandoned: bool = False,
    lake: LakeFolder = "",
) -> dict[str, Any]:
    """List what nothing in the lake needs any more, or remove it.

    Args:
        apply: remove it; else it is only listed.
        days: what has changed since so many days stays.
        abandoned: also what stages that never finished would go on from.
        lake: folder of the lake; the server's own when empty.
    """
    opened = Lake(lake_folder(lake))
    with surroundings(opened.store):
        answer = opened.maintain(days, abandoned, apply)
        found = sorted(answer["found"], key=lambda one: (-one["bytes"], one["path"]))
        what = "removed" if apply else "could be removed"
        artifacts.name_run(f"maintain: {len(found):,} things of {answer['bytes']:,} bytes {what}")
        for told in answer["notes"]:
            artifacts.note(told)
        if found:
            artifacts.publish_table("maintain", f"What {what}, the largest first", found[:_MOST])
        return answer
