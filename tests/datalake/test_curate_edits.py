"""Repair changes what is broken and no wording; line edits keep the lines C4 keeps."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.edits import keep_lines, lines_of, repair, repair_surrogates


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


@settings(max_examples=300)
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


def plain_repair(text: str) -> str:
    """Every step on every text, without looking first whether there is something to do."""
    text = re.sub("\r\n|[\r\v\f\x85\u2028\u2029]", "\n", repair_surrogates(text))
    text = re.sub("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]", "", text)
    text = unicodedata.normalize("NFC", re.sub("[\xa0\u1680\u2000-\u200a\u202f\u205f]", " ", text))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)[^\S\n]+$", "", text)).strip("\n")


HARD = "ab \n\n\n\t\u3000\xa0\u2028\r\ufeff\x00é\u0301\u1100\u1161\u212b\ud800\udc00か\u3099中。\uf900"


@settings(max_examples=500)
@given(
    st.text(
        st.sampled_from(
            "ab \n\n\n\t\u3000\xa0\u2028\r\ufeff\x00é\u0301\u1100\u1161\u212b\ud800\udc00か\u3099中。\uf900"
        )
    )
)
def test_a_clean_text_is_passed_and_any_other_repaired_in_full(text: str) -> None:
    assert repair(text) == plain_repair(text)


def test_every_character_is_repaired_alone_and_after_others() -> None:
    for point in range(0, 0x30000):
        for text in (f"a{chr(point)}b", f"\u1100{chr(point)}\u0301", f"e{chr(point)}"):
            assert repair(text) == plain_repair(text), hex(point)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("See https://a.example/x?y=1 now", "See  now"),
        ("www.a.example/b\nnext", "next"),
        ("参见http://a.example/路径。然后", "参见。然后"),
        ("(http://a.example)", "()"),
        ("访问www.a.example/b查看更多内容", "访问查看更多内容"),
        ("詳しくはhttps://a.example/xをご覧ください。", "詳しくはをご覧ください。"),
        ("It is at http://a.example/x. Then", "It is at . Then"),
        ("Awww.that is sweet, www... and http:", "Awww.that is sweet, www... and http:"),
        ("no address", "no address"),
    ],
)
def test_addresses_are_taken_out_where_a_preset_asks_for_it(text: str, left: str) -> None:
    assert repair(text, "no_urls") == left
    assert repair(text) == text
