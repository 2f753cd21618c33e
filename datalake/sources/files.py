"""Files inside zip and tar archives (whl is a zip), read in memory: nothing is ever written to disk.

Names that would leave the archive (absolute, `..`) are quarantined, links are passed, and no member is decompressed
beyond the caller's limit, whatever its header says.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from datalake.document import Passed, Quarantined
from datalake.sources.protocol import InputShard

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError,
           RuntimeError, ValueError)  # fmt: skip
_ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass(slots=True)
class Member:
    """A file in an archive. `content` is None where it is larger than the limit; `offset` is its header's place."""

    name: str
    content: bytes | None
    offset: int
    length: int


def is_archive(path: str) -> bool:
    """Whether a path is named like an archive and isn't a folder."""
    return path.lower().endswith(_ARCHIVES) and not Path(path).is_dir()


def safe(name: str) -> bool:
    """Whether a member's name stays inside its archive, on any system."""
    windows = PureWindowsPath(name)
    return not (name.startswith(("/", "\\")) or windows.drive or ".." in windows.parts or "\0" in name)


def archive_members(
    shard: InputShard, source: str, max_bytes: int, wanted: tuple[str, ...] | None = None
) -> Iterator[Member | Passed | Quarantined]:
    """Every file of an archive in its order; with `wanted`, only names with these endings. Damage never raises."""
    members = _zip if shard.path.lower().endswith((".zip", ".whl")) else _tar
    try:
        yield from members(shard, source, max_bytes, wanted)
    except _DAMAGE as error:
        yield Quarantined(source, shard.name, "damaged", f"{type(error).__name__}: {error}"[:200])


def _zip(
    shard: InputShard, source: str, max_bytes: int, wanted: tuple[str, ...] | None
) -> Iterator[Member | Passed | Quarantined]:
    with zipfile.ZipFile(shard.path) as archive:
        for info in archive.infolist():
            name, offset, length = info.filename, info.header_offset, info.file_size
            if info.is_dir():
                continue
            if not safe(name):
                yield Quarantined(source, shard.name, "path_traversal", name[:200], offset, info.compress_size)
            elif (info.external_attr >> 28) == 0xA:
                yield Passed("link")
            elif wanted is None or name.lower().endswith(wanted):
                try:
                    with archive.open(info) as stream:
                        content = stream.read(max_bytes + 1)
                except _DAMAGE as error:
                    problem = f"{name}: {error}"[:200]
                    yield Quarantined(source, shard.name, "damaged", problem, offset, info.compress_size)
                    continue
                yield Member(name, content if len(content) <= max_bytes else None, offset, max(length, len(content)))


def _tar(
    shard: InputShard, source: str, max_bytes: int, wanted: tuple[str, ...] | None
) -> Iterator[Member | Passed | Quarantined]:
    with tarfile.open(shard.path, "r:*") as archive:
        while True:
            place = archive.offset
            try:
                info = archive.next()
                if info is None:
                    return
                name = info.name
                if info.isdir():
                    continue
                if not safe(name):
                    yield Quarantined(source, shard.name, "path_traversal", name[:200], info.offset, info.size)
                elif not info.isfile():
                    yield Passed("link" if info.issym() or info.islnk() else "special")
                elif wanted is None or name.lower().endswith(wanted):
                    stream = archive.extractfile(info) if info.size <= max_bytes else None
                    content = stream.read() if stream else None
                    yield Member(name, content, info.offset, info.size)
            except _DAMAGE as error:
                yield Quarantined(source, shard.name, "damaged", f"{type(error).__name__}: {error}"[:200], place, -1)
                return
