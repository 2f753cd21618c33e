"""Records picked by an index: which they are, how they are grouped, and their bytes fetched by range.

Indexes are Common Crawl's columnar one (Parquet; https://commoncrawl.org/columnar-index), CDX (eleven fields, or those
of its header), CDXJ, and zipnum blocks of these. DuckDB picks the records for which the conditions hold. Of remote
Parquet only the columns wanted are read, of the row groups whose statistics don't rule the conditions out; CDX files
are fetched whole.

What is picked is read as the archive would be: same names, offsets and ids. Each picked record gives one entry, and one
whose bytes are no record, are short or are another record's gives a fault.
"""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pyarrow as pa
import xxhash

from datalake.archive import Archive, Span
from datalake.errors import UserError
from datalake.files import file_digest
from datalake.formats import warc
from datalake.identity import fingerprint
from datalake.paths import expand
from datalake.remote.address import checksum, is_remote, joined, lasting, shown
from datalake.remote.client import ChangedError, RangeIgnoredError, RemoteError
from datalake.remote.session import Session, current
from datalake.sources.web.config import CommonCrawl, Where
from datalake.sources.web.snapshots import index_files, resolve, snapshot_of

# The columnar index's columns that conditions look at, beside those that say where a record is.
_PLACE = ("warc_filename", "warc_record_offset", "warc_record_length")
_CONDITIONS = {
    "hosts": "list_contains($hosts, lower(url_host_name))",
    "domains": "list_contains($domains, lower(url_host_registered_domain))",
    "tlds": "list_contains($tlds, lower(url_host_tld))",
    "languages": "list_contains($languages, split_part(content_languages, ',', 1))",
    "mime": "list_contains($mime, lower(coalesce(nullif(content_mime_detected, ''), content_mime_type)))",
    "status": "list_contains($status, CAST(fetch_status AS BIGINT))",
    "url": "regexp_matches(url, $url)",
}
_COLUMNS = {
    "hosts": ("url_host_name",),
    "domains": ("url_host_registered_domain",),
    "tlds": ("url_host_tld",),
    "languages": ("content_languages",),
    "mime": ("content_mime_detected", "content_mime_type"),
    "status": ("fetch_status",),
    "url": ("url",),
}
# A CDX file knows no registered domains: a host belongs to a domain when it ends in it.
_CDX_DOMAINS = """list_contains($domains, lower(url_host_name)) OR
    len(list_filter($domains, lambda name: ends_with(lower(url_host_name), '.' || name))) > 0"""
_LETTERS = {"a": "url", "m": "mime", "s": "status", "k": "digest", "S": "length", "V": "offset", "g": "filename"}
_ELEVEN = ["N", "b", "a", "m", "s", "k", "r", "M", "S", "V", "g"]
_CDX_LINE = re.compile(rb"\S+ \d{14} ")
_CDX = pa.schema(
    [
        ("url", pa.string()),
        ("url_host_name", pa.string()),
        ("url_host_tld", pa.string()),
        ("fetch_status", pa.int64()),
        ("content_digest", pa.string()),
        ("content_mime_type", pa.string()),
        ("content_mime_detected", pa.string()),
        ("content_languages", pa.string()),
        ("warc_filename", pa.string()),
        ("warc_record_offset", pa.int64()),
        ("warc_record_length", pa.int64()),
    ]
)
_LINES = 20_000  # of a CDX file that are looked at together
_FILES = 4  # of an index that are looked at together


@dataclass
class Picked:
    """What a selection found: spans in the order of archive and offset; rows looked at; bytes read of the index."""

    spans: list[Span]
    rows: int
    bytes_read: int
    bytes: int


def archives(config: CommonCrawl) -> list[Archive]:
    """The picked records in groups: by archive, those of several archives together where these have few.

    Which archives share a group depends on them alone, so that records picked later leave most groups as they are.
    """
    base = config.base if is_remote(config.base) else str(Path(config.base).expanduser().absolute())
    out = []
    for spans in _groups(select(config).spans, config.shard_records):
        names = list(dict.fromkeys(span.archive for span in spans))
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        out.append(Archive(config.kind, name, base, _version(spans, base), spans))
    return sorted(out, key=lambda group: (group.name, group.spans))


