"""Source code: folders, git repositories, archives, rows in the shape of The Stack, and what Python has installed.

A record is a file whose name, or first line where the name has no ending, tells a known language. Paths:

- a folder: one shard; of a git working tree, repository and revision are the remote's name and HEAD's commit;
- a bare git repository, or with `revision` any repository: one shard, read from the object database;
- an archive (zip, whl, tar and its compressions): one shard, read in memory;
- `.jsonl` and `.parquet` files, compressed or not: rows of The Stack, one shard each;
- `python:site-packages`: one shard an installed distribution, with the licence of its metadata;
- `python:stdlib`: the standard library's source, one shard each 20 top-level modules.

A document's uri is `repository@revision/path`, its locator `path@blob` with git's SHA-1 of the content. Programming
languages are in `attributes["programming_language"]`; the language stays `und`, since lid.176 knows only human ones.
Its licence is that of the file's own header, else of the nearest licence file or metadata, else the configured one;
`attributes["licence_from"]` says which. Secrets are replaced in the text; `blob` stays that of the file as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath

import xxhash

from datalake.document import Document, Entry, Passed, Quarantined, Refused, document_id
from datalake.errors import UserError
from datalake.identity import file_digest, fingerprint
from datalake.remote.address import is_remote, shown
from datalake.sources.charsets import decoded
from datalake.sources.code_marks import MARKS, marks
from datalake.sources.concatenate import joined
from datalake.sources.config import Code
from datalake.sources.entries import entries, framed
from datalake.sources.files import Member, archive_members, is_archive
from datalake.sources.installed import (
    FOLDERS_LEFT_OUT,
    distribution_files,
    distribution_licences,
    distributions,
    stdlib_groups,
)
from datalake.sources.languages import language_of, needs_content, programming_language
from datalake.sources.licences import distribution_licence
from datalake.sources.project_licences import LARGEST, LONGEST_PATH, ProjectLicences, speaks_of_licence
from datalake.sources.protocol import InputShard, expand
from datalake.sources.redact import redact
from datalake.sources.repositories import Snapshot, is_bare, lfs_content, lfs_pointer, lfs_store, snapshot, working_tree
from datalake.sources.rows import Row
from datalake.sources.spdx import header_licence, permissive
from datalake.sources.stack import StackFile, is_rows, stack_files, stack_rows

KIND = "code"
SITE_PACKAGES = "python:site-packages"
STDLIB = "python:stdlib"
STDLIB_LICENCE = "Python-2.0"
_SHEBANG = 200  # bytes of a file without ending that tell whether it is a script


@dataclass(slots=True)
class Project:
    """What all files of a repository, distribution or archive share. `store` is Git LFS's, if there is one."""

    repository: str
    revision: str
    group: str
    licences: ProjectLicences
    store: Path | None = None


@dataclass(slots=True)
class Given:
    """What a row says of its file beyond path and content. `language` counts where path and content say nothing."""

    locator: str = ""
    language: str = ""
    marks: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


def shards(config: Code) -> list[InputShard]:
    """One shard a folder, repository, archive, file of rows, distribution or group of modules.

    Raises UserError for a file that is none of these.
    """
    out: list[InputShard] = []
    plain = [path for path in config.paths if not path.startswith("python:")]
    for name, path in expand(plain, descend=False) if plain else []:
        file = name if is_remote(path) else path  # an address may go on behind the file's name
        if _in_database(path, config):
            found = snapshot(path, name, config.revision, FOLDERS_LEFT_OUT)
            missing = [f"{blob.path}@{blob.sha.decode()}" for blob in found.blobs if blob.kind == "missing"]
            version = fingerprint(["git", found.repository, found.commit, found.problem, missing])
            out.append(InputShard(KIND, name, path, version))
        elif Path(path).is_dir():
            repository, revision = working_tree(path, name, "")
            tree = [repository, revision] if revision else []  # they stand in every uri
            licences = sorted((name, str(file)) for name, file in _walk(path, speaks_of_licence))
            out.append(InputShard(KIND, name, path, _version(_folder_files(path) + licences, *tree)))
        elif is_archive(file) or is_rows(file) or programming_language(file):
            out.append(InputShard(KIND, name, path))
        else:
            raise UserError(
                f"{shown(path)!r} is no folder, archive, source file or file of rows: correct it in `paths`"
            )
    for path in config.paths:
        if path == SITE_PACKAGES:
            for label, distribution in distributions().items():
                if files := distribution_files(distribution):
                    texts = {name: git_blob(text) for name, text in distribution_licences(distribution).items()}
                    version = _version(files, distribution_licence(distribution) or "", fingerprint(texts))
                    out.append(InputShard(KIND, f"site-packages/{label}", path, version))
        elif path == STDLIB:
            for number, files in enumerate(stdlib_groups()):
                out.append(InputShard(KIND, f"stdlib/{number:03d}", path, _version(files)))
        elif path.startswith("python:"):
            raise UserError(f"there is no {path!r}: choose {SITE_PACKAGES} or {STDLIB}")
    return sorted(out, key=lambda shard: shard.name)


