"""Files inside zip and tar archives (whl is a zip), read in memory: nothing is ever written to disk.

Names that would leave the archive (absolute, `..`) are quarantined, links are passed, and no member is decompressed
beyond the caller's limit, whatever its header says; nor all of them beyond the archive's allowance.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from datalake.document import Passed, Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.formats.streams import BLOCK, compression
from datalake.origin import Origin

DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError,
          RuntimeError, ValueError)  # fmt: skip
_ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPENERS: dict[str, Callable[[str], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
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


def archive_members(
    path: str, origin: Origin, max_bytes: int, wanted: Callable[[str], bool] | None = None
) -> Iterator[Member | Passed | Quarantined]:
    """Every file of an archive in its order; with `wanted`, only those whose names are. Damage never raises."""
    members = _zip if path.lower().endswith((".zip", ".whl")) else _tar
    try:
        yield from members(path, origin, max_bytes, wanted)
    except BombError as error:
        yield origin.lost(BOMB, str(error))
    except DAMAGE as error:
        yield origin.lost("damaged", f"{type(error).__name__}: {error}"[:200])


def zip_members(archive: zipfile.ZipFile, origin: Origin) -> Iterator[zipfile.ZipInfo | Passed | Quarantined]:
    """The files of a zip archive, without links, names that leave it and files that lie in another.

    Files that share bytes are how a small zip unpacks to a large one (Fifield 2019, "A better zip bomb").
    """
    inside = _overlapping(archive.infolist())
    for info in archive.infolist():
        if info.is_dir():
            continue
        if not safe(info.filename):
            where = (info.header_offset, info.compress_size)
            yield origin.lost("path_traversal", info.filename[:200], *where)
        elif (info.external_attr >> 28) == 0xA:
            yield Passed("link")
        elif id(info) in inside:
            detail = f"{info.filename[:150]} lies within another file"
            yield origin.lost("overlap", detail, info.header_offset, info.compress_size)
        else:
            yield info


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """The files (by id()) that begin before the one before them ends."""
    end, found = 0, set[int]()
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            found.add(id(info))
        else:
            end = info.header_offset + _ZIP_HEADER + info.compress_size
    return found


def zip_blocks(stream: IO[bytes], info: zipfile.ZipInfo, allowance: Allowance) -> Iterator[bytes]:
    """What a file of a zip archive holds. Raises BombError beyond the allowance."""
    # Of other methods than deflate a call decompresses all that it is asked for, whatever that comes to.
    size = BLOCK if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else _FED
    while block := stream.read(size):
        allowance.take(len(block))
        yield block


def _zip(
    path: str, origin: Origin, max_bytes: int, wanted: Callable[[str], bool] | None
) -> Iterator[Member | Passed | Quarantined]:
    allowance = allowance_of(path)
    with zipfile.ZipFile(path) as opened:
        for info in zip_members(opened, origin):
            if not isinstance(info, zipfile.ZipInfo):
                yield info
            elif wanted is None or wanted(info.filename):
                name, offset = info.filename, info.header_offset
                content = bytearray()
                try:
                    with opened.open(info) as stream:
                        for block in zip_blocks(stream, info, allowance):
                            content += block
                            if len(content) > max_bytes:
                                break
                except BombError:
                    raise
                except DAMAGE as error:
                    problem = f"{name}: {error}"[:200]
                    yield origin.lost("damaged", problem, offset, info.compress_size)
                    continue
                whole = bytes(content) if len(content) <= max_bytes else None
                yield Member(name, whole, offset, max(info.file_size, len(content)))


class BoundedInfo(tarfile.TarInfo):
    """A tar member whose extended header, which tarfile holds whole, has a bound."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in extended and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


class _Unpacked(io.RawIOBase):
    """A decompressed file within an allowance: what is passed over counts, too."""

    def __init__(self, inner: Any, allowance: Allowance):
        self._inner, self._allowance = inner, allowance
        self._at = self._farthest = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        block = self._inner.read(len(buffer))
        buffer[: len(block)] = block
        self._at += len(block)
        self._allowance.take(max(0, self._at - self._farthest))
        self._farthest = max(self._farthest, self._at)
        return len(block)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        if offset < self._at:
            self._at = self._inner.seek(offset)
        block = memoryview(bytearray(BLOCK))
        while self._at < offset and self.readinto(block[: offset - self._at]):
            pass
        return self._at


@contextmanager
def _opened_tar(path: str) -> Iterator[tarfile.TarFile]:
    with Path(path).open("rb") as file:
        opener = _OPENERS.get(compression(file.read(10)))
    if opener is None:
        with tarfile.open(path, "r:", tarinfo=BoundedInfo) as archive:
            yield archive
        return
    with opener(path) as inner:
        stream = io.BufferedReader(_Unpacked(inner, allowance_of(path)))
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=BoundedInfo) as archive:
            yield archive


def _tar(
    path: str, origin: Origin, max_bytes: int, wanted: Callable[[str], bool] | None
) -> Iterator[Member | Passed | Quarantined]:
    with _opened_tar(path) as opened:
        while True:
            place = opened.offset
            try:
                info = opened.next()
                opened.members = []  # type: ignore[attr-defined]  # or it keeps all of them
                if info is None:
                    return
                name = info.name
                if info.isdir():
                    continue
                if not safe(name):
                    yield origin.lost("path_traversal", name[:200], info.offset, info.size)
                elif not info.isfile():
                    yield Passed("link" if info.issym() or info.islnk() else "special")
                elif wanted is None or wanted(name):
                    stream = opened.extractfile(info) if info.size <= max_bytes else None
                    content = stream.read() if stream else None
                    yield Member(name, content, info.offset, info.size)
            except BombError:
                raise
            except DAMAGE as error:
                yield origin.lost("damaged", f"{type(error).__name__}: {error}"[:200], place, -1)
                return
