"""Search over the documents of a corpus by their words: BM25 (Robertson and Zaragoza 2009, The Probabilistic Relevance
Framework: BM25 and Beyond, equation 3.15) with k1 1.2 and b 0.75, over an index in memory that is made once."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import pyarrow as pa

from datalake.dedup.spans.cut import cut_texts, read_cuts
from datalake.errors import UserError
from datalake.lake.parquet import read_batches, read_table
from datalake.text.words import WORD
from models.rl.tools.tool import Tool, parameters

_K1, _B = 1.2, 0.75


class Found(NamedTuple):
    """A document that has words of a query, and its score."""

    address: str
    text: str
    score: float


class Index:
    """Documents (address, text) by their words."""

    def __init__(self, documents: Iterable[tuple[str, str]]) -> None:
        self.documents: list[tuple[str, str]] = []
        self.lengths = array("I")
        self._postings: defaultdict[str, tuple[array[int], array[int]]] = defaultdict(lambda: (array("I"), array("I")))
        for number, (address, text) in enumerate(documents):
            counts = Counter(WORD.findall(text.lower()))
            self.documents.append((address, text))
            self.lengths.append(counts.total())
            for word, count in counts.items():
                places, times = self._postings[word]
                places.append(number)
                times.append(count)
        self.mean = sum(self.lengths) / max(len(self.lengths), 1) or 1.0

    def search(self, query: str, most: int) -> list[Found]:
        """The documents that suit the query best, best first; of equals the earlier one."""
        scores: defaultdict[int, float] = defaultdict(float)
        for word in sorted(set(WORD.findall(query.lower()))):
            if word not in self._postings:
                continue
            places, times = self._postings[word]
            rarity = math.log(1 + (len(self.documents) - len(places) + 0.5) / (len(places) + 0.5))
            for place, count in zip(places, times, strict=True):
                norm = _K1 * (1 - _B + _B * self.lengths[place] / self.mean)
                scores[place] += rarity * count * (_K1 + 1) / (count + norm)
        best = sorted(scores, key=lambda place: (-scores[place], place))[:most]
        return [Found(*self.documents[place], scores[place]) for place in best]

    def rarest(self, query: str) -> str:
        """The word of a query that the fewest documents have; empty where none has any."""
        words = [word for word in WORD.findall(query.lower()) if word in self._postings]
        return min(words, key=lambda word: len(self._postings[word][0]), default="")


@dataclass(frozen=True)
class Library:
    """The documents (address, text) of a corpus that are no duplicates, without what is cut from them, by their ids:
    Parquet files of its `documents`, `duplicates` and `spans`; `version` is that of their content."""

    documents: Sequence[str]
    duplicates: Sequence[str] = ()
    spans: Sequence[str] = ()
    version: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        decided = [read_table(file, ["id", "duplicate_of"]).to_pylist() for file in self.duplicates]
        repeated = {row["id"] for rows in decided for row in rows if row["duplicate_of"] is not None}
        found: list[tuple[bytes, str, str]] = []
        for file in self.documents:
            for batch in read_batches(file, ["id", "uri", "text"]):
                ids, uris, texts = (batch.column(name) for name in ("id", "uri", "text"))
                left = cut_texts(ids, texts, read_cuts(self.spans, pa.array(ids)) if self.spans else {})
                found += zip(ids.to_pylist(), uris.to_pylist(), left.to_pylist(), strict=True)
        yield from ((uri, text) for id, uri, text in sorted(found) if id not in repeated)


def tool(*, documents: Iterable[tuple[str, str]] | None, results: int = 3, characters: int = 400) -> Tool:
    """documents: read when something is first looked for. results: that are shown for a query; characters: of each,
    from about where the query's rarest word is.

    Raises:
        UserError: where there are no documents.
    """
    if documents is None:
        raise UserError("tools: search has no documents to look through: give the recipe a source of documents")

    @cache
    def index() -> Index:
        return Index(documents)

    def search(query: str) -> str:
        found = index().search(query, results)
        word = index().rarest(query)
        shown = (
            f"{place}. {one.address}\n{_excerpt(one.text, word, characters)}" for place, one in enumerate(found, 1)
        )
        return "\n".join(shown) or "nothing was found"

    schema = parameters(["query"], query=("string", "Words to look for"))
    return Tool("search", "Looks for documents that have these words.", schema, search)


def _excerpt(text: str, word: str, characters: int) -> str:
    """A part of a text that has the word, as one line."""
    place = max(text.lower().find(word), 0)
    start = max(0, place - characters // 4)
    part = " ".join(text[start : start + characters].split())
    return f"{'...' if start else ''}{part}{'...' if start + characters < len(text) else ''}"
