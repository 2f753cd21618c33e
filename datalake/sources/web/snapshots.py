"""Common Crawl's snapshots and the lists it publishes: which snapshots there are, which archives they have.

    collinfo.json                                   the snapshots, newest first
    crawl-data/SNAPSHOT/{warc,wet,wat}.paths.gz     a snapshot's archives, one a line
    crawl-data/SNAPSHOT/cc-index-table.paths.gz     the files of its columnar index

A list's entries are relative to a base; an archive's name is its entry. A list that is cut or damaged is an error,
since a part of it would be taken for all of it.
"""

from __future__ import annotations

import gzip
import hashlib
import heapq
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import xxhash

from datalake.errors import UserError
from datalake.paths import expand
from datalake.remote.address import checksum, is_remote, joined, local, shown
from datalake.remote.client import RangeIgnoredError, RemoteError
from datalake.remote.session import current
from datalake.sources.web.config import CommonCrawl

_SNAPSHOT = re.compile(r"CC-MAIN-\d{4}(-\d{2,4})?")
_LIST = re.compile(r"\.paths(\.gz)?$|\.txt$")
_ARCHIVE = re.compile(r"\.(warc|wet|wat|arc)(\.[a-z0-9]+)?$", re.IGNORECASE)


def snapshot_of(archive: str) -> str:
    """The snapshot that an archive's name tells, empty where it tells none."""
    match = _SNAPSHOT.search(archive)
    return match[0] if match else ""


def content(path: str) -> bytes:
    """The bytes of a small file, local or remote. Raises UserError where it can't be had."""
    try:
        if not is_remote(path):
            return Path(local(path)).expanduser().read_bytes()
        data, wanted = current().client.whole(path), checksum(path)[1]
        if wanted and hashlib.sha256(data).hexdigest() != wanted:
            raise UserError(f"the sha256 of {shown(path)} is not {wanted}")
        return data
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no {shown(path)}: correct the path") from None
    except RemoteError as error:
        raise UserError(f"{error}: run again later, or correct the path") from None
    except OSError as error:
        raise UserError(f"{shown(path)} can't be read ({error.strerror}): correct the path") from None


def resolve(wanted: Sequence[str], collinfo: str) -> list[str]:
    """The snapshots that names, ranges (`A..B`, `A..`, `..B`) and `newest` stand for, oldest first, each once.

    Raises UserError for one that isn't there. The list of snapshots is asked for when a range or `newest` needs it.
    """
    known: list[str] = []  # oldest first
    found: list[str] = []
    for text in wanted:
        first, dots, last = text.partition("..")
        if not dots and text != "newest":
            if not _SNAPSHOT.fullmatch(text):
                raise UserError(f"{text!r} is no snapshot: write CC-MAIN-2024-22, CC-MAIN-2024-10.. or newest")
            found.append(text)
            continue
        known = known or _published(collinfo)
        if text == "newest":
            found.append(known[-1])
            continue
        for end in (first, last):
            if end and end not in known:
                raise UserError(f"there is no snapshot {end!r} in {shown(collinfo)}: its newest is {known[-1]}")
        begin = known.index(first) if first else 0
        beyond = known.index(last) + 1 if last else len(known)
        if begin >= beyond:
            raise UserError(f"{text!r} is empty: the later snapshot comes second")
        found.extend(known[begin:beyond])
    return sorted(dict.fromkeys(found))


def _published(collinfo: str) -> list[str]:
    """The snapshots in `collinfo.json`, oldest first."""
    data = content(collinfo)
    try:
        names = [str(one["id"]) for one in json.loads(data)]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{shown(collinfo)} is no list of snapshots: correct `collinfo`") from None
    if not names:
        raise UserError(f"{shown(collinfo)} names no snapshot")
    return names[::-1]


def entries(path: str) -> list[str]:
    """The entries of a list, in order. Raises UserError where it is damaged or empty."""
    data = content(path)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{shown(path)} is damaged ({error}): fetch it again") from None
    try:
        found = [line.strip() for line in data.decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)} is no list of paths") from None
    found = [line for line in found if line]
    if not found:
        raise UserError(f"{shown(path)} is an empty list")
    for entry in found:
        if is_remote(entry) or entry.startswith("/") or ".." in entry.split("/"):
            raise UserError(f"{shown(path)}: the entry {shown(entry)!r} doesn't lie below `base`: correct the list")
    return list(dict.fromkeys(found))


def is_list(path: str) -> bool:
    """Whether a path's ending says a list of archives; a `.txt` file is one when its first line names an archive."""
    ending = _LIST.search(shown(path))
    if not ending or ending[0] != ".txt":
        return bool(ending)
    try:
        if is_remote(path):
            head = current().client.range(path, 0, 4_096)[0]
        else:
            with Path(local(path)).expanduser().open("rb") as stream:
                head = stream.read(4_096)
    except (OSError, RangeIgnoredError):  # told where it is read
        return False
    first = head.lstrip().partition(b"\n")[0].strip()
    return bool(_ARCHIVE.search(first.decode("utf-8", "replace")))


def part(names: list[str], limit: int | None, sample: int | None, seed: int) -> list[str]:
    """The first of a list, or a sample that stays the same when the list grows but for what the new ones displace."""
    if sample:

        def rank(name: str) -> tuple[bytes, str]:
            return xxhash.xxh3_128_digest(f"{seed} {name}".encode()), name

        drawn = set(heapq.nsmallest(sample, names, key=rank))
        return [name for name in names if name in drawn]
    return names[:limit]


def whole_archives(config: CommonCrawl) -> dict[str, str]:
    """Name and place of every whole archive that paths, lists and snapshots of a source name.

    A list is taken for one where it is named itself; in a folder or behind a glob it is a file like others.
    """
    lists = [path for path in config.paths if is_list(path)]
    plain = [path for path in config.paths if path not in lists]
    places = dict(expand(plain)) if plain else {}
    found = {name: places[name] for name in part(list(places), config.limit, config.sample, config.seed)}
    for snapshot in resolve(config.snapshots, config.collinfo):
        lists.append(joined(config.base, f"crawl-data/{snapshot}/{config.archives}.paths.gz"))
    for path in lists:
        for name in part(entries(path), config.limit, config.sample, config.seed):
            place = joined(config.base, name)
            if found.setdefault(name, place) != place:
                raise UserError(f"{shown(found[name])} and {shown(place)} would both be called {name!r}")
    return found


def index_files(config: CommonCrawl) -> list[tuple[str, str]]:
    """(name, place) of the files of the columnar index of a source's snapshots, for the subsets wanted."""
    assert config.where is not None
    found = []
    for snapshot in resolve(config.snapshots, config.collinfo):
        for name in entries(joined(config.base, f"crawl-data/{snapshot}/cc-index-table.paths.gz")):
            subset = re.search(r"/subset=([^/]+)/", name)
            if subset is None or subset[1] in config.where.subsets:
                found.append((name, joined(config.base, name)))
    if not found:
        raise UserError(f"no index of {', '.join(config.snapshots)} has the subsets {', '.join(config.where.subsets)}")
    return found
