"""fastText's classifiers in our loop give what fastText's own predictor gives, bit for bit, for every kind of file."""

from __future__ import annotations

import gzip
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.text.fasttext import Classifier
from datalake.text.language import _bundled

WORDS = ("</s>", "the", "of", "Straße", "日本", "don't", "a", "naïve", "x" * 60)
LABELS = tuple(f"__label__{k}" for k in ("en", "zh", "中文", "d", "e", "f", "g"))
SHAPE = {"normed": True, "quantised": False, "output": False, "pruned": False, "loss": 3, "ngrams": 1, "longest": 4}


def library(path: Path) -> Any:
    """fastText's own predictor."""
    predictor = pytest.importorskip("fasttext_pybind").fasttext()
    predictor.loadModel(str(path))
    return predictor


def matrix(rng: np.random.Generator, height: int, width: int, quantised: bool, normed: bool) -> bytes:
    """A matrix in fastText's format: plain, or by a product quantiser whose last part is shorter."""
    if not quantised:
        return struct.pack("<qq", height, width) + rng.normal(size=(height, width)).astype("<f4").tobytes()
    part = 2
    parts, last = (width + 1) // 2, width % 2 or 2
    codes = rng.integers(0, 256, height * parts).astype("u1").tobytes()
    quantiser = struct.pack("<iiii", width, parts, part, last) + rng.normal(size=width * 256).astype("<f4").tobytes()
    out = struct.pack("<?qqi", normed, height, width, len(codes)) + codes + quantiser
    if normed:
        norms = rng.integers(0, 256, height).astype("u1").tobytes()
        out += norms + struct.pack("<iiii", 1, 1, 1, 1) + rng.uniform(0.1, 3, 256).astype("<f4").tobytes()
    return out


def model(path: Path, seed: int = 0, **shape: Any) -> Path:
    """A model file of random numbers."""
    how, rng = SHAPE | shape, np.random.default_rng(seed)
    buckets, width = 1000, 7
    counts = sorted((int(n) for n in rng.integers(1, 10_000, len(LABELS))), reverse=True)
    out = struct.pack("<ii", 793712314, 12)
    out += struct.pack("<12i", width, 5, 5, 1, 5, how["ngrams"], how["loss"], 3, buckets, 2, how["longest"], 100)
    out += struct.pack("<d", 1e-4)
    pairs = [(int(k), row) for row, k in enumerate(rng.permutation(buckets)[:400])] if how["pruned"] else []
    entries = [(word, 10, 0) for word in WORDS] + [(name, n, 1) for name, n in zip(LABELS, counts, strict=True)]
    out += struct.pack("<iiiqq", len(entries), len(WORDS), len(LABELS), 1000, len(pairs) if how["pruned"] else -1)
    for name, count, kind in entries:
        out += name.encode() + struct.pack("<xqb", count, kind)
    out += b"".join(struct.pack("<ii", *pair) for pair in pairs)
    rows = len(WORDS) + (len(pairs) if how["pruned"] else buckets)
    out += struct.pack("<?", how["quantised"]) + matrix(rng, rows, width, how["quantised"], how["normed"])
    out += struct.pack("<?", how["output"]) + matrix(rng, len(LABELS), width, how["output"], how["normed"])
    path.write_bytes(out)
    return path


def assert_same(ours: Classifier, theirs: Any, text: str) -> None:
    predicted = theirs.predict(f"{text}\n", 1, 0.0, "strict")
    found = ours.predict(text.encode())
    again = ours.predict(text.encode())  # of words that it remembers
    assert found == again, text[:200]
    wanted = (predicted[0][1], pytest.approx(predicted[0][0], abs=5e-5)) if predicted else None
    assert found == wanted, text[:200]
    chances = dict.fromkeys(ours.labels, 0.0) | {name: p for p, name in theirs.predict(f"{text}\n", -1, 0.0, "strict")}
    for label in ours.labels[:3]:
        assert ours.probability(text.encode(), label) == pytest.approx(chances[label], abs=5e-5), (label, text[:200])


