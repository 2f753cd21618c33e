"""Pages of one file each, which load nothing and, by their policy, can't; own scripts and styles run by their hashes.

What a model or a person writes reaches a page as text nodes alone: under the policy no script can turn a text into
HTML. What pages share stands once, in files beside this one that a page names (`/* common.js */` on a line).
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CHAT = HERE / "page.html"
_SHARED = re.compile(r"^/\* (common\.(?:js|css)) \*/$", re.M)


@cache
def page(file: Path = CHAT) -> str:
    """The HTML of a page."""
    return _SHARED.sub(lambda name: (HERE / name[1]).read_text(encoding="utf-8"), file.read_text(encoding="utf-8"))


@cache
def headers(file: Path = CHAT) -> dict[str, str]:
    """What goes with it."""
    script, style = (_hash(re.findall(rf"<{tag}>(.*?)</{tag}>", page(file), re.S)) for tag in ("script", "style"))
    policy = (
        "default-src 'none'",
        f"script-src {script}",
        f"style-src {style}",
        "connect-src 'self'",
        "img-src data:",  # the icon, which is empty
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _hash(parts: list[str]) -> str:
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts)