def select(config: CommonCrawl) -> Picked:
    """The records of an index for which a source's conditions hold.

    Raises UserError where the index can't be read whole, lacks a column, or nothing is picked.
    """
    import duckdb

    where = config.where or Where()
    files = expand(config.index) if config.index else index_files(config)
    snapshots = set(resolve(config.snapshots, config.collinfo))
    here = current()
    try:
        with duckdb.connect() as connection:
            connection.execute("SELECT regexp_matches('', ?)", [where.url])
    except duckdb.Error as error:
        raise UserError(f"`where.url` is no regular expression: {str(error).splitlines()[0]}") from None
    with ThreadPoolExecutor(_FILES) as pool:
        parts = list(pool.map(lambda file: _pick(here, file[1], where), files))
    found = pa.concat_tables([part for parts_, _, _, _ in parts for part in parts_] or [_EMPTY])
    order = 'archive, "offset"'
    if config.sample:
        order = f"md5(concat_ws(' ', {int(config.seed)}, archive, \"offset\")), {order}"
    most = config.sample or config.limit or (1 << 62)
    query = f"""
        WITH one AS (
            SELECT archive, "offset", max(length) AS length, arg_max(digest, (length, digest)) AS digest,
                   regexp_extract(archive, 'CC-MAIN-\\d{{4}}(-\\d{{2,4}})?') AS snapshot
            FROM found GROUP BY archive, "offset"
        )
        SELECT archive, "offset", length, digest FROM one
        WHERE len($snapshots) = 0 OR list_contains($snapshots, snapshot)
        QUALIFY row_number() OVER (PARTITION BY snapshot ORDER BY {order}) <= {most}
        ORDER BY archive, "offset"
        """
    with duckdb.connect() as connection:
        connection.register("found", found)
        rows = connection.execute(query, {"snapshots": sorted(snapshots)}).fetchall()
    if not rows:
        raise UserError("the index has no record for which the conditions in `where` hold: loosen them")
    return Picked(
        [Span(*row) for row in rows], sum(p[1] for p in parts), sum(p[2] for p in parts), sum(p[3] for p in parts)
    )


_EMPTY = pa.table(
    {
        "archive": pa.array([], pa.string()),
        "offset": pa.array([], pa.int64()),
        "length": pa.array([], pa.int64()),
        "digest": pa.array([], pa.string()),
    }
)


def _pick(here: Session, path: str, where: Where) -> tuple[list[pa.Table], int, int, int]:
    """The records of one index file for which the conditions hold: tables, rows looked at, bytes read, its bytes."""
    with ExitStack() as stack:
        try:
            if is_remote(path):
                size = here.client.facts(path).size
                try:
                    magic, _ = here.client.range(path, max(0, size - 4), 4)
                    remote = magic == b"PAR1" and not checksum(path)[1]  # a checksum is of the whole
                except RangeIgnoredError:
                    remote = False
                if remote:
                    from datalake.remote.files import RemoteFile

                    file = RemoteFile(here.client, path)
                    return *_pick_rows(pa.PythonFile(file, "r"), path, where), file.fetched, size
                version = here.cache.version(path, here.client)
                place = stack.enter_context(here.cache.copy(path, version, here.client, keep=here.config.keep))
            else:
                place = Path(path)
                size = place.stat().st_size
            with place.open("rb") as stream:
                stream.seek(max(0, size - 4))
                parquet = stream.read(4) == b"PAR1"
            if parquet:
                return *_pick_rows(pa.OSFile(str(place)), path, where), size, size
            return *_pick_lines(place, path, where), size, size
        except RemoteError as error:
            raise UserError(f"{error}: run again later, or correct `index`") from None
        except OSError as error:
            raise UserError(f"the index {shown(path)} can't be read ({error.strerror or error})") from None


def _pick_rows(source: Any, path: str, where: Where) -> tuple[list[pa.Table], int]:
    """Records of a Parquet file; statistics of row groups are used to pass by what can't match."""
    import duckdb
    import pyarrow.dataset as ds

    # As Common Crawl lays its index out; a folder further up may be called anything.
    subset = re.search(r"/subset=([^/]+)/[^/]+$", path)
    if subset and subset[1] not in where.subsets:
        return [], 0
    try:
        fragment = ds.ParquetFileFormat().make_fragment(source)
        schema = fragment.physical_schema
        names = set(schema.names)
        asked = [name for name in _CONDITIONS if getattr(where, name)]
        needed = {*_PLACE} | {column for name in asked for column in _COLUMNS[name]}
        if missing := sorted(needed - names - {"content_mime_detected"}):
            raise UserError(f"the index {shown(path)} has no column {missing[0]!r}, which a condition needs")
        columns = sorted((needed & names) | ({"content_digest", "subset"} & names))
        filters = None
        for column, values in (
            ("url_host_name", where.hosts),
            ("url_host_registered_domain", where.domains),
            ("url_host_tld", where.tlds),
        ):
            if values:
                more = _among(ds.field(column), sorted(value.lower() for value in values))
                filters = more if filters is None else filters & more
        looked = fragment.count_rows()
        reader = fragment.scanner(schema=schema, columns=columns, filter=filters, batch_readahead=2).to_reader()
        extra = "content_mime_detected" not in names and "mime" in asked
        table = _where(reader, where, asked, {*columns}, {"content_mime_detected"} if extra else set())
    except (pa.ArrowException, duckdb.Error, RangeIgnoredError) as error:
        raise UserError(f"the index {shown(path)} can't be read ({str(error).splitlines()[0]})") from None
    return [table], looked


