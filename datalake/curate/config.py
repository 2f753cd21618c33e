"""What a user may set about curation. Imports nothing heavier than pydantic."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.checks.lists_config import BlockConfig, ToxicConfig
from datalake.curate.checks.pii_config import PiiConfig
from datalake.curate.metrics import user
from datalake.curate.rules import (
    BLOCKED,
    CLASSIFIER,
    CONTAMINATED,
    EMPTY,
    LANGUAGE,
    PERPLEXITY,
    QUALITY,
    Operator,
    Rule,
    RuleSet,
)
from datalake.curate.rules_file import Compat, Preset, check_metrics, check_names, compats, read_rules, rule_sets
from datalake.curate.scores.config import ClassifierConfig, PerplexityModel, QualityUse
from datalake.files import File
from datalake.functions import Function, absolute
from datalake.identity import Place
from datalake.text.language_code import LanguageCode


class CurateConfig(BaseModel):
    """Curation: which rules a document is held to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = Field(
        default="auto",
        title="Preset",
        description="The rules: `auto` chooses by language and source, `none` keeps all, the others are those of the "
        "corpus they are named after",
    )
    compat: Compat = Field(
        default="",
        title="Reading of the preset",
        description="Another published reading: `paper` (c4, fineweb), `datatrove` (gopher, c4), `starcoder` (code); "
        "empty is the one its own code has",
    )
    thresholds: dict[str, float] = Field(
        default_factory=dict,
        title="Other thresholds",
        description="Rule name to number, in place of the preset's; `set/rule` where only one rule set is meant, "
        "for instance `wiki/min_words`",
    )
    rules: File = Field(
        default=File(),
        title="Rules file",
        description="A rules.yaml of the stage `thresholds`: other thresholds by language; or a copy of a preset's "
        "file: its rule sets stand in place of the preset's. `thresholds` goes before it",
    )
    extra_rules: tuple[Rule, ...] = Field(
        default=(),
        title="Rules of the recipe's own",
        description="Asked of every document behind the preset's rules: `{name, metric, op, threshold}`, for "
        "`languages` alone where these are given; `source` says where the threshold is from",
    )
    languages: tuple[LanguageCode, ...] | None = Field(
        default=None,
        min_length=1,
        title="Languages kept",
        description="Codes as lid.176 names them (en, zh, und); empty keeps all. Code is not asked for its language",
    )
    decontaminate: DecontaminateConfig | None = Field(
        default=None,
        title="Decontamination",
        description="Evaluation sets whose n-grams are cut from documents, or cost them; empty doesn't look for any",
    )
    block: BlockConfig | None = Field(
        default=None,
        title="Block lists",
        description="Lists of domains, addresses and words in addresses from which nothing is kept; empty has none",
    )
    toxic: ToxicConfig | None = Field(
        default=None,
        title="Toxic words",
        description="Lists of words that are counted in texts; empty counts none",
    )
    pii: PiiConfig | None = Field(
        default=None,
        title="Personal data",
        description="E-mail addresses, numbers of people and the like are counted, and replaced by placeholders in "
        "what is kept; empty looks for none",
    )
    quality: QualityUse = Field(
        default_factory=QualityUse,
        title="Quality",
        description="The least quality, and a ready classifier in place of the one that the recipe's `quality` trains",
    )
    perplexity: dict[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], PerplexityModel] = Field(
        default_factory=dict,
        title="Perplexity",
        description="Language, as lid.176 names it, to the models that tell a document's perplexity in it",
    )
    classifiers: tuple[ClassifierConfig, ...] = Field(
        default=(), title="Classifiers", description="Transformers models whose scores are stored, and may be asked for"
    )
    metrics: Annotated[tuple[str, ...], Place()] = Field(
        default=(),
        title="Own metrics",
        description="Functions of a text and its language, as `FILE.py:function` or `package.module:function`: a "
        "column each, of that name; `${recipe}/FILE.py` lies beside the recipe",
    )
    metric_functions: tuple[Function, ...] = Field(
        default=(), title="Functions of own metrics", description="What they say; filled in when left empty"
    )

    kinds: dict[str, str] = Field(
        default_factory=dict,
        title="Kinds of named sources",
        description="Source name to kind, since `auto` goes by kind: `{novels: books}` holds a table called novels to "
        "the rules for books. Kinds are those of sources; of sources not named here their own, filled in",
    )

    @property
    def rule_sets(self) -> tuple[RuleSet, ...]:
        """All rule sets that documents may be held to, as they are published or the rules file has them.

        Raises:
            UserError: where the rules file has gone or changed since the recipe was read.
        """
        return rule_sets(self.preset, self.compat, self.rules, self.extra_rules)

    @property
    def own_rules(self) -> tuple[Rule, ...]:
        """What sections of the recipe ask of documents, in the order they are asked, behind the rules of all sets."""
        asked: list[tuple[str, str, Operator, float | None, str | None]] = [
            (BLOCKED, BLOCKED, "==", None if self.block is None else 0, None),
            ("toxic_words", "toxic_words", "<=", getattr(self.toxic, "maximum", None), None),
            ("toxic_ratio", "toxic_ratio", "<=", getattr(self.toxic, "maximum_ratio", None), None),
            ("pii", "pii", "<=", getattr(self.pii, "maximum", None), None),
            (CONTAMINATED, f"{CONTAMINATED}_share", "<=", getattr(self.decontaminate, "share", None), None),
            (QUALITY, "quality", ">=", self.quality.minimum, None),
        ]
        for language, models in sorted(self.perplexity.items()):
            asked.append((PERPLEXITY, "perplexity", "<", models.maximum, language))
        for classifier in self.classifiers:
            metric = f"{CLASSIFIER}{classifier.name}"
            asked.append((f"{metric}:minimum", metric, ">=", classifier.minimum, None))
            asked.append((f"{metric}:maximum", metric, "<=", classifier.maximum, None))
        return tuple(
            Rule(name=name, metric=metric, op=op, threshold=number, languages=language and (language,))
            for name, metric, op, number, language in asked
            if number is not None
        )

    @model_validator(mode="before")
    @classmethod
    def _functions_read(cls, values: Any) -> Any:
        return _with_functions(values)

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> CurateConfig:
        for name, value in self.thresholds.items():
            if not math.isfinite(value):
                raise ValueError(f"curate.thresholds: {name} is {value}, give a finite number")
        called = [classifier.name for classifier in self.classifiers]
        if twice := [name for name in called if called.count(name) > 1]:
            raise ValueError(f"curate.classifiers: two are called {twice[0]!r}, give them different names")
        if self.compat and self.compat not in compats(self.preset):
            others = " or ".join(compats(self.preset)) or "none"
            raise ValueError(f"curate.compat: preset {self.preset!r} has no reading {self.compat!r}; it has {others}")
        # A manifest may name a file that has gone or changed since: it is still a recipe to be read.
        if self.rules and not self.rules.is_there():
            return self
        file, where = read_rules(self.rules), f"curate.rules ({self.rules.path})"
        whose = "the rules file" if file.sets else f"preset {self.preset!r}"
        check_names(self.rule_sets, self.thresholds, "curate.thresholds", whose)
        check_names(self.rule_sets, (name for names in file.thresholds.values() for name in names), where, whose)
        self._check_names_of_extra_rules()
        if not (info.context or {}).get("stored"):  # the catalog of metrics takes its time
            if file.sets:
                check_metrics((rule for rules in file.sets for rule in rules.rules), where, self._metrics)
            if self.extra_rules:
                check_metrics(self.extra_rules, "curate.extra_rules", self._metrics)
        return self

    def _check_names_of_extra_rules(self) -> None:
        where, taken = "curate.extra_rules", {LANGUAGE, EMPTY, *(rule.name for rule in self.own_rules)}
        taken |= {rule.name for rules in self.rule_sets for rule in rules.rules[: -len(self.extra_rules) or None]}
        for k, rule in enumerate(self.extra_rules):
            if rule.name in taken:
                raise ValueError(f"{where}: there is a rule {rule.name!r} already: give this one another name")
            if rule.name in (other.name for other in self.extra_rules[:k]):
                raise ValueError(f"{where}: two rules are called {rule.name!r}: give them different names")

    @property
    def _metrics(self) -> list[str]:
        """Metrics that this recipe adds to those of every run: its functions' and its classifiers'."""
        return user.names(self) + [f"{CLASSIFIER}{classifier.name}" for classifier in self.classifiers]


def _with_functions(values: Any) -> Any:
    """A config's values with what its own metrics say: it stands for them, wherever they lie."""
    given = isinstance(values, dict) and not values.get("metric_functions") and values.get("metrics")
    if not isinstance(given, list | tuple) or not all(isinstance(entry, str) for entry in given):
        return values
    from datalake.curate.schema import CURATION  # imports Arrow, which a recipe without own metrics doesn't need
    from datalake.tables import RAW

    taken = {*CURATION.names, *RAW.names, *_LEDGER}
    places = [absolute(entry) for entry in given]  # a worker may stand in another folder
    return {**values, "metrics": places, "metric_functions": user.read(places, taken)}


_LEDGER = ("duplicate_of", "similarity", "cut", "cut_by")  # columns that the ledger has besides
