"""Content versions of input files, remembered by path, size and time so that an unchanged file is read once."""

from __future__ import annotations

import json
from pathlib import Path

from datalake.identity import file_digest
from datalake.shards import write_atomically


class FileVersions:
    """The xxh128 of files. `remembered` is a JSON file in the lake; a file changed in place gets a new version."""

    def __init__(self, remembered: Path):
        self._path = remembered
        try:
            known = json.loads(remembered.read_bytes())
        except (FileNotFoundError, ValueError):  # not there, or nothing that was written here
            known = {}
        entries = known.items() if isinstance(known, dict) else ()
        self._known: dict[str, list[object]] = {
            path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 4
        }
        self._fresh = False

    def version(self, path: str) -> str:
        """The version of a file's content. Raises OSError where it can't be read."""
        place = Path(path).absolute()
        status = place.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._known.get(str(place))
        if known is None or known[:3] != stamp:
            known = [*stamp, file_digest(str(place))]
            self._known[str(place)] = known
            self._fresh = True
        return str(known[3])

    def save(self) -> None:
        """Remember what was learnt. Two runs at once may each keep their own; what is forgotten is only read again."""
        if self._fresh:
            write_atomically(self._path, json.dumps(self._known, sort_keys=True).encode())
            self._fresh = False
