"""Prediction with fastText's classifiers (Joulin et al. 2016, arXiv:1607.01759): its model files, in a compiled loop.

Gives what fastText's own `predict` gives, but for the last digits of a 32-bit float: here the rows
of a word are added up first, and the words then, so that a word's sum can be remembered: most of a text's words are
few. The file format, the hashes and the tree are those of fastText 0.9.2 (dictionary.cc, model.cc, loss.cc,
productquantizer.cc). Quantised matrices are multiplied out when a model is read.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)

_MAGIC, _VERSION, _SUPERVISED = 793712314, 12, 3
_TREE, _NEGATIVE, _SOFTMAX, _ONE_VS_ALL = 1, 2, 3, 4  # how scores become probabilities
_LABEL = b"__label__"
_END = b"</s>"  # the word at a line's end
_CENTROIDS = 256  # of each part of a quantised row
_SIGMOIDS, _MAX_SIGMOID = 512, 8  # fastText's table of the logistic function
_OFFSET, _PRIME, _MASK = 2166136261, 16777619, 0xFFFFFFFF  # FNV-1a, 32 bits
_PAIR = 116049371  # joins the hashes of words to that of their n-gram
_NOTHING = np.zeros(0, np.uint8)
_SLOTS, _LONGEST = 1 << 16, 24  # words whose sums are remembered (6 MB a thread), and bytes of the longest


class Seen(NamedTuple):
    """The words seen last and what they add, each in the slot that its hash names.

    - `words`, shape (slots, 24), and `sizes`, shape (slots,): a word's bytes, and how many; 0 where there is none.
    - `sums`, shape (slots, dimension), and `counts`, shape (slots,): the sum of its rows, and how many there are.
    """

    words: Bytes
    sizes: Ints
    sums: Floats
    counts: Ints

    @classmethod
    def none(cls, dimension: int) -> Seen:
        """No word yet."""
        return cls(
            np.zeros((_SLOTS, _LONGEST), np.uint8),
            np.zeros(_SLOTS, np.int32),
            np.zeros((_SLOTS, dimension), np.float32),
            np.zeros(_SLOTS, np.int32),
        )


class Arrays(NamedTuple):
    """A model as the compiled loop reads it.

    - `rows`, shape (words + buckets, dimension); `output`, shape (labels, dimension); `norms`, shape (labels,).
    - `tree`, shape (2 labels - 1, 2): both children of each node, -1 for a leaf; a leaf's number is its label's.
    - `sigmoid`: the table of the logistic function.
    - `names`, `bounds`: the words' bytes, one after the other, and where each begins and ends; `slots`: words by their
      hash, -1 where there is none.
    - `present`: which buckets have a row, a bit each, where some were pruned (else empty); `before`, one for each 64 of
      them: how many have a row before these. Rows of buckets stand in the order of these. Small enough to stay in the
      processor's cache.
    """

    rows: Floats
    output: Floats
    norms: Floats
    tree: Ints
    sigmoid: Floats
    names: Bytes
    bounds: Places
    slots: Ints
    present: npt.NDArray[np.uint64]
    before: Ints
    words: int
    shortest: int
    longest: int
    buckets: int
    ngrams: int
    loss: int


class Classifier:
    """The classifier of a model file. `labels` are as the file has them, with `__label__`."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises ValueError where it is no model of a classifier, OSError where it can't be read."""
        file = _File(np.fromfile(path, np.uint8))
        try:
            self._arrays, self.labels = _read(file)
        except (OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise ValueError(f"the file is damaged ({error})") from None
        self._of_thread = threading.local()

    @property
    def _seen(self) -> Seen:
        """What this thread has seen: loops of several threads run at once."""
        if not hasattr(self._of_thread, "seen"):
            self._of_thread.seen = Seen.none(self._arrays.rows.shape[1])
        seen: Seen = self._of_thread.seen
        return seen

    def __getstate__(self) -> dict[str, object]:
        """All but what was seen."""
        return {"_arrays": self._arrays, "labels": self.labels}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _of_thread=threading.local())

    def predict(self, line: bytes) -> tuple[str, float] | None:
        """The best label of a line of UTF-8 and its probability; None where no label reaches 0.00001.

        The line ends at its first line break. A probability may pass 1 by 0.00001, as fastText's do.
        """
        label, score = self._predict(line, -1)
        return (self.labels[label], score) if label >= 0 else None

    def probability(self, line: bytes, label: str) -> float:
        """The probability of a label for a line of UTF-8, as `predict` has it; 0 where it doesn't reach 0.00001."""
        return self._predict(line, self.labels.index(label))[1]

    def _predict(self, line: bytes, label: int) -> tuple[int, float]:
        found, score = _predict(np.frombuffer(line, np.uint8) if line else _NOTHING, label, self._arrays, self._seen)
        return int(found), float(score)


