"""What a document is held to: the preset's rules and the recipe's own, in one list.

A recipe's own rules (overlap with evaluation sets, for instance) are rules like the preset's: a metric, an operator, a
threshold. They come after the preset's, so that as a first failed rule each names what it alone rejects; so whoever
judges, asks what another number would keep, explains or draws needs to know of one list only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from datalake.curate.config import CurateConfig
from datalake.curate.presets import RuleSet, choose, rule_sets, with_thresholds
from datalake.curate.rules import CLASSIFIER, Rule
from datalake.curate.thresholds import thresholds_for
from datalake.files import File

RECIPE = "recipe"  # the source of a rule that the recipe asks for
CONTAMINATED, BLOCKED, QUALITY, PERPLEXITY = "contaminated", "blocked", "quality", "perplexity"


def own_rules(config: CurateConfig) -> tuple[Rule, ...]:
    """The recipe's own rules, in the order they are asked."""
    rules = []
    if config.block is not None:
        rules.append(Rule(BLOCKED, BLOCKED, "==", 0, RECIPE))
    if config.toxic is not None and config.toxic.maximum is not None:
        rules.append(Rule("toxic_words", "toxic_words", "<=", config.toxic.maximum, RECIPE))
    if config.toxic is not None and config.toxic.maximum_ratio is not None:
        rules.append(Rule("toxic_ratio", "toxic_ratio", "<=", config.toxic.maximum_ratio, RECIPE))
    if config.pii is not None and config.pii.maximum is not None:
        rules.append(Rule("pii", "pii", "<=", config.pii.maximum, RECIPE))
    if config.decontaminate is not None:
        rules.append(Rule(CONTAMINATED, "contaminated_share", "<=", config.decontaminate.share, RECIPE))
    if config.quality.minimum is not None:
        rules.append(Rule(QUALITY, "quality", ">=", config.quality.minimum, RECIPE))
    for language, models in sorted(config.perplexity.items()):
        if models.maximum is not None:
            rules.append(Rule(PERPLEXITY, "perplexity", "<", models.maximum, RECIPE, (language,)))
    for classifier in config.classifiers:
        metric = f"{CLASSIFIER}{classifier.name}"
        for bound, op, number in (("minimum", ">=", classifier.minimum), ("maximum", "<=", classifier.maximum)):
            if number is not None:
                rules.append(Rule(f"{metric}:{bound}", metric, op, number, RECIPE))
    return tuple(rules)


def rules_in_use(config: CurateConfig) -> list[tuple[str, Rule]]:
    """(rule set, rule) for every rule that a document may be held to, thresholds of the recipe put in."""
    chosen = (with_thresholds(rules, config.thresholds) for rules in rule_sets(config.preset, config.compat))
    return [(rules.name, rule) for rules in chosen for rule in (*rules.rules, *own_rules(config))]


def rules_for(config: CurateConfig, kind: str, language: str) -> RuleSet:
    """The rule set that a document of this source kind and language is held to.

    Numbers of `thresholds` go before those of the rules file, these before the preset's.

    Raises:
        UserError: where the rules file has gone or changed since the recipe was read.
    """
    thresholds = tuple(sorted(config.thresholds.items()))
    return _rules_for(config.preset, config.compat, config.rules, thresholds, own_rules(config), kind, language)


@lru_cache(maxsize=4096)
def _rules_for(
    preset: Any,
    compat: Any,
    file: File,
    thresholds: tuple[tuple[str, float], ...],
    own: tuple[Rule, ...],
    kind: str,
    language: str,
) -> RuleSet:
    proposed: Mapping[str, float] = thresholds_for(file, language)
    chosen = with_thresholds(with_thresholds(choose(preset, kind, language, compat), proposed), dict(thresholds))
    return chosen._replace(rules=(*chosen.rules, *own))
