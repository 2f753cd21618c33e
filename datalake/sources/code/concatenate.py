"""The files of a repository as one text, each behind what it uses (as DeepSeek-Coder's data was ordered, 2024).

What a file uses is read from its imports: Python, C and C++, JavaScript and TypeScript, Java, Go, Rust; files of other
languages stand in the order of their paths. A cycle is broken at the file that waits for the fewest others.
"""

from __future__ import annotations

import heapq
import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from datalake.document import Document, Refused
from datalake.sources.licences.spdx import all_of

_PYTHON = re.compile(
    r"^[ \t]*+(?:from[ \t]++([\w.]++)[ \t]++import[ \t]++(\([^()]*+\)|[^\n#;]+)|import[ \t]++([\w., \t]+))", re.M
)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*(?:include|import)[ \t]*[\"<]([^\">\n]+)[\">]", re.MULTILINE)
_SCRIPT = re.compile(r"(?:\bfrom|\bimport|\brequire[ \t]*\(|\bimport[ \t]*\()[ \t]*[\"'](\.[^\"'\n]*)[\"']")
_JAVA = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)", re.MULTILINE)
_GO = re.compile(r"^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?\"([\w./~-]+)\"[ \t]*$", re.MULTILINE)
_RUST_MODULE = re.compile(r"^[ \t]*(?:pub(?:\([^()]*+\))?[ \t]+)?mod[ \t]+(\w+)[ \t]*;", re.MULTILINE)
_RUST_USE = re.compile(r"\bcrate::([\w:]+)")
_LEVELS = 32  # folders of a path that an import may name
_SCRIPTS = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".vue", "/index.ts", "/index.js", "/index.tsx")
_C = ("c", "c++", "cuda", "objective-c", "objective-c++")
_SIGNS = {
    **dict.fromkeys(("html", "markdown", "xml", "vue", "svelte"), ("<!-- ", " -->")),
    **dict.fromkeys(("sql", "lua", "haskell", "vhdl"), ("-- ", "")),
    **dict.fromkeys(("lisp", "scheme", "clojure"), (";; ", "")),
    **dict.fromkeys(("tex", "matlab", "prolog", "erlang"), ("% ", "")),
    **dict.fromkeys(("css", "ocaml"), ("/* ", " */")),
    **dict.fromkeys(("restructuredtext",), (".. ", "\n")),
    **dict.fromkeys(
        ("c", "c++", "cuda", "c#", "objective-c", "objective-c++", "java", "javascript", "typescript", "go", "rust",
         "kotlin", "scala", "swift", "dart", "php", "groovy", "protobuf", "verilog", "zig", "d", "f#", "solidity"),
        ("// ", ""),
    ),
}  # fmt: skip


def joined(documents: list[Document], largest: int) -> Iterator[Document | Refused]:
    """One entry a document of a repository: texts of at most `largest` bytes, and refusals of what went into them.

    A text takes the place of its first file, with that file's id and uri; every other file is refused as `joined`, its
    detail the uri of the text that holds it. A file that is larger by itself stays alone.
    """
    parts: list[Document] = []
    size = 0
    for document in order(documents):
        more = len(_part(document).encode("utf-8", "replace")) + 1
        if parts and size + more > largest:
            yield from _join(parts)
            parts, size = [], 0
        parts.append(document)
        size += more
    if parts:
        yield from _join(parts)


def _part(document: Document) -> str:
    before, after = _SIGNS.get(document.attributes["programming_language"], ("# ", ""))
    return f"{before}{document.attributes['path']}{after}\n{document.text}" + "\n" * (not document.text.endswith("\n"))


