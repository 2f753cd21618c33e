"""Files and folders are there whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datalake.atomic import remove_leftovers, whole_file, whole_folder, write_atomically


def test_a_small_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_what_is_private_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "mine", b"", private=True)
        write_atomically(tmp_path / "ours", b"")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("mine", "ours")]
    assert modes == [0o600, 0o644]


def test_a_file_half_written_is_nowhere(tmp_path: Path) -> None:
    def break_off() -> None:
        with whole_file(tmp_path / "file") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(name: str, error: type[Exception] | None = None) -> None:
        with whole_folder(tmp_path / "model") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / name).touch()
            if error:
                raise error

    fill("first")
    fill("second")
    with pytest.raises(RuntimeError):
        fill("third", RuntimeError)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "model",
        "model/deep",
        "model/deep/second",
    ]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    names = [".raw.parquet.4194305.tmp", f".raw.parquet.{os.getpid()}.tmp", ".notes.tmp", "raw.parquet"]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