def _among(field: Any, values: Sequence[str]) -> Any:
    """`field` is one of the values; with their range, which statistics are compared with however many there are."""
    return field.isin(list(values)) & (field >= values[0]) & (field <= values[-1])


def _where(
    rows: Any, where: Where, asked: Sequence[str], names: set[str], absent: set[str], cdx: bool = False
) -> pa.Table:
    """Where the records lie for which the conditions hold, by DuckDB."""
    import duckdb

    conditions = [_CDX_DOMAINS if cdx and name == "domains" else _CONDITIONS[name] for name in asked]
    values: dict[str, Any] = {name: getattr(where, name) for name in asked}
    for name in ("hosts", "domains", "tlds", "mime"):
        if name in values:
            values[name] = [value.lower() for value in values[name]]
    if "subset" in names:
        conditions.append("list_contains($subsets, subset)")
        values["subsets"] = where.subsets
    more = "".join(f", NULL::VARCHAR AS {name}" for name in sorted(absent))
    digest = "coalesce(content_digest, '')" if "content_digest" in names else "''"
    query = f"""
        WITH every AS (SELECT *{more} FROM rows)
        SELECT warc_filename AS archive, CAST(warc_record_offset AS BIGINT) AS "offset",
               CAST(warc_record_length AS BIGINT) AS length, {digest} AS digest
        FROM every WHERE {" AND ".join(f"({one})" for one in conditions) or "true"}
        """
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        return connection.sql(query, params=values).to_arrow_table()


# CDX ---------------------------------------------------------------------------------------------------------------


def _pick_lines(place: Path, path: str, where: Where) -> tuple[list[pa.Table], int]:
    """Records of a CDX or CDXJ file. Raises UserError at a line that is none: it may have been a record."""
    asked = [name for name in _CONDITIONS if getattr(where, name)]
    out, looked = [], 0
    fields: list[str] = []
    rows: list[tuple[Any, ...]] = []

    def flush() -> None:
        columns = zip(*rows, strict=True) if rows else ((),) * len(_CDX)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _CDX, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=_CDX)
        out.append(_where(table, where, asked, set(_CDX.names), set(), cdx=True))
        rows.clear()

    with place.open("rb") as stream:
        for number, line in enumerate(_lines(stream, path), 1):
            if not line.strip():
                continue
            if line.lstrip()[:4] in (b"CDX ", b"CDX\t"):
                fields = line.decode("ascii", "replace").split()[1:]
                continue
            try:
                rows.append(_row(line.decode("utf-8", "replace").strip(), fields))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"the index {shown(path)}, line {number}: {error}: it is no CDX or CDXJ line") from None
            looked += 1
            if len(rows) >= _LINES:
                flush()
    flush()
    return out, looked


def _row(line: str, fields: list[str]) -> tuple[Any, ...]:
    """A line in the columns of `_CDX`."""
    brace = line.find(" {")
    if brace >= 0 and line.endswith("}"):
        found = {name: str(value) for name, value in json.loads(line[brace + 1 :]).items()}
    else:
        values = line.split()
        letters = fields or (_ELEVEN if len(values) == 11 else [])
        if len(values) != len(letters):
            raise ValueError(f"{len(values)} fields" + (f" where {len(letters)} were to come" if letters else ""))
        found = {_LETTERS[x]: value for x, value in zip(letters, values, strict=True) if x in _LETTERS and value != "-"}
    if "length" not in found or "offset" not in found or "filename" not in found:
        raise ValueError("it doesn't say file, offset and length")
    url = found.get("url", "")
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        host = ""
    status = found.get("status", "")
    return (
        url,
        host,
        host.rpartition(".")[2],
        int(status) if status.isdigit() else None,
        found.get("digest", "").removeprefix("sha1:"),
        found.get("mime"),
        found.get("mime-detected"),
        found.get("languages"),
        found["filename"],
        int(found["offset"]),
        int(found["length"]),
    )


