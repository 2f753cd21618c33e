"""Where an export goes: a folder that is written whole or not at all, and never in place of what is no export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from datalake.atomic import whole_folder
from datalake.errors import UserError, first_line

CARD = "README.md"


@contextmanager
def destination(out: Path, force: bool = False) -> Iterator[Path]:
    """A folder to fill, which is called `out` when the block is left; an exception leaves what was there before.

    Raises:
        UserError: where `out` is there already, or with `force` is no earlier export, or it can't be written.
    """
    out = out.absolute()
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is there already and no folder: name another place")
    inside = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if inside and not force:
        raise UserError(f"{out} is there already: name another folder, or replace it with --force")
    if inside and not (CARD in inside and inside & {"config.json", "data"}):
        raise UserError(f"{out} holds something else than an export, which --force won't remove: name another folder")
    try:
        with whole_folder(out) as folder:
            yield folder
    except Exception as error:
        # Writers in Rust say what the system told them in words alone.
        if not isinstance(error, OSError | SafetensorError) and "(os error " not in str(error):
            raise
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{out} can't be written ({why}): make room there, or name another folder") from None
