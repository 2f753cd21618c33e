"""Repair changes what is broken and no wording; line edits keep the lines C4 keeps."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.edits import keep_lines, lines_of, repair


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\xa0b\u2009c", "a b c"),
        ("\ufeffa\x00b\x1b[c\xad\u200b", "ab[c"),
        ("a  \t\n\n\n\n\nb \n", "a\n\nb"),
        ("\n\n  a", "  a"),
        ("\ud83d\ude00 \ud800", "😀 \ufffd"),
        ("\u3000\u3000第一段", "\u3000\u3000第一段"),
        ("می\u200cخواهم 👩\u200d👧", "می\u200cخواهم 👩\u200d👧"),
        ("", ""),
    ],
)
def test_repair_of_text(broken: str, whole: str) -> None:
    assert repair(broken) == whole


def test_code_keeps_its_spaces_and_blank_lines() -> None:
    code = "def f():\r\n\tx = 'e\u0301'  \n\n\n\n\treturn x\x00\n"
    assert repair(code, "code") == "def f():\n\tx = 'e\u0301'  \n\n\n\n\treturn x\n"
    assert repair(code, "none") == code


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=60), st.sampled_from(("text", "code", "none")))
def test_repair_never_raises_gives_utf8_and_has_nothing_left_to_do(text: str, kind: str) -> None:
    once = repair(text, kind)
    once.encode("utf-8")
    assert repair(once, kind) == once
    if kind == "text":
        assert unicodedata.is_normalized("NFC", once)
        assert not set(once) & set("\r\x00\x1b\u2028\xa0\ufeff")


def test_kept_lines_lose_their_citations() -> None:
    text = "First line [1] here.\n\n  dropped  \nSecond[citation needed] one [12]\n"
    assert lines_of(text) == ["First line [1] here.", "dropped", "Second[citation needed] one [12]"]
    assert keep_lines(text, [True, False, True], "c4") == "First line  here.\nSecond one"
    assert keep_lines(text, [True, False, True], "none") == text
    assert keep_lines(text, [False, False, False], "c4") == ""
