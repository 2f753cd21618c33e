"""What every flow is asked for: a recipe, overrides, how far. Both Prefect UIs draw their forms from these types.

A form shows few fields: the recipes at hand as a list, any other file as a path, a whole recipe as JSON. The schema
says more than is drawn: `then` holds an inline recipe against the Recipe's own schema, so that the server refuses a
mistake when the run is asked for. Neither UI draws what stands under `then`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from flows.recipe import Recipe, load, override, validate
from flows.stages import STAGES, StageName, TrainingStage

__all__ = [
    "DEMO",
    "LAST",
    "NONE",
    "LakeFolder",
    "Overrides",
    "RecipeOrPath",
    "StageName",
    "TrainingStage",
    "recipes_at_hand",
    "resolve",
]

ROOT = Path(__file__).parent.parent
DEMO = "recipes/demo.yaml"
LAST: StageName = STAGES[-1]
NONE: list[str] = []


def recipes_at_hand() -> list[str]:
    """The files of `recipes/`, relative to the repository's root, where deployments run; the demo comes first."""
    found = sorted(path.name for path in (ROOT / "recipes").glob("*.yaml"))
    return [f"recipes/{name}" for name in sorted(found, key=lambda name: (name != "demo.yaml", name))]


class _Form:
    """The JSON schema of a recipe given by name, by path or whole."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        handler(schema)
        # The path comes first: V1 draws the first alternative of a value's type, V2 the list where the value is in it.
        names = {"type": "string", "title": "One of recipes/", "enum": recipes_at_hand()}
        path = {"type": "string", "title": "A file"}
        whole = {"type": "object", "title": "A whole recipe"}
        return {
            "anyOf": [path, *([names] if names["enum"] else []), whole],
            "if": {"type": "object"},
            "then": handler(Recipe.__pydantic_core_schema__),
        }


# What a field is for stands in the flows' docstrings: Prefect's forms show those.
RecipeOrPath = Annotated[str | dict[str, Any], _Form()]
Overrides = list[str]
LakeFolder = str


def resolve(recipe: str | dict[str, Any], overrides: Sequence[str]) -> Recipe:
    """The recipe of a flow's parameters.

    Raises:
        UserError: in one line, for a file that isn't there or a mistake in it.
    """
    if isinstance(recipe, str):
        return load(recipe, overrides)
    override(data := deepcopy(recipe), overrides)
    return validate(data, "recipe")
