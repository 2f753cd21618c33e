"""Every file of a repository is a record, under its own name and under terms that are its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.sources.code.config import Code
from datalake.sources.code.files import archives, read
from datalake.sources.code.notebooks import read_notebook
from datalake.sources.licences.package_files import statement_of
from datalake.sources.licences.projects import ProjectLicences

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="no git")
MIT = """MIT License

Copyright (c) 2024 Someone

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def entries(path: Path, **options: Any) -> list[Entry]:
    config = Code(paths=[str(path)], **options)
    return [entry for shard in archives(config) for entry in read(shard, config)]


def documents(found: list[Entry]) -> dict[str, Document]:
    return {entry.attributes["path"]: entry for entry in found if isinstance(entry, Document)}


def refused(found: list[Entry]) -> dict[str, tuple[str, str]]:
    return {entry.uri.partition("/")[2]: (entry.reason, entry.detail) for entry in found if isinstance(entry, Refused)}


def git(folder: Path, *words: str) -> str:
    settings = ("user.name=someone", "user.email=someone@example.org", "protocol.file.allow=always",
                "init.defaultBranch=main")  # fmt: skip
    options = [option for setting in settings for option in ("-c", setting)]
    return subprocess.run(
        ["git", "-C", str(folder), *options, *words], check=True, capture_output=True, text=True
    ).stdout


LANGUAGES = {
    "R": "r", "adb": "ada", "adoc": "asciidoc", "cls": "apex", "cob": "cobol", "coffee": "coffeescript",
    "cr": "crystal", "elm": "elm", "erb": "html+erb", "f90": "fortran", "fish": "fish", "gd": "gdscript",
    "glsl": "glsl", "hcl": "hcl", "ino": "c++", "jsp": "java server pages", "lean": "lean", "nix": "nix", "org": "org",
    "ps1": "powershell",
    "purs": "purescript", "py": "python", "rkt": "racket", "rs": "rust", "sass": "sass", "sml": "standard ml",
    "sty": "tex", "thrift": "thrift", "vb": "visual basic .net", "wgsl": "wgsl",
}  # fmt: skip


def test_every_file_is_a_document_in_its_language_or_refused_with_its_kind(tmp_path: Path) -> None:
    others = {"a.json": "json", "a.xml": "xml", "a.png": ".png", "LICENSE": "text", "notes.txt": "text",
              "blob": "no ending", ".gitignore": "ignore list"}  # fmt: skip
    root = write(tmp_path / "tool", {f"file.{ending}": "// one line\n" for ending in LANGUAGES})
    write(root, dict.fromkeys(others, "x"))
    write(root, {"__pycache__/a.pyc": "x", "node_modules/b.js": "x"})
    found = entries(root)
    told = {path: document.attributes["programming_language"] for path, document in documents(found).items()}
    assert told == {f"file.{ending}": language for ending, language in LANGUAGES.items()}
    assert refused(found) == {name: ("language", kind) for name, kind in others.items()}
    assert [entry for entry in found if isinstance(entry, Passed)] == [Passed("left_out")] * 2
    assert len({entry.id for entry in found if isinstance(entry, Document | Refused)}) == len(told) + len(others)


@needs_git
def test_a_bare_repository_gives_the_records_of_its_working_tree(tmp_path: Path) -> None:
    root = write(
        tmp_path / "tool", {"a.py": "x = 1\n", "b.json": "{}", "c.png": b"\x89", "run": "#!/bin/sh\n", "d": "x"}
    )
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", "--bare", "tool", "tool.git")
    assert refused(entries(root)) == refused(entries(tmp_path / "tool.git")) == refused(entries(root, revision="HEAD"))
    assert documents(entries(root)).keys() == documents(entries(tmp_path / "tool.git")).keys() == {"a.py", "run"}


@needs_git
@pytest.mark.parametrize("bare", [False, True])
def test_a_repository_of_sha_256_is_read(tmp_path: Path, bare: bool) -> None:
    root = write(tmp_path / "tool", {"a.py": "x = 1\n"})
    git(root, "init", "-q", "--object-format=sha256")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", "--bare", "tool", "tool.git")
    (found,) = entries(tmp_path / ("tool.git" if bare else "tool"))
    assert isinstance(found, Document)
    assert found.uri == f"tool@{git(root, 'rev-parse', 'HEAD').strip()}/a.py"


