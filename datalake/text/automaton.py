"""Many words looked for in one pass: the automaton of Aho and Corasick (1975, doi:10.1145/360825.360855), compiled.

Characters that no word has lead back to the root, so most of a text costs one look-up a character. Edges lie in one
open-addressed table, whatever the alphabet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.text.characters import ALNUM, Classes, Points, points, tables

Ints = npt.NDArray[np.int32]

_K = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_UNDERSCORE = 95


class Hits(NamedTuple):
    """What a text holds of the words."""

    occurrences: int  # of all words; those that overlap each count
    distinct: int
    first: int  # index of the word that ends first, of those the longest; -1 where there is none


class Automaton:
    """Looks for words in texts. Both are taken as they stand: lower-case them before."""

    def __init__(self, words: Sequence[str]):
        """Words that are empty or come twice are left out; `words` has the others in their order."""
        self.words = tuple(word for word in dict.fromkeys(words) if word)
        children: list[dict[int, int]] = [{}]
        word_of = [-1]
        for number, word in enumerate(self.words):
            node = 0
            for code in map(ord, word):
                if code not in children[node]:
                    children[node][code] = len(children)
                    children.append({})
                    word_of.append(-1)
                node = children[node][code]
            word_of[node] = number
        fail, link = [0] * len(children), [0] * len(children)
        waiting = deque(children[0].values())
        while waiting:
            node = waiting.popleft()
            link[node] = fail[node] if word_of[fail[node]] >= 0 else link[fail[node]]
            for code, child in children[node].items():
                back = fail[node]
                while back and code not in children[back]:
                    back = fail[back]
                fail[child] = children[back].get(code, 0)
                waiting.append(child)
        alphabet = sorted({code for edges in children for code in edges})
        self._letters = np.zeros(0x110000, np.int32)  # 0: in no word
        self._letters[alphabet] = np.arange(1, len(alphabet) + 1)
        self._width = len(alphabet) + 1
        edges = [
            (node * self._width + int(self._letters[code]), child)
            for node, of in enumerate(children)
            for code, child in of.items()
        ]
        self._keys, self._targets = _table(
            np.array([key for key, _ in edges], np.int64), np.array([child for _, child in edges], np.int32)
        )
        self._fail, self._link, self._word_of = (np.array(values, np.int32) for values in (fail, link, word_of))
        self._lengths = np.array([len(word) for word in self.words], np.int32)

    def look(self, text: str, bounded: bool) -> Hits:
        r"""What a text holds of the words: anywhere, or where `bounded` only between characters that are no `\w`."""
        if not self.words:
            return Hits(0, 0, -1)
        found = _look(
            points(text),
            bounded,
            tables().classes,
            self._letters,
            self._width,
            self._keys,
            self._targets,
            self._fail,
            self._link,
            self._word_of,
            self._lengths,
        )
        return Hits(*(int(value) for value in found))

    def totals(self, codes: Points, group_of: Ints) -> npt.NDArray[np.int64]:
        """How often words of each group stand anywhere in a text of these code points, shape (groups,).

        `group_of` says each word's group by its number.
        """
        return _totals(
            codes,
            self._letters,
            self._width,
            self._keys,
            self._targets,
            self._fail,
            self._link,
            self._word_of,
            group_of,
        )


@kernel(nogil=False)
def _table(keys: npt.NDArray[np.int64], targets: Ints) -> tuple[npt.NDArray[np.int64], Ints]:
    """An open-addressed table at most half full; -1 marks empty places. The last entry is never reached."""
    size = 2
    while size < 2 * len(keys):
        size *= 2
    found, values = np.full(size, -1, np.int64), np.zeros(size, np.int32)
    for k in range(len(keys)):
        at = _place(keys[k], size)
        while found[at] >= 0:
            at = (at + 1) & (size - 1)
        found[at], values[at] = keys[k], targets[k]
    return found, values


@kernel(inline="always")
def _place(key: np.int64, size: int) -> np.int64:
    return np.int64((np.uint64(key) * _K) >> np.uint64(32)) & (size - 1)


@kernel(inline="always")
def _child(node: int, letter: int, width: int, keys: npt.NDArray[np.int64], targets: Ints) -> int:
    """The node that a letter leads to, 0 where there is none."""
    key = np.int64(node) * width + letter
    at = _place(key, len(keys))
    while keys[at] >= 0:
        if keys[at] == key:
            return targets[at]
        at = (at + 1) & (len(keys) - 1)
    return 0


@kernel(inline="always")
def _next(node: int, letter: int, width: int, keys: npt.NDArray[np.int64], targets: Ints, fail: Ints) -> int:
    """The node after a letter: the longest beginning of a word that the text ends in."""
    child = _child(node, letter, width, keys, targets)
    while child == 0 and node > 0:
        node = fail[node]
        child = _child(node, letter, width, keys, targets)
    return child


@kernel(inline="always")
def _word(code: int, classes: Classes) -> bool:
    return classes[code] & ALNUM != 0 or code == _UNDERSCORE


@kernel
def _look(
    codes: Points,
    bounded: bool,
    classes: Classes,
    letters: Ints,
    width: int,
    keys: npt.NDArray[np.int64],
    targets: Ints,
    fail: Ints,
    link: Ints,
    word_of: Ints,
    lengths: Ints,
) -> tuple[int, int, int]:
    seen = np.zeros(len(lengths), np.bool_)
    occurrences, distinct, first, node = 0, 0, -1, 0
    for at in range(len(codes)):
        letter = letters[codes[at]]
        if letter == 0:
            node = 0
            continue
        # A word begins where another ends, or begins, if bounded: the automaton need not be entered elsewhere.
        if node == 0 and bounded and at > 0 and _word(codes[at], classes) and _word(codes[at - 1], classes):
            continue
        node = _next(node, letter, width, keys, targets, fail)
        end = node if word_of[node] >= 0 else link[node]
        while end > 0:
            word = word_of[end]
            start = at + 1 - lengths[word]
            if not bounded or (
                (start == 0 or not _word(codes[start - 1], classes))
                and (at + 1 == len(codes) or not _word(codes[at + 1], classes))
            ):
                occurrences += 1
                if first < 0:
                    first = word
                if not seen[word]:
                    seen[word] = True
                    distinct += 1
            end = link[end]
    return occurrences, distinct, first


@kernel
def _totals(
    codes: Points,
    letters: Ints,
    width: int,
    keys: npt.NDArray[np.int64],
    targets: Ints,
    fail: Ints,
    link: Ints,
    word_of: Ints,
    group_of: Ints,
) -> npt.NDArray[np.int64]:
    counts = np.zeros(group_of.max() + 1, np.int64)
    node = 0
    for code in codes:
        letter = letters[code]
        if letter == 0:
            node = 0
            continue
        node = _next(node, letter, width, keys, targets, fail)
        end = node if word_of[node] >= 0 else link[node]
        while end > 0:
            counts[group_of[word_of[end]]] += 1
            end = link[end]
    return counts
