"""The documents of a corpus, kept and dropped, a page at a time: by verdict, rule, source, language and words.

Everything is asked of the ledger and of `raw`, where the text of every document lies as it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from datalake.errors import UserError
from datalake.lake.corpora import Corpus, corpora
from datalake.lake.lake import Lake
from datalake.lake.ledger import connect

PAGE = 20  # documents
EXCERPT = 600  # characters of each
LONGEST = 200_000  # characters of a document that is read alone

Row = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """Which documents: empty parts ask for nothing. A document is one of `rule` where it fails it, first or not."""

    verdict: str = ""
    rule: str = ""
    source: str = ""
    language: str = ""
    words: str = ""

    @property
    def parts(self) -> dict[str, str]:
        """What is asked for."""
        return {name: value for name, value in asdict(self).items() if value}


class Documents:
    """A corpus as its last finished run left it. Requests may come in several threads."""

    def __init__(self, lake: Lake, corpus: Corpus):
        """Open the corpus of a lake. Raises UserError where it holds no documents."""
        tables = corpus.joined("raw")
        if not tables:
            raise UserError(f"{corpus.name} holds no documents: browse shows what ingest read of documents")
        self.lake, self.corpus = lake, corpus
        self.judged = "curation" in tables
        self._connection = connect(lake, shown=[corpus])
        self._lock = Lock()
        self._facets: dict[str, list[tuple[str, int]]] = {}

    def _ask(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def facets(self) -> dict[str, list[tuple[str, int]]]:
        """What documents can be asked by, with how many have it, most first: verdicts, rules, sources, languages."""
        if not self._facets:
            columns = {"verdict": "verdict", "source": "source", "language": "language"}
            if self.judged:
                columns["rule"] = "unnest(rules)"
            for name, column in columns.items():
                rows = self._ask(
                    f"SELECT value, count(*) FROM (SELECT {column} AS value FROM ({self._documents}))"
                    " WHERE value IS NOT NULL GROUP BY value ORDER BY 2 DESC, 1",
                    [],
                )
                self._facets[name] = [(str(value), count) for value, count in rows]
        return self._facets

    @property
    def _documents(self) -> str:
        """SQL: the ledger's rows of documents, without those of refused records and dialogues."""
        name = self.corpus.name
        return f'SELECT * FROM "{name}".ledger WHERE id IN (SELECT id FROM "{name}".raw)'

    def page(self, asked: Filter, number: int) -> tuple[list[Row], int]:
        """Page `number`, from 1, of the documents asked for, in the order of their ids, and how many there are.

        Rows have the ledger's first columns, the failed `rules`, `characters`, and an `excerpt`: what stands before the
        words that were asked for, these words, and what follows.
        """
        conditions, values = _conditions(asked, self.judged)
        name = self.corpus.name
        if asked.words:
            conditions.append(
                f'id IN (SELECT id FROM "{name}".raw WHERE contains(lower(text), lower(?)) OR contains(uri, ?))'
            )
            values += [asked.words, asked.words]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        [(total,)] = self._ask(f"SELECT count(*) FROM ({self._documents}) {where}", values)
        rows = self._rows(f"{where} ORDER BY id LIMIT {PAGE} OFFSET {PAGE * (number - 1)}", values)
        for row in rows:
            text = row.pop("text")
            row |= {"characters": len(text), "excerpt": excerpt(text, asked.words)}
        return rows, total

    def sample(self, asked: Filter, number: int, seed: int) -> list[Row]:
        """So many of the documents asked for, by the digest of their ids and the seed; with their `text`, as read."""
        conditions, values = _conditions(asked, self.judged)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        return self._rows(f"{where} ORDER BY md5(concat(?, hex(id))) LIMIT {number}", [*values, str(seed)])

    def _rows(self, chosen: str, values: list[Any]) -> list[Row]:
        """Documents with the ledger's first columns, the failed `rules` and their `text`."""
        rules = "rules" if self.judged else "[]::VARCHAR[] AS rules"
        rows = self._ask(
            f"SELECT id, uri, source, language, verdict, rule, duplicate_of, similarity, {rules}"
            f" FROM ({self._documents}) {chosen}",
            values,
        )
        ids = [row[0] for row in rows]
        texts = dict(self._ask(f'SELECT id, text FROM "{self.corpus.name}".raw WHERE id IN (SELECT unnest(?))', [ids]))
        names = ("id", "uri", "source", "language", "verdict", "rule", "duplicate_of", "similarity", "rules")
        return [dict(zip(names, row, strict=True)) | {"id": row[0].hex(), "text": texts[row[0]]} for row in rows]

    def texts(self, id: str) -> tuple[str, str | None]:
        """A document's text as it was read, and as it is kept where it is, nothing cut from it for its duplicates."""
        try:
            key = bytes.fromhex(id)
        except ValueError:
            key = b""
        name = self.corpus.name
        read = self._ask(f'SELECT text FROM "{name}".raw WHERE id = ?', [key])
        if not read:
            raise UserError(f"no document {id!r} in {name}")
        there = "documents" in self.corpus.joined("raw")
        kept = self._ask(f'SELECT text FROM "{name}".documents WHERE id = ?', [key]) if there else []
        return read[0][0], kept[0][0] if kept else None


