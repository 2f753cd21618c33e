"""What a user may set about thresholds from the corpus, and the file that carries them into curation.

A rules file (`rules.yaml`) holds, under `rules`, a list of `{name, threshold, ...}` for each language and for `other`,
which stands for every language without a rule of that name. A name is `set/rule`, or a rule's name where all sets are
meant. Imports nothing heavier than pydantic and YAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from datalake.curate.presets import Compat, Preset
from datalake.errors import UserError
from datalake.files import File
from datalake.text.yaml_text import YamlError, read_yaml

OTHER = "other"
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


def parse_rules(text: str, origin: str) -> dict[str, dict[str, float]]:
    """Language to rule name to threshold, from the text of a rules file.

    Raises:
        UserError: in one line, where it is no such file.
    """
    try:
        data = read_yaml(text)
    except YamlError as error:
        raise UserError(f"{origin} is not YAML: {error}") from None
    rules = data.get("rules") if isinstance(data, dict) else None
    if not isinstance(rules, dict):
        raise UserError(f"{origin} is no rules file: it must have `rules`, a list of rules for each language")
    found: dict[str, dict[str, float]] = {}
    for language, entries in rules.items():
        found[language] = {}
        for entry in entries if isinstance(entries, list) else [entries]:
            name = entry.get("name") if isinstance(entry, dict) else None
            value = entry.get("threshold") if isinstance(entry, dict) else None
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not isinstance(name, str) or not number:
                raise UserError(f"{origin}: under rules.{language}, {entry!r} needs a `name` and a finite `threshold`")
            found[language][name] = float(value)  # type: ignore[arg-type]
    return found


@lru_cache(maxsize=16)
def read_rules(file: File) -> Mapping[str, Mapping[str, float]]:
    """What a rules file says, language to rule name to threshold.

    Raises:
        UserError: where the file is missing, has changed, or is no rules file.
    """
    file.check("curate.rules")
    try:
        text = Path(file.path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{file.path} can't be read as a rules file: correct `curate.rules`") from None
    return parse_rules(text, file.path)


def thresholds_for(file: File, language: str) -> dict[str, float]:
    """The thresholds of a rules file for one language: its own, and those of `other` where it has none."""
    if not file:
        return {}
    rules = read_rules(file)
    return {**rules.get(OTHER, {}), **rules.get(language, {})}
