"""The Recipe: what a run is. One pydantic model, read from YAML, drawn as a form in the Prefect UI.

It is composed of the config models that live beside the code they configure. Each section but `corpus` and `sources`
has defaults; a training section set to null is left out. `${name}` stands for a variable: `--set vars.name=...`, else
the environment's HEADWATER_NAME, else the recipe's `vars`; `${recipe}` is the folder the recipe lies in.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from datalake.curate.config import CurateConfig
from datalake.curate.scores.config import QualityConfig
from datalake.curate.thresholds import ThresholdsConfig
from datalake.dedup.config import DedupConfig
from datalake.errors import UserError
from datalake.functions import beside
from datalake.mixture.config import MixtureConfig, Shares
from datalake.secrets import MASK, is_secret, masked, remember
from datalake.sources import KINDS, Source
from datalake.text.yaml_text import YamlError, read_yaml
from models.evaluation.config import EvaluateConfig
from models.methods import METHODS
from models.network.config import OpenModel
from models.synthesis.config import FeedbackConfig, InstructConfig
from models.text.config import TokenizerConfig
from models.training.config import TrainingConfig
from tasks.runtime import RuntimeConfig

__all__ = [
    "Recipe",
    "explain",
    "load",
    "override",
    "read",
    "validate",
    "whereabouts",
    "without_secrets",
]

# Names a corpus can't have: the lake's own namespaces, and schemas and databases DuckDB keeps for itself.
_TAKEN = {"runs", "models", "main", "temp", "system", "information_schema", "pg_catalog"}
_LARGEST_FILE = 16 << 20  # bytes of a recipe
_LARGEST = 2**63 - 1  # of the integers that what reads a recipe can hold
# Kinds of sources that give no documents.
_DIALOGUES = {"conversations", "preferences"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


# A section for each method of training: one that a recipe doesn't name has its defaults, or is null.
_SECTIONS: dict[str, Any] = {
    name: (
        method.config | None,
        Field(default_factory=method.config, title=method.title)
        if method.default
        else Field(default=None, title=method.title),
    )
    for name, method in METHODS.items()
}
_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_Methods = create_model("_Methods", __config__=_STRICT, **_SECTIONS)


def _in_order(schema: dict[str, Any]) -> None:
    """The sections as the pipeline has them: those of the methods stand where `base` does, after it."""
    properties = schema["properties"]
    methods = {name: properties.pop(name) for name in METHODS if name in properties}
    schema["properties"] = {}
    for name, section in properties.items():
        schema["properties"][name] = section
        if name == "base":
            schema["properties"] |= methods


class Recipe(_Methods):
    """What to read, how to clean it, what to train on it. `corpus` and `sources` are enough."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_in_order)

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
    base: OpenModel | None = Field(
        default=None,
        title="Base model",
        description="A local Hugging Face folder or GGUF file to start from: `pretrain` continues it, or is null",
    )
    instruct: InstructConfig | None = Field(
        default=None, title="Self-instruct", description="Dialogues for `sft` that a model writes; null: none are"
    )
    feedback: FeedbackConfig | None = Field(
        default=None, title="Constitution", description="Preferences by principles, from a model; null: none are"
    )
    evaluate: EvaluateConfig | None = Field(default_factory=EvaluateConfig, title="Evaluation")
    runtime: RuntimeConfig = Field(
        default_factory=RuntimeConfig, title="Runtime", description="How wide to work; never part of identity"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_variables(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or (info.context or {}).get("stored"):
            return data
        given = data.get("vars") or {}
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            return data
        values = _Variables(given)
        filled = {key: value if key == "vars" else _filled(value, values) for key, value in data.items()}
        remember(value for name, value in values.used.items() if is_secret(name))
        return filled | {"vars": given | values.used}

    @model_serializer(mode="wrap")
    def _without_secrets(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON, which is kept and shown, a secret variable is its name again, such as `${token}`."""
        data: dict[str, Any] = dump(self)
        if info.mode != "json":
            return data
        hidden = {value: f"${{{name}}}" for name, value in self.vars.items() if value and is_secret(name)}
        if isinstance(data.get("vars"), dict):
            data["vars"] = {name: value for name, value in data["vars"].items() if not is_secret(name)}
        found: dict[str, Any] = masked(_renamed(data, hidden))
        return found

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe of a YAML file. Raises UserError, in one line, for a file that isn't there or a mistake in it."""
        return load(path, overrides)

    @classmethod
    def stored(cls, data: Mapping[str, Any]) -> Self:
        """A recipe as a manifest keeps it: variables whose values weren't kept stay as they are written."""
        return cls.model_validate(data, context={"stored": True})

    @model_validator(mode="after")
    def _numbers_are_numbers(self) -> Self:
        for place, number in _numbers(self, ""):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{place}: {number} is no amount of anything: give a finite number")
            if isinstance(number, int) and abs(number) > _LARGEST:
                raise ValueError(f"{place}: an integer of more digits than are ever needed: at most {_LARGEST:,}")
        return self

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

    @model_validator(mode="after")
    def _kinds_are_of_sources(self, info: ValidationInfo) -> Recipe:
        if (info.context or {}).get("stored"):
            return self
        labels = {source.label for source in self.sources}
        for name, kind in self.curate.kinds.items():
            if kind not in KINDS:
                raise ValueError(f"curate.kinds: {kind!r} is no kind of source: choose one of {', '.join(KINDS)}")
            if labels and name not in labels:
                raise ValueError(f"curate.kinds: no source is called {name!r}; there are {', '.join(sorted(labels))}")
        return self

    def method(self, name: str) -> TrainingConfig | None:
        """The section of a method of training; None where it is null."""
        section: TrainingConfig | None = getattr(self, name)
        return section

    @property
    def curate_by_kind(self) -> CurateConfig:
        """Curation that knows the kind of every source with a name of its own."""
        kinds = {s.label: s.kind for s in self.sources if s.kind not in _DIALOGUES and s.label != s.kind}
        return self.curate.model_copy(update={"kinds": kinds | self.curate.kinds}) if kinds else self.curate

    @model_validator(mode="after")
    def _weights_and_order_name_sources(self) -> Self:
        known = {source.label for source in self.sources}
        pretrain: Any = self.method("pretrain")
        mixtures: dict[str, Shares] = {"mixture": self.mixture}
        for number, phase in enumerate(pretrain.phases if pretrain else ()):
            mixtures[f"pretrain.phases.{number}.mixture"] = phase.mixture
        for where, names in (
            *((f"{place}.weights", shares.weights) for place, shares in mixtures.items()),
            *((f"{place}.caps", shares.caps) for place, shares in mixtures.items()),
            ("deduplicate.sources", self.deduplicate.sources),
            ("sft.weights", self.sft.weights if self.sft else {}),  # type: ignore[attr-defined]
        ):
            for name in names:
                if name not in known:
                    there = ", ".join(sorted(known))
                    raise ValueError(f"{where} names {name!r}, which is no source: there are {there}")
        return self

    @model_validator(mode="after")
    def _searches_have_documents(self) -> Self:
        if all(source.kind in _DIALOGUES for source in self.sources):
            for name in METHODS:
                if getattr(self.method(name), "searches", False):
                    raise ValueError(
                        f"{name}.tools: search looks through the recipe's documents, and it has none: add a source of"
                        " documents, or leave search out"
                    )
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
        if self.thresholds is not None and preset == "none" and not any(s.rules for s in self.curate.rule_sets):
            raise ValueError("thresholds: there are no rules to ask about: choose a `curate.preset` other than none")
        if self.thresholds is not None and self.thresholds.preset not in (None, preset):
            raise ValueError(
                f"thresholds.preset is {self.thresholds.preset!r} and curate.preset {preset!r}: leave it out"
            )
        return self

    @property
    def thresholds_of_preset(self) -> ThresholdsConfig | None:
        """The thresholds section, asking about the rules that curation uses."""
        names = ("preset", "compat", "rules", "extra_rules")
        return self.thresholds and self.thresholds.model_copy(update={n: getattr(self.curate, n) for n in names})

    @property
    def dedup_in_order(self) -> DedupConfig:
        """Deduplication with the recipe's order of sources as the order of precedence, unless one is given."""
        if self.deduplicate.sources:
            return self.deduplicate
        labels = tuple(dict.fromkeys(source.label for source in self.sources if source.kind not in _DIALOGUES))
        return self.deduplicate.model_copy(update={"sources": labels})


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The value with each text of `names` replaced, however deep; the longest goes first."""
    if isinstance(value, str):
        for text in sorted(names, key=len, reverse=True):
            value = value.replace(text, names[text]) if len(text) > 3 or value == text else value
        return value
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value


def _numbers(value: Any, place: str) -> Iterator[tuple[str, int | float]]:
    """Every number in a recipe and where it is."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _numbers(getattr(value, name), f"{place}.{name}".removeprefix("."))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{place}[{index}]")


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


class _Variables(dict[str, str]):
    """Values of variables: the environment's HEADWATER_NAME goes before the recipe's own. Keeps those asked for."""

    def __init__(self, given: Mapping[str, str]):
        super().__init__(given)
        self.used = {name: self[name] for name in given}

    def __contains__(self, name: object) -> bool:
        return bool(os.environ.get(f"HEADWATER_{str(name).upper()}")) or super().__contains__(name)

    def __getitem__(self, name: str) -> str:
        value = os.environ.get(f"HEADWATER_{name.upper()}") or super().__getitem__(name)
        if hasattr(self, "used"):
            self.used[name] = value
        return value


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `a.b=c` overrides and validate it.

    Raises:
        UserError: in one line, for a file that isn't there, an unknown key, a value out of bounds.
    """
    path = Path(path)
    data = read(path)
    # What --set names goes before the environment, so it is filled in first.
    chosen = override(data, overrides)
    return validate(at_home(data, path.parent, chosen), str(path))


def read(path: Path) -> dict[str, Any]:
    """The data of a recipe's file, not yet filled in or validated. Raises UserError as `load` does."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise UserError(f"no recipe at {path}: the ones at hand are {_at_hand()}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name a recipe, a YAML file") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): correct the path or its permissions") from None
    except ValueError:  # a NUL in the path
        raise UserError(f"{str(path)!r} is no path: correct it") from None
    if len(content) > _LARGEST_FILE:
        raise UserError(f"{path} is larger than {_LARGEST_FILE >> 20} MB: it is no recipe; name a YAML file")
    try:
        data = read_yaml(content, verbatim=("vars",))
    except YamlError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a recipe: it must be a mapping with `corpus` and `sources`")
    return data


def at_home(data: dict[str, Any], folder: Path, chosen: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The data of a recipe with ${recipe}, the folder it lies in, and the variables `chosen` filled in; a function's
    file (`FILE.py:function`) is looked for in that folder."""
    given = {"recipe": str(folder), **(chosen or {})}
    remember(value for name, value in given.items() if is_secret(name))
    return {key: value if key == "vars" else _partly_filled(value, given) for key, value in data.items()}


def _partly_filled(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return beside(_VARIABLE.sub(lambda match: given.get(match[1], match[0]), value), Path(given["recipe"]))
    if isinstance(value, dict):
        return {key: _partly_filled(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [_partly_filled(item, given) for item in value]
    return value


# A place in a recipe: names joined by dots, items of a list by number, names with dots in brackets and quotes.
_PART = re.compile(r"\.?([^.\[\]\"'\s]+)|\[(\d{1,9})\]|\[(?:\"([^\"]*)\"|'([^']*)')\]")


def _parts(key: str) -> list[str] | None:
    """The parts of a place such as `sources[0].paths` or `sources.0.paths`; None where it is none."""
    parts, at = [], 0
    while at < len(key):
        match = _PART.match(key, at)
        if match is None or (match[1] is not None and (at == 0) == key[at:].startswith(".")):
            return None
        parts.append(next(group for group in match.groups() if group is not None))
        at = match.end()
    return parts or None


def override(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Apply `a.b=c` (values in YAML, list items by number) in place; returns the variables set that way.

    Raises:
        UserError: where an override has no `=`, no value, or walks through something that isn't there.
    """
    chosen: dict[str, str] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        shown = f"--set {without_secrets(text)}"
        parts = _parts(key)
        if not equals or not key:
            raise UserError(f"{shown}: write it as key=value, such as deduplicate.threshold=0.7")
        if parts is None:
            raise UserError(f"{shown}: {key!r} is no place in a recipe: write it as a.b or sources[0].name")
        if parts[0] == "vars" and len(parts) == 2:
            if not isinstance(data.setdefault("vars", {}) or {}, dict):
                raise UserError(f"{shown}: `vars` is no mapping in the recipe")
            data["vars"] = (data["vars"] or {}) | {parts[1]: value}
            chosen[parts[1]] = value
            continue
        if not value.strip():
            raise UserError(f"{shown}: it has no value: write null to leave a section out, '' for an empty text")
        try:
            parsed = read_yaml(value)
        except YamlError:
            parsed = value
        _put(data, parts, parsed, shown)
    return chosen


def without_secrets(text: str) -> str:
    """An override as it may be shown and kept: what is set where a name says that it is a secret is masked."""
    key, equals, value = text.partition("=")
    found: str = masked(f"{key}={MASK if is_secret(key) and value else value}" if equals else text)
    return found


def _put(data: dict[str, Any], parts: list[str], value: Any, shown: str) -> None:
    """Set what stands at a place; sections that aren't there, or null, are made."""
    target: Any = data
    for number, name in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(target, list):
            place = _place(parts[:number])
            if not re.fullmatch(r"\d{1,9}", name, re.ASCII) or int(name) >= len(target):
                there = f"[0] to [{len(target) - 1}]" if len(target) > 1 else "[0] alone" if target else "none"
                raise UserError(f"{shown}: the recipe has nothing at {_place(parts)}: of `{place}` there are {there}")
            if last:
                target[int(name)] = value
            else:
                target = target[int(name)]
        elif isinstance(target, dict):
            if last:
                target[name] = value
            elif target.get(name) is None:
                target[name] = target = {}  # not in the file, or null there
            else:
                target = target[name]
        else:
            raise UserError(f"{shown}: the recipe has nothing at {_place(parts)}: {_place(parts[:number])} is a value")


def _place(parts: Sequence[str | int]) -> str:
    """Where something stands, as a person writes it: `sources[0].paths`."""
    place = ""
    for part in parts:
        if isinstance(part, int) or re.fullmatch(r"\d{1,9}", part):
            place += f"[{part}]" if place else str(part)
        elif re.search(r"[.\[\]\"'\s]", part) or not part:
            place += f"[{json.dumps(part, ensure_ascii=False)}]"
        else:
            place += f".{part}" if place else part
    return place


def validate(data: Any, origin: str) -> Recipe:
    """The recipe in `data`. Raises UserError with the first mistake in one line."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise UserError(masked(f"{origin}: {explain(error, data)}")) from None
    except (ArithmeticError, RecursionError) as error:  # a check that computes with what no check has refused yet
        raise UserError(f"{origin}: a number is too large to compute with, or a list too deep ({error})") from None


def explain(error: ValidationError, data: Any = None) -> str:
    """The first mistake of a validation, in one line that says what to do; places are those of `data`."""
    first, more = error.errors()[0], error.error_count() - 1
    where = _path(first["loc"], data, first["type"] == "missing")
    place = _place(where)
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        known = _keys_at(Recipe, parents)
        near = difflib.get_close_matches(str(name), known, 1)
        text = f"unknown key {_brief(place)}" + (
            f": did you mean {near[0]!r}?" if near else f": known are {', '.join(known)}"
        )
    elif first["type"] == "missing":
        text = f"{place!r} is missing"
    elif first["type"] == "model_type":
        text = f"{place}: a section of keys is wanted, not {_brief(first['input'])}: leave it out for its defaults"
    elif first["type"].startswith("union_tag_"):
        kinds = ", ".join(kind.model_fields["kind"].default for kind in _models_in(Source))
        given = _brief((first.get("ctx") or {}).get("tag"))
        told = "it has no `kind`" if first["type"] == "union_tag_not_found" else f"there is no kind {given}"
        text = f"{place}: {told}: choose one of {kinds}"
    else:
        given, secret = first.get("input"), any(is_secret(str(part)) for part in where)
        shown = f" (it is {_brief(given)})" if isinstance(given, str | int | float | bool) and not secret else ""
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        message = _WANTED.get(first["type"], message)
        shown = "" if isinstance(given, str) and repr(given) in message else shown
        if first["type"] == "string_type" and isinstance(given, int | float):
            message += ": write it in quotes"
        if not place or message.startswith((f"{place}:", f"{place}.", f"{place}[")):  # the message says where itself
            text = message
        else:
            text = f"{place}: {message[:1].lower() + message[1:]}{shown}"
    return text + (f" (and {more} more mistake{'s' if more > 1 else ''})" if more else "")


# What pydantic says in Python's words.
_WANTED = {
    "string_type": "a text is wanted",
    "string_unicode": "a text is wanted, of characters that UTF-8 has",
    "list_type": "a list is wanted, such as [a, b]",
    "tuple_type": "a list is wanted, such as [a, b]",
    "set_type": "a list is wanted, such as [a, b]",
    "dict_type": "a mapping is wanted, such as {name: value}",
    "model_attributes_type": "a mapping is wanted, such as {name: value}",
    "int_parsing": "an integer is wanted",
    "int_type": "an integer is wanted",
    "int_parsing_size": "an integer of fewer digits is wanted",
    "int_from_float": "an integer is wanted",
    "float_parsing": "a number is wanted",
    "float_type": "a number is wanted",
    "bool_parsing": "true or false is wanted",
    "bool_type": "true or false is wanted",
}


def _brief(value: Any) -> str:
    """A value as an error shows it; long ones by their beginning, lists and mappings by what they are."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}... ({len(text):,} characters)"


def whereabouts(recipe: Recipe, path: str) -> str:
    """What to set where a path isn't right that a variable begins: "`samples` is ...: set HEADWATER_SAMPLES, ..."."""
    for name, value in recipe.vars.items():
        if value and path.startswith(value):
            return f"${{{name}}} is {value!r}: set HEADWATER_{name.upper()}, or --set vars.{name}=..., to where it is"
    return ""


def _path(location: Sequence[str | int], data: Any, missing: bool) -> list[str | int]:
    """A place as the data has it: without the parts that pydantic adds for the kinds of a union and for functions."""
    path: list[str | int] = []
    for number, part in enumerate(location):
        inside = part in data if isinstance(data, dict) else isinstance(part, int) and isinstance(data, list | tuple)
        if inside and (isinstance(data, dict) or part < len(data)):  # type: ignore[operator]
            data = data[part]
        elif data is not None and not (missing and number == len(location) - 1):
            continue
        path.append(part)
    return path


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
