"""Duplicates in meaning: embeddings as by hand, decisions as by comparing every pair, and what is promised of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import world
from pydantic import ValidationError

from datalake.dedup.config import DedupConfig, SemanticConfig
from datalake.dedup.decide import Decision, decide
from datalake.dedup.meaning import semantic as semantic_module
from datalake.dedup.meaning.clusters import SCALE, cluster, least_product
from datalake.dedup.meaning.embed import COLUMNS, embed, embed_batches, embedding_schema
from datalake.dedup.schema import DUPLICATES, EMBEDDINGS, PAIRS
from datalake.dedup.texts.sign import sign_file
from datalake.dedup.what_if import asks_of_meaning, check_threshold, removed, tell, tell_of_meaning
from datalake.document import Document, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.tables import DOCUMENTS, to_table

Vectors = npt.NDArray[np.float64]
POSITIONS = 48


# Embeddings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.transformer(tmp_path_factory.mktemp("models") / "bert", tokens=POSITIONS)


def of(path: Path, **more: Any) -> SemanticConfig:
    return SemanticConfig(model=str(path), **more)


def texts() -> list[str]:
    draw = random.Random(1)
    some = [" ".join(world.prose(n).split()[: draw.randrange(1, 80)]) for n in range(40)]
    return [*some, "🙂", "שלום", "...", "\x00", "a" * 5000, "river " * 1000]


def by_hand(path: Path, text: str, pooling: str, most: int = POSITIONS) -> Vectors:
    """One text alone, without padding: its states from Transformers, pooled and made of length 1 in float64."""
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path)
    model: Any = transformers.AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        tokens = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
        states = np.asarray(model(**tokens).last_hidden_state[0], np.float64)
    pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return pooled / np.sqrt(np.sum(pooled**2))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize(("family", "side"), [("bert", "right"), ("llama", "right"), ("llama", "left")])
def test_embeddings_are_those_of_each_text_alone(tmp_path: Path, family: str, side: str, pooling: str) -> None:
    path = world.transformer(tmp_path / "model", family=family, tokens=POSITIONS, padding_side=side)
    config = of(path, pooling=pooling)
    some = texts()
    found = embed(some, config)
    for text, vector in list(zip(some, found, strict=True))[::4]:
        assert vector is not None
        assert np.abs(vector - by_hand(path, text, pooling)).max() < 1e-5
    for k in range(0, len(some), 9):
        [alone] = embed([some[k]], config)
        assert alone is not None
        assert found[k] is not None
        assert np.abs(alone - found[k]).max() < 1e-5


def test_odd_texts_have_an_embedding_and_blank_ones_none(folder: Path) -> None:
    draw = random.Random(3)
    odd = [draw.randbytes(300).decode("utf-8", "surrogateescape") for _ in range(5)]
    some = ["", " \n\t", "\ud800 lone", "river " * 1_700_000, "?!...", "שלום עולם", "👩‍👩‍👧 " * 50, *odd]
    found = embed(some, of(folder))
    assert [vector is None for vector in found] == [True, True] + [False] * (len(some) - 2)
    for vector in found[2:]:
        assert vector is not None
        assert abs(np.linalg.norm(vector) - 1) < 1e-5
    assert embed([], of(folder)) == []
    assert embed([" "], of(folder)) == [None]


def test_what_stands_behind_the_limit_of_tokens_is_not_read(folder: Path) -> None:
    start, config = "the river teacher crossed a garden", of(folder, max_tokens=8)
    [one], [other], [more] = (embed([start + end], config) for end in ("", " because every letter", " had been left"))
    assert one is not None
    assert other is not None
    assert more is not None
    assert np.abs(one - other).max() < 1e-5
    assert np.abs(more - other).max() < 1e-5
    assert np.abs(other - by_hand(folder, start, "mean", 8)).max() < 1e-5


def test_stored_embeddings_are_little_endian_float16_by_id(folder: Path) -> None:
    some = [*texts(), ""]
    documents = make(some)
    config = of(folder)
    [batch] = embed_batches(documents.select(COLUMNS).combine_chunks().to_batches(), config)
    assert batch.schema.remove_metadata() == EMBEDDINGS
    assert batch.schema.metadata == embedding_schema(config).metadata
    assert batch.column("id").to_pylist() == documents["id"].to_pylist()
    stored = batch.column("embedding").to_pylist()
    assert stored[-1] is None
    whole = np.array(embed(some[:-1], config), np.float64)
    halves = np.array([np.frombuffer(value, "<f2") for value in stored[:-1]], np.float64)
    assert halves.shape == (len(some) - 1, 16)
    length = np.linalg.norm(halves, axis=1)
    assert np.abs(halves @ halves.T / length[:, None] / length - whole @ whole.T).max() < 1e-3


def test_documents_in_languages_the_model_does_not_read_have_no_embedding(folder: Path) -> None:
    some = texts()[:4]
    batches = make(some, language=["en", "el", "und", "zh"]).select(COLUMNS).combine_chunks().to_batches()
    [every] = embed_batches(batches, of(folder))
    [batch] = embed_batches(batches, of(folder, languages=("zh", "en")))
    stored = batch.column("embedding").to_pylist()
    assert [value is None for value in stored] == [False, True, True, False]
    assert [stored[0], stored[3]] == [every.column("embedding")[k].as_py() for k in (0, 3)]
    assert of(folder, languages=("zh", "en")).embedding == of(folder, languages=("en", "zh")).embedding
    with pytest.raises(ValidationError, match=r"'english' is no code of a language: name it"):
        of(folder, languages=("english",))


def test_models_are_versioned_by_content_and_changed_or_wrong_ones_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert fingerprint(of(copy)) == fingerprint(of(folder))
    assert of(folder, threshold=0.7, probes=3, seed=5).embedding == of(folder).embedding
    for change in ({"pooling": "cls"}, {"max_tokens": 9}, {"languages": ("en",)}):
        assert of(folder, **change).embedding != of(folder).embedding
    config = of(copy)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert of(copy).embedding != config.embedding
    with pytest.raises(UserError, match="has changed since"):
        embed(["a"], config)
    (copy / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no encoder .*correct `deduplicate\.semantic`, model") as caught:
        embed(["a"], of(copy))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError, match=r"there is no folder.*named with its commit"):
        of(Path("no/such/folder"))


def test_a_model_with_a_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    import transformers

    path = Path(shutil.copytree(folder, tmp_path / "t5"))
    shape: dict[str, Any] = {"vocab_size": 900, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model: Any = transformers.T5Model(transformers.T5Config(**shape))
    model.save_pretrained(path)
    with pytest.raises(UserError, match="name an encoder"):
        embed(["a"], of(path))


# Decisions ---------------------------------------------------------------------------------------------------------


def make(some: list[str], **columns: list[Any]) -> pa.Table:
    rows = [
        {"id": document_id("test", "a", str(k)), "source": "table", "uri": f"a#{k}"}
        | {name: values[k] for name, values in columns.items()}
        for k in range(len(some))
    ]
    return to_table([Document(text=text, **row) for text, row in zip(some, rows, strict=True)], DOCUMENTS)


def strangers(count: int, seed: int = 0) -> list[str]:
    """Texts without a word in common, each of another length: the longer one goes first."""
    draw = random.Random(seed)
    lengths = draw.sample(range(count), count)
    return [" ".join(f"w{k}x{n}" for n in range(6)) + "." * lengths[k] for k in range(count)]


def as_table(ids: list[bytes], vectors: list[Vectors | None], marked: SemanticConfig | None = None) -> pa.Table:
    values = [None if vector is None else np.asarray(vector).astype("<f2").tobytes() for vector in vectors]
    table = pa.table({"id": pa.array(ids, pa.binary(16)), "embedding": pa.array(values, pa.binary())})
    return table.cast(EMBEDDINGS if marked is None else embedding_schema(marked))


@pytest.fixture
def config(folder: Path) -> DedupConfig:
    return DedupConfig(semantic=of(folder, threshold=0.9))


def asking(config: DedupConfig, **change: Any) -> DedupConfig:
    assert config.semantic is not None
    return config.model_copy(update={"semantic": config.semantic.model_copy(update=change)})


def run(documents: pa.Table, vectors: list[Vectors | None], config: DedupConfig, **more: Any) -> Decision:
    signed = [sign_file(documents, config)["signatures"]]
    return decide(signed, config, embeddings=[as_table(documents["id"].to_pylist(), vectors)], **more)


def unit(values: Vectors) -> Vectors:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def clouds(count: int, seed: int, dimension: int = 24, spread: float = 0.12, centres: int | None = None) -> Vectors:
    """Unit vectors in clouds of every density, chains among them."""
    draw = np.random.default_rng(seed)
    middle = unit(draw.normal(size=(centres or max(2, count // 12), dimension)))
    vectors = middle[draw.integers(len(middle), size=count)]
    vectors = vectors + draw.normal(size=vectors.shape) * spread * draw.uniform(0.1, 1, size=(count, 1))
    for k in range(1, count):
        if draw.random() < 0.2:  # a step away from another one
            vectors[k] = vectors[draw.integers(k)] + draw.normal(size=dimension) * 0.05
    return unit(vectors).astype(np.float16).astype(np.float64)


def cosine(a: Vectors, b: Vectors) -> float:
    return float(min(1.0, np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))))


def greedy(order: list[bytes], vectors: dict[bytes, Vectors], threshold: float) -> dict[bytes, tuple[bytes, float]]:
    """The definition: each document against all that were kept before it."""
    lengths = np.array([np.sqrt(np.sum(vectors[id] ** 2)) for id in order])
    units = np.array([vectors[id] for id in order]) / lengths[:, None]
    keep: list[int] = []
    gone: dict[bytes, tuple[bytes, float]] = {}
    for k, id in enumerate(order):
        alike = np.sum(units[keep] * units[k], axis=1).round(14)
        if len(alike) and alike.max() >= threshold:
            gone[id] = order[keep[int(alike.argmax())]], float(alike.max())
        else:
            keep.append(k)
    return gone


def by_id(documents: pa.Table, vectors: Vectors) -> dict[bytes, Vectors]:
    return dict(zip(documents["id"].to_pylist(), vectors, strict=True))


def in_order(documents: pa.Table) -> list[bytes]:
    return [row["id"] for row in sorted(documents.to_pylist(), key=lambda row: (-len(row["text"]), row["id"]))]


def decided(decision: Decision) -> dict[bytes, tuple[bytes, float]]:
    rows = decision.duplicates.to_pylist()
    return {row["id"]: (row["duplicate_of"], row["similarity"]) for row in rows if row["level"] == "semantic"}


def same(found: dict[bytes, tuple[bytes, float]], expected: dict[bytes, tuple[bytes, float]]) -> None:
    assert {id: of for id, (of, _) in found.items()} == {id: of for id, (of, _) in expected.items()}
    for id, (_, similarity) in found.items():
        assert similarity == pytest.approx(expected[id][1], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.6, 0.9, 0.99])
def test_up_to_some_thousand_documents_are_compared_all_with_all(
    config: DedupConfig, seed: int, threshold: float
) -> None:
    vectors, documents = clouds(400, seed), make(strangers(400, seed))
    decision = run(documents, list(vectors), asking(config, threshold=threshold))
    expected = greedy(in_order(documents), by_id(documents, vectors), threshold)
    assert len(expected) > 10
    same(decided(decision), expected)
    assert decision.report["semantic"] == len(expected)
    assert decision.report["kept"] == 400 - len(expected)
    assert decision.report["clusters"] == 1
    rows = decision.pairs.to_pylist()
    assert decision.pairs.schema == PAIRS
    assert decision.duplicates.schema == DUPLICATES
    assert {(row["b"], row["a"], row["level"]) for row in rows} == {
        (id, of, "semantic") for id, (of, _) in expected.items()
    }
    assert [(row["a"], row["b"]) for row in rows] == sorted((row["a"], row["b"]) for row in rows)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("clusters", "block", "width"), [(40, 2048, 4096), (40, 7, 11), (150, 3, 100), (400, 16, 5)])
def test_with_enough_probes_clusters_miss_nothing(
    config: DedupConfig, seed: int, clusters: int, block: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic_module, "_BLOCK", block)
    monkeypatch.setattr(semantic_module, "_WIDTH", width)
    vectors, documents = clouds(600, seed), make(strangers(600, seed))
    decision = run(documents, list(vectors), asking(config, clusters=clusters, probes=clusters))
    same(decided(decision), greedy(in_order(documents), by_id(documents, vectors), 0.9))
    assert decision.report["probes_cut_short"] == 0
    assert decision.report["clusters"] == clusters


@pytest.mark.parametrize("probes", [0, 1, 2, 8])
def test_with_few_probes_whatever_goes_has_a_kept_one_and_recall_grows(config: DedupConfig, probes: int) -> None:
    """Recall here: 0.912 without probes, 0.978, 0.993 and 1.000 with 1, 2 and 8."""
    vectors, documents = clouds(2000, 7, dimension=6, spread=0.5, centres=40), make(strangers(2000))
    decision = run(documents, list(vectors), asking(config, clusters=45, probes=probes))
    told, vector = decided(decision), by_id(documents, vectors)
    order = {id: k for k, id in enumerate(in_order(documents))}
    for id, (partner, similarity) in told.items():
        assert partner not in told
        assert order[partner] < order[id]
        assert similarity == pytest.approx(cosine(vector[partner], vector[id]), abs=1e-12)
        assert similarity >= 0.9
    expected = greedy(in_order(documents), vector, 0.9)
    recall = len(told.keys() & expected.keys()) / len(expected)
    assert recall >= {0: 0.88, 1: 0.96, 2: 0.98, 8: 0.995}[probes]


def crowds(count: int, seed: int, dimension: int = 24) -> Vectors:
    """Unit vectors in three crowds, whose members are closer to each other than 0.9 or just not, and copies of some."""
    draw = np.random.default_rng(seed)
    vectors = unit(draw.normal(size=(3, dimension)))[draw.integers(3, size=count)]
    vectors = unit(vectors + draw.normal(size=vectors.shape) / np.sqrt(dimension) * draw.uniform(0, 0.6, (count, 1)))
    copies = np.flatnonzero(draw.random(count) < 0.1)
    vectors[copies] = vectors[draw.integers(count, size=len(copies))]
    return vectors.astype(np.float16).astype(np.float64)


TILES = [(2048, 256, 4096), (60, 7, 200), (300, 1000, 37), (100_000, 64, 100_000)]


@pytest.mark.parametrize(("clusters", "probes"), [(1, 0), (12, 12), (40, 2)])
def test_crowds_are_decided_the_same_in_tiles_of_any_size(
    config: DedupConfig, clusters: int, probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, documents = crowds(2500, clusters), make(strangers(2500))
    config, decisions = asking(config, clusters=clusters, probes=probes), []
    for tiles in TILES if clusters == 12 else TILES[:1] + TILES[2:3]:
        for name, size in zip(("_BLOCK", "_ROWS", "_WIDTH"), tiles, strict=True):
            monkeypatch.setattr(semantic_module, name, size)
        decisions.append(run(documents, list(vectors), config))
    if probes != 2:
        same(decided(decisions[0]), greedy(in_order(documents), by_id(documents, vectors), 0.9))
    assert decisions[0].report["semantic"] > 1500
    for other in decisions[1:]:
        assert other.duplicates.equals(decisions[0].duplicates)
        assert other.pairs.equals(decisions[0].pairs)


def test_equal_embeddings_all_go_but_one(config: DedupConfig) -> None:
    documents = make(strangers(5000))
    vector = clouds(2, 1, dimension=384)[0]
    for clusters in (None, 9):
        decision = run(documents, [vector] * 5000, asking(config, threshold=1.0, clusters=clusters))
        first, *others = in_order(documents)
        assert decided(decision) == dict.fromkeys(others, (first, 1.0))


def in_their_order(a: Vectors, b: Vectors) -> float:
    """The cosine as it is stated: products of float16 numbers, which are exact, added one after the other."""
    total, squares = 0.0, [0.0, 0.0]
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        total, squares = total + x * y, [squares[0] + x * x, squares[1] + y * y]
    return float(min(total / np.sqrt(squares[0] * squares[1]), 1.0))


def blurred(patch: pytest.MonkeyPatch, errors: Callable[[tuple[int, ...]], Vectors]) -> None:
    """Products wrong by so many times what they may be wrong by."""
    exact = semantic_module._compare

    def compare(scores: Any, slack: float, *more: Any) -> None:
        exact((scores + slack * errors(scores.shape)).astype(np.float32), slack, *more)

    patch.setattr(semantic_module, "_compare", compare)


@pytest.mark.parametrize("error", [-0.9, 0.0, 0.9])
def test_a_pair_at_the_threshold_is_decided_by_its_cosine_alone(
    config: DedupConfig, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    blurred(monkeypatch, lambda shape: np.full(shape, error))
    documents = make(strangers(3))
    first, second, third = in_order(documents)
    for seed in range(5):
        one, other = (v.astype(np.float16).astype(np.float64) for v in clouds(2, seed, 384, 0.03, 1))
        vector = {first: one, second: other, third: other}
        vectors = [vector[id] for id in documents["id"].to_pylist()]
        cosine = in_their_order(one, other)
        assert 0.3 < cosine < 0.999
        for threshold in (cosine, np.nextafter(cosine, 0)):
            expected = {second: (first, cosine), third: (first, cosine)}
            assert decided(run(documents, vectors, asking(config, threshold=float(threshold)))) == expected
        above = asking(config, threshold=float(np.nextafter(cosine, 1)))
        assert decided(run(documents, vectors, above)) == {third: (second, 1.0)}


def test_products_wrong_within_what_they_may_be_change_nothing(
    config: DedupConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, documents = crowds(2500, 5, dimension=8), make(strangers(2500))
    one = run(documents, list(vectors), asking(config, clusters=5, probes=5))
    draw = np.random.default_rng(1)
    blurred(monkeypatch, lambda shape: draw.uniform(-0.9, 0.9, shape))
    other = run(documents, list(vectors), asking(config, clusters=5, probes=5))
    assert other.duplicates.equals(one.duplicates)


@pytest.mark.parametrize("dimension", [1, 2, 24, 384, 4096])
def test_products_in_float32_are_as_close_to_cosines_as_is_said(dimension: int) -> None:
    draw = np.random.default_rng(dimension)
    vectors = draw.normal(size=(60, dimension)) * 10.0 ** draw.integers(-4, 4, (60, 1))
    vectors[1], vectors[2:30] = 1.0, vectors[0] + 0.3 * vectors[2:30]
    halves = np.clip(vectors, -60_000, 60_000).astype(np.float16)
    halves[halves[:, 0] == 0, 0] = np.float16(6e-8)  # the least there is
    squares = semantic_module._squares(halves.view(np.uint16), semantic_module._NUMBERS)
    units = semantic_module._units(semantic_module._Vectors(halves.view(np.uint16), squares), np.arange(60))
    exact = halves.astype(np.float64)
    for products in (units @ units.T, np.array([[np.add.reduce(a * b) for b in units] for a in units])):
        for i in range(0, 60, 7):
            for j in range(60):
                error = abs(products[i, j] - in_their_order(exact[i], exact[j]))
                assert error < semantic_module.slack(dimension) / 2


def test_an_embedding_that_is_no_numbers_is_refused(config: DedupConfig) -> None:
    documents = make(strangers(4))
    for damage in (np.nan, np.inf, -np.inf):
        vectors: list[Vectors | None] = [np.ones(3), np.ones(3), np.array([0.1, damage, 0.2]), None]
        told = documents["id"][2].as_py().hex() + r" has .*NaN.*: name another model"
        with pytest.raises(UserError, match=told) as caught:
            run(documents, vectors, config)
        assert "\n" not in str(caught.value)


def test_a_chain_does_not_remove_its_ends(config: DedupConfig) -> None:
    angles = np.arange(20) * 0.3  # cosines of neighbours 0.955, of those two apart 0.825
    vectors = np.stack((np.cos(angles), np.sin(angles)), 1)
    documents = make([" ".join(f"w{k}x{n}" for n in range(6)) + "." * (100 - k) for k in range(20)])
    ids = documents["id"].to_pylist()
    gone = decided(run(documents, list(vectors), config))
    expected = greedy(ids, by_id(documents, vectors.astype(np.float16).astype(np.float64)), 0.9)
    assert {id: of for id, (of, _) in gone.items()} == {id: of for id, (of, _) in expected.items()}
    assert 8 <= len(gone) <= 12


def test_of_two_kept_ones_as_close_the_first_is_named(config: DedupConfig) -> None:
    for seed in range(4):
        documents = make(strangers(3, seed))
        order = in_order(documents)
        angle = dict(zip(order, (-18, 18, 0), strict=True))
        vectors = at(*(angle[id] for id in documents["id"].to_pylist()))
        assert {id: of for id, (of, _) in decided(run(documents, vectors, config)).items()} == {order[2]: order[0]}


def test_order_of_shards_memory_and_threads_change_nothing(config: DedupConfig, tmp_path: Path) -> None:
    vectors, documents = clouds(900, 3), make(strangers(900))
    config = asking(config, clusters=30, probes=2)
    ids = documents["id"].to_pylist()
    one = run(documents, list(vectors), config)
    assert one.report["probes_cut_short"] > 0
    for seed in range(3):
        draw = random.Random(seed)
        rows = draw.sample(range(900), 900)
        signed = [sign_file(documents.take(rows[k : k + 97]), config)["signatures"] for k in range(0, 900, 97)]
        rows = draw.sample(range(900), 900)
        parts = [rows[k : k + 41] for k in range(0, 900, 41)]
        embedded = [as_table([ids[k] for k in part], [vectors[k] for k in part], config.semantic) for part in parts]
        other = decide(signed, config, seed + 1, 1000, tmp_path, embeddings=embedded)
        assert other.spilled > 0
        assert other.duplicates.equals(one.duplicates)
        assert other.pairs.equals(one.pairs)
        assert other.report == one.report


def family(word: str, copies: int = 0, near: int = 0) -> list[str]:
    """A text of 60 words, copies of it in capitals and near duplicates of it, which come after it."""
    words = [f"{word}{k}" for k in range(60)]
    return [
        "   ".join(words) + "." * 300,
        *[" ".join(words).upper() + "." * 300] * copies,
        *(" ".join([*words, f"more{k}"]) + "." * (100 - k) for k in range(near)),
    ]


def at(*degrees: float) -> list[Vectors | None]:
    return [np.array([np.cos(np.radians(d)), np.sin(np.radians(d))]) for d in degrees]


def test_a_document_goes_with_all_that_repeat_its_text_or_stays(config: DedupConfig) -> None:
    first = ["first text of six words here" + "." * 900]
    documents = make(first + family("a", copies=2, near=1))
    ids = documents["id"].to_pylist()
    # All of the family within 25.8 degrees: the whole goes, each names the one that is kept.
    decision = run(documents, at(0, 20, 20, 10, 25), config)
    rows = {row["id"]: row for row in decision.duplicates.to_pylist()}
    assert [rows[id]["duplicate_of"] for id in ids] == [None, ids[0], ids[0], ids[0], ids[0]]
    assert [rows[id]["level"] for id in ids[1:]] == ["semantic"] * 4
    for id, angle in zip(ids[1:], (20, 20, 10, 25), strict=True):
        assert rows[id]["similarity"] == pytest.approx(np.cos(np.radians(angle)), abs=1e-3)
    assert decision.report["semantic"] == 4
    assert decision.report["semantic_copies"] == 3
    assert (decision.report["exact"], decision.report["near"], decision.report["kept"]) == (0, 0, 1)
    # One of the family is too far away, or has no embedding: the family stays by its first.
    for vectors in (at(0, 20, 20, 10, 27), [*at(0, 20, 20, 10), None]):
        decision = run(documents, vectors, config)
        rows = {row["id"]: row for row in decision.duplicates.to_pylist()}
        assert [rows[id]["duplicate_of"] for id in ids] == [None, None, ids[1], ids[1], ids[1]]
        assert [rows[id]["level"] for id in ids[2:]] == ["exact", "exact", "near"]
        assert decision.report["semantic"] == 0
    # The nearest kept one doesn't answer for all of the family, a farther one does.
    documents = make(["other text of six words there" + "." * 990, *first, *family("a", near=1)])
    ids = documents["id"].to_pylist()
    rows = {row["id"]: row for row in run(documents, at(-40, 0, -18, 5), config).duplicates.to_pylist()}
    assert [rows[id]["duplicate_of"] for id in ids] == [None, None, ids[1], ids[1]]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_goes_has_a_kept_one_that_its_text_or_meaning_answers_for(config: DedupConfig, seed: int) -> None:
    draw = random.Random(seed)
    some: list[str] = []
    for k in range(60):
        some += family(f"f{k}x", draw.choice((0, 0, 1, 3)), draw.choice((0, 0, 1, 2)))
    some += ["", "...", "...", "!!"]
    draw.shuffle(some)
    urls = [f"https://example.org/{draw.randrange(200)}" for _ in some]
    documents = make(some, uri=urls, source=["common_crawl"] * len(some))
    noise = np.random.default_rng(seed)
    middles = {word: noise.normal(size=3) for word in sorted({text.split("x")[0].lower() for text in some})}
    vectors: list[Vectors | None] = []
    for text in some:  # families hold together, more or less
        middle = middles[text.split("x")[0].lower()]
        near = unit(middle + noise.normal(size=3) * draw.choice((0.01, 0.01, 0.1, 0.4)))
        vectors.append(None if draw.random() < 0.03 else near)
    for url, clusters in ((False, None), (True, 8)):
        changed = asking(config, clusters=clusters).model_copy(update={"url": url})
        decision = run(documents, vectors, changed)
        text_only = run(documents, vectors, changed.model_copy(update={"semantic": None}))
        vector = dict(zip(documents["id"].to_pylist(), vectors, strict=True))
        before = {row["id"]: row for row in text_only.duplicates.to_pylist()}
        rows = {row["id"]: row for row in decision.duplicates.to_pylist()}
        assert decision.report["semantic"] > decision.report["semantic_copies"] > 0
        assert min(decision.report["exact"], decision.report["near"]) > 0
        for id, row in rows.items():
            partner = row["duplicate_of"]
            if partner is None:
                assert before[id]["duplicate_of"] is None, "the texts' decisions stand"
                continue
            assert rows[partner]["duplicate_of"] is None
            if row["level"] == "semantic":
                one, other = vector[id], vector[partner]
                assert one is not None
                assert other is not None
                assert row["similarity"] >= 0.9
                halves = (np.asarray(v).astype(np.float16).astype(np.float64) for v in (one, other))
                assert row["similarity"] == pytest.approx(cosine(*halves), abs=1e-12)
            elif row["level"] != "url":
                assert row == before[id]
        told = decision.report
        assert told["kept"] + told.get("url", 0) + told["exact"] + told["near"] + told["semantic"] == len(some)
        texts_of = [row for row in decision.pairs.to_pylist() if row["level"] != "semantic"]
        assert texts_of == text_only.pairs.to_pylist()
        levels_of = {row["level"] for row in rows.values() if row["duplicate_of"] is not None}
        for level in levels_of - {"url"}:
            assert told[level] == sum(row["level"] == level for row in rows.values())


def test_documents_without_words_or_embedding_take_no_part(config: DedupConfig) -> None:
    documents = make(["one text of six words here", "...", "!!!", "two texts of six words there", "a third one"])
    vectors = [*at(0, 0, 0), None, np.zeros(2)]
    decision = run(documents, vectors, config)
    assert decision.report["semantic"] == 0
    assert decision.report["not_embedded"] == 2
    assert run(documents, [None] * 5, config).report["kept"] == 5
    assert run(documents.slice(0, 0), [], config).report["kept"] == 0
    nothing = decide([sign_file(documents, config)["signatures"]], config)
    assert (nothing.report["kept"], nothing.report["not_embedded"]) == (5, 3)


def test_shards_of_other_embeddings_are_refused(config: DedupConfig) -> None:
    documents = make(strangers(4))
    signed, ids = [sign_file(documents, config)["signatures"]], documents["id"].to_pylist()
    other = asking(config, pooling="cls").semantic
    with pytest.raises(ValueError, match=r'embedded with .*"cls".*embed it again'):
        decide(signed, config, embeddings=[as_table(ids, at(0, 1, 2, 3), other)])
    parts = [as_table(ids[:2], at(0, 1)), as_table(ids[2:], [np.ones(3)] * 2)]
    with pytest.raises(ValueError, match="different dimensions"):
        decide(signed, config, embeddings=parts)


# Clusters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [2, 24, 384, 4096])
def test_rounded_products_are_exact_and_never_too_small(dimension: int) -> None:
    draw = np.random.default_rng(dimension)
    vectors = unit(draw.normal(size=(300, dimension)))
    vectors[1] = unit(np.ones(dimension))
    vectors[2:150] = unit(vectors[0] + 0.3 * vectors[2:150])
    rounded = np.rint(vectors * SCALE).astype(np.float32)
    products = rounded @ rounded.T
    assert np.array_equal(products, rounded.astype(np.int64) @ rounded.astype(np.int64).T)
    cosines = vectors @ vectors.T
    for threshold in (0.1, 0.5, 0.9, 0.99):
        assert products[cosines >= threshold].min(initial=np.inf) >= least_product(threshold, dimension)


def test_vectors_belong_to_the_nearest_centre_and_clusters_hold_together() -> None:
    vectors = clouds(3000, 5, centres=20, spread=0.02)
    rounded = np.rint(vectors * SCALE).astype(np.float32)
    found = cluster(lambda rows: rounded[rows], 3000, 20, 3, 0.95, 1)
    assert (found.total, len(found.own)) == (20, 3000)
    within = [rounded[found.own == k].sum(0) for k in range(20)]
    whole = sum(float(np.linalg.norm(one)) for one in within)
    assert whole > 0.8 * 3000 * SCALE, "far above that of one cluster"
    assert len(set(zip(found.visitor.tolist(), found.visited.tolist(), strict=True))) == len(found.visitor)
    assert (found.own[found.visitor] != found.visited).all()
    again = cluster(lambda rows: rounded[rows], 3000, 20, 3, 0.95, 1)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


# What if -----------------------------------------------------------------------------------------------------------


def test_another_threshold_of_texts_is_answered_without_the_pairs_of_meaning(config: DedupConfig) -> None:
    some = [text for k in range(30) for text in family(f"f{k}x", k % 2, k % 3)]
    documents = make(some)
    decision = run(documents, list(clouds(len(some), 1, dimension=4, spread=0.3)), config)
    assert decision.report["semantic"] > 5
    bands = {"bands": 60, "rows": 2}
    config = config.model_copy(update=bands)
    decision = run(documents, list(clouds(len(some), 1, dimension=4, spread=0.3)), config)
    for threshold in (0.8, 0.97, 1.0):
        changed = config.model_copy(update={"threshold": threshold})
        check_threshold(config, changed)
        answer = tell(decision.pairs, len(some), config, changed, decision.report)
        again = run(documents, [None] * len(some), changed.model_copy(update={"semantic": None}))
        assert answer["after"] == again.report["kept"]
        assert any("for their meaning" in note for note in answer["notes"])
    only_texts = decision.pairs.filter(pa.compute.not_equal(decision.pairs["level"], "semantic"))
    assert removed(only_texts, 0.8) != removed(decision.pairs, 0.8), "they would have been mixed up"


@pytest.mark.parametrize("asked", [0.9, 0.93, 0.97, 0.995, 1.0])
def test_a_higher_threshold_of_meaning_is_answered_as_by_a_rerun(config: DedupConfig, asked: float) -> None:
    some = [text for k in range(60) for text in family(f"f{k}x", k % 2, k % 3)]
    urls = [f"https://example.org/{k % 140}" for k in range(len(some))]
    documents = make(some, uri=urls, source=["common_crawl"] * len(some))
    vectors: list[Vectors | None] = list(clouds(len(some), 1, dimension=4, spread=0.3))
    vectors[5] = None
    config = asking(config, clusters=8, probes=1).model_copy(update={"url": True})
    one = run(documents, vectors, config)
    changed = asking(config, threshold=asked)
    check_threshold(config, changed)
    assert asks_of_meaning(config, changed) == (asked != 0.9)
    signed = [sign_file(documents.slice(k, 50), config)["signatures"] for k in range(0, len(some), 50)]
    embedded = as_table(documents["id"].to_pylist(), vectors)
    answer = tell_of_meaning(one.duplicates, signed, [embedded], [], changed, 2, 1 << 20)
    again = run(documents, vectors, changed)
    kept = [
        {row["id"] for row in decision.duplicates.to_pylist() if row["duplicate_of"] is None}
        for decision in (one, again)
    ]
    assert (answer["documents"], answer["before"], answer["after"]) == (len(some), len(kept[0]), len(kept[1]))
    assert (answer["gained_ids"], answer["lost_ids"]) == (kept[1] - kept[0], kept[0] - kept[1])
    assert (answer["gained"], answer["lost"]) == (len(kept[1] - kept[0]), len(kept[0] - kept[1]))
    assert len(kept[0]) < len(kept[1]) or asked == 0.9


def test_a_higher_threshold_removes_what_is_close_to_one_that_it_sets_free(config: DedupConfig) -> None:
    documents = make([" ".join(f"w{k}x{n}" for n in range(6)) + "." * (100 - k) for k in range(3)])
    vectors, changed = at(0, 24, 44), asking(config, threshold=0.93)
    first, second, third = documents["id"].to_pylist()
    one = run(documents, vectors, config)
    assert {id: of for id, (of, _) in decided(one).items()} == {second: first}
    assert one.pairs.num_rows == 1, "which says nothing of the second and the third one"
    signed, embedded = [sign_file(documents, config)["signatures"]], [as_table([first, second, third], vectors)]
    answer = tell_of_meaning(one.duplicates, signed, embedded, [], changed, 1, 1 << 20)
    assert (answer["gained_ids"], answer["lost_ids"]) == ({second}, {third})


def test_what_is_not_told_of_meaning_is_one_line(config: DedupConfig) -> None:
    for changed, why in (
        (asking(config, threshold=0.89), r"semantic.threshold 0.89 lies below the run's 0.9, and only a run tells"),
        (asking(config, threshold=0.97, probes=1), r"deduplicate.semantic changes which documents are compared"),
        (config.model_copy(update={"semantic": None}), r"deduplicate.semantic changes"),
        (asking(config, threshold=0.97).model_copy(update={"threshold": 0.9}), "one of them at a time"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            check_threshold(config, changed)
        assert "\n" not in str(caught.value)
    documents = make(strangers(3))
    one, changed = run(documents, at(0, 1, 90), config), asking(config, threshold=0.97)
    signed = [sign_file(documents, config)["signatures"]]
    for files, embedded in ((["no/such.parquet"], []), (signed, ["no/such.parquet"]), (signed * 2, [])):
        with pytest.raises(UserError, match=r"run the recipe again first$") as caught:
            tell_of_meaning(one.duplicates, files, embedded, [], changed, 1, 1 << 20)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not of the documents at hand"):
        tell_of_meaning(one.duplicates.slice(1), signed, [], [], changed, 1, 1 << 20)
