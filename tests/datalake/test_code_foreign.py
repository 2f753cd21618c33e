"""Git repositories that point elsewhere: what isn't a repository's own isn't read, shown or named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dulwich import porcelain

from datalake.document import Document, Entry, Quarantined
from datalake.sources.code import files as code
from datalake.sources.code.config import Code

BOTH: list[dict[str, Any]] = [{}, {"revision": "HEAD"}]  # the files on disk, and the object database
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git isn't installed")


def read(path: Path, **options: Any) -> list[Entry]:
    config = Code(paths=[str(path)], **options)
    return [entry for shard in code.archives(config) for entry in code.read(shard, config)]


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


def committed(root: Path, name: str, content: str) -> str:
    """A new repository with one file; its commit."""
    root.mkdir()
    porcelain.init(str(root))
    (root / name).write_text(content)
    porcelain.add(str(root), [str(root / name)])
    one = {"author": b"A <a@example.org>", "committer": b"A <a@example.org>"}
    return porcelain.commit(str(root), message=b"x", **one).decode()


def texts(found: list[Entry]) -> str:
    """All that a reading tells."""
    return "\n".join(str(entry) for entry in found)


def victim(tmp_path: Path) -> tuple[Path, str]:
    """A repository that another one points to, and its commit."""
    root = tmp_path / "victim"
    return root, committed(root, "secret.py", "PRIVATE = 1\n")


def thief(tmp_path: Path) -> Path:
    root = tmp_path / "thief"
    committed(root, "good.py", "x = 1\n")
    return root


def test_what_a_repository_includes_is_not_read(tmp_path: Path) -> None:
    root = thief(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("PRIVATE line\n")
    with (root / ".git" / "config").open("a") as file:
        file.write(f'[include]\n\tpath = {secret}\n[includeIf "gitdir:/"]\n\tpath = {secret}\n')
    for options in BOTH:
        found = read(root, **options)
        assert [type(entry) for entry in found] == [Document]
        assert "PRIVATE" not in texts(found)


@pytest.mark.parametrize("place", ["HEAD", "config", "refs/heads/main", "packed-refs", "shallow"])
def test_a_file_that_is_a_link_to_another_is_not_read(tmp_path: Path, place: str) -> None:
    root = thief(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("PRIVATE line\n")
    target = root / ".git" / place
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(secret)
    for options in BOTH:
        assert "PRIVATE" not in texts(read(root, **options))


@pytest.mark.parametrize("head", ["ref: ../../secret.txt", "ref: refs/../../../secret.txt", "PRIVATE"])
def test_a_head_that_names_another_file_is_not_followed(tmp_path: Path, head: str) -> None:
    root = thief(tmp_path)
    (tmp_path / "secret.txt").write_text("PRIVATE line\n")
    (root / ".git" / "HEAD").write_text(head + "\n")
    for options in BOTH:
        assert "PRIVATE" not in texts(read(root, **options))


def borrow(root: Path, other: Path) -> None:
    (root / ".git" / "objects" / "info").mkdir(exist_ok=True)
    (root / ".git" / "objects" / "info" / "alternates").write_text(f"{other / '.git' / 'objects'}\n")


def link_objects(root: Path, other: Path) -> None:
    shutil.rmtree(root / ".git" / "objects")
    (root / ".git" / "objects").symlink_to(other / ".git" / "objects")


def link_a_folder(root: Path, other: Path) -> None:
    for folder in (other / ".git" / "objects").iterdir():
        if not (root / ".git" / "objects" / folder.name).exists():
            (root / ".git" / "objects" / folder.name).symlink_to(folder)


def link_git(root: Path, other: Path) -> None:
    shutil.rmtree(root / ".git")
    (root / ".git").symlink_to(other / ".git")


def point_git(root: Path, other: Path) -> None:
    shutil.rmtree(root / ".git")
    (root / ".git").write_text(f"gitdir: {other / '.git'}\n")


def share(root: Path, other: Path) -> None:
    shutil.rmtree(root / ".git")
    (root / "own").mkdir()
    (root / ".git").write_text("gitdir: own\n")
    (root / "own" / "HEAD").write_text((other / ".git" / "HEAD").read_text())
    (root / "own" / "commondir").write_text(f"{other / '.git'}\n")


@pytest.mark.parametrize("way", [borrow, link_objects, link_a_folder, link_git, point_git, share])
def test_another_repository_is_not_read(tmp_path: Path, way: Callable[[Path, Path], None]) -> None:
    other, commit = victim(tmp_path)
    root = thief(tmp_path)
    way(root, other)
    (found,) = read(root, revision=commit)
    assert isinstance(found, Quarantined)
    assert found.reason == "repository"
    assert "PRIVATE" not in texts([found])
    plain = read(root)
    assert commit not in texts(plain)
    assert any(isinstance(entry, Document) and entry.text == "x = 1\n" for entry in plain)


@needs_git
def test_linked_working_trees_and_submodules_are_read(tmp_path: Path) -> None:
    other, commit = victim(tmp_path)
    git(other, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    root = thief(tmp_path)
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "sub")
    for folder in (tmp_path / "tree", root / "sub"):
        for options in BOTH:
            (found,) = read(folder, **options)
            assert isinstance(found, Document)
            assert (found.attributes["revision"], found.text) == (commit, "PRIVATE = 1\n")


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("HTTPS://user:TOKEN@Git.example/org/repo.git", "Git.example/org/repo"),
        ("https://user:to/TOKEN@git.example/org/repo.git", "git.example/org/repo"),
        ("https://user:TOKEN@x@git.example/org/repo", "git.example/org/repo"),
        ("https://git.example/org/repo.git?access=TOKEN#TOKEN", "git.example/org/repo"),
        ("Git+SSH://TOKEN@git.example:22/org/repo", "git.example/22/org/repo"),
        ("git@git.example:org/repo.git", "git.example/org/repo"),
        ("FILE:///home/TOKEN/repo.git", "repo"),
        ("/home/TOKEN/repo", "repo"),
    ],
)
def test_a_repositorys_name_has_no_credentials(tmp_path: Path, url: str, called: str) -> None:
    root = thief(tmp_path)
    with (root / ".git" / "config").open("a") as file:
        file.write(f'[remote "origin"]\n\turl = {url}\n')
    (found,) = read(root)
    assert isinstance(found, Document)
    assert found.attributes["repository"] == called
    assert "TOKEN" not in texts([found])
