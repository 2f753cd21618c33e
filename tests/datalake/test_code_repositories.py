"""Git repositories read from their object database, and rows in the shape of The Stack."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dulwich import porcelain
from dulwich.objects import S_ISGITLINK, Blob, Commit, Tree
from dulwich.repo import Repo

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.sources.code.config import Code
from datalake.sources.code.files import archives, git_blob, read

BIG = b"x = 'kept in LFS'\n" * 20
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
    % (hashlib.sha256(BIG).hexdigest().encode(), len(BIG))
)  # fmt: skip
GIT = {"author": b"A <a@example.org>", "committer": b"A <a@example.org>"}


def entries(path: Path, **options: Any) -> list[Entry]:
    config = Code(paths=[str(path)], **options)
    return [entry for shard in archives(config) for entry in read(shard, config)]


def documents(path: Path, **options: Any) -> dict[str, Document]:
    return {e.attributes["path"]: e for e in entries(path, **options) if isinstance(e, Document)}


def repository(tmp_path: Path) -> tuple[Path, list[str]]:
    """A working tree with two commits, a submodule, a link and an LFS pointer; and their names."""
    root = tmp_path / "tool"
    root.mkdir()
    porcelain.init(str(root))
    (root / "lib").mkdir()
    (root / "lib" / "a.py").write_bytes(b"x = 1\n")
    (root / "run").write_bytes(b"#!/bin/sh\necho\n")
    (root / "notes").write_bytes(b"a text\n")
    (root / "big.py").write_bytes(POINTER)
    (root / "link.py").symlink_to("lib/a.py")
    porcelain.add(str(root), [str(root / name) for name in ("lib/a.py", "run", "notes", "big.py", "link.py")])
    first = porcelain.commit(str(root), message=b"one", **GIT)
    (root / "lib" / "a.py").write_bytes(b"x = 2\n")
    porcelain.add(str(root), [str(root / "lib" / "a.py")])
    second = porcelain.commit(str(root), message=b"two", **GIT)
    return root, [first.decode(), second.decode()]


def bare(root: Path, to: Path) -> Path:
    to.parent.mkdir()
    porcelain.clone(str(root), str(to), bare=True).close()
    return to


def test_a_bare_repository_gives_what_its_working_tree_gives(tmp_path: Path) -> None:
    root, (_, second) = repository(tmp_path)
    clone = bare(root, tmp_path / "clone" / "tool.git")
    found = documents(clone)
    assert sorted(found) == ["lib/a.py", "run"]
    assert found["lib/a.py"].uri.endswith(f"@{second}/lib/a.py")
    assert found["lib/a.py"].text == "x = 2\n"
    assert found["lib/a.py"].attributes["blob"] == git_blob(b"x = 2\n")
    assert found["run"].attributes["programming_language"] == "shell"
    tree = documents(root)
    assert {path: d.text for path, d in tree.items()} == {path: d.text for path, d in found.items()}
    assert sorted(type(e).__name__ for e in entries(clone)) == ["Document", "Document", "Passed", "Refused", "Refused"]


def test_a_revision_is_read_from_the_database_whatever_lies_in_the_tree(tmp_path: Path) -> None:
    root, (first, _) = repository(tmp_path)
    (root / "lib" / "a.py").write_bytes(b"x = 'not committed'\n")
    assert documents(root, revision=first)["lib/a.py"].text == "x = 1\n"
    assert documents(root, revision=first[:10])["lib/a.py"].uri.endswith(f"@{first}/lib/a.py")
    (shard,) = archives(Code(paths=[str(root)], revision=first))
    moved = tmp_path / "moved" / "tool"
    shutil.copytree(root, moved, symlinks=True)
    assert archives(Code(paths=[str(moved)], revision=first))[0].version == shard.version
    assert archives(Code(paths=[str(root)], revision="HEAD"))[0].version != shard.version


def test_an_lfs_pointer_is_followed_into_the_repositorys_store_or_refused(tmp_path: Path) -> None:
    root, _ = repository(tmp_path)
    (refused,) = (e for e in entries(root) if isinstance(e, Refused) and e.reason != "language")
    assert (refused.reason, refused.uri.rpartition("/")[2]) == ("lfs_pointer", "big.py")
    digest = hashlib.sha256(BIG).hexdigest()
    store = root / ".git" / "lfs" / "objects" / digest[:2] / digest[2:4]
    store.mkdir(parents=True)
    (store / digest).write_bytes(BIG)
    assert documents(root)["big.py"].text == BIG.decode()
    assert documents(root, revision="HEAD")["big.py"].attributes["blob"] == git_blob(BIG)
    (store / digest).write_bytes(b"y" * len(BIG))
    assert "big.py" not in documents(root)


def test_a_submodule_is_passed(tmp_path: Path) -> None:
    root = tmp_path / "outer.git"
    root.mkdir()
    with Repo.init_bare(str(root)) as repo:
        blob = Blob.from_string(b"x = 1\n")
        tree = Tree()
        tree.add(b"a.py", 0o100644, blob.id)
        tree.add(b"inner", 0o160000, b"1" * 40)
        assert S_ISGITLINK(tree[b"inner"][0])
        commit = Commit()
        commit.tree, commit.message = tree.id, b"one"
        commit.author = commit.committer = GIT["author"]
        commit.author_time = commit.commit_time = 0
        commit.author_timezone = commit.commit_timezone = 0
        for each in (blob, tree, commit):
            repo.object_store.add_object(each)
        repo.refs[b"refs/heads/master"] = commit.id
    found = entries(root)
    assert Passed("submodule") in found
    assert [type(entry).__name__ for entry in found] == ["Document", "Passed"]


def test_what_cannot_be_read_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    root, (first, _) = repository(tmp_path)
    (unknown,) = entries(root, revision="nosuchbranch")
    assert isinstance(unknown, Quarantined)
    assert (unknown.reason, "nosuchbranch" in unknown.detail) == ("repository", True)
    (none,) = entries(_plain(tmp_path), revision="HEAD")
    assert isinstance(none, Quarantined)
    shallow = tmp_path / "shallow.git"
    porcelain.clone(f"file://{root}", str(shallow), bare=True, depth=1).close()
    (shallow / "shallow").touch()
    assert "lib/a.py" in documents(shallow)
    lost = [e for e in entries(shallow, revision=first) if isinstance(e, Quarantined)]
    if lost:  # where the transport honoured the depth
        assert "shallow" in lost[0].detail


def _plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    return folder


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2], None])
def test_a_lost_or_damaged_object_costs_its_file_alone(tmp_path: Path, damage: Any) -> None:
    root, _ = repository(tmp_path)
    name = git_blob(b"x = 2\n")
    file = root / ".git" / "objects" / name[:2] / name[2:]
    file.chmod(0o644)
    if damage:
        file.write_bytes(damage(file.read_bytes()))
    else:
        file.unlink()
    found = entries(root, revision="HEAD")
    (lost,) = (e for e in found if isinstance(e, Quarantined))
    assert (lost.reason, lost.detail.partition(":")[0]) == ("damaged", "lib/a.py")
    assert [e.attributes["path"] for e in found if isinstance(e, Document)] == ["run"]


def test_a_damaged_tree_is_one_quarantined_repository(tmp_path: Path) -> None:
    root, (_, second) = repository(tmp_path)
    file = root / ".git" / "objects" / second[:2] / second[2:]
    file.chmod(0o644)
    file.write_bytes(b"nothing")
    (lost,) = entries(root, revision="HEAD")
    assert isinstance(lost, Quarantined)
    assert lost.reason == "repository"


V1 = {
    "hexsha": "a" * 40, "size": 6, "ext": "py", "lang": "Python", "content": "x = 1\n",
    "max_stars_repo_path": "src/a.py", "max_stars_repo_name": "team/tool",
    "max_stars_repo_head_hexsha": "b" * 40, "max_stars_repo_licenses": ["MIT", "Apache-2.0"], "max_stars_count": 7,
}  # fmt: skip
V2 = {
    "blob_id": "c" * 40, "content_id": "d" * 40, "path": "/src/b.h", "repo_name": "team/other",
    "revision_id": "e" * 40, "detected_licenses": ["GPL-3.0-only"], "license_type": "no_license", "language": "C++",
    "src_encoding": "UTF-8", "is_vendor": True, "is_generated": False, "length_bytes": 12, "extension": "h",
    "content": "namespace a {\n}\n",
}  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl.gz", "parquet"])
def test_rows_of_both_versions_keep_what_they_say(tmp_path: Path, form: str) -> None:
    for number, row in enumerate((V1, V2)):
        path = tmp_path / f"v{number + 1}.{form}"
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            path.write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
    one, two = documents(tmp_path / f"v1.{form}")["src/a.py"], documents(tmp_path / f"v2.{form}")["src/b.h"]
    assert one.uri == f"team/tool@{'b' * 40}/src/a.py"
    assert (one.licence, one.attributes["licence_from"]) == ("Apache-2.0 AND MIT", "row")
    assert (one.attributes["max_stars_count"], one.attributes["hexsha"]) == ("7", "a" * 40)
    assert one.attributes["programming_language"] == "python"
    assert one.attributes["blob"] == git_blob(b"x = 1\n")
    assert (two.licence, two.attributes["programming_language"]) == ("GPL-3.0-only", "c++")
    assert two.attributes["marks"] == "vendored"
    assert two.attributes["group"] == "team/other"


def test_a_row_without_content_is_refused_and_a_malformed_one_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    missing = {key: value for key, value in V2.items() if key != "content"}
    grouped = {"repo_name": "team/many", "revision_id": "1", "files": [{"path": "/a.py", "content": "x = 1\n"},
               {"path": "/b.py", "content": "y = 2\n", "detected_licenses": ["MIT"]}, 3]}  # fmt: skip
    path.write_text("\n".join([json.dumps(V1), json.dumps(missing), "[1]", '{"content": ', json.dumps(grouped)]) + "\n")
    found = entries(path)
    kinds = [e.reason if isinstance(e, Refused | Quarantined) else e.uri for e in found if not isinstance(e, Passed)]
    assert kinds == [f"team/tool@{'b' * 40}/src/a.py", "content", "row", "json", "team/many@1/a.py",
                     "team/many@1/b.py", "row"]  # fmt: skip
    assert [e.licence for e in found if isinstance(e, Document)] == ["Apache-2.0 AND MIT", None, "MIT"]
    assert len({e.id for e in found if isinstance(e, Document | Refused)}) == 4


def test_permissive_only_refuses_other_and_unknown_licences(tmp_path: Path) -> None:
    path = tmp_path / "project-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p/a.py", "# SPDX-License-Identifier: MIT\nx = 1\n")
        archive.writestr("p/b.py", "# SPDX-License-Identifier: GPL-3.0-only\nx = 1\n")
        archive.writestr("p/c.py", "x = 1\n")
        archive.writestr("p/sub/d.py", "x = 1\n")
        archive.writestr("p/sub/package.json", '{"license": "ISC"}')  # behind the file it is for
    found = entries(path, permissive_only=True)
    outcome = {e.uri.rpartition("/")[2]: e.reason if isinstance(e, Refused) else e.licence for e in found
               if isinstance(e, Document | Refused)}  # fmt: skip
    assert outcome == {"a.py": "MIT", "b.py": "licence", "c.py": "licence", "d.py": "ISC", "package.json": "language"}
    details = [e.detail for e in found if isinstance(e, Refused)]
    assert details == ["GPL-3.0-only (header)", "unknown", "json"]
    every = documents(path, permissive_only=True, permissive=["GPL-3.0-only"])
    assert sorted(every) == ["p/b.py"]
    assert documents(path, licence="Zlib")["p/c.py"].attributes["licence_from"] == "config"
