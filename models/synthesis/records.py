"""The records that models write for training, kept and refused, and the near duplicates among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from datalake.dedup.config import SigningConfig
from datalake.dedup.similar import jaccard
from datalake.dedup.texts.bands import buckets
from datalake.dedup.texts.minhash import sign
from datalake.dedup.texts.shingles import shingle
from datalake.document import Messages
from datalake.tables import schema_of


@dataclass(slots=True)
class Unused:
    """Something written that nothing is trained on, and why: `reason` is a word, `detail` what it was measured by."""

    id: bytes
    source: str
    reason: str
    detail: str
    messages: Messages
    attributes: dict[str, str] = field(default_factory=dict)


UNUSED = schema_of(Unused)


class Near:
    """Near duplicates by the lake's own signatures: texts that share a band, verified by the Jaccard similarity of
    their shingles."""

    def __init__(self, signing: SigningConfig):
        self.signing = signing
        self.ids: list[str] = []
        self._sets: list[np.ndarray] = []
        self._buckets: dict[tuple[int, int], list[int]] = {}

    def signed(self, texts: Sequence[str]) -> list[tuple[np.ndarray, list[int]]]:
        """Each text's shingles and its bucket in each band; none for a text without words."""
        config = self.signing
        sets = shingle(pa.array(list(texts), pa.large_string()), config.ngram)
        banded = buckets(
            sign(sets.shingles, sets.ends, config.bands * config.rows, config.seed), config.bands, config.rows
        )
        begins = [0, *sets.ends[:-1].tolist()]
        return [
            (sets.shingles[begin:end], banded[place].tolist() if end > begin else [])
            for place, (begin, end) in enumerate(zip(begins, sets.ends.tolist(), strict=True))
        ]

    def nearest(self, signature: tuple[np.ndarray, list[int]]) -> tuple[str, float]:
        """The name of the text that is most like this one, and how much; ("", 0.0) where no band is shared."""
        shingles, banded = signature
        met = {place for key in enumerate(banded) for place in self._buckets.get(key, ())}
        found = max(((jaccard(shingles, self._sets[place]), -place) for place in met), default=None)
        return ("", 0.0) if found is None else (self.ids[-found[1]], float(found[0]))

    def add(self, name: str, signature: tuple[np.ndarray, list[int]]) -> None:
        """Take a text up under a name."""
        for key in enumerate(signature[1]):
            self._buckets.setdefault(key, []).append(len(self.ids))
        self.ids.append(name)
        self._sets.append(signature[0])
