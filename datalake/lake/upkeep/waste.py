"""What lies in a lake and is named by nothing, each thing with its kind, its size and the reason."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from datalake.lake.lake import Lake
from datalake.lake.upkeep.expiry import expired
from datalake.lake.upkeep.named import Named
from datalake.places import is_local

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp|.+\.damaged")  # see `datalake.atomic` and `contents.verify`
_ASIDE = re.compile(r"(?:catalog\.db.*|warehouse)\.aside-.+")  # see `iceberg.Tables`
_ROOMS = ("shards", "contents", "folders", "states", "records", "runs", "results")
_REPORT = "report.json"  # of a training that ended: `identity` is the name of its states (`models.training.method`)


class Waste(NamedTuple):
    """Something that nothing names: its kind, its path in the lake, its size, and why nothing needs it."""

    kind: str
    path: str
    bytes: int
    files: int
    why: str


def waste(lake: Lake, named: Named, before: float) -> Iterator[Waste]:
    """What is named by nothing and hasn't changed since a time (Unix, s), kind after kind, nothing inside another."""
    found = list(_waste(lake, named, before))
    paths = {one.path for one in found}
    return (one for one in found if not paths & set(_above(one.path)[:-1]))


def _waste(lake: Lake, named: Named, before: float) -> Iterator[Waste]:
    for path in _temporary(lake.root):
        yield from _old(lake, "temporary", path, before, "its writer has ended, or it was set aside")
    for stage in _inside(lake.root / "shards"):
        if "." not in stage.name:  # else a table that grows: all of its finished shards
            yield from _shards(lake, stage, named, before)
    for path in sorted((lake.root / "contents").glob("*/*.json")):
        if lake.relative(path) not in named.lists:
            yield from _old(lake, "lists", path, before, "no record and no manifest names it")
    for one in expired(lake, before, named.snapshots):
        number, place = len(one.snapshots), f"warehouse/{one.table.replace('.', '/')}"
        why = f"{number:,} snapshots aren't the last" if number else "metadata that no snapshot needs"
        yield Waste("snapshots", place, one.bytes, len(one.files), why)
    for path in _inside(lake.root / "results"):
        if path.name[:16] not in named.fingerprints:
            yield from _old(lake, "results", path, before, "there is no record of it")
    yield from _trainings(lake, named, before)


def names(named: Named, lake: Lake, path: str) -> bool:
    """Whether something names a path, what lies in it, or what it lies in."""
    where = set(_above(path))
    if path.startswith("shards/"):
        where |= {f"{path}/{one.name}" for one in (lake.root / path).glob("*")}
    return not all(where.isdisjoint(paths) for paths in (named.files, named.folders, named.lists))


def _above(path: str) -> list[str]:
    """A path and all that it lies in, itself last."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def last_change(path: Path) -> float:
    """When a thing, or something inside it, was written last (Unix, s); 0 where it isn't there."""
    return _measured(path)[0]


def _shards(lake: Lake, stage: Path, named: Named, before: float) -> Iterator[Waste]:
    """Shards that were never finished, and finished ones that no reference names.

    Those of what is no stage (answers of a checkpoint to benchmarks, say) are kept by what they answer.
    """
    for folder in sorted(stage.glob("*/*")):
        if (folder / "shard.json").exists():
            if stage.name in named.stages and not names(named, lake, lake.relative(folder)):
                yield from _old(lake, "shards", folder, before, "no record and no manifest names it")
        elif not folder.name.startswith("."):
            yield from _old(lake, "shards", folder, before, "it was never finished")


def _trainings(lake: Lake, named: Named, before: float) -> Iterator[Waste]:
    """States of trainings that have finished; states and folders of stages that never did."""
    finished, unfinished = set[str](), list[Path]()
    for folder in sorted((lake.root / "folders").glob("*/*")):
        if folder.name in named.fingerprints:
            with suppress(OSError, ValueError, KeyError, TypeError):
                finished.add(json.loads((folder / _REPORT).read_bytes())["identity"])
        elif not folder.name.startswith("."):
            unfinished.append(folder)
    for path in _inside(lake.root / "states"):
        if path.is_dir() and path.name in finished:
            yield from _old(lake, "states", path, before, "its training has finished; only more steps would need it")
        elif path.is_dir() and not path.name.startswith("."):
            yield from _old(lake, "abandoned", path, before, "a training that never finished would go on from it")
    for path in unfinished:
        if not names(named, lake, lake.relative(path)):
            yield from _old(lake, "abandoned", path, before, f"{path.parent.name} never finished")


def _temporary(root: Path) -> Iterator[Path]:
    """What has a temporary name or was set aside, and whose writer isn't alive; of the lake's own rooms alone."""
    yield from (path for path in _inside(root) if _ASIDE.fullmatch(path.name))
    left = [root / room for room in _ROOMS]
    while left:
        for path in _inside(left.pop()):
            if _TEMPORARY.fullmatch(path.name):
                if not _written(path.name):
                    yield path
            elif path.is_dir() and not path.is_symlink():
                left.append(path)


def _written(name: str) -> bool:
    """Whether the process that a temporary name tells is alive on this machine."""
    parts = name.rsplit(".", 2)
    if parts[-1] != "tmp":
        return False
    try:
        os.kill(int(parts[1]), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where there is none."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    if is_local(folder):
        return found
    # The empty object that a store's console makes for a folder is listed in it, by the folder's own name.
    return [path for path in found if path.name != folder.name or path.exists()]


def _old(lake: Lake, kind: str, path: Path, before: float, why: str) -> Iterator[Waste]:
    """A thing as waste, unless it has changed since."""
    changed, size, files = _measured(path)
    if changed < before:
        yield Waste(kind, lake.relative(path), size, files, why)


def _measured(path: Path) -> tuple[float, int, int]:
    """When a thing last changed, its bytes, how many files it is."""
    changed, size, files = 0.0, 0, 0
    with suppress(OSError):
        status = path.stat(follow_symlinks=False) if is_local(path) else path.stat()
        changed = float(status.st_mtime)
        if not path.is_dir() or path.is_symlink():
            return changed, status.st_size, 1
    for one in _inside(path):
        inner = _measured(one)
        changed, size, files = max(changed, inner[0]), size + inner[1], files + inner[2]
    return changed, size, files
