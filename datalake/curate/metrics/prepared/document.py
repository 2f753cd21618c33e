"""What kernels of metrics get: a document's characters, tokens, words, lines, paragraphs and what repeats in it.

Everything is an array over code points or offsets into that array; nothing is copied per word or line. A *line* is
stripped and not blank, a *paragraph* a run of lines between blank lines, tokens and words are those of the catalog.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.text.characters import Classes, Points

Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint8]

# Bits of a line: which line edits keep it.
KEPT_C4, KEPT_FINEWEB, KEPT_PAPER, KEPT_DATATROVE, KEPT_DCLM, KEPT_AUTO = 1, 2, 4, 8, 16, 32


class Text(NamedTuple):
    """A text that isn't empty, and what is known of it before the compiled loops begin.

    - `codes`, `kinds`, shape (characters,): code points and their classes, which are written by `prepare`.
    - `classes`, `lower`, shape (0x110000,): classes and lower case of every code point.
    - `segments`: ends of the segmenter's pieces, empty where white space separates words.
    - `stops`: a word of bits, which first letters stop words have (modulo 64), then the hash of each stop word that is
      a token; `longest_stop`: the longest one's length. `distinct_stops`, `stop_count`: where stop words are no tokens,
      how many of them occur, and how often; else -1.
    - `starts`, `ends`, `hashes`, shape (characters,): room for words.
    - `english`: whether rules for English lines have a meaning. `chinese`: whether a segmenter cut. `cut`: whether
      words of n-grams end where their token does. `traditional`: in Chinese, characters of that script alone.
    - `breaks`, `signs`, `ellipses`: how many line breaks, # and ellipses there are.
    - `language_score`: the confidence of its language, NaN where there is none.
    """

    codes: Points
    kinds: Classes
    classes: Classes
    lower: Points
    segments: Places
    stops: Hashes
    longest_stop: int
    distinct_stops: int
    stop_count: int
    starts: Places
    ends: Places
    hashes: Hashes
    english: bool
    chinese: bool
    cut: bool
    traditional: int
    breaks: int
    signs: int
    ellipses: int
    language_score: float


class Repeats(NamedTuple):
    """How often lines or paragraphs repeat: those that occur more than once, and those that were seen before."""

    all: int
    all_characters: int
    later: int
    later_characters: int
    characters: int  # of all of them, repeated or not


# Rows of `Document.lines`. Those after END are facts that rules for English lines ask for, only in English texts. Of a
# line with a word of more than 1000 characters, or fewer than 3 words, no more is told than WORDED, UPPER and DIGITS,
# and its fate is LEFT; after FATE only lines that are KEPT have values.
(
    START,
    END,
    WORDED,  # words with a letter or digit
    UPPER_CASE,  # characters in upper case
    DIGITS,
    UNCITED,  # white-space words without citations
    TERMINATED,  # 1 where it then ends in . ? ! or ", but not in an ellipsis
    FINAL,  # its last character then
    PHRASES,  # bits of the phrases that it holds
    FATE,  # which of the checks of C4's line rules it meets first
    SENTENCES,
    UNCITED_SIZE,  # its characters without citations, stripped
    STOPPED,  # 1 where it then ends in a stop character of FineWeb
) = range(13)
FATES = KEPT, LOREM_IPSUM, JAVASCRIPT, CURLY_BRACKET, POLICY, LEFT = range(6)


class Document(NamedTuple):
    """A prepared document.

    - `codes`, `kinds`, shape (characters,), `classes`, `lower`, shape (0x110000,): as `Text` has them.
    - `word_starts`, `word_ends`, `word_hashes`, shape (words of n-grams,) or longer.
    - `lines`, shape (13 or 2, lines): a row for each of START and its neighbours. `line_hashes`, shape (2, lines) or
      longer: of the lines, and of English ones without citations.
    - `kept`, shape (lines,): bits of KEPT_C4 and its neighbours, written by line rules.
    - `lengths`: how many tokens are so long, those of 200 characters and more counted as 200.
    - `covered`, `later`, shape (9,), `repeated`, shape (6,): what repeats of n-grams (n from 2, or 5, to 10) by the
      definitions of three families; NaN without words.
    """

    codes: Points
    kinds: Classes
    classes: Classes
    lower: Points
    word_starts: Places
    word_ends: Places
    word_hashes: Hashes
    lines: Places
    line_hashes: Hashes
    kept: Bits
    lengths: Places
    covered: Numbers
    later: Numbers
    repeated: Numbers
    gram_words: int
    tokens: int
    words: int  # tokens with a letter or digit
    word_characters: int  # of these words, without symbols at their ends
    alphabetic_tokens: int  # with a letter
    symbol_tokens: int  # with # or …
    stops: int  # stop words; -1 where no list is known
    distinct_stops: int
    stops_are_tokens: bool
    line_count: int
    paragraph_count: int
    line_repeats: Repeats
    paragraph_repeats: Repeats
    pieces: int  # of English lines
    alphabetic_pieces: int
    breaks: int
    signs: int
    ellipses: int
    english: bool
    chinese: bool
    traditional: int
    language_score: float
