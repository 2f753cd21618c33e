"""What a finished run has to say in the terminal: where each source's records went, and what the models learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datalake.lake.funnel import Fate, by_source, funnel_of
from datalake.lake.lake import Lake
from datalake.lake.records import StageRecord, StageReport, read_record
from datalake.printable import one_line
from flows.report import shares
from flows.report.words import excerpt
from flows.stages import TRAINING
from tasks.shown import figures as own

_BARS = "▁▂▃▄▅▆▇█"
_RULES = 60  # of the proposed thresholds, shown


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Values as a row of bars, lowest to highest, thinned to `width` of them."""
    if len(values) > width:
        values = [values[round(k * (len(values) - 1) / (width - 1))] for k in range(width)]
    low, high = min(values), max(values)
    return "".join(_BARS[round((value - low) / (high - low) * 7) if high > low else 0] for value in values)


def lines(lake: Lake, reports: Sequence[StageReport]) -> Iterator[str]:
    """Lines about a run's stages, cached ones included."""
    records = {
        report.stage: record
        for report in reports
        if report.fingerprint and (record := read_record(lake, report.fingerprint)) is not None
    }
    refs = {name: ref for report in reports for name, ref in report.outputs.items()}
    if "ingest" in records:
        yield from _sources(records["ingest"], funnel_of(lake, refs), "curation" in refs)
    if "quality" in records:
        counts, figures = records["quality"].counts, records["quality"].report["figures"]
        told = (f"{name} {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for name, row in figures.items())
        yield f"quality: {', '.join(told)} on {counts['held out']:,} texts held out of {counts['rows']:,}"
    if "thresholds" in records:
        yield from _thresholds(lake, records["thresholds"])
    if "mixture" in records:
        weights = records["mixture"].payload.get("config", {}).get("weights", {})
        yield from shares.lines(*shares.shares(lake, refs, weights))
    if "pretrain" in records:
        report = records["pretrain"].report
        if "heldout_loss" in report:
            yield (
                f"pretrain: held-out loss {report['heldout_loss']:.3f} nats a token,"
                f" {report['loss_to_unigram_entropy']:.2f} of the training tokens' entropy"
                f" {report['unigram_entropy']:.3f}, over {report['heldout_targets']:,} tokens"
            )
    if "sft" in records and "heldout_loss" in records["sft"].report:
        report = records["sft"].report
        yield f"sft: held-out loss {report['heldout_loss_before']:.3f} before, {report['heldout_loss']:.3f} after"
    if "reward" in records and "heldout_accuracy" in records["reward"].report:
        report = records["reward"].report
        yield (
            f"reward: accuracy {report['heldout_accuracy']:.3f} ({report['heldout_accuracy_low']:.3f} to"
            f" {report['heldout_accuracy_high']:.3f}) on {report['heldout_pairs']:,} held-out pairs"
        )
    for stage, record in ((stage, records[stage]) for stage in records if stage in TRAINING):
        for figure in record.report.get("figures", ()):
            if figure["kind"] != "marked":  # texts were shown while it trained
                yield from (f"{stage}: {line}" for line in own.text(figure))
    for stage in ("ppo", "grpo"):
        if stage in records:
            yield from _curves(lake, records[stage])
            yield from _wrote(lake, records[stage])
    for stage, record in records.items():
        for finding in record.report.get("findings", ()):
            yield f"{stage}: {finding['what']}" + (f": {finding['advice']}" if finding["advice"] else "")
    if "evaluate" in records:
        yield "evaluation, with 95% intervals:"
        for row in records["evaluate"].report["results"]:
            interval = "" if row["low"] == row["high"] else f"({row['low']:.3f} to {row['high']:.3f})"
            what = f"{row['task']}.{row['metric']}"
            seen = f"  {row['seen']:.1%} seen in training" if "seen" in row else ""
            yield f"  {row['checkpoint']:<10} {what:<32} {row['value']:>8.3f}  {interval:<20} n={row['n']}{seen}"


def archives(record: StageRecord) -> dict[str, int]:
    """How many archives each source has, in the order of the recipe, by the record of ingest."""
    return {row["source"]: row["archives"] for row in record.report.get("sources", ())}


def _sources(record: StageRecord, fates: Mapping[str, Fate], curated: bool) -> Iterator[str]:
    """Every source's records: in = raw + refused + quarantined, raw = kept + rejected."""
    wide = max([16, *(len(name) for name in fates)])
    yield (
        f"{'source':<{wide}} {'archives':>8} {'records':>9} = {'raw':>9} + {'refused':>8} + {'quarantined':>11}"
        + (f" ; raw = {'documents':>9} + {'rejected':>8}" if curated else "")
    )
    for row in by_source(fates, archives(record)):
        text = (
            f"{row['source']:<{wide}} {row['archives']:>8,} {row['records']:>9,} = {row['raw']:>9,}"
            f" + {row['refused']:>8,} + {row['quarantined']:>11,}"
        )
        fate = fates.get(row["source"], Fate())
        yield text + (f" ; raw = {fate.kept:>9,} + {fate.rejected.total():>8,}" if fate.decided else "")


def _thresholds(lake: Lake, record: StageRecord) -> Iterator[str]:
    """The proposed thresholds beside the published ones; those that stay are counted."""
    report, counts = record.report, record.counts
    for set_name, few in report["pooled"].items():
        told = ", ".join(f"{language} {n}" for language, n in list(few.items())[:8])
        more = f" and {len(few) - 8} more" if len(few) > 8 else ""
        yield f"thresholds: too few documents of {set_name}, pooled as `other`: {told}{more}"
    proposed = [row for row in report["thresholds"] if row["method"] != "published"]
    wide = max((len(row["rule"]) for row in proposed[:_RULES]), default=0)
    if proposed:
        names = f"{'published':>10} {'cuts':>7} {'proposed':>10} {'cuts':>7}"
        yield f"{'rule':<{wide}} {'language':<8} {'keeps':<22} {names}"
    for row in proposed[:_RULES]:
        yield (
            f"{row['rule']:<{wide}} {row['language']:<8} {row['keeps']:<22} {row['published']:>10.6g}"
            f" {row['share cut by published']:>7.2%} {row['proposed']:>10.6g} {row['share cut']:>7.2%}"
        )
    if len(proposed) > _RULES:
        yield f"... and {len(proposed) - _RULES} more, in the file and in headwater report"
    yield (
        f"thresholds: {counts['proposed']} proposed, {counts['published kept']} published ones kept;"
        f" use them with --set curate.rules={lake.root / report['rules']}"
    )


# What of rollouts is told step by step, those that are there
_ROLLOUTS = {
    "score": "score",
    "heldout_score": "score, held out",
    "kl_per_token": "KL, nats a token",
    "kl_per_answer": "KL, nats",
    "entropy": "entropy, nats",
    "ratio": "ratio",
    "clip_fraction": "clip share",
    "explained_variance": "critic explains",
    "eos_rate": "answers that end",
    "answer_tokens": "answer, tokens",
    "length_correlation": "score with length",
    "zero_variance": "equal groups",
    "logprob_gap": "gap of sampling",
}
_WROTE = 2  # answers shown, of the first step and of the last


def _curves(lake: Lake, record: StageRecord) -> Iterator[str]:
    """What rollouts came to, step by step, parts of the reward and other reward models too."""
    rows = metrics(lake, record.fingerprint)
    more = {name: name.removeprefix("heldout_").replace("_", " ") for name in rows
            if name.startswith(("reward_", "heldout_other_"))}  # fmt: skip
    for name, title in (_ROLLOUTS | more).items():
        values = rows.get(name)
        if values:
            yield (
                f"{record.stage}: {title:<17} {values[0]:>7.3f} -> {values[-1]:>7.3f} (largest {max(values):.3f})"
                f"  {sparkline(values)}"
            )


def _wrote(lake: Lake, record: StageRecord) -> Iterator[str]:
    """A few answers of the first step and of the last, each in a line with its score."""
    rows = _rows(lake, "runs.samples", record.fingerprint)
    for step in sorted({rows[0]["step"], rows[-1]["step"]}) if rows else []:
        for row in [row for row in rows if row["step"] == step][:_WROTE]:
            score = dict(row["figures"]).get("score")
            worth = "" if score is None else f" (score {score:.3g})"
            asked, answer = (one_line(row[name]) for name in ("prompt", "answer"))
            yield f"{record.stage}: step {step}: {excerpt(asked, 60)} => {excerpt(answer, 100)}{worth}"


def metrics(lake: Lake, fingerprint: str) -> dict[str, list[float]]:
    """A training stage's metrics by name, in the order of their steps."""
    series: dict[str, list[float]] = {}
    for row in _rows(lake, "runs.metrics", fingerprint):
        series.setdefault(row["name"], []).append(row["value"])
    return series


def _rows(lake: Lake, table: str, fingerprint: str) -> list[dict[str, Any]]:
    """A stage's rows of a table that all stages write to, in the order of their steps."""
    import pyarrow.dataset as ds

    from datalake.lake.parquet import dataset

    files = lake.current_files(table)
    mine = ds.field("fingerprint") == fingerprint
    rows: list[dict[str, Any]] = dataset(files).to_table(filter=mine).sort_by("step").to_pylist() if files else []
    return rows
