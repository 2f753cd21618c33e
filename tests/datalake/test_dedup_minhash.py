"""Signatures are datasketch's, bit for bit, and bands follow their S-curve."""

from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHash
from pydantic import ValidationError

from datalake.dedup.config import DedupConfig, bands_needed, choose_bands, collision_probability
from datalake.dedup.texts.bands import buckets, shared_buckets
from datalake.dedup.texts.minhash import permutations, sign


@pytest.mark.parametrize(("count", "seed"), [(1, 1), (112, 1), (120, 7), (256, 4294967295)])
def test_permutations_are_datasketchs(count: int, seed: int) -> None:
    a, b = MinHash(num_perm=count, seed=seed).permutations
    assert np.array_equal(permutations(count, seed)[0], a)
    assert np.array_equal(permutations(count, seed)[1], b)


@pytest.mark.parametrize(("count", "seed"), [(120, 1), (33, 9)])
def test_signatures_are_datasketchs_for_the_same_hashes(count: int, seed: int) -> None:
    generator = np.random.default_rng(0)
    sets = [generator.integers(0, 1 << 63, size, dtype=np.uint64) for size in (0, 1, 2, 5, 300, 4000)]
    signatures = sign(np.concatenate(sets), np.cumsum([len(s) for s in sets]), count, seed)
    for values, signature in zip(sets, signatures, strict=True):
        oracle = MinHash(num_perm=count, seed=seed, hashfunc=lambda h: h & 0xFFFFFFFF)
        oracle.update_batch(values.tolist())
        assert oracle.scheme == "affine32"
        assert signature.dtype == oracle.hashvalues.dtype
        assert np.array_equal(signature, oracle.hashvalues)


def test_buckets_are_equal_exactly_where_all_rows_of_a_band_are() -> None:
    generator = np.random.default_rng(1)
    signatures = generator.integers(0, 3, (400, 12), dtype=np.uint32)
    bucket = buckets(signatures, bands=6, rows=2)
    for band in range(6):
        rows = signatures[:, 2 * band : 2 * band + 2]
        alike = np.all(rows[:, None] == rows[None], axis=2)
        assert np.array_equal(bucket[:, band][:, None] == bucket[:, band][None], alike)
    constant = buckets(np.zeros((1, 12), np.uint32), 6, 2)[0]
    assert len(set(constant.tolist())) == 6, "equal rows in different bands are different buckets"


def test_shared_buckets_hold_every_document_that_is_not_alone() -> None:
    shared = shared_buckets(np.array([5, -7, 5, 2, -7, 9, 5]))
    groups = [shared.members[a:b].tolist() for a, b in zip(shared.starts[:-1], shared.starts[1:], strict=True)]
    assert groups == [[0, 2, 6], [1, 4]]


@pytest.mark.parametrize("bits", [2, 40, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 50, 3000])
def test_shared_buckets_are_those_of_a_dictionary_however_the_values_lie(count: int, bits: int) -> None:
    generator = np.random.default_rng(count)
    values = generator.integers(0, 2**bits, max(1, count // 3), dtype=np.uint64)
    band = generator.choice(values, count).view(np.int64) if count else np.empty(0, np.int64)
    expected: dict[int, list[int]] = {}
    for k, value in enumerate(band.tolist()):
        expected.setdefault(value, []).append(k)
    shared = shared_buckets(band)
    groups = [shared.members[a:b].tolist() for a, b in zip(shared.starts[:-1], shared.starts[1:], strict=True)]
    assert sorted(groups) == sorted(group for group in expected.values() if len(group) > 1)
    assert shared_buckets(np.array([1, 2, 3])).members.tolist() == []
    assert shared_buckets(np.empty(0, np.int64)).starts.tolist() == [0]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0])
def test_default_bands_reach_the_recall_at_the_threshold_within_the_budget(threshold: float) -> None:
    signing = DedupConfig(threshold=threshold, permutations=256).signing
    assert collision_probability(threshold, signing.bands, signing.rows) >= 0.997 - 1e-9
    assert signing.bands * signing.rows <= 256
    more = bands_needed(threshold, signing.rows + 1, 0.997) * (signing.rows + 1)
    assert threshold == 1.0 or more > 256, "another row per band would have fitted"


def test_the_default_is_20_bands_of_6_rows_and_their_s_curve() -> None:
    config = DedupConfig()
    assert (config.signing.bands, config.signing.rows) == (20, 6)
    curve = dict(config.s_curve(10))
    assert curve[0.8] == pytest.approx(1 - (1 - 0.8**6) ** 20)
    assert curve[0.0] == 0.0
    assert curve[1.0] == 1.0
    assert list(curve.values()) == sorted(curve.values())


def test_the_s_curve_is_what_real_signatures_do() -> None:
    generator = np.random.default_rng(2)
    pairs, size, shared = 1500, 90, 60  # Jaccard 60 / 120
    values = generator.integers(0, 1 << 63, (pairs, 2 * size - shared), dtype=np.uint64)
    both = np.concatenate((values[:, :size], values[:, size - shared :])).ravel()
    signatures = sign(both, np.arange(1, 2 * pairs + 1) * size, 120, 3)
    bucket = buckets(signatures, 20, 6)
    found = np.mean(np.any(bucket[:pairs] == bucket[pairs:], axis=1))
    assert found == pytest.approx(collision_probability(0.5, 20, 6), abs=0.04)


def test_settings_that_cannot_work_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"raise deduplicate\.permutations"):
        choose_bands(0.01, 0.997, 144)
    for wrong in ({"threshold": 0}, {"threshold": 1.2}, {"bands": 4}, {"threshold": 0.01}, {"precedence": ["size"]}):
        with pytest.raises(ValidationError):
            DedupConfig(**wrong)
    with pytest.raises(ValidationError, match="names a criterion twice"):
        DedupConfig(precedence=("length", "length"))


def test_only_what_shapes_signatures_is_part_of_signing() -> None:
    base = DedupConfig().signing
    assert DedupConfig(floor=0.6, sources=("wikipedia",), precedence=("length",), bucket_limit=9).signing == base
    assert DedupConfig(threshold=0.7).signing != base
    assert DedupConfig(threshold=0.7, bands=20, rows=6).signing == base