class _File:
    """A file's bytes, taken from the front."""

    def __init__(self, data: Bytes) -> None:
        self.data, self.at = data, 0

    def take(self, kind: type[Number], count: int) -> npt.NDArray[Number]:
        """The next `count` numbers. Raises ValueError where the file ends before them."""
        end = self.at + count * np.dtype(kind).itemsize
        if count < 0 or end > len(self.data):
            raise ValueError("the file ends too soon")
        found = np.frombuffer(self.data[self.at : end].tobytes(), kind)
        self.at = end
        return found

    def one(self, kind: type[np.generic]) -> int:
        return int(self.take(kind, 1)[0])


def _read(file: _File) -> tuple[Arrays, list[str]]:
    if file.one(np.int32) != _MAGIC:
        raise ValueError("its first bytes are not fastText's")
    version = file.one(np.int32)
    if version > _VERSION:
        raise ValueError(f"its format is version {version}")
    _, _, _, _, _, ngrams, loss, kind, buckets, shortest, longest, _ = (int(n) for n in file.take(np.int32, 12))
    file.take(np.float64, 1)
    if kind != _SUPERVISED or loss not in (_TREE, _NEGATIVE, _SOFTMAX, _ONE_VS_ALL):
        raise ValueError("it is no classifier")
    if version == 11:  # whose classifiers had no character n-grams
        longest = 0

    size, words, label_count = (int(n) for n in file.take(np.int32, 3))
    file.take(np.int64, 1)
    pruned = file.one(np.int64)
    if min(size, words, label_count - 1) < 0 or size != words + label_count or buckets < 0:
        raise ValueError("its dictionary is damaged")
    entries, end = _entries(file.data, file.at, size)
    if end < 0 or (entries[:, 2] != (np.arange(size) >= words)).any():
        raise ValueError("its dictionary is damaged")
    labels = [file.data[begin:until].tobytes().decode() for begin, until in entries[words:, :2]]
    counts, bounds = entries[words:, 3], entries[:words, :2] - file.at
    names = file.data[file.at : end].copy()
    file.at = end
    pairs = file.take(np.int32, 2 * max(pruned, 0)).reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    if len(pairs) and (pairs.min() < 0 or pairs[-1, 0] >= buckets or (np.diff(pairs[:, 0]) == 0).any()):
        raise ValueError("its dictionary is damaged")
    present = np.zeros(0, np.bool_)
    if pruned >= 0:
        present = np.zeros(buckets + 64 - buckets % 64, np.bool_)
        present[pairs[:, 0]] = True
    amounts = present.reshape(-1, 64).sum(1, dtype=np.int32)

    quantised = bool(file.one(np.bool_))
    rows, norms = _matrix(file, quantised)
    rows = rows * norms[:, None] if quantised else rows
    output, norms = _matrix(file, bool(file.one(np.bool_)) and quantised)
    needed = int(pairs[:, 1].max(initial=-1)) + 1 if pruned >= 0 else buckets * (longest > 0 or ngrams > 1)
    if file.at != len(file.data) or len(output) != label_count or rows.shape[1] != output.shape[1]:
        raise ValueError("its matrices are damaged")
    if len(rows) < words + needed:
        raise ValueError("its matrix has too few rows")
    if pruned >= 0:
        rows = np.concatenate([rows[:words], rows[words + pairs[:, 1]]])
    return Arrays(
        rows=rows,
        output=output,
        norms=norms,
        tree=_huffman(counts),
        sigmoid=_sigmoids(),
        names=names,
        bounds=bounds,
        slots=_slots(names, bounds),
        present=np.packbits(present, bitorder="little").view("<u8").astype(np.uint64),
        before=np.cumsum(amounts, dtype=np.int32) - amounts,
        words=words,
        shortest=shortest,
        longest=longest,
        buckets=buckets,
        ngrams=ngrams,
        loss=loss,
    ), labels


