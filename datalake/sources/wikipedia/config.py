"""The config of MediaWiki exports. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from datalake.identity import Paths, Place
from datalake.sources.config import PATHS, SourceConfig
from datalake.text.language_config import Language


class Wikipedia(SourceConfig):
    """Articles from MediaWiki XML exports (`pages-articles`), plain or compressed."""

    kind: Literal["wikipedia"] = "wikipedia"
    paths: Paths = PATHS
    namespaces: list[int] = Field(
        [0], title="Namespaces", description="Pages of other namespaces are refused; 0: articles."
    )
    redirects: bool = Field(
        default=False, title="Redirects", description="Keep redirect pages instead of refusing them."
    )
    max_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest page",
        description="In bytes; larger pages are refused.",
    )
    variant: Literal["zh-hans", "zh-cn", "zh-sg", "zh-hant", "zh-tw", "zh-hk"] = Field(
        default="zh-cn",
        title="Variant of Chinese",
        description="Which form is taken where an article offers several: -{zh-hans:...;zh-hant:...}-.",
    )
    conversion: Literal["none", "script", "vocabulary"] = Field(
        default="script",
        title="Conversion of Chinese",
        description="Of Chinese wikis: `script` writes all text in the variant's script (OpenCC) and follows the "
        "page's own rules; `vocabulary` also takes the words usual in the variant's region; `none` leaves "
        "text as it stands.",
    )
    disambiguations: bool = Field(
        default=False, title="Disambiguation pages", description="Keep them instead of refusing them."
    )
    infoboxes: bool = Field(
        default=False, title="Infoboxes", description="Keep them as lines of `key: value`; else they are left out."
    )
    split_bytes: Annotated[int, Place()] = Field(
        default=64_000_000,
        ge=0,
        title="Size of a part",
        description="Multistream bzip2 dumps are read in parts of at least so many compressed bytes; 0: whole.",
    )
    licence: str | None = Field(default="CC-BY-SA-4.0", title="Licence", description="SPDX identifier of the articles.")
    language: Language = Field(default=Language(), title="Language identification")
