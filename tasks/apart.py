"""Prefect, imported so that no `.env`, `prefect.toml` or `pyproject.toml` of another project counts.

Prefect reads its settings once, when it is first imported, from the environment and from those files of the working
directory. Paths in a recipe are relative to that directory, so it stays the user's: only the import is done elsewhere.
Whoever imports Prefect imports this first. Where no lake is named (a notebook with its own Prefect) it does nothing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

_home = Path(os.environ.get("PREFECT_HOME", ""))
if "prefect" not in sys.modules and os.environ.get("HEADWATER_LAKE") and _home.is_absolute() and _home.is_dir():
    _folder = Path.cwd()
    os.chdir(_home)
    try:
        import_module("prefect.context")
    finally:
        os.chdir(_folder)
