"""Servers for tests of remote files, in this process: an HTTP server of ranges with faults, and an S3 by moto."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What goes wrong with a request. `methods` it happens to; the rest says how, each alone or together."""

    status: int = 0  # this one instead of the file
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # so many bytes of the body, then the connection closes
    claim: int | None = None  # Content-Length says so much more (or less) than there is
    stall: float = 0  # seconds of silence in the middle of the body
    spoil: int | None = None  # a byte of the body that arrives as another one
    ignore_range: bool = False
    methods: tuple[str, ...] = ("GET",)


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    time: float


class RangeServer:
    """Serves `files` (path -> bytes) with entity tags. `once[path]` are faults, one a request; `always[path]` stays."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.once: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.listings = True
        self.validators = True
        self.delay = 0.0
        self.gather = 0  # no answer before so many requests were there at once
        self.asked: list[Asked] = []
        self.sent = 0  # bytes of bodies
        self.active = 0
        self.most = 0  # requests being answered at once
        self.lock = threading.Condition()
        server = self

        class Handler(_Handler):
            home = server

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def put(self, path: str, data: bytes) -> str:
        """Put a file there; its address. A file put again has another tag."""
        self.files[path] = data
        self.tags[path] = f'"{len(self.tags)}-{time.monotonic_ns():x}"'
        return self.url + path

    def put_folder(self, folder: Path, below: str = "") -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{below}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def requests(self, method: str = "", path: str = "") -> list[Asked]:
        return [one for one in self.asked if method in ("", one.method) and path in ("", one.path)]

    def fault(self, method: str, path: str) -> Fault:
        with self.lock:
            if (waiting := self.once[path]) and method in waiting[0].methods:
                return waiting.pop(0)
            always = self.always.get(path)
            return always if always and method in always.methods else Fault()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    home: RangeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        home = self.home
        with home.lock:
            home.active += 1
            home.most = max(home.most, home.active)
            home.lock.notify_all()
            home.lock.wait_for(lambda: home.most >= home.gather, timeout=60)
        try:
            if home.delay:
                time.sleep(home.delay)
            self._send()
        finally:
            with home.lock:
                home.active -= 1

    def _send(self) -> None:
        home, path = self.home, unquote(urlsplit(self.path).path)
        home.asked.append(Asked(self.command, path, {k.lower(): v for k, v in self.headers.items()}, time.monotonic()))
        fault = home.fault(self.command, path)
        if fault.status:
            return self._simple(fault.status, fault.headers)
        data = home.files.get(path)
        if data is None:
            return self._folder(path)
        headers = {"ETag": home.tags[path], "Accept-Ranges": "bytes"} if home.validators else {}
        headers |= fault.headers
        begin, end, status = 0, len(data), 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        current = self.headers.get("If-Range", headers.get("ETag")) == headers.get("ETag")
        if match and self.command == "GET" and not fault.ignore_range and current:
            begin, end = int(match[1]), min(len(data), int(match[2]) + 1 if match[2] else len(data))
            if begin >= len(data):
                return self._simple(416, headers | {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        body = data[begin:end]
        if fault.spoil is not None:
            body = body[: fault.spoil] + bytes([body[fault.spoil] ^ 1]) + body[fault.spoil + 1 :]
        self.send_response(status)
        headers["Content-Length"] = str(len(body) + (fault.claim or 0))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if fault.claim is not None or fault.cut is not None:
            self.close_connection = True
        if fault.cut is not None:
            body = body[: fault.cut]
        half = len(body) // 2 if fault.stall else len(body)
        try:
            self.wfile.write(body[:half])
            home.sent += half
            if fault.stall:
                self.wfile.flush()
                time.sleep(fault.stall)
                self.wfile.write(body[half:])
        except OSError:  # the client has gone
            self.close_connection = True
        return None

    def _simple(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _folder(self, path: str) -> None:
        below = (
            {name[len(path) :] for name in self.home.files if name.startswith(path)} if path.endswith("/") else set()
        )
        if not below:
            return self._simple(404, {})
        names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})
        page = "".join(f'<a href="{name}">{name}</a>' for name in ["../", *names]) if self.home.listings else "Hello"
        return self._simple(200, {"Content-Type": "text/html"}, page.encode())


class S3Server:
    """moto's S3 behind a door that can say SlowDown: `slow` requests are refused, and all while the file `marker` is
    there; with a `fault` (status, code, message) each of them is."""

    def __init__(self, marker: Path | None = None) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        inner: Callable[..., Any] = DomainDispatcherApplication(create_backend_app)
        self.slow = 0
        self.fault: tuple[str, str, str] | None = None
        self.spoil = False  # a byte of every body that is read arrives as another one
        self.refused = 0
        self.asked: list[tuple[str, str, str]] = []

        def door(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
            range_ = environ.get("HTTP_RANGE", "")
            self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], range_))
            fault = self.fault
            if self.slow or (marker and marker.exists()):
                self.slow -= bool(self.slow)
                self.refused += 1
                fault = ("503 Slow Down", "SlowDown", "Please reduce your request rate.")
            if fault:
                body = f"<Error><Code>{fault[1]}</Code><Message>{fault[2]}</Message></Error>".encode()
                start(fault[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]  # which has no body, whatever its length

            def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                # Objects put long ago have no checksum beside their tag.
                return start(status, [one for one in headers if "checksum" not in one[0].lower()], *more)

            body = b"".join(inner(environ, begin))
            if self.spoil and environ["REQUEST_METHOD"] == "GET" and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            return [body]

        self._http = make_server("127.0.0.1", 0, door, threaded=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1")


@contextmanager
def serving() -> Iterator[RangeServer]:
    server = RangeServer()
    try:
        yield server
    finally:
        server.close()
