"""All metrics of a document in one pass: text to code points to tokens and hashes to numbers.

The metrics are defined in `catalog.py`. The loops are compiled (numba) and work on offsets into the array of code
points; nothing is copied per word or line. Equal words, lines and paragraphs are found by 64-bit hashes: two
different ones collide with a probability of about 2^-64 per pair. An n-gram can only repeat where both (n-1)-grams in
it do, so longer n-grams are looked up at few places.
"""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.curate.metrics.catalog import METRICS, NAMES
from datalake.curate.presets import CHINESE, STOP_WORDS, UNSEGMENTED
from datalake.text.characters import (
    ALNUM,
    CJK_TERMINAL,
    CLOSER,
    HIRAGANA,
    IDEOGRAPH,
    KATAKANA,
    LETTER,
    LOWER,
    SPACE,
    STOP_CHAR,
    TERMINAL,
    UPPER,
    Classes,
    Points,
    points,
    tables,
)
from datalake.text.chinese import segment, traditional_characters, traditional_table
from datalake.text.hashes import fmix64

Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]

MAX_WORD, C4_WORDS, FEW_WORDS, SHORT_LINE = 1000, 5, 3, 30  # C4's and FineWeb's constants
CAPITALS, DIGITS, DCLM_WORDS, EDITED_WORDS = 0.5, 0.999999, 2, 10  # RefinedWeb's line rules, as DCLM has them
PROSE_WORDS, VERSE_WORDS, NOTICE_WORDS = 8, 4, 20  # the least of a line of prose or verse, the most of a notice
_LONG = 200  # tokens this long or longer count as one length: a median out here says no more
# Bits of a line: which line edits keep it.
KEPT_C4, KEPT_FINEWEB, KEPT_PAPER, KEPT_DATATROVE, KEPT_DCLM, KEPT_AUTO = 1, 2, 4, 8, 16, 32

_K1 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_BASE = np.uint64(0xD6E8FEB86659FD93)

(
    CHARS,
    LINES,
    PARAGRAPHS,
    TOKENS,
    WORDS,
    MEAN_WORD,
    HASHES,
    ELLIPSES,
    BULLETS,
    ELLIPSIS_LINES,
    ALPHA_WORDS,
    STOPS,
    DUP_LINE,
) = range(13)
TOP, DUP, LATER_LINE, LATER_TOP, LATER_DUP, LINE_PUNCT, C4, FW, CODE, CJK = 16, 19, 25, 29, 32, 38, 42, 48, 56, 62
WORDS_TOO, REPEAT, PAPER, DATATROVE, DCLM, CHINESE_TOO, PROSE = 65, 69, 75, 79, 83, 86, 89
_LAYOUT = {
    "chars": CHARS,
    "dup_line_frac": DUP_LINE,
    "top_2gram": TOP,
    "dup_5gram": DUP,
    "later_line_frac": LATER_LINE,
    "later_top_2gram": LATER_TOP,
    "later_5gram": LATER_DUP,
    "line_punct": LINE_PUNCT,
    "c4_lines": C4,
    "fw_lines": FW,
    "max_line": CODE,
    "han_ratio": CJK,
    "median_word_length": WORDS_TOO,
    "repeat_5gram": REPEAT,
    "c4p_lines": PAPER,
    "c4d_lines": DATATROVE,
    "dclm_lines": DCLM,
    "chars_per_line": CHINESE_TOO,
    "prose": PROSE,
}
_CLASSES = (
    SPACE,
    LETTER,
    ALNUM,
    IDEOGRAPH,
    HIRAGANA,
    KATAKANA,
    LOWER,
    TERMINAL,
    CLOSER,
    CJK_TERMINAL,
    STOP_CHAR,
    UPPER,
)
# Compiled loops are cached by this file's content and hold these numbers as constants: spelled out here, so that a
# change in `catalog.py` or `characters.py` can't meet loops compiled before it.
if {name: NAMES.index(name) for name in _LAYOUT} != _LAYOUT or _CLASSES != (
    1,
    2,
    4,
    8,
    16,
    32,
    64,
    128,
    256,
    512,
    4096,
    2048,
):
    raise RuntimeError("metrics.py: the layout constants differ from those of catalog.py or characters.py")
SIZE = len(NAMES)
# What counts tokens is missing where there is no telling tokens apart.
_OF_TOKENS = (
    "tokens",
    "words",
    "mean_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "alpha_words",
    "newline_ratio",
    "median_word_length",
    "symbol_words",
    "symbol_ratio",
    "prose",
    "stop_word_share",
)

