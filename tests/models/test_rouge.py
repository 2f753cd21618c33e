"""ROUGE-L equals the package rouge-score on English, and counts Chinese by its characters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.synthesis.rouge import Pool, rouge_l

WORDS = ["write", "a", "poem", "about", "the", "sea", "list", "three", "colours", "and"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@given(texts, texts)
def test_it_is_rouge_score_s(one: str, other: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    assert rouge_l(one, other) == pytest.approx(scorer.score(one, other)["rougeL"].fmeasure)


@given(st.lists(texts, max_size=8), texts)
def test_the_nearest_of_a_pool_is_that_of_all_pairs(pool: list[str], text: str) -> None:
    scores = [rouge_l(one, text) for one in pool]
    best = max(scores, default=0.0)
    assert Pool(pool).nearest(text) == ((scores.index(best), pytest.approx(best)) if best else (-1, 0.0))


def test_chinese_is_compared_by_characters() -> None:
    assert rouge_l("写一首关于大海的诗", "写一首关于月亮的诗") == pytest.approx(7 / 9)
    assert rouge_l("写一首诗", "列出三种颜色") == 0


def test_a_pool_grows() -> None:
    draw = random.Random(1)
    many = [" ".join(f"w{draw.randrange(10_000)}" for _ in range(20)) for _ in range(300)]
    pool = Pool(many)
    assert len(pool) == 300
    assert all(pool.nearest(text) == (place, 1.0) for place, text in enumerate(many))