def _join(parts: list[Document]) -> Iterator[Document | Refused]:
    first = parts[0]
    texts = []
    kept = []
    place = 0
    for document in parts:
        text = _part(document)
        at = text.index("\n") + 1
        body = {"start": place + at, "length": len(document.text), "offset": document.offset}
        kept.append({key: document.attributes[key] for key in ("path", "blob")} | {"licence": document.licence} | body)
        texts.append(text)
        place += len(text) + 1
    languages = Counter[str]()
    for document in parts:
        languages[document.attributes["programming_language"]] += len(document.text)
    secrets: Counter[str] = Counter()
    for document in parts:
        secrets.update(json.loads(document.attributes.get("secrets", "{}")))
    attributes = first.attributes | {
        "programming_language": min(languages, key=lambda name: (-languages[name], name)),
        "parts": json.dumps(kept, ensure_ascii=False, separators=(",", ":")),
        "marks": " ".join(sorted({mark for document in parts for mark in document.attributes["marks"].split()})),
    }
    if secrets:
        attributes["secrets"] = json.dumps(dict(sorted(secrets.items())))
    licences = [document.licence for document in parts]
    licence = None if None in licences else all_of([each for each in licences if each])
    length = sum(document.length for document in parts)
    yield replace(first, text="\n".join(texts), licence=licence, length=length, attributes=attributes)
    for other in parts[1:]:
        where = (other.archive, other.offset, other.length)
        yield Refused(other.id, other.source, other.uri, "joined", first.uri, other.language, *where)


def order(documents: list[Document]) -> list[Document]:
    """The documents, each behind those it uses and else by path."""
    documents = sorted(documents, key=lambda document: (document.attributes["path"], document.id))
    uses = uses_of([(d.attributes["path"], d.attributes["programming_language"], d.text) for d in documents])
    waiting = {at: set(found) for at, found in enumerate(uses)}
    used_by = defaultdict(list)
    for at, found in enumerate(uses):
        for other in found:
            used_by[other].append(at)
    ready = [at for at, found in waiting.items() if not found]
    heapq.heapify(ready)
    # Files that wait, by how many they wait for: stale entries are passed over.
    queue = [(len(found), at) for at, found in waiting.items() if found]
    heapq.heapify(queue)
    out: list[Document] = []
    done: set[int] = set()
    while len(out) < len(documents):
        if ready:
            at = heapq.heappop(ready)
        else:
            count, at = heapq.heappop(queue)
            if at in done or count != len(waiting[at]):
                continue
        if at in done:
            continue
        done.add(at)
        out.append(documents[at])
        for user in used_by[at]:
            if user not in done and at in waiting[user]:
                waiting[user].discard(at)
                if waiting[user]:
                    heapq.heappush(queue, (len(waiting[user]), user))
                else:
                    heapq.heappush(ready, user)
    return out


def uses_of(files: list[tuple[str, str, str]]) -> list[set[int]]:
    """For each (path, language, text) the numbers of the other files it imports."""
    index = _Index([path for path, _, _ in files])
    out: list[set[int]] = []
    for at, (path, language, text) in enumerate(files):
        if language in ("python", "cython"):
            found = _python(path, text, index)
        elif language in _C:
            found = [index.near(path, name) for name in _INCLUDE.findall(text)]
        elif language in ("javascript", "typescript", "vue", "svelte"):
            found = [index.first(_relative(path, name), _SCRIPTS) for name in _SCRIPT.findall(text)]
        elif language == "java":
            found = [index.ending(name.replace(".", "/") + ".java") for name in _JAVA.findall(text)]
        elif language == "go":
            found = [file for name in _GO.findall(text) for file in index.folder(name, path, ".go")]
        elif language == "rust":
            found = _rust(path, text, index)
        else:
            found = []
        out.append({other for other in found if other is not None and other != at})
    return out


