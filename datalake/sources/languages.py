"""The programming language of a source file: by its name, and where a name leaves it open by its content.

What the tables here don't name is called as GitHub calls it (`data/languages.json`, made from Linguist's list); formats
that hold data (JSON, XML, CSV, plain text) are no languages.

Order: whole names (`Makefile`), endings that belong to one language, endings that several share (`.h`, `.m`, `.v`...)
by what only one of them writes, then the interpreter of a `#!` line or an editor's modeline for names without ending.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath

HEAD = 16_384  # characters looked at: what tells languages apart stands early

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".pyw": "python", ".pyx": "cython", ".pxd": "cython", ".pxi": "cython",
    ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".c++": "c++", ".hh": "c++", ".hpp": "c++",
    ".hxx": "c++", ".ipp": "c++", ".tpp": "c++", ".cu": "cuda", ".cuh": "cuda", ".rs": "rust", ".go": "go",
    ".java": "java", ".kt": "kotlin", ".kts": "kotlin", ".scala": "scala", ".groovy": "groovy", ".gradle": "groovy",
    ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript", ".ts": "typescript",
    ".mts": "typescript", ".cts": "typescript", ".tsx": "typescript", ".rb": "ruby", ".gemspec": "ruby", ".php": "php",
    ".pl": "perl", ".pm": "perl", ".lua": "lua", ".r": "r", ".jl": "julia", ".swift": "swift", ".m": "objective-c",
    ".mm": "objective-c++", ".cs": "c#", ".fs": "f#", ".fsi": "f#", ".fsx": "f#", ".hs": "haskell", ".ml": "ocaml",
    ".mli": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".hrl": "erlang", ".clj": "clojure",
    ".cljs": "clojure", ".cljc": "clojure", ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ps1": "powershell",
    ".psm1": "powershell", ".bat": "batch", ".cmd": "batch", ".sql": "sql", ".f": "fortran", ".for": "fortran",
    ".f77": "fortran", ".f90": "fortran", ".f95": "fortran", ".f03": "fortran", ".f08": "fortran", ".zig": "zig",
    ".nim": "nim", ".d": "d", ".dart": "dart", ".vue": "vue", ".svelte": "svelte", ".html": "html", ".htm": "html",
    ".css": "css", ".scss": "css", ".less": "css", ".cmake": "cmake", ".proto": "protobuf", ".asm": "assembly",
    ".s": "assembly", ".tex": "tex", ".el": "lisp", ".lisp": "lisp", ".scm": "scheme", ".v": "verilog",
    ".sv": "verilog", ".svh": "verilog", ".vhd": "vhdl", ".vhdl": "vhdl", ".mk": "makefile",
    ".dockerfile": "dockerfile", ".md": "markdown", ".rst": "restructuredtext", ".toml": "toml", ".yaml": "yaml",
    ".yml": "yaml", ".j2": "jinja", ".pas": "pascal", ".inc": "c", ".bzl": "starlark", ".tf": "terraform",
    ".sol": "solidity", ".graphql": "graphql", ".tcl": "tcl", ".awk": "awk", ".vim": "vim", ".cl": "opencl",
}  # fmt: skip
NAMES = {
    "makefile": "makefile", "gnumakefile": "makefile", "dockerfile": "dockerfile", "containerfile": "dockerfile",
    "cmakelists.txt": "cmake", "rakefile": "ruby", "gemfile": "ruby", "podfile": "ruby", "vagrantfile": "ruby",
    "build": "starlark", "build.bazel": "starlark", "workspace": "starlark", "meson.build": "meson",
    "sconstruct": "python", "sconscript": "python", "wscript": "python", "jenkinsfile": "groovy", ".bashrc": "shell",
    ".profile": "shell", ".vimrc": "vim", "go.mod": "go.mod",
}  # fmt: skip
_INTERPRETERS = {
    "python": "python", "pypy": "python", "sh": "shell", "bash": "shell", "zsh": "shell", "dash": "shell",
    "ksh": "shell", "perl": "perl", "ruby": "ruby", "node": "javascript", "deno": "typescript", "bun": "typescript",
    "php": "php", "rscript": "r", "lua": "lua", "luajit": "lua", "tclsh": "tcl", "wish": "tcl", "awk": "awk",
    "gawk": "awk", "make": "makefile", "julia": "julia", "escript": "erlang", "elixir": "elixir", "swift": "swift",
    "runhaskell": "haskell", "pwsh": "powershell", "ocaml": "ocaml", "groovy": "groovy",
}  # fmt: skip
_MODES = {
    "cpp": "c++", "objc": "objective-c", "sh": "shell", "js": "javascript", "csharp": "c#", "cperl": "perl",
    "emacs-lisp": "lisp", "rst": "restructuredtext", "make": "makefile", "latex": "tex",
}  # fmt: skip
_SHEBANG = re.compile(r"\ufeff?#![ \t]*(?:\S*/)?(?:env[ \t]+(?:-\S+[ \t]+|\w+=\S*[ \t]+)*(?:\S*/)?)?([A-Za-z]+)")
# Between Emacs's signs `-*-`: a mode alone or first, or a variable of that name; behind Vim's `vim:`.
_MODE_NAMED = re.compile(r"\bmode:[ \t]*+([\w+#-]++)[ \t]*+(?:;|\Z)")
_MODE_FIRST = re.compile(r"[ \t]*+([\w+#-]++)[ \t]*+(?:;|\Z)")
_VIM, _TYPE = re.compile(r"\b(?:vim?|ex):"), re.compile(r"\b(?:ft|filetype|syntax)=([\w+#-]+)")


def _any(*patterns: str) -> re.Pattern[str]:
    """One of these. White space at a line's beginning is its own: else lines above are looked at again for each."""
    return re.compile("|".join(patterns).replace(r"^\s*", r"^[^\S\n]*+"), re.MULTILINE)


