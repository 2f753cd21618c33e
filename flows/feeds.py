"""The flows that keep a lake up to date: new snapshots of Common Crawl, a wiki's latest export, code as it stands.

Each is a recipe of `recipes/` up to `ingest`, with the fields of its form in place of what stands there. What has been
read before costs nothing; where raw has grown, an event says so (`flows.announcements`), which may start the curation.
"""

from __future__ import annotations

import json
from typing import Annotated

import tasks.apart  # noqa: F401

# isort: split
from prefect import flow
from pydantic import Field

from datalake.lake.records import StageReport
from flows.flows import in_one_line, run_recipe
from flows.parameters import NONE, LakeFolder, Overrides

CODE = ["python:site-packages"]


@flow(name="crawl")
@in_one_line
def crawl(
    snapshots: str = "CC-MAIN-2024-22..",
    archives: Annotated[int, Field(ge=0, le=100_000)] = 1,
    languages: list[str] = NONE,
    set: Overrides = NONE,
    lake: LakeFolder = "",
) -> list[StageReport]:
    """Read what is new of Common Crawl.

    Args:
        snapshots: one, a range such as `CC-MAIN-2024-22..` (that one and every later one), or `newest`.
        archives: so many of each snapshot, drawn by chance; 0 for all of them.
        languages: pick only pages in these, by the crawl's index; three letters each, such as `isl`. Then `archives`
            counts pages.
        set: other values of recipes/crawl.yaml to override.
        lake: folder of the lake; the server's own when empty.
    """
    chosen = [f"sources[0].snapshots={json.dumps([snapshots])}", f"sources[0].sample={archives or 'null'}"]
    if languages:
        chosen.append(f"sources[0].where={json.dumps({'languages': languages})}")
    return run_recipe("recipes/crawl.yaml", [*chosen, *set], "ingest", lake)


@flow(name="wikipedia")
@in_one_line
def wikipedia(
    wiki: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)] = "simplewiki",
    dumps: str = "https://dumps.wikimedia.org",
    set: Overrides = NONE,
    lake: LakeFolder = "",
) -> list[StageReport]:
    """Read a wiki's latest export.

    Args:
        wiki: as the dumps call it: `simplewiki`, `enwiki`, `zhwiki`, `dewikibooks`.
        dumps: the server of the dumps, a mirror of it, or a folder.
        set: other values of recipes/wikipedia.yaml to override.
        lake: folder of the lake; the server's own when empty.
    """
    return run_recipe("recipes/wikipedia.yaml", [f"vars.wiki={wiki}", f"vars.dumps={dumps}", *set], "ingest", lake)


@flow(name="code")
@in_one_line
def code(paths: list[str] = CODE, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
    """Read code as it stands now.

    Args:
        paths: folders, git repositories, archives or addresses of these; `python:site-packages` is what is installed.
        set: other values of recipes/code.yaml to override.
        lake: folder of the lake; the server's own when empty.
    """
    return run_recipe("recipes/code.yaml", [f"sources[0].paths={json.dumps(paths)}", *set], "ingest", lake)
