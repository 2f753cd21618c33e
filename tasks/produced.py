"""What a stage function gives back: files that the wrapper makes the lake's, sums to be checked, things to be said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from datalake.lake.shards import ShardFile


@dataclass
class Produced:
    """What a stage function produced: files for tables, folders, and what it has to say.

    `tables` maps a short name (`raw`) to its schema and files; `folders` a name to a finished folder, and `named` that
    name to the files of shards that the folder speaks of. `unfinished`
    names shards that failed: the stage is then `partial`. `equations` are sums that must be equal, checked before
    the commit. `left_out` are rows of `runs.left_out`: what the stage was given and couldn't use, and why; `samples`
    rows of `runs.samples`: some of what a model wrote while it learned; `spikes` rows of `runs.spikes`: documents of
    steps whose loss jumped, ranked. `note` is one line that a person should read. `pages` are texts for the UI in
    markdown, by name: written only where there is a UI, after the commit.
    """

    tables: dict[str, tuple[pa.Schema, list[ShardFile]]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    named: dict[str, list[ShardFile]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    records_in: int = 0
    records_out: int = 0
    equations: list[tuple[str, int, int]] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    funnel: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    spikes: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    checkpoint: str | None = None
    pages: dict[str, Callable[[], str]] = field(default_factory=dict)
