"""The mixture keeps its proportions, repeats within bounds, and never trains on a held-out group."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from datalake.dedup.schema import DUPLICATES
from datalake.dedup.texts.shingles import word_list
from datalake.document import Document, document_id
from datalake.holdout import group_of, held_out, one_sided, repetitions
from datalake.identity import fingerprint
from datalake.mixture.build import MIXTURE, build, epochs_by_source, missed_shares
from datalake.mixture.config import MixtureConfig, Shares
from datalake.tables import DOCUMENTS, to_table


def corpus(sizes: dict[str, int], seed: int = 0, grouped: bool = False) -> pa.Table:
    generator, documents = random.Random(seed), []
    for source, count in sizes.items():
        for k in range(count):
            documents.append(
                Document(
                    document_id(source, "a", str(k)),
                    "word " * generator.randint(1, 60) + "中文",
                    source,
                    f"a#{k}",
                    language=generator.choice(["en", "zh", "und"]),
                    attributes={"group": f"module{k % 200}"} if grouped else {},
                )
            )
    return to_table(documents, DOCUMENTS)


def decisions(documents: pa.Table, removed: set[bytes]) -> pa.Table:
    ids = documents["id"].to_pylist()
    first = ids[0]
    return pa.table(
        {
            "id": documents["id"],
            "duplicate_of": pa.array([first if i in removed else None for i in ids], pa.binary(16)),
            "level": pa.array(["near" if i in removed else None for i in ids]),
            "similarity": pa.array([0.9 if i in removed else None for i in ids], pa.float64()),
        },
        schema=DUPLICATES,
    )


def shares(mixture: pa.Table) -> dict[str, float]:
    seen: dict[str, float] = {}
    for row in mixture.to_pylist():
        seen[row["source"]] = seen.get(row["source"], 0.0) + row["words"] * row["epochs"]
    return {source: words / sum(seen.values()) for source, words in seen.items()}


SIZES = {"common_crawl": 3000, "wikipedia": 900, "code": 1500}


def test_every_clean_document_is_seen_once_by_default() -> None:
    documents = corpus(SIZES)
    mixture = build([documents], [], MixtureConfig())
    assert mixture.schema == MIXTURE
    assert mixture["id"].to_pylist() == sorted(documents["id"].to_pylist())
    rows = {row["id"]: row for row in mixture.to_pylist()}
    for document in documents.to_pylist():
        row = rows[document["id"]]
        assert row["words"] == len(word_list(document["text"]))
        assert (row["source"], row["language"]) == (document["source"], document["language"])
        held = held_out(document["id"].hex(), 0, 0.05)
        assert (row["split"], row["epochs"]) == (("heldout", 0.0) if held else ("train", pytest.approx(1.0)))
    found = shares(mixture)
    assert all(row["weight"] == pytest.approx(found[row["source"]]) for row in rows.values())


def test_proportions_are_those_of_the_weights_as_planned_and_as_realised() -> None:
    config = MixtureConfig(weights={"common_crawl": 0.5, "wikipedia": 0.3, "code": 0.2}, seed=3)
    mixture = build([corpus(SIZES)], [], config)
    assert shares(mixture) == pytest.approx(config.weights, rel=1e-9)
    assert {row["source"]: row["weight"] for row in mixture.to_pylist()} == pytest.approx(config.weights)
    realised = dict.fromkeys(SIZES, 0)
    for row in mixture.to_pylist():
        times = repetitions(row["epochs"], row["id"], config.seed)
        assert times in (int(row["epochs"]), int(row["epochs"]) + 1)
        realised[row["source"]] += times * row["words"]
    total = sum(realised.values())
    for source, weight in config.weights.items():
        assert realised[source] / total == pytest.approx(weight, abs=0.01)


def test_what_is_asked_of_each_source_by_hand() -> None:
    sizes = {"web": 900, "code": 100}
    assert Shares(weights={"web": 3}).asked(sizes) == {"code": 0.25, "web": 0.75}
    assert Shares(weights={"web": 3, "code": 0}).asked(sizes) == {"web": 1.0}
    assert Shares(temperature=2).asked(sizes) == pytest.approx({"code": 0.25, "web": 0.75})
    assert Shares().asked(sizes) == pytest.approx({"code": 0.1, "web": 0.9})
    assert Shares().asked({}) == {}
    for weight in (1e308, 5e-324, float("nan"), float("inf"), -1.0):
        with pytest.raises(ValidationError, match="the weight of web is"):
            Shares(weights={"web": weight})


def test_a_document_trains_as_often_as_the_table_says_of_what_it_stands_for() -> None:
    documents = corpus({"web": 1300})
    ids = documents["id"].to_pylist()
    sizes = {ids[0]: 1, ids[1]: 2, ids[2]: 4, ids[3]: 5, ids[4]: 99, ids[5]: 100, ids[6]: 1000}
    rest, target = iter(ids[10:]), {}
    for first, size in sizes.items():
        target |= {next(rest): first for _ in range(size - 1)}
    nulls = [None] * len(ids)
    columns = [documents["id"], pa.array([target.get(i) for i in ids], pa.binary(16)), nulls, nulls]
    decided = pa.table(columns, schema=DUPLICATES)
    config = MixtureConfig(rehydration="fineweb2", holdout=0.0, max_epochs=6.0)  # type: ignore[arg-type]
    rows = {row["id"]: row for row in build([documents], [decided], config).to_pylist()}
    assert [rows[i]["copies"] for i in sizes] == list(sizes.values())
    assert [rows[i]["epochs"] for i in sizes] == pytest.approx([1, 2, 3, 5, 5, 6, 1]), "8 times is more than the cap"
    assert sum(row["copies"] for row in rows.values()) == len(ids)
    plain = build([documents], [decided], MixtureConfig(holdout=0.0))
    assert set(plain["epochs"].to_pylist()) == {1.0}
    # The words that rehydration adds count where a total is asked for.
    total = sum(row["epochs"] * row["words"] for row in rows.values())
    half = config.model_copy(update={"tokens": round(total / 2), "max_epochs": 100.0})
    seen = sum(r["epochs"] * r["words"] for r in build([documents], [decided], half).to_pylist())
    assert seen == pytest.approx(round(total / 2))


def test_a_table_is_the_same_however_it_is_written_and_has_an_identity() -> None:
    forms = [
        "fineweb2",
        {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1},
        {"2": 2, "1": 1, "3": 3, "5": 5, "100": 8, "1000": 1},
    ]
    configs = [MixtureConfig.model_validate({"rehydration": form}) for form in forms]
    assert configs[0] == configs[1] == configs[2] == MixtureConfig.model_validate(configs[0].model_dump(mode="json"))
    assert len({fingerprint(config) for config in (*configs, MixtureConfig())}) == 2


@pytest.mark.parametrize("table", [[(2, 1.0), (2, 3.0)], {0: 1.0}, {2: -1.0}, {2: float("inf")}, "fineweb3"])
def test_a_table_that_is_none_is_refused(table: object) -> None:
    with pytest.raises(ValidationError):
        MixtureConfig.model_validate({"rehydration": table})


def test_a_source_without_a_weight_weighs_one_and_one_of_weight_zero_is_left_out() -> None:
    mixture = build([corpus(SIZES)], [], MixtureConfig(weights={"code": 0, "wikipedia": 0.25}))
    assert shares(mixture) == pytest.approx({"common_crawl": 0.8, "wikipedia": 0.2})


def test_a_small_source_stops_at_the_cap_and_the_others_take_the_rest() -> None:
    words = {"a": 100, "b": 1000, "c": 10_000}
    capped = epochs_by_source(words, MixtureConfig(weights={"a": 1, "b": 1, "c": 2}, max_epochs=2))
    assert capped == pytest.approx({"a": 2, "b": 2, "c": (11_100 - 200 - 2000) / 10_000})
    assert epochs_by_source(words, MixtureConfig(tokens=10**9, max_epochs=3)) == {"a": 3, "b": 3, "c": 3}
    half = epochs_by_source(words, MixtureConfig(tokens=5550))
    assert half == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})
    assert epochs_by_source({"a": 0, "b": 7}, MixtureConfig()) == {"a": 1.0, "b": 1.0}
    assert epochs_by_source({"a": 0, "b": 7}, MixtureConfig(max_epochs=0.5)) == {"a": 0.5, "b": 0.5}
    assert epochs_by_source({}, MixtureConfig()) == {}


def test_a_share_that_can_not_be_had_is_told_with_the_length_at_which_it_can() -> None:
    words = {"a": 100.0, "b": 1000.0, "c": 10_000.0}
    config = MixtureConfig(weights={"a": 1, "b": 1, "c": 2}, max_epochs=2)
    first, second = missed_shares(words, config)
    assert first.startswith(
        "a has 1.8% of the words where 25.0% were asked, though each of its 100 words is seen 2 times"
    )
    assert second.startswith("b has 18.0%")
    assert "mixture.tokens of 800 at most" in first
    shorter = config.model_copy(update={"tokens": 800})
    assert missed_shares(words, shorter) == []
    seen = {source: epochs * words[source] for source, epochs in epochs_by_source(words, shorter).items()}
    assert seen == pytest.approx({"a": 200, "b": 200, "c": 400})
    assert missed_shares(words, MixtureConfig()) == []
    assert missed_shares(words, MixtureConfig(weights={"c": 0, "b": 10})) == []  # a: 1 of 11, of 1,100


@pytest.mark.parametrize("seed", range(30))
def test_no_source_exceeds_the_cap_and_the_uncapped_keep_their_proportions(seed: int) -> None:
    generator = random.Random(seed)
    words = {f"s{k}": generator.randint(1, 10 ** generator.randint(1, 6)) for k in range(6)}
    weights = {source: generator.uniform(0.01, 5) for source in words}
    config = MixtureConfig(weights=weights, max_epochs=generator.uniform(0.5, 5))
    epochs = epochs_by_source(words, config)
    assert all(0 < e <= config.max_epochs * (1 + 1e-12) for e in epochs.values())
    unit = {s: epochs[s] * words[s] / weights[s] for s in words if epochs[s] < config.max_epochs}
    total = sum(epochs[s] * words[s] for s in words)
    assert total <= sum(words.values()) * (1 + 1e-9)
    if unit:
        assert total == pytest.approx(sum(words.values()))
        assert max(unit.values()) == pytest.approx(min(unit.values()))
        for s in set(words) - set(unit):
            assert epochs[s] * words[s] / weights[s] <= max(unit.values()) * (1 + 1e-9), "capped for a reason"


def test_duplicates_never_enter_and_every_document_needs_a_decision() -> None:
    documents = corpus({"table": 300})
    removed = set(documents["id"].to_pylist()[10:120])
    duplicates = decisions(documents, removed)
    mixture = build([documents], [duplicates.slice(0, 150), duplicates.slice(150)], MixtureConfig())
    assert set(mixture["id"].to_pylist()) == set(documents["id"].to_pylist()) - removed
    with pytest.raises(ValueError, match="run deduplicate over all of them first"):
        build([documents], [duplicates.slice(1)], MixtureConfig())


def test_held_out_groups_are_whole_and_alike_in_every_source() -> None:
    documents = corpus({"common_crawl": 600, "code": 400}, grouped=True)
    config = MixtureConfig(holdout=0.2, seed=5, weights={"common_crawl": 3, "code": 1})
    mixture = build([documents], [], config)
    group = {r["id"]: dict(r["attributes"])["group"] for r in documents.to_pylist()}
    splits: dict[str, set[str]] = {}
    for row in mixture.to_pylist():
        splits.setdefault(group[row["id"]], set()).add(row["split"])
        assert (row["epochs"] == 0.0) == (row["split"] == "heldout")
    assert len(splits) == 200
    assert all(len(split) == 1 for split in splits.values())
    assert {g for g, s in splits.items() if s == {"heldout"}} == {g for g in splits if held_out(g, 5, 0.2)}
    assert 20 <= sum(s == {"heldout"} for s in splits.values()) <= 60
    assert shares(mixture) == pytest.approx({"common_crawl": 0.75, "code": 0.25})


def test_hold_out_is_an_even_nested_share_of_names_that_moves_with_the_seed() -> None:
    names = [f"package.module{k}" for k in range(20_000)]
    small, large = ({n for n in names if held_out(n, 1, share)} for share in (0.01, 0.05))
    assert small < large
    assert len(large) == pytest.approx(1000, abs=120)
    assert not any(held_out(n, 1, 0.0) for n in names)
    other = {n for n in names if held_out(n, 2, 0.05)}
    assert len(other & large) == pytest.approx(50, abs=30)
    assert group_of(b"\x01" * 16, {}) == "01" * 16
    assert group_of(b"\x01" * 16, {"group": "os.path"}) == "os.path"


def test_hold_out_and_repetition_are_pinned() -> None:
    """What is held out may never change between versions: an older model would be judged on what it trained on."""
    assert [n for n in range(100) if held_out(f"module{n}", 0, 0.05)] == HELD_OUT_OF_100
    assert [repetitions(1.5, bytes([n] * 16), 0) for n in range(12)] == REPETITIONS_OF_12


HELD_OUT_OF_100 = [58, 83, 84, 92, 95]
REPETITIONS_OF_12 = [1, 1, 1, 1, 1, 2, 2, 1, 2, 1, 2, 2]


def test_repetitions_are_the_epochs_on_average() -> None:
    ids = [document_id("table", "a", str(k)) for k in range(20_000)]
    for epochs in (0.0, 0.25, 1.0, 2.75, 4.0):
        times = [repetitions(epochs, i, 7) for i in ids]
        assert set(times) <= {int(epochs), int(epochs) + 1}
        assert sum(times) / len(times) == pytest.approx(epochs, abs=0.015)
        if epochs == int(epochs):
            assert set(times) == {int(epochs)}


def test_words_that_are_cut_do_not_count_and_a_document_of_which_nothing_is_left_is_out() -> None:
    documents = corpus({"web": 4})
    gone, shorter, *whole = documents["id"].to_pylist()
    length = len(documents["text"][0].as_py())
    cut = [(shorter, 0, len("word ")), (gone, 7, length), (gone, 0, 7)]
    columns = zip(*cut, strict=True)
    spans = pa.table(dict(zip(("id", "start", "end"), map(list, columns), strict=True))).cast(
        pa.schema([("id", pa.binary(16)), ("start", pa.int32()), ("end", pa.int32())])
    )
    before, after = (
        {row["id"]: row["words"] for row in build([documents], [], MixtureConfig(holdout=0.0), some).to_pylist()}
        for some in ([], [spans.slice(0, 2), spans.slice(2)])
    )
    assert after == {shorter: before[shorter] - 1} | {id: before[id] for id in whole}


def test_languages_choose_documents() -> None:
    mixture = build([corpus(SIZES)], [], MixtureConfig(languages=("zh", "en")))
    assert set(mixture["language"].to_pylist()) == {"zh", "en"}


def test_any_order_and_number_of_files_gives_the_same_table(tmp_path: Path) -> None:
    documents = corpus(SIZES, grouped=True)
    config = MixtureConfig(weights={"wikipedia": 2})
    whole = build([documents], [decisions(documents, set())], config)
    paths = []
    for k, part in enumerate((documents.slice(4000), documents.slice(0, 100), documents.slice(100, 3900))):
        paths.append(tmp_path / f"{k}.parquet")
        pq.write_table(part, paths[-1], row_group_size=333)
    pq.write_table(decisions(documents, set()), tmp_path / "duplicates.parquet")
    assert build(paths, [tmp_path / "duplicates.parquet"], config).equals(whole)


def test_settings_that_cannot_work_are_refused_in_words() -> None:
    for wrong in ({"holdout": 1.0}, {"weights": {"a": -1}}, {"weights": {"a": 0}}, {"max_epochs": 0}, {"share": 1}):
        with pytest.raises(ValidationError):
            MixtureConfig(**wrong)
    with pytest.raises(ValueError, match="no document is left to train on"):
        build([corpus({"table": 5})], [], MixtureConfig(languages=("fr",)))
    assert build([], [], MixtureConfig()).num_rows == 0


@pytest.mark.parametrize("module", ["datalake.dedup.config", "datalake.mixture.config", "datalake.holdout"])
def test_settings_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'numpy', 'pyarrow', 'numba', 'torch'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_source_that_falls_to_one_side_whole_is_told() -> None:
    splits = {"repo": (0, 40), "host": (500, 0), "few": (20, 0), "books": (95, 5), "none": (0, 0)}
    host, repo = one_sided(splits, 0.05)
    assert host.startswith("none of the 500 documents of host is held out")
    assert repo.startswith("all 40 documents of repo are held out, none trains")
    assert "mixture.seed" in repo
    assert one_sided({"host": (500, 0)}, 0.0) == []
