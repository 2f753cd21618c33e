"""Files of rules: presets, what `curate.rules` names, and what the stage `thresholds` writes are one format.

    sets:      # whole rule sets; a document is held to the first that is for its kind of source and language
      - name: english                   # what the ledger calls it in `rule_set`
        languages: [en]                 # and `kinds: [code]`; those of the last set are left out
        extends: fineweb                # a preset whose rules come first; one of the same name takes its place
        source: FineWeb, fineweb.py     # of rules that name none themselves
        line_edits: fineweb             # so are repair, code_apart, keep_empty: see `RuleSet`
        rules:
          - {name: min_words, metric: words, op: ">=", threshold: 50, languages: [en], source: Gopher A.1.1}
    rules:     # other thresholds by language over the sets in use; `other`: languages without a rule of that name
      en: [{name: english/min_words, threshold: 30}]   # or `min_words`, in whichever set; other keys are for people

Either part may be left out. A file of `presets/` is named as its preset, or `PRESET-READING`, another published reading
of it that `curate.compat` chooses; it is read when it is asked for. Imports nothing heavier than pydantic and YAML.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, ValidationError, WithJsonSchema

from datalake.curate.rules import RECIPE, Rule, RuleSet
from datalake.errors import UserError
from datalake.identity import file_digest
from datalake.text.yaml_text import YamlError, read_yaml

OTHER = "other"
_FOLDER = Path(__file__).parent / "presets"
_READINGS: dict[str, list[str]] = {}  # of each preset, "" for its own
for _name in sorted(path.stem for path in _FOLDER.glob("*.yaml")):
    _READINGS.setdefault(_name.partition("-")[0], []).append(_name.partition("-")[2])
PRESETS = tuple(_READINGS)


def compats(preset: str) -> list[str]:
    """The other readings of this preset that `compat` may name."""
    return [reading for reading in _READINGS[preset] if reading]


def _preset(value: str) -> str:
    if value not in PRESETS:
        raise ValueError(f"there is no preset {value!r}: choose one of {', '.join(map(repr, PRESETS))}")
    return value


Preset = Annotated[str, AfterValidator(_preset), WithJsonSchema({"type": "string", "enum": list(PRESETS)})]
_COMPATS = sorted({reading for readings in _READINGS.values() for reading in readings})
Compat = Annotated[str, WithJsonSchema({"type": "string", "enum": _COMPATS})]


class RulesFile(NamedTuple):
    """What a file of rules holds: whole sets, and thresholds by language and rule; either may be empty."""

    sets: tuple[RuleSet, ...]
    thresholds: Mapping[str, Mapping[str, float]]


def parse_rules(text: str, origin: str) -> RulesFile:
    """A rules file from its text; `origin` is what errors call it.

    Raises:
        UserError: in one line, where it is no such file. Which metrics there are `check_metrics` knows.
    """
    try:
        data = read_yaml(text)
    except YamlError as error:
        raise UserError(f"{origin} is not YAML: {error}") from None
    if not isinstance(data, dict) or not data.keys() & {"sets", "rules"}:
        raise UserError(
            f"{origin} is no rules file: it must have `sets`, a list of rule sets, or `rules`, a list of rules for each"
            " language"
        )
    return RulesFile(_sets(data["sets"], origin) if "sets" in data else (), _thresholds(data.get("rules", {}), origin))


def _sets(entries: Any, origin: str) -> tuple[RuleSet, ...]:
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{origin}: `sets` must be a list of rule sets")
    sets = tuple(_set(entry, origin) for entry in entries)
    if twice := _twice(rules.name for rules in sets):
        raise UserError(f"{origin}: two rule sets are called {twice!r}, give them different names")
    last = sets[-1]
    if last.kinds is not None or last.languages is not None:
        raise UserError(
            f"{origin}: a document for which no rule set is has nothing to be held to: add one without `kinds` and"
            f" `languages` behind {last.name!r}"
        )
    return sets


def _set(entry: Any, origin: str) -> RuleSet:
    if not isinstance(entry, dict):
        raise UserError(f"{origin}: {entry!r} is no rule set: it must have a `name` and `rules`")
    values = {"rules": [], **entry}
    extends, source = values.pop("extends", None), values.pop("source", RECIPE)
    if isinstance(values["rules"], list):
        values["rules"] = [{"source": source, **rule} if isinstance(rule, dict) else rule for rule in values["rules"]]
    try:
        made = RuleSet.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{origin}: rule set {entry.get('name')!r}: {where}: {first['msg']}") from None
    if twice := _twice(rule.name for rule in made.rules):
        raise UserError(f"{origin}: two rules of {made.name!r} are called {twice!r}, give them different names")
    if extends is None:
        return made
    sets = preset(extends).sets if extends in PRESETS else ()
    if len(sets) != 1:
        alone = ", ".join(name for name in PRESETS if name not in ("auto", "fineweb2"))
        raise UserError(f"{origin}: {made.name!r} can't extend {extends!r}: choose a preset with one rule set, {alone}")
    # A rule of the same name keeps its place.
    rules = {rule.name: rule for rule in (*sets[0].rules, *made.rules)}
    own = {name: getattr(made, name) for name in made.model_fields_set}
    return sets[0].model_copy(update={**own, "rules": tuple(rules.values())})


def _thresholds(languages: Any, origin: str) -> dict[str, dict[str, float]]:
    if not isinstance(languages, dict):
        raise UserError(f"{origin}: `rules` must have a list of rules for each language; whole rules stand in `sets`")
    found: dict[str, dict[str, float]] = {}
    for language, entries in languages.items():
        found[language] = {}
        for entry in entries if isinstance(entries, list) else [entries]:
            name = entry.get("name") if isinstance(entry, dict) else None
            value = entry.get("threshold") if isinstance(entry, dict) else None
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not isinstance(name, str) or not number:
                raise UserError(f"{origin}: under rules.{language}, {entry!r} needs a `name` and a finite `threshold`")
            found[language][name] = float(value)  # type: ignore[arg-type]
    return found


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


@cache
def preset(name: str, compat: str = "") -> RulesFile:
    """A preset's file, or that of another reading."""
    path = _FOLDER / f"{name}-{compat}.yaml" if compat else _FOLDER / f"{name}.yaml"
    return parse_rules(path.read_text(encoding="utf-8"), path.name)


