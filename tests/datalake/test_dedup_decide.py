"""Duplicates are found, and none is removed without a kept partner at or above the threshold."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.dedup import decide as decide_module
from datalake.dedup.config import DedupConfig
from datalake.dedup.decide import Decision, decide
from datalake.dedup.schema import DUPLICATES, PAIRS, SIGNATURES
from datalake.dedup.texts import signed as signed_module
from datalake.dedup.texts.components import join_pairs, settle_roots
from datalake.dedup.texts.shingles import normalise, word_list
from datalake.dedup.texts.sign import sign_file
from datalake.dedup.texts.spill import Spill
from datalake.dedup.urls import normalise_url
from datalake.document import Document, document_id
from datalake.tables import DOCUMENTS, to_table

DAY = datetime(2020, 1, 1, tzinfo=UTC)


def make(texts: list[str], **columns: list) -> pa.Table:
    documents = []
    for k, text in enumerate(texts):
        row = {name: values[k] for name, values in columns.items()}
        key = row.pop("id", None) or document_id("test", "a", str(k))
        documents.append(Document(**{"id": key, "text": text, "source": "table", "uri": f"a#{k}", **row}))
    return to_table(documents, DOCUMENTS)


def run(documents: pa.Table, config: DedupConfig | None = None, shards: int = 1) -> Decision:
    config = config or DedupConfig()
    step = max(1, -(-documents.num_rows // shards))
    parts = [documents.slice(k, step) for k in range(0, documents.num_rows, step)] or [documents]
    return decide([sign_file(part, config)["signatures"] for part in parts], config)


def shingles(text: str, n: int) -> frozenset[tuple[str, ...]]:
    words = word_list(text)
    width = min(n, len(words))
    return frozenset(tuple(words[k : k + width]) for k in range(len(words) - width + 1)) if words else frozenset()


def similarity(a: str, b: str, n: int = 5) -> float:
    x, y = shingles(a, n), shingles(b, n)
    return len(x & y) / len(x | y) if x and y else 0.0


def check(documents: pa.Table, decision: Decision, config: DedupConfig) -> None:
    """What must hold of every decision, by plain Python over the texts."""
    texts = dict(zip(documents["id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    assert decision.pairs.schema == PAIRS
    assert decision.duplicates.schema == DUPLICATES
    rows = {row["id"]: row for row in decision.duplicates.to_pylist()}
    assert list(rows) == sorted(texts), "one row per document, by id"
    pairs = {(row["a"], row["b"]): row for row in decision.pairs.to_pylist()}
    assert list(pairs) == sorted(pairs)
    assert len(pairs) == decision.pairs.num_rows
    for (a, b), row in pairs.items():
        assert (b, a) not in pairs
        check_level(texts[a], texts[b], row, config)
        assert row["similarity"] >= config.stored_from
    for row in rows.values():
        partner = row["duplicate_of"]
        if partner is None:
            assert row["level"] is None
            assert row["similarity"] is None
            continue
        assert rows[partner]["duplicate_of"] is None, "the partner is kept"
        assert row["similarity"] >= config.threshold
        check_level(texts[partner], texts[row["id"]], row, config)
        assert pairs[partner, row["id"]]["similarity"] == row["similarity"], "the pair is on record, kept one first"
    removed = sum(row["duplicate_of"] is not None for row in rows.values())
    exact = sum(row["level"] == "exact" for row in rows.values())
    assert decision.report["documents"] == len(texts)
    assert decision.report["kept"] == len(texts) - removed
    assert (decision.report["exact"], decision.report["near"]) == (exact, removed - exact)
    assert decision.report["pairs"] == len(pairs)


def check_level(a: str, b: str, row: dict, config: DedupConfig) -> None:
    exact = normalise(a) == normalise(b)
    assert row["level"] == ("exact" if exact else "near")
    assert row["similarity"] == (1.0 if exact else similarity(a, b, config.ngram))


def kept(decision: Decision) -> list[bytes]:
    return [row["id"] for row in decision.duplicates.to_pylist() if row["duplicate_of"] is None]


def sentence(generator: random.Random, words: int = 60) -> list[str]:
    return ["".join(generator.choices("abcdefghij", k=5)) for _ in range(words)]


def families(seed: int, count: int = 60) -> list[str]:
    """Families of edited copies, all similarities from none to all."""
    generator, texts = random.Random(seed), []
    for _ in range(count):
        base = sentence(generator, generator.randint(3, 80))
        for _ in range(generator.choice([1, 1, 2, 4, 7])):
            rate = generator.choice([0, 0, 0.005, 0.01, 0.02, 0.05])
            words = [w if generator.random() > rate else "changed" for w in base]
            joiner = generator.choice([" ", " ", "  ", ", "])
            texts.append(joiner.join(words).capitalize())
    generator.shuffle(texts)
    return texts


@pytest.mark.parametrize("seed", range(4))
def test_with_enough_bands_decisions_are_those_of_comparing_every_pair(seed: int) -> None:
    texts = families(seed)
    generator = random.Random(seed)
    created = [generator.choice([None, DAY, DAY + timedelta(days=1)]) for _ in texts]
    source = [generator.choice(["web", "wiki", "code", "books"]) for _ in texts]
    documents = make(texts, created=created, source=source)
    config = DedupConfig(threshold=0.7, floor=0.3, bands=400, rows=1, sources=("wiki", "code"))
    decision = run(documents, config)
    check(documents, decision, config)

    place = {"wiki": 0, "code": 1}
    rows = documents.to_pylist()
    rows.sort(
        key=lambda r: (
            place.get(r["source"], 2),
            (r["created"] is None, r["created"] or DAY),
            -len(r["text"]),
            r["id"],
        )
    )
    keep: list[dict] = []
    expected = {}
    for row in rows:
        equal = [k for k in keep if normalise(k["text"]) == normalise(row["text"])]
        alike = [(similarity(k["text"], row["text"]), -n) for n, k in enumerate(keep)]
        best = max(alike, default=(0.0, 0))
        if equal:
            expected[row["id"]] = (equal[0]["id"], 1.0)
        elif best[0] >= 0.7:
            expected[row["id"]] = (keep[-best[1]]["id"], best[0])
        else:
            keep.append(row)
    found = {
        r["id"]: (r["duplicate_of"], r["similarity"]) for r in decision.duplicates.to_pylist() if r["duplicate_of"]
    }
    assert found == expected
    assert len(found) > 50

    pairs = {frozenset((r["a"], r["b"])) for r in decision.pairs.to_pylist() if r["similarity"] < 1.0}
    every = {
        frozenset((a["id"], b["id"]))
        for a, b in itertools.combinations(rows, 2)
        if 0.3 <= similarity(a["text"], b["text"]) < 1.0
    }
    assert pairs <= every
    distinct = {tuple(sorted(shingles(r["text"], 5))) for r in rows}
    assert len(pairs) > 20
    assert len(distinct) < len(rows), "copies take part"
    assert decision.report["candidates"] <= len(distinct) * (len(distinct) - 1) // 2, "no pair is measured twice"


def test_any_order_and_number_of_shards_gives_the_same_tables(tmp_path: Path) -> None:
    texts = families(11)
    documents = make(texts)
    whole = run(documents)
    assert whole.report["near"] > 20
    shuffled = documents.take(pa.array(random.Random(0).sample(range(len(texts)), len(texts))))
    for shards in (1, 3, 7):
        decision = run(shuffled, shards=shards)
        assert decision.pairs.equals(whole.pairs)
        assert decision.duplicates.equals(whole.duplicates)
        assert decision.report == whole.report
    config, paths = DedupConfig(), []
    for k in range(4):
        pq.write_table(documents.slice(k * 100, 100), tmp_path / f"documents-{k}.parquet", row_group_size=17)
        table = sign_file(tmp_path / f"documents-{k}.parquet", config)["signatures"]
        paths.append(tmp_path / f"signatures-{k}.parquet")
        pq.write_table(table, paths[-1], row_group_size=13)
    rest = sign_file(documents.slice(400), config)["signatures"]
    decision = decide([*reversed(paths), rest], config, threads=2)
    assert decision.pairs.equals(whole.pairs)
    assert decision.duplicates.equals(whole.duplicates)


def test_a_shards_signatures_depend_on_its_documents_alone(tmp_path: Path) -> None:
    documents = make(families(12))
    whole = sign_file(documents, DedupConfig())["signatures"]
    assert whole.schema.equals(SIGNATURES)
    part = sign_file(documents.slice(5, 20), DedupConfig())["signatures"]
    assert part.equals(whole.slice(5, 20))
    pq.write_table(documents, tmp_path / "documents.parquet")
    assert sign_file(str(tmp_path / "documents.parquet"), DedupConfig().signing)["signatures"].equals(whole)


def test_in_a_chain_of_weak_links_only_direct_partners_of_kept_documents_go() -> None:
    words = sentence(random.Random(3), 400)
    texts = [" ".join(words[12 * k : 12 * k + 104]) for k in range(20)]  # 100 shingles, 12 further on each time
    step, two = similarity(texts[0], texts[1]), similarity(texts[0], texts[2])
    assert step == 88 / 112
    assert two < 0.7 < step
    config = DedupConfig(threshold=0.7, bands=200, rows=1)
    created = [DAY + timedelta(days=k) for k in range(20)]
    documents = make(texts, created=created)
    decision = run(documents, config)
    check(documents, decision, config)
    ids = documents["id"].to_pylist()
    assert sorted(kept(decision)) == sorted(ids[0::2]), "every second link has a kept neighbour"
    assert decision.report["largest_group"] == 20
    assert decision.report["largest_group_kept"] == 10


def test_precedence_is_source_then_date_then_length_then_id() -> None:
    words = sentence(random.Random(4), 100)
    long, short = " ".join(words), " ".join(words[:-2])
    later = DAY + timedelta(days=1)

    def winner(**columns: list) -> int:
        n = len(next(iter(columns.values())))
        columns.setdefault("text", [long] * n)
        documents = make(columns.pop("text"), **columns)
        config = DedupConfig(sources=("wikipedia", "common_crawl"))
        decision = run(documents, config)
        check(documents, decision, config)
        assert len(kept(decision)) == 1
        return documents["id"].to_pylist().index(kept(decision)[0])

    assert winner(source=["common_crawl", "code", "wikipedia"], created=[DAY, DAY, later]) == 2
    assert winner(source=["code", "common_crawl"], created=[DAY, None]) == 1
    assert winner(created=[None, later, DAY], text=[long, long, short]) == 2
    assert winner(created=[None, later]) == 1
    assert winner(text=[short, long, short]) == 1
    assert winner(id=[b"b" * 16, b"a" * 16, b"\xff" * 16]) == 1


def test_where_quality_decides_the_better_document_stays_and_one_without_comes_last() -> None:
    page = " ".join(sentence(random.Random(2)))
    documents = make([page, page + " more", page + " again", page + " and again"])
    ids = documents["id"].to_pylist()
    config = DedupConfig(precedence=("quality", "length"))
    curation = pa.table(
        {"id": pa.array([ids[3], b"x" * 16, ids[1], ids[2]], pa.binary(16)), "quality": [0.2, 1.0, 0.7, None]}
    )
    signed = sign_file(documents, config)["signatures"]
    for parts in ([curation], [curation.slice(k, 1) for k in range(4)]):
        rows = {
            row["id"]: row["duplicate_of"] for row in decide([signed], config, curation=parts).duplicates.to_pylist()
        }
        assert [rows[i] for i in ids] == [ids[1], None, ids[1], ids[1]]
    longest = decide([signed], config)
    assert kept(longest) == [ids[3]]


def test_of_several_kept_partners_the_most_similar_is_named() -> None:
    words = sentence(random.Random(5), 210)
    near, nearer = words[:204], words[20:]
    middle = words[12:]
    texts = [" ".join(near), " ".join(nearer), " ".join(middle)]
    created = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    config = DedupConfig(threshold=0.88, floor=0.5, bands=200, rows=1)
    documents = make(texts, created=created)
    decision = run(documents, config)
    check(documents, decision, config)
    ids = documents["id"].to_pylist()
    assert similarity(texts[0], texts[1]) < 0.88 < similarity(texts[0], texts[2]) < similarity(texts[1], texts[2])
    assert {r["id"]: r["duplicate_of"] for r in decision.duplicates.to_pylist() if r["duplicate_of"]} == {
        ids[2]: ids[1]
    }


def test_copies_of_a_removed_document_name_the_kept_one_directly() -> None:
    words = sentence(random.Random(6), 300)
    first, second = " ".join(words), " ".join(words[:-3])
    texts = [first, second, second.upper(), second.replace(" ", "\n"), second.replace(" ", ", ")]
    created = [DAY + timedelta(days=k) for k in range(5)]
    documents = make(texts, created=created)
    decision = run(documents)
    check(documents, decision, DedupConfig())
    ids = documents["id"].to_pylist()
    assert kept(decision) == [ids[0]]
    levels = {(r["a"], r["b"]): r["level"] for r in decision.pairs.to_pylist()}
    assert levels[ids[1], ids[2]] == levels[ids[1], ids[3]] == "exact"
    assert levels[ids[1], ids[4]] == "near", "punctuation differs, the words do not"


def test_short_and_empty_documents_are_duplicates_only_where_they_are_equal() -> None:
    texts = [
        "",
        "",
        " \n ",
        "!!!",
        "???",
        "one",
        "One",
        "two",
        "one two",
        "one two three",
        "ONE  two three",
        "one, two three",
    ]
    created = [DAY + timedelta(seconds=k) for k in range(len(texts))]
    documents = make(texts, created=created)
    decision = run(documents)
    check(documents, decision, DedupConfig())
    of = {r["id"]: r["duplicate_of"] for r in decision.duplicates.to_pylist()}
    ids = documents["id"].to_pylist()
    partners = {k: ids.index(of[key]) for k, key in enumerate(ids) if of[key]}
    assert partners == {1: 0, 2: 0, 6: 5, 10: 9, 11: 9}


def test_an_empty_corpus_and_an_empty_shard_are_fine() -> None:
    documents = make([])
    decision = run(documents)
    assert decision.duplicates.num_rows == decision.pairs.num_rows == 0
    assert decide([], DedupConfig()).duplicates.schema == DUPLICATES
    config = DedupConfig()
    some = make(["a b c d e f", "a b c d e f"])
    with_empty = decide([sign_file(t, config)["signatures"] for t in (documents, some, documents)], config)
    assert with_empty.duplicates.equals(run(some).duplicates)


def test_chinese_documents_are_compared_by_character_and_unrelated_ones_stay() -> None:
    generator = random.Random(7)
    common = [chr(c) for c in range(0x4E00, 0x4E00 + 800)]
    base = [generator.choices(common, k=200) for _ in range(60)]
    texts = ["".join(b) for b in base]
    texts += [
        "，".join(("".join(b[:90]), "".join(b[90:190]))) for b in base[:25]
    ]  # two parts of one page, a comma between
    created = [DAY + timedelta(seconds=k) for k in range(len(texts))]
    documents = make(texts, created=created)
    decision = run(documents)
    check(documents, decision, DedupConfig())
    assert sorted(kept(decision)) == sorted(documents["id"].to_pylist()[:60])


def test_a_real_chinese_corpus_keeps_its_articles(samples) -> None:
    with gzip.open(samples / "cc/pages/pages-dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [r["gold_text"] for r in rows if r.get("lang") == "zh" and r.get("gold_text")][:100]
    assert len(texts) > 30
    documents = make(texts)
    decision = run(documents)
    check(documents, decision, DedupConfig())
    close = sum(similarity(a, b) >= 0.8 for a, b in itertools.combinations(texts, 2))
    assert decision.report["kept"] >= len(texts) - close


def test_a_hundred_thousand_identical_documents_cost_no_more_than_one() -> None:
    text, other = (
        "the same few words in every one of these documents",
        "a document that is nothing like the others at all",
    )
    n = 100_000
    ids = np.arange(n, dtype=">u8").repeat(2).view(np.uint8).reshape(n, 16)
    documents = pa.table(
        {
            "id": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(ids.tobytes())]),
            "text": pa.array([text if k % 3 else text.upper() + "!" for k in range(n - 1)] + [other]),
            "source": pa.array(["table"] * n),
            "uri": pa.array(["table"] * n),
            "created": pa.nulls(n, pa.timestamp("us", tz="UTC")),
        }
    )
    decision = run(documents)
    assert decision.report["kept"] == 2
    assert decision.report["candidates"] <= 1
    assert decision.pairs.num_rows <= 2 * n
    first = decision.duplicates.slice(1, 1).to_pylist()[0]
    assert first["duplicate_of"] == ids[0].tobytes(), "longest first: the ones with an exclamation mark, then by id"


def test_a_bucket_over_the_limit_stays_linear_and_keeps_the_guarantee() -> None:
    generator = random.Random(8)
    template = sentence(generator, 150)
    texts = [" ".join([*template, f"page{k}"]) for k in range(600)]  # near duplicates of one another, all of them
    texts += [" ".join([*template[:75], *sentence(generator, 40)]) for _ in range(300)]  # share half: stay
    documents = make(texts)
    config = DedupConfig(bucket_limit=16, bands=60, rows=1)
    decision = run(documents, config)
    check(documents, decision, config)
    assert decision.report["large_buckets"] > 0
    assert 200 < decision.report["crowded"] <= 301, "the limit was met, and a document counts once whatever its bands"
    assert decision.report["kept"] == 301
    assert decision.report["candidates"] < 900 * 301
    unlimited = run(documents, DedupConfig(bucket_limit=1000, bands=60, rows=1))
    assert unlimited.report["candidates"] > 600 * 599 // 2
    assert kept(unlimited) == kept(decision)


def test_small_buckets_are_verified_whole_and_large_ones_against_what_is_kept_each_pair_once() -> None:
    texts = list({shingles(text, 5): text for seed in range(5) for text in families(seed)}.values())
    documents = make(texts)
    config = DedupConfig(bucket_limit=3, bands=30, rows=3)
    decision = run(documents, config)
    check(documents, decision, config)
    ids, signed = documents["id"].to_pylist(), sign_file(documents, config)["signatures"]
    bands = [np.frombuffer(row, "<u8") for row in signed["bands"].to_pylist()]
    stay, small, large = set(kept(decision)), set(), set()
    for band in range(30):
        members: dict[int, list[int]] = {}
        for k in range(len(texts)):
            members.setdefault(bands[k][band], []).append(k)
        for bucket in members.values():
            pairs = {frozenset(pair) for pair in itertools.combinations(bucket, 2)}
            if len(bucket) <= 3:
                small |= pairs
            else:
                large |= {pair for pair in pairs if any(ids[k] in stay for k in pair)}
    listed = {frozenset((r["a"], r["b"])) for r in decision.pairs.to_pylist()}
    missed = [(a, b) for a, b in small if similarity(texts[a], texts[b]) >= 0.5 and {ids[a], ids[b]} not in listed]
    assert missed == []
    assert len(small & large) > 30, "some pairs share small and large buckets"
    assert decision.report["large_buckets"] > 30
    assert len(small) <= decision.report["candidates"] <= len(small) + len(large)


@pytest.mark.parametrize(("start", "named"), [(10, 0), (12, 1), (8, 0)])
def test_in_large_buckets_too_the_most_similar_then_the_first_is_named(start: int, named: int) -> None:
    texts, created = [], []
    for k in range(20):
        words = sentence(random.Random(k), 220)
        texts += [" ".join(words[:200]), " ".join(words[20:]), " ".join(words[start : start + 200])]
        created += [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    documents = make(texts, created=created)
    config = DedupConfig(threshold=0.85, bucket_limit=2, bands=6, rows=1)
    decision = run(documents, config)
    check(documents, decision, config)
    assert decision.report["large_buckets"] > 50
    assert decision.report["crowded"] == 0
    ids = documents["id"].to_pylist()
    of = {r["id"]: r["duplicate_of"] for r in decision.duplicates.to_pylist() if r["duplicate_of"]}
    assert of == {ids[k + 2]: ids[k + named] for k in range(0, 60, 3)}


def test_a_similarity_of_just_the_threshold_joins() -> None:
    for threshold, few, many in ((0.8, 8, 10), (0.55, 55, 100), (0.7, 7, 10), (0.9, 9, 10), (0.35, 35, 100)):
        words = sentence(random.Random(few), many + 4)
        documents = make([" ".join(words), " ".join(words[: few + 4])])
        config = DedupConfig(threshold=threshold, bands=300, rows=1)
        decision = run(documents, config)
        check(documents, decision, config)
        assert decision.report["near"] == 1, threshold


def test_a_similarity_of_just_the_threshold_joins_in_large_buckets_too() -> None:
    for threshold, few, many in ((0.8, 8, 10), (0.55, 55, 100), (0.7, 7, 10), (0.35, 35, 100)):
        words = sentence(random.Random(few), many + 4)
        # What the last shares with the first, the middle one shares: no bucket holds those two alone.
        documents = make([" ".join(words), " ".join(words[: few + 5]), " ".join(words[: few + 4])])
        config = DedupConfig(threshold=threshold, bucket_limit=2, bands=300, rows=1)
        decision = run(documents, config)
        check(documents, decision, config)
        rows = {row["id"]: row for row in decision.duplicates.to_pylist()}
        first, _, last = documents["id"].to_pylist()
        assert (rows[last]["duplicate_of"], rows[last]["similarity"]) == (first, few / many), threshold
        floor = DedupConfig(threshold=1.0, floor=threshold, bucket_limit=2, bands=300, rows=1)
        pairs = {frozenset((row["a"], row["b"])) for row in run(documents, floor).pairs.to_pylist()}
        assert frozenset((first, last)) in pairs, "what is stored begins at the floor"


@pytest.mark.parametrize("name", ["articles_100", "articles_2500"])
def test_labelled_pairs_are_all_found_and_nothing_else_is_joined(samples, name: str) -> None:
    with gzip.open(samples / f"dedup/{name}.train.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split(" ", 1) for line in lines]
    truth = {frozenset(line.split()) for line in (samples / f"dedup/{name}.truth").read_text().splitlines()}
    names = {document_id("articles", name, key): key for key, _ in rows}
    documents = make([text for _, text in rows], id=list(names))
    for config in (DedupConfig(), DedupConfig(threshold=0.5, permutations=200)):
        decision = run(documents, config)
        check(documents, decision, config)
        found = {frozenset((names[r["a"]], names[r["b"]])) for r in decision.pairs.to_pylist()}
        assert found == truth
        assert decision.report["kept"] == len(rows) - len(truth)


def test_shards_signed_otherwise_and_repeated_shards_are_refused_in_words() -> None:
    table = sign_file(make(["a b c d e f g"]), DedupConfig())["signatures"]
    with pytest.raises(ValueError, match=r"was signed with .*sign it again"):
        decide([table], DedupConfig(ngram=3))
    with pytest.raises(ValueError, match="another number of bands"):
        decide([table.replace_schema_metadata(None)], DedupConfig(bands=9, rows=2))
    with pytest.raises(ValueError, match="appears twice"):
        decide([table, table], DedupConfig())


def test_components_are_those_of_a_graph_search() -> None:
    generator = np.random.default_rng(0)
    for count, links in ((1, 0), (50, 20), (300, 200), (300, 900)):
        first, second = generator.integers(0, count, (2, links))
        group = list(range(count))
        for _ in range(count):
            for a, b in zip(first.tolist(), second.tolist(), strict=True):
                group[a] = group[b] = min(group[a], group[b])
        parent = np.arange(count)
        join_pairs(parent, first, second)
        settle_roots(parent)
        assert parent.tolist() == group


# A budget of memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_any_budget_of_memory_gives_the_same_tables(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for seed in range(6) for text in families(seed)]
    documents, config = make(texts), DedupConfig(bucket_limit=4, bands=40, rows=2)
    paths = []
    for k in range(3):
        paths.append(tmp_path / f"{k}.parquet")
        pq.write_table(sign_file(documents.slice(k * 700, 700), config)["signatures"], paths[-1])
    plenty = decide(paths, config)
    assert plenty.spilled == 0
    check(documents, plenty, config)
    compared: list[int] = []
    meetings = decide_module.meetings_of

    def count(bands: Any, rows: Any, *rest: Any) -> Any:
        compared.append(len(rows))
        return meetings(bands, rows, *rest)

    monkeypatch.setattr(decide_module, "meetings_of", count)
    tight = decide(paths, config, threads, memory=100_000, folder=tmp_path)
    assert len(compared) > 3, "the budget holds a part of the groups at a time"
    distinct = len({shingles(text, 5) for text in texts})
    assert len(compared) >= distinct * 40 * 16 // (100_000 // 4), "a batch takes a quarter of it at most, bands alone"
    assert tight.spilled > distinct * 40 * 8, "the bands lie in a file, and shingles"
    assert tight.found.spilled > 16 * 200, "and pairs"
    assert list(tmp_path.glob(".spill-*")) == [], "and the files are gone"
    assert tight.pairs.equals(plenty.pairs)
    assert tight.duplicates.equals(plenty.duplicates)
    assert tight.report == plenty.report


def test_shingles_of_long_texts_are_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = make([" ".join(sentence(random.Random(k // 2), 2000)) for k in range(40)])
    path = tmp_path / "signed.parquet"
    pq.write_table(sign_file(documents, DedupConfig())["signatures"], path)
    sizes: list[int] = []
    touched = Spill.touched

    def note(self: Spill, size: int) -> None:
        sizes.append(size)
        touched(self, size)

    monkeypatch.setattr(Spill, "touched", note)
    monkeypatch.setattr(signed_module, "_BYTES", 100_000)
    decision = decide([path], DedupConfig())
    assert decision.report["kept"] == 20
    shingled = [size for size in sizes if size > 40 * 20 * 8]
    assert sum(shingled) > 40 * 1900 * 8
    assert max(shingled) < 200_000
    assert decision.duplicates.equals(run(documents).duplicates)


def test_what_was_spilled_is_read_back_as_it_was(tmp_path: Path) -> None:
    with Spill(1000, 10, tmp_path) as spill:
        small, large = spill.empty(100, np.uint8), spill.empty((3, 1000), np.int64)
        assert spill.spilled == large.nbytes
        small[:], large[:] = 7, np.arange(3000).reshape(3, 1000)
        spill.touched(11)
        assert np.array_equal(large, np.arange(3000).reshape(3, 1000))
        assert small.sum() == 700
    assert list(tmp_path.iterdir()) == []


# Addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("http://www.Example.com/A/", "example.com/A"),
        ("https://example.com/A#part", "example.com/A"),
        ("https://user:secret@example.com./A?utm_source=x", "example.com/A"),
        ("https://example.com/A?utm_source=x&id=3", "example.com/A?id=3"),
        ("https://example.com/A?id=3&utm_source=x&REF", "example.com/A?id=3"),
        ("https://example.com/?reference=1&feeds=2/", "example.com/?reference=1&feeds=2/"),
        ("https://example.com/?ref=home", "example.com"),
        ("https://例子.测试/页?feed=rss", "例子.测试/页"),
        ("repository@1/path", None),
        ("https://", None),
        ("", None),
    ],
)
def test_an_address_is_normalised_and_no_two_pages_become_one(uri: str, normal: str | None) -> None:
    assert normalise_url(uri) == normal


def test_of_the_versions_at_one_address_the_first_stays_and_nothing_else_changes() -> None:
    generator = random.Random(5)
    texts = [" ".join(sentence(generator)) for _ in range(6)]
    texts[4] = texts[0] + " and one word more"  # near the first, which its own address replaces
    uris = ["https://a.org/x", "http://www.a.org/x/", "https://a.org/x?ref=1", "https://b.org", "https://c.org", "none"]
    created = [DAY + timedelta(days=k) for k in (3, 2, 1, 0, 4, 5)]
    documents = make(texts, uri=uris, created=created)
    ids = documents["id"].to_pylist()
    config = DedupConfig(url=True)
    rows = {row["id"]: row for row in run(documents, config).duplicates.to_pylist()}
    assert [rows[i]["level"] for i in ids] == ["url", "url", None, None, None, None]
    assert rows[ids[0]]["duplicate_of"] == rows[ids[1]]["duplicate_of"] == ids[2]
    assert rows[ids[0]]["similarity"] is None
    without = run(documents, DedupConfig())
    check(documents, without, DedupConfig())
    assert kept(without) == sorted(i for k, i in enumerate(ids) if k != 4)


def test_what_stands_for_an_address_is_named_even_where_a_text_replaced_it() -> None:
    generator = random.Random(6)
    page, other = " ".join(sentence(generator)), " ".join(sentence(generator))
    documents = make(
        [page, page, other],
        uri=["https://first.org", "https://a.org", "https://www.a.org/"],
        created=[DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)],
    )
    ids = documents["id"].to_pylist()
    decision = run(documents, DedupConfig(url=True))
    rows = {row["id"]: row for row in decision.duplicates.to_pylist()}
    assert [rows[i]["duplicate_of"] for i in ids] == [None, ids[0], ids[0]]
    assert [rows[i]["level"] for i in ids] == [None, "exact", "url"]
    assert [decision.report[name] for name in ("kept", "url", "exact", "near")] == [1, 1, 1, 0]


# Later crawls, and sources that go ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_later_crawl_is_decided_as_all_at_once_and_its_documents_name_earlier_ones(seed: int) -> None:
    texts = families(seed, 120)
    half = len(texts) // 2
    documents = make(texts, source=["one"] * half + ["two"] * (len(texts) - half))
    config = DedupConfig(sources=("one", "two"))
    first = sign_file(documents.slice(0, half), config)["signatures"]
    second = sign_file(documents.slice(half), config)["signatures"]
    before = {row["id"]: row for row in decide([first], config).duplicates.to_pylist()}
    both = decide([first, second], config)
    check(documents, both, config)
    assert both.duplicates.equals(run(documents, config).duplicates), "the crawls' own shards say all there is to know"
    rows = {row["id"]: row for row in both.duplicates.to_pylist()}
    assert {id: rows[id] for id in before} == before, "what an earlier crawl keeps, a later one doesn't change"
    later = [row["duplicate_of"] for id, row in rows.items() if id not in before and row["duplicate_of"]]
    assert any(id in before for id in later)


def test_without_a_source_its_former_partners_are_decided_anew() -> None:
    generator = random.Random(9)
    page = " ".join(sentence(generator))
    documents = make([page, page + " again", page + " once more"], source=["gone", "a", "b"])
    ids = documents["id"].to_pylist()
    config = DedupConfig(sources=("gone", "a", "b"))
    shards = [sign_file(documents.slice(k, 1), config)["signatures"] for k in range(3)]
    rows = {row["id"]: row["duplicate_of"] for row in decide(shards, config).duplicates.to_pylist()}
    assert [rows[i] for i in ids] == [None, ids[0], ids[0]]
    rows = {row["id"]: row["duplicate_of"] for row in decide(shards[1:], config).duplicates.to_pylist()}
    assert [rows[i] for i in ids[1:]] == [None, ids[1]]


# Scripts without spaces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alphabet",
    ["春眠不覚暁処処聞啼鳥夜来風雨声花落知多少", "いろはにほへとちりぬるをアイウエオ", "กขคงจชซญดตถทนบปผพฟมยรลวสหอ"],
)
def test_scripts_without_spaces_are_compared_by_character(alphabet: str) -> None:
    generator = random.Random(3)
    base = generator.choices(alphabet, k=300)
    changed = [*base[:150], "字", *base[151:]]
    texts = ["".join(base), "".join(changed), "".join(generator.choices(alphabet, k=300))]
    documents = make(texts)
    decision = run(documents)
    check(documents, decision, DedupConfig())
    assert decision.report["near"] == 1
    assert similarity(texts[0], texts[1]) > 0.9