def read(shard: InputShard, config: Code) -> Iterator[Entry]:
    """One entry a source file: a document, refused or quarantined (encoding, damage).

    Refused is what is `empty`, `too_large`, `binary` or an `lfs_pointer` whose content isn't there; by configuration
    what has no permissive `licence`, bears a mark (`generated`, `vendored`...) or holds a `secret`; and with
    `concatenate` what was `joined` to another file's text.
    """
    found = framed(_read(shard, config), config.label, shard.name)
    yield from _concatenated(found, config) if config.concatenate == "repository" else found


def _read(shard: InputShard, config: Code) -> Iterator[Entry]:
    given = (config.licence, "config") if config.licence else (None, "")
    if shard.path == SITE_PACKAGES:
        label = shard.name.partition("/")[2]
        name, _, version = label.partition("@")
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            distribution = None
        if distribution is None or distribution.version != version:
            yield Quarantined(config.label, shard.name, "unreadable", f"{label} isn't installed any more")
            return
        stated = distribution_licence(distribution)
        files = distribution_licences(distribution)
        if stated:  # the distribution's own word counts before its licence texts, those of bundled folders before it
            files = {path: content for path, content in files.items() if ".dist-info/" not in path}
        licences = ProjectLicences(files, (stated, "metadata") if stated else given)
        yield from _files(distribution_files(distribution), Project(name, version, name, licences), shard, config)
    elif shard.path == STDLIB:
        groups = stdlib_groups()
        number = int(shard.name.rpartition("/")[2])
        licences = ProjectLicences({}, given if config.licence else (STDLIB_LICENCE, "metadata"))
        for path, file in groups[number] if number < len(groups) else []:
            group = PurePosixPath(path).parts[0].removesuffix(".py")
            project = Project("python", platform.python_version(), group, licences)
            yield from _files([(path, file)], project, shard, config)
    elif is_rows(shard.path):
        yield from _rows(shard, config)
    elif _in_database(shard.path, config):
        yield from _repository(shard, config)
    elif Path(shard.path).is_dir():
        repository, revision = working_tree(shard.path, shard.name, shard.version)
        texts = {
            name: Path(file).read_bytes()[:LARGEST]
            for name, file in _walk(shard.path, speaks_of_licence)
            if not Path(file).is_symlink()
        }
        project = Project(repository, revision, repository, ProjectLicences(texts, given), lfs_store(shard.path))
        yield from _files(_folder_files(shard.path), project, shard, config)
    elif is_archive(shard.path):
        yield from _archive(shard, config)
    else:
        name = PurePosixPath(shard.name).name
        yield from _files([(name, shard.path)], Project(name, "file", name, ProjectLicences({}, given)), shard, config)


def _in_database(path: str, config: Code) -> bool:
    """Whether a folder is read from git's object database."""
    return Path(path).is_dir() and (is_bare(path) or bool(config.revision))


def _files(files: list[tuple[str, str]], project: Project, shard: InputShard, config: Code) -> Iterator[Entry]:
    """Entries of files on disk. Links that lead out of their folder were left out when the files were listed."""
    members = (Passed("link") if Path(file).is_symlink() else _on_disk(path, file, config) for path, file in files)
    yield from entries(members, partial(_entry, project=project, shard=shard, config=config), config.label, shard.name)


def _on_disk(path: str, file: str, config: Code) -> Member:
    """A file on disk. An OSError goes up: it is no property of the content that the shard's key stands for."""
    length = Path(file).stat().st_size
    return Member(path, Path(file).read_bytes() if length <= config.max_bytes else None, 0, length)


def _archive(shard: InputShard, config: Code) -> Iterator[Entry]:
    """Entries of an archive, which is read twice: its licences may stand behind its files."""
    root = (config.licence, "config") if config.licence else (None, "")
    texts = {
        member.name: member.content
        for member in archive_members(shard, config.label, LARGEST, speaks_of_licence)
        if isinstance(member, Member) and member.content is not None
    }
    repository, revision = _archive_name(shard)
    project = Project(repository, revision, repository, ProjectLicences(texts, root))
    members = (
        member
        for member in archive_members(shard, config.label, config.max_bytes)
        if not isinstance(member, Member)
        or programming_language(member.name)
        or _is_script(member.name, member.content or b"")
    )
    yield from entries(members, partial(_entry, project=project, shard=shard, config=config), config.label, shard.name)


