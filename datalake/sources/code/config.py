"""The config of source code. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from datalake.identity import Paths
from datalake.sources.config import PATHS, SourceConfig

# SPDX identifiers of licences that allow use in works under any terms, given notice at most.
PERMISSIVE = """
0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause
BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CNRI-Python HPND ISC Libpng MIT MIT-0 MIT-CMU MS-PL MulanPSL-2.0 NCSA
OpenSSL PSF-2.0 PostgreSQL Python-2.0 Ruby UPL-1.0 Unicode-3.0 Unicode-DFS-2016 Unlicense Vim W3C WTFPL X11 ZPL-2.1 Zlib
bzip2-1.0.6 curl libtiff
""".split()  # noqa: SIM905 - a list of 40 literals reads worse


def _keep(title: str, description: str) -> Any:
    return Field(default="keep", title=title, description=f"{description} Marked in `marks`, and kept or refused.")


class Code(SourceConfig):
    """Source code: folders, git repositories, archives, rows of The Stack, `python:site-packages`, `python:stdlib`."""

    kind: Literal["code"] = "code"
    paths: Paths = PATHS
    max_bytes: int = Field(
        default=1_000_000,
        ge=100,
        le=100_000_000,
        title="Largest file",
        description="In bytes; larger files are refused.",
    )
    revision: str = Field(
        default="",
        title="Revision",
        description="Branch, tag or commit that repositories are read at, from their object database; empty: the files "
        "of a working tree as they lie, and HEAD of a bare repository.",
    )
    permissive_only: bool = Field(
        default=False,
        title="Permissive licences only",
        description="Refuse files whose licence isn't among `permissive`, or isn't known.",
    )
    permissive: list[str] = Field(
        default_factory=lambda: list(PERMISSIVE),
        title="Permissive licences",
        description="SPDX identifiers; of A OR B one is enough, of A AND B both are needed.",
    )
    generated: Literal["keep", "refuse"] = _keep("Generated files", "By name, or by a notice in the first lines.")
    vendored: Literal["keep", "refuse"] = _keep("Vendored files", "Other projects' files, by folder or name.")
    minified: Literal["keep", "refuse"] = _keep("Minified files", "Scripts and style sheets without line breaks.")
    tests: Literal["keep", "refuse"] = _keep("Tests", "By folder or name.")
    lock: Literal["keep", "refuse"] = _keep("Lock files", "Of package managers, by name.")
    data: Literal["keep", "refuse"] = _keep("Tables of numbers", "Long files of which 80% of the tokens are numbers.")
    secrets: Literal["redact", "keep", "refuse"] = Field(
        default="redact",
        title="Secrets",
        description="Tokens and keys: replaced by what they were, <SECRET:GITHUB_TOKEN>; kept; or the file refused.",
    )
    concatenate: Literal["none", "repository"] = Field(
        default="none",
        title="Join files",
        description="`repository`: the files of a repository as one text, each behind what it imports.",
    )
    joined_bytes: int = Field(
        default=1_000_000,
        ge=1_000,
        le=100_000_000,
        title="Largest joined text",
        description="In bytes; a repository with more gives several.",
    )
