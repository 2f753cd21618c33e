"""The cases beside the samples: inputs that went wrong once, here or elsewhere, each with what is right (cases.yaml).

Their kinds are covered without them, by the tests of each reader; these are the very bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datalake.lake.lake import Lake
from datalake.sources import reader
from datalake.sources.listing import list_archives
from flows.recipe import load

CASES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "cases.yaml").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def cases(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the cases in which what can't lie there as files has been made."""
    there = samples.parent / "cases"
    if not there.is_dir():
        pytest.skip(f"no cases at {there}")
    copy = tmp_path_factory.mktemp("cases") / "cases"
    shutil.copytree(there, copy, symlinks=True, ignore=shutil.ignore_patterns("lake-and-runs"))
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o600)
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for script in sorted(copy.glob("*/make.sh")):
        subprocess.run(["bash", script.name], cwd=script.parent, env=environment, check=True, capture_output=True)
    for archive in sorted(copy.glob("*/tree.tar.gz")):
        subprocess.run(["tar", "xzf", archive.name], cwd=archive.parent, check=True)
    return copy


def entries(case: Path, lake: Path) -> Iterator[Any]:
    """What the sources of a case's recipe give, one archive after the other."""
    sources = load(case / "recipe.yaml").sources
    Lake(lake).create()
    for archive in list_archives(sources, Lake(lake)):
        assert not archive.problem
        yield from reader(archive.kind).read(archive, sources[archive.source])


def kind(entry: Any) -> str:
    return " ".join(filter(None, (type(entry).__name__, getattr(entry, "reason", ""))))


def test_every_case_is_here(cases: Path) -> None:
    assert {path.parent.name for path in cases.glob("*/recipe.yaml")} == set(CASES)


def test_the_records_of_all_cases_are_accounted_for(cases: Path, read: Any) -> None:
    sources = [source for name in CASES for source in load(cases / name / "recipe.yaml").sources]
    names = Counter(source.label for source in sources)
    produced = read(*(source.model_dump() for source in sources if names[source.label] == 1))
    assert produced.records_in
    assert all(left == right for _, left, right in produced.equations), produced.equations


@pytest.mark.parametrize("name", CASES)
def test_case(cases: Path, tmp_path: Path, name: str) -> None:
    expected = CASES[name]
    found = list(entries(cases / name, tmp_path / "lake"))
    counts = Counter(kind(entry) for entry in found)
    assert ", ".join(f"{what} {count}" for what, count in sorted(counts.items())) == expected["gives"]
    ids = [entry.id for entry in found if hasattr(entry, "id")]
    assert len(set(ids)) == len(ids), "an id for each record"
    told = [getattr(entry, "text", "") + "\n" + str(entry).replace(r"\n", "\n") for entry in found]
    assert [part for part in expected.get("has", ()) if not any(part in one for one in told)] == []
    assert [part for part in expected.get("lacks", ()) if any(part in one for one in told)] == []
    if "licences" in expected:
        by_licence: dict[str, set[str]] = {}
        for entry in found:
            if licence := getattr(entry, "licence", None):
                by_licence.setdefault(licence, set()).add(re.sub(r"^.*@[0-9a-f]+/", "", entry.uri))
        assert by_licence == {licence: set(paths) for licence, paths in expected["licences"].items()}
