"""Asking for and reading remote files, patiently: retries with jittered backoff, ranges, resumption, checks.

HTTP goes through urllib3, since much depends on statuses and headers (RFC 9110: ETag, Range, If-Range, Content-Range,
Retry-After); every other protocol goes through fsspec (`s3://` through s3fs). Redirects are followed, those of public
addresses not to private ones (`inside`); credentials in an address go to its own host alone and are never shown.

What can't be had raises OSError: FileNotFoundError and PermissionError at once, `UnreachableError` when patience ends,
`ChangedError` when a file isn't the one that was listed, `DamagedError` when its bytes fail a check.
"""

from __future__ import annotations

import base64
import email.utils
import errno
import hashlib
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import tenacity
import urllib3

from datalake.errors import UserError, note
from datalake.remote import inside
from datalake.remote.address import HTTP, checksum, host, scheme, shown
from datalake.remote.config import RemoteConfig
from datalake.remote.limits import Limits

PIECE = 1 << 20
REDIRECTS = 5
PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_MD5 = re.compile(r"[0-9a-f]{32}")
T = TypeVar("T")


class RemoteError(OSError):
    """A remote file that can't be read now. The message names its address without credentials."""


class UnreachableError(RemoteError):
    """Patience has ended."""


class ChangedError(RemoteError):
    """The file isn't the one that was listed."""


class DamagedError(RemoteError):
    """The bytes aren't those that the server, or the user, says they are."""


class _PassingError(Exception):
    """Something that may pass: the request is made again."""


class RangeIgnoredError(Exception):
    """The server answers a request for a range with the whole file."""


@dataclass(frozen=True)
class Facts:
    """What a server says of a file: bytes (-1 unknown), entity tag as sent, time of change, MD5 in hex where known."""

    size: int
    etag: str = ""
    modified: str = ""
    md5: str = ""

    @property
    def version(self) -> str:
        """The content version: entity tag and size, or time and size; empty where the server says neither."""
        tag = self.etag.replace('"', "") or self.modified
        return f"{tag} {self.size}" if tag else ""


