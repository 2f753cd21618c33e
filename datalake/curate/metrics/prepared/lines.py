"""Lines and paragraphs of a text, and where a line ends."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.prepared.document import END, START, STOPPED, Hashes, Places, Repeats, Text
from datalake.curate.metrics.prepared.repeats import hash_exact, repeats
from datalake.text.characters import CJK_TERMINAL, CLOSER, LOWER, SPACE, TERMINAL, Classes, Points


@kernel
def lines_and_paragraphs(text: Text) -> tuple[Places, Hashes, int, Repeats, int]:
    """Lines (rows of `Document.lines`), their hashes, their number; how often paragraphs repeat, and their number."""
    codes, kinds, size, room = text.codes, text.kinds, len(text.codes), text.breaks + 1
    rows = np.empty((STOPPED + 1 if text.english else END + 1, room), np.int64)
    line_starts, line_ends = rows[START], rows[END]
    line_hashes = np.empty((2, room), np.uint64)
    starts, ends, hashes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    lines, paragraphs, begin, fresh, at = 0, 0, 0, True, -1
    while at < size:
        at += 1
        while at < size and codes[at] != 10:
            at += 1
        a, b = begin, at
        begin = at + 1
        while a < b and kinds[a] & SPACE:
            a += 1
        while b > a and kinds[b - 1] & SPACE:
            b -= 1
        if a == b:
            fresh = True
            continue
        line_starts[lines], line_ends[lines] = a, b
        line_hashes[0, lines] = hash_exact(codes, a, b)
        if fresh:
            starts[paragraphs] = a
            hashes[paragraphs] = line_hashes[0, lines]  # stays where it is the only line
            paragraphs += 1
            fresh = False
        ends[paragraphs - 1] = b
        lines += 1
    line = 0
    for k in range(paragraphs):
        while line_ends[line] < ends[k]:  # of several lines: the space between them counts, too
            line += 1
            hashes[k] = 0
        line += 1
        if not hashes[k] and paragraphs > 1:
            hashes[k] = hash_exact(codes, starts[k], ends[k])
    return rows, line_hashes, lines, repeats(starts, ends, hashes, paragraphs), paragraphs


@kernel
def unclosed(kinds: Classes, start: int, end: int) -> int:
    """Where a line ends without the quotation marks and brackets that close it."""
    while end > start and kinds[end - 1] & (CLOSER | SPACE):
        end -= 1
    return end


@kernel
def sentences(line: Points, size: int, classes: Classes) -> int:
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