@needs_git
def test_what_git_does_not_track_is_told_and_has_no_address_in_the_commit(tmp_path: Path) -> None:
    root = write(tmp_path / "tool", {"kept.py": "x = 1\n", "größe.py": "x = 1\n", ".gitignore": "build/\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    (root / "kept.py").write_text("x = 2\n")  # as it lies
    write(root, {"build/out.py": "generated = 1\n", "secrets.py": "password = 1\n"})
    found = entries(root)
    assert {path: document.text for path, document in documents(found).items()} == {
        "kept.py": "x = 2\n", "größe.py": "x = 1\n",
    }  # fmt: skip
    reasons = {path: reason for path, (reason, _) in refused(found).items()}
    assert reasons == {".gitignore": "language", "build/out.py": "untracked", "secrets.py": "untracked"}
    (before,) = archives(Code(paths=[str(root)]))
    git(root, "add", "secrets.py")
    assert "secrets.py" in documents(entries(root))
    assert archives(Code(paths=[str(root)]))[0].version != before.version
    (root / ".git" / "index").write_bytes(b"DIRC damaged")
    assert "build/out.py" in documents(entries(root))  # nothing says what is tracked


@needs_git
def test_a_repository_inside_another_has_its_own_name_and_terms(tmp_path: Path) -> None:
    inner = write(tmp_path / "inner", {"sub.c": "int from_the_submodule;\n"})
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "one")
    root = write(tmp_path / "outer", {"LICENSE": MIT, "parent.c": "int parent;\n", "vendor/own/LICENSE": "Ask first.",
                                      "vendor/own/own.c": "int own;\n"})  # fmt: skip
    git(root, "init", "-q")
    git(root, "remote", "add", "origin", "https://git.example.org/team/outer.git")
    git(root, "add", ".")
    git(root, "submodule", "add", "-q", str(inner), "vendor/sub")
    git(root, "commit", "-qm", "one")
    found = entries(root)
    commit, other = git(root, "rev-parse", "HEAD").strip(), git(inner, "rev-parse", "HEAD").strip()
    assert {entry.uri: entry.licence for entry in found if isinstance(entry, Document)} == {
        f"git.example.org/team/outer@{commit}/parent.c": "MIT",
        f"git.example.org/team/outer@{commit}/vendor/own/own.c": None,
        f"inner@{other}/sub.c": None,
    }
    assert {d.attributes["group"] for d in documents(found).values()} == {"git.example.org/team/outer", "inner"}
    at_head = entries(root, revision="HEAD")
    assert documents(at_head).keys() == {"parent.c", "vendor/own/own.c"}
    assert Passed("submodule") in at_head
    git(tmp_path, "clone", "-q", "outer", "without")
    without = entries(tmp_path / "without")
    assert documents(without).keys() == documents(at_head).keys()
    assert Passed("submodule") in without


PACKAGES = {
    "array/package.json": ('{"license": {"type": "AGPL-3.0", "url": "http://x.example"}}', "AGPL-3.0"),
    "eula/package.json": ('{"license": "SEE LICENSE IN EULA.txt"}', None),
    "internal/package.json": ('{"private": true, "license": "UNLICENSED"}', None),
    "silent/package.json": ('{"private": true}', "MIT"),
    "old/package.json": ('{"licenses": [{"type": "GPL-3.0"}]}', "GPL-3.0"),
    "choice/package.json": ('{"licenses": [{"type": "ISC"}, {"type": "GPL-2.0"}]}', "GPL-2.0 OR ISC"),
    "some/package.json": ('{"licenses": [{"type": "ISC"}, {"type": "Custom"}]}', None),
    "bower/bower.json": ('{"license": "Commercial"}', None),
    "crate/Cargo.toml": ('[package]\nlicense-file = "TERMS.txt"\n', None),
    "shared/Cargo.toml": ('[package]\nlicense-file = "../LICENSE"\n', "MIT"),
    "member/Cargo.toml": ("[package]\nlicense.workspace = true\n", "MIT"),
    "odd/Cargo.toml": ('[package]\nlicense = "non-standard"\n', None),
    "prop/pyproject.toml": ('[project]\nlicense = {text = "Proprietary"}\n'
                            'classifiers = ["License :: OSI Approved :: MIT License"]\n', None),
    "trove/pyproject.toml": ('[project]\nclassifiers = ["License :: Other/Proprietary License"]\n', None),
    "pep639/pyproject.toml": ('[project]\nlicense = "LicenseRef-Ours"\n', "LicenseRef-Ours"),
    "pepfile/pyproject.toml": ('[project]\nlicense = {file = "TERMS.rst"}\n', None),
    "poetry/pyproject.toml": ('[tool.poetry]\nlicense = "Proprietary"\n', None),
    "tool/pyproject.toml": ("[tool.black]\nline-length = 100\n", "MIT"),
    "cfg/setup.cfg": ("[metadata]\nname = x\nlicense = Proprietary\n", None),
    "cfgmit/setup.cfg": ("[metadata]\nlicense = Apache License 2.0\n", "Apache-2.0"),
    "flake/setup.cfg": ("[flake8]\nmax-line-length = 100\n", "MIT"),
    "setup/setup.py": ("from setuptools import setup\nsetup(name='x', license='Commercial')\n", None),
    "setupgpl/setup.py": ("import setuptools\nsetuptools.setup(license='GPL-3.0-only')\n", "GPL-3.0-only"),
    "composer/composer.json": ('{"license": "proprietary"}', None),
    "composers/composer.json": ('{"license": ["MPL-2.0", "GPL-3.0-or-later"]}', "GPL-3.0-or-later OR MPL-2.0"),
    "gem/x.gemspec": ("Gem::Specification.new do |s|\n  s.license = 'Nonstandard'\nend\n", None),
    "gems/x.gemspec": ("Gem::Specification.new do |s|\n  s.licenses = ['MIT', \"GPL-2.0-only\"]\nend\n",
                       "GPL-2.0-only AND MIT"),
    "gemw/x.gemspec": ("  s.licenses = %w[Ruby ISC]\n", "ISC AND Ruby"),
    "pom/pom.xml": ("<project><licenses><license><name>Our Licence</name></license></licenses></project>", None),
    "poms/pom.xml": ("<project><licenses>\n<license>\n<name>The Apache Software License, Version 2.0</name></license>"
                     "</licenses></project>", "Apache-2.0"),
    "pomless/pom.xml": ("<project></project>", "MIT"),
    "net/x.csproj": ("<Project><PackageLicenseExpression>MPL-2.0</PackageLicenseExpression></Project>", "MPL-2.0"),
    "netfile/x.csproj": ("<Project><PackageLicenseFile>TERMS.txt</PackageLicenseFile></Project>", None),
    "netless/x.csproj": ("<Project></Project>", "MIT"),
    "spec/x.nuspec": ("<package><metadata><license type=\"expression\">ISC</license></metadata></package>", "ISC"),
    "agreement/EULA.md": ("You may not copy this.", None),
    "text/LICENSE.txt": ("All rights reserved.", None),
}  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_says_something_unknown_does_not_inherit(package: str) -> None:
    content, expected = PACKAGES[package]
    folder = package.partition("/")[0]
    found = ProjectLicences({"LICENSE": MIT.encode(), package: content.encode()}).of(f"{folder}/deep/x.js")
    assert found.expression == expected
    if expected != "MIT":
        assert found.source == package
    if expected is None:
        assert found.words


def test_a_text_beside_a_package_tells_what_its_words_leave_open() -> None:
    def of(package: str, beside: str = MIT) -> str | None:
        files = {"package.json": package.encode(), "LICENSE": beside.encode()}
        return ProjectLicences(files).of("x.js").expression

    assert of('{"license": "see the licence file"}') == "MIT"
    assert of('{"license": "SEE LICENSE IN ./LICENSE"}') == "MIT"
    assert of('{"license": "MIT (see LICENSE)"}') == "MIT"
    assert of('{"license": "BSD-like"}') is None
    assert of('{"license": "Commercial"}') is None
    assert of('{"license": "UNLICENSED"}') is None
    assert of('{"license": "MIT"}', "Ask first.") == "MIT"
    both = {"package.json": b'{"license": "MIT"}', "pyproject.toml": b'[project]\nlicense = "GPL-3.0-only"\n'}
    assert ProjectLicences(both).of("x.js").expression == "GPL-3.0-only AND MIT"
    both["Cargo.toml"] = b'[package]\nlicense = "ours"\n'
    assert ProjectLicences(both).of("x.js").expression is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 50_000, b"[a]\nb = " + b"[" * 5_000, b"<license>" * 9]
)
@pytest.mark.parametrize("name", sorted({package.partition("/")[2] for package in PACKAGES}))
def test_a_broken_package_file_says_nothing_or_something_unknown(name: str, content: bytes) -> None:
    said = statement_of(name, content)
    assert said is None or said.expression is None


