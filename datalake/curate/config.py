"""What a user may set about curation. Imports nothing heavier than pydantic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.checks.lists_config import BlockConfig, ToxicConfig
from datalake.curate.checks.pii_config import PiiConfig
from datalake.curate.metrics import user
from datalake.curate.presets import Compat, Preset, check_thresholds
from datalake.curate.scores.config import ClassifierConfig, PerplexityModel, QualityUse
from datalake.curate.thresholds import read_rules, with_rules_version
from datalake.errors import UserError
from datalake.identity import Place, file_digest
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
    rules: Annotated[str, Place()] = Field(
        default="",
        title="Rules file",
        description="A rules.yaml of the stage `thresholds`: other thresholds by language; `thresholds` goes before it",
    )
    rules_version: str = Field(
        default="", title="Rules version", description="xxh128 of the rules file; filled in when left empty"
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
    metric_functions: tuple[user.MetricFunction, ...] = Field(
        default=(), title="Functions of own metrics", description="What they say; filled in when left empty"
    )

    kinds: dict[str, str] = Field(
        default_factory=dict,
        title="Kinds of named sources",
        description="Source name to kind, since `auto` goes by kind: `{novels: books}` holds a table called novels to "
        "the rules for books. Kinds are those of sources; of sources not named here their own, filled in",
    )

    @model_validator(mode="before")
    @classmethod
    def _version_of_rules(cls, values: Any) -> Any:
        return _with_functions(with_rules_version(values))

    @model_validator(mode="after")
    def _known(self) -> CurateConfig:
        for name, value in self.thresholds.items():
            if not math.isfinite(value):
                raise ValueError(f"curate.thresholds: {name} is {value}, give a finite number")
        called = [classifier.name for classifier in self.classifiers]
        if twice := [name for name in called if called.count(name) > 1]:
            raise ValueError(f"curate.classifiers: two are called {twice[0]!r}, give them different names")
        check_thresholds(self.preset, self.thresholds, self.compat)
        # A manifest may name a file that has gone or changed since: it is still a recipe to be read.
        if self.rules and Path(self.rules).is_file() and file_digest(self.rules) == self.rules_version:
            names = {name: 0.0 for rules in read_rules(self.rules, self.rules_version).values() for name in rules}
            try:
                check_thresholds(self.preset, names, self.compat)
            except UserError as error:
                raise ValueError(str(error).replace("curate.thresholds", f"curate.rules ({self.rules})")) from None
        return self


def _with_functions(values: Any) -> Any:
    """A config's values with what its own metrics say: it stands for them, wherever they lie."""
    given = isinstance(values, dict) and not values.get("metric_functions") and values.get("metrics")
    if not isinstance(given, list | tuple) or not all(isinstance(entry, str) for entry in given):
        return values
    from datalake.curate.schema import CURATION  # imports Arrow, which a recipe without own metrics doesn't need
    from datalake.document import RAW

    taken = {*CURATION.names, *RAW.names, *_LEDGER}
    places = [user.absolute(entry) for entry in given]  # a worker may stand in another folder
    return {**values, "metrics": places, "metric_functions": user.read(places, taken)}


_LEDGER = ("duplicate_of", "similarity", "cut", "cut_by")  # columns that the ledger has besides
