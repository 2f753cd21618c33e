"""What a run comes to, for the head of its report: its models' key figures, and what a reader has to be warned of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datalake.lake.records import Manifest, StageRecord
from flows.report.words import amount, number
from models.evaluation.judged import better

if TYPE_CHECKING:
    from flows.report.shares import Share

Row = dict[str, Any]


def states(manifest: Manifest) -> str:
    """How many stages ran, were cached, and so on: "9 ran, 4 skipped"."""
    states = [report.state for report in manifest.stages]
    known = ("ran", "cached", "partial", "failed", "skipped")
    return ", ".join(f"{states.count(state)} {state}" for state in known if state in states)


def code_sources(manifest: Manifest) -> set[str]:
    """Names of the sources whose documents are source code: shown in a font of equal widths."""
    sources = manifest.recipe.get("sources") or []
    return {str(one.get("name") or "code") for one in sources if isinstance(one, dict) and one.get("kind") == "code"}


def models(records: dict[str, StageRecord]) -> list[Row]:
    """Each model's key figures: what it is, the figure, where it came from or how sure it is."""
    found: list[Row] = []

    def add(stage: str, what: str, figure: float | None, unit: str, more: str) -> None:
        if figure is not None:
            found.append({"stage": stage, "what": what, "figure": f"{figure:.3g}", "unit": unit, "more": more})

    if "pretrain" in records:
        report = records["pretrain"].report
        unigram = report.get("loss_to_unigram_entropy")
        more = [f"{unigram:.0%} of the unigram entropy"] if unigram is not None else []
        sizes = [name for name in ("parameters", "target_tokens") if name in report]
        more += [f"{report[name]:,} {name.replace('_', ' ')}" for name in sizes]
        add("pretrain", "held-out loss", report.get("heldout_loss"), "nats a token", ", ".join(more))
    if "sft" in records:
        report = records["sft"].report
        before = report.get("heldout_loss_before")
        more = [f"{before:.3g} before"] if before is not None else []
        more += [f"{report['dialogues']:,} dialogues"] if "dialogues" in report else []
        add("sft", "held-out loss", report.get("heldout_loss"), "nats a token", ", ".join(more))
    if "reward" in records:
        report = records["reward"].report
        sure = [report.get(name) for name in ("heldout_accuracy_low", "heldout_accuracy_high", "heldout_pairs")]
        more = [f"{sure[0]:.3g} to {sure[1]:.3g} on {sure[2]:,} pairs"] if None not in sure else []
        add("reward", "accuracy", report.get("heldout_accuracy"), "of held-out pairs", ", ".join(more))
    for stage in ("ppo", "grpo"):
        if stage not in records:
            continue
        report = records[stage].report
        more = [f"{report['score_first']:.3g} at first"] if "score_first" in report else []
        more += [f"{report['kl_per_answer']:.2g} nats from the reference"] if "kl_per_answer" in report else []
        add(stage, "score", report.get("score_last"), "of its answers", ", ".join(more))
    return found


def warnings(
    manifest: Manifest, records: dict[str, StageRecord], read: list[Row], became: list[Row], mixture: list[Share]
) -> list[tuple[str, str]]:
    """What a reader has to know before believing the rest: where, and what."""
    found = [(r.stage, r.note or r.state) for r in manifest.stages if r.state in ("partial", "failed")]
    for row in read:
        if not row["raw"]:
            why = row["why"] or "nothing in it"
            found.append((row["source"], f"gave nothing: {amount(row['records'], 'record')} read; {why}"))
        elif row["quarantined"]:
            found.append((row["source"], f"{amount(row['quarantined'], 'record')} couldn't be read"))
    nothing = {row["source"] for row in became if row["raw"] and not row["kept"]}
    found += [(name, "none of its documents was kept") for name in sorted(nothing)]
    found += [
        (share.name, "has no document to train on")
        for share in mixture
        if not share.documents and share.name not in nothing
    ]
    found += [
        (stage, f"{finding['what']}: {finding['advice']}" if finding["advice"] else finding["what"])
        for stage, record in records.items()
        for finding in record.report.get("findings", ())
        if finding["level"] == "warning"
    ]
    for stage, items in _ITEMS.items():
        report = records[stage].report if stage in records else {}
        if dropped := report.get("dropped"):
            whole = dropped + report.get(items, 0)
            told = f"{number(dropped)} of {number(whole)} {items} left out"
            reasons = [f"{number(n)} {reason}" for reason, n in report.get("left_out_by_reason", {}).items()]
            found.append((stage, f"{told}: {'; '.join(reasons)}" if reasons else told))
        if report.get("unpaired"):
            found.append((stage, f"{amount(report['unpaired'], 'answer')} without another to be compared with"))
    found += [
        (stage, f"{amount(record.report['skipped'], 'step')} skipped for a spike of the gradient")
        for stage, record in records.items()
        if isinstance(record.report.get("skipped"), int) and record.report["skipped"]
    ]
    return found


def answers(records: dict[str, StageRecord]) -> list[Row]:
    """Held-out questions with the dialogue's own answer and what each model wrote."""
    questions: dict[tuple[str, str], Row] = {}
    for row in records["evaluate"].report.get("answers", []) if "evaluate" in records else []:
        key = (row["question"], row["reference"])
        questions.setdefault(key, {"question": key[0], "reference": key[1], "answers": []})["answers"].append(row)
    return list(questions.values())


# What each method of training takes, as its report calls them.
_ITEMS = {
    "sft": "dialogues",
    "dpo": "pairs",
    "kto": "judgements",
    "reward": "pairs",
    "ppo": "prompts",
    "grpo": "prompts",
}


def by_model(rows: list[Row]) -> Row:
    """Evaluations as a table: a row for each task and metric, a column for each model, the best of a row marked."""
    models = list(dict.fromkeys(row["checkpoint"] for row in rows))
    table: dict[tuple[str, str], Row] = {}
    for row in rows:
        task, metric = row["task"], row["metric"]
        line = table.setdefault((task, metric), {"task": task, "metric": metric, "cells": {}})
        line["cells"][row["checkpoint"]] = row
    for line in table.values():
        values = {model: cell["value"] for model, cell in line["cells"].items()}
        choose = {-1: min, 0: None, 1: max}[better(line["metric"])]
        top = choose(values.values()) if choose and len(set(values.values())) > 1 else None
        line["best"] = [model for model, value in values.items() if value == top]
        counts = sorted({cell["n"] for cell in line["cells"].values()})
        line["n"] = " / ".join(number(n) for n in counts)
    return {"models": models, "rows": list(table.values())}
