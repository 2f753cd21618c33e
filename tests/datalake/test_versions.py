"""Content versions: a file's is its bytes, read once, wherever the file lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash

from datalake import versions
from datalake.versions import FileVersions


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes were read."""
    real, read = versions.file_digest, []

    def counted(path: str) -> str:
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(versions, "file_digest", counted)
    return read


def test_a_version_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"some bytes" * 300_000)
    found = FileVersions(tmp_path / "v.json").version(str(path))
    assert found == xxhash.xxh3_128_hexdigest(path.read_bytes())


def test_a_moved_file_keeps_its_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("text")
    known = FileVersions(tmp_path / "v.json")
    before = known.version(str(path))
    assert known.version(str(path.rename(tmp_path / "b"))) == before


def test_an_unchanged_file_is_read_once_also_by_the_next_run(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a"
    path.write_text("text")
    first = FileVersions(tmp_path / "v.json")
    before = first.version(str(path))
    assert first.version(str(path)) == before
    first.save()
    assert FileVersions(tmp_path / "v.json").version(str(path)) == before
    assert reads == ["a"]


def test_a_file_changed_in_place_gets_a_new_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("text")
    known = FileVersions(tmp_path / "v.json")
    before = known.version(str(path))
    path.write_text("tent")  # as long as before
    assert known.version(str(path)) != before
    path.write_text("text and more")
    assert known.version(str(path)) != before


def test_a_file_put_in_anothers_place_with_its_time_and_size_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("text")
    other.write_text("tent")
    known = FileVersions(tmp_path / "v.json")
    before, status = known.version(str(path)), path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert known.version(str(path)) != before


def test_a_touched_file_is_read_again_and_is_the_same(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a"
    path.write_text("text")
    known = FileVersions(tmp_path / "v.json")
    before = known.version(str(path))
    os.utime(path, ns=(1, 1))
    assert known.version(str(path)) == before
    assert reads == ["a", "a"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'{"x": 3}'])
def test_a_damaged_memory_is_forgotten_and_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_text("text")
    (tmp_path / "v.json").write_bytes(content.replace(b'"x"', f'"{path}"'.encode()))
    known = FileVersions(tmp_path / "v.json")
    expected = xxhash.xxh3_128_hexdigest(b"text")
    assert known.version(str(path)) == expected
    known.save()
    assert FileVersions(tmp_path / "v.json").version(str(path)) == expected


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    known = FileVersions(tmp_path / "v.json")
    with pytest.raises(FileNotFoundError):
        known.version(str(tmp_path / "none"))
    with pytest.raises(IsADirectoryError):
        known.version(str(tmp_path))


def test_nothing_learnt_writes_nothing(tmp_path: Path) -> None:
    FileVersions(tmp_path / "v.json").save()
    assert list(tmp_path.iterdir()) == []