class Client:
    """Reads remote files within the limits. One a process; safe to use from threads.

    `counts` holds what was done: `requests`, `retries`, `bytes`.
    """

    def __init__(self, config: RemoteConfig, limits: Limits):
        self.config = config
        self.counts: Counter[str] = Counter()
        self._limits = limits
        self._lock = threading.Lock()
        self.known: dict[str, Facts | UnreachableError] = {}  # what listings and questions told, until `forget`
        self._pools: dict[tuple[str, bool], urllib3.PoolManager] = {}
        self._stores: dict[str, Any] = {}

    # What there is -----------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Ask anew for what `known` holds."""
        self.known.clear()

    def facts(self, address: str) -> Facts:
        """What the server says of a file, asked now."""
        address, _ = checksum(address)
        try:
            if scheme(address) in HTTP:
                found = self._http_facts(address)
            else:
                found = self._patiently(address, lambda: self._store_facts(address))
        except UnreachableError as error:
            self.known[address] = error
            raise
        self.known[address] = found
        return found

    def _http_facts(self, address: str) -> Facts:

        def ask() -> Facts:
            with self._response("HEAD", address) as response:
                found = _facts(response)
            if response.status in (404, 410):
                _expect(response, address, 200)
            if response.status != 200 or found.size < 0 or not found.version:
                # Not every server, and no signature for GET, allows HEAD.
                with self._response("GET", address, {"Range": "bytes=0-0"}) as response:
                    _expect(response, address, 200, 206, 416)
                    found = _facts(response)
            return found

        return self._patiently(address, ask)

    def is_folder(self, address: str) -> bool:
        """Whether an address of a store (no HTTP) is a folder or prefix, and no file: a store may have both under one
        name, where an empty object stands for the folder."""
        store, path = self._store(address)

        def ask() -> bool:
            return bool(store.isdir(path)) and not (store.isfile(path) and store.size(path))

        return bool(self._patiently(address, lambda: self._guarded(address, ask)))

    def listing(self, address: str) -> list[tuple[str, bool]]:
        """What lies directly below a folder: (address, whether it is a folder), in order.

        Over HTTP that is what a page of links names; raises UserError where the server shows no such page. Of a store,
        an object with an empty part in its name (`a//b`, `a/`), which no listing of folders reaches, is told in a note.
        """
        if scheme(address) in HTTP:
            return self._links(address)
        store, path = self._store(address)

        unnamed = False

        def ask() -> list[tuple[str, bool]]:
            nonlocal unnamed
            names = []
            for one in self._guarded(address, lambda: store.ls(path, detail=True)):
                if one["name"].strip("/") == str(path).strip("/"):
                    below = one["type"] == "directory" and one["name"].endswith("/")
                    unnamed |= bool(below or one["size"])  # an empty object of the folder's name only marks the folder
                    continue
                name, folder = f"{scheme(address)}://{one['name'].strip('/')}", one["type"] == "directory"
                names.append((name, folder))
                if not folder:
                    self.known[name] = _facts_of_info(one)
            return sorted(names)

        found = self._patiently(address, ask)
        if unnamed:
            place = f"{shown(address).rstrip('/')}/"
            note(f"{place}: an object with an empty part in its name ({place}/x or {place}) isn't read: rename it")
        return found

    def _links(self, address: str) -> list[tuple[str, bool]]:
        content = self.whole(address.rstrip("/") + "/")
        base = urlunsplit((*urlsplit(address)[:2], urlsplit(address).path.rstrip("/") + "/", "", ""))
        found = set()
        for link in re.findall(rb"""<a\s[^<>]*?href\s*+=\s*["']([^"'#?]+)["']""", content, re.IGNORECASE):
            target = urljoin(base, link.decode("utf-8", "replace"))
            rest = target.removeprefix(base)
            if target.startswith(base) and rest.strip("/") and "/" not in rest.rstrip("/"):
                found.add((base + rest.rstrip("/"), rest.endswith("/")))
        if not found:
            raise UserError(f"{shown(address)} shows no list of its files: name each file, or give a list of paths")
        query = urlsplit(address).query
        return sorted((f"{name}?{query}" if query else name, folder) for name, folder in found)

    # Reading -----------------------------------------------------------------------------------------------------

    def whole(self, address: str) -> bytes:
        """All bytes of a small file."""
        address, _ = checksum(address)
        if scheme(address) not in HTTP:
            facts = self.facts(address)
            return self.range(address, 0, facts.size)[0]

        def ask() -> bytes:
            with self._response("GET", address) as response:
                _expect(response, address, 200)
                return b"".join(self._pieces(response))

        return self._patiently(address, ask)

    def range(self, address: str, offset: int, length: int) -> tuple[bytes, str]:
        """Bytes of a file and the version of it that they belong to; fewer than `length` where the file ends before.

        Raises RangeIgnoredError where the server sends the whole file instead, before that is read.
        """
        address, _ = checksum(address)
        if length <= 0:
            return b"", ""
        parts: list[bytes] = []
        seen: list[str] = []

        def have() -> int:
            return sum(map(len, parts))

        def belongs(facts: Facts) -> None:
            if not seen:
                seen.append(facts.version)
            elif seen[0] != facts.version:
                raise ChangedError(f"{shown(address)} changed while it was read: {seen[0]!r}, then {facts.version!r}")

        def ask() -> bytes:
            begin, end = offset + have(), offset + length
            if scheme(address) not in HTTP:
                facts = self._store_facts(address)
                belongs(facts)
                end = min(end, facts.size)
                for piece in self._store_pieces(address, begin, end):
                    parts.append(piece)
            else:
                with self._response("GET", address, {"Range": f"bytes={begin}-{end - 1}"}) as response:
                    _expect(response, address, 200, 206, 416)
                    facts = _facts(response)
                    # The whole is an answer where it is what was asked for.
                    if response.status == 200 and (begin or not 0 <= facts.size <= length):
                        raise RangeIgnoredError
                    if response.status == 416:
                        if not parts:
                            return b""
                        raise _PassingError(f"has no bytes from {begin} on, and had")
                    belongs(facts)
                    if response.status == 206:
                        first, last = _content_range(response, address)
                        if first != begin or last >= end:
                            raise _PassingError(f"asked for bytes {begin}-{end - 1}, it sent {first}-{last}")
                        end = last + 1
                    elif facts.size >= 0:
                        end = min(end, facts.size)
                    for piece in self._pieces(response):
                        parts.append(piece)
            got = b"".join(parts)
            if offset + len(got) > end:
                parts.clear()
                raise _PassingError(f"sent {len(got)} bytes where {end - offset} were to come")
            if offset + len(got) < end:
                raise _PassingError(f"ends after {len(got)} of {end - offset} bytes")
            return got

        return self._patiently(address, ask, have), seen[0] if seen else ""

    def download(self, address: str, facts: Facts, part: Path) -> bool:
        """The whole file into `part`, going on where that ends; checked against all that is known of its content.

        Returns whether its entity tag was seen to be its MD5.
        """
        address, wanted = checksum(address)
        with part.open("ab") as file:

            def ask() -> str:
                resume = self._resume if scheme(address) in HTTP else self._resume_store
                stated = resume(address, facts, file)
                file.flush()
                return stated

            md5 = self._patiently(address, ask, file.tell) or facts.md5
        if not md5 and scheme(address) == "s3" and _MD5.fullmatch(facts.etag.strip('"')):
            md5 = facts.etag.strip('"')
        problem = ""
        seen = _digest(part, "md5") if md5 else "none"
        if wanted and _digest(part, "sha256") != wanted:
            problem = f"its sha256 is not {wanted}"
        elif md5 and seen != md5 and not self._encrypted(address):
            problem = f"its MD5 is not {md5}, as the server says"
        elif not (wanted or md5) and facts.size >= 0 and self._goes_on(address, facts):
            problem = f"the server says {facts.size} bytes and has more"
        if problem:
            part.unlink(missing_ok=True)
            raise DamagedError(f"{shown(address)}: {problem}")
        return seen == facts.etag.strip('"')

    def _resume(self, address: str, facts: Facts, file: BinaryIO) -> str:
        """One request for what is missing of a file; the MD5 that its answer states, empty where it states none."""
        done, headers = file.tell(), {}
        if done and done == facts.size:
            return ""
        if done:
            headers["Range"] = f"bytes={done}-"
            if facts.etag and not facts.etag.startswith("W/"):
                headers["If-Range"] = facts.etag
        with self._response("GET", address, headers) as response:
            _expect(response, address, 200, 206, 416)
            now = _facts(response)
            if response.status == 416:
                file.truncate(0)
                raise _PassingError(f"has no bytes from {done} on")
            if now.etag != facts.etag or (not facts.etag and now.modified != facts.modified):
                raise ChangedError(
                    f"{shown(address)} changed after it was listed: it was {facts.version!r} and is {now.version!r}"
                )
            skip = done
            if response.status == 206:
                if _content_range(response, address)[0] != done:
                    raise _PassingError("sent another range than the one asked for")
                skip = 0
            if facts.size >= 0 and now.size not in (-1, facts.size):
                raise _PassingError(f"said {facts.size} bytes when listed, says {now.size} now")
            size = facts.size if facts.size >= 0 else now.size
            for piece in self._pieces(response):
                fresh = piece[skip:]
                skip = max(0, skip - len(piece))
                file.write(fresh)
            if size >= 0 and file.tell() > size:
                extra = file.tell()
                file.truncate(0)
                raise _PassingError(f"sent {extra} bytes where {size} were to come")
            if size >= 0 and file.tell() < size:
                raise _PassingError(f"ends after {file.tell()} of {size} bytes")
            return now.md5

    def _resume_store(self, address: str, facts: Facts, file: BinaryIO) -> str:
        for piece in self._store_pieces(address, file.tell(), facts.size):
            file.write(piece)
        now = self._store_facts(address)
        if now.version != facts.version:
            file.truncate(0)
            raise ChangedError(
                f"{shown(address)} changed after it was listed: it was {facts.version!r} and is {now.version!r}"
            )
        if file.tell() != facts.size:
            raise _PassingError(f"ends after {file.tell()} of {facts.size} bytes")
        return ""

    def _goes_on(self, address: str, facts: Facts) -> bool:
        """Whether there are bytes behind the stated end: a server that says too small a length is found by asking."""
        if scheme(address) not in HTTP:
            return False

        def ask() -> bool:
            with self._response("GET", address, {"Range": f"bytes={facts.size}-{facts.size}"}) as response:
                return response.status == 206

        return self._patiently(address, ask)

    def _encrypted(self, address: str) -> bool:
        """Whether an S3 object is encrypted with a key of its own, so that its entity tag is no MD5."""
        if scheme(address) != "s3":
            return False
        store, path = self._store(address)
        bucket, key, _ = store.split_path(path)
        head = self._patiently(
            address, lambda: self._guarded(address, lambda: store.call_s3("head_object", Bucket=bucket, Key=key))
        )
        return "kms" in str(head.get("ServerSideEncryption", "")) or bool(head.get("SSECustomerAlgorithm"))

    # Patience ----------------------------------------------------------------------------------------------------

    def _patiently(self, address: str, act: Callable[[], T], moved: Callable[[], int] = lambda: 0) -> T:
        """`act`, again and again while what fails may pass; failures after which `moved` is larger don't count."""
        fruitless, last = 0, moved()

        def ended(_: tenacity.RetryCallState) -> bool:
            return fruitless > self.config.retries

        def wait(_: tenacity.RetryCallState) -> float:
            drawn = random.uniform(0, self.config.backoff_seconds * 2 ** min(30, max(0, fruitless - 1)))
            return min(drawn, self.config.longest_wait_seconds)

        def once() -> T:
            nonlocal fruitless, last
            try:
                return act()
            except _PassingError:
                fruitless = 0 if moved() > last else fruitless + 1
                last = max(last, moved())
                raise

        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_PassingError),
                stop=ended,
                wait=wait,
                before_sleep=lambda _: self._count("retries"),
                reraise=True,
            )(once)
        except _PassingError as error:
            tries = f"after {fruitless} tries" if fruitless > 1 else "at the first try"
            raise UnreachableError(f"{shown(address)} can't be read, {tries}: {error}") from None

    def _count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self.counts[name] += amount

    # HTTP --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _response(
        self, method: str, address: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The response to a request, its body unread; holds a connection until it is left.

        Raises _PassingError for what may pass, here and while the body is read.
        """
        url, given = address, urlsplit(address)
        named_inside = True  # whether the recipe named a host that isn't public
        for step in range(REDIRECTS + 1):
            parts = urlsplit(url)
            trusted = named_inside or (parts.hostname or "") in self.config.private_hosts
            if not trusted and inside.is_inside(parts.hostname or ""):
                raise RemoteError(
                    f"{shown(address)} leads to {shown(url)}, on a private network, which isn't followed: name that "
                    "address, or its host in `runtime.remote.private_hosts`"
                )
            sent = {"Accept-Encoding": "identity", "User-Agent": "headwater", **(headers or {})}
            if given.username and host(url) == host(address):
                secret = f"{unquote(given.username)}:{unquote(given.password or '')}"
                sent["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
            bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))
            with self._limits.connection(host(url)):
                self._count("requests")
                try:
                    response = self._pool(bare, trusted).request(
                        method,
                        bare,
                        headers=sent,
                        preload_content=False,
                        decode_content=False,
                        redirect=False,
                        retries=False,
                        timeout=urllib3.Timeout(connect=self.config.connect_seconds, read=self.config.stall_seconds),
                    )
                    if step == 0:
                        reached = inside.peer(response) if not self._proxy(bare) else ""
                        named_inside = (
                            not inside.is_public(reached) if reached else inside.is_inside(parts.hostname or "")
                        )
                    try:
                        if method == "HEAD" or response.status not in (200, 206):
                            response.drain_conn()  # so that the connection serves again
                        target = response.headers.get("location")
                        if response.status in (301, 302, 303, 307, 308) and target:
                            url = urljoin(bare, target)
                            if scheme(url) not in HTTP:
                                raise RemoteError(f"{shown(address)} leads to {shown(url)}, which isn't followed")
                            continue
                        if response.status in PASSING:
                            after = _retry_after(response.headers.get("retry-after", ""))
                            if after:  # for this request and every other
                                self._limits.hold(host(url), after)
                            raise _PassingError(f"status {response.status}")
                        yield response
                        return
                    finally:
                        response.close()  # a connection that was read to its end is back in the pool by now
                except urllib3.exceptions.SSLError as error:
                    raise RemoteError(f"{shown(address)}: {_reason(error)}") from None
                except urllib3.exceptions.LocationValueError:
                    raise RemoteError(f"{shown(address)} is no address") from None
                except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
                    raise _PassingError(_reason(error)) from None
        raise RemoteError(f"{shown(address)} leads from one address to another without end")

    def _pieces(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        while piece := response.read(PIECE):
            self._count("bytes", len(piece))
            yield piece

    def _proxy(self, url: str) -> str:
        parts = urlsplit(url)
        proxy = self.config.proxy
        if not proxy and not urllib.request.proxy_bypass(parts.netloc):
            proxies = urllib.request.getproxies()
            proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        return proxy

    def _pool(self, url: str, trusted: bool) -> urllib3.PoolManager:
        """The connections for an address, by way of a proxy or not, and to public addresses alone or not."""
        proxy = self._proxy(url)
        with self._lock:
            if (proxy, trusted) not in self._pools:
                most = self.config.connections_per_host
                if proxy:
                    at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
                    login = f"{unquote(at.username)}:{unquote(at.password or '')}" if at.username else None
                    pool: urllib3.PoolManager = urllib3.ProxyManager(
                        urlunsplit((at.scheme, at.netloc.rpartition("@")[2], "", "", "")),
                        num_pools=64,
                        proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None,
                        maxsize=most,
                    )
                else:
                    pool = urllib3.PoolManager(num_pools=64, maxsize=most)
                    pool.pool_classes_by_scheme = inside.POOLS[trusted]
                self._pools[proxy, trusted] = pool
            return self._pools[proxy, trusted]

    # Other stores ------------------------------------------------------------------------------------------------

    def _store(self, address: str) -> tuple[Any, str]:
        """fsspec's file system for an address and the path in it."""
        import fsspec

        protocol = scheme(address)
        with self._lock:
            if protocol not in self._stores:
                options: dict[str, Any] = dict(self.config.storage.get(protocol, {}))
                if protocol in ("s3", "s3a"):
                    more: dict[str, Any] = {
                        "connect_timeout": self.config.connect_seconds,
                        "read_timeout": self.config.stall_seconds,
                        "max_pool_connections": self.config.connections_per_host,
                        "retries": {"total_max_attempts": 1},  # here they are counted
                    }
                    if self.config.proxy:
                        more["proxies"] = {"http": self.config.proxy, "https": self.config.proxy}
                    options["config_kwargs"] = more
                try:
                    store = fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **options)
                except (ValueError, ImportError) as error:
                    raise UserError(
                        f"{shown(address)}: {error}; use http, https, s3 or a protocol that is installed"
                    ) from None
                if protocol in ("s3", "s3a"):
                    store.retries = 1
                self._stores[protocol] = store
            store = self._stores[protocol]
        return store, store._strip_protocol(address)

    def _guarded(self, address: str, act: Callable[[], T]) -> T:
        """One request to a store; raises _PassingError for what may pass."""
        with self._limits.connection(host(address)):
            self._count("requests")
            try:
                return act()
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, f"there is no {shown(address)}") from None
            except PermissionError as error:
                raise PermissionError(errno.EACCES, f"no access to {shown(address)} ({_reason(error)})") from None
            except (IsADirectoryError, NotADirectoryError):
                raise
            except Exception as error:
                name = type(error).__name__
                if "Credentials" in name or "ProfileNotFound" in name:
                    detail = f"no access to {shown(address)} ({_reason(error)})"
                    raise PermissionError(errno.EACCES, detail) from None
                if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _TRANSPORTS:
                    raise _PassingError(_reason(error)) from None
                raise

    def _store_facts(self, address: str) -> Facts:
        store, path = self._store(address)
        found = self._guarded(address, lambda: store.info(path))
        if found["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, f"{shown(address)} is a folder")
        return _facts_of_info(found)

    def _store_pieces(self, address: str, begin: int, end: int) -> Iterator[bytes]:
        store, path = self._store(address)
        while begin < end:
            stop = min(end, begin + 8 * PIECE)
            at = begin
            piece = self._guarded(address, lambda at=at, stop=stop: store.cat_file(path, start=at, end=stop))  # type: ignore[misc]
            self._count("bytes", len(piece))
            if not piece:
                return
            yield piece
            begin += len(piece)


_TRANSPORTS = ("botocore", "aiobotocore", "aiohttp", "asyncio", "urllib3", "requests", "httpx")


def _expect(response: urllib3.BaseHTTPResponse, address: str, *statuses: int) -> None:
    """Raises what a status means when it isn't one of those that were expected."""
    status = response.status
    if status in statuses:
        return
    if status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, f"there is no {shown(address)} (status {status})")
    if status in (401, 403, 407):
        raise PermissionError(errno.EACCES, f"no access to {shown(address)} (status {status})")
    raise RemoteError(f"{shown(address)}: status {status}")


