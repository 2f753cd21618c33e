"""What models, lists and searches say of a document, where the recipe asks them: curation fills it in.

Perplexity is CCNet's (Wenzek et al. 2020, arXiv:1911.00359), toxic words are C4's and ChineseWebText's measures.
"""

from __future__ import annotations

from datalake.curate.metrics.family import Family, Metric

FAMILY = Family(
    (
        Metric("quality", False, "probability of the good label by the quality classifier, where the recipe has one"),
        Metric("perplexity", False, "KenLM perplexity as CCNet computes it, where the recipe gives a model"),
        Metric("toxic_words", True, "occurrences of words on the user's lists (C4)"),
        Metric("toxic_ratio", False, "distinct words of these lists / lines (ChineseWebText)"),
        Metric("spam", False, "probability that a Chinese text is gambling or search-engine spam (spam.py)"),
        Metric("pii", True, "spans of personal data of the kinds the recipe names (Dolma)"),
    )
)
