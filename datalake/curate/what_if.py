"""What other rules would keep, from the metrics in the curation table: every verdict again, without any text.

Exact for whatever changes verdicts alone (thresholds, presets, languages): first and all failed rules are those of a
rerun. A change that edits text in another way changes metrics and kept texts, and only a rerun can tell; so it is where
the metrics don't say whether line edits leave anything of a document that wasn't kept before. Both raise
`NeedsRerunError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from datalake.curate.config import CurateConfig
from datalake.curate.judge import (
    COLUMNS,
    Flags,
    Judged,
    NeedsRerunError,
    pairs_of,
    rejudge,
    rules_for,
    stored,
    values,
)
from datalake.curate.rules import Rule
from datalake.curate.schema import column_of
from datalake.files import Files

_VERDICT_ALONE = {"preset", "compat", "thresholds", "rules", "extra_rules", "languages", "kinds"}
# The same within sections: numbers of the recipe's own rules.
_VERDICT_ALONE |= {"decontaminate.share", "toxic.maximum", "toxic.maximum_ratio", "pii.maximum", "quality.minimum"}
_VERDICT_ALONE |= {"perplexity.maximum", "classifiers.minimum", "classifiers.maximum"}
_VERDICT_ALONE |= {f"extra_rules.{field}" for field in Rule.model_fields}
_DECIDED = ("id", "source", "language", *COLUMNS)
# What tells that line edits leave nothing of an English document. C4's lines have a word beside their citations; a line
# that FineWeb's variant keeps may be citations alone, but share of repeats has no meaning where nothing is left.
_KEPT_LINES = {
    **{"auto": "auto_lines", "c4": "c4_lines", "c4-paper": "c4p_lines", "c4-datatrove": "c4d_lines"},
    "refinedweb": "dclm_lines",
}
_LEFT_BY_FINEWEB, _LEFT = "fw_char_dup", "contaminated_left"
_OF_EDITS = ("lines", *_KEPT_LINES.values(), _LEFT_BY_FINEWEB, "dclm_removed", _LEFT)


def changed_settings(base: CurateConfig, changed: CurateConfig) -> list[str]:
    """Names of the settings that differ, in the order of the config; `section.name` within a section that both have.

    A section may stand there several times, under names that both have: `perplexity.maximum`, whatever the language.
    """
    names: list[str] = []
    for name in type(base).model_fields:
        before, after = getattr(base, name), getattr(changed, name)
        for one, other in _sections(before, after) or [(before, after)]:
            if isinstance(one, BaseModel) and type(one) is type(other) and not isinstance(one, Files):
                fields = type(one).model_fields
                names += [f"{name}.{part}" for part in fields if getattr(one, part) != getattr(other, part)]
            elif one != other:
                names.append(name)
    return list(dict.fromkeys(names))


def _sections(before: Any, after: Any) -> list[tuple[Any, Any]]:
    """Pairs of the sections of two mappings, or lists, of them with the same names."""
    if isinstance(before, tuple) and isinstance(after, tuple):
        before, after = ({getattr(one, "name", k): one for k, one in enumerate(many)} for many in (before, after))
        if list(before) != list(after):
            return []
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or before.keys() != after.keys():
        return []
    return [(before[name], after[name]) for name in before if isinstance(before[name], BaseModel)]


def columns_needed(*configs: CurateConfig, groups: Iterable[tuple[str, str]]) -> list[str]:
    """The columns of the curation table that judging documents of these (source, language) pairs needs."""
    pairs = list(groups)
    used = {column_of(rule.metric) for config in configs for pair in pairs for rule in rules_for(config, *pair).rules}
    return [*_DECIDED, *sorted(used | set(_OF_EDITS))]


def _left_by_edits(curation: pa.Table, config: CurateConfig, judged: Judged, open_rows: Flags) -> Judged:
    """The verdicts with that of what edits leave of these rows, which pass all rules, told by metrics.

    Raises:
        NeedsRerunError: where metrics don't tell.
    """
    pairs, of_row = pairs_of(curation)
    held = [rules_for(config, *pair) for pair in pairs]
    edits = np.array([rules.line_edits if pair[1] == "en" else "none" for rules, pair in zip(held, pairs, strict=True)])
    counts = open_rows & ~np.array([rules.keep_empty for rules in held], np.bool_)[of_row]
    emptied = open_rows & (values(curation, _LEFT) == 0) if _LEFT in curation.column_names else np.zeros_like(counts)
    for kind in sorted(set(edits)):
        rows = counts & (edits == kind)[of_row]
        emptied |= rows & _none(values(curation, "lines"))
        if kind in _KEPT_LINES:
            emptied |= rows & _none(values(curation, _KEPT_LINES[kind]))
        if kind == "fineweb":
            emptied |= rows & np.isnan(values(curation, _LEFT_BY_FINEWEB))
        # Snippets taken out of lines may leave nothing of them: open unless some word stays.
        if kind == "refinedweb" and (
            amount := int((rows & ~emptied & ~(values(curation, "dclm_removed") < 1.0)).sum())
        ):
            raise NeedsRerunError(
                f"what the line edits of refinedweb leave of {amount} document{'s' if amount > 1 else ''} that other"
                " rules would admit can't be told from the metrics: run the changed recipe"
            )
    return judged.emptied(emptied)


def _none(counts: npt.NDArray[np.float64]) -> Flags:
    """Where a count of what is left is 0 or missing."""
    return np.isnan(counts) | (counts == 0)


def _same(a: Judged, b: Judged) -> bool:
    if not np.array_equal(a.offsets, b.offsets):
        return False
    numbers = {name: k for k, name in enumerate(dict.fromkeys((*a.names, *b.names)))}
    first, second = (np.array([numbers[name] for name in j.names], np.int64)[j.items] for j in (a, b))
    sets = {name: k for k, name in enumerate(dict.fromkeys((*a.rule_sets, *b.rule_sets)))}
    left, right = (np.array([sets[name] for name in j.rule_sets], np.int64)[j.rule_set] for j in (a, b))
    return np.array_equal(first, second) and np.array_equal(left, right)


def check_edits(curation: pa.Table, base: CurateConfig, changed: CurateConfig) -> None:
    """Make sure that the change edits no text of a document at hand.

    Raises:
        NeedsRerunError: naming the setting that does, in one line.
    """
    names = changed_settings(base, changed)
    for name in names:
        if name not in _VERDICT_ALONE:
            raise NeedsRerunError(
                f"curate.{name} is no threshold: it changes texts or metrics, so only a run of the changed recipe tells"
            )
    pairs, of_row = pairs_of(curation)
    amounts = np.bincount(of_row, minlength=len(pairs)).tolist()
    touched: Counter[str] = Counter()
    for (source, language), amount in zip(pairs, amounts, strict=True):
        before, after = (rules_for(c, source, language) for c in (base, changed))
        if before.repair != after.repair:
            touched[f"repairs text in another way ({after.repair!r} in place of {before.repair!r})"] += amount
        elif before.code_apart != after.code_apart:
            which = "apart from" if after.code_apart else "together with"
            touched[f"measures prose {which} the code in it"] += amount
        elif language == "en" and before.line_edits != after.line_edits:
            touched[f"edits lines in another way ({after.line_edits!r} in place of {before.line_edits!r})"] += amount
        if "code" in (kinds := {c.kinds.get(source, source) for c in (base, changed)}) and len(kinds) > 1:
            touched["measures a source as code, or no longer"] += amount
    if touched:
        what, amount = touched.most_common(1)[0]
        setting = next((name for name in ("preset", "compat", "kinds") if name in names), names[0])
        raise NeedsRerunError(
            f"curate.{setting} {what} for {amount:,} documents here, so only a run of the changed recipe tells"
        )


def ask(curation: pa.Table, base: CurateConfig, changed: CurateConfig) -> tuple[Judged, Judged]:
    """Verdicts of every row by the config that made the table, and by another one.

    Raises:
        NeedsRerunError: where the change edits texts, where the metrics leave a document open, or where `base` doesn't
            give the verdicts that the table holds (it was made by other rules).
    """
    check_edits(curation, base, changed)
    curation = curation.combine_chunks()
    there = stored(curation)
    before, unknown = rejudge(curation, base, there)
    if unknown.any() or not _same(before, there):
        raise NeedsRerunError(
            "the verdicts at hand were made by another version of the rules: run the recipe again first"
        )
    return before, _left_by_edits(curation, changed, *rejudge(curation, changed, before))


# What is told ---------------------------------------------------------------------------------------------------


def _by(column: pa.ChunkedArray, before: Flags, after: Flags) -> list[dict[str, Any]]:
    """Kept before and after for each value of a column, most documents first."""
    coded = pc.dictionary_encode(column.combine_chunks())
    code, values = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    rows = [
        np.bincount(code, weights=weights, minlength=len(values)).astype(np.int64).tolist()
        for weights in (None, before, after, before & ~after, after & ~before)
    ]
    table = [
        dict(zip(("name", "documents", "before", "after", "lost", "gained"), row, strict=True))
        for row in zip(values, *rows, strict=True)
    ]
    return sorted(table, key=lambda row: (-row["documents"], row["name"]))


def _rules(before: Judged, after: Judged) -> list[dict[str, Any]]:
    """For each rule: documents that fail it and that it rejects first, before and after, and those that change sides.

    `gained` documents were rejected by it first and are kept now, `lost` ones were kept and are rejected by it first.
    """
    gained, lost = ~before.kept & after.kept, before.kept & ~after.kept

    def counts(judged: Judged, codes: npt.NDArray[np.int32]) -> dict[str, int]:
        amounts = np.bincount(codes[codes >= 0], minlength=len(judged.names)).tolist()
        return dict(zip(judged.names, amounts, strict=True))

    columns = {
        "rejects_before": counts(before, before.first),
        "rejects_after": counts(after, after.first),
        "fails_before": counts(before, before.items),
        "fails_after": counts(after, after.items),
        "gained": counts(before, before.first[gained]),
        "lost": counts(after, after.first[lost]),
    }
    names = dict.fromkeys((*before.names, *after.names))
    rows = [{"rule": name} | {key: amounts.get(name, 0) for key, amounts in columns.items()} for name in names]
    rows = [row for row in rows if row["fails_before"] or row["fails_after"]]
    return sorted(rows, key=lambda row: (-row["gained"] - row["lost"], -row["rejects_before"], row["rule"]))


def draw(ids: pa.ChunkedArray, chosen: Flags, amount: int, seed: int) -> list[int]:
    """Rows of a seeded sample among the chosen ones, by their ids alone: the order of a table doesn't matter."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return []
    taken = ids.take(pa.array(rows)).combine_chunks()
    words = np.frombuffer(b"".join(taken.to_pylist()) if len(rows) <= amount else _bytes(taken), np.uint64)
    mixed = (words[0::2] ^ (words[1::2] * np.uint64(0x9E3779B97F4A7C15))) + np.uint64(seed * _ODD % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(_ODD)
    mixed ^= mixed >> np.uint64(32)
    order = np.lexsort((words[1::2], words[0::2], mixed))[:amount]
    return [int(k) for k in rows[order]]


_ODD = 0xBF58476D1CE4E5B9  # SplitMix64


def _bytes(ids: pa.Array) -> bytes:
    return bytes(ids.cast(pa.binary(16)).buffers()[1])[16 * ids.offset : 16 * (ids.offset + len(ids))]


def tell(curation: pa.Table, before: Judged, after: Judged, examples: int = 5, seed: int = 0) -> dict[str, Any]:
    """The answer as plain values: kept before and after, by source, language and rule, and rows that change sides.

    `examples` holds rows of the table for each side: {"gained": [{"row", "id", "rules"}], "lost": [...]}; `rules` are
    those that rejected it, before or now.
    """
    kept, now = before.kept, after.kept
    shown: dict[str, list[dict[str, Any]]] = {}
    for side, chosen, judged in (("gained", now & ~kept, before), ("lost", kept & ~now, after)):
        shown[side] = [
            {
                "row": row,
                "id": curation["id"][row].as_py(),
                "rules": [judged.names[k] for k in judged.items[judged.offsets[row] : judged.offsets[row + 1]]],
            }
            for row in draw(curation["id"], chosen, examples, seed)
        ]
    return {
        "documents": len(kept),
        "before": int(kept.sum()),
        "after": int(now.sum()),
        "gained": int((now & ~kept).sum()),
        "lost": int((kept & ~now).sum()),
        "sources": _by(curation["source"], kept, now),
        "languages": _by(curation["language"], kept, now),
        "rules": _rules(before, after),
        "examples": shown,
    }


def sources_and_languages(pieces: Sequence[pa.Table]) -> list[tuple[str, str]]:
    """The (source, language) pairs at hand, from tables with these two columns."""
    return sorted({pair for piece in pieces for pair in pairs_of(piece)[0]})
