"""Source code: folders and git working trees, archives (zip, whl, tar), and what Python itself has installed.

A record is a file whose ending `LANGUAGES` knows. Paths:

- a folder: one shard; below a `.git`, repository and revision are the remote's name and HEAD's commit;
- an archive: one shard, read in memory;
- `python:site-packages`: one shard an installed distribution, with the licence of its metadata;
- `python:stdlib`: the standard library's source, one shard each 20 top-level modules.

A document's uri is `repository@revision/path`, its locator `path@blob` with git's SHA-1 of the content. Programming
languages are in `attributes["programming_language"]`; the language stays `und`, since lid.176 knows only human ones.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import xxhash

from datalake.document import Document, Entry, Passed, Quarantined, Refused, document_id
from datalake.errors import UserError
from datalake.identity import file_digest
from datalake.sources.config import Code
from datalake.sources.files import Member, archive_members, is_archive
from datalake.sources.licences import distribution_licence
from datalake.sources.protocol import InputShard, expand

KIND = "code"
SITE_PACKAGES = "python:site-packages"
STDLIB = "python:stdlib"
STDLIB_LICENCE = "Python-2.0"
STDLIB_MODULES_A_SHARD = 20
# Not the library: tests, bundled wheels, applications with windows.
STDLIB_LEFT_OUT = frozenset(("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages"))
FOLDERS_LEFT_OUT = frozenset((".git", ".hg", ".svn", "__pycache__", ".venv", ".tox", "node_modules"))

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".pyx": "cython", ".pxd": "cython", ".c": "c", ".h": "c", ".cc": "c++",
    ".cpp": "c++", ".cxx": "c++", ".hh": "c++", ".hpp": "c++", ".cu": "cuda", ".cuh": "cuda", ".rs": "rust",
    ".go": "go", ".java": "java", ".kt": "kotlin", ".scala": "scala", ".js": "javascript", ".mjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".rb": "ruby", ".php": "php", ".pl": "perl",
    ".pm": "perl", ".lua": "lua", ".r": "r", ".jl": "julia", ".swift": "swift", ".m": "objective-c", ".cs": "c#",
    ".fs": "f#", ".hs": "haskell", ".ml": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang",
    ".clj": "clojure", ".sh": "shell", ".bash": "shell", ".ps1": "powershell", ".sql": "sql", ".f": "fortran",
    ".f90": "fortran", ".f95": "fortran", ".zig": "zig", ".nim": "nim", ".dart": "dart", ".vue": "vue",
    ".html": "html", ".css": "css", ".scss": "css", ".cmake": "cmake", ".proto": "protobuf", ".asm": "assembly",
    ".s": "assembly", ".tex": "tex", ".el": "lisp", ".lisp": "lisp", ".scm": "scheme", ".v": "verilog",
    ".sv": "verilog", ".vhd": "vhdl", ".mk": "makefile", ".dockerfile": "dockerfile", ".md": "markdown",
    ".rst": "restructuredtext", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".j2": "jinja", ".pas": "pascal",
}  # fmt: skip
NAMES = {"makefile": "makefile", "dockerfile": "dockerfile", "cmakelists.txt": "cmake", "rakefile": "ruby"}


def programming_language(path: str) -> str | None:
    """The language of a source file by its name, None where it isn't known."""
    name = PurePosixPath(path).name.lower()
    return NAMES.get(name) or LANGUAGES.get(PurePosixPath(name).suffix)


def shards(config: Code) -> list[InputShard]:
    """One shard a folder, archive, distribution or group of modules. Raises UserError for a file that is neither."""
    out: list[InputShard] = []
    plain = [path for path in config.paths if not path.startswith("python:")]
    for name, path in expand(plain, descend=False) if plain else []:
        if Path(path).is_dir():
            repository, revision = _repository(InputShard(KIND, name, path))
            tree = [repository, revision] if revision else []  # they stand in every uri
            out.append(InputShard(KIND, name, path, _version(_folder_files(path), *tree)))
        elif is_archive(path) or programming_language(path):
            out.append(InputShard(KIND, name, path))
        else:
            raise UserError(f"{path!r} is no folder, archive or source file: correct it in `paths`")
    for path in config.paths:
        if path == SITE_PACKAGES:
            for label, distribution in _distributions().items():
                if files := _distribution_files(distribution):
                    out.append(InputShard(KIND, f"site-packages/{label}", path, _version(files)))
        elif path == STDLIB:
            for number, files in enumerate(_stdlib_groups()):
                out.append(InputShard(KIND, f"stdlib/{number:03d}", path, _version(files)))
        elif path.startswith("python:"):
            raise UserError(f"there is no {path!r}: choose {SITE_PACKAGES} or {STDLIB}")
    return sorted(out, key=lambda shard: shard.name)


