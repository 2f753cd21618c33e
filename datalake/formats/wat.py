"""The text of a WAT record: what Common Crawl kept of a page's structure, its title, description and links' texts.

A WAT record is a `metadata` record of JSON with an `Envelope`, which describes a record of a WARC archive.
"""

from __future__ import annotations

import json
from typing import Any


def envelope(block: bytes) -> dict[str, Any] | None:
    """The JSON of a block that describes a record, None where it is none."""
    try:
        found = json.loads(block)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("Envelope"), dict) else None


def record_type(found: dict[str, Any]) -> str:
    """The WARC-Type of the record that an envelope describes, lower case."""
    return _text(_at(found, "Envelope", "WARC-Header-Metadata", "WARC-Type")).lower()


def document(found: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Title, description and the texts of links, a line each, and where the page lies: its archive and offset."""
    response = _at(found, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata")
    html = _at(response, "HTML-Metadata")
    title = _text(_at(html, "Head", "Title"))
    lines = [title]
    metas = _at(html, "Head", "Metas")
    for meta in metas if isinstance(metas, list) else []:
        if _text(_at(meta, "name")).lower() == "description":
            lines.append(_text(_at(meta, "content")))
    links = _at(html, "Links")
    links = links if isinstance(links, list) else []
    lines += [_text(_at(link, "text")) for link in links]
    attributes = {
        "media_type": "application/json",
        "status": _text(_at(response, "Response-Message", "Status")),
        "title": title,
        "container": _text(_at(found, "Container", "Filename")),
        "container_offset": _text(_at(found, "Container", "Offset")),
        "links": str(len(links)),
    }
    return "\n".join(line for line in lines if line), attributes


def _at(value: Any, *names: str) -> Any:
    """What lies under these names, None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    """A string or number as one line."""
    return " ".join(str(value).split()) if isinstance(value, str | int) else ""
