"""Tokens and words of a text: what white space or the segmenter separates, as the catalog defines both."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.prepared.document import Places, Text
from datalake.curate.metrics.prepared.repeats import hash_exact, hash_span
from datalake.text.characters import ALNUM, HIRAGANA, IDEOGRAPH, KATAKANA, LETTER, SPACE

_LONG = 200  # tokens this long or longer count as one length: a median out here says no more
# What is counted of tokens, by its place in one array; SEEN: bits of the stop words that occur.
TOKENS, WORDS, LENGTH, ALPHABETIC, SYMBOLS, STOPPED, SEEN = range(7)


@kernel
def tokens_and_words(text: Text) -> tuple[Places, Places, int]:
    """Counts of tokens (by TOKENS and its neighbours), how many are so long, and the number of words in `starts`."""
    lengths, tally = np.zeros(_LONG + 1, np.int64), np.zeros(7, np.int64)
    words = _segmented(text, lengths, tally) if text.chinese else _spaced(text, lengths, tally)
    return tally, lengths, words


@kernel(inline="always")
def _token(
    text: Text,
    start: int,
    end: int,
    first: int,
    last: int,
    letter: int,
    symbol: bool,
    lengths: Places,
    tally: Places,
) -> None:
    """Count one token; `first` and `last` bound what is left of it without symbols at its ends (first < 0: nothing)."""
    lengths[min(end - start, _LONG)] += 1
    tally[TOKENS] += 1
    tally[ALPHABETIC] += letter != 0
    tally[SYMBOLS] += symbol
    if first >= 0:
        start, end = first, last
        tally[WORDS] += 1
        tally[LENGTH] += end - start
    codes, stops = text.codes, text.stops
    if end - start <= text.longest_stop and stops[0] >> (np.uint64(codes[start]) & np.uint64(63)) & np.uint64(1):
        h = hash_exact(codes, start, end)
        for s in range(1, len(stops)):
            if stops[s] == h:
                tally[SEEN] |= 1 << (s - 1)
                tally[STOPPED] += 1


@kernel
def _spaced(text: Text, lengths: Places, tally: Places) -> int:
    r"""Tokens of a text with spaces into `tally`; bounds and hashes of its words; returns how many words there are.

    A word, `[\u3400-\u9fff]|[^\W_]+`, may lie in a token, or go on in the next ones where Latin letters meet kana or
    ideographs; but not where words are to lie within tokens (`cut`): in Japanese it would run on to the clause's end.
    """
    codes, kinds, lower = text.codes, text.kinds, text.lower
    starts, ends, hashes = text.starts, text.ends, text.hashes
    count, at, size = 0, 0, len(codes)
    word = -1  # where the word that is open begins
    while at < size:
        kind = kinds[at]
        if kind & SPACE:
            at += 1
            continue
        start, first, last, letter, symbol = at, -1, -1, 0, False
        if kind & IDEOGRAPH:
            at += 1
            letter = kind & LETTER
            if kind & ALNUM:
                first, last = start, at
            if word < 0:
                starts[count], ends[count], hashes[count] = start, at, hash_span(codes, start, at, lower)
                count += 1
            elif at == size or not kinds[at] & ALNUM:
                starts[count], ends[count], hashes[count] = word, at, hash_span(codes, word, at, lower)
                count += 1
                word = -1
        else:
            kana = kind & (HIRAGANA | KATAKANA)
            while at < size and not kinds[at] & (SPACE | IDEOGRAPH) and kinds[at] & (HIRAGANA | KATAKANA) == kana:
                if kinds[at] & ALNUM:
                    if word < 0:
                        word = at
                    if first < 0:
                        first = at
                    while at < size and kinds[at] & (ALNUM | IDEOGRAPH | HIRAGANA | KATAKANA) == ALNUM | kana:
                        letter |= kinds[at] & LETTER
                        at += 1
                    last = at
                else:
                    symbol |= (codes[at] == 35) | (codes[at] == 0x2026)
                    at += 1
                if word >= 0 and (at == size or not kinds[at] & ALNUM):
                    starts[count], ends[count], hashes[count] = word, last, hash_span(codes, word, last, lower)
                    count += 1
                    word = -1
            if text.cut and word >= 0:
                starts[count], ends[count], hashes[count] = word, at, hash_span(codes, word, at, lower)
                count += 1
                word = -1
        _token(text, start, at, first, last, letter, symbol, lengths, tally)
    return count


@kernel
def _segmented(text: Text, lengths: Places, tally: Places) -> int:
    """As `_spaced`, where a segmenter cuts: its pieces are tokens, those with a letter or digit are words."""
    codes, kinds, lower = text.codes, text.kinds, text.lower
    starts, ends, hashes = text.starts, text.ends, text.hashes
    count, begin = 0, 0
    for until in text.segments:
        a, b = begin, until
        begin = until
        while a < b and kinds[a] & SPACE:
            a += 1
        while b > a and kinds[b - 1] & SPACE:
            b -= 1
        if a == b:
            continue
        first, last, letter, symbol = -1, -1, 0, False
        for at in range(a, b):
            if kinds[at] & ALNUM:
                last = at + 1
                if first < 0:
                    first = at
            letter |= kinds[at] & LETTER
            symbol |= (codes[at] == 35) | (codes[at] == 0x2026)
        if first >= 0:
            starts[count], ends[count], hashes[count] = a, b, hash_span(codes, a, b, lower)
            count += 1
        _token(text, a, b, first, last, letter, symbol, lengths, tally)
    return count
