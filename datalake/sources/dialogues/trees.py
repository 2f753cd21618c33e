"""OpenAssistant's trees of messages (Köpf et al. 2023, arXiv:2304.07327), as trees or message by message.

In a tree file a row is a tree: `prompt`, a message with `replies`. In a message file a row is a message with
`message_id` and `parent_id`; those of one tree follow each other. Of several replies the best is the one that the
annotators ranked first (`rank` 0), else the first that comes. A dialogue is a way down from the prompt to an answer
that no other answer follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datalake.sources.dialogues.turns import InvalidError, Messages, turns


@dataclass(slots=True)
class Path:
    """One way down a tree: its messages, or why it is none; `part` is the last one's id."""

    messages: Messages
    tree: str = ""
    lang: str = ""
    part: str = ""
    problem: InvalidError | None = None
    steps: list[int] = field(default_factory=list)  # places of its messages among the tree's


def is_tree(row: dict[str, Any]) -> bool:
    """Whether a row is a tree."""
    return isinstance(row.get("prompt"), dict) and "replies" in row["prompt"]


def is_message(row: Any) -> bool:
    """Whether a row is a message of a tree."""
    return isinstance(row, dict) and "message_id" in row and "parent_id" in row and "text" in row


def paths_of(row: dict[str, Any], all_paths: bool) -> list[Path]:
    """The dialogues of a tree: the best, or all; one with a problem where there is none."""
    nodes: list[dict[str, Any]] = []
    parents: list[int] = []
    waiting: list[tuple[Any, int]] = [(row["prompt"], -1)]
    while waiting:  # no recursion: a tree may be deep
        node, parent = waiting.pop()
        if not isinstance(node, dict):
            continue
        nodes.append(node)
        parents.append(parent)
        replies = node.get("replies")
        waiting += [(reply, len(nodes) - 1) for reply in reversed(replies if isinstance(replies, list) else [])]
    tree = str(row.get("message_tree_id") or "")
    found = ways(nodes, parents, all_paths)
    if not found:
        return [Path([], tree, problem=InvalidError("unanswered", "no answer in the tree"))]
    out = []
    for steps in found:
        path = dialogue_of(nodes, steps)
        path.tree = tree
        path.part = path.part if all_paths else ""
        out.append(path)
    return out


def dialogue_of(nodes: list[dict[str, Any]], steps: list[int]) -> Path:
    """The messages of one way down."""
    last = nodes[steps[-1]]
    path = Path([], str(last.get("message_tree_id") or ""), str(last.get("lang") or ""), steps=steps)
    path.part = str(last.get("message_id") or steps[-1])
    try:
        path.messages = turns([{"role": nodes[step].get("role"), "text": nodes[step].get("text")} for step in steps])
    except InvalidError as problem:
        path.problem = problem
    return path


def ways(nodes: list[dict[str, Any]], parents: list[int], all_paths: bool) -> list[list[int]]:
    """Every way from a root (its parent is -1) to an answer that none follows, or the best one alone.

    Messages that were deleted lead nowhere. `parents` come before their children or point at them; a loop is no way.
    """
    children: dict[int, list[int]] = {}
    for place, parent in enumerate(parents):
        if not nodes[place].get("deleted"):
            children.setdefault(parent, []).append(place)
    for replies in children.values():
        replies.sort(key=lambda place: (_rank(nodes[place]), place))
    found: list[list[int]] = []
    ends: set[int] = set()  # the last messages of those
    waiting = [[place] for place in reversed(children.get(-1, []))]
    while waiting:
        way = waiting.pop()
        further = children.get(way[-1], [])
        if not all_paths:
            further = further[:1]
        waiting += [[*way, place] for place in reversed(further)]
        if not further and len(way) > 1:
            answers = [place for place in way if nodes[place].get("role") == "assistant"]
            if answers and answers[-1] not in ends:
                ends.add(answers[-1])
                found.append(way[: way.index(answers[-1]) + 1])
        if found and not all_paths:
            break
    if all_paths:  # an answer that another way goes on behind is no end
        inner = {place for way in found for place in way[:-1]}
        found = [way for way in found if way[-1] not in inner]
    return found


def _rank(node: dict[str, Any]) -> float:
    rank = node.get("rank")
    if isinstance(rank, int | float) and not isinstance(rank, bool) and abs(rank) < 1e300:
        return float(rank)
    return float("inf")


def connected(parents: list[int]) -> list[bool]:
    """For each message whether a way leads up from it to a root."""
    known: dict[int, bool] = {-1: True, -2: False}
    for place in range(len(parents)):
        way = []
        while place not in known:
            way.append(place)
            known[place] = False  # until shown otherwise: a loop leads nowhere
            place = parents[place]
        known |= dict.fromkeys(way, known[place])
    return [known[place] for place in range(len(parents))]
