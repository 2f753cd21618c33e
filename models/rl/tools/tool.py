"""A tool: what a policy is told of it, and what it gives for a call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from datalake.errors import UserError, first_line
from models.rl.tools.config import ToolUse

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class Tool(NamedTuple):
    """parameters: a JSON schema of an object, whose properties `call` takes by name. What it raises is what the policy
    is told; a UserError is said to the user, and ends the run."""

    name: str
    description: str
    parameters: dict[str, Any]
    call: Callable[..., str]

    def result(self, arguments: Mapping[str, Any]) -> str:
        """What a call gives, or what was wrong with it."""
        known = self.parameters.get("properties", {})
        if missing := [name for name in self.parameters.get("required", ()) if name not in arguments]:
            return f"error: {self.name} needs {', '.join(missing)}"
        if unknown := [name for name in arguments if name not in known]:
            return f"error: {self.name} takes {', '.join(known)}, not {', '.join(unknown)}"
        for name, value in arguments.items():
            kind = known[name].get("type", "")
            wrong = not isinstance(value, _TYPES.get(kind, (object,)))
            if wrong or (isinstance(value, bool) and kind in ("integer", "number")):
                return f"error: {name} is no {kind}"
        try:
            return self.call(**arguments)
        except UserError:
            raise
        except Exception as error:
            return f"error: {first_line(error)}"


def parameters(required: Sequence[str] = (), **properties: tuple[str, str]) -> dict[str, Any]:
    """The schema of an object with these properties: (type, description)."""
    described = {name: {"type": kind, "description": text} for name, (kind, text) in properties.items()}
    return {"type": "object", "properties": described, "required": list(required)}


def build(uses: Sequence[ToolUse], documents: Iterable[tuple[str, str]] | None = None) -> dict[str, Tool]:
    """The tools that a recipe names, by name. documents: (address, text) of what `search` looks through.

    Raises:
        UserError: where one doesn't take its options, or has no documents to look through.
    """
    tools: dict[str, Tool] = {}
    for use in uses:
        make = importlib.import_module(f"{__package__}.{use.tool}").tool
        given = {"documents": documents} if use.tool == "search" else {}
        if use.tool in tools:
            raise UserError(f"tools: {use.tool!r} is named twice: leave one out")
        try:
            tools[use.tool] = make(**given, **use.options)
        except TypeError as error:
            raise UserError(f"tools: {use.tool} doesn't take its options ({first_line(error)})") from None
    return tools


def schemas(tools: Mapping[str, Tool]) -> list[dict[str, Any]]:
    """The tools as a chat template is handed them (OpenAI's form)."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools.values()
    ]