# Endings that several languages share: (what only one of them writes, that language) in order; else LANGUAGES'.
_C_PLUS_PLUS = _any(
    r"^\s*template\s*<", r"^\s*(?:inline[^\S\n]++)?namespace\b(?:[\w:]|[^\S\n])*+\{?[^\S\n]*+$",
    r"^\s*class\s+[\w:]+(?:\s+\w+)?\s*(?:final\s*)?[:{]",
    r"\b(?:std|boost)::\w", r"^\s*(?:public|private|protected)\s*:", r"^\s*using\s+(?:namespace\b|\w+\s*=)",
    r"^\s*#\s*include\s*<(?:string|vector|map|memory|iostream|algorithm|utility|functional|type_traits|c\w+)>",
    r"\bconstexpr\b", r"\b(?:static|const|dynamic|reinterpret)_cast\s*<",
)  # fmt: skip
_OBJECTIVE_C = _any(
    r"^\s*@(?:interface|implementation|protocol|property|end|class|import)\b",
    r"^\s*#\s*import\s+[<\"]",
    r"\bNSString\b",
)
_AMBIGUOUS: dict[str, list[tuple[re.Pattern[str], str]]] = {
    ".h": [(_OBJECTIVE_C, "objective-c"), (_C_PLUS_PLUS, "c++")],
    ".m": [
        (_OBJECTIVE_C, "objective-c"),
        (_any(r"^\s*:-\s*(?:module|interface)\b", r"^\s*:- pred\b"), "mercury"),
        (_any(r"\(\*", r"^\s*\w+\[[\w_, ]*\]\s*:="), "mathematica"),
        (_any(r"^\s*%", r"^\s*function\b[^;{\n]*+$", r"^\s*end[^\S\n]*+;?[^\S\n]*+$",
              r"^\s*\w+\s*=\s*\[.*\];"), "matlab"),
    ],
    ".pl": [
        (_any(r"^\s*(?:use\s+(?:strict|warnings|v?5|\w+::)|package\s+\w|my\s+[$@%(]|sub\s+\w+)", r"^=\w+"), "perl"),
        (_any(r"^\s*:-", r"^[a-z]\w*+\([^()]*+\)\s*+(?::-|\.[^\S\n]*+$)"), "prolog"),
    ],
    ".v": [
        (_any(r"^\s*(?:Require|Theorem|Lemma|Proof|Qed|Definition|Inductive|Fixpoint)\b"), "coq"),
        (_any(r"^\s*(?:fn\s+(?:\(\w+\s+)?\w+|import\s+\w+\s*$|module\s+main\b)"), "v"),
    ],
    ".r": [(_any(r"^\s*REBOL\b", r"^\s*Rebol\s*\["), "rebol")],
    ".inc": [
        (_any(r"<\?(?:php|=)"), "php"),
        (_any(r"^\s*(?:SUMMARY|LICENSE|SRC_URI|DEPENDS|inherit|do_\w+\(\))\s*[?+:]?="), "bitbake"),
        (_any(r"^\s*(?:section|global|extern|bits)\s+\.?\w+\s*$", r"^\s*%(?:macro|define|include)\b",
              r"^\s*(?:mov|push|pop|jmp|call)\s+\w"), "assembly"),
        (_any(r"^\s*(?:procedure|unit|implementation|uses)\b[\w ,]*;", r"\{\$\w+"), "pascal"),
        (_any(r"^\s*(?:subroutine|integer|real|common|double precision)\b(?![^\n]*;)"), "fortran"),
        (_C_PLUS_PLUS, "c++"),
    ],
    ".d": [(_any(r"^[\w./ \\-]+\.o?:\s", r"^\S+\.(?:o|lo|d|rlib|rmeta)\s*:"), "makefile"),
           (_any(r"^\s*(?:probe\b|BEGIN\b|#pragma D\b|\w*:\w*:\w*:\w*)"), "dtrace")],
    ".s": [(_any(r"^\s*(?:#\s*S\b|\w+\s*<-\s)"), "r")],
    ".cl": [(_any(r"^\s*\((?:def\w+|in-package)\b"), "lisp")],
    ".fs": [(_any(r"^\s*#version\b", r"\bgl_Frag", r"^\s*(?:varying|uniform)\s"), "glsl"),
            (_any(r"^: \S+ .*;?$"), "forth")],
    ".cls": [(_any(r"^\s*\\(?:Needs|Provides)"), "tex")],
    ".sql": [],
}  # fmt: skip
_XML = re.compile(r"\s*(?:<\?xml\b|<!DOCTYPE TS|<TS\b)")
NOT_ITS_LANGUAGE = ".ts"  # Qt's translations share their ending with TypeScript


