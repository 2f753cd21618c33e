"""What a message tells a user to do can be done: the keys, commands, options and variables it names exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import app
from flows.recipe import Recipe, _models_in

ROOT = Path(__file__).parents[2]
FLOORS = ("flows", "tasks", "datalake", "models")
# What tells a user something: errors, and lines on the terminal.
TELLING = {"UserError", "ValueError", "NotUpError", "StageError", "FloatingPointError", "Check", "note", "say"}
SECTIONS = "|".join(name for name in Recipe.model_fields if name != "corpus")


def messages() -> list[tuple[str, str]]:
    """(place, text) of every message in the code; what is filled in later stands as {}."""
    found = []
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and name_of(node.func) in TELLING:
                    text = " ".join(filter(None, map(text_of, node.args)))
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


def name_of(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(part, ast.FormattedValue) else text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return f"{text_of(node.left)} {text_of(node.right)}"
    return f"{text_of(node.body)} {text_of(node.orelse)}" if isinstance(node, ast.IfExp) else ""


MESSAGES = messages()


def fields(model: Any) -> dict[str, Any]:
    return getattr(model, "model_fields", {})


def there(model: Any, parts: list[str]) -> bool:
    """Whether a recipe can have something at a place; names of a mapping are free."""
    if not parts:
        return True
    if not fields(model):
        return any(there(inner, parts) for inner in _models_in(model)) if _models_in(model) else "dict" in str(model)
    return parts[0] in fields(model) and there(fields(model)[parts[0]].annotation, parts[1:])


def every_model(model: Any, seen: set[Any]) -> Iterator[Any]:
    for inner in _models_in(model):
        if inner not in seen:
            seen.add(inner)
            yield inner
            for field in inner.model_fields.values():
                yield from every_model(field.annotation, seen)


MODELS = list(every_model(Recipe, set()))
KEYS = {name for model in MODELS for name in model.model_fields}


def test_there_are_messages_to_look_at() -> None:
    assert len(MESSAGES) > 250
    assert len(MODELS) > 20


def test_every_place_in_a_recipe_that_a_message_names_is_one() -> None:
    wrong = []
    for place, text in MESSAGES:
        for match in re.finditer(rf"(?<![\w/.])({SECTIONS})((?:\.[a-z_]+)+)(?![\w(/])", text):
            parts = (match[1] + match[2]).split(".")
            if parts[-1] not in ("py", "md", "yaml", "json") and not there(Recipe, parts):
                wrong.append((place, match[0]))
    assert wrong == []


def test_every_key_in_backquotes_is_one_of_some_section() -> None:
    wrong = []
    for place, text in MESSAGES:
        for quoted in re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)`", text):
            first, *rest = quoted.split(".")
            starts = [model for model in MODELS if first in model.model_fields]
            known = any(there(model, [first, *rest]) for model in starts)
            if not known and quoted not in ELSEWHERE | commands():
                wrong.append((place, quoted))
    assert wrong == []


# Names in backquotes that are no keys of a recipe: an extractor, columns and keys of files that users write.
ELSEWHERE = {"trafilatura", "uri", "name", "threshold", "rules", "sets", "prompt", "messages", "answer", "refuse"}
ELSEWHERE |= {"documents"}  # of a benchmark


def test_keys_that_configs_tell_of_are_keys_that_a_recipe_has() -> None:
    """In code that checks settings, every name with an underscore is the name of a setting."""
    wrong = []
    for place, text in MESSAGES:
        if "config.py" in place or "training/" in place:
            names = re.findall(r"(?<![\w.{/])[a-z]+(?:_[a-z]+)+(?![\w}/])", text)
            wrong += [(place, name) for name in names if name not in KEYS | NETWORK | PACKAGES]
    assert wrong == []


# Settings of a network that only code can give; messages about them are none that a recipe can cause.
NETWORK = {"experts_per_token"}
PACKAGES = {"lxml_html_clean"}


def commands() -> set[str]:
    return {name for name in app if not name.startswith("-")}


def options() -> set[str]:
    found = {"--version", "--help", "--install-completion"}
    for name in commands():
        for argument in app[name].assemble_argument_collection():
            found |= {option for option in argument.names if option.startswith("-")}
    return found


def test_every_command_that_a_message_names_is_one() -> None:
    named = [
        (place, name)
        for place, text in MESSAGES
        for name in re.findall(r"\bheadwater ([a-z][a-z-]*)", text)
        if name not in commands()
    ]
    assert named == []


def test_every_option_that_a_message_names_is_one() -> None:
    known = options() | {"--shm-size"}  # of containers
    named = [
        (place, option)
        for place, text in MESSAGES
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
        if option not in known
    ]
    assert named == []


def test_every_variable_that_a_message_names_is_read_somewhere() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
    for place, text in MESSAGES:
        for name in re.findall(r"\bHEADWATER_[A-Z]+\b", text):
            # A recipe's variables are read by their names, others by the constant that has their name.
            called = "|".join([name, *re.findall(rf'^(\w+) = "{name}"', code, re.MULTILINE)])
            asked = re.search(rf"(environ|getenv|env_var)[^\n]*\b({called})\b", code)
            assert asked or name == "HEADWATER_SAMPLES", (place, name)


@pytest.mark.parametrize("text", [text for _, text in MESSAGES if "run `" in text or "pip install" in text])
def test_what_is_to_be_installed_is_on_the_index_and_not_ourselves(text: str) -> None:
    assert "headwater[" not in text
