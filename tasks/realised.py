"""What a run's tokens came from: by source and language, beside the share that was asked, within 1% or said why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from datalake.lake.lake import Lake, TableRef
from datalake.lake.parquet import read_table
from datalake.lake.records import read_record
from datalake.mixture.config import Shares
from models.training.figures import table

NEAR = 0.01  # of what was asked


def add_shares(report: dict[str, Any], lake: Lake, mixture: TableRef) -> None:
    """Puts `shares` into the report of a training function that tells `tokens_seen`, with a table and warnings."""
    seen = report.pop("tokens_seen", None)
    if seen is None:
        return
    by_source: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    for row in seen:
        by_source[row["source"]] += row["tokens"]
        by_language[row["language"]] += row["tokens"]
    whole = max(by_source.total(), 1)
    why: dict[str, str] = report.pop("why", {})
    in_phases = "asked" in report
    asked = report.pop("asked", None)
    if asked is None:
        asked, why = _of_mixture(lake, mixture, report["epochs"])
    sources: list[dict[str, Any]] = []
    for source in sorted({*by_source, *asked}, key=lambda name: (-by_source[name], name)):
        row = {"source": source, "asked": asked.get(source), "tokens": by_source[source]}
        row["share"] = by_source[source] / whole
        if row["asked"] and abs(row["share"] - row["asked"]) > NEAR * row["asked"]:
            row["why"] = why.get(source) or (_otherwise(in_phases) if by_source[source] else "it has no document")
        sources.append(row)
    languages: list[dict[str, Any]] = [
        {"language": language, "tokens": tokens, "share": tokens / whole}
        for language, tokens in sorted(by_language.items(), key=lambda item: (-item[1], item[0]))
    ]
    report["shares"] = {"sources": sources, "languages": languages}
    columns = ["", "asked", "tokens", "share", "why"]
    rows = [[s["source"], _percent(s["asked"]), s["tokens"], _percent(s["share"]), s.get("why", "")] for s in sources]
    rows += [[row["language"], "", row["tokens"], _percent(row["share"]), ""] for row in languages]
    shown = table("Tokens that trained, by source and language", columns, rows)
    report["figures"] = [*report.get("figures", ()), shown]


def _of_mixture(lake: Lake, mixture: TableRef, epochs: float) -> tuple[dict[str, float], dict[str, str]]:
    """What the mixture's weights ask of each source, and why that isn't its share of the tokens; nothing where they ask
    nothing."""
    record = read_record(lake, mixture.fingerprint)
    weights: Mapping[str, float] = record.payload["config"].get("weights", {}) if record else {}
    if not weights:
        return {}, {}
    words: dict[str, float] = {}  # by source its share of the mixture's words
    for file in lake.files(mixture):
        rows = read_table(file, ["source", "weight"])
        words |= dict(zip(rows["source"].to_pylist(), rows["weight"].to_pylist(), strict=True))
    asked = Shares(weights=dict(weights)).asked(dict.fromkeys(weights, 0.0) | words)
    why = {}
    for name, share in asked.items():
        reasons = [f"shares are asked in words, of which it has {words.get(name, 0.0):.1%}"]
        if abs(words.get(name, 0.0) - share) > NEAR * share:
            reasons.append("max_epochs and caps allow no other: a smaller mixture.tokens does")
        if epochs < 1:
            reasons.append(f"{epochs:.2g} of an epoch was seen")
        why[name] = "; ".join(reasons)
    return asked, {name: text for name, text in why.items() if name in words}


def _otherwise(in_phases: bool) -> str:
    return "its documents are few and long, or the run ended within a phase" if in_phases else "asked in words"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
