"""Checkpoints as people name them: a stage, a tag, a folder, a GGUF file, a fingerprint, `last`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datalake.errors import UserError
from datalake.lake.copies import near_folder
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.records import find_manifest
from datalake.lake.tags import tags
from datalake.lake.trace import find_checkpoint, find_manifest_of
from flows.stages import ANSWERING, TRAINING


@dataclass(frozen=True)
class Chosen:
    """A checkpoint: its folder and, of one that the lake made, the stage and the run."""

    folder: Path
    stage: str | None = None
    run: str | None = None
    corpus: str | None = None
    fingerprint: str | None = None

    @property
    def here(self) -> Path:
        """Its folder, or GGUF file, on this machine's disk."""
        return near_folder(self.folder)

    def __str__(self) -> str:
        return f"{self.stage} of run {self.run} ({self.corpus}): {self.folder}" if self.stage else str(self.folder)


def choose(name: str, lake: Path, run: str | None = None) -> Chosen:
    """A checkpoint by stage (of the last run, or of `run`), tag, fingerprint, folder or GGUF file; those two needn't be
    in the lake. A folder that is called as a tag is `./current`."""
    if name not in ("last", "newest", *TRAINING) and name not in tags(Lake(lake)):
        try:
            path = Path(name).expanduser()
            if (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file()):
                return Chosen(path)
            there = path.exists()
        except (OSError, RuntimeError, ValueError):  # too long, or of a user that there isn't
            there = False
        if there:
            raise UserError(f"{path} is not a checkpoint: it has no config.json")
    opened = Lake(lake).require()
    record = find_checkpoint(opened, name, TRAINING, ANSWERING, run)
    folder = next((opened.path(ref) for ref in record.outputs.values() if isinstance(ref, FolderRef)), None)
    if folder is None or record.stage not in TRAINING:
        models = f"{', '.join(ANSWERING[:-1])} or {ANSWERING[-1]}"
        raise UserError(f"{name} is a record of {record.stage}, which makes no model: chat with {models}")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is gone or not a checkpoint: run the recipe again")
    if run:
        manifest = find_manifest(opened, run)
        of = manifest.run, manifest.corpus
    else:
        try:
            manifest = find_manifest_of(opened, record)
            of = manifest.run, manifest.corpus
        except UserError:  # the newest one, of a run that hasn't finished
            of = record.run, record.corpus
    return Chosen(folder, record.stage, *of, record.fingerprint)


def names(chosen: Iterable[Chosen]) -> list[str]:
    """A name for each checkpoint: its stage, or its folder; numbered where that is taken."""
    found: list[str] = []
    for one in chosen:
        name = one.stage or one.folder.resolve().name.removesuffix(".gguf")
        if name == "checkpoint":  # as a stage calls it
            name = one.folder.resolve().parent.name
        again = 2
        while (numbered := name if again == 2 and name not in found else f"{name}-{again}") in found:
            again += 1
        found.append(numbered)
    return found
