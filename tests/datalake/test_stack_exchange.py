"""Dumps of Stack Exchange: a question and its best answer are one document, and every post is accounted for."""

from __future__ import annotations

import bz2
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.errors import UserError
from datalake.sources.stack_exchange import StackExchange, archives, read

SITE = "english.stackexchange.com"
LONG = "The river crossed the bridge near the quiet village, and nobody knew why it did so. " * 3


def row(id: int, kind: int, body: str = LONG, **values: Any) -> str:
    given = {"Id": id, "PostTypeId": kind, "Score": 1, "Body": f"<p>{body}</p>", **values}
    return "  <row " + " ".join(f"{name}={quoteattr(str(value))}" for name, value in given.items()) + " />"


def question(id: int, body: str = LONG, **values: Any) -> str:
    return row(id, 1, body, **({"Title": f"Question {id}?", "CreationDate": "2015-01-02T03:04:05.678"} | values))


def answer(id: int, parent: int, body: str = LONG, **values: Any) -> str:
    return row(id, 2, body, **({"ParentId": parent, "CreationDate": "2016-01-02T03:04:05.678"} | values))


def dump(folder: Path, *rows: str, name: str = f"{SITE}/Posts.xml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "\n".join(rows) + "\n</posts>\n")
    return path


def entries(path: Path, **options: Any) -> list[Entry]:
    config = StackExchange(paths=[str(path.parent.parent / "**" / path.name)], **options)
    return [entry for archive in archives(config) for entry in read(archive, config)]


def refused(found: list[Entry]) -> dict[str, str]:
    """Reasons by a post's number."""
    return {entry.uri.rpartition("/")[2]: entry.reason for entry in found if isinstance(entry, Refused)}


def documents(found: list[Entry]) -> list[Document]:
    return [entry for entry in found if isinstance(entry, Document)]


def test_a_question_and_its_accepted_answer_are_one_document(tmp_path: Path) -> None:
    path = dump(
        tmp_path,
        question(1, "Why <em>is</em> it?", AcceptedAnswerId=4, Tags="<grammar><verbs>", Score=7, OwnerUserId=11),
        question(2),
        answer(3, 1, "Nobody knows.", Score=9),
        answer(4, 1, "Because of:</p><pre><code>if x:\n    y\n</code></pre><p>", Score=2, OwnerDisplayName="Ann"),
        row(5, 4),
    )
    found = entries(path)
    (document,) = documents(found)
    assert document.text == "Question 1?\n\nWhy is it?\n\nBecause of:\n\n```\nif x:\n    y\n```"
    assert document.uri == f"https://{SITE}/questions/1"
    assert (document.source, document.archive) == ("stack_exchange", f"{SITE}/Posts.xml")
    assert document.licence == "CC-BY-SA-4.0"
    assert document.created == datetime(2016, 1, 2, 3, 4, 5, 678000, UTC)
    assert document.attributes == {
        "title": "Question 1?",
        "tags": "grammar verbs",
        "score": "7",
        "answer": f"https://{SITE}/a/4",
        "answer_score": "2",
        "author": f"https://{SITE}/users/11",
        "answer_author": "Ann",
        "group": document.uri,
    }
    line = path.read_bytes()[3:][document.offset : document.offset + document.length]
    assert line.strip().startswith(b'<row Id="1" ')
    assert line.strip().endswith(b"/>")
    assert refused(found) == {"2": "unanswered", "3": "other_answer", "4": "joined", "5": "post_type"}


def test_without_an_accepted_answer_the_highest_score_counts_and_then_the_first(tmp_path: Path) -> None:
    path = dump(
        tmp_path,
        question(1, AcceptedAnswerId=99),  # which is gone
        question(2),
        answer(3, 1, "third", Score=1),
        answer(4, 1, "fourth", Score=5),
        answer(5, 2, "fifth"),
        answer(6, 2, "sixth"),
        answer(7, 1, "seventh", Score=5),
    )
    found = entries(path)
    assert [document.text.split()[-1] for document in documents(found)] == ["fourth", "fifth"]
    others = dict.fromkeys(("3", "6", "7"), "other_answer")
    assert refused(found) == others | {"4": "joined", "5": "joined"}


def test_posts_that_few_like_are_refused(tmp_path: Path) -> None:
    rows = [
        question(1, Score=5, AcceptedAnswerId=2),
        answer(2, 1, "second", Score=-1),
        answer(3, 1, "third", Score=4),
        question(4, Score=-3),
        answer(5, 4, Score=6),
    ]
    found = entries(dump(tmp_path, *rows))
    assert [document.text.split()[-1] for document in documents(found)] == ["third"]
    assert refused(found) == {"2": "score", "3": "joined", "4": "score", "5": "orphan"}
    assert [d.text.split()[-1] for d in documents(entries(dump(tmp_path, *rows), least_score=-3))] == ["second", "so."]


def test_a_post_names_its_own_licence(tmp_path: Path) -> None:
    path = dump(
        tmp_path,
        question(1, ContentLicense="CC BY-SA 3.0"),
        answer(2, 1, ContentLicense="CC BY-SA 4.0"),
        question(3, ContentLicense="CC BY-SA 2.5"),
        answer(4, 3, ContentLicense="CC BY-SA 2.5"),
    )
    assert [document.licence for document in documents(entries(path))] == [
        "CC-BY-SA-3.0 AND CC-BY-SA-4.0",
        "CC-BY-SA-2.5",
    ]


def test_damage_costs_the_posts_it_touches(tmp_path: Path) -> None:
    rows = [
        question(1),
        answer(2, 1),
        '  <row Id="3" PostTypeId="1" Body="&nope;" />',
        '  <row Id="x" PostTypeId="1" />',
        "garbage",
        '  <!DOCTYPE a [<!ENTITY b "c">]><row Id="9" PostTypeId="1" />',
        question(4),
        answer(5, 4),
        question(6)[:-30],
    ]
    found = entries(dump(tmp_path, *rows))
    assert [document.uri.rpartition("/")[2] for document in documents(found)] == ["1", "4"]
    lost = [entry for entry in found if isinstance(entry, Quarantined)]
    assert [entry.reason for entry in lost] == ["xml"] * 5
    assert all(entry.offset > 0 and entry.length > 0 for entry in lost)


def test_each_post_is_one_entry_also_where_a_file_was_appended_to_itself(tmp_path: Path) -> None:
    rows = [question(1), question(2), answer(3, 1), answer(4, 7), row(5, 3), question(6, LONG * 10), answer(8, 6)]
    found = [entry for entry in entries(dump(tmp_path, *rows, *rows), max_bytes=2_000) if not isinstance(entry, Passed)]
    assert len(found) == 2 * len(rows)
    assert len({entry.id for entry in found if isinstance(entry, Document | Refused)}) == len(found)
    assert Counter(refused(found).values())["too_large"] == 2


def test_a_sites_archive_is_read_for_its_posts_alone(tmp_path: Path) -> None:
    import py7zr

    posts = dump(tmp_path, question(1), answer(2, 1))
    users = dump(tmp_path, row(1, 1), name="Users.xml")
    users.write_text(users.read_text().replace("posts>", "users>").rstrip())
    with py7zr.SevenZipFile(tmp_path / f"{SITE}.7z", "w") as packed:
        packed.write(users, "Users.xml")
        packed.write(posts, "Posts.xml")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / f"{SITE}.xml.bz2").write_bytes(bz2.compress(posts.read_bytes()))
    for name in (f"{SITE}.7z", f"packed/{SITE}.xml.bz2"):
        config = StackExchange(paths=[str(tmp_path / name)])
        found = [entry for archive in archives(config) for entry in read(archive, config)]
        assert [document.uri for document in documents(found)] == [f"https://{SITE}/questions/1"]
        assert sum(isinstance(entry, Passed) for entry in found) == name.endswith("7z")


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("stackoverflow.com-Posts.7z", "stackoverflow.com"),
        ("ru.stackoverflow.com.7z", "ru.stackoverflow.com"),
        ("mathoverflow.net/Posts.xml.zst", "mathoverflow.net"),
        ("Posts.xml", ""),
    ],
)
def test_the_site_is_told_by_the_archives_name_or_by_the_recipe(tmp_path: Path, name: str, site: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    paths = [str(tmp_path / "*" / "Posts*" if "/" in name else tmp_path / name)]
    if site:
        assert archives(StackExchange(paths=paths))
    else:
        with pytest.raises(UserError, match="which site"):
            archives(StackExchange(paths=paths))
    assert archives(StackExchange(paths=paths, site="x.example"))
