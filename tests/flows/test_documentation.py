"""The pages: every link leads somewhere, every command can be given, and those that cost little do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError
from documentation import Shown, anchors, commands, links, pages
from harness import ROOT, Command
from world import Whole

SHOWN = list(commands())
# Programs of others, whose own arguments are theirs to check.
OTHERS = {
    "export",
    "cd",
    "curl",
    "ssh",
    "kubectl",
    "docker",
    "pip",
    "unzip",
    "ruff",
    "pytest",
    "git",
    "apt-get",
    ".",
    "cp",
    "sh",
}


def named(program: str) -> list[Shown]:
    return [one for one in SHOWN if one.program == program]


def test_every_link_within_the_project_leads_somewhere() -> None:
    lost = []
    for page in pages():
        for path, anchor in links(page):
            if not path.exists():
                lost.append(f"{page.relative_to(ROOT)}: {path}")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                lost.append(f"{page.relative_to(ROOT)}: {path.name}#{anchor}")
    assert lost == [], "\n".join(lost)


def test_every_program_in_a_page_is_known() -> None:
    known = OTHERS | {"headwater", "make", "prefect", "ray", "python", "python3"}
    assert [str(one) for one in SHOWN if one.program not in known] == []
    assert len(named("headwater")) > 100


def test_every_command_of_ours_takes_the_arguments_that_pages_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli import app
    from tasks.shown import events

    monkeypatch.setenv(events.LOG, "text")  # which `--log json` sets for all of a process
    monkeypatch.setattr(events, "listen", lambda: None)
    wrong = []
    for one in named("headwater"):
        try:
            app.parse_args(list(one.words[1:]), exit_on_error=False, print_error=False)
        except CycloptsError as error:
            wrong.append(f"{one} ({error})")
    assert wrong == []


def test_every_override_in_a_page_is_one_of_the_recipe() -> None:
    from flows.recipe import load

    wrong = []
    for one in named("headwater"):
        overrides = [one.words[at + 1] for at, word in enumerate(one.words) if word == "--set"]
        recipe = next((ROOT / word for word in one.words if word.endswith(".yaml") and (ROOT / word).is_file()), None)
        if overrides:
            try:
                load(recipe or ROOT / "recipes" / "demo.yaml", overrides)
            except ValueError as error:
                wrong.append(f"{one} ({error})")
    assert wrong == []


def test_targets_scripts_and_commands_of_prefect_and_ray_are_there() -> None:
    from prefect.cli import __file__ as cli
    from ray.scripts.scripts import cli as ray

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [str(one) for one in named("make") if not set(one.words[1:]) & targets] == []
    assert [str(one) for one in named("ray") if one.words[1] not in ray.commands] == []
    files = {part for path in Path(cli).parent.rglob("*.py") for part in path.relative_to(Path(cli).parent).parts}
    of_prefect = {name.removesuffix(".py").strip("_").replace("_", "-") for name in files}
    asked = [(one, next(word for word in one.words[1:] if not word.startswith("-"))) for one in named("prefect")]
    assert [str(one) for one, word in asked if word not in of_prefect] == []
    programs = ("python", "python3", "sh")
    scripts = [one for program in programs for one in named(program) if one.words[1].endswith((".py", ".sh"))]
    assert [str(one) for one in scripts if not (ROOT / one.words[1]).is_file()] == []


def test_the_site_builds_with_every_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="no mkdocs: pip install -e .[dev]")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = {page.relative_to(tmp_path / "site").parent.as_posix() for page in tmp_path.glob("site/**/index.html")}
    sources = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert built == {"." if name == "index" else name.removesuffix("/index") for name in sources}
    for page in tmp_path.glob("site/**/*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img|iframe)[^>]+src=\"?https?://", text), page
        assert not re.search(r"<link[^>]+rel=\"?stylesheet[^>]+href=\"?https?://", text), page
    assert (tmp_path / "site" / "source" / "deployments" / "prefect.yaml").is_file()


# Commands that read a lake and end: run as they stand but for names that are another lake's.
_CHEAP = ("query", "explain", "runs", "trace", "similar", "plan")
_NAMES = {"demo.": "tiny.", "mine.": "tiny."}
# Files of the reader's own, answers that a tiny run has not, a corpus as large as a plan wants.
_NOT_HERE = ("--fit", "gsm8k", "read_csv", "--lake lake")


def cheap() -> list[Shown]:
    found = [one for one in named("headwater") if one.words[1] in _CHEAP and "/zh/" not in str(one.page)]
    return [one for one in found if not any(word in one.line for word in _NOT_HERE)]


@pytest.mark.slow
def test_commands_that_read_a_lake_do_so(whole: Whole, headwater: Command, tmp_path: Path) -> None:
    lake = tmp_path / "copy"
    shutil.copytree(whole.lake, lake)
    uri = headwater("query", "SELECT uri FROM tiny.documents LIMIT 1", "--lake", lake, "--json").json[0]["uri"]
    failed: list[Any] = []
    for one in cheap():
        words = [_here(word, uri) for word in one.words[1:]]
        if "--lake" in words:
            words[words.index("--lake") + 1] = str(lake)
        elif words[0] != "plan":
            words += ["--lake", str(lake)]
        done = headwater(*words)
        if done.status != 0 or not done.out.strip():
            failed.append((str(one), done))
    assert failed == []
    assert len(cheap()) > 15


def _here(word: str, uri: str) -> str:
    for theirs, ours in _NAMES.items():
        word = word.replace(f" {theirs}", f" {ours}")
    return {"pydoc:/json": uri, "100": "10", "text": "the quiet river", "some text": "the quiet river"}.get(word, word)
