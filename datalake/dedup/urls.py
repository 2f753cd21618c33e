"""Web addresses as the URL level compares them: near C4's normalisation (c4_utils.py), the host in lower case.

Scheme, `www.`, fragment, trailing slashes and parameters that only track (`utm_...`, `ref`, `feed`) are left out. C4
leaves out a whole query that begins with one of these letters, and so takes `?reference=1` and `?ref=x&id=2` for
versions of other pages; here such a parameter goes alone.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import xxhash

_WEB = re.compile(r"https?://(?:[^/?#@]*@)?(?:www\.)?([^/?#]*)([^?#]*)(\?[^#]*)?", re.IGNORECASE)
_TRACKING = re.compile(r"(?:utm_[^=]*|ref|feed)(?:=.*)?", re.IGNORECASE | re.DOTALL)


def normalise_url(uri: str) -> str | None:
    """The address under which versions of a page count as one; None for what is no web address."""
    found = _WEB.match(uri)
    if found is None or not found[1]:
        return None
    page = found[1].lower().rstrip(".") + found[2]
    query = "&".join(part for part in (found[3] or "?")[1:].split("&") if part and not _TRACKING.fullmatch(part))
    return f"{page}?{query}" if query else page.rstrip("/")


def url_hashes(uris: pa.Array) -> pa.Array:
    """xxh3_64 of each normalised address as int64, null where there is none."""
    found = [None if uri is None else normalise_url(uri) for uri in uris.to_pylist()]
    hashes = [0 if url is None else xxhash.xxh3_64_intdigest(url.encode("utf-8", "surrogatepass")) for url in found]
    return pa.array(np.array(hashes, np.uint64).view(np.int64), mask=np.array([url is None for url in found], np.bool_))
