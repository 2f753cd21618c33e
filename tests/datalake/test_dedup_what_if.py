"""Another threshold asked of the stored pairs gives what deduplicating again gives."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from datalake.dedup.config import DedupConfig
from datalake.dedup.decide import decide
from datalake.dedup.schema import PAIRS
from datalake.dedup.texts.sign import sign_file
from datalake.dedup.what_if import check_threshold, removed, tell
from datalake.document import Document, document_id
from datalake.errors import UserError
from datalake.tables import DOCUMENTS, to_table


def documents(seed: int) -> pa.Table:
    """Families of documents at every distance from each other, copies and documents without words."""
    rng = random.Random(seed)
    texts: list[str] = ["", "...", "...", "?"]
    for _ in range(12):
        words = [f"w{rng.randrange(10_000)}" for _ in range(60)]
        texts.append(" ".join(words))
        for _ in range(rng.randint(1, 7)):
            if rng.random() < 0.5:
                words = list(words)  # a chain, whose ends are far from each other
            other = list(words)
            for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
                other[rng.randrange(len(other))] = f"x{rng.randrange(10_000)}"
            words = other if rng.random() < 0.6 else words
            texts.append(" ".join(other) + rng.choice(("", "", "!")))
    rng.shuffle(texts)
    made = [Document(document_id("test", "a", str(k)), text, "table", f"a#{k}") for k, text in enumerate(texts)]
    return to_table(made, DOCUMENTS)


@pytest.mark.parametrize("seed", range(6))
def test_another_threshold_is_answered_as_by_a_rerun(seed: int) -> None:
    table = documents(seed)
    # So many bands that all pairs are compared: then thresholds below are answered exactly, too.
    base = DedupConfig(threshold=0.75, floor=0.3, bands=120, rows=2)
    signed = [sign_file(table, base)["signatures"]]
    decision = decide(signed, base)
    kept = set()
    for threshold in (0.3, 0.5, 0.6, 0.75, 0.8, 0.9, 0.99, 1.0):
        changed = base.model_copy(update={"threshold": threshold})
        again = decide(signed, changed).duplicates.to_pylist()
        gone = {row["id"] for row in again if row["duplicate_of"] is not None}
        assert removed(decision.pairs, threshold) == gone, threshold
        answer = tell(decision.pairs, table.num_rows, base, changed, decision.report)
        assert (answer["before"], answer["after"]) == (decision.report["kept"], table.num_rows - len(gone))
        kept.add(answer["after"])
    assert len(kept) > 3


@pytest.mark.parametrize("seed", range(20))
def test_long_chains_are_walked_in_the_order_of_precedence(seed: int) -> None:
    rng = random.Random(seed)
    ids = [document_id("test", "b", str(k)) for k in range(60)]
    found = {}
    for b in range(len(ids)):
        for a in rng.sample(range(b), min(b, rng.randint(0, 3))):
            found[a, b] = rng.choice((0.6, 0.7, 0.8, 0.9))
    rows = [{"a": ids[a], "b": ids[b], "level": "near", "similarity": s} for (a, b), s in found.items()]
    rng.shuffle(rows)
    for threshold in (0.65, 0.75, 0.85):
        gone: set[int] = set()
        for b in range(len(ids)):
            if any((a, b) in found and found[a, b] >= threshold and a not in gone for a in range(b)):
                gone.add(b)
        assert removed(pa.Table.from_pylist(rows, schema=PAIRS), threshold) == {ids[k] for k in gone}


def test_the_notes_say_what_pairs_do_not_show() -> None:
    base = DedupConfig(threshold=0.8)
    none = PAIRS.empty_table()
    [note] = tell(none, 5, base, DedupConfig(threshold=0.6), {"kept": 5})["notes"]
    assert "a run may find more" in note
    [note] = tell(none, 5, base, DedupConfig(threshold=0.9), {"kept": 5})["notes"]
    assert "other bands" in note
    bands = {"bands": 20, "rows": 6}
    assert tell(none, 5, DedupConfig(**bands), DedupConfig(threshold=0.9, **bands), {"kept": 5})["notes"] == []
    [note] = tell(none, 5, DedupConfig(**bands), DedupConfig(threshold=0.9, **bands), {"kept": 5, "large_buckets": 1})[
        "notes"
    ]
    assert "crowded" in note
    cut = {**bands, "lines": {}}
    [note] = tell(none, 5, DedupConfig(**cut), DedupConfig(threshold=0.9, **cut), {"kept": 5})["notes"]
    assert "cuts anew" in note
    with pytest.raises(UserError, match="don't give the duplicates at hand"):
        tell(none, 5, base, base, {"kept": 4})


def test_where_buckets_were_large_the_answer_says_that_it_may_differ() -> None:
    """Pairs of documents that go at the old threshold are not on record there, though none met the limit."""
    rng = random.Random(1)
    template = [f"w{k}" for k in range(200)]
    texts = [" ".join(template)]
    for k in range(100):
        begin, size = rng.randrange(180), rng.choice((1, 2, 4, 8, 12))
        texts.append(" ".join([*template[:begin], *(f"q{k}x{m}" for m in range(size)), *template[begin + size :]]))
    table = to_table(
        [Document(document_id("test", "c", str(k)), text, "table", f"c#{k}") for k, text in enumerate(texts)], DOCUMENTS
    )
    base = DedupConfig(threshold=0.8, bands=20, rows=6, bucket_limit=16)
    changed = base.model_copy(update={"threshold": 0.85})
    signed = [sign_file(table, base)["signatures"]]
    decision = decide(signed, base)
    assert decision.report["large_buckets"] > 0
    assert decision.report["crowded"] == 0
    answer = tell(decision.pairs, len(texts), base, changed, decision.report)
    assert answer["after"] > decide(signed, changed).report["kept"]
    assert any("crowded" in note for note in answer["notes"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ngram": 6}, "deduplicate.ngram changes which documents are compared"),
        ({"threshold": 0.4}, "0.4 lies below 0.5, from which on pairs are stored"),
        ({"precedence": ("length",)}, "deduplicate.precedence"),
        ({"lines": {"copies": 3}}, "deduplicate.lines cuts parts out of documents"),
    ],
)
def test_what_pairs_cannot_tell_is_one_line(change: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why):
        check_threshold(DedupConfig(), DedupConfig.model_validate(change))


def test_what_goes_for_its_address_goes_whatever_the_threshold() -> None:
    table = documents(1)
    uris = [f"https://a.org/{k % 40}" for k in range(table.num_rows)]
    table = table.set_column(table.schema.get_field_index("uri"), "uri", pa.array(uris))
    base = DedupConfig(threshold=0.75, floor=0.3, bands=120, rows=2, url=True)
    signed = [sign_file(table, base)["signatures"]]
    decision = decide(signed, base)
    assert decision.report["url"] > 10
    for threshold in (0.5, 0.9):
        changed = base.model_copy(update={"threshold": threshold})
        answer = tell(decision.pairs, table.num_rows, base, changed, decision.report)
        kept = decide(signed, changed).report["kept"]
        assert (answer["before"], answer["after"]) == (decision.report["kept"], kept)
