"""Git repositories: what a working tree is called, and files out of the object database of a bare or other repository.

The database is read by dulwich; no git program is needed and nothing is checked out. Submodules are other repositories
and passed; pointers of Git LFS are followed into the repository's own store where their content lies there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)
_LINK, _SUBMODULE = 0o120000, 0o160000


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a commit: `kind` is `file`, `link`, `submodule` or `missing` (an object that isn't there)."""

    path: str
    kind: str
    sha: bytes


@dataclass(slots=True)
class Snapshot:
    """A repository at one commit. `problem` says why there is none; then it has no files."""

    repository: str
    commit: str
    problem: str = ""
    blobs: list[Blob] = field(default_factory=list)
    store: Any = None

    def content(self, blob: Blob) -> bytes:
        """A blob's bytes. Raises ValueError where the object is damaged."""
        try:
            content = self.store[blob.sha].data
        except Exception as error:  # a damaged object breaks in whichever layer meets it first
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().encode() != blob.sha:
            raise ValueError(f"object {blob.sha.decode()} has another content than its name says")
        return bytes(content)


def is_bare(folder: str) -> bool:
    """Whether a folder is a git repository without a working tree."""
    root = Path(folder)
    return (root / "HEAD").is_file() and (root / "objects").is_dir() and (root / "refs").is_dir()


def snapshot(folder: str, name: str, revision: str, left_out: frozenset[str]) -> Snapshot:
    """A repository at a revision (branch, tag, commit or a beginning of it; empty: HEAD), its files in path order."""
    from dulwich.errors import NotGitRepository
    from dulwich.objects import Commit
    from dulwich.objectspec import parse_commit
    from dulwich.repo import Repo

    place, _ = git_folders(folder)
    called = remote_name(folder) or PurePosixPath(name).name.removesuffix(".git")
    try:
        repo = Repo(str(folder))
    except NotGitRepository:
        return Snapshot(called, "", f"{name} is no git repository")
    except Exception as error:  # whatever a damaged configuration breaks
        return Snapshot(called, "", f"the repository can't be opened: {type(error).__name__}: {error}")
    wanted = revision or "HEAD"
    try:
        commit = parse_commit(repo, wanted)
        if not isinstance(commit, Commit):
            raise ValueError("no commit")
        found = Snapshot(called, commit.id.decode(), store=repo.object_store)
        found.blobs = list(_walk(repo.object_store, commit.tree, "", left_out))
    except Exception as error:  # as above: nothing of a damaged repository may go up
        shallow = "; the repository is shallow: fetch its history" if (place / "shallow").is_file() else ""
        return Snapshot(called, "", f"{wanted} can't be read: {type(error).__name__}: {error}{shallow}"[:200])
    return found


def _walk(store: Any, tree: bytes, prefix: str, left_out: frozenset[str]) -> Iterator[Blob]:
    for entry in store[tree].iteritems(name_order=True):
        name = entry.path.decode("utf-8", "surrogateescape")
        path = f"{prefix}{name}"
        if entry.mode == _SUBMODULE:
            yield Blob(path, "submodule", entry.sha)
        elif entry.mode & 0o170000 == 0o040000:
            if name in left_out:
                continue
            if _has(store, entry.sha):
                yield from _walk(store, entry.sha, f"{path}/", left_out)
            else:
                yield Blob(path, "missing", entry.sha)
        elif not _has(store, entry.sha):
            yield Blob(path, "missing", entry.sha)
        else:
            yield Blob(path, "link" if entry.mode == _LINK else "file", entry.sha)


def _has(store: Any, sha: bytes) -> bool:
    """Whether an object is there; one that breaks when it is looked for isn't."""
    try:
        return sha in store
    except Exception:  # as in `content`
        return False


def lfs_pointer(content: bytes) -> tuple[str, int] | None:
    """(SHA-256, size) of what a Git LFS pointer stands for, None for any other content."""
    match = _POINTER.fullmatch(content) if len(content) < 1024 else None
    return (match[1].decode(), int(match[2])) if match else None


def lfs_content(folder: str, digest: str, size: int, largest: int) -> bytes | None:
    """The content behind a pointer, from the repository's own store; None where it isn't there whole, or too large."""
    _, common = git_folders(folder)
    file = common / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    if size > largest or not file.is_file() or file.stat().st_size != size:
        return None
    content = file.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == digest else None


def git_folders(folder: str) -> tuple[Path, Path]:
    """(the git folder, the one it shares with other working trees) of a working tree or bare repository."""
    git = Path(folder, ".git")
    if not git.exists():
        return Path(folder), Path(folder)
    try:
        if git.is_file():  # a work tree of its own, or a submodule
            git = Path(folder, git.read_text().partition("gitdir:")[2].strip())
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").is_file() else git
    except (OSError, UnicodeDecodeError):
        return git, git
    return git, common


def remote_name(folder: str) -> str:
    """What a repository's remote `origin` is called: host and path, or the last part of a place on this disk."""
    _, common = git_folders(folder)
    try:
        config = (common / "config").read_text() if (common / "config").is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
    remote = re.search(r'\[remote "origin"\][^\[]*?\burl\s*=\s*(\S+)', config)
    if not remote:
        return ""
    address = re.sub(r"^[a-z+]+://(?:[^@/]*@)?|^[^@/]*@|\.git/?$", "", remote[1]).replace(":", "/")
    # An address on this disk is a place, which must not enter: its last part is the repository's name.
    return PurePosixPath(address).name if address.startswith(("/", ".", "file/")) else address


def working_tree(folder: str, name: str, version: str) -> tuple[str, str]:
    """(repository, revision) of a folder: of git where it is a working tree, else its name and version."""
    called = PurePosixPath(name).name or "folder"
    git, common = git_folders(folder)
    try:
        head = (git / "HEAD").read_text().strip()
        revision = head if not head.startswith("ref:") else _reference(git, common, head[4:].strip())
    except (OSError, UnicodeDecodeError):
        return called, version[:12]
    return remote_name(folder) or called, revision or version[:12]


def _reference(git: Path, common: Path, name: str) -> str:
    for base in (git, common):
        if (base / name).is_file():
            return (base / name).read_text().strip()
    packed = common / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else []:
        commit, _, reference = line.partition(" ")
        if reference == name:
            return commit
    return ""
