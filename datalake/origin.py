"""Where entries come from, and how a source makes them: documents, refusals and quarantined spans of one archive.

A source cuts its archive into records and says what each holds; its `Origin` knows all that they have in common (label,
archive, licence, how languages are found) and gives every record its id.

It is also the net under every source: whatever one record raises costs that record, and no other. A generator that
raises is over, and with it all that it would still have read. So no source makes entries in the generator that cuts an
archive into records: it hands that generator and a function to `Origin.entries`, which calls the function record by
record. What that raises, and what the cutting itself raises, is one `Quarantined` with its place.

What isn't the record's passes through: a user's error, a library that isn't there, and what the system says of a file
(`OSError` with a number), which may pass: the shard is tried again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from datalake.document import (
    Conversation,
    Document,
    Entry,
    Messages,
    Passed,
    Preference,
    Quarantined,
    Refused,
    document_id,
)
from datalake.errors import UserError
from datalake.text.language import UNDETERMINED, detect

if TYPE_CHECKING:
    from datalake.text.language_config import Language

REASON = "unexpected"
OWN = "\0"  # as a licence, which none is: that of the origin

_Record = TypeVar("_Record")
_DONE = (Quarantined, Refused, Passed)


class Located(Protocol):
    """A record, or anything else that says where in its archive it lies, in bytes."""

    @property
    def offset(self) -> int:
        """Where it begins; -1 unknown."""
        ...

    @property
    def length(self) -> int:
        """How many bytes it has; -1 unknown."""
        ...


class Stretch(NamedTuple):
    """A stretch of an archive's bytes."""

    offset: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """An archive of a source.

    - `source`: the source's label, which its documents say.
    - `kind`, `archive`: the source's kind and the archive's name, which make a record's id with its locator.
    - `licence`: that of documents which don't name their own.
    - `language`: how the language of a text is found; None leaves it undetermined.
    """

    source: str
    kind: str
    archive: str
    licence: str | None = None
    language: Language | None = None

    def within(self, archive: str) -> Self:
        """That of an archive which this one holds or names."""
        return replace(self, archive=archive)

    def id(self, locator: str) -> bytes:
        """The id of the record with this locator."""
        return document_id(self.kind, self.archive, locator)

    def uri(self, locator: str) -> str:
        """The address of a record that has none of its own."""
        return f"{self.archive}#{locator}"

    def language_of(self, text: str) -> tuple[str, float]:
        """The language of a text, and how sure that is."""
        how = self.language
        if how is None:
            return UNDETERMINED, 0.0
        return detect(text, model=how.model.path, threshold=how.threshold, characters=how.characters)

    def document(
        self,
        at: Located,
        locator: str,
        text: str,
        attributes: dict[str, str],
        *,
        uri: str | None = None,
        language: tuple[str, float] | None = None,
        licence: str | None = OWN,
        created: datetime | None = None,
    ) -> Document:
        """A record's text; its language is found where none is given."""
        code, score = language or self.language_of(text)
        return Document(
            id=self.id(locator),
            text=text,
            source=self.source,
            uri=self.uri(locator) if uri is None else uri,
            language=code,
            language_score=score,
            licence=self.licence if licence == OWN else licence,
            created=created,
            archive=self.archive,
            offset=at.offset,
            length=at.length,
            attributes=attributes,
        )

    def conversation(
        self,
        at: Located,
        locator: str,
        messages: Messages,
        attributes: dict[str, str],
        *,
        uri: str | None = None,
        language: str = "",
        licence: str | None = OWN,
    ) -> Conversation:
        """A record's dialogue; its language is that of what user and assistant say, where none is given."""
        return Conversation(
            id=self.id(locator),
            source=self.source,
            uri=self.uri(locator) if uri is None else uri,
            messages=messages,
            language=language or self._spoken(messages),
            licence=self.licence if licence == OWN else licence,
            archive=self.archive,
            offset=at.offset,
            attributes=attributes,
        )

    def preference(
        self,
        at: Located,
        locator: str,
        prompt: Messages,
        chosen: str | None,
        rejected: str | None,
        attributes: dict[str, str],
        *,
        uri: str | None = None,
        language: str = "",
        licence: str | None = OWN,
    ) -> Preference:
        """A record's prompt and two answers, the first preferred; the language as that of a dialogue."""
        answer = {"role": "assistant", "content": chosen if chosen is not None else rejected or ""}
        return Preference(
            id=self.id(locator),
            source=self.source,
            uri=self.uri(locator) if uri is None else uri,
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            language=language or self._spoken([*prompt, answer]),
            licence=self.licence if licence == OWN else licence,
            archive=self.archive,
            offset=at.offset,
            attributes=attributes,
        )

    def _spoken(self, messages: Messages) -> str:
        return self.language_of("\n".join(one["content"] for one in messages if one["role"] != "system"))[0]

    def refused(
        self,
        at: Located,
        locator: str,
        reason: str,
        detail: str = "",
        *,
        uri: str | None = None,
        language: str = UNDETERMINED,
    ) -> Refused:
        """A record that isn't taken, and why, in a word."""
        uri = self.uri(locator) if uri is None else uri
        where = (self.archive, at.offset, at.length)
        return Refused(self.id(locator), self.source, uri, reason, detail, language, *where)

    def quarantined(self, at: Located, reason: str, detail: str = "") -> Quarantined:
        """A record that can't be read."""
        return self.lost(reason, detail, at.offset, at.length)

    def lost(self, reason: str, detail: str = "", offset: int = -1, length: int = -1) -> Quarantined:
        """A stretch that can't be read, in bytes of the archive."""
        return Quarantined(self.source, self.archive, reason, detail, offset, length)

    def entries(self, records: Iterable[Any], make: Callable[[Any], Entry | Iterable[Entry]]) -> Iterator[Entry]:
        """What `make` makes of each record: an entry, or several, all of them or none. What is one already stays it.

        A record is `Located` (and has a `name`, if it has one in the archive). Where records come in lists, each of a
        list is quarantined when making something of them fails.
        """
        for record in self.framed(records):
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
                    yield self._unexpected(error, getattr(one, "name", ""), one.offset, one.length)
            else:
                yield from several

    def framed(self, records: Iterable[_Record]) -> Iterator[_Record | Quarantined]:
        """Records as they are cut out; where the cutting raises, what was left is one `Quarantined`."""
        try:
            yield from records
        except Exception as error:
            if _passes(error):
                raise
            yield self._unexpected(error, "the rest is lost")

    def _unexpected(self, error: Exception, where: str, offset: int = -1, length: int = -1) -> Quarantined:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return self.lost(REASON, f"{where}: {detail}"[:200] if where else detail[:200], offset, length)


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
