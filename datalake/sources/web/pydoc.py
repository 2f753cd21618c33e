"""Web pages that are on every machine with Python: those of its own documentation server (`pydoc`).

An archive is a group of modules. Reading one starts the server in a process of its own on the loopback device, fetches
the pages over HTTP, writes them as a WARC archive and reads that as any other archive is read.

Equal input gives equal bytes: addresses are `pydoc:/module`, the date is fixed, and what depends on the process, the
machine or the user (memory addresses, folders, the operating system's name) is replaced. `pydoc` prints the values of
public data, `os.environ` among them, so the server runs with an environment that holds nothing of the user's.
"""

from __future__ import annotations

import hashlib
import html
import http.client
import io
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from fastwarc.stream_io import GzipWriter
from fastwarc.warc import WarcRecord, WarcRecordType

from datalake.archive import Archive
from datalake.atomic import whole_file
from datalake.document import Entry
from datalake.sources.web.common_crawl import read_archive
from datalake.sources.web.config import Pydoc

SCHEME = 1  # raise when the archive's content changes: pages written, what is replaced, order
DATE = datetime(2000, 1, 1, tzinfo=UTC)  # of every page: fetching has no date that could be repeated
START_SECONDS = 120
PAGE_SECONDS = 120
# All that the server's process knows of its surroundings.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "COLUMNS": "80",
    "HOME": "/",
    "PATH": "/usr/bin",
}

_ADDRESS = re.compile(r"(\b(?:at|handle)(?:\s|&nbsp;)+)(?:0x)?[0-9a-fA-F]{8,}")
_SYSTEM = re.compile(r"(<div style='float:left'>\s*)Python [^<]*<br>[^<]*?(?=\s*</div>)")
# Values that tell of the process and not of the module: cut from the page whatever they hold.
_VOLATILE = re.compile(
    r"(<strong>(?:environb?|modules|argv|orig_argv|path|path_importer_cache|path_hooks|meta_path|executable|flags)"
    r"</strong> = )[^\n]*?(?=<br>|</td>|\n)"
)
_ERROR = re.compile(r"<title>Pydoc: Error\b", re.IGNORECASE)


def archives(config: Pydoc) -> list[Archive]:
    """One for each group of modules in their sorted order, known by its number and versioned by its content."""
    return [
        Archive(config.kind, name, str(Path(config.folder, name)) if config.folder else "", _version(group))
        for name, group in _groups(config)
    ]


def read(archive: Archive, config: Pydoc) -> Iterator[Entry]:
    """One entry for each module of the archive; a module that can't be imported is refused by its status.

    The file is kept where `archive.path` says, or nowhere when that is empty. Raises RuntimeError when the server
    can't be started or doesn't answer: that says nothing about the pages, so the archive is to be tried again.
    """
    modules = next((group for name, group in _groups(config) if name == archive.name), None)
    if modules is None:
        raise ValueError(f"there is no pydoc archive {archive.name!r} among {len(config.modules)} modules")
    with tempfile.TemporaryDirectory(prefix="pydoc-") as scratch:
        path = Path(archive.path) if archive.path else Path(scratch, archive.name)
        write_archive(path, modules)
        yield from read_archive(replace(archive, path=str(path)), config, _group)


def write_archive(path: Path, modules: list[str]) -> None:
    """Fetches the pages of modules and writes them as one WARC archive, complete or not at all."""
    with whole_file(path) as file:
        _write(file, "warcinfo", "", b"software: Headwater\r\nformat: WARC File Format 1.1\r\n")
        with _server() as port:
            pages = [_fetch(port, module) for module in modules]
        for module, page in zip(modules, pages, strict=True):
            if _ERROR.search(page):
                # Showing one module can leave another unimportable (`os.path` does): ask a server of its own.
                with _server() as port:
                    page = _fetch(port, module)
            _write(file, "response", f"pydoc:/{module}", _message(page))


def _groups(config: Pydoc) -> Iterator[tuple[str, list[str]]]:
    """(archive name, modules) of each group."""
    modules = sorted(set(config.modules))
    for number, begin in enumerate(range(0, len(modules), config.group)):
        yield f"pydoc-{number:05d}.warc.gz", modules[begin : begin + config.group]


def _version(modules: list[str]) -> str:
    """The version of a group's pages: what they are asked for, of which Python, written how."""
    # sys.version names release, build and compiler; fastwarc's version stands for its deflate.
    parts = [str(SCHEME), sys.version, sys.platform, version("fastwarc"), *modules]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _group(uri: str) -> str:
    """`os` of `pydoc:/os.path`: a module's whole package is held out together."""
    return uri.removeprefix("pydoc:/").partition(".")[0]


@contextmanager
def _server() -> Iterator[int]:
    """A running documentation server; gives its port. The process ends with the block, whatever happens.

    It also ends when this process is killed: the server stops at the end of its standard input.
    """
    python = getattr(sys, "_base_executable", None) or sys.executable  # not the virtual environment's packages
    process = subprocess.Popen(
        [python, "-u", "-S", "-s", "-P", "-W", "ignore", "-m", "pydoc", "-n", "127.0.0.1", "-p", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
    )
    try:
        yield _port(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _port(process: subprocess.Popen[bytes]) -> int:
    """The port that the server says it listens on."""
    assert process.stdout is not None
    said = b""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.5)[0]:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            said += piece
            if match := re.search(rb"http://127\.0\.0\.1:(\d+)/", said):
                return int(match[1])
    raise RuntimeError(f"the documentation server of {sys.executable} doesn't start: {said[-200:]!r}")


def _fetch(port: int, module: str) -> str:
    """The page of one module, with what depends on process and machine replaced."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PAGE_SECONDS)
    try:
        connection.request("GET", f"/{quote(module)}.html")
        body = connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(f"the documentation server doesn't answer for {module}: {error}") from error
    finally:
        connection.close()
    return _settle(body.decode("utf-8", "replace"))


def _settle(page: str) -> str:
    """The page as it would be on any machine, in any process."""
    page = _VOLATILE.sub(r"\1...", _ADDRESS.sub(r"\g<1>0x0", page))
    page = _SYSTEM.sub(lambda match: f"{match[1]}Python {sys.version_info[0]}.{sys.version_info[1]}", page)
    library = str(Path(os.__file__).parent)
    for text in sorted({library, quote(library), html.escape(library)}, key=len, reverse=True):
        page = page.replace(text, "/python/lib")
    for prefix in sorted({sys.base_prefix, sys.base_exec_prefix}, key=len, reverse=True):
        page = re.sub(f"(?<=['\"]){re.escape(prefix)}(?=['\"/])", "/python", page)
    return page


def _message(page: str) -> bytes:
    """The HTTP response that stands in the archive. `pydoc` answers 200 to everything; its errors become 404."""
    status = "404 Not Found" if _ERROR.search(page) else "200 OK"
    body = page.encode()
    header = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return header.encode() + body


def _write(file: io.BufferedWriter, kind: str, uri: str, block: bytes) -> None:
    """One record, in a gzip member of its own."""
    record = WarcRecord()
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{uri}#{hashlib.sha256(block).hexdigest()}")
    record.init_headers(getattr(WarcRecordType, kind), f"uuid:{name}".encode())
    record.record_date = DATE
    if uri:
        record.headers["WARC-Target-URI"] = uri
        record.headers["Content-Type"] = "application/http; msgtype=response"
    else:
        record.headers["Content-Type"] = "application/warc-fields"
    record.set_bytes_content(block)
    member = io.BytesIO()
    writer = GzipWriter(member)
    record.write(writer)
    writer.finish()
    file.write(member.getvalue())
