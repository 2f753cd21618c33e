"""What a user may set about thresholds from the corpus. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from datalake.curate.rules import Rule, RuleSet
from datalake.curate.rules_file import Compat, Preset, rule_sets
from datalake.identity import Place

Method = Literal["sigma", "quantile", "reference"]


class ThresholdsConfig(BaseModel):
    """Thresholds from the corpus itself: how they are found, and from how many documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = Field(
        default="sigma",
        title="Method",
        description="`sigma`: mean and standard deviations on a suitable scale; `quantile`: cut the worst share; "
        "`reference`: cut the share that the published threshold cuts in a reference language",
    )
    sigmas: float = Field(
        default=3.0, gt=0, le=100, title="Standard deviations", description="From the mean to the threshold (`sigma`)"
    )
    cut: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        title="Share cut",
        description="At most this share of the documents fails a rule (`quantile`); half of it on each side of a "
        "metric that is bounded on both",
    )
    reference: str = Field(
        default="en",
        pattern=r"^[a-z]{2,3}$",
        title="Reference language",
        description="The language whose published thresholds are carried over (`reference`)",
    )
    min_documents: int = Field(
        default=100,
        ge=2,
        title="Fewest documents",
        description="Languages with fewer are pooled as `other`; a rule about fewer keeps its published threshold",
    )
    spike: float = Field(
        default=0.9,
        gt=0,
        le=1,
        title="Spike",
        description="Where one value is held by this share of the documents, the published threshold is kept",
    )
    preset: Preset | None = Field(
        default=None, title="Preset", description="Whose rules are asked about; filled in from `curate`"
    )
    compat: Compat = Field(default="", title="Its reading", description="As `curate.compat`; filled in from it")
    rules: Annotated[str, Place()] = Field(
        default="", title="Rules file", description="As `curate.rules`; filled in from it"
    )
    rules_version: str = Field(default="", title="Rules version", description="As `curate.rules_version`")
    extra_rules: tuple[Rule, ...] = Field(
        default=(), title="Rules of the recipe's own", description="As `curate.extra_rules`; filled in from it"
    )

    @property
    def rule_sets(self) -> tuple[RuleSet, ...]:
        """The rule sets asked about, those without rules included."""
        return rule_sets(self.preset or "auto", self.compat, (self.rules, self.rules_version), self.extra_rules)
