"""What pages name in passing is there: options, keys of a recipe, whole recipes, files; and pages in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from documentation import blocks, codes, links, pages
from harness import ROOT
from pydantic import BaseModel, ValidationError

from datalake.sources import KINDS
from datalake.text.yaml_text import read_yaml
from flows.cli import app
from flows.recipe import Recipe
from flows.stages import STAGES
from tasks.runtime import RuntimeConfig

DOCS = ROOT / "docs"
# A page of history, whose names are those of its time.
SAID = [page for page in pages() if page.name != "CHANGELOG.md"]
# Of programs of others; a model's file is named like a section.
_THEIRS = {"--long", "--install-completion", "--help"}
_NOT_KEYS = re.compile(r"\.(py|json|yaml|ggml\.pre)$")
# What a reader has and this checkout doesn't: files, and the variables that say where.
_NOT_HERE = re.compile(r"there is no |can't be read|nothing matches")
_VARIABLES = {
    "samples": "samples",
    "recipe": "recipe",
    "mirror_password": "of-a-mirror",
}  # hidden from now on, in this process


@cache
def options(command: str) -> frozenset[str]:
    return frozenset(name for argument in app[command].assemble_argument_collection() for name in argument.names)


def test_every_option_that_a_page_names_is_one_of_its_command() -> None:
    commands = [name for name in app if not name.startswith("-")]
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("benchmarks/*.py"))
    known = {option for name in commands for option in options(name)}
    known |= set(re.findall(r'"(--[a-z-]+)"', scripts)) | _THEIRS
    lost = []
    for page in SAID:
        for code in codes(page):
            asked = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code))
            command = re.match(r"(?:\.venv/bin/)?headwater ([a-z-]+)\b", code)
            if command and command[1] in commands:
                lost += [f"{page.relative_to(ROOT)}: {code}" for name in asked - options(command[1])]
            elif code.startswith("--"):
                lost += [f"{page.relative_to(ROOT)}: {code}" for name in asked - known]
    assert lost == [], "\n".join(lost)
    assert len(known) > 60


def test_every_key_of_a_recipe_that_a_page_names_is_one() -> None:
    sections = "|".join(Recipe.model_fields)
    key = re.compile(rf"(?<![\w./-])(?:{sections})(?:\.[a-z_0-9]+|\[\d+\])+(?![\w(/-])")
    lost, seen = [], 0
    for page in SAID:
        for name in (found for code in codes(page) for found in key.findall(code)):
            seen += 1
            if not _NOT_KEYS.search(name) and not _known(Recipe, re.findall(r"[a-z_0-9]+", name)):
                lost.append(f"{page.relative_to(ROOT)}: {name}")
    # A column of the table `mixture`.
    assert [name for name in lost if not name.endswith(": mixture.copies")] == [], "\n".join(lost)
    assert seen > 60


def _known(annotation: Any, parts: list[str]) -> bool:
    """Whether a place in a recipe may have this name: a field, a place in a list, any name in a mapping."""
    if not parts:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(parts[0])
        return field is not None and _known(field.annotation, parts[1:])
    origin, arguments = getattr(annotation, "__origin__", None), get_args(annotation)
    if origin in (list, tuple):
        inner = parts[1:] if parts[0].isdigit() else parts
        return any(_known(argument, inner) for argument in arguments)
    if origin is dict:
        return len(parts) == 1 or _known(arguments[1], parts[1:])
    return any(_known(argument, parts) for argument in arguments)


def recipes() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every part of a recipe that a page shows, with the sections that it takes for granted."""
    for page in SAID:
        for body in blocks(page, "yaml"):
            shown = read_yaml(body)
            shown = {"sources": shown} if isinstance(shown, list) else shown
            if set(shown) & set(Recipe.model_fields):
                names = ("table", "common_crawl", "wikipedia", "code")  # that weights of a page may name
                sources = [{"kind": "table", "name": name, "paths": [f"here/{name}"]} for name in names]
                yield page, {"corpus": "shown", "sources": sources} | shown | {"vars": _VARIABLES}


def test_every_recipe_in_a_page_is_one_but_for_the_readers_own_files() -> None:
    wrong, shown = [], 0
    for page, recipe in recipes():
        shown += 1
        try:
            Recipe.model_validate(recipe)
        except ValidationError as error:
            for one in error.errors():
                if not _NOT_HERE.search(one["msg"]):
                    wrong.append(f"{page.relative_to(ROOT)}: {one['loc']}: {one['msg']}")
    assert wrong == [], "\n".join(wrong)
    assert shown > 25


def test_every_file_of_the_project_that_a_page_names_is_there() -> None:
    folders = "benchmarks|datalake|deployments|docs|flows|models|recipes|tasks|tests"
    named = re.compile(rf"(?<![\w./$}}<-])(?:{folders})/[\w./-]+")
    lost = []
    for page in SAID:
        for name in (found.rstrip(".") for code in codes(page) for found in named.findall(code)):
            if not (ROOT / name).exists() and "NAME" not in name:
                lost.append(f"{page.relative_to(ROOT)}: {name}")
        for name in re.findall(r"`(test_\w+)(?:\.py)?`", page.read_text(encoding="utf-8")):
            if not any(ROOT.glob(f"tests/**/{name}.py")):
                lost.append(f"{page.relative_to(ROOT)}: {name}")
    assert lost == [], "\n".join(lost)


def test_every_benchmark_stands_in_their_list() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    scripts = [path.name for path in ROOT.glob("benchmarks/[a-z]*.py")]
    assert [name for name in scripts if f"`{name}" not in listed] == []
    assert len(scripts) > 30


@pytest.mark.parametrize("folder", [DOCS, DOCS / "zh"], ids=["english", "chinese"])
def test_pages_of_recipes_and_operations_name_all_there_is(folder: Path) -> None:
    named = set(re.findall(r"[a-z_]+", " ".join(codes(folder / "recipes.md"))))
    sections, runtime = set(Recipe.model_fields), set(RuntimeConfig.model_fields)
    assert sorted((sections | runtime | set(STAGES) | set(KINDS)) - named) == []
    deployed = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
    begun = [trigger for entry in deployed["deployments"] for trigger in entry.get("triggers", [])]
    names = {f"{entry['name']}/{entry['name']}" for entry in deployed["deployments"]}
    names |= {entry["name"] for entry in (*deployed["automations"], *begun)}
    assert sorted(names - set(codes(folder / "operations.md"))) == []
    assert len(names) > 15


@pytest.mark.parametrize("index", [DOCS / "index.md", DOCS / "zh" / "index.md"], ids=["english", "chinese"])
def test_an_index_leads_to_every_page_of_its_language(index: Path) -> None:
    reached = {path for path, _ in links(index)}
    folder = index.parent
    own = [*folder.glob("*.md"), *folder.glob("decisions/*.md")]
    assert [page.name for page in own if page != index and page not in reached] == []


def test_a_page_in_two_languages_leads_from_each_to_the_other() -> None:
    lost = []
    for chinese in (DOCS / "zh").glob("*.md"):
        english = DOCS / chinese.name
        for page, other in ((chinese, english), (english, chinese)):
            if other not in {path for path, _ in links(page)}:
                lost.append(f"{page.relative_to(ROOT)} doesn't lead to {other.relative_to(ROOT)}")
    assert lost == [], "\n".join(lost)
