"""Git repositories: what a working tree is called, and files out of the object database of a bare or other repository.

The database is read by dulwich; no git program is needed and nothing is checked out. Submodules are other repositories
and passed; pointers of Git LFS are followed into the repository's own store where their content lies there.

A repository is data, and data may lie: its `.git` file, its alternates, links in its folders and `[include]` in its
configuration can name any place on this disk, and what lies there would be read as if it were its own. So what isn't
within its folder isn't read, but for the store of a linked working tree or a submodule, which names it in return.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from datalake.remote.address import without_user

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)
_SHA_256 = re.compile(r"^[ \t]*+objectformat[ \t]*+=[ \t]*+sha256", re.IGNORECASE | re.MULTILINE)
_SHA_1 = 40  # characters of an object's name
_LINK, _SUBMODULE = 0o120000, 0o160000
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a commit.

    `kind` is `file`, `link`, `submodule`, `left_out` (a folder) or `missing` (an object that isn't there).
    """

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
        named = hashlib.sha1 if len(blob.sha) == _SHA_1 else hashlib.sha256
        if named(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().encode() != blob.sha:
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

    called = remote_name(folder) or PurePosixPath(name).name.removesuffix(".git")
    try:
        place, common = git_folders(folder)
        repo = _opened(place, common)
    except ForeignError as error:
        return Snapshot(called, "", str(error))
    except NotGitRepository:
        return Snapshot(called, "", f"{name} is no git repository")
    except Exception as error:  # whatever a damaged configuration breaks
        return Snapshot(called, "", f"the repository can't be opened: {type(error).__name__}")
    wanted = revision or "HEAD"
    try:
        commit = parse_commit(repo, wanted)
        if not isinstance(commit, Commit):
            raise ValueError("no commit")
        found = Snapshot(called, commit.id.decode(), store=repo.object_store)
        found.blobs = list(_walk(repo.object_store, commit.tree, "", left_out))
    except Exception as error:  # as above: nothing of a damaged repository may go up
        more = "; the repository is shallow: fetch its history" if (place / "shallow").is_file() else ""
        if (common / "objects" / "info" / "alternates").is_file():
            more = "; what it borrows from another repository isn't read: `git repack -a` makes it whole"
        return Snapshot(called, "", f"{wanted} can't be read: {type(error).__name__}{more}"[:200])
    return found


def _opened(place: Path, common: Path) -> Any:
    """A repository by its git folder, read without what its configuration includes and what it borrows."""
    from dulwich.config import ConfigFile
    from dulwich.object_store import DiskObjectStore
    from dulwich.repo import Repo

    class Store(DiskObjectStore):
        @property
        def alternates(self) -> list[Any]:
            return []

    class Alone(Repo):
        def get_config(self) -> ConfigFile:
            try:
                with (common / "config").open("rb") as file:
                    return ConfigFile.from_file(file, expand_includes=False)
            except FileNotFoundError:
                return ConfigFile()

    config = Alone.get_config(None)  # type: ignore[arg-type]  # it looks at no repository
    return Alone(str(place), object_store=Store.from_config(str(common / "objects"), config), bare=True)


def _walk(store: Any, tree: bytes, prefix: str, left_out: frozenset[str]) -> Iterator[Blob]:
    for entry in store[tree].iteritems(name_order=True):
        name = entry.path.decode("utf-8", "surrogateescape")
        path = f"{prefix}{name}"
        if entry.mode == _SUBMODULE:
            yield Blob(path, "submodule", entry.sha)
        elif entry.mode & 0o170000 == 0o040000:
            if name in left_out:
                yield Blob(path, "left_out", entry.sha)
            elif _has(store, entry.sha):
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


def lfs_store(folder: str) -> Path | None:
    """Where a repository keeps Git LFS's objects; None where that isn't its own."""
    try:
        return git_folders(folder)[1] / "lfs" / "objects"
    except ForeignError:
        return None


def lfs_content(store: Path, digest: str, size: int, largest: int) -> bytes | None:
    """The content behind a pointer, from the repository's own store; None where it isn't there whole, or too large."""
    file = store / digest[:2] / digest[2:4] / digest
    if size > largest or not file.is_file() or file.stat().st_size != size:
        return None
    content = file.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == digest else None


@dataclass(frozen=True, slots=True)
class Tracked:
    """What a working tree's index holds: paths of files (in Unicode's composed form), and of submodules."""

    files: frozenset[str]
    submodules: frozenset[str]

    def holds(self, path: str) -> bool:
        """Whether a file of the working tree is one of the repository's."""
        return (path if path.isascii() else unicodedata.normalize("NFC", path)) in self.files


def tracked(folder: str) -> Tracked | None:
    """What the index of a working tree holds; None where it has none that can be read, or is no working tree."""
    from dulwich.index import Index
    from dulwich.object_format import SHA1, SHA256

    if not (Path(folder) / ".git").exists():
        return None
    try:
        git, common = git_folders(folder)
        file = git / "index"
        if not file.is_file():
            return None
        names = SHA256 if _SHA_256.search(_text(common / "config")) else SHA1
        index = Index(str(file), object_format=names)
        entries = [(os.fsdecode(path), getattr(entry, "mode", 0)) for path, entry in index.items()]
    except Exception:  # whatever a damaged index breaks
        return None
    files = {unicodedata.normalize("NFC", path) for path, mode in entries if mode != _SUBMODULE}
    return Tracked(frozenset(files), frozenset(path for path, mode in entries if mode == _SUBMODULE))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


class ForeignError(ValueError):
    """Parts of a repository lie outside of it. The message says which, and what to do."""


def git_folders(folder: str) -> tuple[Path, Path]:
    """(the git folder, the one it shares with other working trees) of a working tree or bare repository.

    Raises ForeignError where they, or what links in them lead to, aren't the repository's own.
    """
    root = Path(folder).resolve()
    git = root / ".git"
    if not git.exists():
        git = common = root
    else:
        try:
            if git.is_file():  # a work tree of its own, or a submodule
                git = Path(root, _inside(git, root).read_text().partition("gitdir:")[2].strip())
            git = git.resolve()
            common = git
            if (git / "commondir").is_file():
                common = (git / _inside(git / "commondir", git).read_text().strip()).resolve()
        except (OSError, UnicodeDecodeError):
            return git, git
        if not git.is_relative_to(root) and not _names(git, root):
            raise ForeignError("its git folder is another repository's: name that one, or run `git worktree repair`")
        if common != git and common != git.parent.parent:
            raise ForeignError("its git folder shares another repository's: name that one")
    for own in {git, common}:
        for part in ("HEAD", "config", "packed-refs", "shallow", "info", "refs", "objects", "lfs", "index"):
            for path in _links(own / part):
                if not any(path.resolve().is_relative_to(base) for base in (git, common)):
                    raise ForeignError(f"{part} in its git folder leads out of it: make the repository whole")
    return git, common


def _inside(path: Path, root: Path) -> Path:
    """The path. Raises ForeignError where it is a link that leads out of the root."""
    if not path.resolve().is_relative_to(root):
        raise ForeignError(f"{path.name} leads out of the repository")
    return path


def _names(git: Path, root: Path) -> bool:
    """Whether a git folder says that this is its working tree, as those of linked working trees and submodules do."""
    with suppress(OSError, UnicodeDecodeError):
        if (git / "gitdir").is_file():
            return Path(git, (git / "gitdir").read_text().strip()).resolve() == root / ".git"
        tree = re.search(r"^[ \t]*worktree[ \t]*=[ \t]*(\S.*)$", (git / "config").read_text(), re.MULTILINE)
        return tree is not None and Path(git, tree[1].strip().strip('"')).resolve() == root
    return False


def _links(path: Path) -> Iterator[Path]:
    """The links at and below a path."""
    if path.is_symlink():
        yield path
    elif path.is_dir():
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir():
                    yield from _links(Path(entry.path))


def remote_name(folder: str) -> str:
    """What a repository's remote `origin` is called: host and path, or the last part of a place on this disk."""
    try:
        _, common = git_folders(folder)
        config = (common / "config").read_text() if (common / "config").is_file() else ""
    except (OSError, UnicodeDecodeError, ForeignError):
        return ""
    remote = re.search(r'\[remote "origin"\][^\[]*?\burl\s*=\s*(\S+)', config)
    if not remote:
        return ""
    address = remote[1].strip('"')
    if re.match(r"[a-z][a-z0-9+.-]*://", address, re.IGNORECASE):
        address = re.split(r"[?#]", without_user(address), maxsplit=1)[0].partition("://")[2]
    else:
        address = re.sub(r"^[^@/]*@", "", address)
    address = re.sub(r"\.git/?$", "", address).replace(":", "/")
    # An address on this disk is a place, which must not enter: its last part is the repository's name.
    return PurePosixPath(address).name if address.startswith(("/", ".")) else address


def working_tree(folder: str, name: str, version: str) -> tuple[str, str]:
    """(repository, revision) of a folder: of git where it is a working tree, else its name and version."""
    called = PurePosixPath(name).name or "folder"
    try:
        git, common = git_folders(folder)
        head = (git / "HEAD").read_text().strip()
        revision = head if not head.startswith("ref:") else _reference(git, common, head[4:].strip())
    except (OSError, UnicodeDecodeError, ForeignError):
        return called, version[:12]
    return remote_name(folder) or called, revision if _COMMIT.fullmatch(revision) else version[:12]


def _reference(git: Path, common: Path, name: str) -> str:
    if not name.startswith("refs/") or ".." in name.split("/"):
        return ""
    for base in (git, common):
        if (base / name).is_file():
            return (base / name).read_text().strip()
    packed = common / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else []:
        commit, _, reference = line.partition(" ")
        if reference == name:
            return commit
    return ""
