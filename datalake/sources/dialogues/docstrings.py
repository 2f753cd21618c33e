"""Questions about documented functions and classes of Python's standard library, answered from their docstrings.

The instructions and preferences of the demo, reached through the path `python:docstrings`. The source is parsed, never
imported, so the same Python version gives the same dialogues on every machine. Two questions a name: what it does
(answered by the first paragraph of its docstring) and, where it takes any, its parameters. A pair sets the right
answer against another name's or against the right one damaged; which, is chosen by a stable hash and kept in
`attributes["damage"]`. `attributes["group"]` is the top-level module, the unit of hold-out.
"""

from __future__ import annotations

import ast
import inspect
import platform
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import xxhash

from datalake.archive import Archive
from datalake.document import Entry, Passed, Quarantined
from datalake.origin import Origin, Stretch
from datalake.sources.web.config import PYDOC_MODULES

PATH = "python:docstrings"
MODULES_AN_ARCHIVE = 25
LICENCE = "Python-2.0"
SHORTEST, LONGEST = 20, 400  # characters of an answer
DAMAGES = ("other", "shuffled", "repeated", "reversed")

_PURPOSE = (
    "What does {name} do?",
    "What is {name} for?",
    "Explain {name}.",
    "Describe the {kind} {name}.",
    "In Python, what does {name} do?",
    "Tell me about the {kind} {name}.",
    "What should I know about {name}?",
    "When would I use {name}?",
)
_PARAMETERS = (
    "What are the parameters of {name}?",
    "Which parameters does {name} take?",
    "What arguments can I pass to {name}?",
    "How do I call {name}?",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question and its answer: about `name` in `module`, `topic` is `purpose` or `parameters`."""

    module: str
    name: str
    kind: str
    topic: str
    question: str
    answer: str

    @property
    def locator(self) -> str:
        """What finds it in its archive."""
        return f"{self.name}/{self.topic}"


def archives(kind: str) -> list[Archive]:
    """One each 25 modules of the fixed list; its version is the Python version and the modules' source."""
    out = []
    for number in range(0, len(PYDOC_MODULES), MODULES_AN_ARCHIVE):
        digest = xxhash.xxh3_128(platform.python_version().encode())
        for module in _modules(number // MODULES_AN_ARCHIVE):
            file = source_file(module)
            digest.update(f"\0{module}\0".encode())
            digest.update(file.read_bytes() if file else b"-")
        out.append(Archive(kind, f"docstrings-{number // MODULES_AN_ARCHIVE:03d}", PATH, digest.hexdigest()))
    return out


def conversations(archive: Archive, origin: Origin) -> Iterator[Entry]:
    """One conversation each question; refused where the answer is too short or too long."""
    for item in origin.framed(_items(archive)):
        if isinstance(item, Item) and _fits(item):
            messages = [
                {"role": "user", "content": item.question},
                {"role": "assistant", "content": item.answer},
            ]
            yield origin.conversation(Stretch(), item.locator, messages, _attributes(item), **_known(item))
        else:
            yield _left_out(item, origin)


def preferences(archive: Archive, origin: Origin) -> Iterator[Entry]:
    """One pair each question: the right answer against another's or a damaged one."""
    items = list(origin.framed(_items(archive)))
    fit = [item for item in items if isinstance(item, Item) and _fits(item)]
    for item in items:
        if isinstance(item, Item) and _fits(item):
            damage, rejected = damaged(item, fit)
            prompt = [{"role": "user", "content": item.question}]
            attributes = _attributes(item) | {"damage": damage}
            yield origin.preference(Stretch(), item.locator, prompt, item.answer, rejected, attributes, **_known(item))
        else:
            yield _left_out(item, origin)


def damaged(item: Item, others: list[Item]) -> tuple[str, str]:
    """(damage, answer) for the rejected side: never equal to the right answer."""
    seed = _hash(item.locator, "damage")
    words = item.answer.split()
    for step in range(len(DAMAGES)):
        damage = DAMAGES[(seed + step) % len(DAMAGES)]
        if damage == "other":
            pool = [other.answer for other in others if other.topic == item.topic and other.name != item.name]
            answer = pool[_hash(item.locator, "other") % len(pool)] if pool else item.answer
        elif damage == "shuffled":
            order = sorted(range(len(words)), key=lambda place: (_hash(item.locator, f"{place}"), place))
            answer = " ".join(words[place] for place in order)
        elif damage == "repeated":
            answer = " ".join(words[: max(2, len(words) // 4)] * 3)
        else:
            answer = " ".join(reversed(words))
        if answer != item.answer:
            return damage, answer
    return "cut", item.answer[: len(item.answer) // 2]


def source_file(module: str) -> Path | None:
    """Where a module of the standard library has its source; None for modules written in C."""
    base = Path(sysconfig.get_paths()["stdlib"], *module.split("."))
    return next((file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()), None)


def _modules(number: int) -> list[str]:
    return sorted(PYDOC_MODULES)[number * MODULES_AN_ARCHIVE : (number + 1) * MODULES_AN_ARCHIVE]


def _items(archive: Archive) -> Iterator[Item | Passed | Quarantined]:
    for module in _modules(int(archive.name.rpartition("-")[2])):
        yield from _module_items(module)


@lru_cache(maxsize=4)
def _module_items(module: str) -> tuple[Item | Passed | Quarantined, ...]:
    file = source_file(module)
    if file is None:
        return (Passed("module_without_source"),)
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        return (Quarantined("", module, "syntax", str(error)[:200]),)
    out: dict[str, Item] = {}
    for name, node, kind in _definitions(tree.body, module, inside_class=False):
        document = ast.get_docstring(node, clean=False)
        if document and (answer := tidy(document)):
            _put(out, Item(module, name, kind, "purpose", _question(_PURPOSE, name, kind), answer))
        if not isinstance(node, ast.ClassDef) and kind != "attribute" and (answer := _signature(name, node, kind)):
            _put(out, Item(module, name, kind, "parameters", _question(_PARAMETERS, name, kind), answer))
    return tuple(out.values())


def _put(out: dict[str, Item], item: Item) -> None:
    out.setdefault(item.locator, item)  # names defined twice (setters, fallbacks): the first


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(body: list[ast.stmt], prefix: str, inside_class: bool) -> Iterator[tuple[str, _Definition, str]]:
    """(qualified name, node, kind) of public functions, classes and their methods, in the order of the source."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            inner = [*node.body, *node.orelse]
            for handler in getattr(node, "handlers", []):
                inner += handler.body
            yield from _definitions(inner, prefix, inside_class)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            name = f"{prefix}.{node.name}"
            if isinstance(node, ast.ClassDef):
                yield name, node, "class"
                yield from _definitions(node.body, name, inside_class=True)
            else:
                attribute = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
                yield name, node, "attribute" if attribute else "method" if inside_class else "function"


def tidy(document: str) -> str:
    """The first paragraph of a docstring on one line, cut after a sentence where it is too long; "" if it has none."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(document))]
    for paragraph in paragraphs:
        if re.match(r"[\w.]+\(.*\)(\s*->.*)?$", paragraph):  # the signature once more
            continue
        if not paragraph or paragraph.startswith((">>>", ":", "@")) or set(paragraph) <= set("=-* "):
            return ""
        while len(paragraph) > LONGEST:
            ends = [match.end() for match in re.finditer(r"[.!?](?= [A-Z])", paragraph[:LONGEST])]
            if not ends:
                break
            paragraph = paragraph[: ends[-1]]
        return paragraph
    return ""


def _signature(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef, kind: str) -> str:
    """A sentence that names a function's parameters and their defaults; "" if it takes none."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(positional, defaults, strict=True))
    static = any("staticmethod" in ast.unparse(decorator) for decorator in node.decorator_list)
    if kind == "method" and not static:
        pairs = pairs[1:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    shown = [argument.arg + (f"={ast.unparse(default)}" if default is not None else "") for argument, default in pairs]
    if arguments.vararg:
        shown.append(f"*{arguments.vararg.arg}")
    if arguments.kwarg:
        shown.append(f"**{arguments.kwarg.arg}")
    shown = [text for text in shown if not text.startswith("_")]
    if not shown:
        return ""
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{name} takes {'one parameter' if len(shown) == 1 else f'{len(shown)} parameters'}: {listed}."


def _question(templates: tuple[str, ...], name: str, kind: str) -> str:
    return templates[_hash(name, "question") % len(templates)].format(name=name, kind=kind)


def _hash(name: str, purpose: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{purpose}\0{name}".encode())


def _attributes(item: Item) -> dict[str, str]:
    group = item.module.partition(".")[0]
    return {"group": group, "module": item.module, "name": item.name, "topic": item.topic}


def _known(item: Item) -> dict[str, str]:
    """What is known of a question's entry beforehand."""
    return {"uri": f"docstrings:{item.locator}", "language": "en", "licence": LICENCE}


def _fits(item: Item) -> bool:
    return SHORTEST <= len(item.answer) <= LONGEST


def _left_out(item: Item | Passed | Quarantined, origin: Origin) -> Entry:
    """What becomes of an item that is no entry, or of too short or long an answer."""
    if isinstance(item, Quarantined):
        return replace(item, source=origin.source)
    if isinstance(item, Passed):
        return item
    detail = f"an answer of {len(item.answer)} characters"
    uri = f"docstrings:{item.locator}"
    return origin.refused(Stretch(), item.locator, "length", detail, uri=uri, language="en")
