"""Lists that a user gives: addresses that are blocked (UT1's form), and reading files of one entry a line.

An entry is a domain, which blocks it and what is below it (`bad.example` blocks `shop.bad.example`, not
`notbad.example`), or an address with a path, which blocks that and what is below it. Hosts are compared in lower case
and IDNA (UTS 46), without `www.`, port, user and final dots; paths without escapes, case, doubled and final slashes.
Scheme and fragment don't count.

Lists are held as sorted 64-bit hashes, ten bytes an entry: with ten million entries, an address that is on no list is
taken for one on a list with a probability of some 10^-11.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import threading
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import xxhash

from datalake.curate.checks.lists_config import BLOCK, BLOCK_LISTS, PACKED, BlockConfig
from datalake.errors import UserError
from datalake.files import Listing
from datalake.identity import canonical
from datalake.text.automaton import Automaton

_OPENERS: dict[str, Any] = dict(zip(PACKED, (gzip.open, bz2.open, lzma.open), strict=True))
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//([^/?#\\]*)([^#]*)", re.IGNORECASE | re.DOTALL)
_PORT = re.compile(r":\d*\Z")
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_HOST = 1_000  # characters; the DNS allows 253, what IDNA makes of more may be shorter
_LEVELS = 64  # of a domain, and of a path, that are looked at


def lines_of_file(path: str, section: str) -> Iterator[str]:
    """The entries of a list, a line each, stripped; blank ones left out. Raises UserError where it can't be read."""
    try:
        with _OPENERS.get(Path(path).suffix, open)(path, "rb") as stream:
            for number, line in enumerate(stream):
                text = line.decode("utf-8", "replace").strip()
                if number == 0:
                    text = text.lstrip("\ufeff")
                if text:
                    yield text
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{section}: {path} can't be read ({error}): correct the path or the file") from None


def words_of_file(path: str, section: str) -> list[str]:
    """The words of a list, a word or phrase a line, in lower case and composed (NFC) as repaired texts are.

    Lines that are `#` alone or begin with `# ` are comments.

    Raises:
        UserError: where the file can't be read, isn't UTF-8 (its words would be looked for in vain) or has no word.
    """
    lines = [line for line in lines_of_file(path, section) if line != "#" and not line.startswith("# ")]
    if any("\ufffd" in line or "\0" in line for line in lines):
        raise UserError(f"{section}: {path} isn't UTF-8: save it in this encoding")
    if not lines:
        raise UserError(f"{section}: {path} has no word: give one a line")
    return [unicodedata.normalize("NFC", line.lower()) for line in lines]


def host_of(text: str) -> str:
    """A host as lists are compared: lower case, IDNA, without `www.` and final dots; empty where it is none."""
    host = text.rstrip(".").lower()
    if len(host) > _LONGEST_HOST:
        return ""
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            return ""
    host = host.removeprefix("www.") if host.count(".") > 1 else host
    return host if _HOST.fullmatch(host) or (host.startswith("[") and host.endswith("]")) else ""


def split_address(address: str) -> tuple[str, str]:
    """(host, the rest from the first slash on) of an address as lists are compared; empty where it is none."""
    match = _ADDRESS.match(address.strip().strip("<>"))
    if match is None:
        return "", ""
    host = host_of(_PORT.sub("", match[1].rpartition("@")[2]))
    path, mark, query = unquote(match[2], errors="replace").lower().partition("?")
    path = re.sub("/+", "/", path.strip()).rstrip("/")
    return host, f"{path}?{query.strip()}" if mark and query.strip() else path


def entry_key(line: str) -> str:
    """What a line of a list is held as: a host, or a host and what follows; empty where it is no entry."""
    if _HOST.fullmatch(line) and line[:4] != "www.":
        return line
    if line.startswith("#"):
        return ""
    line = line.removeprefix("*").lstrip(".")
    host, rest = split_address(line if _ADDRESS.match(line) else f"//{line}")
    return f"{host}{rest}" if host else ""


def address_keys(host: str, rest: str) -> Iterator[str]:
    """Every entry that would block an address, the closest first: paths from the longest on, then domains."""
    path, mark, _ = rest.partition("?")
    if mark:
        yield f"{host}{rest}"
    for _ in range(_LEVELS):
        if not path:
            break
        yield f"{host}{path}"
        path = path.rpartition("/")[0]
    yield host
    if host.startswith("[") or host.replace(".", "").isdigit():
        return  # an IP address has no domains above it
    for _ in range(_LEVELS):
        host = host.partition(".")[2]
        if not host:
            break
        yield host


