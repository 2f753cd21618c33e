"""How Iceberg reads and writes a lake in a store: by the same file systems, as patiently, as all else."""

from __future__ import annotations

from typing import Any

from pyiceberg.io.fsspec import FsspecFileIO

from datalake.places import place, store_of


class StoreIO(FsspecFileIO):
    """Iceberg's FileIO over `datalake.places`."""

    def get_fs(self, scheme: str, hostname: str | None = None) -> Any:
        """fsspec's file system for a protocol."""
        if scheme in ("", "file"):
            return super().get_fs("file", hostname)
        return store_of(place(f"{scheme}://bucket"))[0]
