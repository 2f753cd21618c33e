"""What other rules would keep, from the metrics in the curation table: every verdict again, without any text.

Exact for whatever changes verdicts alone (thresholds, presets, languages): first and all failed rules are those of a
rerun. A change that edits text in another way changes metrics and kept texts, and only a rerun can tell; so it is where
the metrics don't say whether line edits leave anything of a document that wasn't kept before. Both raise
`NeedsRerunError`.

Rules are applied a column at a time to all documents that share them: a million documents take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from datalake.curate.config import CurateConfig
from datalake.curate.curate import EMPTY, LANGUAGE
from datalake.curate.held import rules_for
from datalake.curate.presets import RuleSet
from datalake.curate.rules import applies, compare
from datalake.curate.schema import CURATION, column_of, values_of
from datalake.errors import UserError
from datalake.files import Files

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Column = tuple[npt.NDArray[np.float64], Flags | None]  # values, and which of them there are (None: all)

_VERDICT_ALONE = {"preset", "compat", "thresholds", "rules", "languages", "kinds"}
# The same within sections: numbers of the recipe's own rules.
_VERDICT_ALONE |= {"decontaminate.share", "toxic.maximum", "toxic.maximum_ratio", "pii.maximum", "quality.minimum"}
_VERDICT_ALONE |= {"perplexity.maximum", "classifiers.minimum", "classifiers.maximum"}
_DECIDED = ("id", "source", "language", "rule_set", "verdict", "rule", "rules")
_STORED = set(CURATION.names)
# What tells that line edits leave nothing of an English document. C4's lines have a word beside their citations; a line
# that FineWeb's variant keeps may be citations alone, but share of repeats has no meaning where nothing is left.
_KEPT_LINES = {
    **{"auto": "auto_lines", "c4": "c4_lines", "c4-paper": "c4p_lines", "c4-datatrove": "c4d_lines"},
    "fineweb": "fw_char_dup",
}
_LEFT = "contaminated_left"
_OF_EDITS = ("lines", *_KEPT_LINES.values(), "dclm_lines", "dclm_removed", _LEFT)
_BLOCK = 1 << 17  # documents judged at once


class NeedsRerunError(UserError):
    """A question that the stored metrics can't answer; the message says why, in one line."""


class Judged(NamedTuple):
    """Verdicts over the rows of a table: `items` are indices into `names`, those of row k from offsets[k] on."""

    names: tuple[str, ...]  # rules, in no particular order
    rule_sets: tuple[str, ...]
    rule_set: npt.NDArray[np.int32]  # shape (rows,): index into rule_sets
    offsets: Ints  # shape (rows + 1,)
    items: npt.NDArray[np.int32]  # all failed rules, row by row, in the order of the rule set

    @property
    def kept(self) -> Flags:
        """Which rows fail no rule, shape (rows,)."""
        return self.offsets[1:] == self.offsets[:-1]

    @property
    def first(self) -> npt.NDArray[np.int32]:
        """The first failed rule of each row as an index into `names`, -1 where kept."""
        padded = np.append(self.items, np.int32(-1))
        return np.where(self.kept, np.int32(-1), padded[self.offsets[:-1]])

    def columns(self) -> pa.Table:
        """rule_set, verdict, rule and rules, as the curation table has them."""
        names = pa.array(self.names, pa.string())
        first = pa.array(self.first, mask=self.kept)
        return pa.table(
            {
                "rule_set": pa.array(self.rule_sets, pa.string()).take(pa.array(self.rule_set)),
                "verdict": pa.array(["rejected", "kept"]).take(pa.array(self.kept.astype(np.int8))),
                "rule": names.take(first),
                "rules": pa.ListArray.from_arrays(
                    pa.array(self.offsets, pa.int32()), names.take(pa.array(self.items, pa.int32()))
                ),
            }
        )


class _Group(NamedTuple):
    """Documents that are held to the same rules in the same way."""

    rules: RuleSet
    asked: bool  # whether their language is not among those kept
    english: bool  # line edits touch English alone


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
    used = {rule.metric for config in configs for pair in pairs for rule in _group(config, *pair).rules.rules}
    return [*_DECIDED, *sorted((set(map(column_of, used)) | set(_OF_EDITS)) & _STORED)]


