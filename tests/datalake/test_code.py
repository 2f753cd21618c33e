"""Source code from folders, archives and Python itself: one entry a file, nothing followed or written outside."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.errors import UserError
from datalake.sources.code import files as code
from datalake.sources.code.config import Code
from datalake.sources.code.files import SITE_PACKAGES, STDLIB, archives, decode, git_blob, read
from datalake.sources.languages import programming_language
from datalake.sources.licences.package_files import python_statement

FILES = {
    "a.py": b"print('a')\n",
    "lib/b.rs": b"fn main() {}\n",
    "empty.py": b"\n",
    "binary.c": b"int x;\0\0\0",
    "big.js": b"x" * 2000,
    "latin.py": b"# coding: latin-1\ns = '\xe9'\n",
    "bad.py": b"s = '\xe9'\n",
    "picture.png": b"\x89PNG",
    "Makefile": b"all:\n\techo\n",
}
EXPECTED = {
    "a.py": "Document", "lib/b.rs": "Document", "latin.py": "Document", "Makefile": "Document",
    "empty.py": "empty", "binary.c": "binary", "big.js": "too_large", "bad.py": "Document",
    "picture.png": "language",
}  # fmt: skip


def folder(tmp_path: Path, name: str = "project") -> Path:
    root = tmp_path / name
    for path, content in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def entries(path: Path | str) -> list[Entry]:
    config = Code(paths=[str(path)], max_bytes=1000, licence="MIT")
    return [entry for shard in archives(config) for entry in read(shard, config)]


def outcome(found: list[Entry]) -> dict[str, str]:
    out = {}
    for entry in found:
        if isinstance(entry, Quarantined):
            out[entry.detail.split(":")[0]] = entry.reason
        elif isinstance(entry, Document | Refused):
            out[entry.uri.partition("/")[2]] = "Document" if isinstance(entry, Document) else entry.reason
    return out


def zipped(tmp_path: Path) -> Path:
    path = tmp_path / "project-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path


def tarred(tmp_path: Path) -> Path:
    path = tmp_path / "project-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [folder, zipped, tarred])
def test_every_file_gives_one_entry(tmp_path: Path, make: object) -> None:
    assert outcome(entries(make(tmp_path))) == EXPECTED  # type: ignore[operator]


def test_a_document_names_repository_path_blob_and_language(tmp_path: Path) -> None:
    (document,) = (entry for entry in entries(zipped(tmp_path)) if isinstance(entry, Document) and "b.rs" in entry.uri)
    assert document.uri == "project@1.0/lib/b.rs"
    assert document.licence == "MIT"
    assert document.language == "und"
    assert document.attributes["programming_language"] == "rust"
    assert document.attributes["blob"] == git_blob(FILES["lib/b.rs"])


def test_moving_a_folder_changes_nothing_and_changing_a_file_changes_the_version(tmp_path: Path) -> None:
    first = folder(tmp_path)
    config = Code(paths=[str(first)])
    before, (shard,) = entries(first), archives(config)
    second = tmp_path / "elsewhere" / "project"
    shutil.copytree(first, second)
    assert entries(second) == before
    assert archives(Code(paths=[str(second)]))[0].version == shard.version
    (first / "a.py").write_text("print('b')\n")
    assert archives(config)[0].version != shard.version


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_a_working_tree_is_known_by_its_remote_and_commit(tmp_path: Path) -> None:
    root = folder(tmp_path)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://example.org/team/tool.git"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    blob = subprocess.run([*git, "rev-parse", "HEAD:a.py"], check=True, capture_output=True, text=True).stdout.strip()
    (document,) = (entry for entry in entries(root) if isinstance(entry, Document) and entry.uri.endswith("/a.py"))
    assert document.uri == f"example.org/team/tool@{commit}/a.py"
    assert document.attributes["blob"] == blob
    (before,) = archives(Code(paths=[str(root)]))
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "two"], check=True)
    (after,) = archives(Code(paths=[str(root)]))
    assert after.version != before.version  # the same files, but every uri names another commit


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.py").write_text("x = 1\n")
    root = tmp_path / "project"
    root.mkdir()
    (root / "file.py").symlink_to(tmp_path / "secret" / "s.py")
    (root / "folder").symlink_to(tmp_path / "secret")
    assert entries(root) == [Passed("link"), Passed("link")]


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py", "C:\\evil.py", "..\\evil.py"])
def test_names_that_leave_the_archive_are_quarantined_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / "x.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x = 1\n")
        archive.writestr("good.py", "y = 1\n")
    found = entries(path)
    assert [type(entry).__name__ for entry in found] == ["Quarantined", "Document"]
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_damaged_archive_is_quarantined_never_raised(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert any(isinstance(entry, Quarantined) for entry in entries(path))


def test_the_standard_library_is_there_without_its_tests() -> None:
    config = Code(paths=[STDLIB])
    found = archives(config)
    assert found == archives(config)
    documents = [entry for shard in found[:4] for entry in read(shard, config) if isinstance(entry, Document)]
    paths = {document.attributes["path"] for document in documents}
    assert "argparse.py" in paths
    assert {document.licence for document in documents} == {"Python-2.0"}
    assert {d.attributes["group"] for d in documents if d.attributes["path"].startswith("asyncio/")} == {"asyncio"}
    assert not any(part in ("test", "tests", "idlelib") for path in paths for part in path.split("/"))


def test_an_installed_package_has_the_licence_of_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    every = code.distributions()
    name = next(name for name in every if name.startswith("mwparserfromhell@"))
    monkeypatch.setattr(code, "distributions", lambda: {name: every[name]})
    config = Code(paths=[SITE_PACKAGES])
    (shard,) = archives(config)
    documents = [entry for entry in read(shard, config) if isinstance(entry, Document)]
    assert {document.licence for document in documents} == {"MIT"}
    assert {document.attributes["group"] for document in documents} == {"mwparserfromhell"}


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "expected"),
    [
        ("Apache-2.0 OR MIT", None, [], "Apache-2.0 OR MIT"),
        (None, "The MIT License (MIT)\n\nCopyright", [], "MIT"),
        (None, "Dual License", ["License :: OSI Approved :: BSD License"], None),
        (None, "Proprietary", ["License :: OSI Approved :: MIT License"], None),
        (None, "Apache", ["License :: OSI Approved :: Apache Software License"], "Apache-2.0"),
        (None, "UNKNOWN", ["License :: OSI Approved :: MIT License"], "MIT"),
        (None, None, ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: Apache Software License"],
         "Apache-2.0 OR MIT"),
        (None, None, [], None),
    ],
)  # fmt: skip
def test_licences_are_mapped_or_none(
    expression: str | None, text: str | None, classifiers: list[str], expected: str
) -> None:
    metadata = Message()
    for name, value in (
        ("License-Expression", expression),
        ("License", text),
        *(("Classifier", c) for c in classifiers),
    ):
        if value:
            metadata[name] = value
    said = python_statement(metadata)
    assert (said.expression if said else None) == expected


def test_encodings_are_declared_or_utf8() -> None:
    assert decode(FILES["latin.py"]) == ("# coding: latin-1\ns = 'é'\n", "windows-1252")
    assert decode("x = 'é'".encode("utf-16")) == ("x = 'é'", "utf-16le")
    assert decode(b"# coding: nonsense-9\n# caf\xe9 fran\xe7ais\n") == (
        "# coding: nonsense-9\n# café français\n",
        "windows-1252",
    )
    assert programming_language("a/b.unknown") is None


def test_what_is_no_source_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    for path in (tmp_path / "picture.png", tmp_path / "none", "python:nonsense"):
        with pytest.raises(UserError):
            archives(Code(paths=[str(path)]))
