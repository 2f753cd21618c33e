"""Source code: folders, git repositories, archives, rows in the shape of The Stack, and what Python has installed.

A record is a file. One whose name, or first line where the name has no ending, tells a language becomes a document, a
notebook with its cells; of others the name alone is looked at, and they are refused (`language`). Paths:

- a folder: one archive; of a git working tree, repository and revision are the remote's name and HEAD's commit, and
  what git doesn't track is refused; repositories within it are named after themselves (see `folders`);
- a bare git repository, or with `revision` any repository: one archive, read from the object database;
- an archive (zip, whl, tar and its compressions): read in memory;
- `.jsonl` and `.parquet` files, compressed or not: rows of The Stack, one archive each;
- `python:site-packages`: one archive an installed distribution, with the licence of its metadata;
- `python:stdlib`: the standard library's source, one archive each 20 top-level modules.

A document's uri is `repository@revision/path`, its locator `path@blob` with git's SHA-1 of the content. Programming
languages are in `attributes["programming_language"]`; the language stays `und`, since lid.176 knows only human ones.
Its licence is that of the file's own header, else of the nearest licence file or metadata, else the configured one;
`attributes["licence_from"]` says which. Where that says something unknown there is no licence, whatever stands further
up, and `licence_stated` keeps the words. `charset` is there where a file isn't UTF-8.
Secrets are replaced in the text; `blob` stays that of the file as it was.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, cast

import xxhash

from datalake.archive import Archive
from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.errors import UserError
from datalake.files import file_digest
from datalake.formats.containers import Member, archive_members, is_archive
from datalake.formats.rows.json import Row
from datalake.identity import fingerprint
from datalake.origin import Origin, unlike
from datalake.paths import expand
from datalake.remote.address import is_remote, shown
from datalake.sources.code.concatenate import joined
from datalake.sources.code.config import Code
from datalake.sources.code.folders import File, Tree, listed, trees
from datalake.sources.code.installed import (
    FOLDERS_LEFT_OUT,
    distribution_files,
    distribution_licences,
    distributions,
    stdlib_groups,
)
from datalake.sources.code.marks import MARKS, marks
from datalake.sources.code.notebooks import ENDING, read_notebook
from datalake.sources.code.redact import redact
from datalake.sources.code.repositories import (
    Snapshot,
    is_bare,
    lfs_content,
    lfs_pointer,
    lfs_store,
    snapshot,
    working_tree,
)
from datalake.sources.code.stack import UNKNOWN, StackFile, is_rows, stack_files, stack_rows
from datalake.sources.languages import format_of, language_of, needs_content, programming_language
from datalake.sources.licences.names import may_mean
from datalake.sources.licences.package_files import python_statement
from datalake.sources.licences.projects import LARGEST, LONGEST_PATH, ProjectLicences, Terms, speaks_of_licence
from datalake.sources.licences.spdx import header_licence, header_words, permissive
from datalake.text.charsets import decoded

SITE_PACKAGES = "python:site-packages"
STDLIB = "python:stdlib"
STDLIB_LICENCE = "Python-2.0"
_SHEBANG = 200  # bytes of a file without ending that tell whether it is a script


@dataclass(slots=True)
class Project:
    """What all files of a repository, distribution or archive share.

    `store` is Git LFS's, if there is one; `root` what their paths in the archive begin with.
    """

    repository: str
    revision: str
    group: str
    licences: ProjectLicences
    store: Path | None = None
    root: str = ""

    def uri(self, path: str) -> str:
        """The address of a file at this path in it."""
        return f"{self.repository}@{self.revision}/{path}"


@dataclass(slots=True)
class Given:
    """What a row says of its file beyond path and content. `language` counts where path and content say nothing."""

    locator: str = ""
    language: str = ""
    marks: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


def archives(config: Code) -> list[Archive]:
    """One a folder, repository, archive, file of rows, distribution or group of modules.

    Raises UserError for a file that is none of these.
    """
    out: list[Archive] = []
    plain = [path for path in config.paths if not path.startswith("python:")]
    for name, path in expand(plain, descend=False) if plain else []:
        file = name if is_remote(path) else path  # an address may go on behind the file's name
        if _in_database(path, config):
            found = snapshot(path, name, config.revision, FOLDERS_LEFT_OUT)
            missing = [f"{blob.path}@{blob.sha.decode()}" for blob in found.blobs if blob.kind == "missing"]
            version = fingerprint(["git", found.repository, found.commit, found.problem, missing])
            out.append(Archive(config.kind, name, path, version))
        elif Path(path).is_dir():
            out.append(Archive(config.kind, name, path, _folder_version(path, name)))
        elif is_archive(file) or is_rows(file) or programming_language(file):
            out.append(Archive(config.kind, name, path))
        else:
            raise UserError(
                f"{shown(path)!r} is no folder, archive, source file or file of rows: correct it in `paths`"
            )
    for path in config.paths:
        if path == SITE_PACKAGES:
            for label, distribution in distributions().items():
                if files := distribution_files(distribution):
                    texts = {name: git_blob(text) for name, text in distribution_licences(distribution).items()}
                    said = python_statement(cast("Message", distribution.metadata))
                    stated = [said.expression or "", said.words] if said else []
                    version = _version(listed(files), *stated, fingerprint(texts))
                    out.append(Archive(config.kind, f"site-packages/{label}", path, version))
        elif path == STDLIB:
            for number, files in enumerate(stdlib_groups()):
                out.append(Archive(config.kind, f"stdlib/{number:03d}", path, _version(listed(files))))
        elif path.startswith("python:"):
            raise UserError(f"there is no {path!r}: choose {SITE_PACKAGES} or {STDLIB}")
    return sorted(out, key=lambda archive: archive.name)


def read(archive: Archive, config: Code) -> Iterator[Entry]:
    """One entry a file: a document, refused or quarantined (damage, a broken notebook).

    Refused is what is in no known `language`, `untracked` in a git working tree, `empty`, `too_large`, `binary` or an
    `lfs_pointer` whose content isn't there; by configuration
    what has no permissive `licence`, bears a mark (`generated`, `vendored`...) or holds a `secret`; and with
    `concatenate` what was `joined` to another file's text.
    """
    origin = config.origin(archive)
    found = unlike(origin.framed(_read(archive, origin, config)))
    yield from _concatenated(found, config) if config.concatenate == "repository" else found


def _read(archive: Archive, origin: Origin, config: Code) -> Iterator[Entry]:
    given = _configured(config)
    if archive.path == SITE_PACKAGES:
        label = archive.name.partition("/")[2]
        name, _, version = label.partition("@")
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            distribution = None
        if distribution is None or distribution.version != version:
            yield origin.lost("unreadable", f"{label} isn't installed any more")
            return
        said = python_statement(cast("Message", distribution.metadata))
        files = distribution_licences(distribution)
        packed = {path: content for path, content in files.items() if ".dist-info/" in path}
        own = ProjectLicences(packed).of("").expression
        if said and (said.expression or not (own and may_mean(said.words, own))):
            # Its own word counts before its texts; those of bundled folders count before it.
            files = {path: content for path, content in files.items() if path not in packed}
            given = Terms(said.expression, "metadata", said.words)
        project = Project(name, version, name, ProjectLicences(files, given))
        yield from _files(listed(distribution_files(distribution)), project, origin, config)
    elif archive.path == STDLIB:
        groups = stdlib_groups()
        number = int(archive.name.rpartition("/")[2])
        licences = ProjectLicences({}, given if config.licence else Terms(STDLIB_LICENCE, "metadata"))
        for path, file in groups[number] if number < len(groups) else []:
            group = PurePosixPath(path).parts[0].removesuffix(".py")
            project = Project("python", platform.python_version(), group, licences)
            yield from _files(listed([(path, file)]), project, origin, config)
    elif is_rows(archive.path):
        yield from _rows(archive.path, origin, config)
    elif _in_database(archive.path, config):
        yield from _repository(archive.path, origin, config)
    elif Path(archive.path).is_dir():
        for tree in trees(archive.path):
            yield from _tree(tree, archive, origin, config)
    elif is_archive(archive.path):
        yield from _archive(archive, origin, config)
    else:
        name = PurePosixPath(archive.name).name
        project = Project(name, "file", archive.name, ProjectLicences({}, given))
        yield from _files(listed([(name, archive.path)]), project, origin, config)


def _configured(config: Code) -> Terms:
    return Terms(config.licence, "config") if config.licence else Terms(None, "")


def _tree(tree: Tree, archive: Archive, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of the files of a repository in a folder."""
    repository, revision = working_tree(tree.place, tree.root.rstrip("/") or archive.name, archive.version)
    texts = {
        file.path.removeprefix(tree.root): Path(file.place).read_bytes()[:LARGEST]
        for file in tree.files
        if file.kind == "file" and speaks_of_licence(file.path)
    }
    licences = ProjectLicences(texts, _configured(config))
    project = Project(repository, revision, repository, licences, lfs_store(tree.place), tree.root)
    yield from map(Passed, tree.passed)
    yield from _files(tree.files, project, origin, config)