def _matrix(file: _File, quantised: bool) -> tuple[Floats, Floats]:
    """A matrix and the factors of its rows, which are 1 where it isn't quantised."""
    normed = quantised and bool(file.one(np.bool_))
    height, width = (int(n) for n in file.take(np.int64, 2))
    if height < 0 or width < 1:
        raise ValueError("its matrices are damaged")
    if not quantised:
        return file.take(np.float32, height * width).reshape(height, width), np.ones(height, np.float32)
    codes = file.take(np.uint8, file.one(np.int32))
    rows = _decoded(file, codes, height, width)
    if not normed:
        return rows, np.ones(height, np.float32)
    return rows, _decoded(file, file.take(np.uint8, height), height, 1)[:, 0].copy()


def _decoded(file: _File, codes: Bytes, height: int, width: int) -> Floats:
    """The rows that a product quantiser's codes stand for: a centroid for each part of a row."""
    dimension, parts, part, last = (int(n) for n in file.take(np.int32, 4))
    centroids = file.take(np.float32, dimension * _CENTROIDS)
    if (
        dimension != width
        or min(parts, part, last) < 1
        or (parts - 1) * part + last != width
        or last > part
        or len(codes) != height * parts
    ):
        raise ValueError("its matrices are damaged")
    codes, full = codes.reshape(height, parts), (parts - 1) * part * _CENTROIDS
    out = np.empty((height, width), np.float32)
    out[:, : (parts - 1) * part] = (
        centroids[:full]
        .reshape(parts - 1, _CENTROIDS, part)[np.arange(parts - 1), codes[:, :-1]]
        .reshape(height, (parts - 1) * part)
    )
    out[:, (parts - 1) * part :] = centroids[full:].reshape(_CENTROIDS, last)[codes[:, -1]]
    return out


@kernel(nogil=False)
def _entries(data: Bytes, at: int, count: int) -> tuple[Places, int]:
    """Begin, end, kind and occurrences of each entry of a dictionary; and its end, -1 where the data ends before it."""
    out = np.zeros((count, 4), np.int64)
    for k in range(count):
        out[k, 0] = at
        while at < len(data) and data[at]:
            at += 1
        out[k, 1] = at
        if at + 10 > len(data):
            return out, -1
        for byte in range(8):
            out[k, 3] |= np.int64(data[at + 1 + byte]) << (8 * byte)
        out[k, 2] = data[at + 9]
        at += 10
    return out, at


@kernel(nogil=False)
def _huffman(counts: Places) -> Ints:
    """The tree of labels whose counts fall: two by two the rarest are joined."""
    labels = len(counts)
    tree = np.full((2 * labels - 1, 2), -1, np.int32)
    total = np.full(2 * labels - 1, np.int64(10) ** 15)
    total[:labels] = counts
    leaf, node = labels - 1, labels
    for k in range(labels, 2 * labels - 1):
        for side in range(2):
            if leaf >= 0 and total[leaf] < total[node]:
                tree[k, side] = leaf
                leaf -= 1
            else:
                tree[k, side] = node
                node += 1
        total[k] = total[tree[k, 0]] + total[tree[k, 1]]
    return tree


@kernel(nogil=False)
def _sigmoids() -> Floats:
    out = np.empty(_SIGMOIDS + 1, np.float32)
    for k in range(_SIGMOIDS + 1):
        x = np.float32(k * 2 * _MAX_SIGMOID) / np.float32(_SIGMOIDS) - np.float32(_MAX_SIGMOID)
        out[k] = np.float32(1.0 / (1.0 + np.float64(np.float32(math.exp(-x)))))
    return out


