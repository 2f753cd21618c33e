"""The project's pages as data: their links, their headings, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT

_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()]*\))?)(?:\s+\"[^\"]*\")?\)")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")


def pages() -> list[Path]:
    """Every page that people read."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("[!.]*/README.md"),
        *ROOT.glob("deployments/**/*.md"),
    ]
    return sorted(set(found))


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it, in words; assignments before it are left out."""

    page: Path
    line: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0].removeprefix(".venv/bin/")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.line}"


def commands() -> Iterator[Shown]:
    """The commands of every block of shell."""
    for page in pages():
        for kind, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind in ("sh", "bash"):
                for line in _whole_lines(body):
                    yield from _split(page, line)


def blocks(page: Path, kind: str) -> list[str]:
    """What stands in a page's blocks of one kind, such as `yaml`."""
    return [body for found, body in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == kind]


def codes(page: Path) -> list[str]:
    """What stands between backticks in a page's sentences and tables."""
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text(encoding="utf-8")))


def _whole_lines(body: str) -> Iterator[str]:
    """Lines with those that they go on in: after a backslash, or inside quotes."""
    part = ""
    for line in body.splitlines():
        part = f"{part}\n{line}" if part else line
        if part.endswith("\\"):
            part = part[:-1]
            continue
        try:
            shlex.split(part, comments=True)
        except ValueError:  # a quotation is open
            continue
        if part.strip():
            yield part
        part = ""
    assert not part, f"a quotation isn't closed: {part}"


def _split(page: Path, line: str) -> Iterator[Shown]:
    if re.match(r"\w+=\$\(.*\)$", line):  # a variable of what another command says
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|&;"):
            while words and _ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words:
                yield Shown(page, " ".join(line.split()), tuple(words))
            words = []
        else:
            words.append(word)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Where a page's links within the project lead: a file and a heading's anchor, empty where there is none."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        yield ((page.parent / path).resolve() if path else page), anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, and those that it names itself."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    found = set(re.findall(r'<a (?:id|name)="([^"]+)"', text)) | set(re.findall(r"\{#([\w-]+)\}", text))
    for title in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        number = next(n for n in range(100) if (f"{name}-{n}" if n else name) not in found)
        found.add(f"{name}-{number}" if number else name)
    return found