def read(shard: InputShard, config: Code) -> Iterator[Entry]:
    """One entry a source file: a document, refused (empty, too_large, binary) or quarantined (encoding, damage)."""
    licence = config.licence
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
        licence = distribution_licence(distribution) or licence
        yield from _files(_distribution_files(distribution), name, version, licence, name, shard, config)
    elif shard.path == STDLIB:
        groups = _stdlib_groups()
        number = int(shard.name.rpartition("/")[2])
        for path, file in groups[number] if number < len(groups) else []:
            group = PurePosixPath(path).parts[0].removesuffix(".py")
            one = [(path, file)]
            version = platform.python_version()
            yield from _files(one, "python", version, licence or STDLIB_LICENCE, group, shard, config)
    elif Path(shard.path).is_dir():
        repository, revision = _repository(shard)
        yield from _files(_folder_files(shard.path), repository, revision, licence, repository, shard, config)
    elif is_archive(shard.path):
        repository, revision = _archive_name(shard)
        for member in archive_members(shard, config.label, config.max_bytes):
            if not isinstance(member, Member):
                yield member
            elif programming_language(member.name):
                yield _entry(member, repository, revision, licence, repository, shard, config)
    else:
        name = PurePosixPath(shard.name).name
        yield from _files([(name, shard.path)], name, "file", licence, name, shard, config)


def _files(
    files: list[tuple[str, str]],
    repository: str,
    revision: str,
    licence: str | None,
    group: str,
    shard: InputShard,
    config: Code,
) -> Iterator[Entry]:
    """Entries of files on disk. Links that lead out of their folder were left out when the files were listed."""
    for path, file in files:
        if Path(file).is_symlink():
            yield Passed("link")
            continue
        # An OSError goes up: it is no property of the content that the shard's key stands for, and may pass.
        length = Path(file).stat().st_size
        content = Path(file).read_bytes() if length <= config.max_bytes else None
        yield _entry(Member(path, content, 0, length), repository, revision, licence, group, shard, config)


def _entry(
    member: Member,
    repository: str,
    revision: str,
    licence: str | None,
    group: str,
    shard: InputShard,
    config: Code,
) -> Entry:
    """One source file as the entry it becomes."""
    content, path = member.content, member.name
    blob = git_blob(content) if content is not None else ""
    identity = document_id(KIND, shard.name, f"{path}@{blob}")
    uri = f"{repository}@{revision}/{path}"

    def refused(reason: str, detail: str = "") -> Refused:
        where = (shard.name, member.offset, member.length)
        return Refused(identity, config.label, uri, reason, detail, "und", *where)

    if content is None:
        return refused("too_large", f"{member.length} bytes")
    if not content.strip():
        return refused("empty")
    try:
        text = decode(content)
    except UnicodeError as error:
        where = (member.offset, member.length)
        return Quarantined(config.label, shard.name, "encoding", f"{path}: {error}"[:200], *where)
    if text is None:
        return refused("binary")
    language = programming_language(path) or ""
    return Document(
        id=identity,
        text=text,
        source=config.label,
        uri=uri,
        licence=licence,
        archive=shard.name,
        offset=member.offset,
        length=member.length,
        attributes={
            "programming_language": language,
            "repository": repository,
            "revision": revision,
            "path": path,
            "blob": blob,
            "group": group,
        },
    )


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
        match = re.match(rb"(?:[^\n]*\n)?[ \t\f]*[#/*;%-]+[^\n]*?coding[:=][ \t]*([-\w.]+)", content)
        if match:
            try:
                return content.decode(match[1].decode("ascii"))
            except LookupError as error:
                raise UnicodeError(f"no encoding {match[1]!r}") from error
        raise


