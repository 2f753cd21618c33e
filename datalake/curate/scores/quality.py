"""The quality classifier: fastText (Joulin et al. 2016, arXiv:1607.01759) trained from labelled texts, and applied.

Trained by floret, a maintained build of fastText, in one thread: the same labels give the same bytes. The model is
written in fastText's own format, so that any fastText reads it and a ready model of another project is applied by the
same code. Labels are two: good, and whatever is not.

A document's quality is the probability of the good label for its words, rounded to 6 digits; a document without words
has none. Words are those of dedup/shingles.py, lower-cased; in Chinese those of jieba that have a
letter or digit and more than one character, as ChineseWebText trains its classifier (without its list of stop words).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from datalake.atomic import write_atomically
from datalake.curate.scores.config import QualityConfig, QualityUse, Words, label_text
from datalake.dedup.texts.shingles import WORD
from datalake.document import Passed, Quarantined
from datalake.errors import UserError
from datalake.files import File
from datalake.formats.rows.files import RowFile, row_files
from datalake.formats.rows.json import split_lines
from datalake.holdout import held_out
from datalake.origin import Origin
from datalake.text.chinese import segment

if TYPE_CHECKING:
    from datalake.text.fasttext import Classifier

MODEL, ABOUT = "model.bin", "quality.json"
GOOD, OTHER = "__label__good", "__label__other"
_PREFIX = "__label__"
_LONGEST = 1 << 26  # bytes of a row
_MAGIC = 793712314  # fastText's


class Labelled(NamedTuple):
    """One labelled text as the model sees it: its words, joined by spaces, and whether its label is the good one."""

    words: str
    good: bool


def words_of(text: str, words: Words) -> str:
    """The words of a text, joined by single spaces; empty where it has none."""
    if words == "raw":
        return (
            " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
        )  # lone surrogates can't reach the model
    if words == "jieba":
        return " ".join(piece for piece in segment(text.lower()) if len(piece) > 1 and WORD.search(piece))
    return " ".join(WORD.findall(text.lower()))


# Applying ---------------------------------------------------------------------------------------------------------


class QualityModel(NamedTuple):
    """Which classifier to apply, and to what: a file of fastText, its version, and how texts become words for it."""

    file: File  # without a version where the lake vouches for it
    label: str
    words: Words
    language: str | None

    @classmethod
    def trained(cls, folder: Path) -> QualityModel:
        """The classifier that the stage `quality` left in a folder."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        file = File.model_construct(paths=(str(folder / MODEL),))
        return cls(file, about["label"], about["words"], about["language"])

    @classmethod
    def ready(cls, use: QualityUse) -> QualityModel:
        """A ready model that a recipe names."""
        label = use.label if use.label.startswith(_PREFIX) else _PREFIX + use.label
        return cls(use.model, label, use.words, use.language)

    def score(self, text: str, language: str) -> float | None:
        """The quality of a text, in [0, 1]; None in another language or without a word.

        Raises:
            UserError: where the file is gone, has changed or is no classifier with this label.
        """
        if self.language is not None and language != self.language:
            return None
        line = words_of(text, self.words)
        return probability(self.predictor, self.label, line) if line else None

    @property
    def predictor(self) -> Classifier:
        """The loaded model, one for each file and process. Raises UserError as `score`."""
        return _loaded(self.file, self.label)


def probability(predictor: Classifier, label: str, line: str) -> float:
    """The probability of a label for a line of words, rounded to 6 digits."""
    return round(min(predictor.probability(line.encode("utf-8", "replace"), label), 1.0), 6)


@lru_cache(maxsize=4)
def _loaded(file: File, label: str) -> Classifier:
    from datalake.text.fasttext import Classifier  # numba

    if file.version:
        file.check("curate.quality.model")
    try:
        predictor = Classifier(Path(file.path))
    except (ValueError, OSError) as error:
        raise UserError(f"{file.path} is no fastText classifier: correct `curate.quality.model`") from error
    if label not in predictor.labels:
        there = ", ".join(sorted(predictor.labels)[:8])
        raise UserError(f"{file.path} has no label {label!r}: correct `curate.quality.label`; it has {there}")
    return predictor


# Labelled texts ---------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """Labelled texts, each once, in the order of their digests, parted in two; and what was left out."""

    training: list[Labelled]
    heldout: list[Labelled]
    counts: dict[str, int]


