"""The chat page: one file, which loads nothing and, by its policy, can't; its own script and style run by their hashes.

What a model writes reaches the page as text nodes alone: under the policy no script can turn a text into HTML.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")


@cache
def page() -> str:
    """The page's HTML."""
    return _FILE.read_text(encoding="utf-8")


@cache
def headers() -> dict[str, str]:
    """What goes with it."""
    script, style = (_hash(re.findall(rf"<{tag}>(.*?)</{tag}>", page(), re.S)) for tag in ("script", "style"))
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