class _Index:
    """Files by path, by the ends of their paths and by folder."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = {path: at for at, path in enumerate(paths)}
        self._ends: dict[str, str] = {}  # of the paths that end so the shortest
        self._folders: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.paths, key=lambda each: (len(each), each)):
            for end in _ends(path):
                self._ends.setdefault(end, path)
            self._folders[posixpath.dirname(path)].append(path)
        self._folder_ends: dict[str, list[str]] = defaultdict(list)  # the two shortest
        for folder in sorted(self._folders, key=lambda each: (len(each), each)):
            for end in _ends(folder):
                if len(self._folder_ends[end]) < 2:
                    self._folder_ends[end].append(folder)

    def first(self, path: str, endings: tuple[str, ...]) -> int | None:
        return next((self.paths[path + ending] for ending in endings if path + ending in self.paths), None)

    def ending(self, path: str) -> int | None:
        """The file whose path ends so, the shortest where there are several."""
        found = self._ends.get(path)
        return None if found is None else self.paths[found]

    def near(self, path: str, name: str) -> int | None:
        """The file that is meant beside another: relative to its folder, else by the end of its path."""
        beside = self.paths.get(_relative(path, name))
        return beside if beside is not None else self.ending(posixpath.normpath(name).lstrip("./"))

    def folder(self, name: str, path: str, ending: str) -> list[int]:
        """The files of the one folder of another package whose path is the longest end of an import's."""
        for end in _ends(name):
            for folder in self._folder_ends.get(end, []):
                if folder != posixpath.dirname(path):
                    return [self.paths[p] for p in self._folders[folder] if p.endswith(ending)]
        return []


def _ends(path: str) -> Iterator[str]:
    """A path and its ends, the longest first, of `_LEVELS` names at most."""
    yield path
    place = len(path)
    places: list[int] = []
    while (place := path.rfind("/", 0, place)) >= 0 and len(places) < _LEVELS:
        places.append(place + 1)
    yield from (path[place:] for place in reversed(places))


def _relative(path: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def _python(path: str, text: str, index: _Index) -> list[int | None]:
    found: list[int | None] = []
    for module, names, plain in _PYTHON.findall(text):
        for name in plain.split(",") if plain else []:
            found.append(_module(name.split()[0] if name.split() else "", index))
        if not module:
            continue
        dots = len(module) - len(module.lstrip("."))
        taken = [name.split()[0] for name in names.strip("() \n").split(",") if name.split()]
        base = ""
        if dots:
            folder = posixpath.dirname(path)
            for _ in range(dots - 1):
                folder = posixpath.dirname(folder)
            base = posixpath.join(folder, *[part for part in module.split(".") if part])
        for name in taken or [""]:
            if dots:
                inner = index.first(posixpath.join(base, name), (".py", ".pyx", "/__init__.py"))
                found.append(inner if inner is not None else index.first(base, (".py", ".pyx", "/__init__.py")))
            else:
                found.append(_module(f"{module}.{name}", index))
    return found


def _module(name: str, index: _Index) -> int | None:
    """The file of an absolute import: the longest beginning of its dotted name that is one."""
    parts = [part for part in name.split(".") if part and part != "*"][:_LEVELS]
    while parts:
        path = "/".join(parts)
        for ending in (".py", ".pyx", "/__init__.py"):
            if (found := index.ending(path + ending)) is not None:
                return found
        parts.pop()
        if len(parts) == 1 and index.ending(f"{parts[0]}/__init__.py") is None:
            return index.paths.get(f"{parts[0]}.py")
    return None


def _rust(path: str, text: str, index: _Index) -> list[int | None]:
    found = []
    folder, name = posixpath.split(path)
    inner = folder if name in ("mod.rs", "lib.rs", "main.rs") else posixpath.join(folder, name.removesuffix(".rs"))
    for module in _RUST_MODULE.findall(text):
        found.append(index.first(posixpath.join(inner, module), (".rs", "/mod.rs")))
    before, source, _ = path.rpartition("src/")
    for used in _RUST_USE.findall(text):
        parts = [part for part in used.split("::") if part][:_LEVELS]
        while parts:
            at = index.first(posixpath.join(before + source, *parts), (".rs", "/mod.rs"))
            if at is not None:
                found.append(at)
                break
            parts.pop()
    return found
