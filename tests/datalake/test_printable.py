"""What comes from outside can do nothing to a terminal, and JSON says the same all the same."""

from __future__ import annotations

import io
import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from datalake.printable import from_terminal, json_safe, one_line, printable, write

ANY = st.text(st.characters(codec=None), max_size=40) | st.text(
    st.sampled_from("\x1b[\x9b\x07\r\n\t\x00\x7f\x85\u202e\u2066\u2028\udc9b你a"), max_size=20
)
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def harmless(text: str, also: str = "") -> bool:
    return all(
        char in also
        or (unicodedata.category(char) not in ("Cc", "Cs") and unicodedata.bidirectional(char) not in TURNS)
        for char in text
    )


@given(ANY)
def test_nothing_is_left_that_a_terminal_acts_on(text: str) -> None:
    assert harmless(printable(text), "\n\t")
    assert harmless(one_line(text))


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp")), max_size=40))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(f"{text}\n\t") == f"{text}\n\t"


def test_what_is_written_out_is_still_told() -> None:
    assert printable("\x1b]0;owned\x07 \x9b31m \u202egnp.exe") == r"\x1b]0;owned\x07 \x9b31m \u202egnp.exe"
    assert one_line(" a\r\n\tb ") == "a b"


@given(st.recursive(ANY | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=5))
def test_json_says_the_same_and_does_nothing(value: object) -> None:
    told = json_safe(json.dumps(value, ensure_ascii=False))
    assert harmless(told)
    assert json.loads(told) == value


def test_a_stream_of_few_characters_gets_the_others_written_out() -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write("né 你", narrow)
    narrow.seek(0)
    assert narrow.read() == "n\\xe9 \\u4f60\n"
    write("to nobody", None)


def test_typed_bytes_that_are_no_text_are_replaced() -> None:
    assert from_terminal(b"a\xffb \xe4\xbd".decode("utf-8", "surrogateescape")) == "a\ufffdb \ufffd"
    assert from_terminal("你好") == "你好"
    assert from_terminal("\ud800a\udfff") == "\ufffda\ufffd"