@lru_cache(maxsize=16)
def read_rules(path: str, version: str) -> RulesFile:
    """A rules file of the user's; `version` is the xxh128 it must have. Without a path, an empty one.

    Raises:
        UserError: where the file is missing, has changed, or is no rules file.
    """
    if not path:
        return RulesFile((), {})
    try:
        found = file_digest(path)
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} can't be read as a rules file: correct `curate.rules`") from None
    if found != version:
        raise UserError(f"{path} has changed since the recipe was read: run it again")
    return parse_rules(text, path)


@lru_cache(maxsize=16)
def rule_sets(
    name: str, compat: str = "", file: tuple[str, str] = ("", ""), extra: tuple[Rule, ...] = ()
) -> tuple[RuleSet, ...]:
    """All rule sets that documents may be held to: those of the rules file (place, version), else the preset's.

    The recipe's extra rules are the last of each.
    """
    sets = read_rules(*file).sets or preset(name, compat).sets
    return tuple(rules.model_copy(update={"rules": (*rules.rules, *extra)}) for rules in sets)


def choose(sets: Iterable[RuleSet], kind: str, language: str) -> RuleSet:
    """What a document of this kind of source and language is held to: the first set that is for it."""
    return next(rules for rules in sets if rules.is_for(kind, language))


def thresholds_for(file: tuple[str, str], language: str) -> dict[str, float]:
    """The thresholds of a rules file for one language: its own, and those of `other` where it has none."""
    by_language = read_rules(*file).thresholds
    return {**by_language.get(OTHER, {}), **by_language.get(language, {})}


def with_thresholds(rules: RuleSet, thresholds: Mapping[str, float]) -> RuleSet:
    """The rule set with other numbers. A key is a rule's name, or `set/rule` where only one set is meant."""

    def changed(rule: Rule) -> Rule:
        number = thresholds.get(f"{rules.name}/{rule.name}", thresholds.get(rule.name, rule.threshold))
        return rule if number == rule.threshold else rule.model_copy(update={"threshold": number, "source": RECIPE})

    return rules.model_copy(update={"rules": tuple(map(changed, rules.rules))}) if thresholds else rules


def check_metrics(rules: Iterable[Rule], where: str, others: Iterable[str] = ()) -> None:
    """Raise UserError where a rule asks for a metric that is neither in every run's ledger nor among the others."""
    from datalake.curate.metrics.catalog import NAMES  # loads the kernels

    known = {*NAMES, "blocked", "contaminated_share", *others}
    for rule in rules:
        if rule.metric not in known:
            near = difflib.get_close_matches(rule.metric, sorted(known), n=3)
            like = f"is {' or '.join(near)} meant?" if near else "name a column of the ledger"
            raise UserError(f"{where}: rule {rule.name!r} asks for {rule.metric!r}, which is no metric: {like}")


def check_names(sets: Iterable[RuleSet], names: Iterable[str], where: str, whose: str) -> None:
    """Raise UserError where a name is none of a rule in these sets; `whose` they are is said."""
    rules = {rule.name for one in sets for rule in one.rules}
    known = rules | {f"{one.name}/{rule.name}" for one in sets for rule in one.rules}
    for name in sorted(set(names) - known):
        raise UserError(f"{where}: {whose} has no rule {name!r}; its rules: {', '.join(sorted(rules)) or 'none'}")