def read_labels(config: QualityConfig) -> Labels:
    """The labelled texts of the files. Held in memory.

    A text that occurs again counts once, one that has both labels not at all. What is held out is told by the text's
    digest and the seed: more texts leave the others where they are.

    Raises:
        UserError: a file that has changed or can't be read, a row without the columns, too few texts of a label.
    """
    config.paths.check("quality.paths")
    counts = {"rows": 0, "repeated": 0, "both labels": 0, "without words": 0}
    found: dict[bytes, Labelled | None] = {}
    seed = config.seed.to_bytes(8, "little")
    for name, path in config.paths.listed():
        for text, label in _rows(name, path, config):
            counts["rows"] += 1
            row = Labelled(words_of(text, config.words), label == config.good)
            key = xxhash.xxh3_128_digest(seed + row.words.encode())
            if not row.words:
                counts["without words"] += 1
            elif key not in found:
                found[key] = row
            elif (first := found[key]) is None:
                counts["both labels"] += 1
            elif first.good == row.good:
                counts["repeated"] += 1
            else:
                found[key] = None
                counts["both labels"] += 2
    training: list[Labelled] = []
    heldout: list[Labelled] = []
    for key, known in sorted(found.items(), key=lambda item: item[0]):
        if known is not None:
            (heldout if held_out(key.hex(), config.seed, config.holdout) else training).append(known)
    for what, rows in (("to train on", training), ("held out", heldout)):
        good = sum(row.good for row in rows)
        if not good or good == len(rows):
            raise UserError(
                f"quality: of {len(rows)} texts {what}, {good} have the label {config.good!r}: there must be some"
                " with it and some without; give more texts, or correct `quality.good` or `quality.holdout`"
            )
    return Labels(training, heldout, counts)


def _rows(name: str, path: str, config: QualityConfig) -> Iterator[tuple[str, str]]:
    """(text, label) of every row of one file."""
    try:
        for file in row_files(path, Origin("quality", "quality", name)):
            if isinstance(file, Passed):
                continue
            if isinstance(file, Quarantined):
                raise _damage(file)
            yield from _lines(file) if file.form == "text" else _columns(file, config)
    except OSError as error:
        raise UserError(f"quality.paths: {path} can't be read ({error.strerror}): correct the path") from None


def _lines(file: RowFile) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(split_lines(file.chunks, file.origin, _LONGEST), 1):
        if isinstance(line, Quarantined):
            raise _damage(line)
        label, _, text = line[1].decode("utf-8", "replace").strip().partition(" ")
        if label.startswith(_PREFIX):
            yield text, label.removeprefix(_PREFIX)
        elif label:
            raise UserError(
                f"quality.paths: line {number} of {file.name} doesn't begin with {_PREFIX}: correct the file"
            )


def _columns(file: RowFile, config: QualityConfig) -> Iterator[tuple[str, str]]:
    for row in file.rows():
        if isinstance(row, Quarantined):
            raise _damage(row)
        value = row.value if isinstance(row.value, dict) else {}
        for column, setting in ((config.text, "text"), (config.label, "label")):
            if value.get(column) is None:
                raise UserError(
                    f"quality.paths: row {row.number} of {file.name} has no {column!r}: correct `quality.{setting}`"
                )
        yield str(value[config.text]), label_text(value[config.label])


def _damage(what: Quarantined) -> UserError:
    return UserError(f"quality.paths: {what.archive} can't be read ({what.reason}: {what.detail}): mend or remove it")


# Training ---------------------------------------------------------------------------------------------------------


def train(rows: Sequence[Labelled], config: QualityConfig, folder: Path) -> None:
    """Train a classifier and write `model.bin`, in fastText's format, and `quality.json` into the folder.

    Raises:
        UserError: where training diverges.
    """
    import floret

    folder.mkdir(parents=True, exist_ok=True)
    # Beside the folder, not in it: what a kill leaves there is no part of the output.
    with TemporaryDirectory(prefix=".labels-", dir=folder.parent) as spill:
        lines, made = Path(spill) / "labels.txt", Path(spill) / MODEL
        with lines.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{GOOD if row.good else OTHER} {row.words}\n" for row in rows)
        try:
            model = floret.train_supervised(
                input=str(lines),
                lr=config.learning_rate,
                dim=config.dimension,
                epoch=config.epochs,
                minCount=config.min_count,
                wordNgrams=config.word_ngrams,
                bucket=config.buckets if config.word_ngrams > 1 else 0,
                seed=config.seed,
                thread=1,  # several race for the same weights
                verbose=0,
            )
        except RuntimeError as error:
            raise UserError(f"quality: training failed ({error}): lower `quality.learning_rate`") from None
        model.save_model(str(made))
        write_atomically(folder / MODEL, as_fasttext(made.read_bytes()))
    about = {"label": GOOD, "words": config.words, "language": config.language}
    write_atomically(folder / ABOUT, (json.dumps(about, indent=1) + "\n").encode())


def as_fasttext(model: bytes) -> bytes:
    """A model that floret wrote (in its mode `fasttext`) in fastText's format.

    The two differ by two numbers, the mode and how often words are hashed, which floret writes behind the eleven first
    ones (dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn) that follow fastText's magic
    number and version.
    """
    magic, version, *_, mode, hashes = struct.unpack_from("<15i", model)
    if (magic, version, mode, hashes) != (_MAGIC, 12, _FASTTEXT_MODE, 1):
        raise ValueError("floret writes another format than the one known: datalake/curate/scores/quality.py")
    return model[: 13 * 4] + model[15 * 4 :]


_FASTTEXT_MODE = 1
