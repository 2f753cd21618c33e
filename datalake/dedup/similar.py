"""Near duplicates of a text that needn't be in the lake: signed like its documents, looked up by their stored bands.

datasketch signs the text, whose scheme the stored signatures follow bit for bit (`datalake.dedup.texts.minhash`). Its
bands propose candidates, as they do when a corpus is deduplicated, and each candidate's Jaccard similarity is computed
from the stored shingles. No text of the lake is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketch import MinHash

from datalake.dedup.config import SigningConfig, collision_probability
from datalake.dedup.texts.bands import buckets
from datalake.dedup.texts.shingles import shingle
from datalake.dedup.texts.sign import SIGNED_WITH
from datalake.dedup.texts.signed import flat
from datalake.errors import LostDataError, UserError, first_line, note
from datalake.lake.corpora import Corpus, corpora
from datalake.lake.lake import Lake
from datalake.lake.ledger import connect
from datalake.lake.parquet import open_parquet, read_schema
from datalake.lake.records import read_record

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


def similar(lake: Lake, text: str, corpus: str | None = None, threshold: float | None = None) -> list[dict[str, Any]]:
    """The documents of a corpus from this Jaccard similarity on, best first: `uri`, `id`, `similarity`, `verdict`.

    Documents are those that curation kept. `threshold` is the corpus' own where it isn't given; what the bands find of
    pairs at a lower one is said on stderr.

    Raises:
        UserError: where there is no such corpus, or several and none is named; where it was never deduplicated; where
            the text has no words.
    """
    shown = _choose(corpora(lake), corpus)
    ref = shown.tables["signatures"]
    for said in shown.notes(["signatures"]):
        note(said)
    record = read_record(lake, ref.fingerprint)
    least = float(record.payload["config"].get("threshold", 0.8)) if record else 0.8
    threshold = least if threshold is None else threshold
    if not 0 < threshold <= 1:
        raise UserError(f"the threshold is {threshold:g}: give a Jaccard similarity above 0 and at most 1")
    files = lake.files(ref)
    try:
        found = sorted(search(files, text, threshold), key=lambda pair: (-pair[1], pair[0])) if files else []
        if files and threshold < least:
            signing = signing_of(files[0])
            share = collision_probability(threshold, signing.bands, signing.rows)
            note(f"the bands are made for {least:g}: of documents as similar as {threshold:g} they find {share:.0%}")
    except (OSError, pa.ArrowException) as error:
        raise LostDataError(ref.table, first_line(error)) from None
    sql = f'SELECT id, uri, verdict FROM "{shown.name}".ledger WHERE id IN (SELECT unnest(?))'
    rows = connect(lake, shown=[shown]).execute(sql, [[id for id, _ in found]]).fetchall() if found else []
    known = {id: columns for id, *columns in rows}
    return [
        {"uri": uri, "id": id, "similarity": similarity, "verdict": verdict}
        for id, similarity in found
        for uri, verdict in [known.get(id, (None, None))]
    ]


def _choose(shown: Sequence[Corpus], name: str | None) -> Corpus:
    """The corpus of this name, or the only one with signatures."""
    if name is not None:
        shown = [corpus for corpus in shown if corpus.name == name]
        if not shown:
            raise UserError(f"no finished run of a corpus {name!r}: `headwater runs` lists what there is")
    signed = [corpus for corpus in shown if "signatures" in corpus.tables]
    if not signed:
        names = ", ".join(corpus.name for corpus in shown) or "the lake"
        raise UserError(f"{names} has no signatures: run a recipe up to deduplicate first")
    if len(signed) > 1:
        raise UserError(f"several corpora have signatures: name one of {', '.join(c.name for c in signed)} (--corpus)")
    return signed[0]


def search(files: Sequence[str], text: str, threshold: float) -> Iterator[tuple[bytes, float]]:
    """(id, Jaccard similarity) of each signed document that shares a band with the text and is similar enough."""
    shingles, wanted = sign_text(text, signing_of(files[0]))
    if not len(shingles):
        raise UserError("the text has no words: give one that has")
    for path in files:
        with open_parquet(path) as file:
            for group in range(file.num_row_groups):
                rows = _sharing(file.read_row_group(group, ["bands"])["bands"].combine_chunks(), wanted)
                if not len(rows):
                    continue
                near = file.read_row_group(group, ["id", "shingles"]).take(rows)
                values, begins, ends = flat(near["shingles"].combine_chunks())
                for id, begin, end in zip(near["id"].to_pylist(), begins, ends, strict=True):
                    similarity = jaccard(shingles, values[begin:end])
                    if similarity >= threshold:
                        yield id, similarity


def signing_of(file: str) -> SigningConfig:
    """What a file of signatures was signed with."""
    metadata = read_schema(file).metadata or {}
    if SIGNED_WITH not in metadata:
        raise UserError("the signatures are of an earlier version of Headwater: run the recipe again")
    return SigningConfig.model_validate_json(metadata[SIGNED_WITH])


def sign_text(text: str, signing: SigningConfig) -> tuple[Hashes, Ints]:
    """A text's shingles, sorted, and its bucket in each band, shape (bands,): those that the lake would store of it."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates, which are part of no word
    shingles = shingle(pa.array([text], pa.large_string()), signing.ngram).shingles
    signature = MinHash(
        signing.bands * signing.rows, signing.seed, hashfunc=lambda hash: hash & 0xFFFFFFFF, scheme="affine32"
    )
    signature.update_batch(shingles.tolist())
    return shingles, buckets(signature.hashvalues[np.newaxis], signing.bands, signing.rows)[0]


def _sharing(bands: pa.Array, wanted: Ints) -> Ints:
    """Rows of a column of bands that agree with these buckets in at least one band."""
    values, begins, ends = flat(bands)
    some = np.flatnonzero(ends > begins)  # texts without words have none
    found: Ints = some[np.any(values.view(np.int64).reshape(len(some), len(wanted)) == wanted, axis=1)]
    return found


def jaccard(a: Hashes, b: Hashes) -> float:
    """The similarity of two sorted sets."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)
