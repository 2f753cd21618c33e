"""Trains the model of main content on pages with gold text, and says how good it is on sites it hasn't seen.

    .venv/bin/python benchmarks/train_main_content.py [--pages DIR] [--out FILE] [--folds FILE] [--attempts]

A text block's label is the share of its token trigrams that are in the gold text (bigrams and words for shorter ones);
its weight is its tokens over the square root of its page's. Trees are grown by LightGBM and written as flat arrays
(`datalake/extract/html/forest.py`), so that LightGBM is needed here alone (`pip install lightgbm`).

Cross-validation: five folds, pages of one registered domain in one fold (pages whose address is made up by their own
origin), by a digest of its name. Each fold's pages are scored by a model trained on the others, whose second pass
learns from folds within these. A block is kept from one half on, a threshold that nothing was fitted to. The model
that is written is trained on all pages.

`--folds` keeps the models of the folds for `benchmarks/extract.py`; `--attempts` measures other ways beside the one
taken. Pages: `pages-dev-*.warc.gz` and `pages-dev.jsonl.gz`. Gold that isn't text (family `pagesignal`: annotated
markup, style rules included) is left out, of training and of the headline.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import gzip
import hashlib
import html as entities
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from datalake.extract.html.blocks import FIRST_PIECE, LAST_PIECE, WORDS, Page, cut
from datalake.extract.html.charset import decode
from datalake.extract.html.features import FIRST_NAMES, SECOND_NAMES, first_features, second_features
from datalake.extract.html.forest import Forest, from_lightgbm, named, predict, scorer
from datalake.extract.html.main_content import MODEL, Model
from datalake.text.words import WORD

FOLDS = 5
NO_TEXT = ("pagesignal",)
ROUNDS, SECOND_ROUNDS = 100, 80
PARAMETERS = {
    "objective": "cross_entropy",  # labels are shares
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5,
    "num_threads": 2,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
SECOND = {"learning_rate": 0.06, "num_leaves": 15, "min_data_in_leaf": 60, "feature_fraction": 0.5, "lambda_l2": 10}


@dataclasses.dataclass
class Gold:
    """A page with gold text: features, tokens and bags of tokens of its blocks, their labels, the gold's bag."""

    origin: str
    language: str
    fold: int
    X: Any
    kinds: Any
    tokens: Any
    bags: list[collections.Counter[str]]
    labels: Any
    bag: collections.Counter[str]

    @property
    def family(self) -> str:
        return self.origin.split("/")[0]


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def bag(text: str) -> collections.Counter[str]:
    return collections.Counter(words(text))


def f1(found: collections.Counter[str], gold: collections.Counter[str]) -> float:
    both = found.total() + gold.total()
    return 2 * (found & gold).total() / both if both else 1.0


def fold_of(url: str, origin: str) -> int:
    """The fold of a page: that of its registered domain, or of its origin where the host is made up."""
    host = urlsplit(url).hostname or ""
    site = origin if not host or host.endswith(".example") else ".".join(host.split(".")[-2:])
    return int(hashlib.md5(site.encode(), usedforsecurity=False).hexdigest(), 16) % FOLDS


def labels(texts: list[str], gold: str) -> Any:
    """For each block the share of its trigrams that the gold has."""
    tokens = words(gold)
    known = [set(zip(*(tokens[k:] for k in range(n)), strict=False)) for n in (1, 2, 3)]
    shares = []
    for text in texts:
        own = words(text)
        n = min(len(own), 3)
        grams = list(zip(*(own[k:] for k in range(n)), strict=False))
        shares.append(sum(gram in known[n - 1] for gram in grams) / len(grams) if grams else 0.0)
    return np.array(shares)