def _lines(stream: BinaryIO, path: str) -> Iterator[bytes]:
    """The lines of a plain or gzip file, a zipnum one included, whose members may end without a newline."""
    if not stream.read(2).startswith(b"\x1f\x8b"):
        stream.seek(0)
        yield from stream
        return
    stream.seek(0)
    tail, data, fresh = b"", stream.read(1 << 18), True
    while data:
        inflater = zlib.decompressobj(31)
        fresh = True
        while not inflater.eof:
            try:
                text = inflater.decompress(data, 1 << 20)
            except zlib.error as error:
                raise UserError(f"the index {shown(path)} is damaged ({error}): fetch it again") from None
            data = inflater.unconsumed_tail
            if fresh and text:
                if tail and _CDX_LINE.match(text) and _CDX_LINE.match(tail):
                    yield tail  # the last line of a block of its own
                    tail = b""
                fresh = False
            *lines, tail = (tail + text).split(b"\n")
            yield from lines
            if not inflater.eof and not data:
                data = stream.read(1 << 18)
                if not data:
                    raise UserError(f"the index {shown(path)} ends within its compression: fetch it again")
        data = inflater.unused_data or stream.read(1 << 18)
        if not data.strip(b"\0"):
            break
    if tail:
        yield tail


# Shards ------------------------------------------------------------------------------------------------------------


def _groups(spans: list[Span], size: int) -> Iterator[tuple[Span, ...]]:
    """Spans cut into groups of about `size`, never within an archive, never across snapshots.

    An archive ends a group by its own name, with the chance of its records over `size`: what is picked elsewhere moves
    no boundary but those nearby.
    """
    group: list[Span] = []
    for archive, run in groupby(spans, key=lambda span: span.archive):
        own = list(run)
        if group and (snapshot_of(group[-1].archive) != snapshot_of(archive) or len(group) + len(own) > 4 * size):
            yield tuple(group)
            group = []
        group += own
        if xxhash.xxh3_64_intdigest(archive.encode()) / 2**64 < len(own) / size:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _version(spans: Sequence[Span], base: str) -> str:
    """The version of picked content: the digests that the index gives; archives' own where it lacks one."""
    if all(span.digest for span in spans):
        return fingerprint([span.digest for span in spans])[:32]
    here = current()
    versions = []
    for archive in dict.fromkeys(span.archive for span in spans):
        place = joined(base, archive)
        try:
            versions.append(here.cache.version(place, here.client) if is_remote(place) else file_digest(place))
        except OSError as error:
            raise UserError(f"{shown(place)}, which the index names, can't be read ({error}): correct `base`") from None
    return fingerprint(versions)[:32]


# Reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stretch:
    """Bytes of an archive that are fetched together, and what of them was picked."""

    archive: str
    begin: int
    end: int
    spans: tuple[Span, ...]


def stretches(spans: Sequence[Span], gap: int, largest: int) -> list[_Stretch]:
    """Spans of archives merged where less than `gap` bytes lie between them, into at most `largest` bytes."""
    out: list[_Stretch] = []
    for span in spans:
        last = out[-1] if out else None
        end = span.offset + span.length
        if (
            last is not None
            and last.archive == span.archive
            and last.begin <= span.offset <= last.end + gap
            and max(end, last.end) - last.begin <= largest
        ):
            out[-1] = _Stretch(last.archive, last.begin, max(end, last.end), (*last.spans, span))
        else:
            out.append(_Stretch(span.archive, span.offset, end, (span,)))
    return out


