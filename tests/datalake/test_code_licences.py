"""SPDX licences of source files: expressions, headers, texts, and what holds in which folder."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datalake.sources.code.config import PERMISSIVE
from datalake.sources.licences.projects import ProjectLicences, Terms, speaks_of_licence
from datalake.sources.licences.spdx import all_of, canonical_licence, header_licence, permissive
from datalake.sources.licences.texts import licences_in

ALLOWED = frozenset(PERMISSIVE)


def installed_text(name: str, file: str) -> bytes:
    """A licence text as an installed distribution carries it."""
    for path in metadata.distribution(name).files or []:
        if path.name == file and ".dist-info" in str(path):
            return path.locate().read_bytes()
    pytest.skip(f"{name} is installed without its {file}")


def mit() -> bytes:
    return installed_text("pydantic", "LICENSE")


def apache() -> bytes:
    return installed_text("packaging", "LICENSE.APACHE")


def bsd2() -> bytes:
    return installed_text("packaging", "LICENSE.BSD")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True), ("GPL-3.0-only", False), (None, False), ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False), ("(MIT OR GPL-2.0-only) AND Apache-2.0", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False), ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only OR MIT AND LGPL-3.0-only", False), ("LicenseRef-Mine", False), ("", False), ("MIT MIT", False),
    ],
)  # fmt: skip
def test_or_needs_one_permissive_side_and_and_both(expression: str | None, expected: bool) -> None:
    assert permissive(expression, ALLOWED) is expected


names = st.sampled_from(["MIT", "Apache-2.0", "GPL-3.0-only", "MPL-2.0"])
trees = st.recursive(names, lambda each: st.tuples(st.sampled_from(["AND", "OR"]), each, each), max_leaves=8)


@given(trees)
def test_the_judgement_is_that_of_the_boolean_formula(tree: object) -> None:
    def written(node: object) -> str:
        return node if isinstance(node, str) else f"({written(node[1])} {node[0]} {written(node[2])})"  # type: ignore[index]

    def value(node: object) -> bool:
        if isinstance(node, str):
            return node in ALLOWED
        sides = value(node[1]), value(node[2])  # type: ignore[index]
        return all(sides) if node[0] == "AND" else any(sides)  # type: ignore[index]

    assert permissive(written(tree), ALLOWED) is value(tree)
    assert canonical_licence(written(tree)) is not None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("# SPDX-License-Identifier: MIT\n", (True, "MIT")),
        ("/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */\n",
         (True, "(GPL-2.0 WITH Linux-syscall-note) OR MIT")),
        ("// SPDX-License-Identifier: apache-2.0\n", (True, "Apache-2.0")),
        ("# SPDX-License-Identifier: NoSuchThing\n", (True, None)),
        ("TAG = 'SPDX-License-Identifier: GPL-3.0-only'\n", (False, None)),
        ("# Licensed under the Apache License, Version 2.0 (the \"License\");\n", (True, "Apache-2.0")),
        ("/*\n * This Source Code Form is subject to the terms of the Mozilla Public\n * License, v. 2.0.\n */\n",
         (True, "MPL-2.0")),
        ("# under the terms of the GNU General Public License as published by\n# the FSF; either version 2 of the"
         " License, or\n# (at your option) any later version.\n", (True, "GPL-2.0-or-later")),
        ("# GNU Lesser General Public License\n# version 3 as published\n", (True, "LGPL-3.0-only")),
        ("import licence\nx = 'under the Apache License, Version 2.0'\n", (False, None)),
        ("# Proprietary and confidential. No licence.\n", (True, None)),
        ("x = 1\n", (False, None)),
    ],
)  # fmt: skip
def test_a_files_header_is_read_and_code_that_speaks_of_licences_is_not(head: str, expected: object) -> None:
    assert header_licence(head + "x = 1\n") == expected


def test_a_licence_is_known_under_other_names_and_line_breaks() -> None:
    text = mit().decode()
    assert licences_in(text) == ["MIT"]
    flowed = " ".join(text.split()).replace("Copyright", "COPYRIGHT Somebody Else 1999, Copyright")
    assert licences_in(flowed) == ["MIT"]
    assert licences_in("\n".join(f" * {line}" for line in text.splitlines())) == ["MIT"]
    assert licences_in(text[: len(text) // 2]) == []
    assert licences_in("") == licences_in("Ask before you copy this.") == []


def test_variants_are_told_apart_and_a_restriction_on_top_is_no_known_licence() -> None:
    assert licences_in(bsd2().decode()) == ["BSD-2-Clause"]
    assert licences_in(apache().decode()) == ["Apache-2.0"]
    assert licences_in(apache().decode() + bsd2().decode()) == ["Apache-2.0", "BSD-2-Clause"]
    extra = " The Software shall be used for Good, not Evil."
    text = mit().decode()
    place = text.index("THE SOFTWARE IS PROVIDED")
    assert licences_in(text[:place] + extra + "\n\n" + text[place:]) in (["JSON"], ["MIT"])
    assert licences_in('"Commons Clause" License Condition v1.0\n' + text) == []


def test_installed_licences_are_those_that_their_distributions_declare() -> None:
    """The oracle is what authors declare, where that is one licence and there is one file."""
    right = wrong = 0
    for distribution in metadata.distributions():
        declared = distribution.metadata.get("License-Expression")
        files = [
            path
            for path in distribution.files or []
            if re.fullmatch(r"(?i)licen[cs]e(\.txt|\.md)?|copying", path.name) and ".dist-info" in str(path)
        ]
        if declared not in ("MIT", "BSD-3-Clause", "BSD-2-Clause", "ISC", "MPL-2.0") or len(files) != 1:
            continue
        found = licences_in(files[0].locate().read_text("utf-8", "replace"))
        right += declared in found
        wrong += bool(found) and declared not in found
    assert right >= 20
    assert wrong <= right // 20


def test_the_nearest_licence_counts_and_an_unknown_one_leaves_its_folder_without() -> None:
    found = ProjectLicences(
        {
            "LICENSE": apache(),
            "vendor/a/LICENSE.txt": mit(),
            "vendor/b/LICENSE": b"Ask before you copy this.",
            "node/package.json": b'{"license": "(MIT OR Apache-2.0)"}',
            "crate/Cargo.toml": b'[package]\nlicense = "MIT/Apache-2.0"\n',
            "broken/package.json": b'{"license": ',
            "dual/LICENSE-MIT": mit(),
            "dual/LICENSE-APACHE": apache(),
            "both/LICENSE": mit(),
            "both/COPYING": apache(),
        }
    )
    assert found.of("src/x.py")[:2] == ("Apache-2.0", "LICENSE")
    assert found.of("vendor/a/deep/x.c")[:2] == ("MIT", "vendor/a/LICENSE.txt")
    assert found.of("vendor/b/x.c")[:2] == (None, "vendor/b/LICENSE")
    assert found.of("node/x.js")[0] in ("MIT OR Apache-2.0", "(MIT OR Apache-2.0)")
    assert found.of("crate/src/x.rs")[:2] == ("MIT OR Apache-2.0", "crate/Cargo.toml")
    assert found.of("broken/x.js")[:2] == ("Apache-2.0", "LICENSE")
    assert found.of("dual/x.rs")[0] == "Apache-2.0 OR MIT"
    assert found.of("both/x.rs")[0] == "Apache-2.0 AND MIT"


def test_a_distributions_metadata_comes_before_its_texts() -> None:
    info = b"Metadata-Version: 2.4\nName: x\nLicense-Expression: MIT OR Apache-2.0\n\n"
    found = ProjectLicences({"x-1.dist-info/METADATA": info, "x-1.dist-info/licenses/LICENSE": mit()})
    assert found.of("x/a.py")[:2] == ("MIT OR Apache-2.0", "x-1.dist-info/METADATA")
    texts = ProjectLicences({"x-1.dist-info/licenses/LICENSE": mit()}, Terms("ISC", "config"))
    assert texts.of("x/a.py")[:2] == ("MIT", "x-1.dist-info/licenses/LICENSE")
    assert ProjectLicences({}, Terms("ISC", "config")).of("a/b.py")[:2] == ("ISC", "config")


def test_a_module_called_licence_is_no_licence_file() -> None:
    assert not speaks_of_licence("src/license.py")
    assert not speaks_of_licence("docs/license.rst")
    assert all(map(speaks_of_licence, ("LICENSE", "a/COPYING.LESSER", "licence.md", "MIT-LICENSE.txt", "PKG-INFO")))
    assert all_of(["MIT OR X11", "ISC"]) == "(MIT OR X11) AND ISC"
    assert all_of([]) is None