def _repository(shard: InputShard, config: Code) -> Iterator[Entry]:
    """Entries of a repository at a revision, out of its object database."""
    found = snapshot(shard.path, shard.name, config.revision, FOLDERS_LEFT_OUT)
    if found.problem:
        yield Quarantined(config.label, shard.name, "repository", found.problem)
        return
    texts: dict[str, bytes] = {}
    for blob in found.blobs:
        if blob.kind == "file" and speaks_of_licence(blob.path):
            try:
                texts[blob.path] = found.content(blob)[:LARGEST]
            except ValueError:
                continue  # where it is a record too it is quarantined below
    root = (config.licence, "config") if config.licence else (None, "")
    licences = ProjectLicences(texts, root)
    project = Project(found.repository, found.commit, found.repository, licences, lfs_store(shard.path))
    members = _blobs(found, shard, config)
    yield from entries(members, partial(_entry, project=project, shard=shard, config=config), config.label, shard.name)


def _blobs(found: Snapshot, shard: InputShard, config: Code) -> Iterator[Member | Passed | Quarantined]:
    """The source files of a repository at a revision."""
    for blob in found.blobs:
        if blob.kind in ("link", "submodule"):
            yield Passed(blob.kind)
            continue
        if blob.kind == "file" and not (programming_language(blob.path) or needs_content(blob.path)):
            continue
        try:
            if blob.kind == "missing":
                raise ValueError(f"object {blob.sha.decode()} isn't in the repository")
            content = found.content(blob)
        except ValueError as error:
            yield Quarantined(config.label, shard.name, "damaged", f"{blob.path}: {error}"[:200])
            continue
        if programming_language(blob.path) or _is_script(blob.path, content):
            yield Member(blob.path, content if len(content) <= config.max_bytes else None, 0, len(content))


def _rows(shard: InputShard, config: Code) -> Iterator[Entry]:
    """Entries of rows in the shape of The Stack."""
    rows = stack_rows(shard.path, shard.name, config.label)
    yield from entries(rows, lambda row: _row(row, shard, config), config.label, shard.name)


def _row(row: Row, shard: InputShard, config: Code) -> Iterator[Entry]:
    """Entries of the files of one row."""

    def entry(file: StackFile) -> Entry:
        root = (file.licence, "row") if file.licence else (config.licence, "config") if config.licence else (None, "")
        project = Project(file.repository, file.revision, file.repository, ProjectLicences({}, root))
        if file.text is None:
            identity = document_id(KIND, shard.name, file.locator)
            uri = f"{file.repository}@{file.revision}/{file.path}"
            detail = "the row has no content: fetch the contents of its blobs first"
            where = (shard.name, file.offset, file.length)
            return Refused(identity, config.label, uri, "content", detail, "und", *where)
        content = file.text.encode("utf-8", "replace")
        small = content if len(content) <= config.max_bytes else None
        member = Member(file.path, small, file.offset, file.length)
        return _entry(member, project, shard, config, Given(file.locator, file.language, file.marks, file.attributes))

    yield from entries(stack_files(row, shard.name, config.label), entry, config.label, shard.name)


def _entry(member: Member, project: Project, shard: InputShard, config: Code, given: Given | None = None) -> Entry:
    """One source file as the entry it becomes."""
    given = given or Given()
    content, path, length = member.content, member.name, member.length
    if len(path) > LONGEST_PATH:
        detail = f"a path of {len(path)} characters: {path[:100]}"
        return Quarantined(config.label, shard.name, "path", detail, member.offset, member.length)
    pointer = lfs_pointer(content) if content is not None else None
    if pointer:
        length = pointer[1]
        content = lfs_content(project.store, *pointer, config.max_bytes) if project.store else None
    blob = git_blob(content) if content is not None else ""
    identity = document_id(KIND, shard.name, given.locator or f"{path}@{blob}")
    uri = f"{project.repository}@{project.revision}/{path}"

    def refused(reason: str, detail: str = "") -> Refused:
        where = (shard.name, member.offset, member.length)
        return Refused(identity, config.label, uri, reason, detail, "und", *where)

    if content is None and pointer and length <= config.max_bytes:
        return refused("lfs_pointer", f"sha256:{pointer[0]}, {length} bytes, isn't in the repository's own store")
    if content is None:
        return refused("too_large", f"{length} bytes")
    if not content.strip():
        return refused("empty")
    try:
        text = decode(content)
    except UnicodeError as error:
        where = (member.offset, member.length)
        return Quarantined(config.label, shard.name, "encoding", f"{path}: {error}"[:200], *where)
    if text is None:
        return refused("binary")
    spoken, licence = header_licence(text)
    source = "header"
    if not spoken:
        licence, source = project.licences.of(path)
    if config.permissive_only and not permissive(licence, frozenset(config.permissive)):
        return refused("licence", f"{licence or 'unknown'} ({source})" if source else "unknown")
    own = marks(path, text)
    found = [mark for mark in MARKS if mark in own or mark in given.marks]
    for mark in found:
        if getattr(config, mark) == "refuse":
            return refused(mark)
    secrets: dict[str, int] = {}
    if config.secrets != "keep":
        text, secrets = redact(text)
        if secrets and config.secrets == "refuse":
            return refused("secret", ", ".join(secrets))
    attributes = {
        "programming_language": language_of(path, text) or given.language,
        "repository": project.repository,
        "revision": project.revision,
        "path": path,
        "blob": blob,
        "group": project.group,
        "marks": " ".join(found),
    }
    if source:
        attributes["licence_from"] = source
    if secrets:
        attributes["secrets"] = json.dumps(secrets)
    return Document(
        id=identity,
        text=text,
        source=config.label,
        uri=uri,
        licence=licence,
        archive=shard.name,
        offset=member.offset,
        length=member.length,
        attributes=given.attributes | attributes,
    )


