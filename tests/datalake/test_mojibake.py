"""The metric `mojibake`: texts that were encoded twice, and texts that only look like it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.metrics.measure import measure


def as_bytes(text: str) -> str:
    """Each character as the byte it is in Windows-1252 or Latin-1, as a character; `?` for those that are none."""
    result = ""
    for character in text:
        try:
            byte = character.encode("cp1252")[0]
        except UnicodeEncodeError:
            byte = ord(character) if ord(character) < 0x100 else 0x3F
        result += chr(byte)
    return result


def oracle(text: str) -> float:
    # A lead byte must be written as Latin-1 has it, which Windows-1252 does from 0xA0 on.
    sequences = re.findall("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}", as_bytes(text))
    return sum(map(len, sequences)) / len(text)


def twice(text: str) -> str:
    """UTF-8 read as browsers read Windows-1252, where each byte is a character."""
    return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in text.encode())


@pytest.mark.parametrize("text", ["déjà vu", "it’s “quoted”", "naïve — …", "中文字符", "😀 emoji", "Ωμέγα"])
def test_what_was_encoded_twice_counts_whole(text: str) -> None:
    broken = twice(text)
    changed = len(twice("".join(c for c in text if ord(c) > 127)))
    assert measure(broken)["mojibake"] == changed / len(broken)
    assert measure(text)["mojibake"] == 0


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aÃ©â€™Â ðŸ˜€É”ÿ\xc3\x80中\u2122\x9d")), st.text())
def test_it_is_what_its_definition_says(one: str, other: str) -> None:
    for text in (one, other, twice(other)):
        if text:
            assert measure(text)["mojibake"] == oracle(text)


def test_a_sequence_that_is_cut_is_none() -> None:
    assert measure("â€")["mojibake"] == 0
    assert measure("Ã")["mojibake"] == 0
