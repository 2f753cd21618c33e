"""Addresses, files that appear whole, copies by content: what differs between a folder and a store."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server
from stores import BUCKET, wait_until

from datalake.atomic import FILES, folder_list, whole_file, whole_folder, write_atomically
from datalake.conditional import write_first
from datalake.digests import file_digest
from datalake.errors import LostDataError, UserError
from datalake.lake.copies import files_of_folder, near_folder, verify, workplace
from datalake.places import (
    copy_of,
    home,
    is_local,
    is_place,
    place,
    relative_to,
    remove_folder,
    root_of,
    several,
    store_of,
)


@pytest.fixture
def store(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix of its own in the bucket, on a machine that has no copies yet."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    return place(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture(params=["folder", "store"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of this machine, then one of a store: whoever writes needs no second way."""
    return tmp_path / "there" if request.param == "folder" else request.getfixturevalue("store")


def test_a_local_path_is_a_plain_path_and_an_address_has_its_methods() -> None:
    assert type(place("/tmp/x")) is type(Path("/tmp/x"))
    assert place("file:///tmp/a%20b") == Path("/tmp/a b")
    assert root_of("~") == Path(os.path.realpath(Path.home()))
    address = place("s3://bucket/a b/#1")
    assert not is_local(address)
    assert is_place(address)
    assert is_place(Path("x"))
    assert not is_place("s3://bucket/x")
    assert str(address / "c" / "d.json") == "s3://bucket/a b/#1/c/d.json"
    assert (address / "c" / "d.json").relative_to(address).as_posix() == "c/d.json"
    assert str(place(Path("s3://bucket/a"))) == "s3://bucket/a"  # as pathlib flattens it
    assert str(root_of("s3://bucket/a/")) == "s3://bucket/a"


def test_credentials_never_travel_with_an_address(store: Path) -> None:
    sent = pickle.dumps(store / "x")
    assert b"secret" not in sent
    assert str(pickle.loads(sent)) == str(store / "x")


def test_answers_come_in_the_order_of_what_was_asked_and_no_more_is_taken_than_needed(store: Path) -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(100_000):
            taken.append(number)
            yield number

    answers = several(lambda number: number * 2, numbers(), store)
    assert [next(answers) for _ in range(5)] == [0, 2, 4, 6, 8]
    answers.close()  # type: ignore[attr-defined]
    assert len(taken) < 1_000


def test_a_file_appears_whole_or_not_at_all(anywhere: Path) -> None:
    path = anywhere / "a" / "file"
    write_atomically(path, b"before")

    def fail() -> None:
        with whole_file(path) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"before"
    with whole_file(path) as stream:
        stream.write(b"after")
    assert path.read_bytes() == b"after"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_what_is_written_anew_while_it_is_read_is_read_as_it_was_or_as_it_is(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store / "metrics.jsonl"
    write_atomically(path, b"1\n")
    files, _ = store_of(path)
    ask = files.info

    def overtaken(*arguments: Any, **named: Any) -> Any:
        told = ask(*arguments, **named)
        write_atomically(path, b"1\n2\n")
        return told

    monkeypatch.setattr(files, "info", overtaken)
    assert path.read_text() in ("1\n", "1\n2\n")
    assert path.read_bytes() in (b"1\n", b"1\n2\n")


def test_of_those_who_write_first_one_does(anywhere: Path) -> None:
    path = anywhere / "mark"
    assert write_first(path, b"mine")
    assert not write_first(path, b"theirs")
    assert path.read_bytes() == b"mine"


def test_a_folder_takes_the_place_of_one_that_had_its_name(anywhere: Path) -> None:
    folder = anywhere / "model"
    for names in (["a", "b/c"], ["a", "d"]):
        with whole_folder(folder) as part:
            for name in names:
                (part / name).parent.mkdir(exist_ok=True)
                (part / name).write_text(f"{name} of {names}")
    assert [name for name, _, _ in files_of_folder(folder)] == ["a", "d"]
    here = near_folder(folder)
    assert {path.name: path.read_text() for path in here.iterdir()} == {n: f"{n} of ['a', 'd']" for n in ("a", "d")}
    remove_folder(folder)
    assert not folder.exists()


def test_a_folder_comes_whole_to_a_machine_whose_disk_has_little_room(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store / "model"
    with whole_folder(folder) as part:
        for number in range(20):
            (part / f"{number}").write_bytes(bytes([number]) * 1_000)
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "another"))
    old, fetching = copy_of(store / "old"), copy_of(folder) / ".5.1.tmp"
    for path in (old, fetching):
        write_atomically(path, b"x" * 1_000)
    os.utime(old, (0, 0))
    monkeypatch.setattr("datalake.lake.copies.SPARE_BYTES", 1 << 60)
    monkeypatch.setattr("datalake.lake.copies._whole", {})
    near_folder(folder)
    assert not old.exists()
    assert fetching.exists()  # another process's
    monkeypatch.setattr("datalake.lake.copies._whole", {})  # as another process knows them
    verify(store / "model" / "7", 1_000, files_of_folder(folder)[17][1])
    assert len([path for path in copy_of(folder).iterdir() if path != fetching]) == 20


