"""Questions with their best answers, from Stack Exchange's dumps (https://archive.org/details/stackexchange).

A record is a post, a `<row>` in a line of its own. A question and its best answer are one document: the answer that the
asker accepted, else the one with the highest score, of equal ones the first. Both posts are records still: the question
becomes the document, its answer is refused as `joined`, others as `other_answer`. A dump is read twice, since answers
stand behind their questions, often far: first which answer is whose, then the texts.

A site's 7z archive holds other tables as well, whose rows are passed. The site is told by the archive's name
(`english.stackexchange.com.7z`, `english.stackexchange.com/Posts.xml`), since addresses begin with it.

Memory: some 200 bytes a question, and two posts. Questions that wait for their answer are in an unnamed temporary file.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from pydantic import Field

from datalake.archive import Archive
from datalake.document import Entry, Passed, Quarantined, Refused, moment
from datalake.errors import UserError
from datalake.identity import Paths
from datalake.origin import Origin, unlike
from datalake.paths import expand
from datalake.sources.config import PATHS, SourceConfig
from datalake.text.language_config import Language

_SITE = re.compile(r"((?:[\w-]+\.)+(?:com|net|org))(?:[-.]|\Z)")  # also that of `stackoverflow.com-Posts.7z`
_ROW = re.compile(rb"<row\s[^<]*/>")  # no other markup within: nothing that could define an entity
_TAG = re.compile(rb"<(/?)([a-z]\w*)>")
_POSTS = b"posts"
_QUESTION, _ANSWER = "1", "2"


class StackExchange(SourceConfig):
    """Questions with their best answers, from the dumps of Stack Exchange: `Posts.xml`, or a site's 7z archive."""

    kind: Literal["stack_exchange"] = "stack_exchange"
    paths: Paths = PATHS
    site: str = Field(
        default="",
        pattern=r"^[\w.-]*$",
        title="Site",
        description="Such as english.stackexchange.com; empty: as the archive's name says.",
    )
    least_score: int = Field(
        default=0, title="Least score", description="Questions and answers with a lower one are refused."
    )
    max_bytes: int = Field(
        default=1_000_000,
        ge=1_000,
        le=100_000_000,
        title="Largest post",
        description="In bytes of HTML; larger ones are refused.",
    )
    licence: str | None = Field(
        default="CC-BY-SA-4.0", title="Licence", description="SPDX identifier of posts that don't name theirs."
    )
    language: Language = Field(default=Language(), title="Language identification")


class Post(NamedTuple):
    """A row: where its line lies in the decompressed stream, and its attributes."""

    offset: int
    length: int
    values: dict[str, str]

    @property
    def score(self) -> int:
        """Votes for it less those against it."""
        return int(self.values.get("Score") or 0)

    @property
    def is_question(self) -> bool:
        """Whether it asks."""
        return self.values.get("PostTypeId") == _QUESTION

    @property
    def parent(self) -> str:
        """The question that an answer is one to; empty of others."""
        return self.values.get("ParentId", "") if self.values.get("PostTypeId") == _ANSWER else ""

    @property
    def html(self) -> str:
        """Its text as it was written."""
        return self.values.get("Body", "")


def archives(config: StackExchange) -> list[Archive]:
    """One a dump. Raises UserError where nothing says which site it is of."""
    out = [Archive(config.kind, name, path) for name, path in expand(config.paths)]
    for archive in out:
        if not _site(archive, config):
            raise UserError(
                f"{archive.name}: which site is it of? Say so in `site`, such as english.stackexchange.com,"
                " or give the folder that the site's is in"
            )
    return out


def read(archive: Archive, config: StackExchange) -> Iterator[Entry]:
    """One entry a post: a document, quarantined where it is damaged, or refused: `unanswered`, `score`, `joined`,
    `other_answer`, `orphan` (an answer whose question isn't taken), `post_type`, `empty`, `too_large`.
    """
    origin = config.origin(archive)
    best = _best_answers(archive, config)
    make = partial(_entries, origin=origin, best=best, site=_site(archive, config), config=config)
    yield from unlike(origin.entries(_joined(_posts(archive, config), best, config.least_score), make))


def _site(archive: Archive, config: StackExchange) -> str:
    found = (_SITE.match(part) for part in archive.name.split("/"))
    return config.site or next((match[1] for match in found if match), "")


def _posts(archive: Archive, config: StackExchange) -> Iterator[Post | Passed | Quarantined]:
    """The posts of a dump, in its order."""
    from datalake.formats.rows.json import split_lines
    from datalake.formats.sevenzip import SIGNATURE, unpacked
    from datalake.formats.streams import as_utf8, decompressed

    origin = config.origin(archive)
    with open(archive.path, "rb") as file:  # noqa: PTH123 - an address's local copy, whatever it is called
        opened = unpacked if file.read(len(SIGNATURE)) == SIGNATURE else decompressed
    chunks = as_utf8(opened(archive.path, origin))
    table = _POSTS
    for line in split_lines(chunks, origin, 8 * config.max_bytes):  # in XML `<` is `&lt;`
        if isinstance(line, Quarantined):
            yield line
            continue
        offset, content = line[0], line[1].strip()
        if _ROW.fullmatch(content):
            if table != _POSTS:
                yield Passed("row_of_another_table")
                continue
            post = Post(offset, len(line[1]), {})
            try:
                post.values.update(ElementTree.fromstring(content).attrib)
                int(post.values["Id"]), post.score
            except (ElementTree.ParseError, KeyError, ValueError) as error:
                yield origin.quarantined(post, "xml", f"{type(error).__name__}: {error}"[:200])
            else:
                yield post
            continue
        for closes, name in _TAG.findall(content):
            table = b"" if closes else name
        if content and not content.startswith((b"<?xml", b"</")) and not _TAG.match(content):
            yield origin.lost("xml", "a line that is no row", offset, len(line[1]))