def test_no_unknown_licence_passes_a_permissive_filter(tmp_path: Path) -> None:
    root = write(tmp_path / "tool", {"LICENSE": MIT, "src/a.js": "a = 1\n", "web/package.json": '{"license": "MIT"}',
                                     "web/w.js": "w = 1\n",
                                     "tag.js": "// SPDX-License-Identifier: Ours-1.0\nt = 1\n"})  # fmt: skip
    for package, (content, expected) in PACKAGES.items():
        if expected is None:
            write(root, {package: content, f"{package.partition('/')[0]}/x.js": "x = 1\n"})
    kept = entries(root, permissive_only=True)
    assert documents(kept).keys() == {"src/a.js", "web/w.js"}
    assert refused(kept)["internal/x.js"] == ("licence", "UNLICENSED (internal/package.json)")
    every = documents(entries(root, licence="ISC"))
    assert every["internal/x.js"].attributes["licence_stated"] == "UNLICENSED"
    assert every["tag.js"].attributes["licence_stated"] == "Ours-1.0"
    assert {every[path].licence for path in every if path not in ("src/a.js", "web/w.js")} == {None}


@pytest.mark.parametrize(
    ("licences", "expected"), [(["Ours"], None), (["MIT", "Ours"], None), ([], "ISC"), (["MIT"], "MIT")]
)
def test_a_row_that_names_an_unknown_licence_does_not_take_the_configured_one(
    tmp_path: Path, licences: list[str], expected: str | None
) -> None:
    row = {"content": "x = 1\n", "path": "a.py", "repo_name": "a/b", "max_stars_repo_licenses": licences}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = entries(tmp_path / "rows.jsonl", licence="ISC")
    assert isinstance(found, Document)
    assert found.licence == expected
    assert found.attributes.get("licence_stated", "") == ("" if expected else ", ".join(licences))


