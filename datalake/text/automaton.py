"""Many words looked for in one pass: the automaton of Aho and Corasick (1975, doi:10.1145/360825.360855), as the Rust
crate `aho-corasick` has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

_SURROGATES = re.compile("[\ud800-\udfff]")
_BLOCK = 1 << 16  # characters looked through at once, which bounds the finds held in memory


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
        self._automaton = AhoCorasick(self.words)
        self._longest = max(map(len, self.words), default=0)

    def look(self, text: str, bounded: bool) -> Hits:
        r"""What a text holds of the words: anywhere, or where `bounded` only between characters that are no `\w`."""
        found: Counter[int] = Counter()
        for word, start, end in self._finds(text):
            if not bounded or not (_word(text, start - 1) or _word(text, end)):
                found[word] += 1
        return Hits(found.total(), len(found), next(iter(found), -1))

    def counts(self, text: str) -> Counter[int]:
        """How often each word stands anywhere in a text, by its number."""
        return Counter(word for word, _, _ in self._finds(text))

    def _finds(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(word, start, end) of every find, by their ends, the longest first."""
        for block in range(0, len(text), _BLOCK):
            first = max(0, block - self._longest + 1)
            piece = text[first : block + _BLOCK]
            try:
                found = self._automaton.find_matches_as_indexes(piece, overlapping=True)
            except UnicodeEncodeError:  # lone surrogates: they stand in no word
                found = self._automaton.find_matches_as_indexes(_SURROGATES.sub("\uffff", piece), overlapping=True)
            for word, start, end in found:
                if first + end > block:  # else it was found in the block before
                    yield word, first + start, first + end


def _word(text: str, at: int) -> bool:
    r"""Whether there is a character at this place, and it is a `\w`."""
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")
