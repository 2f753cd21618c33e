"""Headwater in Python: `Lake` to ask what is in a lake, `Recipe` and `run` to fill one.

    from headwater import Lake, run

    run("recipes/demo.yaml", lake="lake", until="deduplicate")
    lake = Lake("lake")
    lake.query("SELECT rule, count(*) FROM demo.ledger GROUP BY ALL").to_pandas()
    lake.explain("pydoc:/json")

Each is imported when it is first named, and Prefect, Ray and PyTorch when a recipe is run. What a user can put right is
a `UserError` in one line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datalake.errors import UserError
    from flows.lake import Lake
    from flows.recipe import Recipe
    from flows.start import run

__all__ = ["Lake", "Recipe", "UserError", "run"]

_HOMES = {"Lake": "flows.lake", "Recipe": "flows.recipe", "UserError": "datalake.errors", "run": "flows.start"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if __name__ == "__main__":  # python -m headwater
    from flows.cli import main

    main()