def _in_database(path: str, config: Code) -> bool:
    """Whether a folder is read from git's object database."""
    return Path(path).is_dir() and (is_bare(path) or bool(config.revision))


def _files(files: Iterable[File], project: Project, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of files on disk. Links that lead out of their folder were left out when the files were listed."""
    return _members((_on_disk(file, project, origin, config) for file in files), project, origin, config)


def _members(members: Iterable[Any], project: Project, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of members, and what is an entry already."""
    return origin.entries(members, partial(_entry, project=project, origin=origin, config=config))


def _on_disk(file: File, project: Project, origin: Origin, config: Code) -> Member | Passed | Refused:
    """A file on disk. An OSError goes up: it is no property of the content that the archive's version stands for."""
    if file.kind in ("link", "special"):
        return Passed(file.kind)
    place = Path(file.place)
    member = Member(file.path, None, 0, place.stat().st_size)
    if file.kind == "untracked":
        return _refused(member, project, origin, "untracked", "git doesn't hold this file")
    if not _is_source(file.path, file.place):
        return _other(member, project, origin)
    if member.length <= config.max_bytes:
        member.content = place.read_bytes()
    return member


def _refused(
    member: Member, project: Project, origin: Origin, reason: str, detail: str = "", locator: str = ""
) -> Refused:
    uri = project.uri(member.name.removeprefix(project.root))
    return origin.refused(member, locator or f"{member.name}@", reason, detail, uri=uri)


def _other(member: Member, project: Project, origin: Origin) -> Refused:
    """A file in no language that is known, by what it holds or how its name ends."""
    kind = format_of(member.name) or PurePosixPath(member.name).suffix[:40].lower() or "no ending"
    return _refused(member, project, origin, "language", kind)


def _archive(archive: Archive, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of an archive, which is read twice: its licences may stand behind its files."""
    texts = {
        member.name: member.content
        for member in archive_members(archive.path, origin, LARGEST, speaks_of_licence)
        if isinstance(member, Member) and member.content is not None
    }
    repository, revision = _archive_name(archive)
    project = Project(repository, revision, repository, ProjectLicences(texts, _configured(config)))
    members = (
        _other(member, project, origin)
        if isinstance(member, Member)
        and not programming_language(member.name)
        and not _is_script(member.name, member.content or b"")
        else member
        for member in archive_members(archive.path, origin, config.max_bytes)
    )
    yield from _members(members, project, origin, config)


def _repository(path: str, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of a repository at a revision, out of its object database."""
    found = snapshot(path, origin.archive, config.revision, FOLDERS_LEFT_OUT)
    if found.problem:
        yield origin.lost("repository", found.problem)
        return
    texts: dict[str, bytes] = {}
    for blob in found.blobs:
        if blob.kind == "file" and speaks_of_licence(blob.path):
            try:
                texts[blob.path] = found.content(blob)[:LARGEST]
            except ValueError:
                continue  # where it is a record too it is quarantined below
    licences = ProjectLicences(texts, _configured(config))
    project = Project(found.repository, found.commit, found.repository, licences, lfs_store(path))
    members = _blobs(found, project, origin, config)
    yield from _members(members, project, origin, config)


def _blobs(
    found: Snapshot, project: Project, origin: Origin, config: Code
) -> Iterator[Member | Passed | Refused | Quarantined]:
    """The files of a repository at a revision."""
    for blob in found.blobs:
        if blob.kind in ("link", "submodule", "left_out"):
            yield Passed(blob.kind)
            continue
        if blob.kind == "file" and not (programming_language(blob.path) or needs_content(blob.path)):
            yield _other(Member(blob.path, None, 0, 0), project, origin)
            continue
        try:
            if blob.kind == "missing":
                raise ValueError(f"object {blob.sha.decode()} isn't in the repository")
            content = found.content(blob)
        except ValueError as error:
            yield origin.lost("damaged", f"{blob.path}: {error}"[:200])
            continue
        if programming_language(blob.path) or _is_script(blob.path, content):
            yield Member(blob.path, content if len(content) <= config.max_bytes else None, 0, len(content))
        else:
            yield _other(Member(blob.path, None, 0, len(content)), project, origin)


def _rows(path: str, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of rows in the shape of The Stack."""
    rows = stack_rows(path, origin)
    yield from origin.entries(rows, partial(_row, origin=origin, config=config))


def _row(row: Row, origin: Origin, config: Code) -> Iterator[Entry]:
    """Entries of the files of one row."""

    def entry(file: StackFile) -> Entry:
        if damage := row.damage(origin, [file.text or ""]):
            return damage
        root = Terms(file.licence, "row", file.stated) if file.stated else _configured(config)
        group = file.repository if file.repository != UNKNOWN else origin.uri(file.locator)
        project = Project(file.repository, file.revision, group, ProjectLicences({}, root))
        if file.text is None:
            detail = "the row has no content: fetch the contents of its blobs first"
            return origin.refused(file, file.locator, "content", detail, uri=project.uri(file.path))
        content = file.text.encode("utf-8", "replace")
        small = content if len(content) <= config.max_bytes else None
        member = Member(file.path, small, file.offset, file.length)
        return _entry(member, project, origin, config, Given(file.locator, file.language, file.marks, file.attributes))

    yield from origin.entries(stack_files(row, origin), entry)


def _entry(member: Member, project: Project, origin: Origin, config: Code, given: Given | None = None) -> Entry:
    """One source file as the entry it becomes."""
    given = given or Given()
    content, path, length = member.content, member.name, member.length
    if len(path) > LONGEST_PATH:
        detail = f"a path of {len(path)} characters: {path[:100]}"
        return origin.quarantined(member, "path", detail)
    pointer = lfs_pointer(content) if content is not None else None
    if pointer:
        length = pointer[1]
        content = lfs_content(project.store, *pointer, config.max_bytes) if project.store else None
    blob = git_blob(content) if content is not None else ""
    locator = given.locator or f"{path}@{blob}"
    inside = path.removeprefix(project.root)
    refused = partial(_refused, replace(member, content=None), project, origin, locator=locator)

    if content is None and pointer and length <= config.max_bytes:
        return refused("lfs_pointer", f"sha256:{pointer[0]}, {length} bytes, isn't in the repository's own store")
    if content is None:
        return refused("too_large", f"{length} bytes")
    if not content.strip():
        return refused("empty")
    found = decode(content)
    if found is None:
        return refused("binary")
    text, charset = found
    attributes = given.attributes | ({"charset": charset} if charset != "utf-8" else {})
    language = language_of(path, text) or given.language
    if path.lower().endswith(ENDING) and not (given.language and not text.lstrip().startswith("{")):
        try:
            notebook = read_notebook(text)
        except ValueError as error:
            return origin.quarantined(member, "notebook", f"{path}: {error}"[:200])
        text, language = notebook.text, notebook.language
        attributes |= {"cells": str(notebook.cells), "outputs_left_out": str(notebook.outputs)}
        if not text:
            return refused("empty")
    spoken, licence = header_licence(text)
    source, words = "header", header_words(text) if spoken and not licence else ""
    if not spoken:
        licence, source, words = project.licences.of(inside)
    if config.permissive_only and not permissive(licence, frozenset(config.permissive)):
        return refused("licence", f"{licence or words or 'unknown'} ({source})" if source else "unknown")
    own = marks(inside, text)
    marked = [mark for mark in MARKS if mark in own or mark in given.marks]
    for mark in marked:
        if getattr(config, mark) == "refuse":
            return refused(mark)
    secrets: dict[str, int] = {}
    if config.secrets != "keep":
        text, secrets = redact(text)
        if secrets and config.secrets == "refuse":
            return refused("secret", ", ".join(secrets))
    attributes |= {
        "programming_language": language,
        "repository": project.repository,
        "revision": project.revision,
        "path": inside,
        "blob": blob,
        "group": project.group,
        "marks": " ".join(marked),
    }
    if source:
        attributes["licence_from"] = source
    if words and not licence:
        attributes["licence_stated"] = words
    if secrets:
        attributes["secrets"] = json.dumps(secrets)
    return origin.document(member, locator, text, attributes, uri=project.uri(inside), licence=licence)


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


def decode(content: bytes) -> tuple[str, str] | None:
    """A source file's text and character set; None for a binary file.

    UTF-8, or what its mark or its coding line (PEP 263) says, else what it looks like.
    """
    match = None if content.isascii() else _coding(content)
    return decoded(content, match[1].decode("ascii") if match else "")


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


def _is_source(path: str, file: str) -> bool:
    """Whether a file on disk is in a known language, by its name or, where that is silent, its first line."""
    if programming_language(path):
        return True
    if not needs_content(path):
        return False
    with Path(file).open("rb") as stream:
        return _is_script(path, stream.read(_SHEBANG))


def _folder_version(folder: str, name: str) -> str:
    """A version of all that shapes the entries of a folder."""
    found = []
    for tree in trees(folder):
        repository, revision = working_tree(tree.place, tree.root.rstrip("/") or name, "")
        more = [repository, revision] if revision else []  # they stand in every uri
        found.append(_version(tree.files, *more, tree.root, *tree.passed))
    return found[0] if len(found) == 1 else fingerprint(found)


def _version(files: Iterable[File], *more: str) -> str:
    """A version of files' names and contents, wherever they lie, and of what else shapes their entries."""
    digest = xxhash.xxh3_128("\0".join(more).encode("utf-8", "surrogatepass"))
    for file in files:
        content = file.kind
        try:
            if file.kind == "file":
                read = _is_source(file.path, file.place) or speaks_of_licence(file.path)
                content = file_digest(file.place) if read else str(Path(file.place).stat().st_size)
        except OSError:
            content = "unreadable"
        digest.update(f"{file.path}\0{content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _archive_name(archive: Archive) -> tuple[str, str]:
    """(repository, revision) of an archive, by its name: `name-1.0-py3-none-any.whl`, `name-1.0.tar.gz`."""
    name = PurePosixPath(archive.name).name
    stem = re.sub(r"\.(?:zip|whl|tar(?:\.\w+)?|tgz|tbz2|txz)$", "", name, flags=re.IGNORECASE)
    match = re.match(r"(.+?)-v?(\d[\w.+!]*)(?:-.*)?$", stem)
    return (match[1], match[2]) if match else (stem, "archive")
