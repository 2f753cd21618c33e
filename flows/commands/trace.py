"""`headwater trace`: the ancestors of a model, and what one of its training steps saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.commands.common import COMMON, Common
from flows.output import Console

_ARCHIVES_SHOWN = 20


def trace(checkpoint: str, *, step: int | None = None, common: Common = COMMON) -> None:
    """Ancestors of a model, or what one of its training steps saw.

    Parameters
    ----------
    checkpoint
        A stage of the last run (`ppo`), a checkpoint's folder, or a fingerprint.
    step
        Show what this step of the stage saw, counted from 1: documents of pretrain, dialogues of sft, pairs of reward,
        the dialogues of ppo's prompts.
    """
    common.output.answer(common.open().trace(checkpoint, step), _print_ancestors if step is None else _print_step)


def _print_ancestors(console: Console, ancestors: Sequence[Mapping[str, Any]]) -> None:
    console.table(
        ["stage", "fingerprint", "records in", "records out", "seconds", "commit", "made"],
        [
            [
                one["stage"],
                one["fingerprint"][:16],
                one["records_in"],
                one["records_out"],
                one["seconds"],
                (one["git_commit"] or "")[:12] + ("+" if one["git_dirty"] else ""),
                ", ".join(ref.get("table") or ref.get("name", "") for ref in one["outputs"]),
            ]
            for one in ancestors
        ],
    )
    archives: list[dict[str, Any]] = next((one["archives"] for one in ancestors if one["archives"]), [])
    console.line(f"\n{len(archives)} archives at the source:")
    for archive in archives[:_ARCHIVES_SHOWN]:
        console.line(f"  {archive['kind']}  {archive['name']}  {archive['version'][:16]}")
    if len(archives) > _ARCHIVES_SHOWN:
        console.line(f"  ... and {len(archives) - _ARCHIVES_SHOWN} more (--json shows all)")


def _print_step(console: Console, seen: Sequence[Mapping[str, Any]]) -> None:
    console.table(list(seen[0]), [list(row.values()) for row in seen])