@dataclass(frozen=True, slots=True)
class _Listed:
    """Linguist's languages by ending, name and interpreter, and which of them are formats of data."""

    endings: dict[str, str]
    names: dict[str, str]
    interpreters: dict[str, str]
    formats: list[str]


@cache
def _listed() -> _Listed:
    return _Listed(**json.loads((Path(__file__).with_name("languages.json")).read_text("utf-8")))


@cache
def _formats() -> frozenset[str]:
    return frozenset(_listed().formats) - _OURS


def programming_language(path: str) -> str | None:
    """The language of a source file by its name alone, None where it isn't known."""
    named = _named(path.rpartition("/")[2])
    return named if named not in _formats() else None


def format_of(path: str) -> str | None:
    """What a file holds by its name, data and plain text too (`json`, `text`); None where it isn't known."""
    return _named(path.rpartition("/")[2])


@lru_cache(maxsize=1 << 16)
def _named(name: str) -> str | None:
    name = name.lower()
    if known := NAMES.get(name) or _listed().names.get(name):
        return known
    ending = PurePosixPath(name).suffix
    if name.startswith(("dockerfile.", "makefile.")) and ending not in (".j2", ".md", ".rst"):
        return name.partition(".")[0]
    return LANGUAGES.get(ending) or _listed().endings.get(ending)


def needs_content(path: str) -> bool:
    """Whether a name is silent: no ending and no known name, so that only a `#!` line or a modeline can tell."""
    name = path.rpartition("/")[2]
    return not PurePosixPath(name).suffix and not name.startswith(".") and _named(name) is None


def language_of(path: str, text: str) -> str | None:
    """The language of a source file by name and content; None where it is no source file that is known."""
    ending = PurePosixPath(path).suffix.lower()
    head = text[:HEAD]
    if needs_content(path):
        return _interpreter(head) or _mode(head, text)
    named = programming_language(path)
    if named is None:
        return None
    if ending == NOT_ITS_LANGUAGE and _XML.match(head):
        return "xml"
    if ending in _AMBIGUOUS and PurePosixPath(path).name.lower() not in NAMES:
        if told := _mode(head, text) or _interpreter(head):
            return told
        return next((language for pattern, language in _AMBIGUOUS[ending] if pattern.search(head)), named)
    return named


def _interpreter(head: str) -> str | None:
    match = _SHEBANG.match(head)
    if not match:
        return None
    return _INTERPRETERS.get(match[1].lower()) or _listed().interpreters.get(match[1].lower())


def _mode(head: str, text: str) -> str | None:
    """The language an editor (Emacs, Vim) is told to take the file for, in the first or last five lines."""
    for line in (*head.split("\n", 5)[:5], *text[-1_000:].split("\n")[-6:]):
        if match := _modeline(line):
            mode = match[1].lower().removesuffix("-mode")
            mode = _MODES.get(mode, mode)
            return mode if mode in _KNOWN else None
    return None


def _modeline(line: str) -> re.Match[str] | None:
    for part in line.split("-*-")[1:-1]:
        if match := _MODE_NAMED.search(part) or _MODE_FIRST.match(part):
            return match
    vim = _VIM.search(line)
    return _TYPE.search(line, vim.end()) if vim else None


_OURS = frozenset(LANGUAGES.values()) | frozenset(NAMES.values())
_KNOWN = _OURS | {"matlab", "prolog", "coq", "xml"}
