"""Words, shingles and text hashes from the compiled code are those of plain Python, for every text."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.dedup.texts.shingles import (
    CODE_POINTS,
    UNSPACED,
    characters,
    count_words,
    normalise,
    shingle,
    sort_unique,
    word_list,
)

MASK = (1 << 64) - 1
K1, K2, BASE = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93


def fmix64(h: int) -> int:
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def hash_word(word: str) -> int:
    if re.fullmatch(f"[{UNSPACED}]", word):
        return fmix64(ord(word) * K1 & MASK)
    h = 0
    for character in word:
        h = (h ^ ord(character) * K1) & MASK
        h = (h << 31 | h >> 33) & MASK
        h = h * K2 & MASK
    return fmix64(h)


def shingle_set(text: str, n: int) -> list[int]:
    words = [hash_word(word) for word in word_list(text)]
    width = min(n, len(words))
    runs = [words[k : k + width] for k in range(len(words) - width + 1)] if words else []
    return sorted(
        {fmix64(sum(w * pow(BASE, width - 1 - k, 1 << 64) for k, w in enumerate(run)) & MASK) for run in runs}
    )


def sets_of(texts: list[str], n: int) -> list[list[int]]:
    result = shingle(pa.array(texts, pa.large_string()), n)
    return [part.tolist() for part in np.split(result.shingles, result.ends[:-1])] if texts else []


def check(texts: list[str], n: int) -> None:
    assert sets_of(texts, n) == [shingle_set(text, n) for text in texts]
    result = shingle(pa.array(texts, pa.string()), n)
    assert result.words.tolist() == [len(word_list(text)) for text in texts]
    assert result.characters.tolist() == [len(text) for text in texts]
    assert result.text_hashes == [xxhash.xxh3_128_digest(normalise(text).encode()) for text in texts]
    assert count_words(pa.array(texts)).tolist() == result.words.tolist()


AWKWARD = (
    "aB1_ \t\n\u00a0\u2028\x1c.-'Σσςİıßﬁ\u0307\u0301\u00adᾼ中文\u4dc0\u4dff\u3400\u9fff"
    "\u3005かターｶ々ก็ປខမ豈𠀀각Éé①²ⅧȺ𝔄𐐀🙂٣\u200d"
)


@settings(max_examples=300)
@given(st.lists(st.text(st.sampled_from(AWKWARD), max_size=30), max_size=4), st.integers(1, 6))
def test_awkward_characters_are_split_and_lowered_as_python_does(texts: list[str], n: int) -> None:
    check(texts, n)


@settings(max_examples=200)
@given(st.lists(st.text(max_size=40), max_size=4), st.integers(1, 6))
def test_any_unicode_text_is_split_and_lowered_as_python_does(texts: list[str], n: int) -> None:
    check(texts, n)


def test_every_single_code_point_has_pythons_lower_case_and_class() -> None:
    points = [chr(c) for c in range(CODE_POINTS) if not 0xD800 <= c < 0xE000]
    texts = pa.array([f"a{c}b" for c in points])
    assert count_words(texts).tolist() == [len(word_list(f"a{c}b")) for c in points]
    lower = characters().lower
    assert [c for c in points if c != "\u0130" and c.lower() != chr(lower[ord(c)])] == []


def test_every_code_point_beside_a_capital_sigma_decides_whether_it_is_final() -> None:
    points = [chr(c) for c in range(CODE_POINTS) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co", "Lo", "So")]
    texts = [f"{c}Σ" for c in points] + [f"AΣ{c}" for c in points] + [f"A{c}Σ{c}A" for c in points]
    hashes = shingle(pa.array(texts), 1).text_hashes
    assert hashes == [xxhash.xxh3_128_digest(normalise(text).encode()) for text in texts]


def test_real_pages_are_split_as_python_does(samples) -> None:
    import gzip
    import json

    with gzip.open(samples / "cc/pages/pages-dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row["gold_text"] for row in rows if row.get("gold_text")][:120]
    assert len(texts) == 120
    assert len({row.get("lang") for row in rows}) > 5
    check(texts, 5)


def test_a_text_shorter_than_n_words_is_one_shingle_and_a_text_without_words_has_none() -> None:
    assert [len(s) for s in sets_of(["", " \n", "?!…", "one", "one two three four", "中文"], 5)] == [0, 0, 0, 1, 1, 1]
    assert sets_of(["one two"], 5) != sets_of(["one  three"], 5)
    assert sets_of(["One, TWO"], 5) == sets_of(["one two"], 5)


def test_slices_nulls_and_all_string_types_read_alike() -> None:
    texts = ["zero", "one two three", None, "中文 four"]
    whole = pa.array(texts, pa.large_string())
    expected = sets_of(["one two three", "", "中文 four"], 2)
    for array in (whole[1:], pa.array(texts)[1:], whole.cast(pa.string_view())[1:]):
        result = shingle(array, 2)
        assert [part.tolist() for part in np.split(result.shingles, result.ends[:-1])] == expected


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1000])
def test_sorting_drops_repeats_however_the_values_lie(size: int) -> None:
    generator = np.random.default_rng(size)
    even = generator.integers(0, 1 << 63, size, dtype=np.uint64) * np.uint64(2)
    for values in (even, even >> np.uint64(50), even | np.uint64(0xFFFF << 48), np.repeat(even[: size // 4], 4)):
        expected = np.unique(values)
        work, n = values.copy(), len(values)
        kept = sort_unique(work, n, np.empty(n, np.uint64), np.empty(2 * n + 2, np.int64))
        assert work[:kept].tolist() == expected.tolist()
