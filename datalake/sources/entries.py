"""The net under every reader: whatever one record raises costs that record, and no other.

A generator that raises is over, and with it all that it would still have read. So no reader makes entries in the
generator that cuts an archive into records: it hands that generator and a function to `entries`, which calls the
function record by record. What that raises, and what the cutting itself raises, is one `Quarantined` with its place.

What isn't the record's passes through: a user's error, a library that isn't there, and what the system says of a file
(`OSError` with a number), which may pass: the shard is tried again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from datalake.document import Document, Entry, Passed, Quarantined, Refused, document_id
from datalake.errors import UserError

REASON = "unexpected"


_Record = TypeVar("_Record")
_DONE = (Quarantined, Refused, Passed)


def entries(
    records: Iterable[Any], make: Callable[[Any], Entry | Iterable[Entry]], source: str, archive: str
) -> Iterator[Entry]:
    """What `make` makes of each record: an entry, or several, all of them or none. What is one already stays it.

    A record has an `offset` and a `length` in its archive (and a `name`, if it has one there). Where records come in
    lists, each of a list is quarantined when making something of them fails.
    """
    for record in framed(records, source, archive):
        if isinstance(record, _DONE):
            yield record
            continue
        try:
            made = make(record)
            several = list(made) if isinstance(made, Iterable) else (made,)
        except Exception as error:
            if _passes(error):
                raise
            for one in record if isinstance(record, list) else [record]:
                yield _lost(error, source, archive, one.offset, one.length, getattr(one, "name", ""))
        else:
            yield from several


def framed(records: Iterable[_Record], source: str, archive: str) -> Iterator[_Record | Quarantined]:
    """Records as they are cut out; where the cutting raises, what was left is one `Quarantined`."""
    try:
        yield from records
    except Exception as error:
        if _passes(error):
            raise
        yield _lost(error, source, archive, -1, -1, "the rest is lost")


def unlike(found: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of an archive that may hold a file twice, as one that was appended to does: no two have one id.

    Memory: some 100 bytes a record.
    """
    seen: Counter[bytes] = Counter()
    for entry in found:
        if isinstance(entry, Document | Refused):
            seen[entry.id] += 1
            if seen[entry.id] > 1:
                entry.id = document_id(entry.id.hex(), "again", str(seen[entry.id]))
        yield entry


def _passes(error: Exception) -> bool:
    """Whether an error isn't the record's: the user's, or the system's."""
    return isinstance(error, UserError | ImportError) or (isinstance(error, OSError) and error.errno is not None)


def _lost(error: Exception, source: str, archive: str, offset: int, length: int, where: str) -> Quarantined:
    detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Quarantined(source, archive, REASON, f"{where}: {detail}"[:200] if where else detail[:200], offset, length)
