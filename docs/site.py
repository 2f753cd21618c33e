"""A hook of MkDocs: pages link to files of the repository as they do where it is read; the site takes those along."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]+)")
_SHOWN = (".py", ".yaml", ".yml", ".ipynb", ".toml")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links out of docs/ at copies under source/, and links to a folder of pages at its first one."""
    from mkdocs.structure.files import File

    def inside(match: re.Match[str]) -> str:
        here = posixpath.dirname(f"docs/{page.file.src_uri}")
        path = posixpath.normpath(posixpath.join(here, match[1]))
        if path.startswith("docs/"):
            return match[1]
        text = (ROOT / path).read_text(encoding="utf-8")
        target = f"source/{path}" if path.endswith(_SHOWN) else f"source/{path}.txt"
        if files.get_file_from_path(target) is None:
            files.append(File.generated(config, target, content=text))
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(inside, markdown)
