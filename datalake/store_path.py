"""Addresses of S3 as paths, whose whole content is read by one request.

universal_pathlib asks for an object's tag first, and then for the object if it still has that tag: what another machine
writes anew between the two, such as the metrics of a stage that trains, would be an error.
"""

from __future__ import annotations

from upath import UPath
from upath.implementations.cloud import S3Path
from upath.registry import register_implementation

__all__ = ["StorePath", "UPath"]


class StorePath(S3Path):
    """A path in S3."""

    def read_bytes(self) -> bytes:
        """All of it, as it is when it is asked for. Raises FileNotFoundError."""
        return bytes(self.fs.cat_file(self.path))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """The same as text; ends of lines stay what they are."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")


for _protocol in ("s3", "s3a"):
    register_implementation(_protocol, StorePath, clobber=True)  # what UPath makes of such an address from now on
