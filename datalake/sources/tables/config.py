"""The config of tables. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from datalake.identity import Paths
from datalake.sources.config import HEADER, PATHS, SourceConfig
from datalake.text.language_config import Language


class Columns(BaseModel):
    """Which column of a table is what. A column that isn't there is left out, `text` excepted.

    `meta.url` is a nested column, `a|b` the first of two that has a value, `title+body` both with a blank line between
    them, `=en` the constant `en`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(default="id", title="Row id", description="Rows without one are known by their number.")
    text: str = Field(default="text", title="Text")
    uri: str = Field(default="uri", title="Address")
    language: str = Field(default="language", title="Language")
    licence: str = Field(default="licence", title="Licence")
    created: str = Field(default="created", title="Time of origin")


CORPORA = Literal[
    "columns", "auto", "c4", "refinedweb", "fineweb", "fineweb2", "openwebtext", "dolma", "pile", "roots",
    "chinesewebtext", "wanjuan",
]  # fmt: skip


class Table(SourceConfig):
    """Rows with a text: JSONL, Parquet, CSV or text files, alone or in zip and tar archives."""

    kind: Literal["table"] = "table"
    paths: Paths = PATHS
    format: CORPORA = Field(
        default="columns",
        title="Corpus",
        description="Whose columns the rows have; columns named in `columns` come before the corpus's. `columns`: no "
        "corpus's; `auto`: told by each row's keys.",
    )
    columns: Columns = Field(default=Columns(), title="Columns")
    delimiter: str = Field(
        default="",
        pattern=r"""^[^"\r\n]?$""",
        title="Delimiter",
        description="What parts the cells of CSV files; empty: a tab in .tsv files, else of comma, semicolon, tab and "
        "bar the one that the header is read with.",
    )
    header: tuple[str, ...] = HEADER
    text_unit: Literal["file", "line", "block"] = Field(
        default="file",
        title="Document of a text file",
        description="Of .txt files: `file` takes each whole, `line` each line (a text or sentence a line), `block` "
        "the lines between blank lines (poems, paragraphs). Blank lines are no documents.",
    )
    max_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest row",
        description="In bytes; larger rows are refused.",
    )
    language: Language = Field(default=Language(), title="Language identification")