def records(group: Archive, max_bytes: int) -> Iterator[tuple[str, warc.Record | warc.Fault]]:
    """Archive and record of each of a group's spans, in their order; a fault where a span isn't one record.

    Raises OSError where an archive can't be read. Stretches are fetched ahead and kept in the cache: what is there
    isn't fetched again. At most two for each connection are on their way or unread.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "span")
        for stretch, data, again in _fetched(group):
            for span in stretch.spans:
                at = span.offset - stretch.begin
                one = _record(data[at : at + span.length], span, scratch, max_bytes)
                if isinstance(one, warc.Fault) and again is not None:
                    # Bytes that were spoilt on the way mustn't be taken for the archive's.
                    data, again = again(), None
                    one = _record(data[at : at + span.length], span, scratch, max_bytes)
                yield span.archive or group.name, one


def _record(data: bytes, span: Span, scratch: Path, max_bytes: int) -> warc.Record | warc.Fault:
    """The one record that a span's bytes are, in its place in the archive."""
    if len(data) < span.length:
        return warc.Fault("truncated", f"the archive has {len(data)} of {span.length}", span.offset, span.length)
    scratch.write_bytes(data)
    found = list(islice(warc.records(str(scratch), max_bytes), 3))
    faults = [one for one in found if isinstance(one, warc.Fault)]
    if faults:
        return warc.Fault(faults[0].reason, faults[0].detail, span.offset, span.length)
    whole = [one for one in found if isinstance(one, warc.Record)]
    if len(whole) != 1 or whole[0].offset or whole[0].inner:
        return warc.Fault("range", f"{len(whole)} records in the range of one", span.offset, span.length)
    record = whole[0]
    stated = record.headers.get("warc-payload-digest", "").rpartition(":")[2].upper()
    if stated and span.digest and len(stated) == len(span.digest) and stated != span.digest.upper():
        detail = f"the index says {span.digest}, the record {stated}"
        return warc.Fault("digest", detail, span.offset, span.length)
    record.offset = span.offset
    return record


def _fetched(group: Archive) -> Iterator[tuple[_Stretch, bytes, Callable[[], bytes] | None]]:
    """The stretches of a group, their bytes (fewer where an archive ends before), and what fetches them once more."""
    here = current()
    todo = deque(stretches(group.spans, here.config.gap_bytes, here.config.range_bytes))
    if not is_remote(group.path):
        for stretch in todo:
            with Path(_place(group, stretch)).open("rb") as file:
                file.seek(stretch.begin)
                yield stretch, file.read(stretch.end - stretch.begin), None
        return
    source = _Source(here)
    waiting: deque[tuple[_Stretch, str, Future[None]]] = deque()
    keys = []
    with ThreadPoolExecutor(here.config.connections_per_host) as pool:
        try:
            while todo or waiting:
                while todo and len(waiting) < 2 * here.config.connections_per_host:
                    stretch = todo.popleft()
                    place = _place(group, stretch)
                    key = fingerprint([lasting(place), stretch.begin, stretch.end, stretch.spans])
                    keys.append(key)
                    waiting.append((stretch, key, pool.submit(source.fetch, place, stretch, key)))
                stretch, key, future = waiting.popleft()
                future.result()
                data = here.cache.stretch(key)
                again = partial(source.again, _place(group, stretch), stretch, key)
                yield stretch, again() if data is None else data, again  # None: removed to make room
        finally:
            for _, _, future in waiting:
                future.cancel()
    if here.config.keep:
        here.cache.make_room()
    else:
        for key in keys:
            here.cache.drop_stretch(key)


def _place(group: Archive, stretch: _Stretch) -> str:
    return joined(group.path, stretch.archive) if stretch.archive else group.path


class _Source:
    """Fetches the stretches of one group; archives are seen to stay the same meanwhile."""

    def __init__(self, here: Session):
        self._here = here
        self._versions: dict[str, str] = {}
        self._whole: set[str] = set()  # archives whose server sends no ranges

    def fetch(self, place: str, stretch: _Stretch, key: str) -> None:
        """Put a stretch into the cache, unless it is there."""
        cache = self._here.cache
        if cache.stretch(key) is None:
            self.again(place, stretch, key)

    def again(self, place: str, stretch: _Stretch, key: str) -> bytes:
        """A stretch fetched now, and put into the cache."""
        cache, client = self._here.cache, self._here.client
        length = stretch.end - stretch.begin
        if place not in self._whole:
            try:
                data, version = client.range(place, stretch.begin, length)
            except RangeIgnoredError:
                self._whole.add(place)
            else:
                known = self._versions.setdefault(place, version or self._versions.get(place, ""))
                if version and known and known != version:
                    raise ChangedError(f"{shown(place)} changed while it was read: it was {known!r} and is {version!r}")
                cache.put_stretch(key, data)
                return data
        version = cache.version(place, client)
        with cache.copy(place, version, client, keep=True) as path, path.open("rb") as file:
            file.seek(stretch.begin)
            data = file.read(length)
        cache.put_stretch(key, data)
        return data