class Blocked(NamedTuple):
    """How many entries block an address, and the closest one with its list, `adult/domains: bad.example`."""

    entries: int
    by: str | None


class ListCounts(NamedTuple):
    """A list's name, its entries, and lines that are none."""

    list: str
    entries: int
    ignored: int


class BlockLists:
    """The lists of a recipe, ready to be asked about addresses."""

    def __init__(self, lists: Listing, words: Listing, subwords: Listing, soft_words: Listing):
        """Reads all files. Raises UserError where one can't be read or has no entry."""
        self.names = [name for name, _ in lists]
        self.counts: list[ListCounts] = []
        hashes, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.uint16)]
        if len(lists) > 0xFFFF:
            raise UserError(f"{BLOCK}.paths: {len(lists)} lists are more than the {0xFFFF} that can be told apart")
        for number, (name, path) in enumerate(lists):
            ignored = [0]
            found = np.fromiter(_hashes(path, ignored), np.uint64)
            self._count(name, path, len(found), ignored[0])
            hashes.append(found)
            numbers.append(np.full(len(found), number, np.uint16))
        together = np.concatenate(hashes)
        order = np.argsort(together, kind="stable")  # of equal entries the first list has it
        together = together[order]
        fresh = np.ones(len(together), np.bool_)
        fresh[1:] = together[1:] != together[:-1]
        self._hashes: npt.NDArray[np.uint64] = together[fresh]
        self._lists: npt.NDArray[np.uint16] = np.concatenate(numbers)[order][fresh]
        self._words = self._read_words(words)
        self._parts = self._read_words(subwords, joined=True)
        self._soft = self._read_words(soft_words)
        self._automaton = Automaton(list(self._parts))

    def _count(self, name: str, path: str, entries: int, ignored: int) -> None:
        if not entries:
            raise UserError(f"{BLOCK}: {path} has no entry: give one domain, address or word a line")
        self.counts.append(ListCounts(name, entries, ignored))

    def _read_words(self, files: Listing, joined: bool = False) -> dict[str, str]:
        """Word to the name of its list; `joined`: without separators, as addresses are looked through for parts."""
        out: dict[str, str] = {}
        for name, path in files:
            found = words_of_file(path, BLOCK)
            if joined:
                found = [part for word in found if (part := _SEPARATORS.sub("", word))]
            self._count(name, path, len(found), 0)
            for word in found:
                out.setdefault(word, name)
        return out

    def find(self, uri: str) -> Blocked:
        """The entries that block an address. What is no address with a scheme and a host is never blocked."""
        if "://" not in uri:
            return Blocked(0, None)
        host, rest = split_address(uri)
        if not host:
            return Blocked(0, None)
        found: list[str] = []
        if len(self._hashes):
            keys = list(address_keys(host, rest))
            hashed = np.array([_hash(key) for key in keys], np.uint64)
            places = np.minimum(np.searchsorted(self._hashes, hashed), len(self._hashes) - 1)
            hits = np.flatnonzero(self._hashes[places] == hashed).tolist()
            found += [f"{self.names[self._lists[places[k]]]}: {keys[k]}" for k in hits]
        whole = f"{host}{rest}"
        if self._words or self._soft:
            words = dict.fromkeys(_SEPARATORS.split(whole))
            found += [f"{self._words[word]}: {word}" for word in words if word in self._words]
            soft = [f"{self._soft[word]}: {word}" for word in words if word in self._soft]
            found += soft if len(soft) > 1 else []
        if self._parts:
            hit = self._automaton.look(_SEPARATORS.sub("", whole), bounded=False)
            if hit.distinct:
                part = self._automaton.words[hit.first]
                found += [f"{self._parts[part]}: {part}"] * hit.distinct
        return Blocked(len(found), found[0] if found else None)


def _hash(key: str) -> int:
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


def _hashes(path: str, ignored: list[int]) -> Iterator[int]:
    for line in lines_of_file(path, BLOCK):
        if key := entry_key(line):
            yield _hash(key)
        else:
            ignored[0] += 1


_lock = threading.Lock()
_held: dict[bytes, BlockLists] = {}


def block_lists_of(config: BlockConfig) -> BlockLists:
    """The lists of a config, read once in a process.

    Raises:
        UserError: where a list can't be read, or the files are not those the config was made with.
    """
    key = canonical(config)
    with _lock:
        if key not in _held:
            lists = [getattr(config, name) for name in BLOCK_LISTS]
            for name, found in zip(BLOCK_LISTS, lists, strict=True):
                found.check(f"{BLOCK}.{name}")
            _held.clear()  # one at a time: it may be large
            _held[key] = BlockLists(*(found.listed() for found in lists))
        return _held[key]
