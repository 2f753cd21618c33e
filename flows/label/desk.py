"""What each annotator has before him: his own queue, a share of which is everybody's, and what he said of it.

A share `overlap` of the items, told by their hash, is in every queue, so that agreement can be computed; each of the
others is one annotator's, the one with the highest hash of both, so that a new annotator takes over few. Who skips an
item leaves it to the next. Every queue has its own order. Whoever is logged in may judge any item: queues only ask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from threading import RLock

from flows.label.documents import Documents
from flows.label.kinds import Judgement, Kind, Row, draw
from flows.label.labels import SKIPPED, Journal, Labels, now
from flows.label.pairs import Pairs

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Pairs(), Documents())}


class UnknownItemError(KeyError):
    """No such item is asked about."""


class TakenError(ValueError):
    """Something else was said of the item before."""


class Desk:
    """The items of a kind in a lake, who judges them, and what was said. Requests may come in several threads."""

    def __init__(self, labels: Labels, kind: Kind, annotators: Collection[str], overlap: float):
        """Open what was said; `overlap` is the share of items that everybody judges."""
        self.kind, self.overlap = kind, overlap
        self._asked = labels.items(kind.name)
        self.items = self._asked.rows
        # What every request asks of every item: whether it is everybody's, who is asked first, his place for it.
        self._shared = cache(lambda id: draw("overlap", id) < overlap)
        self._owners = cache(lambda id: sorted(annotators, key=lambda name: draw("owner", id, name), reverse=True))
        self._place = cache(lambda id, annotator: draw("order", id, annotator))
        self.coming = False  # more items are being made
        self._lock = RLock()
        self._skipped = f"{SKIPPED}/{kind.name}"
        self._journals = {
            name: {table: Journal(labels.path(table, name)) for table in (kind.table, *kind.beside, self._skipped)}
            for name in annotators
        }
        for mine in self._journals.values():  # what a kill left of judgements that nobody was told of
            for table in kind.beside:
                for id in mine[table].rows.keys() - mine[kind.table].rows.keys():
                    mine[table].remove(id)

    def ask(self, rows: Iterable[Row]) -> int:
        """Put more items on the desk; how many are new."""
        with self._lock:
            return sum(self._asked.add(row) for row in rows)

    def queue(self, annotator: str) -> list[str]:
        """The items that an annotator is still asked about, in his order."""
        with self._lock:
            waiting = [id for id in self.items if self._waits(id, annotator)]
            return sorted(waiting, key=lambda id: self._place(id, annotator))

    def _waits(self, id: str, annotator: str) -> bool:
        mine = self._journals[annotator]
        if id in mine[self.kind.table].rows or id in mine[self._skipped].rows:
            return False
        if self._shared(id):
            return True
        if any(id in theirs[self.kind.table].rows for theirs in self._journals.values()):
            return False
        skipped = self._skipped
        return next(name for name in self._owners(id) if id not in self._journals[name][skipped].rows) == annotator

    def state(self, annotator: str) -> Row:
        """What the page shows: the next item, and how much is done."""
        with self._lock:
            waiting, mine = self.queue(annotator), self._journals[annotator]
            tables = (self.kind.table, self._skipped)
            done, skipped = (len(mine[table].rows.keys() & self.items.keys()) for table in tables)
            item = self.kind.shown(self.items[waiting[0]], annotator) if waiting else None
            counts = {"done": done, "left": len(waiting), "skipped": skipped}
            return {"annotator": annotator, "kind": self.kind.name, "item": item, "coming": self.coming, **counts}

    def judge(self, annotator: str, said: Judgement) -> bool:
        """Write down what was said; whether it is new. It is on the disk when this returns.

        Raises:
            UnknownItemError: where no such item is asked about.
            TakenError: where this annotator has said something else of it.
            UserError: where it can't be written.
        """
        with self._lock:
            if said.item not in self.items:
                raise UnknownItemError(said.item)
            found = self.kind.rows(self.items[said.item], annotator, said)
            mine = self._journals[annotator]
            if said.item in mine[self.kind.table].rows:
                for table in (self.kind.table, *self.kind.beside):
                    if _timeless(mine[table].rows.get(said.item)) != _timeless(found.get(table)):
                        raise TakenError(said.item)
                return False
            for table in (self._skipped, *self.kind.beside):  # also what a write that failed half-way left
                mine[table].remove(said.item)
            for table in reversed(found):  # the judgement itself last: it is what counts
                mine[table].add(found[table])
            return True

    def skip(self, annotator: str, id: str) -> None:
        """Leave an item to others; one that was judged stays so. Raises UnknownItemError where there is none."""
        with self._lock:
            if id not in self.items:
                raise UnknownItemError(id)
            mine = self._journals[annotator]
            if id not in mine[self.kind.table].rows:
                mine[self._skipped].add({"id": id, "time": now()})

    def undo(self, annotator: str) -> Row | None:
        """Take back the last thing that an annotator did: its item, and as `said` what he said; None for nothing."""
        with self._lock:
            mine = self._journals[annotator]
            tables = (self.kind.table, self._skipped)
            done = [
                (row["time"], table, id) for table in tables for id, row in mine[table].rows.items() if id in self.items
            ]
            if not done:
                return None
            _, table, id = max(done)
            row, beside = mine[table].rows[id], {name: mine[name].rows.get(id) for name in self.kind.beside}
            mine[table].remove(id)
            shown = {"item": self.kind.shown(self.items[id], annotator)}
            if table == self._skipped:
                return shown
            for name in self.kind.beside:
                mine[name].remove(id)
            return shown | {"said": self.kind.said(row, {name: one for name, one in beside.items() if one})}


def _timeless(row: Row | None) -> Row:
    return {name: value for name, value in (row or {}).items() if name != "time"}
