"""Files inside zip and tar archives (whl is a zip), read as streams: nothing is ever written to disk.

Names that would leave the archive (absolute, `..`) are quarantined, links are passed, and no member is decompressed
beyond the caller's limit, whatever its header says; nor all of them beyond the archive's allowance. Damage never
raises.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from datalake.document import Passed, Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.formats.streams import BLOCK, decompressed
from datalake.origin import Origin

DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError,
          RuntimeError, ValueError)  # fmt: skip
_ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LONGEST_HEADER = 1 << 20  # bytes of a tar member's extended header
_ZIP_HEADER = 30  # bytes before a file in a zip archive, its name not counted
_FED = 1 << 12


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


class Packed(NamedTuple):
    """A file in an archive, to be read before the next one is asked for: its name, its size, and what it holds.

    `offset` and `length` are its place in the archive. Reading its blocks may raise one of `DAMAGE`, or end before
    `size`; where that is the archive's fault, it stands in `damage`, and is told once more if it isn't taken out.
    """

    name: str
    size: int
    offset: int
    length: int
    blocks: Iterator[bytes]
    damage: list[Quarantined]


Entry = Packed | Passed | Quarantined


def archive_members(
    path: str, origin: Origin, max_bytes: int, wanted: Callable[[str], bool] | None = None
) -> Iterator[Member | Passed | Quarantined]:
    """Every file of an archive in its order; with `wanted`, only those whose names are."""
    allowance = allowance_of(path)
    if path.lower().endswith((".zip", ".whl")):
        files = zip_files(path, origin, allowance)
    else:
        files = tar_files(decompressed(path, origin, allowance), origin, allowance)
    for file in files:
        if not isinstance(file, Packed):
            yield file
        elif wanted is None or wanted(file.name):
            yield from _whole(file, origin, max_bytes)


def _whole(file: Packed, origin: Origin, max_bytes: int) -> Iterator[Member | Quarantined]:
    content, problem = bytearray(), ""
    try:
        for block in file.blocks:
            content += block
            if len(content) > max_bytes:
                break
    except BombError as error:
        yield origin.lost(BOMB, str(error))
        return
    except DAMAGE as error:
        problem = f"{file.name}: {error}"[:200]
    if file.damage:
        yield file.damage.pop()
    elif problem:
        yield origin.lost("damaged", problem, file.offset, file.length)
    else:
        whole = bytes(content) if len(content) <= max_bytes else None
        yield Member(file.name, whole, file.offset, max(file.size, len(content)))


def zip_files(path: str, origin: Origin, allowance: Allowance) -> Iterator[Entry]:
    """The files of a zip archive, without links, names that leave it and files that lie in another.

    Files that share bytes are how a small zip unpacks to a large one (Fifield 2019, "A better zip bomb").
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = _overlapping(archive.infolist())
            for info in archive.infolist():
                name, where = info.filename, (info.header_offset, info.compress_size)
                if info.is_dir():
                    continue
                if not safe(name):
                    yield origin.lost("path_traversal", name[:200], *where)
                elif (info.external_attr >> 28) == 0xA:
                    yield Passed("link")
                elif id(info) in inside:
                    yield origin.lost("overlap", f"{name[:150]} lies within another file", *where)
                else:
                    yield Packed(name, info.file_size, *where, _zip_blocks(archive, info, allowance), [])
    except DAMAGE as error:
        yield origin.lost("damaged", f"{type(error).__name__}: {error}"[:200])


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """The files (by id()) that begin before the one before them ends."""
    end, found = 0, set[int]()
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            found.add(id(info))
        else:
            end = info.header_offset + _ZIP_HEADER + info.compress_size
    return found


def _zip_blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, allowance: Allowance) -> Iterator[bytes]:
    # Of other methods than deflate a call decompresses all that it is asked for, whatever that comes to.
    size = BLOCK if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else _FED
    with archive.open(info) as stream:
        while block := stream.read(size):
            allowance.take(len(block))
            yield block


class _BoundedInfo(tarfile.TarInfo):
    """A tar member whose extended header, which tarfile holds whole, has a bound."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in extended and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def tar_files(chunks: Iterator[bytes | Quarantined], origin: Origin, allowance: Allowance) -> Iterator[Entry]:
    """The files of a tar archive in these bytes, without links, devices and names that leave it."""
    stream, place = _Stream(chunks), 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_BoundedInfo) as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it keeps all of them
                if not safe(info.name):
                    yield origin.lost("path_traversal", info.name[:200], info.offset, info.size)
                elif not info.isfile() and not info.isdir():
                    yield Passed("link" if info.issym() or info.islnk() else "special")
                elif content := archive.extractfile(info):
                    blocks = iter(partial(content.read, BLOCK), b"")
                    if info.issparse():  # of which bytes come that are in no archive
                        blocks = _counted(blocks, allowance)
                    yield Packed(info.name, info.size, info.offset, info.size, blocks, stream.damage)
                place = archive.offset
    except DAMAGE as error:
        if not stream.broken:
            yield origin.lost("damaged", f"{type(error).__name__}: {error}"[:200], place, -1)
            return
        if stream.broken != BOMB:
            yield origin.lost("damaged", f"the archive breaks off: {error}"[:200])
    if not stream.broken:  # where an archive ends is told by zeros
        behind = next((block for block in iter(lambda: stream.read(BLOCK), b"") if block.strip(b"\0")), b"")
        if behind:
            yield origin.lost("damaged", "something stands behind the archive's end")
        elif stream.tail.strip(b"\0"):
            yield origin.lost("truncated", "the archive doesn't end")
    yield from stream.damage


def _counted(blocks: Iterator[bytes], allowance: Allowance) -> Iterator[bytes]:
    for block in blocks:
        allowance.take(len(block))
        yield block


class _Stream(io.RawIOBase):
    """Chunks as a file to read from; ends at damage, which it keeps."""

    def __init__(self, chunks: Iterator[bytes | Quarantined]):
        self._chunks = chunks
        self._rest = b""
        self.tail = b""  # the last block that was read
        self.damage: list[Quarantined] = []
        self.broken = ""  # the reason of the damage

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest and not self.broken:
            chunk = next(self._chunks, b"")
            while chunk == b"" and (following := next(self._chunks, None)) is not None:
                chunk = following
            if isinstance(chunk, Quarantined):
                self.damage.append(chunk)
                self.broken = chunk.reason
            else:
                self._rest = chunk
        out, self._rest = (self._rest[:size], self._rest[size:]) if size >= 0 else (self._rest, b"")
        self.tail = (self.tail + out[-512:])[-512:]
        return out
