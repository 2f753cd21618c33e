"""`headwater what-if`: what other rules would keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from flows.commands.common import COMMON, Common
from flows.output import Console


def what_if(
    recipe: Path,
    *,
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", negative="", help="What to change: --set curate.thresholds.min_words=30"),
    ] = (),
    common: Common = COMMON,
) -> None:
    """What another threshold, preset or languages would keep, without rerunning.

    Parameters
    ----------
    recipe
        A YAML file that has been run; the answer is about its last finished run.
    """
    common.output.answer(common.open().what_if(recipe, set), _print)


def _print(console: Console, answer: Mapping[str, Any]) -> None:
    console.line(f"{answer['corpus']}, run {answer['run']}: {_settings(answer['changes'])}")
    console.line(
        f"kept {answer['before']:,} -> {answer['after']:,} of {answer['documents']:,}"
        f" ({answer['gained']:,} gained, {answer['lost']:,} lost)"
    )
    for note in answer["notes"]:
        console.line(f"note: {note}")
    for title, key in (("source", "sources"), ("language", "languages")):
        rows = [row for row in answer.get(key, ()) if key == "sources" or row["gained"] or row["lost"]]
        if rows:
            console.line()
            console.table(
                [title, "documents", "kept", "would be", "gained", "lost"],
                [[r["name"], r["documents"], r["before"], r["after"], r["gained"], r["lost"]] for r in rows],
            )
    rules = [
        row
        for row in answer.get("rules", ())
        if row["rejects_before"] != row["rejects_after"] or row["fails_before"] != row["fails_after"]
    ]
    if rules:
        console.line()
        columns = ("rejects_before", "rejects_after", "gained", "lost", "fails_before", "fails_after")
        console.table(
            ["rule", "rejects first", "would", "gained", "lost", "fails", "would fail"],
            [[row["rule"], *(row[name] for name in columns)] for row in rules],
        )
    for side, title in (("gained", "gained, for instance"), ("lost", "lost, for instance")):
        shown = answer["examples"][side]
        if shown:
            console.line(f"\n{title}:")
        for one in shown:
            why = f"  ({', '.join(one['rules'])})" if one.get("rules") else ""
            console.line(f"  {one['uri'] or one['id']}{why}")


def _settings(changes: dict[str, list[Any]]) -> str:
    """What differs, in one line; of thresholds the ones that do."""
    parts = []
    for name, (old, new) in changes.items():
        if isinstance(old, dict) and isinstance(new, dict) and "paths" not in old:
            for key in dict.fromkeys((*old, *new)):
                if old.get(key) != new.get(key):
                    was, then = (value.get(key, "as the preset has it") for value in (old, new))
                    setting = key if name == "thresholds" else f"{name}.{key}"
                    parts.append(f"{setting} {_value(was)} -> {_value(then)}")
        else:
            parts.append(f"{name} {_value(old)} -> {_value(new)}")
    return ", ".join(parts)


def _value(value: Any) -> str:
    if isinstance(value, dict) and "paths" in value:  # files: by where they lie
        value = value["paths"]
    if value is None or value == "" or value == []:
        return "not set"
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if isinstance(value, dict) and "op" in value:
        return f"{value['name']} ({value['metric']} {value['op']} {value['threshold']:g})"
    return f"{value:g}" if isinstance(value, float) else str(value)