@kernel(inline="always")
def _hashed(value: int, byte: np.int64) -> int:
    """FNV-1a's next value; fastText takes a byte for a signed number."""
    return int(((value ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * _PRIME) & _MASK)


@kernel(nogil=False)
def _slots(names: Bytes, bounds: Places) -> Ints:
    """A table of the words by hash, each at the first free place from that on."""
    bits = 3
    while 1 << bits < 2 * len(bounds):
        bits += 1
    slots = np.full(1 << bits, -1, np.int32)
    for word in range(len(bounds)):
        value = _OFFSET
        for k in range(bounds[word, 0], bounds[word, 1]):
            value = _hashed(value, np.int64(names[k]))
        at = value & (len(slots) - 1)
        while slots[at] >= 0:
            at = (at + 1) & (len(slots) - 1)
        slots[at] = word
    return slots


@kernel
def _word(token: Bytes, value: int, model: Arrays) -> int:
    """The number of a token with this hash among the words, -1 for one that isn't among them."""
    at = value & (len(model.slots) - 1)
    while model.slots[at] >= 0:
        word = model.slots[at]
        begin = model.bounds[word, 0]
        if model.bounds[word, 1] - begin == len(token):
            k = 0
            while k < len(token) and model.names[begin + k] == token[k]:
                k += 1
            if k == len(token):
                return int(word)
        at = (at + 1) & (len(model.slots) - 1)
    return -1


@kernel(inline="always")
def _ones(bits: np.uint64) -> int:
    """How many bits are set: sums of 2, 4 and 8 of them side by side, then of all."""
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel(inline="always")
def _row(bucket: np.int64, model: Arrays) -> int:
    """The row of a bucket, -1 for one that was pruned."""
    if len(model.present) == 0:
        return int(model.words + bucket)
    bits, place = model.present[bucket >> 6], np.uint64(bucket & 63)
    if not (bits >> place) & np.uint64(1):
        return -1
    below = bits & ((np.uint64(1) << place) - np.uint64(1))
    return int(model.words + model.before[bucket >> 6] + _ones(below))


@kernel(inline="always")
def _add(hidden: Floats, rows: Floats, row: int) -> None:
    for k in range(len(hidden)):
        hidden[k] += rows[row, k]


@kernel
def _subwords(word: Bytes, sums: Floats, model: Arrays) -> int:
    """Adds the rows of the character n-grams of a word, which stands between < and >; returns how many there are."""
    count, size, inverse = 0, len(word), 1.0 / model.buckets
    for begin in range(size):
        if word[begin] & 0xC0 == 0x80:  # within a character
            continue
        value, at = _OFFSET, begin
        for n in range(1, model.longest + 1):
            if at == size:
                break
            value = _hashed(value, np.int64(word[at]))
            at += 1
            while at < size and word[at] & 0xC0 == 0x80:
                value = _hashed(value, np.int64(word[at]))
                at += 1
            if n < model.shortest or (n == 1 and (begin == 0 or at == size)):
                continue
            bucket = value - np.int64(value * inverse) * model.buckets  # value % buckets without a division
            if bucket < 0:
                bucket += model.buckets
            elif bucket >= model.buckets:
                bucket -= model.buckets
            row = _row(bucket, model)
            if row >= 0:
                _add(sums, model.rows, row)
                count += 1
    return count


@kernel
def _hidden(line: Bytes, hidden: Floats, model: Arrays, seen: Seen) -> int:
    """Adds up the rows of a line's words, and of the n-grams in and of them; returns how many there are."""
    size, at, count = len(line), 0, 0
    hashes, hashed = np.empty(size // 2 + 2 if model.ngrams > 1 else 0, np.int32), 0
    token = np.empty(size + 6, np.uint8)  # a word between < and >
    words, sizes, sums, counts = seen.words, seen.sizes, seen.sums, seen.counts
    own = np.empty(len(hidden), np.float32)  # the sum of one word
    token[0] = 60
    while True:
        while at < size and (line[at] == 32 or line[at] == 0 or (9 <= line[at] <= 13 and line[at] != 10)):
            at += 1
        length, value, last = 0, _OFFSET, at == size or line[at] == 10
        if last:
            for byte in _END:
                length += 1
                token[length] = byte
                value = _hashed(value, np.int64(byte))
        while at < size and not (line[at] == 32 or line[at] == 0 or 9 <= line[at] <= 13):
            length += 1
            token[length] = line[at]
            value = _hashed(value, np.int64(line[at]))
            at += 1
        if length == len(_END):
            k = 0
            while k < length and token[k + 1] == _END[k]:
                k += 1
            last = k == length
        labelled = 0
        while labelled < len(_LABEL) and labelled < length and token[labelled + 1] == _LABEL[labelled]:
            labelled += 1
        if labelled == len(_LABEL):  # a label is no word
            continue
        slot = value & (_SLOTS - 1)
        short = not last and 0 < length <= _LONGEST
        known = short and sizes[slot] == length
        if known:
            k = 0
            while k < length and words[slot, k] == token[k + 1]:
                k += 1
            known = k == length
        if known:
            _add(hidden, sums, slot)
            count += counts[slot]
        else:
            number, found = _word(token[1 : length + 1], value, model), 0
            for k in range(len(own)):
                own[k] = 0
            if number >= 0:
                _add(own, model.rows, number)
                found = 1
            if not last and model.longest > 0 and model.buckets > 0:
                token[length + 1] = 62
                found += _subwords(token[: length + 2], own, model)
            for k in range(len(own)):
                hidden[k] += own[k]
            count += found
            if short:
                sizes[slot], counts[slot] = length, found
                for k in range(length):
                    words[slot, k] = token[k + 1]
                for k in range(len(own)):
                    sums[slot, k] = own[k]
        if model.ngrams > 1:
            hashes[hashed] = np.int32(np.uint32(value))
            hashed += 1
        if last:
            break
    if model.buckets > 0:
        for begin in range(hashed):
            joined = np.uint64(np.int64(hashes[begin]))
            for end in range(begin + 1, min(hashed, begin + model.ngrams)):
                joined = joined * np.uint64(_PAIR) + np.uint64(np.int64(hashes[end]))
                row = _row(np.int64(joined % np.uint64(model.buckets)), model)
                if row >= 0:
                    _add(hidden, model.rows, row)
                    count += 1
    return count


@kernel(inline="always")
def _dot(output: Floats, row: int, hidden: Floats) -> np.float32:
    total = np.float32(0)
    for k in range(len(hidden)):
        total += output[row, k] * hidden[k]
    return total


@kernel(inline="always")
def _log(x: np.float32) -> np.float32:
    """fastText's logarithm, which nought has, too."""
    return np.float32(math.log(np.float64(x) + 1e-5))


@kernel
def _predict(line: Bytes, wanted: int, model: Arrays, seen: Seen) -> tuple[int, np.float32]:
    """The label that is wanted, or the best where that is -1, and its probability; -1 where there is none."""
    hidden = np.zeros(model.rows.shape[1], np.float32)
    count = _hidden(line, hidden, model, seen)
    if count == 0:
        return -1, np.float32(0)
    hidden *= np.float32(1.0 / count)
    labels = len(model.output)
    best, score = -1, np.float32(0)
    if model.loss == _TREE:
        stack, scores, top = np.zeros(len(model.tree) + 1, np.int32), np.zeros(len(model.tree) + 1, np.float32), 0
        stack[0] = 2 * labels - 2
        least = _log(np.float32(0))
        while top >= 0:
            node, here = stack[top], scores[top]
            top -= 1
            if here < least or (wanted < 0 and best >= 0 and here < score):
                continue
            if model.tree[node, 0] < 0:
                if wanted < 0 or node == wanted:
                    best, score = int(node), here
                continue
            f = _dot(model.output, node - labels, hidden) * model.norms[node - labels]
            f = np.float32(1.0 / np.float64(np.float32(1) + np.float32(math.exp(-f))))
            stack[top + 1], scores[top + 1] = model.tree[node, 1], here + _log(f)
            stack[top + 2], scores[top + 2] = model.tree[node, 0], here + _log(np.float32(1.0 - np.float64(f)))
            top += 2
    else:
        values = np.empty(labels, np.float32)
        for label in range(labels):
            values[label] = _dot(model.output, label, hidden) * model.norms[label]
        if model.loss == _SOFTMAX:
            most, total = values.max(), np.float32(0)
            for label in range(labels):
                values[label] = np.float32(math.exp(np.float64(values[label] - most)))
                total += values[label]
            values /= total
        else:
            for label in range(labels):
                x = values[label]
                if x < -_MAX_SIGMOID:
                    values[label] = 0
                elif x > _MAX_SIGMOID:
                    values[label] = 1
                else:
                    place = (x + np.float32(_MAX_SIGMOID)) * np.float32(_SIGMOIDS)
                    values[label] = model.sigmoid[int(place / np.float32(_MAX_SIGMOID) / np.float32(2))]
        for label in range(labels):
            here = _log(values[label])
            if label == wanted or (wanted < 0 and (best < 0 or here >= score)):
                best, score = label, here
    return best, np.float32(math.exp(score)) if best >= 0 else np.float32(0)
