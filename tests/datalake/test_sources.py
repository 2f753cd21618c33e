"""What all sources share: names that survive a move, clear refusals of wrong paths, light configs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.paths import expand
from datalake.sources import KINDS, Source, reader
from datalake.sources.web.config import PYDOC_MODULES, CommonCrawl
from datalake.text.language_config import Language


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.gz", "b/1.gz", "a/1.gz", "a/deep/3.gz", ".hidden/4.gz", "a/.5.gz"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "root"


def names(*paths: object) -> list[str]:
    return [name for name, _ in expand([str(path) for path in paths])]


def test_a_name_is_relative_to_the_fixed_part_of_its_path(folder: Path) -> None:
    assert names(folder / "a" / "1.gz") == ["1.gz"]
    assert names(folder / "a" / "*.gz") == ["1.gz"]
    assert names(folder / "*" / "1.gz") == ["a/1.gz", "b/1.gz"]
    assert names(folder / "**" / "*.gz") == ["a/1.gz", "a/deep/3.gz", "b/1.gz", "b/2.gz"]
    assert names(folder) == ["a/1.gz", "a/deep/3.gz", "b/1.gz", "b/2.gz"]
    assert names(folder / "*") == ["a/1.gz", "a/deep/3.gz", "b/1.gz", "b/2.gz"]


def test_a_moved_folder_keeps_its_names(folder: Path, tmp_path: Path) -> None:
    before = names(folder / "*" / "*.gz")
    folder.rename(tmp_path / "elsewhere")
    assert names(tmp_path / "elsewhere" / "*" / "*.gz") == before


def test_a_file_named_twice_is_taken_once(folder: Path) -> None:
    assert names(folder, folder / "a" / "1.gz", folder / "*" / "*.gz") == names(folder)


def test_folders_can_be_left_whole(folder: Path) -> None:
    assert expand([str(folder / "*")], descend=False) == [("a", str(folder / "a")), ("b", str(folder / "b"))]


def test_brackets_in_an_existing_name_are_no_glob(tmp_path: Path) -> None:
    (tmp_path / "x[1].gz").touch()
    assert names(tmp_path / "x[1].gz") == ["x[1].gz"]


@pytest.mark.parametrize("path", ["missing.gz", "*.none", "nosuch://bucket/x.gz"])
def test_a_path_that_leads_nowhere_is_one_clear_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError) as error:
        expand([path if "://" in path else str(tmp_path / path)])
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_two_files_of_one_name_are_told_apart_by_their_folders(folder: Path) -> None:
    assert names(folder / "a" / "1.gz", folder / "b" / "1.gz") == ["1.gz", "b/1.gz"]


def test_every_kind_has_a_config_and_an_unknown_one_is_named() -> None:
    kinds = {
        branch["properties"]["kind"]["const"]
        for branch in TypeAdapter(Source).json_schema()["$defs"].values()
        if "kind" in branch.get("properties", ())
    }
    assert kinds == set(KINDS)
    with pytest.raises(UserError, match="common_crawl"):
        reader("nonsense")


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_has_both_functions(kind: str) -> None:
    module = reader(kind)
    assert callable(module.archives)
    assert callable(module.read)


def test_paths_have_no_part_in_identity_and_options_have() -> None:
    one, other = CommonCrawl(paths=["a"]), CommonCrawl(paths=["b", "c"])
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(CommonCrawl(paths=["a"], main_content=False))
    assert fingerprint(one) != fingerprint(CommonCrawl(paths=["a"], language=Language(threshold=0.9)))


def test_a_language_model_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.ftz").write_bytes(b"model")
    (tmp_path / "b.ftz").write_bytes(b"model")
    (tmp_path / "c.ftz").write_bytes(b"other")
    a, b, c = (fingerprint(Language(model=str(tmp_path / f"{x}.ftz"))) for x in "abc")
    assert a == b != c
    with pytest.raises(ValidationError, match="there is no file"):
        Language(model=str(tmp_path / "missing"))


def test_unknown_keys_and_values_out_of_bounds_are_refused() -> None:
    for wrong in ({"path": ["x"]}, {"paths": []}, {"paths": ["x"], "max_bytes": 0}, {"paths": ["x"], "name": "a b"}):
        with pytest.raises(ValidationError):
            CommonCrawl(**wrong)


def test_module_list_is_a_set_without_side_effects() -> None:
    assert len(set(PYDOC_MODULES)) == len(PYDOC_MODULES) == 200
    assert not {"this", "antigravity", "turtle", "tkinter", "idlelib"} & {m.partition(".")[0] for m in PYDOC_MODULES}
    assert not [m for m in PYDOC_MODULES if m.startswith("test")]


def test_configs_import_nothing_heavy() -> None:
    code = (
        "import sys, datalake.sources, datalake.origin\n"
        "heavy = ('numpy', 'pyarrow', 'torch', 'resiliparse', 'fastwarc', 'numba')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout.strip() == "[]"
