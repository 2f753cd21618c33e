"""Addresses of remote files: which paths are remote, how they are joined, named, and shown without credentials.

An address may end in `#sha256=HEX`, the checksum its content must have.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from datalake.secrets import is_signature

_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# User and password, host (a name or an address in brackets), port.
_AUTHORITY = re.compile(r"(?:.*@)?(?:\[[0-9a-fA-F:.]*\]|[^:@\[\]]*)(?::\d*)?")
_CHECKSUM = re.compile(r"#sha256=([0-9a-fA-F]{64})$")
HTTP = ("http", "https")


def is_remote(path: str) -> bool:
    """Whether a path is an address that isn't on this machine; `file://` is."""
    return bool(_REMOTE.match(path)) and not path.lower().startswith("file://")


def local(path: str) -> str:
    """The path of a `file://` address; other paths as they are."""
    return unquote(urlsplit(path).path) if path.lower().startswith("file://") else path


def scheme(address: str) -> str:
    """`https` of `https://example.com/x`."""
    return address.partition("://")[0].lower()


def checksum(address: str) -> tuple[str, str]:
    """The address without the checksum it names, and the checksum (empty where it names none)."""
    match = _CHECKSUM.search(address)
    return (address[: match.start()], match[1].lower()) if match else (address, "")


def shown(address: str) -> str:
    """The address as errors and logs show it: no user, no query, no fragment."""
    if not _REMOTE.match(address):
        return address
    address = without_user(address)
    if scheme(address) not in HTTP:  # of other stores only the host part may hold a secret; `?` may be in a name
        return address
    return re.split(r"[?#]", address, maxsplit=1)[0]


def without_user(address: str) -> str:
    """An address without the user and password before its host."""
    head, _, rest = address.partition("://")
    before, slash, path = rest.partition("/")
    if _AUTHORITY.fullmatch(before):
        return f"{head}://{before.rpartition('@')[2]}{slash}{path}"
    return f"{head}://{re.split(r'[?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"  # a password with a slash in it


def lasting(address: str) -> str:
    """The address as far as it names the same file tomorrow: without user and signature."""
    address, _ = checksum(address)
    if scheme(address) not in HTTP:
        return shown(address)
    parts = urlsplit(without_user(address))
    kept = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not is_signature(k)]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(kept), ""))


def host(address: str) -> str:
    """What limits go by: the host, or the bucket's store for protocols without one."""
    if scheme(address) in HTTP:
        parts = urlsplit(address)
        return parts.netloc.rpartition("@")[2].lower()
    return f"{scheme(address)}://"


def base_name(address: str) -> str:
    """The last part of an address's path, decoded: what a file is called."""
    address, _ = checksum(address)
    if scheme(address) in HTTP:
        return unquote(urlsplit(address).path.rstrip("/").rpartition("/")[2]).replace("/", "_") or "index"
    return address.rstrip("/").rpartition("/")[2]


def joined(base: str, name: str) -> str:
    """The place of a name below a base, an address or a local folder. A query of the base (a signature) is kept."""
    if not is_remote(base):
        return local(base).rstrip("/") + "/" + name
    if scheme(base) not in HTTP:
        return base.rstrip("/") + "/" + name
    parts = urlsplit(base)
    path = parts.path.rstrip("/") + "/" + quote(name, safe="/:@!$&'()*+,;=~%")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
