"""7z archives as a stream: members one after another in blocks, in memory alone.

py7zr pushes what it decodes into an object of the caller's. It runs in a thread here and waits on a short queue, so
that whoever reads takes the blocks one by one. Nothing is written to disk, so names inside the archive can do no harm.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datalake.document import Quarantined
from datalake.formats.allowance import BOMB, BombError, allowance_of
from datalake.formats.streams import BLOCK
from datalake.origin import Origin

SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_FED = 1 << 16  # bytes of the file that go to the decoder at once
_WAITING = 4  # blocks of at most BLOCK bytes that may wait for the reader


class _Stopped(Exception):  # noqa: N818 - no error: the reader has gone
    pass


def unpacked(path: str | Path, origin: Origin) -> Iterator[bytes | Quarantined]:
    """The bytes of all members of a 7z archive. Damage is one `Quarantined` over the file, behind what was decoded.

    Memory: the decoder's dictionary, a queue of 4 blocks of 256 KiB, and what 64 KiB of the file decode to: py7zr holds
    up to 128 MB of it, three times over, when an archive is packed a thousand to one. Raises OSError for a file
    that can't be read.
    """
    blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(_WAITING)
    stop = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not stop.is_set():
            try:
                blocks.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
        raise _Stopped

    with Path(path).open("rb") as stream:
        worker = threading.Thread(target=_extract, args=(stream, put), daemon=True)
        worker.start()
        try:
            done, allowance = 0, allowance_of(path)
            while (item := blocks.get()) is not None:
                if isinstance(item, bytes):
                    done += len(item)
                    allowance.take(len(item))
                    yield item
                    continue
                if isinstance(item, OSError) and item.errno is not None:
                    raise item
                detail = f"7z: {type(item).__name__}: {item}; {done} bytes were decoded before"
                yield origin.lost("damaged", detail.replace("\n", " "), 0, Path(path).stat().st_size)
                return
        except BombError as error:
            yield origin.lost(BOMB, f"7z: {error}", 0, Path(path).stat().st_size)
        finally:
            stop.set()
            worker.join()


def _extract(stream: Any, put: Any) -> None:
    """Decode all members and hand over their bytes; last comes None, or the error that ended it."""
    from py7zr import SevenZipFile
    from py7zr.io import Py7zIO, WriterFactory

    class Writer(Py7zIO):
        def __init__(self) -> None:
            self.written = 0

        def write(self, s: bytes | bytearray) -> int:
            for place in range(0, len(s), BLOCK):
                put(bytes(s[place : place + BLOCK]))
            self.written += len(s)
            return len(s)

        def read(self, size: int | None = None) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def flush(self) -> None:
            return

        def size(self) -> int:
            return self.written

    class Writers(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            return Writer()

    try:
        with SevenZipFile(stream, "r", blocksize=_FED) as archive:
            archive.extractall(factory=Writers())
        put(None)
    except _Stopped:
        return
    except BaseException as error:  # py7zr's own and those of five decoders; the reader says which it was
        try:
            put(error)
        except _Stopped:
            return
