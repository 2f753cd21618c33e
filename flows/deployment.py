"""A step of deployments/prefect.yaml: what its deployments start from, so that no recipe is written down twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def defaults(recipe: str) -> dict[str, Any]:
    """The folder of Headwater's code and a recipe in it (`recipes/demo.yaml`), for the templates of prefect.yaml.

    Raises:
        UserError: where the recipe is missing or wrong.
    """
    from flows.recipe import at_home, load

    path = ROOT / recipe
    load(path)  # a mistake is told now and not when a run starts
    return {"root": str(ROOT), "recipe": at_home(yaml.safe_load(path.read_text(encoding="utf-8")), path.parent)}
