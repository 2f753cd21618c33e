"""Everything that reads text takes time in proportion to it, on the worst input that could be thought of.

Two ways: every regular expression of the house, on inputs made from it (`pumps`); and whole functions on inputs that
each of them once was slow on, or could be. No test looks at seconds, but at how much longer four times as much takes.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import importlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import pumps
import pytest

from datalake.text import normal_forms

HOUSE = Path(__file__).parents[2]
FLOORS = ("datalake", "models", "tasks", "flows")
METHODS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
FLAGS_AT = {"compile": 1, "sub": 4, "subn": 4, "split": 3}  # places of the flags; 2 of the other functions

# Expressions of which inputs are bounded by who uses them, and so may be worse than linear within the bound.
BOUNDED = {
    "datalake.formats.arc.LINE": "lengths that stand in the expression",
    "datalake.formats.arc.START": "lengths that stand in the expression",
    "datalake.formats.rows.json._TOKEN": "nothing is looked for behind the first quote whose string doesn't end",
    "datalake.curate.checks.pii._WEB": "128 characters before a number",
    "datalake.sources.code.marks._GENERATED": "the first 4,000 characters of a file",
    "datalake.sources.web.pydoc._SYSTEM": "pages of this Python's own pydoc",
    "datalake.sources.web.pydoc._VOLATILE": "pages of this Python's own pydoc",
    "datalake.sources.books.gutenberg._FIRST": "the first 3,000 characters of a header, its blanks made one",
}
# Expressions made while running, and why they are linear.
MADE = {
    (
        "datalake.extract.html.charset",
        "re.compile",
    ): "a word as it is; where it isn't found no more is looked for",
    ("datalake.secrets", "re.compile"): "texts as they are",
    ("models.rl.rewards.constraints", "re.findall"): "a text as it is, between the edges of words",
    ("models.serving.page", "re.findall"): "one text, which is our own page",
    ("datalake.extract.wiki.chinese", "re.compile"): "a class of characters",
    ("datalake.remote.files", "re.search"): "one character of a class",
    ("datalake.sources.languages", "re.compile"): "all that are made are values of the module, and tried",
    ("datalake.sources.web.pydoc", "re.sub"): "a text as it is",
    ("datalake.sources.code.redact", "re.compile"): "tried as `redact._patterns()`",
    ("datalake.sources.wikipedia.dump", "re.search"): "tried by `_site`",
    ("models.synthesis.instructions", "re.compile"): "words as they are",
    ("models.text.control", "re.compile"): "names of tokens as they are",
    ("models.text.rendering", "re.finditer"): "a class of two characters",
    ("models.text.rendering", "re.compile"): "white space and then a token as it is, matched where an answer ends",
}


def _modules() -> list[str]:
    files = (path for floor in FLOORS for path in sorted((HOUSE / floor).rglob("*.py")))
    return [
        ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        for path in files
        if re.search(r"^import re$|^from re import|^import regex", path.read_text("utf-8"), re.MULTILINE)
    ]


def _patterns(name: str) -> Iterator[tuple[str, re.Pattern[Any], str]]:
    """(name, expression, `search`, `match` or `fullmatch`: how it is used) of each regular expression of a module."""
    module = importlib.import_module(name)
    tree = ast.parse((HOUSE / (name.replace(".", "/") + ".py")).read_text("utf-8"))
    assert "from re import" not in ast.unparse(tree), "functions of `re` are called by their full names"
    nodes = list(ast.walk(tree))
    used: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
    names = {
        id(n.value): n.targets[0].id for n in nodes if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or not re.fullmatch(r"re\.\w+", function := ast.unparse(node.func)):
            continue
        if function == "re.escape":
            continue
        assert function[3:] in {*METHODS, "compile"}, f"{name}:{node.lineno}: {function} isn't known here"
        place = FLAGS_AT.get(function[3:], 2)
        flags = [*node.args[place : place + 1], *(word.value for word in node.keywords if word.arg == "flags")]
        try:
            pattern = re.compile(*(_value(part, module) for part in [node.args[0], *flags[:1]]))
        except NameError:
            assert (name, function) in MADE, f"{name}:{node.lineno}: what could the worst input of this be? See MADE"
            continue
        own = names.get(id(node), "")
        how = {function[3:]} if function != "re.compile" else used.get(own, {"search"})
        yield f"{name}.{own or node.lineno}", pattern, _weakest(how)
    for value, label in [
        *_held(vars(module), name),
        *([(p, "_MORE") for _, p, _ in module._patterns()] if name.endswith(".redact") else []),
    ]:
        if isinstance(value, re.Pattern):
            yield label, value, _weakest(used.get(label.rpartition(".")[2], {"search"}))


def _value(node: ast.expr, module: Any) -> Any:
    return eval(compile(ast.Expression(node), module.__file__, "eval"), vars(module))


def _weakest(how: set[str]) -> str:
    return "search" if how - {"match", "fullmatch"} else "match" if "match" in how else "fullmatch"


def _held(value: Any, label: str) -> Iterator[tuple[Any, str]]:
    """Values in dictionaries and sequences, however deep."""
    if isinstance(value, dict):
        for key, one in list(value.items()):
            if not str(key).startswith("__"):
                yield from _held(one, f"{label}.{key}")
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _held(one, label)
    else:
        yield value, label


def _slow(pattern: re.Pattern[Any], how: str, most: int = 8_000) -> str:
    """The worst input of an expression that takes more than in proportion to its length, and how much; else ""."""

    def run(text: str | bytes) -> None:
        for _ in pattern.finditer(text) if how == "search" else [getattr(pattern, how)(text)]:
            pass

    for before, pump, after in pumps.worst(pattern, how):

        def build(size: int, before: str = before, pump: str = pump, after: str = after) -> str | bytes:
            text = before + pump * (size // len(pump) + 1) + after
            return text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text

        if (ratio := pumps.growth(run, build, most)) > 8:
            return f"{before!r}, {pump!r} over and over, {after!r}: {ratio:.0f} times as long for 4 times as much"
    return ""


@pytest.mark.parametrize("module", _modules())
def test_every_regular_expression_takes_time_in_proportion_to_its_text(module: str) -> None:
    slow = []
    seen = set()
    for label, pattern, how in _patterns(module):
        if (pattern, how) in seen or label in BOUNDED or pumps.is_plain(pattern):
            continue
        seen.add((pattern, how))
        if why := _slow(pattern, how):
            slow.append(f"{label}: {why}")
    assert not slow, "\n".join(slow)


@pytest.mark.parametrize("pattern", [r"\s+$", r"<!--[^>]*-->", r"(a|b)*c", r"a\s*b?\s*c", r"\[(.*)\]", r"a|x\w*y"])
def test_a_slow_expression_is_found(pattern: str) -> None:
    assert not pumps.is_plain(re.compile(pattern))
    assert _slow(re.compile(pattern), "search")


def over(before: Any, pump: Any, after: Any = "") -> Callable[[int], Any]:
    """Inputs that hold one text over and over."""
    return lambda size: before + pump * (size // len(pump) + 1) + (after or before[:0])


def numbered(pattern: str) -> Callable[[int], str]:
    """Inputs of parts that differ by their numbers."""
    return lambda size: "".join(pattern.replace("N", str(number)) for number in range(size // len(pattern) + 1))


def both(first: Callable[[int], Any], second: Callable[[int], Any]) -> Callable[[int], Any]:
    """Half of one input behind half of another."""
    return lambda size: first(size // 2) + second(size // 2)


def _rows(
    reader: Callable[..., Iterator[Any]], chunk: int = 1 << 16, longest: int = 1 << 26
) -> Callable[[bytes], None]:
    """Reads bytes, in chunks, as rows."""
    from datalake.origin import Origin

    def run(data: bytes) -> None:
        chunks = (data[place : place + chunk] for place in range(0, len(data), chunk))
        for _ in reader(chunks, Origin("table", "table", "archive"), 1 << 26):
            pass

    return run


def _cut(chunk: int) -> Callable[[bytes], None]:
    """Cuts bytes, in chunks, into pages of an export."""
    from datalake.archive import Archive
    from datalake.sources.wikipedia.config import Wikipedia
    from datalake.sources.wikipedia.dump import _Cutter

    def run(data: bytes) -> None:
        cutter = _Cutter(Archive("wikipedia", "name", "path"), Wikipedia(paths=["path"]))
        for _ in cutter.pieces(data[place : place + chunk] for place in range(0, len(data), chunk)):
            pass

    return run


def _archive(data: bytes) -> None:
    """Reads bytes as a web archive."""
    import tempfile

    from datalake.formats import warc

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for _ in warc.records(file.name, 1 << 20):
            pass


def _project(size: int) -> list[tuple[str, str, str]]:
    """Files that import each other, half of them of one name."""
    imports = "".join(f"import a{number}.b.c\n" for number in range(20))
    return [(f"a{number}/__init__.py", "python", imports) for number in range(size // 400 + 1)]


def _cases() -> dict[str, tuple[Callable[[Any], object], Callable[[int], Any]]]:
    from datalake.curate.checks.cuts import cut
    from datalake.curate.checks.decontaminate import Index
    from datalake.curate.checks.decontaminate_config import DecontaminateConfig
    from datalake.curate.checks.evaluation_sets import EvaluationRow
    from datalake.curate.checks.lists import address_keys, split_address
    from datalake.curate.checks.pii import find
    from datalake.curate.checks.spam import spam_score
    from datalake.curate.edits import repair
    from datalake.extract.html.page import extract
    from datalake.extract.wiki.wikitext import Options, clean
    from datalake.formats.http import _inflate
    from datalake.formats.rows.csv import csv_rows
    from datalake.formats.rows.json import rows_of_json
    from datalake.sources.books.gutenberg import chapters, reflow, strip_frame
    from datalake.sources.code.concatenate import uses_of
    from datalake.sources.code.files import decode
    from datalake.sources.code.marks import marks
    from datalake.sources.code.redact import redact
    from datalake.sources.dialogues.shapes import dialogues
    from datalake.sources.languages import language_of
    from datalake.sources.licences.projects import ProjectLicences
    from datalake.sources.licences.spdx import header_licence
    from datalake.sources.wikipedia.dump import _site

    chinese = Options(language="zh", conversion="script")

    def zh(text: str) -> str:
        return clean(text, chinese)

    def coding(data: bytes) -> None:
        with contextlib.suppress(UnicodeError):
            decode(data)

    def chat(text: str) -> object:
        return list(dialogues({"chat": f"USER: a\nASSISTANT: {text}"}))

    def prompt(text: str) -> object:
        return list(dialogues({"prompt": f"### Instruction:\n{text}", "response": "b"}))

    def book(text: str) -> object:
        inner, _ = strip_frame(text)
        return chapters(inner), reflow(inner)

    def toml(text: str) -> object:
        return ProjectLicences({"pyproject.toml": text.encode()}).of("a")

    row = " ".join(f"word{number}" for number in range(13))
    settings = DecontaminateConfig(paths={"paths": ["unread"], "version": "1"})
    sets = Index([EvaluationRow("set", "set", 0, [row])], settings)

    def cuts(text: str) -> object:
        return cut(text, sets)

    from models.rl.rewards.numbers import final

    return {
        "cuts: a row over and over": (cuts, over("", f"{row}. One. ")),
        "cuts: rows in sentences without an end": (cuts, over("", f"{row} \ufb03 other words, ")),
        "cuts: a row within a row": (cuts, lambda size: f"{row[:45]} " * (size // 90) + f"{row[45:]} " * (size // 90)),
        "cuts: quotation marks": (cuts, over(row, "”")),
        "spam: one term over and over": (lambda text: spam_score(text, "zh"), over("", "百家乐官网app")),
        "repair: a run of spaces": (repair, over("α", " ", "x\n")),
        "repair: an address of marks": (lambda text: repair(text, "no_urls"), over("http://", ".,", "xα")),
        "code: a coding line of signs": (coding, over(b"#", b"#", b"\xff")),
        "code: generated": (lambda text: marks("a.py", text), over("", "generated file this module ")),
        "code: blank lines above generated": (lambda text: marks("a.py", text), over("", "\n", "generated")),
        "code: licence behind spaces": (header_licence, over("# SPDX-License-Identifier: MIT", " ", "x")),
        "secrets: first lines of keys": (redact, over("", "-----BEGIN PRIVATE KEY-----\n")),
        "secrets: many in one line": (redact, over("", "://a:")),
        "secrets: prefixes in one line": (redact, over("", "ghp_eyJ")),
        **{
            f"language of .{ending}: {name}": (lambda text, ending=ending: language_of(f"a.{ending}", text), build)
            for ending in ("h", "inc", "m", "pl", "d", "v", "py2")
            for name, build in {
                "lines": over("", "\n"),
                "spaces": over("", " "),
                "names": over("", "namespace   \n", "("),
                "functions": over("", "function\n", ";"),
                "calls": over("", "a(\n"),
                "modes": over("-*-", " "),
                "editors": over("", "-*-mode:vi:"),
            }.items()
        },
        "wikitext: pipe trick, spaces": (clean, over("[[a", " ", "b|]]")),
        "wikitext: pipe trick, commas": (clean, over("[[a", ",", "\nb|]]")),
        "wikitext: pipe trick, parentheses": (clean, over("[[a", "(", "|]]")),
        "wikitext: an address": (clean, over("[//", "a")),
        "wikitext: spaces in a cell": (clean, over("{|\n|a", " ", "b\n|c\n|-\n|d\n|}")),
        "wikitext: attributes in a cell": (clean, over("{|\n|", "id=", "\n|c\n|-\n|d\n|}")),
        "wikitext: lines in a cell": (clean, over("{|\n|a\n", "b\n", "|-\n|d\n|}")),
        "wikitext: lines in a caption": (clean, over("{|\n|+a\n", "b\n", "|-\n|d\n|}")),
        "wikitext: tables": (clean, over("", "{|\n|a\n")),
        "wikitext: a heading": (clean, over("==a", "= ", "b")),
        "wikitext: open tags": (clean, over("", "<ref>")),
        "wikitext: references within each other": (clean, over("", "<ref> a\n\n", "</ref>")),
        "wikitext: arguments": (clean, over("{{", "x|", "}}")),
        "wikitext: numbered arguments": (clean, both(over("{{ubl|", "a|"), over("", "1=a|", "}}"))),
        "wikitext: a list in a list": (clean, over("{{ubl|x" * 39, "y", "}}" * 39)),
        "wikitext: templates opened": (clean, over("", "{{a|")),
        "wikitext: values to convert": (clean, over("{{convert|1|", "to|1|", "km}}")),
        "wikitext: units to convert to": (clean, both(over("{{convert|1|", "to|1|"), over("km|mi", "+mi", "}}"))),
        "wikitext: apostrophes in a line": (clean, over("", "''a'''b")),
        "wikitext: scripts": (clean, over("x", "<sup>2")),
        "wikitext: scripts of scripts": (clean, both(over("", "x<sub>"), over("y", "</sub>"))),
        "wikitext: indented lines": (clean, over("", " a  b\n")),
        "wikitext: unknown templates in a line": (clean, over("a ", "{{x|b}} ")),
        "wikitext: unknown templates at its beginning": (clean, over("", "{{x|b}}")),
        "wikitext: a name of many spaces": (clean, over("a {{x", " ", "y|b}} c")),
        "wikitext: what isn't shown": (clean, over("", "<rt>a<span style=display:none>")),
        "wikitext: cases of a switch": (clean, over("{{#switch:a|", "b|", "c=d}}")),
        "wikitext: files": (clean, over("", "[[a:b.png")),
        "wikitext: a number": (clean, over("{{convert|", "1", "x|km}}")),
        "Chinese: spaces in a rule": (zh, over("-{A|", " ", "}-")),
        "Chinese: spaces between rules": (zh, over("-{zh-cn:a;", " ", "b}-")),
        "Chinese: rules of one": (zh, over("-{A|", "=>;", "}-")),
        "Chinese: open markup": (zh, over("-{", "a")),
        "Chinese: ideographs": (zh, over("", "汉")),
        "Chinese: marks as references": (zh, over("", "&#xE004;")),
        "Chinese: many rules": (zh, both(numbered("-{H|zh-cn:bNz;zh-tw:bNy}-"), over("", "b1"))),
        "Chinese: notes": (zh, over("", "{{NoteTA|1={{a}}")),
        "export: its head": (lambda text: _site(text.encode()), over("", '<namespace key="1"><mediawiki ')),
        "export: a page in chunks": (_cut(1 << 8), over(b"<page>", b"ab <", b"</page>")),
        "export: pages in a chunk": (_cut(1 << 20), over(b"", b"<page></page>")),
        "export: a tag that doesn't end": (_cut(1 << 8), over(b"<page ", b"a")),
        "dialogues: calls": (chat, over("", "<functioncall>{")),
        "dialogues: arguments": (chat, over("<functioncall>{", "\"arguments\":'", "}")),
        "dialogues: blank lines": (chat, over("", "\n", "USER")),
        "dialogues: a frame": (prompt, over("a", "\n", "x")),
        "dialogues: inputs in a frame": (prompt, over("a", "\n### Input:\n", "\n### Response:")),
        "dialogues: turns in one text": (
            lambda text: list(dialogues({"instruction": text, "output": "b"})), over("", "\n", "Human")
        ),
        "book: its frame": (book, over("Project Gutenberg\n*** START OF ", "*", "\n a")),
        "book: its lines": (book, over("Project Gutenberg\n", "\n \n")),
        "book: its header": (book, over("Project Gutenberg EBook", " ", "x\nEnd of Project Gutenberg")),
        "book: spaces": (book, over("The Project Gutenberg EBook\n", " ")),
        "book: wrapped lines": (reflow, over("", "a" * 60 + "\n")),
        "CSV: quotes": (_rows(csv_rows), over(b"text\n", b'"a\n')),
        "CSV: cells that don't end": (_rows(csv_rows), over(b"text\n", b'x"y,"\n')),
        "CSV: cells that end at last": (_rows(csv_rows), over(b"text\n", b'x"y,"\n', b'a"\n')),
        "CSV: small chunks": (_rows(csv_rows, 1), over(b"text\n", b"a")),
        "JSON: objects that don't end": (_rows(rows_of_json), over(b'[{"text": "a"}, ', b'{"text": [')),
        "JSON: texts that don't end": (_rows(rows_of_json), over(b'[\n{"text": "a"},\n', b'{"text": "')),
        "JSON: spaces between objects": (_rows(rows_of_json), over(b'[{"text": "a"}, {"text": [', b" ")),
        "JSON: small chunks": (_rows(rows_of_json, 1), over(b'{"text": "', b"a", b'"}')),
        "archive: members that are none": (_archive, over(_MEMBER[:-6], b"\x1f\x8b\x08\x00")),
        "archive: records longer than they say": (
            _archive,
            over(b"", b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: 99999999999\r\n\r\n"),
        ),
        "archive: lines like those of ARC": (_archive, over(b"", b"http://a 1.1.1.1 20000101 a 1 a\n")),
        "archive: a line like those of ARC": (_archive, over(b"http://a", b" 1.1.1.1 20000101 a 1 a ")),
        "body: small members": (
            lambda data: _inflate(data, 31, 1 << 30, False),
            over(b"", gzip.compress(b"", mtime=0)),
        ),
        "licences: a deep key": (toml, over("project.a", ".a", " = 1")),
        "licences: a deep path": (
            lambda path: ProjectLicences({path: b"x"}).of(path), over("", "a.dist-info/", "LICENSE")
        ),
        "imports: files of one name": (uses_of, _project),
        "imports: a deep name": (
            lambda text: uses_of([("a.py", "python", text), ("b.py", "python", "")]), over("import a", ".a")
        ),
        "imports: open parentheses": (
            lambda text: uses_of([("a.py", "python", text), ("b.py", "python", "")]), over("", "from a import (\n")
        ),
        "addresses: their levels": (lambda text: list(address_keys(*split_address(text))), over("http://", "a.")),
        "addresses: their paths": (lambda text: list(address_keys(*split_address(text))), over("http://a/", "b/")),
        **{
            f"personal data: {pump!r}": (find, over("", pump))
            for pump in ("@a.", "a@b.", "4111 1111 1111 1111 ", "1.2.3.4.", "+1 2", "+86 13800138000 ", "::", "1 ")
        },
        "personal data: addresses": (find, over("", "2001:" * 11 + " ")),
        **{
            f"page: {pump}": (extract, over("", pump, "text"))
            for pump in (
                *("<div>", "<a a=1 ", "<", "<!--", "<a href=x>", "<b>", "</p>", "&", "<td>", "<title>a | b", "<p>a"),
                *("<sup>a", "<span hidden>", "<math>", "<math><mi>a</math>", "<span class=katex-html>", "<pre><code>a"),
                *("<rt>", "<q>", "<ol><li>", "<tr><td>a<td>b", "<script type=math/tex>a", "<a href=#>#"),
                "<b class=ln>1",
            )
        },
        **{
            f"the number of an answer: {pump!r}": (final, over("1 ", pump))
            for pump in ("#### 1 ", "####\n", "answer: ", "answer: 1 ", "\\boxed{", "\\boxed{1}", "1/2 ", "\\frac{")
        },
        "page: headings": (extract, numbered("<h1>this is N</h1>")),
    }  # fmt: skip


_MEMBER = gzip.compress(b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: 1\r\n\r\na\r\n\r\n", mtime=0)
CASES = _cases()


@pytest.mark.parametrize("name", CASES)
def test_a_function_takes_time_in_proportion_to_its_worst_input(name: str) -> None:
    run, build = CASES[name]
    run(build(10))  # compiles what is compiled, imports what is imported
    assert pumps.growth(run, build, 64_000, 2e-3) < 8


TEXTS = {
    "spaces": " ", "lines": "\n", "a letter": "a", "letters": "a b ", "brackets": "[", "digits": "1.", "signs": "#",
    "marks": "\u0301\u0327", "emoji": "\U0001f600", "ideographs": "汉", "kana": "の", "dots": "...", "tabs": "\t",
    "sentences": "The quick, brown fox. ", "items": "• a\n", "quotes": '"', "lines of one word": "word\n",
    "sigmas": "Σ'", "spaces in Chinese": "汉 ", "half-width marks": "\u0301\uff9e", "vowel signs": "\u0f73",
    "fences": "```\n",
}  # fmt: skip


def _readers() -> dict[str, Callable[[str], object]]:
    import pyarrow as pa

    from datalake.curate.checks.pii import find
    from datalake.curate.checks.spam import spam_score
    from datalake.curate.edits import keep_prose_lines, lines_of, prose_of, repair
    from datalake.curate.metrics.families.code import comment_characters
    from datalake.curate.metrics.measure import measure_array
    from datalake.dedup.texts.shingles import normalise, shingle
    from datalake.extract.html.page import extract
    from datalake.extract.wiki.wikitext import clean
    from datalake.sources.code.redact import redact
    from datalake.text.normal_forms import normal_form
    from models.rl.rewards.arithmetic import asked
    from models.rl.rewards.numbers import final

    return {
        **{
            f"metrics, {language}": lambda text, language=language: measure_array(text, language)
            for language in ("en", "zh", "ja", "th")
        },
        "comments": lambda text: comment_characters(text, "python"),
        "repair": repair,
        "prose": lambda text: keep_prose_lines(text, [True] * len(lines_of(prose_of(text))), "fineweb"),
        "repair without addresses": lambda text: repair(text, "no_urls"),
        "personal data": find,
        "spam": lambda text: spam_score(text, "zh"),
        "normalised": normalise,
        **{form: lambda text, form=form: normal_form(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")},
        "shingles": lambda text: shingle(pa.array([text]), 5),
        "page": extract,
        "wikitext": clean,
        "secrets": redact,
        "the number of an answer": final,
        "an expression": lambda text: asked(text, {}),
    }


READERS = _readers()


@pytest.mark.parametrize("reader", READERS)
def test_a_text_of_one_thing_over_and_over_takes_time_in_proportion_to_it(reader: str) -> None:
    run = READERS[reader]
    run("ab")
    slow = [name for name, pump in TEXTS.items() if pumps.growth(run, over("", pump), 32_000, 2e-3) > 8]
    assert not slow


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normal_forms_are_those_of_python_however_many_marks_a_letter_has(form: Literal["NFC", "NFKC"]) -> None:
    random = Random(5)
    marks = [c for c in map(chr, range(0x300, 0x20000)) if unicodedata.combining(unicodedata.normalize("NFKD", c)[0])]
    assert max(marks) <= chr(normal_forms._LAST)
    assert not any(unicodedata.combining(chr(point)) for point in range(0x20000, 0x110000))
    for _ in range(200):
        letters = random.choices([*"aeA ö가\u1100\u1161\u11a8", *random.choices(marks, k=8)], k=20)
        text = "".join(letter + "".join(random.choices(marks, k=random.choice((0, 1, 40)))) for letter in letters)
        assert normal_forms.normal_form(form, text) == unicodedata.normalize(form, text)