def bodies(folder: Path) -> dict[str, tuple[bytes, str | None]]:
    """HTML and declared charset of each page, by its origin."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    found = {}
    for path in sorted(folder.glob("pages-dev-*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                declared = re.search(r"charset=([\w-]+)", record.http_headers.get("content-type") or "")
                origin = record.headers.get("X-Sample-Origin")
                found[origin] = (record.reader.read(), declared[1] if declared else None)
    return found


def gold_rows(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "pages-dev.jsonl.gz", "rt", encoding="utf-8") as rows:
        return [json.loads(row) for row in rows]


def block_texts(page: Page) -> list[str]:
    """The text of each block, character references put in."""
    characters = page.codes.tobytes().decode("utf-32-le", "replace")
    return [
        entities.unescape("".join(characters[a:b] or " " for a, b in page.pieces[one[FIRST_PIECE] : one[LAST_PIECE]]))
        for one in page.blocks
    ]


def pages(folder: Path) -> list[Gold]:
    """All pages that have gold text."""
    all_bodies, found = bodies(folder), []
    for row in gold_rows(folder):
        key = row["origin"].encode("ascii", "replace").decode()
        if "gold_text" not in row or key not in all_bodies:
            continue
        page = cut(decode(*all_bodies[key])[0])
        texts = block_texts(page)
        found.append(
            Gold(
                row["origin"],
                row["lang"],
                fold_of(row["url"], row["origin"]),
                *first_features(page),
                page.blocks[:, WORDS],
                [bag(one) for one in texts],
                labels(texts, row["gold_text"]),
                bag(row["gold_text"]),
            )
        )
    return found


def sample(some: Sequence[Gold], power: float = 1.0) -> tuple[Any, Any, Any]:
    """Features, labels and weights of all blocks of some pages."""
    weights = []
    for one in some:
        weight = (one.tokens + 1.0) ** power
        weights.append(weight / weight.sum() ** 0.5 if len(weight) else weight)
    return np.vstack([one.X for one in some]), np.concatenate([one.labels for one in some]), np.concatenate(weights)


def train(some: Sequence[Gold], rounds: int = ROUNDS, power: float = 1.0, **parameters: Any) -> Forest:
    import lightgbm

    X, y, weights = sample(some, power)
    data = lightgbm.Dataset(X, y, weight=weights)
    return from_lightgbm(lightgbm.train({**PARAMETERS, **parameters}, data, rounds).dump_model())


def choose(scores: Any, tokens: Any) -> Any:
    """The blocks that the shipped code keeps."""
    return scores >= 0.5


def expected_f1(scores: Any, tokens: Any) -> Any:
    """The blocks with the greatest expected token F1: 2 * (content kept) / (tokens kept + all content)."""
    order = np.argsort(-scores, kind="stable")
    content = (scores * tokens)[order]
    kept = np.zeros(len(scores), bool)
    if content.sum() > 0:
        best = np.argmax(2 * np.cumsum(content) / (np.cumsum(tokens[order]) + content.sum()))
        kept[order[: best + 1]] = True
    return kept


Choice = Callable[[Any, Any], Any]


def score(shares: dict[str, Any], some: Sequence[Gold], choice: Choice = choose) -> dict[str, float]:
    """Token F1 of each page with the blocks that `choice` keeps."""
    result = {}
    for one in some:
        chosen = choice(shares[one.origin], one.tokens)
        found: collections.Counter[str] = collections.Counter()
        for keep, block in zip(chosen if chosen.any() else ~chosen, one.bags, strict=True):
            if keep:
                found.update(block)
        result[one.origin] = f1(found, one.bag)
    return result


def means(scores: dict[str, float], some: Sequence[Gold]) -> dict[str, tuple[float, int]]:
    """Mean F1 and number of pages: all, each language with at least ten pages, each family."""
    groups: dict[str, list[float]] = collections.defaultdict(list)
    count = collections.Counter(one.language for one in some)
    for one in some:
        language = one.language if count[one.language] >= 10 else "other"
        for name in ("all", f"lang:{language}", f"set:{one.family}"):
            groups[name].append(scores[one.origin])
    return {name: (round(float(np.mean(values)), 4), len(values)) for name, values in sorted(groups.items())}


def threshold_choice(threshold: float) -> Choice:
    return lambda shares, tokens: shares > threshold


def out_of_fold(some: Sequence[Gold], fit: Callable[[Sequence[Gold]], Callable[[Gold], Any]]) -> dict[str, Any]:
    """Shares of each page's blocks by a model that saw no page of its fold."""
    shares = {}
    for fold in range(FOLDS):
        model = fit([one for one in some if one.fold != fold])
        shares.update({one.origin: model(one) for one in some if one.fold == fold})
    return shares


def forest_fit(**options: Any) -> Callable[[Sequence[Gold]], Callable[[Gold], Any]]:
    def fit(some: Sequence[Gold]) -> Callable[[Gold], Any]:
        forest = scorer(train(some, **options))
        return lambda one: predict(forest, one.X)

    return fit


def logistic_fit(some: Sequence[Gold]) -> Callable[[Gold], Any]:
    """Logistic regression on the same features, standardised and clipped; Newton's method, ridge 10."""
    X, y, weights = sample(some)
    middle, spread = X.mean(0), X.std(0) + 1e-6
    weights = weights / weights.mean()

    def design(rows: Any) -> Any:
        return np.hstack([np.ones((len(rows), 1)), np.clip((rows - middle) / spread, -4, 4)])

    A, beta = design(X).astype(np.float64), np.zeros(X.shape[1] + 1)
    for _ in range(12):
        p = 1 / (1 + np.exp(-A @ beta))
        gradient = A.T @ (weights * (y - p)) - 10 * beta
        beta += np.linalg.solve((A * (weights * p * (1 - p))[:, None]).T @ A + 10 * np.eye(len(beta)), gradient)
    return lambda one: 1 / (1 + np.exp(-design(one.X) @ beta))


def smoothed(shares: dict[str, Any], part: float) -> dict[str, Any]:
    """Each block's share mixed with its two neighbours'."""
    return {
        origin: (1 - 2 * part) * p + part * np.r_[p[:1], p[:-1]] + part * np.r_[p[1:], p[-1:]] if len(p) else p
        for origin, p in shares.items()
    }


