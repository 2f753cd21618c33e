"""Files of a repository joined in the order of what they use: every record still gives one entry."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from datalake.document import Document, Entry, Refused
from datalake.sources.code.concatenate import joined, order, uses_of
from datalake.sources.code.config import Code
from datalake.sources.code.files import archives, read


def document(path: str, text: str, language: str = "python", licence: str | None = "MIT") -> Document:
    attributes = {"path": path, "blob": "b", "programming_language": language, "repository": "r", "marks": ""}
    uri = f"r@1/{path}"
    return Document(path.encode(), text, "code", uri, licence=licence, length=len(text), attributes=attributes)


def used(files: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    names = list(files)
    found = uses_of([(path, language, text) for path, (language, text) in files.items()])
    return {name: {names[at] for at in each} for name, each in zip(names, found, strict=True) if each}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "src/p/__init__.py": ("python", ""), "src/p/a.py": ("python", "from . import b\nfrom .c import X\n"),
                "src/p/b.py": ("python", "import os, p.c\n"), "src/p/c.py": ("python", "from p import (\n    d,\n)\n"),
                "src/p/d/__init__.py": ("python", "from ..b import y as z\n"),
            },
            {"src/p/a.py": {"src/p/b.py", "src/p/c.py"}, "src/p/b.py": {"src/p/c.py"},
             "src/p/c.py": {"src/p/d/__init__.py"}, "src/p/d/__init__.py": {"src/p/b.py"}},
        ),
        (
            {"src/a.c": ("c", '#include "a.h"\n#include <x/b.h>\n#include <stdio.h>\n'), "src/a.h": ("c", ""),
             "include/x/b.h": ("c", '#include "../../src/a.h"\n')},
            {"src/a.c": {"src/a.h", "include/x/b.h"}, "include/x/b.h": {"src/a.h"}},
        ),
        (
            {"a.ts": ("typescript", "import x from './b'\nconst y = require('./c')\nimport 'react'\n"),
             "b/index.ts": ("typescript", ""), "c.js": ("javascript", "export * from \"./a\"\n")},
            {"a.ts": {"b/index.ts", "c.js"}, "c.js": {"a.ts"}},
        ),
        (
            {"src/org/a/A.java": ("java", "import org.b.B;\nimport java.util.List;\n"),
             "src/org/b/B.java": ("java", "")},
            {"src/org/a/A.java": {"src/org/b/B.java"}},
        ),
        (
            {"main.go": ("go", 'import (\n\t"fmt"\n\tx "example.org/m/util"\n)\n'), "util/a.go": ("go", ""),
             "util/b.go": ("go", "")},
            {"main.go": {"util/a.go", "util/b.go"}},
        ),
        (
            {"src/main.rs": ("rust", "mod a;\npub mod b;\n"), "src/a.rs": ("rust", "use crate::b::c::D;\n"),
             "src/b/mod.rs": ("rust", "mod c;\n"), "src/b/c.rs": ("rust", "")},
            {"src/main.rs": {"src/a.rs", "src/b/mod.rs"}, "src/a.rs": {"src/b/c.rs"}, "src/b/mod.rs": {"src/b/c.rs"}},
        ),
    ],
)  # fmt: skip
def test_imports_are_found_in_every_language(files: dict[str, tuple[str, str]], expected: dict[str, set[str]]) -> None:
    assert used(files) == expected


def test_each_file_stands_behind_what_it_uses() -> None:
    documents = [document("a.py", "import b\nimport z\n"), document("b.py", "import c\n"), document("c.py", "x = 1\n"),
                 document("z.py", "y = 1\n"), document("README.md", "# r\n", "markdown")]  # fmt: skip
    assert [d.attributes["path"] for d in order(documents)] == ["README.md", "c.py", "b.py", "z.py", "a.py"]
    random.Random(1).shuffle(documents)
    assert [d.attributes["path"] for d in order(documents)] == ["README.md", "c.py", "b.py", "z.py", "a.py"]


def test_a_cycle_is_broken_the_same_way_whatever_the_order_of_files() -> None:
    documents = [
        document("a.py", "import b\nimport c\n"),
        document("b.py", "import a\n"),
        document("c.py", "import b\n"),
    ]
    expected = [d.attributes["path"] for d in order(documents)]
    assert sorted(expected) == ["a.py", "b.py", "c.py"]
    for seed in range(6):
        random.Random(seed).shuffle(documents)
        assert [d.attributes["path"] for d in order(documents)] == expected


def test_every_document_gives_one_entry_and_its_part_is_found_where_it_is_said_to_be() -> None:
    documents = [document(f"m{n}.py", f"import m{n + 1}\nx = {n}\n" * 20) for n in range(9)]
    documents.append(document("é.py", "s = 'é'\n", licence=None))
    found = list(joined(documents, 1_200))
    texts = [entry for entry in found if isinstance(entry, Document)]
    refused = [entry for entry in found if isinstance(entry, Refused)]
    assert len(found) == len(documents)
    assert {entry.id for entry in found} == {each.id for each in documents}
    assert len(texts) > 1
    assert all(len(text.text.encode()) <= 1_200 for text in texts)
    assert {entry.reason for entry in refused} == {"joined"}
    assert {entry.detail for entry in refused} <= {text.uri for text in texts}
    seen = {}
    for text in texts:
        for part in json.loads(text.attributes["parts"]):
            seen[part["path"]] = text.text[part["start"] : part["start"] + part["length"]]
    assert seen == {each.attributes["path"]: each.text for each in documents}
    assert [text.licence for text in texts].count(None) == 1


def test_a_file_that_is_too_large_by_itself_stays_alone() -> None:
    found = list(joined([document("a.py", "x = 1\n" * 500), document("b.py", "y = 1\n")], 1_000))
    assert all(isinstance(entry, Document) for entry in found)


def test_joining_is_configured_and_keeps_the_records(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.py").write_text("import b\n")
    (tmp_path / "p" / "b.py").write_text("x = 1\n")
    (tmp_path / "p" / "empty.py").write_text("")
    (tmp_path / "p" / "c.js").write_text("var x = 1\n")

    def entries(how: str) -> list[Entry]:
        config = Code(paths=[str(tmp_path / "p")], concatenate=how)
        return [entry for shard in archives(config) for entry in read(shard, config)]

    apart, together = entries("none"), entries("repository")
    assert len(apart) == len(together) == 4
    (text,) = (entry for entry in together if isinstance(entry, Document))
    assert text.text == "# b.py\nx = 1\n\n# a.py\nimport b\n\n// c.js\nvar x = 1\n"
    assert sorted(e.reason for e in together if isinstance(e, Refused)) == ["empty", "joined", "joined"]