def _best_answers(archive: Archive, config: StackExchange) -> dict[str, str]:
    """The id of each question's best answer, by the question's."""
    accepted: dict[str, str] = {}
    best: dict[str, tuple[bool, int, int]] = {}
    for post in config.origin(archive).framed(_posts(archive, config)):
        if not isinstance(post, Post):
            continue
        number = post.values["Id"]
        if answer := post.values.get("AcceptedAnswerId"):
            accepted[number] = answer
        if (parent := post.parent) and post.score >= config.least_score:
            rank = (accepted.get(parent) == number, post.score, -int(number))
            best[parent] = max(rank, best.get(parent, rank))
    return {question: str(-rank[2]) for question, rank in best.items()}


def _joined(
    posts: Iterator[Post | Passed | Quarantined], best: dict[str, str], least_score: int
) -> Iterator[Post | list[Post] | Passed | Quarantined]:
    """The posts, a question together with its best answer where that stands."""
    waiting: dict[str, tuple[int, int, Post]] = {}  # by question: its place in the file, and the post without its text
    with tempfile.TemporaryFile() as spool:
        for post in posts:
            if not isinstance(post, Post):
                yield post
            elif post.is_question and post.values["Id"] in best and post.score >= least_score:
                body = post.values.pop("Body", "").encode("utf-8", "surrogatepass")
                waiting[post.values["Id"]] = (spool.seek(0, 2), spool.write(body), post)
            elif post.parent in waiting and best[post.parent] == post.values["Id"]:
                place, size, question = waiting.pop(post.parent)
                spool.seek(place)
                question.values["Body"] = spool.read(size).decode("utf-8", "surrogatepass")
                yield [question, post]
            else:
                yield post
    for _, _, question in waiting.values():  # their answer is gone since it was seen
        yield question


def _entries(
    record: Post | list[Post], origin: Origin, best: dict[str, str], site: str, config: StackExchange
) -> list[Entry]:
    """What becomes of a post, or of a question and its answer."""
    if isinstance(record, Post):
        return [_alone(record, origin, best, site, config)]
    question, answer = record

    def refused(reason: str, detail: str = "") -> list[Entry]:
        return [_refused(post, origin, site, reason, detail) for post in record]

    largest = max(len(post.html.encode("utf-8", "replace")) for post in record)
    if largest > config.max_bytes:
        return refused("too_large", f"{largest} bytes")
    title = " ".join(question.values.get("Title", "").split())
    texts = [_text(post.html) for post in record]
    if not all(texts):
        return refused("empty")
    uri, licences = _uri(question, site), {licence for post in record if (licence := _licence(post, origin))}
    attributes = {
        "title": title,
        "tags": " ".join(re.findall(r"[^<>|\s]+", question.values.get("Tags", ""))),
        "score": str(question.score),
        "answer": _uri(answer, site),
        "answer_score": str(answer.score),
        "author": _author(question, site),
        "answer_author": _author(answer, site),
        "closed": question.values.get("ClosedDate", ""),
        "group": uri,
    }
    document = origin.document(
        question,
        question.values["Id"],
        "\n\n".join(part for part in (title, *texts) if part),
        {name: value for name, value in attributes.items() if value},
        uri=uri,
        licence=" AND ".join(sorted(licences)) or None,
        created=moment(answer.values.get("CreationDate", "")),
    )
    return [document, _refused(answer, origin, site, "joined", uri)]


def _alone(post: Post, origin: Origin, best: dict[str, str], site: str, config: StackExchange) -> Refused:
    """Why a post becomes no part of a document."""
    if post.is_question or post.parent:
        if post.score < config.least_score:
            return _refused(post, origin, site, "score", str(post.score))
        if post.is_question:
            return _refused(post, origin, site, "unanswered")
        if best[post.parent] == post.values["Id"]:
            return _refused(post, origin, site, "orphan", f"question {post.parent} isn't taken")
        return _refused(post, origin, site, "other_answer", f"https://{site}/questions/{post.parent}")
    return _refused(post, origin, site, "post_type", post.values.get("PostTypeId", ""))


def _refused(post: Post, origin: Origin, site: str, reason: str, detail: str = "") -> Refused:
    return origin.refused(post, post.values["Id"], reason, detail, uri=_uri(post, site))


def _uri(post: Post, site: str) -> str:
    return f"https://{site}/{'a' if post.parent else 'questions'}/{post.values['Id']}"


def _author(post: Post, site: str) -> str:
    """Who is to be named with the text, as its licence asks."""
    number = post.values.get("OwnerUserId")
    return f"https://{site}/users/{number}" if number else post.values.get("OwnerDisplayName", "")


def _licence(post: Post, origin: Origin) -> str | None:
    """`CC-BY-SA-4.0` of `CC BY-SA 4.0`, as newer dumps say it."""
    return post.values.get("ContentLicense", "").strip().replace(" ", "-") or origin.licence


def _text(html: str) -> str:
    from datalake.extract.html.page import extract

    return extract(html, main_content=False).text