def train_model(some: Sequence[Gold]) -> tuple[Forest, Forest]:
    """Both passes. The second is trained on what first passes say of pages that they weren't trained on."""
    import lightgbm

    inner = out_of_fold(some, forest_fit())
    full = [one for one in some if len(one.tokens)]
    _, y, weights = sample(full)
    X = np.vstack([second_features(inner[one.origin], one.X, one.kinds) for one in full])
    data = lightgbm.Dataset(X, y, weight=weights)
    second = lightgbm.train({**PARAMETERS, **SECOND}, data, SECOND_ROUNDS)
    return train(some), from_lightgbm(second.dump_model())


def model_fit(some: Sequence[Gold]) -> Callable[[Gold], Any]:
    model = ready(train_model(some))
    return lambda one: judged(model, one)


def ready(forests: tuple[Forest, Forest]) -> Model:
    """The forests of both passes made ready to judge."""
    return Model(scorer(forests[0]), scorer(forests[1]))


def judged(model: Model, one: Gold) -> Any:
    """The probability of each block by both passes."""
    return predict(model.second, second_features(predict(model.first, one.X), one.X, one.kinds))


def save(forests: tuple[Forest, Forest], path: Path) -> None:
    """Write a model file; equal models give equal bytes."""
    with path.open("wb") as stream:
        np.savez_compressed(
            stream,
            features=np.array(FIRST_NAMES),
            second_features=np.array(SECOND_NAMES),
            **named(forests[0], "first"),
            **named(forests[1], "second"),
        )


def attempts(some: Sequence[Gold], taken: dict[str, Any]) -> list[tuple[str, float]]:
    """Mean F1 on unseen sites of other ways to choose, each printed as it is known."""
    rows: list[tuple[str, float]] = []

    def tell(name: str, shares: dict[str, Any], choice: Choice = choose) -> None:
        rows.append((name, float(np.mean(list(score(shares, some, choice).values())))))
        print(f"| {name} | {rows[-1][1]:.4f} |", flush=True)

    tell("all text", taken, lambda scores, tokens: tokens >= 0)
    tell("the best choice of blocks there is (labels known)", {one.origin: one.labels for one in some})
    tell("logistic regression on the first pass's features", out_of_fold(some, logistic_fit))
    first = out_of_fold(some, forest_fit())
    tell("first pass alone", first)
    tell("first pass alone, the choice of greatest expected F1", first, expected_f1)
    tell("first pass alone, scores smoothed with both neighbours' by 0.1", smoothed(first, 0.1))
    for name, options in {
        "first pass alone, 300 trees at rate 0.04": {"rounds": 300, "learning_rate": 0.04},
        "first pass alone, 15 leaves": {"num_leaves": 15},
        "first pass alone, 63 leaves": {"num_leaves": 63},
        "first pass alone, weights by the square root of tokens": {"power": 0.5},
        "first pass alone, every block weighs the same in its page": {"power": 0.0},
    }.items():
        tell(name, out_of_fold(some, forest_fit(**options)))
    tell("both passes (taken)", taken)
    tell("both passes, the choice of greatest expected F1", taken, expected_f1)
    for threshold in (0.4, 0.45, 0.55):
        tell(f"both passes, threshold {threshold}", taken, threshold_choice(threshold))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser.add_argument("--pages", type=Path, default=samples / "cc/pages")
    parser.add_argument("--out", type=Path, default=None, help=f"model file to write; {MODEL.name} is the shipped one")
    parser.add_argument("--folds", type=Path, default=None, help="folder for the models of the folds")
    parser.add_argument("--attempts", action="store_true")
    options = parser.parse_args()
    begin = time.perf_counter()
    everything = pages(options.pages)
    gold = [one for one in everything if one.family not in NO_TEXT]
    print(f"{len(gold)} pages with gold text, {len(everything) - len(gold)} with gold that isn't text")
    models = [train_model([one for one in gold if one.fold != fold]) for fold in range(FOLDS)]
    judges = [ready(model) for model in models]
    shares = {one.origin: judged(judges[one.fold], one) for one in everything}
    result = means(score(shares, gold), gold)
    for name, (value, count) in result.items():
        print(f"{name:16s} {value:.4f}  {count} pages")
    whole = means(score(shares, everything), everything)
    print(f"all {len(everything)}, gold that isn't text included: {whole['all'][0]:.4f}")
    if options.folds:
        options.folds.mkdir(parents=True, exist_ok=True)
        for fold, model in enumerate(models):
            save(model, options.folds / f"fold-{fold}.npz")
    if options.out:
        save(train_model(gold), options.out)
        print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    tried = attempts(gold, shares) if options.attempts else []
    print(json.dumps({
        "bench": "train_main_content", "pages": len(gold), "folds": FOLDS, "out_of_fold": result,
        "with_gold_that_is_no_text": whole["all"], "attempts": tried, "seconds": round(time.perf_counter() - begin, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
