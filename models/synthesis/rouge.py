"""ROUGE-L (Lin 2004): how much of two texts is one sequence of words, as the F1 of their longest common subsequence.

Words are those by which the lake finds near duplicates: runs of letters and digits in lower case, and each character of
a script written without spaces. On English text that is what the package rouge-score computes without its stemmer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.dedup.texts.shingles import word_list

Ints = npt.NDArray[np.int64]


@kernel
def _nearest(pool: Ints, ordered: Ints, ends: Ints, words: Ints, sorted_words: Ints) -> tuple[int, float]:
    """The row of the pool that is nearest, the first among equals, and its F1; (-1, 0) where none has a word in common.

    A pair is passed over where its lengths, or the words that it has in common in any order, bound it below the best.
    """
    best, found = 0.0, -1
    n = len(words)
    row = np.zeros(n + 1, np.int64)
    begin = 0
    for k in range(len(ends)):
        end = ends[k]
        m = end - begin
        if m and n and 2.0 * min(m, n) / (m + n) > best:
            common, i, j = 0, begin, 0
            while i < end and j < n:
                if ordered[i] == sorted_words[j]:
                    common += 1
                    i += 1
                    j += 1
                elif ordered[i] < sorted_words[j]:
                    i += 1
                else:
                    j += 1
            if 2.0 * common / (m + n) > best:
                row[:] = 0
                for i in range(begin, end):
                    before = 0
                    for j in range(n):
                        above = row[j + 1]
                        if pool[i] == words[j]:
                            row[j + 1] = before + 1
                        elif row[j] > above:
                            row[j + 1] = row[j]
                        before = above
                score = 2.0 * row[n] / (m + n)
                if score > best:
                    best, found = score, k
        begin = end
    return found, best


class Pool:
    """Texts that others are compared with."""

    def __init__(self, texts: Sequence[str] = ()):
        self._known: dict[str, int] = {}
        self._words, self._ordered = np.empty(1024, np.int64), np.empty(1024, np.int64)
        self._ends = np.empty(64, np.int64)
        self._size = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return self._size

    def _numbers(self, text: str) -> Ints:
        return np.array([self._known.setdefault(word, len(self._known)) for word in word_list(text)], np.int64)

    def nearest(self, text: str) -> tuple[int, float]:
        """The place of the text that is most like this one, and their ROUGE-L F1; (-1, 0.0) where none is at all."""
        words = self._numbers(text)
        end = int(self._ends[self._size - 1]) if self._size else 0
        place, score = _nearest(self._words[:end], self._ordered[:end], self._ends[: self._size], words, np.sort(words))
        return int(place), float(score)

    def add(self, text: str) -> None:
        """Take a text up."""
        words = self._numbers(text)
        begin = int(self._ends[self._size - 1]) if self._size else 0
        end = begin + len(words)
        if end > len(self._words):
            more = max(len(self._words), len(words))
            self._words, self._ordered = (
                np.append(one, np.empty(more, np.int64)) for one in (self._words, self._ordered)
            )
        if self._size == len(self._ends):
            self._ends = np.append(self._ends, np.empty_like(self._ends))
        self._words[begin:end], self._ordered[begin:end] = words, np.sort(words)
        self._ends[self._size] = end
        self._size += 1


def rouge_l(one: str, other: str) -> float:
    """ROUGE-L F1 of two texts."""
    return Pool([one]).nearest(other)[1]
