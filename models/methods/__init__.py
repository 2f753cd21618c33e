"""The methods of training, each in a file of its own, found by looking: `METHODS` has them in the pipeline's order.

A method's file defines its config, `data`, `prepare` and, last, the `Method` they make; it imports nothing heavier
than pydantic until it is asked for data.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from models.training.method import Method, in_order


def _found() -> list[Method[Any]]:
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return [value for module in modules for value in vars(module).values() if isinstance(value, Method)]


METHODS = in_order(_found())
