"""`headwater maintain`: what of a lake nothing needs any more, listed with its size, or removed."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from flows.commands.common import COMMON, Common
from flows.output import Console, command, note

_MOST = 40  # lines for people; programs get all


def maintain(
    *,
    days: float = 30,
    abandoned: Annotated[bool, Parameter(negative="")] = False,
    apply: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """What the lake holds that nothing needs any more; --apply removes it.

    Files of writers that were killed, shards and lists that no record and no manifest names, Iceberg's old snapshots,
    states of trainings that have finished. What a record, manifest, tag or checkpoint names stays, and so does what a
    running stage may use.

    Parameters
    ----------
    days
        What has changed since so many days stays.
    abandoned
        Also what stages that never finished would go on from.
    apply
        Remove it; without, it is only listed.
    """
    answer = common.open().maintain(days, abandoned, apply)
    common.output.answer(answer, lambda console, _: _draw(console, answer))
    for told in answer["notes"]:
        note(told)
    if answer["found"] and not apply:
        more = ["--days", f"{days:g}"] if days != 30 else []
        more += ["--abandoned"] if abandoned else []
        note(f"nothing was removed; to do so: {command('maintain', *more, '--apply', lake=common.folder)}")


def _draw(console: Console, answer: dict[str, Any]) -> None:
    found = sorted(answer["found"], key=lambda one: (-one["bytes"], one["path"]))
    if found:
        columns = ["kind", "bytes", "files", "path", "why"]
        console.table(columns, [[f"{one[name]:,}" if name in ("bytes", "files") else one[name] for name in columns]
                                for one in found[:_MOST]])  # fmt: skip
    if len(found) > _MOST:
        rest = found[_MOST:]
        console.line(f"and {len(rest):,} more of {sum(one['bytes'] for one in rest):,} bytes (--json lists them)")
    what = "removed" if answer["applied"] else "could be removed"
    number = sum(one["removed"] for one in found) if answer["applied"] else len(found)
    console.line(f"{number:,} things of {answer['bytes']:,} bytes {what}")
