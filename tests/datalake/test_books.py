"""Books lose Project Gutenberg's frame, whatever its age, and nothing else; chapters and paragraphs can be told."""

from __future__ import annotations

import io
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.sources.books.books import archives, read
from datalake.sources.books.config import Books
from datalake.sources.books.gutenberg import chapters, reflow, release, strip_frame

BODY = "The harbour lay still.\n\nNobody had rung the bell since the flood, and nobody spoke of it."
FIELDS = (
    "Title: The Bell of\n       the Harbour\nAuthor: Ada Quill\nRelease Date: June 25, 2008 [EBook #1234]\n"
    "Language: English\n"
)
SMALL_PRINT = "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here? Lawyers.\n"
LICENCE = "Updated editions will replace the previous one.\n\nSection 1. General Terms\n"


def entries(path: Path, **options: object) -> list[Entry]:
    config = Books.model_validate({"paths": [str(path)], **options})
    return [entry for shard in archives(config) for entry in read(shard, config)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{FIELDS}\n*** START OF THIS PROJECT GUTENBERG EBOOK THE BELL ***\n\nProduced by A and\nB\n\n",
         f"\n\nEnd of the Project Gutenberg EBook of The Bell, by Ada Quill\n\n*** END OF THIS PROJECT ***\n{LICENCE}"),
        (f"{FIELDS}\n*** START OF THE PROJECT GUTENBERG EBOOK A TITLE THAT IS SO LONG\nTHAT IT TAKES TWO LINES ***\n\n",
         f"\n\n*** END OF THE PROJECT GUTENBERG EBOOK A TITLE ***\n{LICENCE}"),
        (f"{FIELDS}\n***START OF THE PROJECT GUTENBERG EBOOK THE BELL***\n\n\nE-text prepared by A\n\n\n",
         "\n\n***END OF THE PROJECT GUTENBERG EBOOK THE BELL***\n"),
        (f"The Project Gutenberg Etext of The Bell, by Ada Quill\n\n{SMALL_PRINT}\n"
         "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n",
         "\n\nEnd of Project Gutenberg's The Bell, by Ada Quill\n"),
        (f"Project Gutenberg's The Bell, by Ada Quill\n\n{FIELDS}\n", f"\n\n{SMALL_PRINT}"),
        ("The Project Gutenberg EBook of The Bell, by Ada Quill\n\nThis eBook is for the use of anyone anywhere at no\n"
         f"cost.\n\n{FIELDS}\n\n", f"\n\n{LICENCE}"),
        (f"{FIELDS}\n*** START OF THIS PROJECT GUTENBERG EBOOK THE BELL ***\n", ""),
        (f"{FIELDS}\n*** START OF THIS PROJECT GUTENBERG EBOOK LA CLOCHE ***\n",
         "\n\nFin de Project Gutenberg's La cloche, by Ada Quill\n"),
        (f"{FIELDS}\n*** START OF THIS PROJECT GUTENBERG EBOOK DIE GLOCKE ***\n",
         "\n\nEnde dieses Projekt Gutenberg Etextes Die Glocke\n"),
        (f"{FIELDS}\n*** START OF THIS PROJECT GUTENBERG EBOOK LA CAMPANA ***\n",
         "\n\nFine del Progetto Gutenberg La campana\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_frame_goes_and_the_book_stays(tmp_path: Path, before: str, after: str, line_end: str) -> None:
    (tmp_path / "bell.txt").write_bytes((before + BODY + after).replace("\n", line_end).encode())
    (book,) = entries(tmp_path / "bell.txt")
    assert isinstance(book, Document)
    assert book.text == BODY
    assert book.attributes["author"] == "Ada Quill"
    assert book.attributes["title"] in ("The Bell of the Harbour", "The Bell")


def test_what_the_header_says_is_kept(tmp_path: Path) -> None:
    (tmp_path / "bell.txt").write_text(f"{FIELDS}\n*** START OF THE PROJECT GUTENBERG EBOOK THE BELL ***\n\n{BODY}")
    (book,) = entries(tmp_path / "bell.txt")
    assert isinstance(book, Document)
    assert book.uri == "https://www.gutenberg.org/ebooks/1234"
    assert book.created == datetime(2008, 6, 25, tzinfo=UTC)
    assert book.attributes == {
        "title": "The Bell of the Harbour", "author": "Ada Quill", "ebook": "1234", "language": "English",
        "release_date": "June 25, 2008", "rights": "public domain in the USA", "group": "The Bell of the Harbour",
    }  # fmt: skip
    assert book.licence is None


def test_a_book_that_is_not_gutenbergs_stays_as_it_is() -> None:
    text = f"Title: A Play\n\nACT I\n\n{BODY}\n\nThe end of the project was near.\n"
    assert strip_frame(text) == (text, {})


@pytest.mark.parametrize(
    ("date", "day"),
    [("June 25, 2008", (2008, 6, 25)), ("August, 1998", (1998, 8, 1)), ("2021-03-04", (2021, 3, 4)),
     ("Feb 3, 2001", (2001, 2, 3)), ("soon", None), ("June 31, 2008", None), ("", None)],
)  # fmt: skip
def test_release_dates(date: str, day: tuple[int, int, int] | None) -> None:
    assert release(date) == (datetime(*day, tzinfo=UTC) if day else None)


PROSE = """\
The lamp had been burning for three days when the keeper's daughter came
up the stairs with bread, and with the news that the boat was gone--and
nobody had seen it leave in the night. It was, she said, quite a well-
known thing that boats do not go by themselves."""
VERSE = """\
O lamp, that burns for three days,
And never asks for bread,
The boat is gone, the boat is gone,
And no one knows who fled."""


def test_prose_is_joined_and_verse_is_not() -> None:
    text = f"CHAPTER I\n\n{PROSE}\n\n{VERSE}\n\n    an indented\n    motto of a size that is wrapped\n\n{PROSE}\n"
    whole = reflow(text)
    assert VERSE in whole
    assert "    an indented\n    motto" in whole
    joined = whole.split("\n\n")[1]
    assert "\n" not in joined
    assert "daughter came up the stairs" in joined
    assert "a well-known thing" in joined
    assert "".join(whole.split()) == "".join(text.split())


@given(st.text(alphabet="ab -\n\t ", max_size=300))
def test_joining_lines_changes_nothing_but_white_space(text: str) -> None:
    assert "".join(reflow(text).split()) == "".join(text.split())


LONG = "And so it went on, from one tide to the next, with nothing to be said of it. " * 6


def test_chapters_are_told_by_their_headings_and_hold_all_of_the_text() -> None:
    contents = "CONTENTS\n\nCHAPTER I. The Bell\n\nCHAPTER II. The Flood\n\n"
    text = (
        f"{contents}PREFACE\n\n{LONG}\n\nCHAPTER I\nThe Bell\n\n{LONG}\n\nCHAPTER II\n\n{LONG}\n\n第三章 洪水\n\n{LONG}"
    )
    found = chapters(text)
    assert "".join(part for _, part in found) == text
    assert [heading for heading, _ in found][1:] == ["CHAPTER I", "CHAPTER II", "第三章 洪水"]
    assert "PREFACE" in found[0][1]


@given(st.text(alphabet="ab\n ", max_size=100), st.lists(st.sampled_from(["CHAPTER I", LONG, "\n\n", "x"]), max_size=9))
def test_chapters_joined_are_the_text(text: str, parts: list[str]) -> None:
    whole = text + "".join(parts)
    assert "".join(part for _, part in chapters(whole)) == whole


def test_each_chapter_can_be_a_document(tmp_path: Path) -> None:
    head = f"{FIELDS}\n*** START OF THE PROJECT GUTENBERG EBOOK THE BELL ***\n\n"
    (tmp_path / "bell.txt").write_text(f"{head}CHAPTER I\n\n{LONG}\n\nCHAPTER II\n\n{LONG}")
    found = [entry for entry in entries(tmp_path / "bell.txt", unit="chapter") if isinstance(entry, Document)]
    assert [book.attributes["chapter"] for book in found] == ["CHAPTER I", "CHAPTER II"]
    assert [book.uri for book in found] == [f"https://www.gutenberg.org/ebooks/1234#{number}" for number in (0, 1)]
    assert len({book.id for book in found}) == 2
    assert len({book.attributes["group"] for book in found}) == 1


def test_archives_give_their_books_and_pass_what_is_none(tmp_path: Path) -> None:
    members = {
        "a.txt": BODY.encode(), "b/empty.txt": b" \n", "cover.jpg": b"\xff\xd8\xff", "bin": b"\0\1\2",
        "c.htm": f"<html><body><h1>Bell</h1><p>{BODY}</p></body></html>".encode(),
        "latin.txt": "Où est la cloche? Elle a été emportée par la crue, mon frère.".encode("cp1252"),
        "zh.txt": ("港口很安静。自从洪水以来，没有人敲过钟，也没有人谈起它。" * 20).encode("gb18030"),
        "utf16.txt": BODY.encode("utf-16"),
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with tarfile.open(tmp_path / "books.tar.xz", "w:xz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for path in (tmp_path / "books.zip", tmp_path / "books.tar.xz"):
        found = entries(path)
        assert [type(entry).__name__ for entry in found] == [
            "Document", "Refused", "Passed", "Refused", "Document", "Document", "Document", "Document",
        ]  # fmt: skip
        texts = [entry.text for entry in found if isinstance(entry, Document)]
        assert texts[0] == texts[4] == BODY
        assert "The harbour lay still." in texts[1]
        assert texts[2].startswith("Où est la cloche?")
        assert texts[3].startswith("港口很安静")
        assert [entry.reason for entry in found if isinstance(entry, Refused)] == ["empty", "media_type"]


def test_a_book_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 2_000)
    (entry,) = entries(tmp_path / "a.txt", max_bytes=1_000)
    assert isinstance(entry, Refused)
    assert entry.reason == "too_large"


def test_every_book_of_the_real_archives_is_accounted_for(samples: Path) -> None:
    for name in ("genesis.zip", "inaugural.zip"):
        with zipfile.ZipFile(samples / "text" / name) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
        found = entries(samples / "text" / name)
        assert sum(not isinstance(entry, Passed) for entry in found) == len(files)
        assert not any(isinstance(entry, Quarantined) for entry in found)
    french = next(e for e in entries(samples / "text" / "genesis.zip") if "french" in getattr(e, "uri", ""))
    assert isinstance(french, Document)
    assert french.language == "fr"


@pytest.mark.parametrize(
    ("text", "encoding", "declared", "charset"),
    [
        ("Der Fluß an der Mühle ist tief.", "latin-1", "ISO Latin-1", "windows-1252"),
        ("Der Fluß an der Mühle ist tief.", "latin-1", "ASCII", "windows-1252"),
        ("Řeka u mlýna je hluboká, příliš žlutá.", "iso8859-2", "ISO-8859-2", "iso-8859-2"),
        ("河水在春天上涨，磨坊的轮子又开始转动。", "gbk", "", "gb18030"),
        ("河水在春天上涨，磨坊的轮子又开始转动。", "gb18030", "GB2312", "gbk"),
        ("川の水は春に増え、①と②の水車が回った。", "cp932", "Shift_JIS", "shift_jis"),
        ("河水在春天上涨，磨坊的轮子又开始转动。", "utf-8", "ISO-8859-1", None),
    ],
)
def test_a_book_in_another_character_set_is_read_and_says_which(
    tmp_path: Path, text: str, encoding: str, declared: str, charset: str | None
) -> None:
    header = f"Character set encoding: {declared}\n\n" if declared else ""
    (tmp_path / "a.txt").write_bytes((header + f"{text}\n" * 3).encode(encoding))
    (tmp_path / "b.txt").write_bytes(bytes(range(1, 256)) * 20)
    (book, noise) = entries(tmp_path)
    assert isinstance(book, Document)
    assert text in book.text
    assert book.attributes.get("charset") == charset
    assert isinstance(noise, Refused)
    assert noise.reason == "media_type"
