"""What a source file is besides code: generated, vendored, minified, a test, a lock file, data.

The conventions are those that editors, package managers and code hosts go by (names, folders and the notices that
generators leave); a mark is a fact about a file, and what becomes of it is configured.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

MARKS = ("generated", "vendored", "minified", "tests", "lock", "data")
_HEAD = 4_000  # characters in which a generator says so
MINIFIED_LINE = 500  # characters: the mean line of a script or style sheet that nobody wrote by hand
DATA_SHARE = 0.8  # of a file's tokens are numbers
DATA_CHARACTERS = 20_000  # shorter files aren't dumps

_VENDORED = re.compile(
    r"(?:^|/)(?:_?vendor(?:ed)?|_vendored_packages|third[_-]?party|3rd[_-]?party|3rdparty|thirdparty|external|externals"
    r"|extern|extlibs?|contrib/lib|node_modules|bower_components|Godeps/_workspace|Carthage|Pods|site-packages"
    r"|bundled|deps)/",
    re.IGNORECASE,
)
_VENDORED_NAME = re.compile(
    r"(?:^|/)(?:jquery|bootstrap|d3|angular|react|vue|lodash|underscore|modernizr|mootools|prototype|ember|require"
    r"|html5shiv|normalize)(?:[-.]\d[\w.-]*)?(?:\.min)?\.(?:js|css)$",
    re.IGNORECASE,
)
_GENERATED_NAME = re.compile(
    r"(?:_pb2(?:_grpc)?\.pyi?|\.pb\.(?:go|cc|h|c)|\.pb-c\.[ch]|_pb\.(?:js|d\.ts|rb)|\.g\.(?:dart|cs)|\.freezed\.dart"
    r"|\.designer\.cs|\.generated\.\w+|_generated\.(?:go|rs|h|py)|\.tab\.[ch]|\.yy\.c|moc_\w{1,255}\.cpp|ui_\w{1,255}\.py"
    r"|zz_generated\.\w+\.go|parsetab\.py|lextab\.py|_version\.py|(?:^|/)__generated__/(?s:.+)|\.(?:js|css)\.map)$",
    re.IGNORECASE,
)
_GENERATED = re.compile(
    r"(?:code|file|this (?:module|header|script)|parser|documentation)\b[^\n]{0,60}\b(?:auto[- ]?generated|generated)\b"
    r"[^\n]{0,60}\b(?:by|from|with|using)\b"
    r"|\b(?:auto(?:matically)?[- ]?generated)\b[^\n]{0,80}\b(?:do not|don't|by|from|file|code)\b"
    r"|\bgenerated\b[^\n]{0,120}\bdo not (?:edit|modify|change)\b"
    r"|\bdo not (?:edit|modify|change)\b[^\n]{0,80}\bgenerated\b"
    r"|^\W*(?:generated|produced) by (?:the )?(?:cython|swig|bison|flex|gnu bison|antlr|protoc|thrift|"
    r"the protocol buffer compiler|f2c|ragel|javacc|gnu autoconf|automake|cmake|coffeescript)\b|@generated\b",
    re.IGNORECASE | re.MULTILINE,
)
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|--|;|%|\"\"\"|'''|<!--|\(\*|rem\b|\.\.)", re.IGNORECASE)
_TESTS = re.compile(
    r"(?:^|/)(?:tests?|testing|__tests__|specs?|testdata|fixtures)/|(?:^|/)(?:test_[^/]+|conftest)\.py$"
    r"|(?:_test|_spec)\.\w+$|\.(?:test|spec)\.[cm]?[jt]sx?$|(?:^|/)[A-Z]\w*Tests?\.(?:java|kt|cs|scala|swift)$"
)
_LOCKS = frozenset((
    "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "pipfile.lock",
    "pdm.lock", "uv.lock", "cargo.lock", "gemfile.lock", "composer.lock", "go.sum", "podfile.lock", "mix.lock",
    "flake.lock", "packages.lock.json", "conda-lock.yml", "pubspec.lock", "bun.lock", "deno.lock", "gradle.lockfile",
))  # fmt: skip
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.+-]*")
_MAY_BE_MINIFIED = (".js", ".css", ".mjs", ".cjs")


def marks(path: str, text: str) -> list[str]:
    """The marks of a file, in the order of `MARKS`."""
    found = {
        "generated": bool(_GENERATED_NAME.search(path)) or _says_generated(text),
        "vendored": bool(_VENDORED.search(path) or _VENDORED_NAME.search(path)),
        "minified": _minified(path, text),
        "tests": bool(_TESTS.search(path)),
        "lock": PurePosixPath(path).name.lower() in _LOCKS,
        "data": _data(text),
    }
    return [mark for mark in MARKS if found[mark]]


def _says_generated(text: str) -> bool:
    """Whether a comment near the file's beginning says that a program wrote it."""
    head = text[:_HEAD]
    if "enerated" not in head and "GENERATED" not in head and "roduced by" not in head:
        return False
    for match in _GENERATED.finditer(head):
        start = head.rfind("\n", 0, match.start()) + 1
        # A docstring's or block comment's later lines have no sign of their own; they count in the first lines.
        if _COMMENT.match(head, start) or head.count("\n", 0, start) < 3:
            return True
    return False


def _minified(path: str, text: str) -> bool:
    name = path.lower()
    if not name.endswith(_MAY_BE_MINIFIED):
        return False
    return ".min." in name or "-min." in name or len(text) > MINIFIED_LINE * (text.count("\n") + 1)


def _data(text: str) -> bool:
    """Whether a long file is a table of numbers: judged by three stretches of it."""
    if len(text) < DATA_CHARACTERS:
        return False
    tokens: list[str] = []
    for place in (len(text) // 4, len(text) // 2, 3 * len(text) // 4):
        tokens += _TOKEN.findall(text[place : place + 1_500])
    return len(tokens) > 200 and sum(token[0].isdigit() for token in tokens) >= DATA_SHARE * len(tokens)
