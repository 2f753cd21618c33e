"""The configs of web pages: crawls, and Python's own documentation. Imports nothing heavier than pydantic."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.files import File
from datalake.identity import Paths, Place
from datalake.places import is_local
from datalake.sources.config import SourceConfig
from datalake.text.language_config import Language


class Where(BaseModel):
    """Which records of an index are picked: those for which every condition holds; an empty one always holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: list[str] = Field(default_factory=list, title="Hosts", description="Such as `www.example.org`.")
    domains: list[str] = Field(
        default_factory=list, title="Domains", description="Registered domains, such as `example.org`."
    )
    tlds: list[str] = Field(default_factory=list, title="Top-level domains", description="Such as `is`.")
    languages: list[Annotated[str, Field(pattern="^[a-z]{3}$")]] = Field(
        default_factory=list, title="Languages", description="A page's first, by ISO 639-3: `eng`, `zho`."
    )
    mime: list[str] = Field(
        default_factory=list, title="Media types", description="As detected, where the index says it; `text/html`."
    )
    status: list[int] = Field(default_factory=list, title="Statuses", description="Of HTTP, such as 200.")
    url: str = Field(default="", title="Address", description="A regular expression that must match within it.")
    subsets: list[str] = Field(
        default=["warc"],
        title="Subsets",
        description="Of the index: `warc`, `crawldiagnostics`, `robotstxt`.",
    )


TRAFILATURA_OPTIONS = "precision, no comments, no repeats"  # as datalake/extract/html/others.py calls it


