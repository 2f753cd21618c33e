"""The benchmarks of deduplication measure what they say: their corpus, their judge, their made-up signatures."""

import gzip
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.dedup.config import DedupConfig
from datalake.dedup.decide import decide
from datalake.dedup.texts.shingles import word_list

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import _dedup_corpus as bench
import dedup
import dedup_growth as growth


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "pages.jsonl.gz"
    words = [f"{a}{b}" for a in ("ba", "ke", "mi", "no", "ru", "sta") for b in ("la", "don", "wer", "xi", "pum")]
    with gzip.open(path, "wt", encoding="utf-8") as out:
        for k in range(40):
            line = " ".join(words[(k * 7 + j * (k + 1)) % len(words)] for j in range(40)) + f" it's number {k}."
            out.write(json.dumps({"lang": "en", "gold_text": f"short\n{line}\n<b>{line}</b>"}) + "\n")
        out.write(json.dumps({"lang": "zh", "gold_text": "字" * 200}) + "\n")
    return path


@pytest.fixture(scope="module")
def made(pages, tmp_path_factory):
    return bench.corpus(tmp_path_factory.mktemp("corpora"), pages, 300)


def rows(corpus):
    return [row for file in corpus.files for row in pq.read_table(file).to_pylist()]


def test_the_truth_holds_every_pair_within_a_family_with_its_similarity(made):
    texts = {row["name"]: row["text"] for row in rows(made)}
    assert len(texts) == made.documents == 300
    assert len({name[:9] for name in texts}) == made.families
    assert made.bytes == sum(len(text.encode()) for text in texts.values())
    expected = {}
    for a, b in combinations(sorted(texts), 2):
        if a[:9] == b[:9]:
            runs = [{tuple(w[k : k + 5]) for k in range(len(w) - 4)} for w in map(word_list, (texts[a], texts[b]))]
            expected[a, b] = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    truth = {(row["a"], row["b"]): row["jaccard"] for row in pq.read_table(made.truth).to_pylist()}
    assert truth == expected
    assert min(truth.values()) < 0.7
    assert max(truth.values()) == 1.0


def test_the_same_seed_gives_the_same_corpus_and_one_that_is_there_is_left_alone(pages, made, tmp_path):
    again = bench.corpus(tmp_path, pages, 300)
    assert rows(again) == rows(made)
    stamp = again.files[0].stat().st_mtime_ns
    assert bench.corpus(tmp_path, tmp_path / "no such pages", 300) == again
    assert again.files[0].stat().st_mtime_ns == stamp
    assert rows(bench.corpus(tmp_path, pages, 300, seed=8)) != rows(made)


def test_pages_without_english_text_are_named(tmp_path):
    with gzip.open(tmp_path / "pages.jsonl.gz", "wt") as out:
        out.write(json.dumps({"lang": "en", "gold_text": None}) + "\n")
    with pytest.raises(SystemExit, match="no row of English"):
        bench.corpus(tmp_path, tmp_path / "pages.jsonl.gz", 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        ("?!", set()),
        ("One, two", {("one", "two")}),
        ("a b c d E f", {("a", "b", "c", "d", "e"), ("b", "c", "d", "e", "f")}),
        ("中文 a_b 🙂", {("中", "文", "a", "b")}),
    ],
)
def test_shingles(text, expected):
    assert bench.shingles(text) == expected


def name(family, member):
    return f"{family:09d}-{member:06d}"


def test_the_judge_by_hand():
    pairs = [
        (name(1, 0), name(1, 1), 1.0),  # one kept: caught, precise
        (name(2, 0), name(2, 1), 0.85),  # both kept: missed
        (name(3, 0), name(3, 1), 0.95),  # both gone: caught, lost
        (name(4, 0), name(4, 1), 0.75),  # caught; precise from 0.7 only
        (name(5, 0), name(5, 1), 0.3),  # below all bins; 5-0 goes and is precise at nothing
        (name(6, 0), name(6, 1), 0.8),
        (name(6, 0), name(6, 2), 0.6),
        (name(6, 1), name(6, 2), 0.79),
    ]
    truth = pa.table(dict(zip(("a", "b", "jaccard"), map(list, zip(*pairs, strict=True)), strict=True)))
    removed = {name(1, 1), name(3, 0), name(3, 1), name(4, 1), name(5, 0), name(6, 2), name(7, 0)}
    judged = bench.judge(truth, removed, (0.7, 0.8))
    assert judged == {
        "removed": 7,
        "caught": {
            "0.5": [None, 0],
            "0.6": [1.0, 1],
            "0.7": [1.0, 2],
            "0.8": [0.0, 2],
            "0.9": [1.0, 1],
            "1.0": [1.0, 1],
        },
        "caught_0.8": 2 / 4,
        "missed_0.8": 2,
        "precise_0.7": 3 / 7,
        "precise_0.8": 1 / 7,
        "lost": 2,  # family 3, and 7, which is in no pair
    }
    assert bench.judge(truth, set(), (0.8,))["precise_0.8"] is None


def test_headwater_on_the_corpus_and_the_check_of_its_removals(made, tmp_path):
    answer = dedup.whole(made.files, dedup.wiped(tmp_path / "work"), 1)
    partner = dedup.partners(tmp_path / "work")
    assert len(partner) == answer["report"]["documents"] - answer["report"]["kept"]
    fine = {"removed": len(partner), "partner not kept": 0, "partner below threshold": 0, "similarity misstated": 0}
    assert dedup.check(made, partner, 0.8) == fine
    judged = bench.judge(pq.read_table(made.truth), set(partner), (0.8,))
    assert judged["precise_0.8"] == 1.0
    assert judged["lost"] == 0
    assert judged["caught_0.8"] > 0.99

    one, (other, alike) = next((x, y) for x, y in partner.items() if y[1] < 1.0)
    stranger = next(row["name"] for row in rows(made) if row["name"][:9] != one[:9] and row["name"] not in partner)
    assert dedup.check(made, partner | {one: (other, alike + 1e-6)}, 0.8) == fine | {"similarity misstated": 1}
    wrong = dedup.check(made, partner | {one: (stranger, alike)}, 0.8)
    assert wrong == fine | {"similarity misstated": 1, "partner below threshold": 1}
    assert dedup.check(made, partner | {other: (one, alike)}, 0.8)["partner not kept"] > 0


def test_made_up_signatures_are_as_planned(tmp_path):
    files = growth.make(tmp_path, 500, 40, 3)
    plan = growth.plan(500, 40, 3)
    sets = {}
    for row in pq.read_table(files).to_pylist():
        hashes = np.frombuffer(row["shingles"], "<u8")
        found = set(hashes.tolist())
        assert len(found) == len(hashes) == row["shingle_count"] == row["words"] - 4
        sets[int.from_bytes(row["id"][8:], "big")] = found
    assert sorted(sets) == list(range(500))
    base = {}
    for k in range(500):
        assert len(sets[k]) == plan.size[k]
        first = base.setdefault(plan.family[k], k)
        assert len(sets[first] & sets[k]) == plan.size[k] - plan.own[k]
    assert 200 < len(base) < 300
    assert not sets[0] & sets[499]
    decision = decide(files, DedupConfig())
    assert len(base) <= decision.report["kept"] < 450

    measured = growth.decided(files, files, 40, 3, None, 1, 1 << 30)
    assert measured["lost"] == 0
    assert measured["caught"] > 0.99


def test_the_slope_is_the_exponent():
    assert growth.slope([10, 100, 1000], [3.0, 3 * 10**1.5, 3 * 10**3.0]) == pytest.approx(1.5)
