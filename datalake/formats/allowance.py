"""How much an archive may unpack to, so that what a bomb costs is bounded by the bytes that it has.

Text packs three to ten times, repetitive tables a hundred, complete histories of a wiki nearly two hundred times. What
unpacks to more than `RATIO` times its size, and `FREE` beyond that, is read up to there; the rest is one `Quarantined`
of reason `bomb`. Archives within an archive share the allowance of the outermost.
"""

from __future__ import annotations

from pathlib import Path

FREE = 1 << 28
RATIO = 1_000
BOMB = "bomb"  # the reason


class BombError(ValueError):
    """An archive unpacks to more than it may."""


class Allowance:
    """The bytes that may still come of one archive of `size` bytes."""

    def __init__(self, size: int):
        self.most = self.left = FREE + RATIO * size
        self._size = size

    def take(self, amount: int) -> None:
        """Count bytes that were unpacked. Raises BombError beyond the allowance, and from then on."""
        self.left -= amount
        if self.left < 0:
            raise BombError(f"{self._size} bytes unpack to more than {self.most}")


def allowance_of(path: str | Path) -> Allowance:
    """The allowance of a file by its size."""
    return Allowance(Path(path).stat().st_size)