PHRASES = (
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATIONS = ("edit]", "citation needed]")
# What social counters count (RefinedWeb), and the snippets its line edits take out of short lines.
COUNTED = (
    *("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes"),
    *("downloads", "views", "followers"),
)
SNIPPETS = ("items in cart", "read more...", "sign-in")  # anywhere; at the end; at the beginning
# Two letters in each phrase that seldom stand together, and where: a phrase is looked for around such a pair alone.
_PAIRS = ("ps", "ja", "ms", "va", "ki", "ki", "ki", "ki")
_ANCHORS = np.array([phrase.index(pair) for phrase, pair in zip(PHRASES, _PAIRS, strict=True)])
_SECOND = np.zeros(128, np.uint32)  # the second letter by the first
_SECOND[[ord(pair[0]) for pair in _PAIRS]] = [ord(pair[1]) for pair in _PAIRS]


@kernel
def hash_span(codes: Points, start: int, end: int, lower: Points) -> np.uint64:
    """The 64-bit hash of a span's code points, each through the table `lower`, two of them a step."""
    h = np.uint64(end - start)
    k = start
    while k + 1 < end:
        h = (h ^ (np.uint64(lower[codes[k]]) | np.uint64(lower[codes[k + 1]]) << np.uint64(32))) * _K1
        h ^= h >> np.uint64(29)
        k += 2
    if k < end:
        h = (h ^ np.uint64(lower[codes[k]])) * _K1
        h ^= h >> np.uint64(29)
    return fmix64(h)


@kernel
def hash_exact(codes: Points, start: int, end: int) -> np.uint64:
    """The 64-bit hash of a span's code points as they stand, two of them a step."""
    h = np.uint64(end - start)
    k = start
    while k + 1 < end:
        h = (h ^ (np.uint64(codes[k]) | np.uint64(codes[k + 1]) << np.uint64(32))) * _K1
        h ^= h >> np.uint64(29)
        k += 2
    if k < end:
        h = (h ^ np.uint64(codes[k])) * _K1
        h ^= h >> np.uint64(29)
    return fmix64(h)


@kernel
def _group(hashes: Hashes, count: int, first: Places, counts: Places) -> None:
    """For each item, the index of its first equal into `first`, and there how many are equal into `counts`."""
    bits = 3
    while 1 << bits < 2 * count:
        bits += 1
    mask = (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int64)
    for k in range(count):
        h = hashes[k]
        at = np.int64(h >> np.uint64(20)) & mask
        while slots[at] >= 0 and hashes[slots[at]] != h:
            at = (at + 1) & mask
        if slots[at] < 0:
            slots[at] = k
            counts[k] = 0
        first[k] = slots[at]
        counts[slots[at]] += 1


@kernel
def _repeated(
    hashes: Hashes, starts: Places, ends: Places, count: int, size: int, covered: Numbers, later: Numbers
) -> int:
    """Shares of repeated items and their characters: all into `covered`, those after the first into `later`.

    Returns the characters of items seen before.
    """
    first, counts = np.empty(count, np.int64), np.empty(count, np.int64)
    _group(hashes, count, first, counts)
    total, items, characters, repeats, repeat_characters = 0, 0, 0, 0, 0
    for k in range(count):
        length = ends[k] - starts[k]
        total += length
        if counts[first[k]] > 1:
            items += 1
            characters += length
            if first[k] != k:
                repeats += 1
                repeat_characters += length
    covered[0] = items / count
    covered[1] = characters / total
    later[0] = repeats / count
    later[1] = repeat_characters / size
    return repeat_characters


@kernel
def _ngrams(hashes: Hashes, starts: Places, ends: Places, count: int, size: int, out: Numbers) -> None:
    """The n-gram metrics of both families, n from 2 to 10, over `count` words of a text of `size` characters."""
    for n in range(2, 11):
        here, there = (TOP + n - 2, LATER_TOP + n - 2) if n < 5 else (DUP + n - 5, LATER_DUP + n - 5)
        out[here] = 0.0
        out[there] = 0.0
        if n > 4:
            out[REPEAT + n - 5] = 0.0
    sums = np.empty(count + 1, np.int64)  # characters of words before each
    sums[0] = 0
    for k in range(count):
        sums[k + 1] = sums[k] + ends[k] - starts[k]
    total = sums[count]
    grams = hashes[:count].copy()
    repeats = np.ones(count, np.bool_)  # whether the gram of the length before repeats
    ids = np.empty(count, np.int64)
    counts = np.zeros(count, np.int64)
    bits = 3
    while 1 << bits < 2 * count:
        bits += 1
    slots = np.empty(1 << bits, np.int64)
    for n in range(2, 11):
        last = count - n + 1
        if last < 1:
            break
        asked = 0
        for k in range(last):
            grams[k] = grams[k] * _BASE + hashes[k + n - 1]
            if repeats[k] and repeats[k + 1]:
                asked += 1
        if asked < 2:
            break
        bits = 3
        while 1 << bits < 2 * asked:
            bits += 1
        mask = (1 << bits) - 1
        slots[: mask + 1] = -1
        for k in range(last):
            ids[k] = -1
            if not (repeats[k] and repeats[k + 1]):
                continue
            gram = grams[k]
            at = np.int64(fmix64(gram) >> np.uint64(20)) & mask
            while slots[at] >= 0 and grams[slots[at]] != gram:
                at = (at + 1) & mask
            if slots[at] < 0:
                slots[at] = k
                counts[k] = 0
            ids[k] = slots[at]
            counts[slots[at]] += 1
        most, longest, first = 1, 0, 0  # first: where the most frequent gram that comes first begins
        for k in range(last):
            repeats[k] = ids[k] >= 0 and counts[ids[k]] > 1
            if repeats[k]:
                times = counts[ids[k]]
                length = sums[k + n] - sums[k]
                if times > most:
                    most, longest, first = times, length, k
                elif times == most:
                    longest = max(longest, length)
        for k in range(last, count):
            repeats[k] = False
        if most == 1:
            break
        if n < 5:
            out[TOP + n - 2] = most * longest / total
            out[LATER_TOP + n - 2] = most * (sums[first + n] - sums[first] + n - 1) / size
            continue
        covered, until, repeating, every = 0, 0, 0, 0
        for k in range(last):
            every += sums[k + n] - sums[k]
            if repeats[k]:
                covered += sums[k + n] - sums[max(k, until)]
                until = k + n
                repeating += sums[k + n] - sums[k]
        out[DUP + n - 5] = covered / total
        out[REPEAT + n - 5] = repeating / every
        seen_characters, k = 0, 0
        while k < last:
            if repeats[k] and counts[ids[k]] < 0:
                seen_characters += sums[k + n] - sums[k]
                k += n
            else:
                if repeats[k]:
                    counts[ids[k]] = -counts[ids[k]]  # seen
                k += 1
        out[LATER_DUP + n - 5] = seen_characters / size


@kernel
def _sentences(line: Points, size: int, classes: Classes) -> int:
    """How many sentences a line holds.

    One ends with a run of terminals and closers, at the line's end or before a space and no lower case; with a Chinese
    or Japanese terminal anywhere.
    """
    count, at, counted = 0, 0, 0  # counted: where the last sentence that is counted ends
    while True:
        while at < size and not classes[line[at]] & TERMINAL:
            at += 1
        if at == size:
            break
        cjk = False
        while at < size and classes[line[at]] & TERMINAL:
            cjk = classes[line[at]] & CJK_TERMINAL != 0
            at += 1
        while at < size and classes[line[at]] & CLOSER:
            at += 1
        after = at
        while after < size and classes[line[after]] & SPACE:
            after += 1
        if after == size or cjk or (after > at and not classes[line[after]] & LOWER):
            count += 1
            counted = at
    for at in range(counted, size):
        if not classes[line[at]] & SPACE:
            return count + 1
    return count


@kernel
def _unclosed(kinds: Classes, start: int, end: int) -> int:
    """Where a line ends without the quotation marks and brackets that close it."""
    while end > start and kinds[end - 1] & (CLOSER | SPACE):
        end -= 1
    return end


@kernel
def _holds_sentence(codes: Points, kinds: Classes, start: int, end: int) -> bool:
    """Whether a line has a sentence's end, as `_sentences` has it but for dots in a row, or two full-width commas."""
    commas, at = 0, start
    while at < end:
        if not kinds[at] & TERMINAL:
            commas += codes[at] == 0xFF0C
            at += 1
            continue
        begin = at
        while at < end and kinds[at] & TERMINAL:
            at += 1
        if at - begin > 1 and codes[at - 1] == codes[at - 2] == 46:
            continue
        cjk = kinds[at - 1] & CJK_TERMINAL != 0
        while at < end and kinds[at] & CLOSER:
            at += 1
        after = at
        while after < end and kinds[after] & SPACE:
            after += 1
        if cjk or after == end or (after > at and not kinds[after] & LOWER):
            return True
    return commas > 1


@kernel
def _prose_words(
    codes: Points, kinds: Classes, starts: Places, words: int, line_starts: Places, line_ends: Places, lines: int
) -> int:
    """How many of the words that begin at `starts` stand in lines of prose or verse.

    A line that ends in an ellipsis is cut short, as teasers of other pages are.
    """
    prose, word = 0, 0
    for k in range(lines):
        first = word
        while word < words and starts[word] < line_ends[k]:
            word += 1
        if word - first < VERSE_WORDS:
            continue
        last = _unclosed(kinds, line_starts[k], line_ends[k])
        final = codes[last - 1]
        if final == 0x2026 or final == codes[last - 2] == 46:
            continue
        if kinds[last - 1] & TERMINAL or final in (0x2C, 0xFF0C):
            prose += word - first
        elif word - first >= PROSE_WORDS:
            goes_on = k + 1 < lines and kinds[line_starts[k + 1]] & LOWER != 0
            if goes_on or _holds_sentence(codes, kinds, line_starts[k], line_ends[k]):
                prose += word - first
    return prose


@kernel
def _phrases(line: Points, size: int, lower: Points, phrases: Points, bounds: Places) -> int:
    """Bits of the phrases that the lower-cased line holds."""
    found = 0
    for at in range(size - 1):
        c = lower[line[at]]
        if c > 127 or not _SECOND[c] or _SECOND[c] != lower[line[at + 1]]:
            continue
        for p in range(len(bounds) - 1):
            begin, length = at - _ANCHORS[p], bounds[p + 1] - bounds[p]
            if begin < 0 or begin + length > size or lower[line[begin]] != phrases[bounds[p]]:
                continue
            k = 0
            while k < length and lower[line[begin + k]] == phrases[bounds[p] + k]:
                k += 1
            if k == length:
                found |= 1 << p
    return found


@kernel
def _uncited(codes: Points, start: int, end: int, marks: Points, bounds: Places, out: Points) -> int:
    r"""The line without matches of `\[\d*\]|\[edit\]|\[citation needed\]` into `out`; returns its length.

    Of digits the ASCII ones, in which citations are numbered.
    """
    size, at = 0, start
    while at < end:
        if codes[at] == 91:  # [
            k = at + 1
            while k < end and 48 <= codes[k] <= 57:
                k += 1
            if k < end and codes[k] == 93:  # ]
                at = k + 1
                continue
            skipped = False
            for m in range(len(bounds) - 1):
                length = bounds[m + 1] - bounds[m]
                if at + 1 + length > end:
                    continue
                k = 0
                while k < length and codes[at + 1 + k] == marks[bounds[m] + k]:
                    k += 1
                if k == length:
                    at += 1 + length
                    skipped = True
                    break
            if skipped:
                continue
        out[size] = codes[at]
        size += 1
        at += 1
    return size


@kernel
def _english_lines(
    codes: Points,
    kinds: Classes,
    starts: Places,
    ends: Places,
    line_hashes: Hashes,
    count: int,
    classes: Classes,
    lower: Points,
    phrases: Points,
    phrase_bounds: Places,
    marks: Points,
    mark_bounds: Places,
    counted: Points,
    counted_bounds: Places,
    snippets: Points,
    snippet_bounds: Places,
    out: Numbers,
    kept: npt.NDArray[np.uint8],
) -> None:
    """Line rules of English corpora: C4's and three variants, RefinedWeb's; what each keeps into `kept`, a bit each.

    C4's code asks for 5 words and a terminal mark, its paper for 3 words; datatrove counts words before citations are
    taken out and an apostrophe as terminal, and FineWeb leaves out the terminal mark. RefinedWeb drops lines in
    capitals, of digits, of social counters and of one word. The lines of `auto` are FineWeb's with those that have a {,
    and those that speak of cookies or JavaScript in more than a notice's words.
    """
    for k in range(C4, FW + 4):
        out[k] = 0.0
    for k in range(PAPER, DATATROVE + 4):
        out[k] = 0.0
    out[PROSE + 4] = 0.0
    total, removed, dclm, pieces, alpha = 0, 0, 0, 0, 0
    longest = 0
    for k in range(count):
        longest = max(longest, ends[k] - starts[k])
    room = np.empty(longest, np.uint32)
    hashes, lengths = np.empty(count, np.uint64), np.empty(count, np.int64)
    fw, punct, short, words_kept, characters = 0, 0, 0, 0, 0
    for k in range(count):
        words, widest = 0, 0  # white-space words of the line as it stands
        cited, curly, ends_within = False, False, False
        upper, digits, worded = 0, 0, 0  # worded: words with a letter or digit
        at, until = starts[k], ends[k]
        while at < until:
            if kinds[at] & SPACE:
                at += 1
                continue
            word, run = at, at
            inside, joined, dotted, letter_before = False, False, False, False
            letters = 0
            while at < until and not kinds[at] & SPACE:
                run = at
                while at < until and kinds[at] & ALNUM:
                    upper += kinds[at] & UPPER != 0
                    letters += kinds[at] & LETTER != 0
                    at += 1
                digits += at - run - letters
                c = codes[at] if at < until else 32
                if at > run:
                    inside = True
                    letter = letters > 0
                    letters = 0
                    if joined:
                        alpha += letter and not letter_before
                        letter_before |= letter
                    else:
                        pieces += 1
                        alpha += letter
                        letter_before = letter
                    joined = False
                    if at == until or kinds[at] & SPACE:
                        continue
                    within = at + 1 < until and kinds[at + 1] & ALNUM != 0
                    if within and c in (46, 47, 95, 44, 58):  # . / _ , : inside a number, a name, an address
                        joined = True
                        dotted |= c == 46
                    elif not (within and c in (39, 0x2019)) and not (c == 46 and dotted):  # don't; the last . of a.m.
                        pieces += 1
                elif not (at > word and codes[at - 1] == c and c in (46, 45)):  # ... and -- are one piece
                    pieces += 1
                upper += kinds[at] & UPPER != 0
                cited |= c == 91
                curly |= c == 123
                ends_within |= kinds[at] & TERMINAL != 0 and at < until - 1
                at += 1
            words += 1
            worded += inside
            widest = max(widest, at - word)
        total += worded
        size = ends[k] - starts[k]
        if (
            worded < DCLM_WORDS
            or upper > CAPITALS * size
            or digits > DIGITS * size
            or (digits and _counter(codes, starts[k], ends[k], classes, counted, counted_bounds))
        ):
            removed += worded
        else:
            kept[k] |= KEPT_DCLM
            dclm += 1
            if worded <= EDITED_WORDS:
                removed += _snippet_words(codes, starts[k], ends[k], lower, snippets, snippet_bounds)
        if widest > MAX_WORD:
            continue
        if cited:
            size = _uncited(codes, starts[k], ends[k], marks, mark_bounds, room)
            line = room[:size]
            ends_within = True
        else:
            line = codes[starts[k] : ends[k]]
            size = len(line)
        left = words
        if size < ends[k] - starts[k]:
            left, inside = 0, False  # white-space words without citations
            for at in range(size):
                space = classes[line[at]] & SPACE != 0
                left += not space and not inside
                inside = not space
        final = line[size - 1] if size else 0
        terminal = final in (46, 63, 33, 34)  # . ? ! "
        if final == 46 and size > 2 and line[size - 2] == 46 and line[size - 3] == 46:
            terminal = False
        c4, paper = terminal and left >= C4_WORDS, terminal and left >= FEW_WORDS
        fineweb = words >= FEW_WORDS
        datatrove = fineweb and (terminal or final == 39)
        if not fineweb:  # the widest: `left` never exceeds `words`
            continue
        found = _phrases(line, size, lower, phrases, phrase_bounds)
        if left >= FEW_WORDS and not found & 1 and not (found and left <= NOTICE_WORDS):
            kept[k] |= KEPT_AUTO
            out[PROSE + 4] += 1
        if found & 1:
            out[C4 + 4] += c4
            out[FW + 2] += fineweb
            out[PAPER + 2] += paper
            out[DATATROVE + 2] += datatrove
            continue
        if found & 2:
            out[C4 + 2] += c4
            continue
        if curly:
            out[C4 + 5] += c4
            out[FW + 3] += fineweb
            out[PAPER + 3] += paper
            out[DATATROVE + 3] += datatrove
            continue
        if found:
            out[C4 + 3] += c4
            continue
        sentences = _sentences(line, size, classes) if ends_within else 1
        if c4:
            kept[k] |= KEPT_C4
            out[C4] += 1
            out[C4 + 1] += sentences
        if paper:
            kept[k] |= KEPT_PAPER
            out[PAPER] += 1
            out[PAPER + 1] += sentences
        if datatrove:
            kept[k] |= KEPT_DATATROVE
            out[DATATROVE] += 1
            out[DATATROVE + 1] += sentences
        if fineweb:
            kept[k] |= KEPT_FINEWEB
            out[FW] += 1
            out[FW + 1] += sentences
            while size and classes[line[size - 1]] & SPACE:
                size -= 1
            punct += size > 0 and classes[line[size - 1]] & STOP_CHAR != 0
            short += size <= SHORT_LINE
            words_kept += left
            characters += size
            hashes[fw] = hash_exact(line, 0, size) if cited else line_hashes[k]
            lengths[fw] = size
            fw += 1
    out[DCLM] = dclm
    if pieces:
        out[DCLM + 2] = alpha / pieces
    if total:
        out[DCLM + 1] = removed / total
    if fw:
        first, counts = np.empty(fw, np.int64), np.empty(fw, np.int64)
        _group(hashes, fw, first, counts)
        again = 0
        for k in range(fw):
            if first[k] != k:
                again += lengths[k]
        out[FW + 4] = punct / fw
        out[FW + 5] = short / fw
        if characters:
            out[FW + 6] = again / characters
        if words_kept:
            out[FW + 7] = (fw - 1) / words_kept


@kernel
def _counter(codes: Points, start: int, end: int, classes: Classes, words: Points, bounds: Places) -> bool:
    r"""Whether a line is a social counter: `\W*` digits with `,` and `.`, K, M or B, space, what is counted, `\W*`."""
    at = start
    while at < end and not (classes[codes[at]] & ALNUM or codes[at] == 95):
        at += 1
    if at == end or not 48 <= codes[at] <= 57:
        return False
    while at < end and (48 <= codes[at] <= 57 or codes[at] == 44 or codes[at] == 46):
        at += 1
    if at < end and codes[at] in (75, 107, 77, 109, 66, 98):
        at += 1
    space = at
    while at < end and classes[codes[at]] & SPACE:
        at += 1
    if at == space:
        return False
    begin = at
    while at < end and (classes[codes[at]] & ALNUM or codes[at] == 95):
        at += 1
    length = at - begin
    while at < end and not (classes[codes[at]] & ALNUM or codes[at] == 95):
        at += 1
    if at < end:
        return False
    for w in range(len(bounds) - 1):
        if bounds[w + 1] - bounds[w] != length:
            continue
        k = 0
        while k < length and codes[begin + k] == words[bounds[w] + k]:
            k += 1
        if k == length:
            return True
    return False


@kernel
def _at(codes: Points, at: int, end: int, lower: Points, snippets: Points, first: int, last: int) -> bool:
    """Whether the lower-cased code points from `at` on are snippets[first:last]."""
    if at < 0 or at + last - first > end:
        return False
    k = 0
    while k < last - first and lower[codes[at + k]] == snippets[first + k]:
        k += 1
    return k == last - first


@kernel
def _snippet_words(codes: Points, start: int, end: int, lower: Points, snippets: Points, b: Places) -> int:
    """How many words of a short line RefinedWeb's snippets take with them."""
    removed, at = 0, start
    while at < end:
        if _at(codes, at, end, lower, snippets, b[0], b[1]):
            removed += 3
            at += b[1] - b[0]
        else:
            at += 1
    removed += 2 * _at(codes, end - (b[2] - b[1]), end, lower, snippets, b[1], b[2])
    removed += _at(codes, start, end, lower, snippets, b[2], b[3])
    return removed


@kernel
def _chinese(codes: Points, traditional: npt.NDArray[np.bool_], hashes: Hashes, out: Numbers) -> None:
    """ChineseWebText's grams of 13 characters, space apart, and characters of the traditional script alone."""
    n = 13
    power = np.uint64(1)
    for _ in range(n):
        power *= _BASE
    window = np.zeros(n, np.uint64)
    seen, count, only, h = 0, 0, 0, np.uint64(0)
    for c in codes:
        only += traditional[c]
        if c == 32 or c == 10 or c == 9:
            continue
        value = fmix64(np.uint64(c) + _K1)
        h = h * _BASE + value - window[seen % n] * power
        window[seen % n] = value
        seen += 1
        if seen >= n:
            hashes[count] = fmix64(h)
            count += 1
    out[CHINESE_TOO + 2] = only
    if not count:
        return
    first, counts = np.empty(count, np.int64), np.empty(count, np.int64)
    _group(hashes, count, first, counts)
    again = 0
    for k in range(count):
        again += counts[first[k]] > 1
    out[CHINESE_TOO + 1] = again / count


@kernel
def _characters(codes: Points, classes: Classes, kinds: Classes, out: Numbers) -> None:
    """The classes of all characters into `kinds`, code and script metrics that count them into `out`."""
    size = len(codes)
    for at in range(size):
        kinds[at] = classes[codes[at]]
    letters, alnum, han, kana, hangul = 0, 0, 0, 0, 0
    for at in range(size):  # without a branch, so that it is done for many at a time
        kind, c = kinds[at], codes[at]
        letters += kind & LETTER != 0
        alnum += kind & ALNUM != 0
        kana += kind & (HIRAGANA | KATAKANA) != 0
        han += (c >= 0x4E00) & (c <= 0x9FA5)
        hangul += (c >= 0xAC00) & (c <= 0xD7A3)
    tokens = 0  # runs of word characters, and of what is neither these nor space
    word, symbol = False, False
    for at in range(size):
        kind = kinds[at]
        word_here = (kind & ALNUM != 0) | (codes[at] == 95)
        symbol_here = (kind & SPACE == 0) & (not word_here)
        tokens += (word_here & (not word)) + (symbol_here & (not symbol))
        word, symbol = word_here, symbol_here
    out[CODE + 2] = alnum / size
    out[CODE + 3] = letters / size
    if tokens:
        out[CODE + 4] = letters / tokens
    out[CJK] = han / size
    out[CJK + 1] = kana / size
    out[CJK + 2] = hangul / size


@kernel
def _median(histogram: Places, count: int) -> float:
    """The median of `count` lengths, counted by length."""
    middle = np.zeros(2)
    for half in range(2):
        rank, length = (count + half - 1) // 2, -1
        while rank >= 0:
            length += 1
            rank -= histogram[length]
        middle[half] = length
    return (middle[0] + middle[1]) / 2


# What is counted of tokens, by its place in one array.
_TOKENS, _WORDS, _LENGTH, _ALPHA, _SYMBOLS, _STOPPED, _SEEN = range(7)


@kernel(inline="always")
def _token(
    codes: Points,
    start: int,
    end: int,
    first: int,
    last: int,
    letter: int,
    symbol: bool,
    stops: Hashes,
    longest: int,
    histogram: Places,
    tally: Places,
) -> None:
    """Count one token; `first` and `last` bound what is left of it without symbols at its ends (first < 0: nothing)."""
    histogram[min(end - start, _LONG)] += 1
    tally[_TOKENS] += 1
    tally[_ALPHA] += letter != 0
    tally[_SYMBOLS] += symbol
    if first >= 0:
        start, end = first, last
        tally[_WORDS] += 1
        tally[_LENGTH] += end - start
    if end - start <= longest and stops[0] >> (np.uint64(codes[start]) & np.uint64(63)) & np.uint64(1):
        h = hash_exact(codes, start, end)
        for s in range(1, len(stops)):
            if stops[s] == h:
                tally[_SEEN] |= 1 << (s - 1)
                tally[_STOPPED] += 1


@kernel
def _spaced(
    codes: Points,
    kinds: Classes,
    lower: Points,
    stops: Hashes,
    longest: int,
    within: bool,
    histogram: Places,
    tally: Places,
    starts: Places,
    ends: Places,
    hashes: Hashes,
) -> int:
    r"""Tokens of a text with spaces into `tally`; bounds and hashes of its words; returns how many words there are.

    A word, `[\u3400-\u9fff]|[^\W_]+`, may lie in a token, or go on in the next ones where Latin letters meet kana or
    ideographs; but not where words are to lie `within` tokens: in Japanese it would run on to the clause's end.
    """
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
            if within and word >= 0:
                starts[count], ends[count], hashes[count] = word, at, hash_span(codes, word, at, lower)
                count += 1
                word = -1
        _token(codes, start, at, first, last, letter, symbol, stops, longest, histogram, tally)
    return count


@kernel
def _segmented(
    codes: Points,
    kinds: Classes,
    lower: Points,
    segments: Places,
    stops: Hashes,
    longest: int,
    histogram: Places,
    tally: Places,
    starts: Places,
    ends: Places,
    hashes: Hashes,
) -> int:
    """As `_spaced`, where a segmenter cuts: its pieces are tokens, those with a letter or digit are words."""
    count, begin = 0, 0
    for until in segments:
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
        _token(codes, a, b, first, last, letter, symbol, stops, longest, histogram, tally)
    return count


@kernel
def _measure(
    codes: Points,
    segments: Places,
    classes: Classes,
    lower: Points,
    stops: Hashes,
    longest_stop: int,
    phrases: Points,
    phrase_bounds: Places,
    marks: Points,
    mark_bounds: Places,
    counted: Points,
    counted_bounds: Places,
    snippets: Points,
    snippet_bounds: Places,
    english: bool,
    japanese: bool,
    starts: Places,
    ends: Places,
    hashes: Hashes,
    kinds: Classes,
    breaks: int,
    signs: int,
    ellipses: int,
    out: Numbers,
) -> npt.NDArray[np.uint8]:
    """All metrics of a text that isn't empty into `out` (NaN where missing); the kinds of its lines.

    `segments`: ends of the segmenter's pieces, empty where white space separates words. `english`: whether C4's line
    rules (Latin terminals, English phrases) have a meaning. `japanese`: whether words of n-grams end where their token
    does. `starts`, `ends`, `hashes`, `kinds`: room for one a
    character. `breaks`, `signs`, `ellipses`: how many line breaks, # and ellipses there are.
    """
    size = len(codes)
    out[CHARS] = size
    _characters(codes, classes, kinds, out)

    # Tokens and words.
    histogram, tally = np.zeros(_LONG + 1, np.int64), np.zeros(7, np.int64)
    if len(segments):
        words = _segmented(codes, kinds, lower, segments, stops, longest_stop, histogram, tally, starts, ends, hashes)
    else:
        words = _spaced(codes, kinds, lower, stops, longest_stop, japanese, histogram, tally, starts, ends, hashes)
    count = tally[_TOKENS]
    out[TOKENS] = count
    out[WORDS] = tally[_WORDS]
    if tally[_WORDS]:
        out[MEAN_WORD] = tally[_LENGTH] / tally[_WORDS]
        out[WORDS_TOO + 2] = (signs + ellipses) / tally[_WORDS]
    if count:
        out[HASHES] = signs / count
        out[ELLIPSES] = ellipses / count
        out[LINE_PUNCT + 3] = breaks / count
        out[ALPHA_WORDS] = tally[_ALPHA] / count
        out[WORDS_TOO] = _median(histogram, count)
        out[WORDS_TOO + 1] = tally[_SYMBOLS] / count
    if len(stops) > 1:
        out[WORDS_TOO + 3] = tally[_STOPPED]
        if tally[_WORDS]:
            out[PROSE + 2] = tally[_STOPPED] / tally[_WORDS]
        distinct, seen = 0, tally[_SEEN]
        while seen:
            distinct += 1
            seen &= seen - 1
        out[STOPS] = distinct
    if words:
        _ngrams(hashes, starts, ends, words, size, out)

    # Lines and paragraphs, stripped.
    room = breaks + 1
    line_starts, line_ends, line_hashes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    para_starts, para_ends, para_hashes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    lines, paragraphs, begin, fresh = 0, 0, 0, True
    bullets, dotted, punct, ended, short, longest, at = 0, 0, 0, 0, 0, 0, -1
    while at < size:
        at += 1
        while at < size and codes[at] != 10:
            at += 1
        a, b = begin, at
        begin = at + 1
        longest = max(longest, b - a)
        while a < b and kinds[a] & SPACE:
            a += 1
        while b > a and kinds[b - 1] & SPACE:
            b -= 1
        if a == b:
            fresh = True
            continue
        line_starts[lines], line_ends[lines] = a, b
        line_hashes[lines] = hash_exact(codes, a, b)
        if fresh:
            para_starts[paragraphs] = a
            para_hashes[paragraphs] = line_hashes[lines]  # stays where it is the only line
            paragraphs += 1
            fresh = False
        para_ends[paragraphs - 1] = b
        lines += 1
        bullets += codes[a] in (0x25CF, 0x2022, 42, 45)
        final = codes[b - 1]
        if final == 46 and b - a > 2:
            three = codes[b - 2] == 46 and codes[b - 3] == 46
            spaced = (
                b - a > 4 and codes[b - 2] == 32 and codes[b - 3] == 46 and codes[b - 4] == 32 and codes[b - 5] == 46
            )
            dotted += three or spaced
        elif final == 0x2026:
            dotted += 1
        punct += kinds[b - 1] & STOP_CHAR != 0
        b = _unclosed(kinds, a, b)
        ended += b > a and kinds[b - 1] & STOP_CHAR != 0
        short += line_ends[lines - 1] - a <= SHORT_LINE
    out[CODE] = longest
    out[CODE + 1] = (size - breaks) / (breaks + (codes[-1] != 10))
    out[LINES] = lines
    out[PARAGRAPHS] = paragraphs
    kept = np.zeros(lines, np.uint8)
    if lines:
        out[CHINESE_TOO] = size / lines
        out[BULLETS] = bullets / lines
        out[ELLIPSIS_LINES] = dotted / lines
        out[LINE_PUNCT] = punct / lines
        out[PROSE + 1] = ended / lines
        out[LINE_PUNCT + 1] = short / lines
        again = _repeated(
            line_hashes,
            line_starts,
            line_ends,
            lines,
            size,
            out[DUP_LINE : DUP_LINE + 2],
            out[LATER_LINE : LATER_LINE + 2],
        )
        out[LINE_PUNCT + 2] = again / (size - breaks)
        if words:
            out[PROSE] = _prose_words(codes, kinds, starts, words, line_starts, line_ends, lines) / words
            out[PROSE + 3] = max(0.0, out[LATER_DUP + 5] - out[LATER_LINE + 1])
        line = 0
        for k in range(paragraphs):
            while line_ends[line] < para_ends[k]:  # of several lines: the space between them counts, too
                line += 1
                para_hashes[k] = 0
            line += 1
            if not para_hashes[k] and paragraphs > 1:
                para_hashes[k] = hash_exact(codes, para_starts[k], para_ends[k])
        _repeated(
            para_hashes,
            para_starts,
            para_ends,
            paragraphs,
            size,
            out[DUP_LINE + 2 : DUP_LINE + 4],
            out[LATER_LINE + 2 : LATER_LINE + 4],
        )
        if english:
            _english_lines(
                codes,
                kinds,
                line_starts,
                line_ends,
                line_hashes,
                lines,
                classes,
                lower,
                phrases,
                phrase_bounds,
                marks,
                mark_bounds,
                counted,
                counted_bounds,
                snippets,
                snippet_bounds,
                out,
                kept,
            )
    return kept


def _joined(texts: tuple[str, ...]) -> tuple[Points, Places]:
    """Several texts' code points one after the other, and their n + 1 bounds."""
    return points("".join(texts)), np.cumsum([0, *map(len, texts)], dtype=np.int64)


@cache
def _constants() -> tuple[Points, Places, Points, Places, Points, Places, Points, Places]:
    return *_joined(PHRASES), *_joined(CITATIONS), *_joined(COUNTED), *_joined(SNIPPETS)


@cache
def _stops(language: str) -> tuple[Hashes, int]:
    """Hashes of the stop words that are tokens, and the longest one's length.

    Before them stands a word of bits, which first letters there are (modulo 64): most tokens need no hash.
    """
    words = STOP_WORDS.get(language, ()) if language not in ("ja", "ko") else ()
    first = 0
    for word in words:
        first |= 1 << (ord(word[0]) & 63)
    hashes = [int(hash_exact(points(word), 0, len(word))) for word in words]
    return np.array([first, *hashes], np.uint64), max(map(len, words), default=0)


class _Room(threading.local):
    """Each thread's arrays, one entry a character, kept from text to text: fresh ones cost page faults."""

    def __init__(self) -> None:
        self.arrays = _arrays(0)

    def of(self, size: int) -> tuple[Places, Places, Hashes, Classes]:
        if size > _ROOM_KEPT:
            return _arrays(size)
        if size > len(self.arrays[0]):
            self.arrays = _arrays(1 << size.bit_length())
        starts, ends, hashes, kinds = self.arrays
        return starts, ends, hashes, kinds[:size]


def _arrays(size: int) -> tuple[Places, Places, Hashes, Classes]:
    """Bounds of words, their hashes, classes of characters."""
    return np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.uint64), np.empty(size, np.uint16)


