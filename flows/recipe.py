"""The Recipe: what a run is. One pydantic model, read from YAML, drawn as a form in the Prefect UI.

It is composed of the config models that live beside the code they configure. Each section but `corpus` and `sources`
has defaults; a training section set to null is left out. `${name}` stands for a variable: `--set vars.name=...`, else
the environment's HEADWATER_NAME, else the recipe's `vars`; `${recipe}` is the folder the recipe lies in.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from datalake.curate.config import CurateConfig
from datalake.curate.quality_config import QualityConfig
from datalake.curate.thresholds import ThresholdsConfig
from datalake.dedup.config import DedupConfig
from datalake.errors import UserError
from datalake.mixture.config import MixtureConfig
from datalake.sources.config import Source
from flows.stages import STAGES, StageName
from models.evaluation.config import EvaluateConfig
from models.text.config import TokenizerConfig
from models.training.config import PpoConfig, PretrainConfig, RewardConfig, SftConfig
from tasks.runtime import RuntimeConfig

__all__ = ["STAGES", "Recipe", "StageName", "explain", "load", "override", "validate"]

# Names a corpus can't have: the lake's own namespaces, and schemas DuckDB keeps for itself.
_TAKEN = {"runs", "models", "main", "temp", "system", "information_schema", "pg_catalog"}
# Kinds of sources that give no documents.
_DIALOGUES = {"conversations", "preferences"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Recipe(BaseModel):
    """What to read, how to clean it, what to train on it. `corpus` and `sources` are enough."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str = Field(
        title="Corpus",
        description="Namespace of the lake's tables: a lower-case identifier such as `samples`",
        max_length=64,
    )
    vars: dict[str, str] = Field(
        default_factory=dict, title="Variables", description="Values for ${name}; HEADWATER_NAME goes before them"
    )
    sources: list[Source] = Field(title="Sources", description="Where records come from", min_length=1)
    quality: QualityConfig | None = Field(
        default=None, title="Quality classifier", description="Trained from labelled texts for curation; null: none is"
    )
    curate: CurateConfig = Field(default_factory=CurateConfig, title="Curation")
    thresholds: ThresholdsConfig | None = Field(
        default=None, title="Thresholds from the corpus", description="Proposed for the next curation; null: none are"
    )
    deduplicate: DedupConfig = Field(default_factory=DedupConfig, title="Deduplication")
    mixture: MixtureConfig = Field(default_factory=MixtureConfig, title="Mixture")
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig, title="Tokenizer")
    pretrain: PretrainConfig | None = Field(default_factory=PretrainConfig, title="Pretraining")
    sft: SftConfig | None = Field(default_factory=SftConfig, title="Supervised fine-tuning")
    reward: RewardConfig | None = Field(default_factory=RewardConfig, title="Reward model")
    ppo: PpoConfig | None = Field(default_factory=PpoConfig, title="PPO")
    evaluate: EvaluateConfig | None = Field(default_factory=EvaluateConfig, title="Evaluation")
    runtime: RuntimeConfig = Field(
        default_factory=RuntimeConfig, title="Runtime", description="How wide to work; never part of identity"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_variables(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = data.get("vars") or {}
        if not isinstance(given, dict):
            return data
        values = _Environment(given)
        return {key: value if key == "vars" else _filled(value, values) for key, value in data.items()}

    @field_validator("corpus")
    @classmethod
    def _is_identifier(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", value):
            raise ValueError(f"{value!r} is not an identifier: use lower-case letters, digits and underscores")
        if value in _TAKEN:
            raise ValueError(f"{value!r} is taken: choose another name")
        return value

    @model_validator(mode="after")
    def _one_kind_a_name(self) -> Recipe:
        kinds: dict[str, str] = {}
        for source in self.sources:
            if kinds.setdefault(source.label, source.kind) != source.kind:
                raise ValueError(f"sources of two kinds are called {source.label!r}: give them different names")
        return self

    @property
    def curate_by_kind(self) -> CurateConfig:
        """Curation that knows the kind of every source with a name of its own."""
        kinds = {s.label: s.kind for s in self.sources if s.kind not in _DIALOGUES and s.label != s.kind}
        return self.curate.model_copy(update={"kinds": kinds | self.curate.kinds}) if kinds else self.curate

    @model_validator(mode="after")
    def _weights_and_order_name_sources(self) -> Self:
        known = {source.label for source in self.sources}
        for where, names in (
            ("mixture.weights", self.mixture.weights),
            ("deduplicate.sources", self.deduplicate.sources),
        ):
            for name in names:
                if name not in known:
                    there = ", ".join(sorted(known))
                    raise ValueError(f"{where} names {name!r}, which is no source: there are {there}")
        return self

    @model_validator(mode="after")
    def _one_quality_classifier(self) -> Self:
        if self.quality is not None and self.curate.quality.model:
            raise ValueError(
                "curate.quality.model and the section `quality` are two classifiers: leave one of them out"
            )
        if self.quality is None and self.curate.quality.minimum is not None and not self.curate.quality.model:
            raise ValueError(
                "curate.quality.minimum: nothing tells a document's quality: give the section `quality` labelled texts,"
                " or name a ready model in `curate.quality.model`"
            )
        if self.quality is None and "quality" in self.deduplicate.precedence and not self.curate.quality.model:
            raise ValueError(
                "deduplicate.precedence: nothing tells a document's quality: give the section `quality` labelled texts,"
                " or name a ready model in `curate.quality.model`, or leave `quality` out"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_have_rules(self) -> Self:
        preset = self.curate.preset
        if self.thresholds is not None and preset == "none":
            raise ValueError("thresholds: there are no rules to ask about: choose a `curate.preset` other than none")
        if self.thresholds is not None and self.thresholds.preset not in (None, preset):
            raise ValueError(
                f"thresholds.preset is {self.thresholds.preset!r} and curate.preset {preset!r}: leave it out"
            )
        return self

    @property
    def thresholds_of_preset(self) -> ThresholdsConfig | None:
        """The thresholds section, asking about the rules that curation uses."""
        return self.thresholds and self.thresholds.model_copy(
            update={"preset": self.curate.preset, "compat": self.curate.compat}
        )

    @property
    def dedup_in_order(self) -> DedupConfig:
        """Deduplication with the recipe's order of sources as the order of precedence, unless one is given."""
        if self.deduplicate.sources:
            return self.deduplicate
        labels = tuple(dict.fromkeys(source.label for source in self.sources if source.kind not in _DIALOGUES))
        return self.deduplicate.model_copy(update={"sources": labels})

    def skipped(self, until: str | None = None) -> dict[str, str]:
        """Stages that this recipe doesn't run, and why."""
        kinds = {source.kind for source in self.sources}
        reasons: dict[str, str] = {}
        if not kinds - _DIALOGUES:
            for stage in STAGES[1:9]:
                reasons[stage] = "no source of documents"
        for stage in ("quality", "thresholds", "pretrain", "sft", "reward", "ppo", "evaluate"):
            if getattr(self, stage) is None:
                reasons.setdefault(stage, f"`{stage}` is null in the recipe")
        needs = {"sft": "pretrain", "reward": "sft", "ppo": "reward", "evaluate": "pretrain"}
        if "conversations" not in kinds:
            reasons.setdefault("sft", "no source of conversations")
        if "preferences" not in kinds:
            reasons.setdefault("reward", "no source of preferences")
        for later, needed in needs.items():
            if needed in reasons:
                reasons.setdefault(later, f"it needs {needed}")
        if until is not None:
            for stage in STAGES[STAGES.index(until) + 1 :]:
                reasons[stage] = f"after --until {until}"
        return {stage: reasons[stage] for stage in STAGES if stage in reasons}


def _filled(value: Any, given: Mapping[str, Any]) -> Any:
    """The value with every ${name} replaced, however deep."""
    if isinstance(value, str):

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if name not in given:
                raise ValueError(
                    f"${{{name}}} has no value: set HEADWATER_{name.upper()}, or --set vars.{name}=..., or `vars`"
                )
            return str(given[name])

        return _VARIABLE.sub(fill, value)
    if isinstance(value, dict):
        return {key: _filled(item, given) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, given) for item in value]
    return value


class _Environment(dict[str, str]):
    """Values of variables: the environment's HEADWATER_NAME goes before the recipe's own."""

    def __contains__(self, name: object) -> bool:
        return bool(os.environ.get(f"HEADWATER_{str(name).upper()}")) or super().__contains__(name)

    def __getitem__(self, name: str) -> str:
        return os.environ.get(f"HEADWATER_{name.upper()}") or super().__getitem__(name)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `a.b=c` overrides and validate it.

    Raises:
        UserError: in one line, for a file that isn't there, an unknown key, a value out of bounds.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe at {path}: the ones at hand are {_at_hand()}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name a recipe, a YAML file") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): correct the path or its permissions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a recipe: it must be a mapping with `corpus` and `sources`")
    # What --set names goes before the environment, so it is filled in first.
    chosen = override(data, overrides)
    return validate(at_home(data, path.parent, chosen), str(path))


def at_home(data: dict[str, Any], folder: Path, chosen: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The data of a recipe with ${recipe}, the folder it lies in, and the variables `chosen` filled in."""
    given = {"recipe": str(folder), **(chosen or {})}
    return {key: value if key == "vars" else _partly_filled(value, given) for key, value in data.items()}


def _partly_filled(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: given.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: _partly_filled(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [_partly_filled(item, given) for item in value]
    return value


def override(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Apply `a.b=c` (values in YAML, list items by number) in place; returns the variables set that way.

    Raises:
        UserError: where an override has no `=` or walks through something that isn't there.
    """
    chosen: dict[str, str] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: write it as key=value, such as deduplicate.threshold=0.7")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        target: Any = data
        *parents, last = key.strip().split(".")
        try:
            for name in parents:
                if isinstance(target, dict) and target.get(name) is None:
                    target[name] = {}  # not in the file, or null there
                target = target[int(name)] if isinstance(target, list) else target[name]
            if isinstance(target, list):
                target[int(last)] = parsed
            else:
                target[last] = parsed
        except (TypeError, ValueError, IndexError, AttributeError):
            raise UserError(f"--set {text}: the recipe has nothing at {key.strip()}") from None
        if parents == ["vars"]:
            chosen[last] = target[last] = str(parsed)
    return chosen


def validate(data: Any, origin: str) -> Recipe:
    """The recipe in `data`. Raises UserError with the first mistake in one line."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{origin}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """The first mistake of a validation, in one line that says what to do."""
    first, more = error.errors()[0], error.error_count() - 1
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        known = _keys_at(Recipe, parents)
        near = difflib.get_close_matches(str(name), known, 1)
        text = f"unknown key {place!r}" + (
            f": did you mean {near[0]!r}?" if near else f": known are {', '.join(known)}"
        )
    elif first["type"] == "missing":
        text = f"{place!r} is missing"
    elif first["type"] == "model_type":
        given = "null" if first["input"] is None else f"{first['input']!r}"
        text = f"{place}: a section of keys is wanted, not {given}: leave it out for its defaults"
    else:
        given = first.get("input")
        shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
        message = first["msg"].removeprefix("Value error, ")
        if not place or message.startswith((f"{place}:", f"{place}.")):  # the message says where itself
            text = message
        else:
            text = f"{place}: {message[0].lower() + message[1:]}{shown}"
    return text + (f" (and {more} more mistake{'s' if more > 1 else ''})" if more else "")


def _keys_at(model: Any, parts: Sequence[Any]) -> list[str]:
    """Names a section knows; a part may be a field, a number in a list, or the tag of a union."""
    for part in parts:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = fields[part].annotation
        candidates = _models_in(model)
        tagged = [m for m in candidates if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        model = (tagged or candidates or [model])[0]
    return sorted(getattr(model, "model_fields", ()))


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _at_hand() -> str:
    folder = Path(__file__).parent.parent / "recipes"
    return ", ".join(f"recipes/{path.name}" for path in sorted(folder.glob("*.yaml"))) or "none"
