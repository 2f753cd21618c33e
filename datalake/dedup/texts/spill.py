"""Large flat arrays within a budget: in memory while it lasts, then in files that the system pages in and out.

What is allotted first stays in memory, so the arrays that are walked most are asked for first.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt


class Spill:
    """Allots arrays; as a context manager, removes its files at the end."""

    def __init__(self, budget: int, pages: int, folder: str | Path | None = None):
        """`budget`: bytes of arrays in memory; `pages`: bytes of files in memory at once, about.

        `folder`: where the files go, the system's temporary one by default.
        """
        self.left = budget
        self.pages = pages
        self._parent = folder
        self._folder: TemporaryDirectory[str] | None = None
        self._maps: list[np.memmap[Any, Any]] = []
        self._touched = 0

    @property
    def spilled(self) -> int:
        """Bytes that lie in files."""
        return sum(array.nbytes for array in self._maps)

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array whose values are not set yet."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size <= self.left or size == 0:
            self.left -= size
            return np.empty(shape, dtype)
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix=".spill-", dir=self._parent)
        path = Path(self._folder.name) / f"{len(self._maps)}.bin"
        self._maps.append(np.memmap(path, dtype, "w+", shape=shape))
        return self._maps[-1]

    def touched(self, size: int) -> None:
        """Tell of pages with `size` bytes that were read or written: now and then they are let go."""
        self._touched += size
        if self._touched >= self.pages:
            self.release()

    def release(self) -> None:
        """Let go of the pages of files that are in memory just now; what was written to them stays."""
        self._touched = 0
        for array in self._maps:
            pages: mmap.mmap = array._mmap  # type: ignore[attr-defined]
            pages.madvise(mmap.MADV_DONTNEED)

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps.clear()
        if self._folder is not None:
            self._folder.cleanup()