def test_a_folder_of_a_store_is_whole_once_its_list_is_there(store: Path) -> None:
    folder = store / "model"
    with whole_folder(folder) as part:
        (part / "inner").mkdir()
        (part / "inner" / "weights").write_bytes(b"x" * 1_000)
    assert folder_list(folder / "inner") == {"weights": (1_000, files_of_folder(folder)[0][1])}
    (folder / FILES).unlink()
    with pytest.raises(LostDataError, match="isn't whole"):
        near_folder(folder)


def test_a_copy_is_fetched_once_and_again_where_it_isnt_what_was_written(store: Path, s3_server: S3Server) -> None:
    path, body = store / "shard" / "tokens.bin", b"tokens" * 1_000
    write_atomically(path, body)
    copy = copy_of(path)
    write_atomically(copy, body)
    digest = file_digest(str(copy))
    copy.unlink()

    def fetched() -> int:
        return len([one for one in s3_server.asked if one[0] == "GET" and one[1].endswith("tokens.bin")])

    before = fetched()
    assert verify(path, len(body), digest) == copy
    assert fetched() == before + 1
    verify(path, len(body), digest)
    assert fetched() == before + 1
    copy.write_bytes(body[::-1])
    assert verify(path, len(body), digest).read_bytes() == body
    assert fetched() == before + 2


def test_what_a_store_no_longer_has_as_it_was_written_is_set_aside_there(store: Path) -> None:
    path = store / "part.parquet"
    write_atomically(path, b"other")
    with pytest.raises(LostDataError, match="isn't what was written"):
        verify(path, 5, "0" * 32)
    assert not path.exists()
    assert (store / "part.parquet.damaged").exists()
    with pytest.raises(LostDataError, match="missing"):
        verify(path, 5, "0" * 32)


def test_others_can_follow_a_folder_in_work_and_it_is_whole_at_the_end(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datalake.lake.copies.EVERY_S", 0.05)
    folder = store / "training"
    with workplace(folder) as here:
        (here / "metrics.jsonl").write_text("1\n")
        deadline = time.monotonic() + 60
        while not (folder / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert list(folder_list(folder) or ()) == ["metrics.jsonl"]

    def fail() -> None:
        with workplace(folder) as here:  # goes on from what is there
            assert (here / "metrics.jsonl").read_text() == "1\n"
            (here / "metrics.jsonl").write_text("1\n2\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (folder / "metrics.jsonl").read_text() == "1\n2\n"


def test_what_others_write_to_a_shared_folder_stays(store: Path) -> None:
    folder = store / "tracking"
    with workplace(folder, alone=False) as here:
        (here / "mine").write_text("1")
        write_atomically(folder / "theirs", b"2")
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "theirs"]
    remove_folder(folder)


def test_what_belongs_to_a_lake_and_is_no_part_of_it_lies_on_this_machine(store: Path, tmp_path: Path) -> None:
    assert home(tmp_path) == tmp_path
    assert is_local(home(store))
    assert home(store) != home(store / "other")
    _, key = store_of(store)
    assert key == f"{BUCKET}/{tmp_path.name}"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("s3://", "has no bucket"),  # what s3://$BUCKET is without the variable
        ("s3:///prefix", "has no bucket"),
        (Path("s3://"), "has no bucket"),
        ("s3:/bucket/x", "has no bucket"),
        ("s3:bucket/x", "has no bucket"),
        ("s3://bucket/20??", "'\\?'"),  # a pattern: it would read, and remove, what other lakes hold
        ("s3://bucket/a*", "'\\*'"),
        ("s3://bucket/a[0]", "'\\['"),
        ("s3://bucket/a?versionId=3", "'\\?'"),
        ("s3://bucket/a\nb", r"'\\n'"),
    ],
)
def test_an_address_that_can_be_no_lakes_is_told(written: str | Path, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        root_of(written)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("written", "root"),
    [
        ("S3://bucket/Prefix/", "s3://bucket/Prefix"),
        (Path("s3://bucket/x"), "s3://bucket/x"),
        ("s3://bucket", "s3://bucket/"),
    ],
)
def test_one_lake_has_one_address(written: str | Path, root: str) -> None:
    found = root_of(written)
    assert str(found) == root
    assert relative_to(found, f"{root.rstrip('/')}/runs/x") == "runs/x"
    assert relative_to(found, f"{root.rstrip('/')}2/runs/x") is None


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_write_that_meets_another_one_is_made_again(
    s3_server: S3Server, store: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(
        s3_server, "fault", ("409 Conflict", code, "A conflicting conditional operation is in progress.")
    )
    before = len(s3_server.asked)

    def clear() -> None:
        wait_until(lambda: len(s3_server.asked) > before + 1)
        s3_server.fault = None

    thread = threading.Thread(target=clear)
    thread.start()
    path = store / code
    assert write_first(path, b"1")
    thread.join()
    assert not write_first(path, b"2")
    assert path.read_bytes() == b"1"
