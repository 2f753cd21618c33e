"""Files are known by what is in them, wherever they lie; content versions are read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash
from pydantic import BaseModel, Field, ValidationError

from datalake import files
from datalake.errors import UserError
from datalake.files import File, Files, FileVersions
from datalake.identity import fingerprint, plain


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes were read."""
    real, read = files.file_digest, []

    def counted(path: str) -> str:
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(files, "file_digest", counted)
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


# Files that a config names -------------------------------------------------------------------------------------------


class Config(BaseModel):
    lists: Files = Field(default=Files(), title="Lists")
    model: File = Field(default=File(), title="Model")


class Needy(BaseModel):
    lists: Files = Field(min_length=1)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for folder in ("here", "there"):
        for name in ("a.txt", "b.txt"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(name)
    return tmp_path


def test_files_enter_identity_by_names_and_content_and_not_by_place(lists: Path) -> None:
    def one(*paths: str) -> str:
        return fingerprint(Config(lists=[str(lists / path) for path in paths]))  # type: ignore[arg-type]

    assert one("here") == one("here/*.txt") == one("there") == one("there/b.txt", "there/a.txt")
    assert one("here") != one("here/a.txt")
    (lists / "there" / "b.txt").write_text("other")
    assert one("there") != one("here")
    (lists / "there" / "b.txt").write_text("b.txt")
    (lists / "there" / "b.txt").rename(lists / "there" / "c.txt")
    assert one("there") != one("here")


def test_one_file_enters_identity_by_content_alone(lists: Path) -> None:
    first, same, other = (Config(model=str(lists / name)) for name in ("here/a.txt", "there/a.txt", "here/b.txt"))  # type: ignore[arg-type]
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    assert plain(first)["model"] == {"version": xxhash.xxh3_128_hexdigest(b"a.txt")}


def test_what_was_stored_is_read_though_the_files_have_gone(lists: Path) -> None:
    config = Config.model_validate({"lists": [str(lists / "here")], "model": str(lists / "here" / "a.txt")})
    stored = config.model_dump(mode="json")
    for path in (lists / "here").iterdir():
        path.unlink()
    again = Config.model_validate(stored)
    assert again == config
    assert not again.lists.is_there()
    # An identity has versions alone.
    assert fingerprint(Config.model_validate(plain(config))) == fingerprint(config)


def test_files_that_changed_since_the_recipe_was_read_are_refused(lists: Path) -> None:
    config = Config.model_validate({"lists": [str(lists / "here")], "model": str(lists / "here" / "a.txt")})
    config.lists.check("lists")
    config.model.check("model")
    assert config.model.is_there()
    (lists / "here" / "a.txt").write_text("other")
    for one in (config.lists, config.model):
        with pytest.raises(UserError, match=r"^setting: .*has changed since the recipe was read: run it again$"):
            one.check("setting")
    (lists / "here" / "a.txt").unlink()
    with pytest.raises(UserError, match=r"^setting: there is no file '.*a\.txt': correct the path$"):
        config.model.check("setting")


def test_paths_hold_from_any_folder(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lists / "here")
    config = Config.model_validate({"lists": ["*.txt"], "model": "../there/a.txt"})
    monkeypatch.chdir("/")
    assert [name for name, _ in config.lists.listed()] == ["a.txt", "b.txt"]
    config.lists.check("lists")
    config.model.check("model")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lists": ["/gone"]}, "there is no '/gone': correct the path"),
        ({"lists": ["/gone*.txt"]}, r"nothing matches '/gone\*\.txt'"),
        ({"lists": "/etc"}, "a list of paths is wanted"),
        ({"lists": [1]}, "a list of paths is wanted"),
        ({"lists": ["s3://bucket/list"]}, "is an address.*copy it here"),
        ({"lists": {"path": "/etc"}}, "Extra inputs"),
        ({"model": "/gone"}, "there is no file '/gone': correct the path"),
        ({"model": ["/etc"]}, "a path is wanted"),
    ],
)
def test_what_is_wrong_with_files_is_told_where_a_recipe_is_read(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Config.model_validate(given)
    assert caught.value.error_count() == 1


def test_files_may_be_needed_or_not(tmp_path: Path) -> None:
    assert not Config().lists
    assert not Config(model="").model  # type: ignore[arg-type]
    assert Config(lists=[]).lists.listed() == []  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="at least 1 item"):
        Needy(lists=[])  # type: ignore[arg-type]


def test_a_form_takes_paths_as_a_recipe_writes_them_and_as_they_are_stored() -> None:
    kinds = {
        name: [one["type"] for one in definition["anyOf"]]
        for name, definition in Config.model_json_schema()["$defs"].items()
    }
    assert kinds == {"Files": ["array", "object"], "File": ["string", "object"]}
