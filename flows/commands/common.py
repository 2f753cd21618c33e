"""What every command takes: the lake, and whether it answers people or programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from datalake.places import root_of
from flows.output import Console, Json, Output

if TYPE_CHECKING:
    from flows.lake import Lake


@Parameter(name="*")
@dataclass
class Common:
    """What every command takes."""

    lake: Annotated[
        str | Path, Parameter(env_var="HEADWATER_LAKE", help="The lake: a folder, or s3://bucket/prefix")
    ] = "lake"
    log: Annotated[
        Literal["text", "json"],
        Parameter(env_var="HEADWATER_LOG", help="What stderr says: lines for people, or JSON objects for programs"),
    ] = "text"
    json: Annotated[bool, Parameter(negative="", help="Print JSON alone on stdout; logs go to stderr")] = False

    def __post_init__(self) -> None:
        if self.log == "json":
            from tasks.shown import events

            os.environ[events.LOG] = "json"
            events.listen()

    @property
    def folder(self) -> Path:
        """The lake as an absolute path, where it really lies, or as its address."""
        return root_of(self.lake)

    @property
    def output(self) -> Output:
        """Where the command's answer goes."""
        return Json() if self.json else Console()

    def open(self) -> Lake:
        """The lake. Raises UserError where there is none."""
        from flows.lake import Lake

        return Lake(self.folder)


COMMON = Common()