def _folder_files(folder: str) -> list[tuple[str, str]]:
    """(path below the folder, file) of every known source file, sorted; links to folders aren't followed."""
    out = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in FOLDERS_LEFT_OUT]
        for name in files:
            file = Path(parent, name)
            if programming_language(name):
                out.append((file.relative_to(folder).as_posix(), str(file)))
    return sorted(out)


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


def _repository(shard: InputShard) -> tuple[str, str]:
    """(repository, revision) of a folder: of git where it is a working tree, else its name and version."""
    name = PurePosixPath(shard.name).name or "folder"
    git = Path(shard.path, ".git")
    try:
        if git.is_file():  # a work tree of its own, or a submodule
            git = Path(shard.path, git.read_text().partition("gitdir:")[2].strip())
        head = (git / "HEAD").read_text().strip()
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").is_file() else git
        revision = head if not head.startswith("ref:") else _reference(git, common, head[4:].strip())
        config = (common / "config").read_text() if (common / "config").is_file() else ""
    except (OSError, UnicodeDecodeError):
        return name, shard.version[:12]
    remote = re.search(r'\[remote "origin"\][^\[]*?\burl\s*=\s*(\S+)', config)
    if remote:
        address = re.sub(r"^[a-z+]+://(?:[^@/]*@)?|^[^@/]*@|\.git/?$", "", remote[1]).replace(":", "/")
        # An address on this disk is a place, which must not enter: its last part is the repository's name.
        name = PurePosixPath(address).name if address.startswith(("/", ".", "file/")) else address
    return name, revision or shard.version[:12]


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


def _archive_name(shard: InputShard) -> tuple[str, str]:
    """(repository, revision) of an archive, by its name: `name-1.0-py3-none-any.whl`, `name-1.0.tar.gz`."""
    stem = re.sub(r"\.(?:zip|whl|tar(?:\.\w+)?|tgz|tbz2|txz)$", "", PurePosixPath(shard.name).name, flags=re.IGNORECASE)
    match = re.match(r"(.+?)-v?(\d[\w.+!]*)(?:-.*)?$", stem)
    return (match[1], match[2]) if match else (stem, "archive")


def _distributions() -> dict[str, metadata.Distribution]:
    """Installed distributions by `name@version`, sorted; where a name is found twice, the first on the path counts."""
    found: dict[str, metadata.Distribution] = {}
    names: set[str] = set()
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name and name not in names:
            names.add(name)
            found[f"{name}@{distribution.version}"] = distribution
    return dict(sorted(found.items()))


def _distribution_files(distribution: metadata.Distribution) -> list[tuple[str, str]]:
    """(path, file) of a distribution's source files as its RECORD lists them, those outside left out."""
    out = []
    for path in distribution.files or []:
        name = path.as_posix()
        if programming_language(name) and ".." not in path.parts and "__pycache__" not in path.parts:
            if path.parts[0].endswith((".dist-info", ".egg-info")):
                continue
            file = str(distribution.locate_file(path))
            if Path(file).is_file():
                out.append((name, file))
    return sorted(out)


def _stdlib_groups() -> list[list[tuple[str, str]]]:
    """The standard library's source files, grouped by top-level modules in the order of their names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    modules: dict[str, list[tuple[str, str]]] = {}
    for path, file in _stdlib_files(root):
        modules.setdefault(PurePosixPath(path).parts[0].removesuffix(".py"), []).append((path, file))
    names = sorted(modules)
    return [
        [entry for name in names[start : start + STDLIB_MODULES_A_SHARD] for entry in modules[name]]
        for start in range(0, len(names), STDLIB_MODULES_A_SHARD)
    ]


def _stdlib_files(root: Path) -> list[tuple[str, str]]:
    """Python files of the standard library itself; build configuration depends on machines and is left out."""
    out = []
    for parent, folders, files in os.walk(root, followlinks=False):
        top = Path(parent) == root
        folders[:] = [
            name
            for name in folders
            if name not in FOLDERS_LEFT_OUT | {"tests", "test", "idle_test"}
            and not (top and (name in STDLIB_LEFT_OUT or name.startswith(("config-", "lib-dynload"))))
        ]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata") and name != "sitecustomize.py":
                file = Path(parent, name)
                out.append((file.relative_to(root).as_posix(), str(file)))
    return sorted(out)
