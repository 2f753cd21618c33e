"""Pages of Python's documentation server: the same bytes each time, nothing of the user's surroundings in them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from datalake.document import Document, Entry, Passed, Refused
from datalake.sources.web import pydoc
from datalake.sources.web.config import Pydoc

MODULES = ["os", "os.path", "sys", "ctypes", "http.client", "sysconfig", "no_such_module"]


def read(folder: Path, **options: object) -> list[Entry]:
    config = Pydoc(modules=MODULES, folder=str(folder), **options)  # type: ignore[arg-type]
    (shard,) = pydoc.archives(config)
    return list(pydoc.read(shard, config))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    """One reading, with a secret in the environment."""
    folder = tmp_path_factory.mktemp("pydoc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_TEST_SECRET", "hush-hush-secret")
        patch.setenv("PYTHONPATH", "/hush-hush-path")
        return folder, read(folder)


def test_one_entry_for_each_module(once: tuple[Path, list[Entry]]) -> None:
    entries = once[1]
    assert [type(entry) for entry in entries].count(Passed) == 1
    documents = {entry.uri: entry for entry in entries if isinstance(entry, Document)}
    assert set(documents) == {f"pydoc:/{name}" for name in MODULES if name != "no_such_module"}
    (refused,) = (entry for entry in entries if isinstance(entry, Refused))
    assert (refused.uri, refused.reason, refused.detail) == ("pydoc:/no_such_module", "status", "404")
    page = documents["pydoc:/os.path"]
    assert page.attributes["group"] == "os"
    assert page.source == "pydoc"
    assert "Join two or more pathname components" in page.text
    assert documents["pydoc:/os"].language == "en"


def test_a_second_reading_gives_the_same_bytes(once: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    folder, entries = once
    assert read(tmp_path) == entries
    (one,), (other,) = folder.iterdir(), tmp_path.iterdir()  # the archive alone, nothing half-written beside it
    assert one.name == other.name == "pydoc-00000.warc.gz"
    assert one.read_bytes() == other.read_bytes()


def test_nothing_of_the_machine_or_the_user_is_in_the_archive(once: tuple[Path, list[Entry]]) -> None:
    data = gzip.decompress(next(once[0].iterdir()).read_bytes())
    for secret in (
        b"hush-hush",
        str(Path.home()).encode() + b"/",
        b"127.0.0.1",
        str(Path(pydoc.os.__file__).parent).encode(),
    ):
        assert secret not in data
    assert b"/python/lib/os.py" in data


def test_the_server_sees_an_environment_of_its_own() -> None:
    assert set(pydoc.ENVIRONMENT) == {"PYTHONHASHSEED", "LC_ALL", "TZ", "COLUMNS", "HOME", "PATH"}


def test_groups_are_fixed_by_sorted_order() -> None:
    config = Pydoc(modules=["json", "abc", "re", "os", "abc"], group=2)
    one, two = pydoc.archives(config)
    assert (one.name, two.name) == ("pydoc-00000.warc.gz", "pydoc-00001.warc.gz")
    assert one.path == ""
    assert one.version != two.version
    assert [s.version for s in pydoc.archives(Pydoc(modules=["re", "os", "json", "abc"], group=2))] == [
        one.version,
        two.version,
    ]
    changed = pydoc.archives(Pydoc(modules=["re", "os", "json", "abc", "zlib"], group=2))
    assert [s.version for s in changed[:2]] == [one.version, two.version]


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydoc.tempfile, "tempdir", str(tmp_path))
    config = Pydoc(modules=["bisect"])
    assert any(isinstance(entry, Document) for entry in pydoc.read(pydoc.archives(config)[0], config))
    assert list(tmp_path.iterdir()) == []


def test_the_server_is_ended_whatever_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            started.append(self)
            assert options["env"] == pydoc.ENVIRONMENT

    def fail(port: int, module: str) -> str:
        raise RuntimeError("stop")

    monkeypatch.setattr(pydoc.subprocess, "Popen", Watched)
    monkeypatch.setattr(pydoc, "_fetch", fail)
    with pytest.raises(RuntimeError, match="stop"):
        pydoc.write_archive(tmp_path / "x.warc.gz", ["os"])
    assert [process.poll() is not None for process in started] == [True]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_is_no_verdict_on_its_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/bin/false", raising=False)
    with pytest.raises(RuntimeError, match="doesn't start"):
        pydoc.write_archive(tmp_path / "x.warc.gz", ["os"])