_ROOM_KEPT = 1 << 20  # characters; a longer text gets room of its own, given back after it
_room = _Room()
_WHOLE = [metric.whole for metric in METRICS]
_XML = NAMES.index("xml_header")
_SCORE = NAMES.index("language_score")
_TOKEN_PLACES = [NAMES.index(name) for name in _OF_TOKENS]


def measure_array(
    text: str, language: str = "und", score: float | None = None
) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """The metrics of a text in the order of `catalog.METRICS`, NaN where missing, and a kind for each of its lines.

    `language` chooses the segmenter and the stop words. The kinds, bits of KEPT_C4 and its neighbours, tell which lines
    line edits keep. Never raises, whatever the text.
    """
    out = np.full(SIZE, np.nan)
    if score:
        out[_SCORE] = score
    if not text:
        out[[CHARS, LINES, PARAGRAPHS, TOKENS, WORDS]] = 0
        return out, np.zeros(0, np.uint8)
    codes = points(text)
    classes, lower = tables()
    segments = np.zeros(0, np.int64)
    if language in CHINESE:
        pieces = segment(text)
        segments = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
    stops, longest = _stops(language)
    kept = _measure(
        codes,
        segments,
        classes,
        lower,
        stops,
        longest,
        *_constants(),
        language == "en",
        language == "ja",
        *_room.of(len(codes)),
        text.count("\n"),
        text.count("#"),
        text.count("...") + text.count("…"),
        out,
    )
    if len(segments):
        _chinese(codes, traditional_table(), _room.of(len(codes))[2], out)
        if out[CHINESE_TOO + 2]:
            out[CHINESE_TOO + 2] = traditional_characters(text)
    if language in ("ja", "ko"):
        out[STOPS] = sum(word in text for word in STOP_WORDS[language])
        out[WORDS_TOO + 3] = sum(map(text.count, STOP_WORDS[language]))
    out[_XML] = "<?xml version=" in text[:100]
    if language in UNSEGMENTED:
        out[_TOKEN_PLACES] = np.nan
    return out, kept


def measure(text: str, language: str = "und", score: float | None = None) -> dict[str, int | float | None]:
    """The metrics of a text by name, None where a metric is missing."""
    values = measure_array(text, language, score)[0].tolist()
    return {
        name: None if value != value else int(value) if whole else value
        for name, whole, value in zip(NAMES, _WHOLE, values, strict=True)
    }