def fuzz(seed: int, count: int) -> list[str]:
    """Lines of words, of characters from all planes, of bytes at random, of labels and ends of lines."""
    rng, out = random.Random(seed), ["", " ", "a", "</s>", "__label__en", "the __label__zz of", "x </s> y", "日" * 3000]
    alphabet = "aeiou \t\v\f\r\0éß日本한ا🙂\u200d<>_/.\x85\x1c"
    for _ in range(count):
        kind, size = rng.randrange(4), rng.randrange(1, 200)
        if kind == 0:
            out.append(" ".join(rng.choices([*WORDS, "__label__en", "__label__", "__labe"], k=size)))
        elif kind == 1:
            out.append("".join(rng.choices(alphabet, k=size)))
        elif kind == 2:
            out.append(rng.randbytes(size).decode("utf-8", "replace").replace("\n", " "))
        else:
            points = (rng.randrange(0x110000) for _ in range(size))
            out.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000 and p != 10))
    return out


SHAPES: list[dict[str, Any]] = [
    *({"loss": loss, "quantised": quantised} for loss in (1, 2, 3, 4) for quantised in (False, True)),
    {"loss": 1, "quantised": True, "output": True, "pruned": True},
    {"loss": 3, "quantised": True, "output": True, "normed": False},
    {"loss": 3, "ngrams": 3},
    {"loss": 1, "quantised": True, "pruned": True, "ngrams": 2},
    {"loss": 3, "ngrams": 2, "longest": 0},
    {"loss": 3, "longest": 0},
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(f"{k}_{v}" for k, v in shape.items()))
def test_a_model_of_any_kind_predicts_what_fasttext_predicts(shape: dict[str, Any], tmp_path: Path) -> None:
    path = model(tmp_path / "model.bin", **shape)
    ours, theirs = Classifier(path), library(path)
    assert ours.labels == list(LABELS)
    for text in fuzz(7, 600):
        assert_same(ours, theirs, text)


def test_the_model_of_languages_predicts_what_fasttext_predicts() -> None:
    ours, theirs = Classifier(_bundled()), library(_bundled())
    for text in fuzz(3, 3000):
        assert_same(ours, theirs, text)


@given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
@settings(max_examples=200)
def test_any_text_gets_what_fasttext_gives_it(text: str) -> None:
    assert_same(_OURS, _THEIRS, text)


_OURS, _THEIRS = Classifier(_bundled()), library(_bundled())


def test_sentences_in_75_languages_get_what_fasttext_gives_them(samples: Path) -> None:
    with gzip.open(samples / "lid" / "lingua-sentences.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) == 4500
    for text in texts:
        assert_same(_OURS, _THEIRS, " ".join(text.split()))


def test_what_was_seen_before_changes_nothing(samples: Path) -> None:
    with gzip.open(samples / "lid" / "lingua-sentences.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"].encode() for line in lines]
    forwards = [_OURS.predict(text) for text in texts]
    assert [Classifier(_bundled()).predict(text) for text in texts[:40]] == forwards[:40]
    assert [_OURS.predict(text) for text in reversed(texts)] == forwards[::-1]


def test_a_line_ends_at_its_first_break() -> None:
    assert _OURS.predict(b"Das ist ein Satz.\nThis is one, too.") == _OURS.predict(b"Das ist ein Satz.")


def test_a_damaged_file_is_refused_and_never_read_beyond_its_end(tmp_path: Path) -> None:
    whole = model(tmp_path / "whole.bin", quantised=True, pruned=True, output=True, loss=1).read_bytes()
    damaged = tmp_path / "damaged.bin"
    for cut in [*range(0, 400, 7), *range(400, len(whole), 997)]:
        damaged.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"the file|its|it is"):
            Classifier(damaged)
    damaged.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="matrices are damaged"):
        Classifier(damaged)
    rng = random.Random(5)
    for _ in range(300):  # a byte that is another in the header or dictionary: refused, or a model that still predicts
        broken = bytearray(whole)
        broken[rng.randrange(300)] = rng.randrange(256)
        damaged.write_bytes(broken)
        try:
            found = Classifier(damaged)
        except ValueError:
            continue
        found.predict("the quick brown fox 日本".encode())