def _facts(response: urllib3.BaseHTTPResponse) -> Facts:
    """What a response's header says of the whole file."""
    headers = response.headers
    size = -1
    if response.status in (206, 416):
        _, _, total = headers.get("content-range", "").rpartition("/")
        size = int(total) if total.isdigit() else -1
    elif (length := headers.get("content-length", "")).isdigit():
        size = int(length)
    etag = headers.get("etag", "")
    md5 = ""
    # S3 says of itself who it is, also behind a CDN; the tag of an object put in one part is its MD5.
    by_s3 = headers.get("server", "") == "AmazonS3" or "x-amz-request-id" in headers
    if by_s3 and "kms" not in headers.get("x-amz-server-side-encryption", "") and _MD5.fullmatch(etag.strip('"')):
        md5 = etag.strip('"')
    elif response.status == 200 and headers.get("content-md5"):
        md5 = _hex(headers["content-md5"])
    return Facts(size, etag, headers.get("last-modified", ""), md5)


def _facts_of_info(info: Mapping[str, Any]) -> Facts:
    """What fsspec says of a file; the names of its keys differ by store."""
    changed = next((info[name] for name in ("LastModified", "mtime", "updated", "created") if info.get(name)), "")
    if isinstance(changed, datetime):  # one store tells a file's time in one way and a listing's in another
        changed = changed.timestamp()
    size = info.get("size")
    return Facts(-1 if size is None else int(size), str(info.get("ETag") or info.get("etag") or ""), str(changed))


def _content_range(response: urllib3.BaseHTTPResponse, address: str) -> tuple[int, int]:
    """First and last byte that a response of status 206 holds."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(?:\d+|\*)", response.headers.get("content-range", "").strip())
    if match is None:
        raise RemoteError(f"{shown(address)} sends a range without saying which")
    return int(match[1]), int(match[2])


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After field: a number or a date."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _reason(error: BaseException) -> str:
    """What went wrong, in a line without addresses."""
    while isinstance(error, urllib3.exceptions.MaxRetryError | urllib3.exceptions.ProxyError) and error.args:
        inner = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error.original_error
        if inner is None:
            break
        error = inner
    text = " ".join(re.sub(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]++://\S+", "...", str(error)).split())
    return f"{type(error).__name__}: {text}"[:200]


def _hex(content_md5: str) -> str:
    """Content-MD5 (base64, RFC 1864) in hex; empty where it is none."""
    try:
        digest = base64.b64decode(content_md5, validate=True)
    except ValueError:
        return ""
    return digest.hex() if len(digest) == 16 else ""


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