NOTEBOOK = {
    "nbformat": 4,
    "metadata": {"language_info": {"name": "python"}},
    "cells": [
        {"cell_type": "markdown", "source": ["# Levels\n", "\n", "We read the gauge."]},
        {
            "cell_type": "code",
            "source": "import csv\r\nx = 1\n",
            "outputs": [{"output_type": "stream", "text": "secret"}],
        },
        {"cell_type": "raw", "source": "as it is"},
        {"cell_type": "code", "source": ""},
    ],
}


def test_a_notebook_is_its_cells_and_its_outputs_are_left_out_and_told(tmp_path: Path) -> None:
    old = {"nbformat": 3, "worksheets": [{"cells": [
        {"cell_type": "heading", "level": 2, "source": "Old"},
        {"cell_type": "code", "language": "julia", "input": ["x = 1"], "outputs": []},
    ]}]}  # fmt: skip
    root = write(tmp_path / "tool", {"a.ipynb": json.dumps(NOTEBOOK), "old.ipynb": json.dumps(old), "b.ipynb": "{",
                                     "c.ipynb": "{}", "d.ipynb": '{"cells": []}', "e.ipynb": "[" * 100_000,
                                     "f.ipynb": '{"cells": [1]}'})  # fmt: skip
    found = entries(root)
    text = "# %% [markdown]\n# # Levels\n#\n# We read the gauge.\n\n# %%\nimport csv\nx = 1\n\n# %% [raw]\n# as it is\n"
    notebook = documents(found)["a.ipynb"]
    assert notebook.text == text
    assert {name: notebook.attributes[name] for name in ("programming_language", "cells", "outputs_left_out")} == {
        "programming_language": "python", "cells": "4", "outputs_left_out": "1",
    }  # fmt: skip
    assert documents(found)["old.ipynb"].text == "# %% [markdown]\n# ## Old\n\n# %%\nx = 1\n"
    assert documents(found)["old.ipynb"].attributes["programming_language"] == "julia"
    assert [e.detail.partition(":")[0] for e in found if isinstance(e, Quarantined) and e.reason == "notebook"] == [
        "b.ipynb", "c.ipynb", "e.ipynb", "f.ipynb",
    ]  # fmt: skip
    assert refused(found) == {"d.ipynb": ("empty", "")}
    assert len(found) == 7