def _conditions(asked: Filter, judged: bool) -> tuple[list[str], list[Any]]:
    conditions, values = [], []
    for name in ("verdict", "source", "language"):
        if value := asked.parts.get(name):
            conditions.append(f"{name} = ?")
            values.append(value)
    if asked.rule:
        conditions.append("list_contains(rules, ?)" if judged else "rule = ?")
        values.append(asked.rule)
    return conditions, values


def excerpt(text: str, words: str) -> tuple[str, str, str]:
    """A part of a text in three: before the first place where `words` stand, these as they are there, and after.

    Where they don't stand in it, it is the text's beginning, all of it the last part.
    """
    at = text.lower().find(words.lower()) if words else -1
    if at < 0 or len(text.lower()) != len(text):  # a few letters are longer in lower case: no place is known then
        return "", "", text[:EXCERPT]
    begin = max(0, at - EXCERPT // 3)
    return text[begin:at], text[at : at + len(words)], text[at + len(words) : begin + EXCERPT]


def paging(total: int, number: int) -> Mapping[str, int]:
    """Numbers of the pages before and after (0: none), of the last page, of the first and last document shown."""
    last = max(1, -(-total // PAGE))
    return {
        "number": number,
        "last": last,
        "before": number - 1 if number > 1 else 0,
        "after": number + 1 if number < last else 0,
        "first_shown": PAGE * (number - 1) + 1 if total else 0,
        "last_shown": min(PAGE * number, total),
    }


def both_sides(lake: Lake, corpus: str | None, rule: str | None, number: int, seed: int) -> list[Row]:
    """Documents to be judged by people: half of those that were dropped, or failed the rule, the others kept ones.

    Of the corpus of this name, or of the last run that judged some. Raises UserError where there are none.
    """
    found = [one for one in corpora(lake) if corpus in (None, one.name) and "curation" in one.tables]
    if not found:
        raise UserError(f"no run has judged documents{f' of {corpus}' if corpus else ''}: run a recipe first")
    opened = Documents(lake, max(found, key=lambda one: one.manifest.finished))
    failed = [name for name, _ in opened.facets()["rule"]]
    if rule is not None and rule not in failed:
        some = f"some failed {', '.join(failed)}" if failed else "all were kept"
        raise UserError(f"--rule {rule}: no document of {opened.corpus.name} failed it; {some}")
    dropped = opened.sample(Filter(verdict="" if rule else "rejected", rule=rule or ""), number // 2, seed)
    rows = [*dropped, *opened.sample(Filter(verdict="kept"), number - len(dropped), seed)]
    names = ("id", "uri", "source", "language", "verdict", "rules", "text")
    about = {"corpus": opened.corpus.name, "run": opened.corpus.manifest.run}
    return [{name: row[name] for name in names} | about for row in rows]