def _group(config: CurateConfig, source: str, language: str) -> _Group:
    kind = config.kinds.get(source, source)
    chosen = rules_for(config, kind, language)
    asked = config.languages is not None and language not in config.languages and kind != "code"
    own = tuple(rule for rule in chosen.rules if applies(rule, language))
    return _Group(chosen._replace(rules=own), asked, language == "en")


def _pairs(table: pa.Table) -> tuple[list[tuple[str, str]], Ints]:
    """The (source, language) pairs of a table, and each row's as an index into them."""
    source, language = (pc.dictionary_encode(table[name].combine_chunks()) for name in ("source", "language"))
    width = max(len(language.dictionary), 1)
    code = source.indices.to_numpy().astype(np.int64) * width + language.indices.to_numpy()
    present, of_row = np.unique(code, return_inverse=True)
    sources, languages = source.dictionary.to_pylist(), language.dictionary.to_pylist()
    return [(sources[k // width], languages[k % width]) for k in present.tolist()], of_row.astype(np.int64)


def judge(curation: pa.Table, config: CurateConfig, known: Judged | None = None) -> Judged:
    """Judge every row of a curation table (schema CURATION, or the columns of `columns_needed`) by this config.

    `known` is what is known of the same rows by rules with the same edits: where the metrics leave open whether edits
    leave anything of a document, a row that passed its rules there is known.

    Raises:
        NeedsRerunError: where that stays open for a document that passes all rules.
    """
    pairs, of_row = _pairs(curation)
    groups = [_group(config, *pair) for pair in pairs]
    distinct = list(dict.fromkeys(groups))
    key = np.array([distinct.index(group) for group in groups], np.int64)[of_row] if groups else of_row
    names = tuple(dict.fromkeys((LANGUAGE, *(rule.name for group in distinct for rule in group.rules.rules), EMPTY)))
    code = {name: np.int32(k) for k, name in enumerate(names)}
    rule_sets = tuple(dict.fromkeys(group.rules.name for group in distinct))

    order = np.argsort(key, kind="stable")
    bounds = np.searchsorted(key[order], np.arange(len(distinct) + 1))
    counts, parts, open_rows = np.zeros(len(key), np.int64), [np.empty(0, np.int32)], 0
    for k, group in enumerate(distinct):
        codes = np.array([code[LANGUAGE], *(code[rule.name] for rule in group.rules.rules), code[EMPTY]], np.int32)
        for start in range(bounds[k], bounds[k + 1], _BLOCK):
            rows = order[start : min(start + _BLOCK, bounds[k + 1])]
            failed, open_ = _failed(curation, rows, group, config.preset != "none", known)
            open_rows += open_
            counts[rows] = failed.sum(axis=1)
            parts.append(codes[np.nonzero(failed)[1]])
    if open_rows:
        raise NeedsRerunError(
            f"what {group_edits(distinct)} leave of {open_rows} document{'s' if open_rows > 1 else ''} that other rules"
            " would admit can't be told from the metrics: run the changed recipe"
        )
    offsets = np.concatenate(([0], np.cumsum(counts)))
    items = np.empty(offsets[-1], np.int32)
    grouped = np.concatenate(parts)
    # Items lie in the order of groups: move each to where its row's begin.
    row_counts = counts[order]
    begin = np.repeat(offsets[:-1][order] - (np.cumsum(row_counts) - row_counts), row_counts)
    items[begin + np.arange(len(grouped))] = grouped
    set_of = np.array([rule_sets.index(group.rules.name) for group in distinct], np.int32)
    return Judged(names, rule_sets, set_of[key] if len(set_of) else key.astype(np.int32), offsets, items)


def group_edits(groups: Iterable[_Group]) -> str:
    """The line edits at work, in words."""
    kinds = sorted({group.rules.line_edits for group in groups if group.rules.line_edits != "none"})
    return f"the line edits of {' and '.join(kinds)}" if kinds else "edits"


def _column(curation: pa.Table, name: str, rows: Ints) -> Column:
    if column_of(name) not in curation.column_names:
        raise NeedsRerunError(f"the curation table has no metric {name}: run the recipe again with this version")
    values = values_of(curation, name).take(pa.array(rows)).combine_chunks()
    there = None if values.null_count == 0 else values.is_valid().to_numpy(zero_copy_only=False)
    return pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False), there


def _failed(
    curation: pa.Table, rows: Ints, group: _Group, nothing_left_counts: bool, known: Judged | None
) -> tuple[Flags, int]:
    """Which of LANGUAGE, the rules and EMPTY each of these rows fails, shape (rows, rules + 2); how many stay open."""
    rules, cached = group.rules.rules, {}
    failed = np.zeros((len(rows), len(rules) + 2), np.bool_)
    failed[:, 0] = group.asked
    for k, rule in enumerate(rules, 1):
        if rule.metric not in cached:
            cached[rule.metric] = _column(curation, rule.metric, rows)
        values, there = cached[rule.metric]
        fails = ~compare(rule.op, values, rule.threshold)
        failed[:, k] = fails if there is None else fails & there
    passed = ~failed.any(axis=1)
    if not passed.any():
        return failed, 0
    cut = _none_left(curation, rows)
    if not nothing_left_counts:
        failed[:, -1] = passed & cut
        return failed, 0
    edits = group.rules.line_edits if group.english else "none"
    empty = _zero(curation, "lines", rows)
    if edits in _KEPT_LINES:
        name = _KEPT_LINES[edits]
        empty |= _zero(curation, name, rows) if name.endswith("_lines") else _missing(curation, name, rows)
    elif edits == "refinedweb":
        empty |= _zero(curation, "dclm_lines", rows)
    empty |= cut
    failed[:, -1] = passed & empty
    if edits in ("none", *_KEPT_LINES):
        return failed, 0
    # Snippets taken out of lines may leave nothing of them: open unless some word stays, or the row says.
    open_ = passed & ~empty
    if edits == "refinedweb":
        values, there = _column(curation, "dclm_removed", rows)
        open_ &= values >= 1.0 if there is None else (values >= 1.0) | ~there
    if known is not None and open_.any():
        told = known.kept[rows]
        nothing = np.array([name == EMPTY for name in known.names])[known.first[rows]] & ~told
        failed[:, -1] |= open_ & nothing
        open_ &= ~(told | nothing)
    return failed, int(open_.sum())


def _zero(curation: pa.Table, name: str, rows: Ints) -> Flags:
    """Where a count is 0 or missing."""
    values, _ = _column(curation, name, rows)
    return values == 0


def _none_left(curation: pa.Table, rows: Ints) -> Flags:
    """Where cuts leave nothing of a document that holds something of evaluation sets."""
    if _LEFT not in curation.column_names:
        return np.zeros(len(rows), np.bool_)
    values, there = _column(curation, _LEFT, rows)
    return (values == 0) & (np.ones(len(rows), np.bool_) if there is None else there)


def _missing(curation: pa.Table, name: str, rows: Ints) -> Flags:
    _, there = _column(curation, name, rows)
    return np.zeros(len(rows), np.bool_) if there is None else ~there


def stored(curation: pa.Table) -> Judged:
    """The verdicts that a curation table holds."""
    lists = curation["rules"].combine_chunks()
    flat = pc.dictionary_encode(lists.flatten())
    sets = pc.dictionary_encode(curation["rule_set"].combine_chunks())
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return Judged(
        tuple(flat.dictionary.to_pylist()),
        tuple(sets.dictionary.to_pylist()),
        sets.indices.to_numpy().astype(np.int32),
        np.concatenate(([0], np.cumsum(lengths))),
        flat.indices.to_numpy().astype(np.int32),
    )


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
    pairs, of_row = _pairs(curation)
    amounts = np.bincount(of_row, minlength=len(pairs)).tolist()
    touched: Counter[str] = Counter()
    for (source, language), amount in zip(pairs, amounts, strict=True):
        before, after = (rules_for(c, c.kinds.get(source, source), language) for c in (base, changed))
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
    before = judge(curation, base, there)
    if not _same(before, there):
        raise NeedsRerunError(
            "the verdicts at hand were made by another version of the rules: run the recipe again first"
        )
    return before, judge(curation, changed, before)


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
    return sorted({pair for piece in pieces for pair in _pairs(piece)[0]})