def test_a_row_whose_notebook_is_a_script_already_stays_it(tmp_path: Path) -> None:
    row = {"content": "x = 1\n", "path": "a.ipynb", "repo_name": "a/b", "lang": "Jupyter Notebook"}
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in (row, row | {"content": json.dumps(NOTEBOOK)}))
    )
    script, notebook = (entry for entry in entries(tmp_path / "rows.jsonl") if isinstance(entry, Document))
    assert script.text == "x = 1\n"
    assert notebook.text == read_notebook(json.dumps(NOTEBOOK)).text


@pytest.mark.parametrize(
    ("name", "text", "encoding", "charset"),
    [
        ("latin.c", "/* Copyright © 1998 Jürgen Example */\nint a;\n", "latin-1", "windows-1252"),
        ("Level.java", "// 计算水位的平均值，返回浮点数\nclass A {}\n", "gbk", "gb18030"),
        ("sjis.php", "<?php // 水位の平均\n$a = 1;\n", "shift_jis", "shift_jis"),
        ("euc.c", "// コメントです\nint a;\n", "euc-jp", "euc-jp"),
        ("korean.c", "/* 한국어 주석입니다 */\nint a;\n", "euc-kr", "euc-kr"),
        ("big5.c", "// 繁體中文註解\nint a;\n", "big5", "big5"),
        ("russian.pas", "{ комментарий }\nvar a: integer;\n", "cp1251", "windows-1251"),
        ("jis.c", "// 水位の平均\nint a;\n", "iso2022_jp", "iso-2022-jp"),
        ("coded.py", "# -*- coding: gbk -*-\n# 计算\nx = 1\n", "gbk", "gbk"),
        ("cp850.py", "# coding: cp850\nx = 'größe'\n", "cp850", "cp850"),
        ("lies.py", "# coding: ascii\nx = 'größe'\n", "utf-8", None),
        ("utf16.cs", "class A { } // größe\n", "utf-16", "utf-16le"),
        ("plain.py", "x = 1\n", "ascii", None),
    ],
)
def test_a_source_in_another_character_set_is_read_and_says_which(
    tmp_path: Path, name: str, text: str, encoding: str, charset: str | None
) -> None:
    (found,) = entries(write(tmp_path / "tool", {name: text.encode(encoding)}))
    assert isinstance(found, Document)
    assert (found.text, found.attributes.get("charset")) == (text, charset)


def test_one_byte_of_damage_leaves_the_file_utf_8_and_binary_stays_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "tool", {"a.py": "# größer als früher, schön\n".encode() + b"# \xe9\n",
                                     "b.c": bytes(range(1, 256)) * 4, "c.c": b"\x7fELF\0\0"})  # fmt: skip
    found = entries(root)
    assert documents(found)["a.py"].text == "# größer als früher, schön\n# \ufffd\n"
    assert {path: reason for path, (reason, _) in refused(found).items()} == {"b.c": "binary", "c.c": "binary"}
