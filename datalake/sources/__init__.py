"""Where documents come from: one module a kind of source, found by its kind and imported when it is first needed.

A new source is one file beside this one, or a folder, and one line in `KINDS`: a config, which imports nothing heavier
than pydantic, and a module that fulfils `datalake.sources.base.Reader`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Union, cast

from pydantic import Field

from datalake.errors import UserError

if TYPE_CHECKING:
    from datalake.sources.base import Reader
    from datalake.sources.config import SourceConfig

# kind -> its config, and the module that reads it, in this package
KINDS = {
    "common_crawl": ("web.config:CommonCrawl", "web.common_crawl"),
    "wikipedia": ("wikipedia.config:Wikipedia", "wikipedia.dump"),
    "code": ("code.config:Code", "code.files"),
    "books": ("books.config:Books", "books.books"),
    "table": ("tables.config:Table", "tables.table"),
    "stack_exchange": ("stack_exchange:StackExchange", "stack_exchange"),
    "pydoc": ("web.config:Pydoc", "web.pydoc"),
    "conversations": ("dialogues.config:Conversations", "dialogues.conversations"),
    "preferences": ("dialogues.config:Preferences", "dialogues.preferences"),
}


def config_of(kind: str) -> type[SourceConfig]:
    """The config of a kind of source."""
    module, _, name = KINDS[kind][0].partition(":")
    return cast("type[SourceConfig]", getattr(import_module(f"{__name__}.{module}"), name))


def reader(kind: str) -> Reader:
    """The module that reads sources of this kind: its functions `archives` and `read`. Raises UserError on another."""
    if kind not in KINDS:
        raise UserError(f"no source kind {kind!r}: choose one of {', '.join(KINDS)}")
    return cast("Reader", import_module(f"{__name__}.{KINDS[kind][1]}"))


if TYPE_CHECKING:
    Source = SourceConfig
else:  # a source of any kind, told by `kind`
    Source = Annotated[Union[tuple(map(config_of, KINDS))], Field(discriminator="kind")]  # noqa: UP007
