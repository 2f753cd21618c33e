"""The public face, as a notebook uses it: what the commands print is what its methods give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import ROOT, Command, PrefectServer
from world import Whole

import headwater as face
from flows.cli import COMMANDS
from headwater import Lake, Recipe, UserError


@pytest.fixture
def here(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process go to the suite's server and leave its Ray alone."""
    from flows.service import environment
    from tasks.cluster import connect

    monkeypatch.setattr(environment, "prepare", lambda lake: prefect_server.url)
    monkeypatch.setattr(environment, "end_own", lambda: None)
    monkeypatch.setattr(connect, "disconnect", lambda: None)


def test_importing_it_imports_nothing_heavy_and_a_lake_no_prefect() -> None:
    code = (
        "import sys, headwater\n"
        "heavy = [m for m in ('pydantic', 'pyarrow', 'duckdb', 'prefect', 'ray', 'torch') if m in sys.modules]\n"
        "from headwater import Lake, Recipe\n"
        "print(heavy, [m for m in ('prefect', 'ray', 'torch') if m in sys.modules], dir(headwater))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[] [] ['Lake', 'Recipe', 'UserError', 'run']"
    with pytest.raises(AttributeError, match="nothing"):
        face.nothing  # noqa: B018


def test_it_is_the_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headwater", "tga"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert 'Did you mean "tag"?' in done.stderr


def test_methods_give_what_commands_print(whole: Whole, headwater: Command) -> None:
    def printed(*arguments: str) -> Any:
        return headwater(*arguments, "--lake", whole.lake, "--json").json

    lake = Lake(whole.lake)
    page, run = "http://host103.example/page", lake.runs()[-1]["run"]
    assert lake.explain(page) == printed("explain", page)
    assert lake.explain(bytes.fromhex(lake.explain(page)[0]["id"]))[0] in lake.explain(page)
    assert lake.trace() == lake.trace("ppo") == printed("trace", "ppo")
    assert lake.trace("sft", step=2) == printed("trace", "sft", "--step", "2")
    assert lake.runs() == printed("runs")
    assert lake.compare(run, run) == printed("runs", run, run)
    assert lake.similar(world.prose(300)) == printed("similar", world.prose(300))
    sql = "SELECT verdict, sum(length(uri)) AS characters, count(*) AS n FROM tiny.ledger GROUP BY ALL ORDER BY ALL"
    table = lake.query(sql)
    assert table.to_pylist() == printed("query", sql)
    assert table.to_pandas()["n"].sum() == world.rows(whole.lake, "SELECT count(*) FROM tiny.ledger")[0][0]
    for asked in (lambda: lake.query("SELECT nothing"), lambda: lake.explain("x"), lambda: lake.trace("x")):
        with pytest.raises(UserError):
            asked()


def test_where_there_is_no_lake_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lake at"):
        Lake(tmp_path)


def test_the_notebook_runs(here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code, cell by cell, on a small recipe in place of the demo's."""
    rows = [{"id": str(n), "text": world.prose(n)} for n in range(6)] + [{"id": "short", "text": "Too short to keep."}]
    recipe = world.tables(tmp_path, [world.jsonl(tmp_path / "in.jsonl", rows)], curate={"preset": "gopher"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    assert codes[0] == 'RECIPE, LAKE = "recipes/demo.yaml", "lake"'
    names: dict[str, Any] = {}
    exec(f"RECIPE, LAKE = {str(tmp_path / 'recipe.yaml')!r}, {str(tmp_path / 'lake')!r}", names)
    answers = []
    for code in codes[1:]:
        *body, last = code.split("\n")
        exec("\n".join(body), names)
        answers.append(eval(last, names))
    states, ledger, failed, similar, changed, runs = answers
    assert states == {"ingest": "ran", "curate": "ran", "deduplicate": "ran"}
    assert sum(row["documents"] for row in ledger) == 7
    assert failed[0]["rule"] == "min_words"
    assert similar[0]["similarity"] == 1.0
    assert changed == {"documents": 6, "before": 6, "after": 6}
    assert len(runs) == 1


def test_a_run_takes_a_file_a_mapping_or_a_recipe(here: None, tmp_path: Path) -> None:
    recipe = world.tables(tmp_path, [world.texts(tmp_path / "in.jsonl", range(3))])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ways: tuple[Any, ...] = (tmp_path / "recipe.yaml", recipe, Recipe(**recipe))
    found = []
    for way in ways:
        reports = face.run(way, lake=tmp_path / "lake", until="curate", set=["curate.preset=gopher"])
        found.append({report.stage: (report.state, report.fingerprint) for report in reports if report.fingerprint})
    assert {state for state, _ in found[0].values()} == {"ran"}
    assert {state for state, _ in found[1].values()} == {"cached"}
    assert found[1] == found[2]
    assert [print for _, print in found[0].values()] == [print for _, print in found[1].values()]
    with pytest.raises(UserError, match="no recipe at"):
        face.run(tmp_path / "none.yaml", lake=tmp_path / "lake")
    with pytest.raises(UserError, match="nothing matches"):
        face.run(recipe | {"sources": [{"kind": "table", "paths": ["/nowhere/*"]}]}, lake=tmp_path / "lake")


def test_the_table_of_commands_says_what_their_docstrings_say() -> None:
    from importlib import import_module

    for place, summary in COMMANDS.items():
        module, _, name = place.partition(":")
        function = getattr(import_module(module), name)
        assert function.__doc__.splitlines()[0] == summary