class Extractor(BaseModel):
    """How the text of a page is found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["blocks", "resiliparse", "trafilatura"] = Field(
        default="blocks",
        title="Extractor",
        description="`blocks`: ours, boosted trees over text blocks; the others are those libraries (Trafilatura has "
        "to be installed).",
    )
    model: File = Field(
        default=File(),
        title="Model file",
        description="A model of main content, as benchmarks/train_main_content.py writes it; empty: ours.",
    )
    library: str = Field(
        default="",
        title="Library",
        description="Trafilatura's version and options; filled in where it is the extractor.",
    )

    @model_validator(mode="before")
    @classmethod
    def _version_of_library(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") == "trafilatura" and not values.get("library"):
            try:
                return {**values, "library": f"{version('trafilatura')}, {TRAFILATURA_OPTIONS}"}
            except PackageNotFoundError:
                raise ValueError("Trafilatura isn't installed: pip install trafilatura lxml_html_clean") from None
        return values


class CommonCrawl(SourceConfig):
    """Web pages from WARC archives, or their text from WET archives: whole archives, or records that an index picks."""

    kind: Literal["common_crawl"] = "common_crawl"
    paths: Paths = Field(
        default_factory=list,
        title="Paths",
        description="Archives, folders or globs, or lists of archives (`.paths`, `.paths.gz`, `.txt`).",
    )
    snapshots: Annotated[list[str], Place()] = Field(
        default_factory=list,
        title="Snapshots",
        description="Such as CC-MAIN-2024-22, a range CC-MAIN-2024-10.. or CC-MAIN-2023-06..CC-MAIN-2023-40, `newest`.",
    )
    archives: Annotated[Literal["warc", "wet", "wat"], Place()] = Field(
        default="warc", title="Archives", description="Which of a snapshot's archives are read."
    )
    index: Annotated[list[str], Place()] = Field(
        default_factory=list,
        title="Index",
        description="Files of a columnar index (Parquet), CDX or CDXJ: picks records instead of whole archives.",
    )
    where: Annotated[Where | None, Place()] = Field(
        default=None,
        title="Conditions",
        description="Which records to pick, from `index` or, without it, from the index of `snapshots`.",
    )
    limit: Annotated[int | None, Place()] = Field(
        default=None, ge=1, title="First", description="Only so many archives (of each list), or records of a snapshot."
    )
    sample: Annotated[int | None, Place()] = Field(
        default=None,
        ge=1,
        title="Sample",
        description="So many archives (of each list), or records of a snapshot.",
    )
    seed: Annotated[int, Place()] = Field(default=0, title="Seed", description="Another one draws another sample.")
    shard_records: Annotated[int, Place()] = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        title="Records a shard",
        description="About so many picked records, of several archives where these have few, are one unit of work.",
    )
    base: Annotated[str, Place()] = Field(
        default="https://data.commoncrawl.org/",
        title="Base",
        description="Where the archives that a list or an index names lie: an address or a folder.",
    )
    collinfo: Annotated[str, Place()] = Field(
        default="https://index.commoncrawl.org/collinfo.json",
        title="Snapshots there are",
        description="Common Crawl's list, an address or a file; asked for ranges and `newest`.",
    )
    main_content: bool = Field(
        default=True,
        title="Main content only",
        description="Leave out navigation, headers and footers; pages left empty by that give all their text.",
    )
    extractor: Extractor = Field(default=Extractor(), title="Extraction")
    max_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest page",
        description="In bytes, encoded or decoded; larger records are refused.",
    )
    language: Language = Field(default=Language(), title="Language identification")

    @model_validator(mode="after")
    def _something_to_read(self) -> CommonCrawl:
        if not (self.paths or self.snapshots or self.index):
            raise ValueError("nothing to read: give `paths`, `snapshots` or `index`")
        if self.paths and (self.index or self.where is not None):
            raise ValueError("`paths` names whole archives: leave it out where `index` or `where` picks records")
        if self.where is not None and not (self.index or self.snapshots):
            raise ValueError("`where` needs an index: give `index` or `snapshots`")
        if self.limit and self.sample:
            raise ValueError("`limit` takes the first and `sample` draws: choose one")
        return self


# Modules of Python's standard library with pages worth reading whose import opens no window, browser or connection.
# Left out: `this` and `antigravity` (jokes with effects), tests, IDLE, Tk, `lib2to3`, private names.
PYDOC_MODULES = """
abc argparse array ast asyncio asyncio.queues asyncio.subprocess atexit base64 bdb binascii bisect builtins bz2
calendar cmath cmd code codecs codeop collections collections.abc colorsys compileall concurrent.futures configparser
contextlib contextvars copy copyreg csv ctypes ctypes.util dataclasses datetime dbm decimal difflib dis doctest email
email.charset email.header email.message email.parser email.policy email.utils encodings.idna enum errno faulthandler
filecmp fileinput fnmatch fractions ftplib functools gc getopt getpass gettext glob graphlib gzip hashlib heapq hmac
html html.entities html.parser http http.client http.cookiejar http.cookies http.server imaplib importlib
importlib.abc importlib.machinery importlib.metadata importlib.resources importlib.util inspect io ipaddress itertools
json json.decoder json.encoder keyword linecache locale logging logging.config logging.handlers lzma mailbox marshal
math mimetypes mmap modulefinder multiprocessing multiprocessing.shared_memory netrc ntpath numbers opcode operator
optparse os pathlib pdb pickle pickletools pkgutil platform plistlib poplib posixpath pprint profile pstats py_compile
pyclbr pydoc queue quopri random re reprlib rlcompleter runpy sched secrets select selectors shelve shlex shutil
signal smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sys sysconfig
tabnanny tarfile tempfile textwrap threading time timeit token tokenize tomllib trace traceback tracemalloc types
typing unicodedata unittest unittest.case unittest.mock urllib.error urllib.parse urllib.request urllib.response
urllib.robotparser uuid venv warnings wave weakref webbrowser wsgiref.headers wsgiref.simple_server wsgiref.util
xml.dom xml.dom.minidom xml.etree.ElementTree xml.sax xml.sax.handler xml.sax.saxutils xmlrpc.client xmlrpc.server
zipapp zipfile zipimport zlib zoneinfo
""".split()  # noqa: SIM905 - a list of 200 literals reads worse


class Pydoc(SourceConfig):
    """The pages of Python's own documentation server, fetched from a server of our own on the loopback device."""

    kind: Literal["pydoc"] = "pydoc"
    modules: list[str] = Field(
        default_factory=lambda: list(PYDOC_MODULES),
        min_length=1,
        title="Modules",
        description="Importable names; a module that this Python can't import is refused.",
    )
    group: int = Field(default=25, ge=1, le=1_000, title="Modules a shard")
    folder: Annotated[str, Place()] = Field(
        default="", title="Folder", description="Where the fetched WARC archives are kept; empty: nowhere."
    )
    main_content: bool = Field(default=False, title="Main content only")
    extractor: Extractor = Field(default=Extractor(), title="Extraction")
    max_bytes: int = Field(
        default=10_000_000, ge=1_000, le=1_000_000_000, title="Largest page", description="In bytes."
    )
    language: Language = Field(default=Language(), title="Language identification")

    def at_home(self, lake: Path) -> Self:
        """The source with a folder for its archives; of a lake in a store none is kept."""
        if self.folder or not is_local(lake):
            return self
        return self.model_copy(update={"folder": str(lake / "archives" / "pydoc")})
