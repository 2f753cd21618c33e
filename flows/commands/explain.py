"""`headwater explain`: what became of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datalake.printable import from_terminal, one_line
from flows.commands.common import COMMON, Common
from flows.output import Console, text


def explain(document: str, *, common: Common = COMMON) -> None:
    """What became of a document, and why.

    Parameters
    ----------
    document
        Its address (`uri`) or its id in hex.
    """
    common.output.answer(common.open().explain(from_terminal(document)), _print)


def _print(console: Console, stories: Sequence[Mapping[str, Any]]) -> None:
    for story in stories:
        # All values of a document's metrics are the longest part and the last that people look for.
        for name, value in sorted(story.items(), key=lambda part: part[0] == "curation"):
            if isinstance(value, dict):
                console.line(f"{name}:")
                for key, item in value.items():
                    console.line(f"  {one_line(key):<22} {one_line(text(item))}")
            elif name == "judged":
                console.line("rules:")
                for rule in value:
                    console.line(f"  {rule_line(rule)}")
            else:
                console.line(f"{name:<24} {one_line(text(value))}")
        console.line()


def rule_line(rule: Mapping[str, Any]) -> str:
    """A rule and how a document stood to it, for people: its name, value, what was asked, and by whom."""
    if rule["metric"] is None:
        return f"{rule['outcome']:<9} {rule['rule']:<22} ({rule['source']})"
    found = "missing" if rule["value"] is None else text(rule["value"])
    return (
        f"{rule['outcome']:<9} {rule['rule']:<22} {rule['metric']} {found}"
        f" (asked {rule['operator']} {rule['threshold']:g}; {rule['source']})"
    )