def _concatenated(entries: Iterator[Entry], config: Code) -> Iterator[Entry]:
    """The same entries with documents joined by repository. Holds a repository's texts at once."""
    documents: list[Document] = []
    for entry in entries:
        if not isinstance(entry, Document):
            yield entry
            continue
        if documents and entry.attributes["repository"] != documents[0].attributes["repository"]:
            yield from joined(documents, config.joined_bytes)
            documents = []
        documents.append(entry)
    if documents:
        yield from joined(documents, config.joined_bytes)


def git_blob(content: bytes) -> str:
    """git's name of a file's content: SHA-1 over `blob <length>\\0` and the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def decode(content: bytes) -> str | None:
    """A source file's text; None for a binary file. UTF-8, or what its mark or its coding line (PEP 263) says.

    Raises UnicodeError where the bytes aren't in that encoding.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if b"\0" in content[:8000]:  # git's own test for a binary file
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        match = _coding(content)
        if match:
            return decoded(content, match[1].decode("ascii"))
        raise


_COMMENT = re.compile(rb"[ \t\f]*+[#/*;%-][^\n]*")
_CODING = re.compile(rb"coding[:=][ \t]*+([-\w.]+)")


def _coding(content: bytes) -> re.Match[bytes] | None:
    """The coding line of a file: a comment that is its second or its first line."""
    second = content.find(b"\n") + 1
    for place in (second, 0) if second else (0,):
        line = _COMMENT.match(content, place)
        if line and (match := _CODING.search(content, *line.span())):
            return match
    return None


def _is_script(path: str, content: bytes) -> bool:
    """Whether a file whose name is silent begins with a `#!` line of a known interpreter."""
    return (
        needs_content(path)
        and content.startswith(b"#!")
        and bool(language_of(path, content[:_SHEBANG].decode("utf-8", "replace")))
    )


def _folder_files(folder: str) -> list[tuple[str, str]]:
    """(path below the folder, file) of every known source file, sorted; links to folders aren't followed."""
    out = []
    for path, file in _walk(folder, lambda path: bool(programming_language(path)) or needs_content(path)):
        if programming_language(path):
            out.append((path, file))
            continue
        try:
            with Path(file).open("rb") as stream:
                if not Path(file).is_symlink() and _is_script(path, stream.read(_SHEBANG)):
                    out.append((path, file))
        except OSError:
            continue  # a pipe, a socket, a link to nowhere
    return sorted(out)


def _walk(folder: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """(path below the folder, file) of the files whose names are wanted; only regular files and links."""
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in FOLDERS_LEFT_OUT]
        for name in files:
            file = Path(parent, name)
            path = file.relative_to(folder).as_posix()
            if wanted(path) and (file.is_symlink() or file.is_file()):
                yield path, str(file)


def _version(files: list[tuple[str, str]], *more: str) -> str:
    """A version of files' names and contents, wherever they lie, and of what else shapes their documents."""
    digest = xxhash.xxh3_128("\0".join(more).encode("utf-8", "surrogatepass"))
    for path, file in files:
        try:
            content = "link" if Path(file).is_symlink() else file_digest(file)
        except OSError:
            content = "unreadable"
        digest.update(f"{path}\0{content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _archive_name(shard: InputShard) -> tuple[str, str]:
    """(repository, revision) of an archive, by its name: `name-1.0-py3-none-any.whl`, `name-1.0.tar.gz`."""
    stem = re.sub(r"\.(?:zip|whl|tar(?:\.\w+)?|tgz|tbz2|txz)$", "", PurePosixPath(shard.name).name, flags=re.IGNORECASE)
    match = re.match(r"(.+?)-v?(\d[\w.+!]*)(?:-.*)?$", stem)
    return (match[1], match[2]) if match else (stem, "archive")
