"""Where documents come from: one module a kind of source, found by its kind and imported when it is first needed.

A new source is one file beside this one that fulfils `datalake.sources.base.Reader`, one config class in
`datalake.sources.config`, and one line in `MODULES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from datalake.errors import UserError

if TYPE_CHECKING:
    from datalake.sources.base import Reader

# kind -> the module in this package that reads it
MODULES = {
    "common_crawl": "web.common_crawl",
    "wikipedia": "wikipedia",
    "code": "code.files",
    "books": "books.books",
    "table": "tables.table",
    "pydoc": "web.pydoc",
    "conversations": "dialogues.conversations",
    "preferences": "dialogues.preferences",
}


def reader(kind: str) -> Reader:
    """The module that reads sources of this kind: its functions `shards` and `read`. Raises UserError on another."""
    if kind not in MODULES:
        raise UserError(f"no source kind {kind!r}: choose one of {', '.join(MODULES)}")
    return cast("Reader", import_module(f"{__name__}.{MODULES[kind]}"))
