"""Remote files: what servers do wrong is borne, counted and told; nothing cut or changed is taken for the file."""

from __future__ import annotations

import base64
import email.utils
import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import world
from harness import ROOT
from pydantic import ValidationError
from servers import Fault, RangeServer, S3Server, serving

from datalake.archive import Archive
from datalake.document import Entry
from datalake.errors import UserError
from datalake.files import FileVersions
from datalake.formats import warc
from datalake.paths import expand
from datalake.remote import inside
from datalake.remote.address import base_name, checksum, is_remote, joined, lasting, shown
from datalake.remote.client import ChangedError, Client, DamagedError, RangeIgnoredError, RemoteError, UnreachableError
from datalake.remote.config import RemoteConfig
from datalake.remote.limits import Limits
from datalake.remote.session import Session, at_hand, current, forget, using
from datalake.sources.web import common_crawl
from datalake.sources.web.config import CommonCrawl

DATA = bytes(range(256)) * 1_000  # no two of its stretches that could be mixed up are equal where it matters
QUICK = {"backoff_seconds": 0.001, "longest_wait_seconds": 0.3, "requests_per_second": 5_000, "retries": 4}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving() as one:
        yield one


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Session]:
    with using(RemoteConfig(**QUICK), tmp_path / "cache"):  # type: ignore[arg-type]
        yield current()


def copied(here: Session, address: str, version: str = "") -> bytes:
    """The content of the local copy."""
    version = version or here.cache.version(address, here.client)
    with here.cache.copy(address, version, here.client) as path:
        return path.read_bytes()


# Versions ----------------------------------------------------------------------------------------------------------


def test_a_version_is_tag_and_size_and_a_changed_file_has_another(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    first = here.client.facts(address).version
    assert first == f"{server.tags['/a.gz'].strip(chr(34))} {len(DATA)}"
    assert here.client.facts(address).version == first
    server.put("/a.gz", DATA)
    assert here.client.facts(address).version != first


def test_versions_are_asked_for_at_every_listing_unless_they_are_trusted(server: RangeServer, tmp_path: Path) -> None:
    address = server.put("/a.gz", DATA)
    for hours, questions in ((0, 2), (1, 1)):
        server.asked.clear()
        with using(RemoteConfig(**QUICK, recheck_hours=hours), tmp_path / f"cache{hours}"):  # type: ignore[arg-type]
            found = []
            for _ in range(2):
                forget()
                versions = FileVersions(tmp_path / f"v{hours}.json")
                found.append(versions.version(address))
                versions.save()
        assert found[0] == found[1]
        assert len(server.requests("HEAD")) == questions


def test_a_server_that_is_down_leaves_a_version_as_it_was_last(
    server: RangeServer, here: Session, tmp_path: Path
) -> None:
    address = server.put("/a.gz", DATA)
    first = FileVersions(tmp_path / "v.json")
    before = first.version(address)
    first.save()
    forget()
    server.always["/a.gz"] = Fault(status=503, methods=("HEAD", "GET"))
    assert FileVersions(tmp_path / "v.json").version(address) == before
    with pytest.raises(UnreachableError, match="503"):
        FileVersions(tmp_path / "other.json").version(address)


def test_a_file_without_tag_and_time_is_known_by_its_bytes(server: RangeServer, here: Session) -> None:
    server.validators = False
    address = server.put("/a.gz", DATA)
    version = here.cache.version(address, here.client)
    assert copied(here, address, version) == DATA
    forget()
    server.put("/a.gz", DATA + b"more")
    assert here.cache.version(address, here.client) != version


def test_a_server_that_knows_no_head_is_asked_by_get(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.always["/a.gz"] = Fault(status=403, methods=("HEAD",))
    assert here.client.facts(address).size == len(DATA)
    assert copied(here, address) == DATA


# Faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_and_counted(server: RangeServer, here: Session, status: int) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(status=status), Fault(status=status)]
    assert copied(here, address) == DATA
    assert here.client.counts["retries"] == 2
    assert here.client.counts["bytes"] == len(DATA)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_heeded_up_to_the_longest_wait(server: RangeServer, here: Session, form: str) -> None:
    address = server.put("/a.gz", DATA)
    value = "7" if form == "seconds" else email.utils.formatdate(time.time() + 7, usegmt=True)
    server.once["/a.gz"] = [Fault(status=503, headers={"Retry-After": value})]
    assert copied(here, address) == DATA
    first, second = server.requests("GET")[:2]
    assert 0.3 <= second.time - first.time < 2


def test_what_one_request_is_told_to_wait_others_to_the_host_wait_too(server: RangeServer, tmp_path: Path) -> None:
    one, other = server.put("/a.gz", DATA), server.put("/b.gz", DATA)
    server.always["/a.gz"] = Fault(status=429, headers={"Retry-After": "7"}, methods=("HEAD",))
    with using(RemoteConfig(**QUICK | {"retries": 0}), tmp_path):  # type: ignore[arg-type]
        with pytest.raises(UnreachableError):
            current().client.facts(one)
        current().client.facts(other)
    first, second = server.asked
    assert 0.25 <= second.time - first.time < 2


def test_patience_ends_and_the_error_says_after_what(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.always["/a.gz"] = Fault(status=503)
    with pytest.raises(UnreachableError, match=r"a\.gz can't be read, after 5 tries: status 503"):
        copied(here, address)
    assert len(server.requests("GET")) == 5
    assert here.client.counts["retries"] == 4


def test_nobody_listening_is_unreachable(here: Session, tmp_path: Path) -> None:
    with serving() as gone:
        address = gone.put("/a.gz", DATA)
    with pytest.raises(UnreachableError, match="refused"):
        here.client.facts(address)


def test_what_is_not_there_or_closed_is_not_tried_again(server: RangeServer, here: Session) -> None:
    with pytest.raises(FileNotFoundError):
        here.client.facts(server.url + "/none.gz")
    address = server.put("/a.gz", DATA)
    server.always["/a.gz"] = Fault(status=403, methods=("HEAD", "GET"))
    with pytest.raises(PermissionError):
        here.client.facts(address)
    assert here.client.counts["retries"] == 0


def test_a_broken_download_goes_on_where_it_broke(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(cut=100_000), Fault(cut=50_000), Fault(cut=0)]
    assert copied(here, address) == DATA
    assert server.sent == len(DATA)  # no byte twice
    ranges = [(one.headers.get("range"), one.headers.get("if-range")) for one in server.requests("GET")[:4]]
    tag = server.tags["/a.gz"]
    assert ranges == [(None, None), *[(f"bytes={at}-", tag) for at in (100_000, 150_000, 150_000)]]


def test_breaks_that_bring_bytes_never_end_patience(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(cut=10_000) for _ in range(20)]  # retries: 4
    assert copied(here, address) == DATA


def test_a_killed_download_is_gone_on_with_by_another_session(server: RangeServer, tmp_path: Path) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(cut=200_000), *[Fault(status=503)] * 9]
    with using(RemoteConfig(**QUICK), tmp_path), pytest.raises(UnreachableError):  # type: ignore[arg-type]
        copied(current(), address)
    server.once["/a.gz"].clear()
    with using(RemoteConfig(**QUICK, cache_gb=1), tmp_path):  # type: ignore[arg-type]
        assert copied(current(), address) == DATA
    assert server.sent == len(DATA)


def test_a_server_that_ignores_ranges_is_read_again_without_harm(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(cut=100_000)]
    server.always["/a.gz"] = Fault(ignore_range=True)
    assert copied(here, address) == DATA
    with pytest.raises(RangeIgnoredError):
        here.client.range(address, 5, 10)


def test_a_server_that_says_too_much_is_found(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.always["/a.gz"] = Fault(claim=500)
    with pytest.raises(UnreachableError, match="said 256000 bytes when listed, says 256500 now"):
        copied(here, address)
    server.always["/a.gz"] = Fault(claim=500, methods=("HEAD", "GET"))  # consistently
    forget()
    with pytest.raises(UnreachableError):
        copied(here, address)
    assert not list((here.cache.folder / "objects").iterdir())


def test_a_server_that_says_too_little_is_found(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.always["/a.gz"] = Fault(claim=-500)
    with pytest.raises(UnreachableError, match="says 255500 now"):
        copied(here, address)
    server.tags["/a.gz"] = '"other"'
    server.always["/a.gz"] = Fault(claim=-500, methods=("HEAD", "GET"))
    forget()
    with pytest.raises(DamagedError, match="255500 bytes and has more"):
        copied(here, address)
    assert not list((here.cache.folder / "objects").iterdir())


def test_a_silent_server_is_left_and_asked_again(server: RangeServer, tmp_path: Path) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(stall=60)]
    start = time.monotonic()
    with using(RemoteConfig(**QUICK, stall_seconds=0.2), tmp_path):  # type: ignore[arg-type]
        assert copied(current(), address) == DATA
        assert current().client.counts["retries"] == 1
    assert time.monotonic() - start < 30


def test_a_slow_server_is_waited_for(server: RangeServer, tmp_path: Path) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(stall=0.2)]
    with using(RemoteConfig(**QUICK, stall_seconds=5), tmp_path):  # type: ignore[arg-type]
        assert copied(current(), address) == DATA
        assert current().client.counts["retries"] == 0


def test_a_file_that_changed_after_it_was_listed_is_an_error_that_says_so(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    version = here.cache.version(address, here.client)
    server.put("/a.gz", DATA[::-1])
    with pytest.raises(ChangedError, match="changed after it was listed"):
        copied(here, address, version)


def test_a_file_that_changes_midway_is_never_mixed(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    version = here.cache.version(address, here.client)
    server.once["/a.gz"] = [Fault(cut=100_000)]
    real = server.fault

    def change(method: str, path: str) -> Fault:
        found = real(method, path)
        if method == "GET" and len(server.requests("GET")) == 2:
            server.put(path, DATA[::-1])
        return found

    server.fault = change  # type: ignore[method-assign]
    with pytest.raises(ChangedError):
        copied(here, address, version)
    assert copied(here, address, here.client.facts(address).version) == DATA[::-1]


def test_stated_checksums_are_compared(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    right = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    wrong = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    server.always["/a.gz"] = Fault(headers={"Content-MD5": wrong})
    with pytest.raises(DamagedError, match="MD5"):
        copied(here, address)
    server.always["/a.gz"] = Fault(headers={"Content-MD5": right})
    assert copied(here, address) == DATA


def test_the_users_checksum_is_compared(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    right, wrong = hashlib.sha256(DATA).hexdigest(), hashlib.sha256(b"x").hexdigest()
    with pytest.raises(DamagedError, match=wrong):
        copied(here, f"{address}#sha256={wrong}")
    assert copied(here, f"{address}#sha256={right}") == DATA
    assert expand([f"{address}#sha256={right}"]) == [("a.gz", f"{address}#sha256={right}")]


def test_the_tag_of_an_s3_object_is_its_md5_also_over_http(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.always["/a.gz"] = Fault(headers={"Server": "x", "x-amz-request-id": "1"}, methods=("HEAD", "GET"))
    server.tags["/a.gz"] = f'"{hashlib.md5(b"other").hexdigest()}"'
    with pytest.raises(DamagedError, match="MD5"):
        copied(here, address)
    forget()
    server.tags["/a.gz"] = f'"{hashlib.md5(DATA).hexdigest()}"'
    assert copied(here, address) == DATA


# Addresses ---------------------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_and_takes_no_credentials_along(server: RangeServer, here: Session) -> None:
    with serving() as other:
        target = other.put("/real.gz", DATA)
        server.always["/a.gz"] = Fault(status=302, headers={"Location": target}, methods=("HEAD", "GET"))
        address = server.url.replace("http://", "http://me:secret@") + "/a.gz"
        assert copied(here, address) == DATA
        assert all("authorization" in one.headers for one in server.asked)
        assert not any("authorization" in one.headers for one in other.asked)


def test_redirects_without_end_are_told(server: RangeServer, here: Session) -> None:
    server.always["/a.gz"] = Fault(status=302, headers={"Location": "/a.gz"}, methods=("HEAD", "GET"))
    with pytest.raises(OSError, match="without end"):
        here.client.facts(server.url + "/a.gz")


def test_credentials_are_in_no_name_error_or_version(server: RangeServer, here: Session, tmp_path: Path) -> None:
    server.put("/a.gz", DATA)
    address = f"{server.url.replace('http://', 'http://me:pass1@')}/a.gz?X-Amz-Signature=sig2&token=tok3"
    ((name, path),) = expand([address])
    assert (name, path) == ("a.gz", address)
    versions = FileVersions(tmp_path / "v.json")
    told = [name, versions.version(path)]
    versions.save()
    told.append((tmp_path / "v.json").read_text())
    server.always["/a.gz"] = Fault(status=503, methods=("HEAD", "GET"))
    with pytest.raises(UnreachableError) as error:
        here.client.facts(address)
    told.append(str(error.value))
    with pytest.raises(UserError) as missing:
        expand([address.replace("a.gz", "none.gz")])
    told.append(str(missing.value))
    told += [str(p) for p in here.cache.folder.rglob("*")]
    assert not [text for text in told for secret in ("pass1", "sig2", "tok3") if secret in text]


def test_addresses_are_taken_apart() -> None:
    assert shown("https://u:p@h:1/a/b?sig=1#x") == "https://h:1/a/b"
    assert shown("s3://b/a?b") == "s3://b/a?b"
    assert lasting("https://u:p@h/a?id=3&X-Amz-Date=1&Signature=x&api_key=y") == "https://h/a?id=3"
    assert base_name("https://h/a%20b.gz?x=/y") == "a b.gz"
    assert base_name("s3://b/a/x.gz") == "x.gz"
    assert joined("https://h/base/?sig=1", "a/b c") == "https://h/base/a/b%20c?sig=1"
    assert joined("s3://b/", "a/b") == "s3://b/a/b"
    assert joined("file:///x/", "a") == "/x/a"
    assert checksum("https://h/a#sha256=" + "A" * 64) == ("https://h/a", "a" * 64)
    assert not is_remote("file:///x")
    assert is_remote("s3://x/y")


def test_credentials_in_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="environment"):
        RemoteConfig(storage={"s3": {"secret": "x"}})


def test_a_proxy_is_taken_from_settings_or_the_environment(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/a.gz", DATA)  # the server stands for the proxy: it is asked for files of a host that isn't there
    address = "http://nowhere.invalid/a.gz"
    with using(RemoteConfig(**QUICK, proxy=server.url), tmp_path / "1"):  # type: ignore[arg-type]
        assert copied(current(), address) == DATA
    monkeypatch.setenv("http_proxy", server.url)
    with using(RemoteConfig(**QUICK), tmp_path / "2"):  # type: ignore[arg-type]
        assert copied(current(), address) == DATA
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    with using(RemoteConfig(**QUICK | {"retries": 0}), tmp_path / "3"), pytest.raises(UnreachableError):  # type: ignore[arg-type]
        copied(current(), address)


# Limits ------------------------------------------------------------------------------------------------------------

READER = """
import sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from datalake.remote.config import RemoteConfig
from datalake.remote.session import current, using
config, folder, url, amount = sys.argv[1:]
with using(RemoteConfig.model_validate_json(config), Path(folder)):
    here = current()
    def read(number):
        address = f"{url}/{number}.gz"
        with here.cache.copy(address, here.cache.version(address, here.client), here.client) as path:
            return path.stat().st_size
    with ThreadPoolExecutor(8) as pool:
        print(sum(pool.map(read, range(int(amount)))))
"""


def readers(config: RemoteConfig, folder: Path, url: str, amount: int) -> list[str]:
    """What two processes print that read the same files at once."""
    command = [sys.executable, "-c", READER, config.model_dump_json(), str(folder), url, str(amount)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    return [process.communicate(timeout=60)[0].strip() for process in running]


def test_two_processes_share_connections_and_one_download(server: RangeServer, tmp_path: Path) -> None:
    for number in range(6):
        server.put(f"/{number}.gz", DATA + bytes([number]))
    server.gather = 3
    config = RemoteConfig(**QUICK, connections=3, connections_per_host=3)  # type: ignore[arg-type]
    assert readers(config, tmp_path, server.url, 6) == [str(6 * (len(DATA) + 1))] * 2
    assert server.most == 3
    whole = [one.path for one in server.requests("GET") if "range" not in one.headers]
    assert sorted(whole) == [f"/{number}.gz" for number in range(6)]


def test_the_bound_for_all_hosts_holds_beside_that_of_each(tmp_path: Path) -> None:
    limits = Limits(tmp_path, RemoteConfig(connections=3, connections_per_host=2, requests_per_second=1e5))
    inside = {"a": 0, "b": 0}
    seen: list[tuple[int, int]] = []
    changed = threading.Condition()

    def hold(host: str) -> None:
        with limits.connection(host), changed:
            inside[host] += 1
            seen.append((inside[host], sum(inside.values())))
            changed.notify_all()
            # Nobody leaves before three are in, however slowly this machine starts its threads.
            changed.wait_for(lambda: any(every >= 3 for _, every in seen), timeout=60)
            changed.wait(0.01)
            inside[host] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, "ab" * 10))
    assert max(own for own, _ in seen) == 2
    assert max(every for _, every in seen) == 3


def test_the_pace_of_a_host_is_kept(server: RangeServer, tmp_path: Path) -> None:
    address = server.put("/a.gz", DATA)
    with using(RemoteConfig(**QUICK | {"requests_per_second": 50}), tmp_path), ThreadPoolExecutor(8) as pool:  # type: ignore[arg-type]
        client = current().client
        list(pool.map(lambda _: client.facts(address), range(16)))
    times = [one.time for one in server.asked]
    assert len(times) == 16
    assert max(times) - min(times) >= 15 / 50 * 0.9


# Cache -------------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_fetched_again(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    version = here.cache.version(address, here.client)
    assert copied(here, address, version) == DATA
    server.asked.clear()
    assert copied(here, address, version) == DATA
    assert not server.asked


def test_equal_content_under_another_address_is_there_already(server: RangeServer, here: Session) -> None:
    tag = f'"{hashlib.md5(DATA).hexdigest()}"'
    one, other = server.put("/a.gz", DATA), server.put("/mirror/b.gz", DATA)
    server.tags = dict.fromkeys(server.tags, tag)
    for path in server.files:  # both say that they are S3
        server.always[path] = Fault(headers={"x-amz-request-id": "1"}, methods=("HEAD", "GET"))
    copied(here, one)
    assert copied(here, other) == DATA
    assert [r.path for r in server.requests("GET") if "range" not in r.headers] == ["/a.gz"]
    # A tag that isn't made from content says nothing of another address.
    server.files["/b.gz"] = server.files["/c.gz"] = b"b"
    server.files["/c.gz"] = b"c"
    server.tags |= {"/b.gz": '"66a1-1"', "/c.gz": '"66a1-1"'}
    assert copied(here, server.url + "/b.gz") == b"b"
    assert copied(here, server.url + "/c.gz") == b"c"


def test_copies_used_longest_ago_make_room_and_one_in_use_stays_readable(server: RangeServer, tmp_path: Path) -> None:
    addresses = [server.put(f"/{n}.gz", DATA + bytes([n])) for n in range(4)]
    with using(RemoteConfig(**QUICK, cache_gb=2.5 * len(DATA) / 1e9), tmp_path):  # type: ignore[arg-type]
        here = current()
        version = here.cache.version(addresses[0], here.client)
        with here.cache.copy(addresses[0], version, here.client) as first:
            copied(here, addresses[1])
            copied(here, addresses[2])
            copied(here, addresses[1])
            copied(here, addresses[3])
            assert first.read_bytes() == DATA + b"\0"
        assert len(list((tmp_path / "objects").iterdir())) == 2
        server.asked.clear()
        copied(here, addresses[1])
        assert not server.requests("GET")
        copied(here, addresses[2])
        assert server.requests("GET", "/2.gz")
    assert not list((tmp_path / "use").iterdir())


def test_copies_that_are_not_kept_go_with_their_shard(server: RangeServer, tmp_path: Path) -> None:
    address = server.put("/deep/a.gz", DATA)
    with using(RemoteConfig(**QUICK, keep=False), tmp_path):  # type: ignore[arg-type]
        here = current()
        shard = Archive("books", "a.gz", address, here.cache.version(address, here.client))
        with at_hand(shard) as found:
            assert Path(found.path).name == "a.gz"
            assert Path(found.path).read_bytes() == DATA
        assert not list((tmp_path / "objects").iterdir())
        with pytest.raises(RuntimeError), at_hand(shard):
            raise RuntimeError
        assert len(list((tmp_path / "objects").iterdir())) == 1  # a shard that failed is read again


def test_what_a_killed_process_held_is_cleared(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead, alive = tmp_path / "use" / f"{int(done.stdout)}-0", tmp_path / "use" / f"{os.getpid()}-99"
    dead.mkdir(parents=True)
    alive.mkdir()
    with using(RemoteConfig(), tmp_path):
        current()
    assert not dead.exists()
    assert alive.exists()


# Ranges ------------------------------------------------------------------------------------------------------------


def test_a_range_is_those_bytes_and_ends_with_the_file(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(cut=10), Fault(status=503)]
    assert here.client.range(address, 1_000, 5_000)[0] == DATA[1_000:6_000]
    assert here.client.range(address, len(DATA) - 10, 50)[0] == DATA[-10:]
    assert here.client.range(address, len(DATA) + 10, 50)[0] == b""
    assert here.client.counts["retries"] == 2


def test_a_range_is_of_one_version(server: RangeServer, here: Session) -> None:
    address = server.put("/a.gz", DATA)
    server.once["/a.gz"] = [Fault(cut=10)]
    real = server.fault

    def change(method: str, path: str) -> Fault:
        if len(server.requests("GET")) == 2:
            server.put(path, DATA[::-1])
        return real(method, path)

    server.fault = change  # type: ignore[method-assign]
    with pytest.raises(ChangedError):
        here.client.range(address, 1_000, 5_000)


# Paths -------------------------------------------------------------------------------------------------------------


def test_names_of_remote_files_are_relative_to_the_fixed_part(server: RangeServer, here: Session) -> None:
    for name in ("a/1.gz", "a/deep/3.gz", "b/1.gz", "b/2 x.gz", "b/.hidden.gz"):
        server.put(f"/root/{name}", DATA)
    root = f"{server.url}/root"

    def names(*paths: str) -> list[str]:
        return [name for name, _ in expand(list(paths))]

    assert names(f"{root}/a/1.gz") == ["1.gz"]
    assert names(f"{root}/a/*.gz") == ["1.gz"]
    assert names(f"{root}/*/1.gz") == ["a/1.gz", "b/1.gz"]
    assert names(f"{root}/**/*.gz") == ["a/1.gz", "a/deep/3.gz", "b/1.gz", "b/2 x.gz"]
    assert names(f"{root}/") == ["a/1.gz", "a/deep/3.gz", "b/1.gz", "b/2 x.gz"]
    assert names(f"{root}/[b]/*") == ["b/1.gz", "b/2 x.gz"]
    assert names(f"{root}/", f"{root}/a/1.gz") == names(f"{root}/")
    assert copied(here, dict(expand([f"{root}/b/*"]))["2 x.gz"]) == DATA


def test_a_glob_without_a_listing_is_one_clear_line(server: RangeServer, here: Session) -> None:
    server.put("/root/1.gz", DATA)
    server.listings = False
    with pytest.raises(UserError, match="shows no list of its files"):
        expand([f"{server.url}/root/*.gz"])
    server.listings = True
    with pytest.raises(UserError, match="nothing matches"):
        expand([f"{server.url}/root/*.xz"])
    with pytest.raises(UserError, match="nosuch"):
        expand(["nosuch://x/y"])


def test_file_addresses_are_local_files(tmp_path: Path) -> None:
    (tmp_path / "a b.gz").write_bytes(DATA)
    assert expand([f"file://{tmp_path}/a%20b.gz"]) == [("a b.gz", str(tmp_path / "a b.gz"))]


def test_any_protocol_of_fsspec_is_read(here: Session) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/remote/a/1.gz": DATA, "/remote/a/2.gz": DATA[:5]})
    try:
        assert [name for name, _ in expand(["memory://remote/*/*.gz"])] == ["a/1.gz", "a/2.gz"]
        assert [name for name, _ in expand(["memory://remote/a"])] == ["1.gz", "2.gz"]
        assert copied(here, "memory://remote/a/1.gz") == DATA
        with pytest.raises(UserError, match="there is no"):
            expand(["memory://remote/none.gz"])
    finally:
        memory.rm("/remote", recursive=True)


# S3 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="the S3 double comes with the extra `dev`")
    pytest.importorskip("flask_cors", reason="the S3 double comes with the extra `dev`")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        server = S3Server()
        client = server.client()
        client.create_bucket(Bucket="crawl")
        for key in ("data/a/1.gz", "data/b/1.gz", "data/b/2.gz", "data/b/.3.gz"):
            client.put_object(Bucket="crawl", Key=key, Body=DATA + key.encode())
        try:
            yield server
        finally:
            server.close()


@pytest.fixture
def s3(store: S3Server, tmp_path: Path) -> Iterator[Session]:
    config = RemoteConfig(**QUICK, storage={"s3": {"endpoint_url": store.url}})  # type: ignore[arg-type]
    store.asked.clear()
    with using(config, tmp_path / "cache"):
        yield current()


def test_s3_globs_and_prefixes(store: S3Server, s3: Session) -> None:
    def names(path: str) -> list[str]:
        return [name for name, _ in expand([path])]

    assert names("s3://crawl/data/*/1.gz") == ["a/1.gz", "b/1.gz"]
    assert names("s3://crawl/data/**/*.gz") == ["a/1.gz", "b/1.gz", "b/2.gz"]
    assert names("s3://crawl/data/b") == ["1.gz", "2.gz"]
    assert names("s3://crawl/data/b/2.gz") == ["2.gz"]
    assert names("s3://crawl/data/b/?.gz") == ["1.gz", "2.gz"]
    for wrong in ("s3://crawl/data/none.gz", "s3://crawl/data/*.none", "s3://nobucket/x.gz"):
        with pytest.raises(UserError):
            expand([wrong])


def test_s3_names_are_taken_as_they_are(store: S3Server, s3: Session) -> None:
    names = ["a b", "a+b", "a%20b", "a#b", "a?b", "a[1]", "a*b", "a;b&c='\"", "a\\b", " a ", "文", "e\u0301", "\u00e9"]
    for name in names:
        store.client().put_object(Bucket="crawl", Key=f"odd/{name}", Body=name.encode())
    for marker in ("odd/", "odd/sub/", "odd/sub", "odd-2/x"):  # folders of consoles and of tools; one that begins alike
        store.client().put_object(Bucket="crawl", Key=marker, Body=b"")
    store.client().put_object(Bucket="crawl", Key="odd/sub/y", Body=b"sub/y")
    for pattern in ("s3://crawl/odd", "s3://crawl/odd/"):
        found = dict(expand([pattern]))
        assert set(found) - {"sub"} == {*names, "sub/y"}
        for name in [*names, "sub/y"]:
            assert s3.client.range(found[name], 0, s3.client.facts(found[name]).size)[0] == name.encode()
    assert [name for name, _ in expand(["s3://crawl/odd/sub"])] == ["y"]


def test_s3_names_with_an_empty_part_are_told_and_marks_of_folders_are_not(
    store: S3Server, s3: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    client = store.client()
    for key, body in {
        "gaps/a.jsonl": b"a",
        "gaps//b.jsonl": b"b",
        "gaps/c/": b"c",
        "marked/": b"",
        "marked/in/": b"",
        "marked/in/d.jsonl": b"d",
    }.items():
        client.put_object(Bucket="crawl", Key=key, Body=body)
    assert expand(["s3://crawl/marked/"]) == [("in/d.jsonl", "s3://crawl/marked/in/d.jsonl")]
    assert capsys.readouterr().err == ""
    assert expand(["s3://crawl/gaps"]) == [("a.jsonl", "s3://crawl/gaps/a.jsonl")]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("headwater: s3://crawl/gaps/: an object with an empty part in its name")
    assert second.startswith("headwater: s3://crawl/gaps/c/: an object with an empty part in its name")
    assert expand(["s3://crawl/gaps//b.jsonl"]) == [("b.jsonl", "s3://crawl/gaps//b.jsonl")]  # by itself it can be had


def test_of_an_s3_object_and_a_folder_of_one_name_the_object_is_meant(store: S3Server, s3: Session) -> None:
    for key in ("both/x.jsonl", "both/x.jsonl/y.jsonl"):
        store.client().put_object(Bucket="crawl", Key=key, Body=DATA)
    assert [name for name, _ in expand(["s3://crawl/both/x.jsonl"])] == ["x.jsonl"]
    assert [name for name, _ in expand(["s3://crawl/both/x.jsonl/"])] == ["y.jsonl"]
    assert [name for name, _ in expand(["s3://crawl/both"])] == ["x.jsonl", "x.jsonl/y.jsonl"]


def test_s3_versions_are_tags_and_a_listing_tells_them(store: S3Server, s3: Session, tmp_path: Path) -> None:
    forget()
    found = dict(expand(["s3://crawl/data/b/*"]))
    store.asked.clear()
    versions = FileVersions(tmp_path / "v.json")
    body = DATA + b"data/b/1.gz"
    assert versions.version(found["1.gz"]) == f"{hashlib.md5(body).hexdigest()} {len(body)}"
    assert not store.asked
    forget()
    assert FileVersions(tmp_path / "v2.json").version(found["1.gz"]) == versions.version(found["1.gz"])


def test_s3_files_and_ranges_come_through_slowdowns(store: S3Server, s3: Session) -> None:
    body = DATA + b"data/a/1.gz"
    store.slow = 3
    assert copied(s3, "s3://crawl/data/a/1.gz") == body
    store.slow = 2
    assert s3.client.range("s3://crawl/data/a/1.gz", 1_000, 50)[0] == body[1_000:1_050]
    assert s3.client.range("s3://crawl/data/a/1.gz", len(body) - 5, 50)[0] == body[-5:]
    assert s3.client.counts["retries"] == 5
    store.slow = 100
    with pytest.raises(UnreachableError, match="after 5 tries"):
        s3.client.facts("s3://crawl/data/a/1.gz")
    store.slow = 0


def test_an_s3_object_that_changed_or_is_damaged_is_told(store: S3Server, s3: Session) -> None:
    client = store.client()
    client.put_object(Bucket="crawl", Key="other/x.gz", Body=DATA)
    version = s3.cache.version("s3://crawl/other/x.gz", s3.client)
    client.put_object(Bucket="crawl", Key="other/x.gz", Body=DATA[::-1])
    with pytest.raises(ChangedError):
        copied(s3, "s3://crawl/other/x.gz", version)
    assert copied(s3, "s3://crawl/other/x.gz", s3.client.facts("s3://crawl/other/x.gz").version) == DATA[::-1]


def test_spoilt_s3_objects_are_found_by_their_tag_unless_a_key_hides_it(store: S3Server, s3: Session) -> None:
    client = store.client()
    client.put_object(Bucket="crawl", Key="other/plain.gz", Body=DATA)
    client.put_object(Bucket="crawl", Key="other/kms.gz", Body=DATA, ServerSideEncryption="aws:kms")
    store.spoil = True
    try:
        with pytest.raises(DamagedError, match="MD5"):
            copied(s3, "s3://crawl/other/plain.gz")
        assert copied(s3, "s3://crawl/other/kms.gz") != DATA  # the tag says nothing of it
    finally:
        store.spoil = False
    assert copied(s3, "s3://crawl/other/plain.gz") == DATA


def test_records_are_picked_from_s3_as_from_a_folder(store: S3Server, s3: Session, tmp_path: Path) -> None:
    archive = world.crawl(tmp_path / "base" / "cc" / "a.warc.gz", 0, missing=["http://gone.example/"])
    lines = []
    for one in warc.records(str(archive), 10**7):
        assert isinstance(one, warc.Record)
        if one.type == "response":
            place = f"{one.length} {one.offset} cc/a.warc.gz"
            lines.append(f"k 20240101000000 {one.headers['warc-target-uri']} text/html 200 - - - {place}\n")
    client = store.client()
    client.put_object(Bucket="crawl", Key="picks/cc/a.warc.gz", Body=archive.read_bytes())
    client.put_object(Bucket="crawl", Key="picks/a.cdx.gz", Body=gzip.compress("".join(lines).encode()))

    def picked(index: str, base: str) -> list[Entry]:
        config = CommonCrawl(index=[index], base=base)
        return [entry for shard in common_crawl.archives(config) for entry in common_crawl.read(shard, config)]

    (tmp_path / "a.cdx").write_text("".join(lines))
    near = picked(str(tmp_path / "a.cdx"), str(tmp_path / "base"))
    store.slow = 2
    assert picked("s3://crawl/picks/a.cdx.gz", "s3://crawl/picks/") == near
    assert len(near) == 7


def test_s3_without_credentials_is_one_clear_line(
    store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = RemoteConfig(**QUICK, storage={"s3": {"endpoint_url": store.url}})  # type: ignore[arg-type]
    with using(config, tmp_path / "no"), pytest.raises(UserError, match="no access to s3://crawl"):
        expand(["s3://crawl/data/a/1.gz"])


def test_a_client_is_light() -> None:
    heavy = "('fsspec', 's3fs', 'aiohttp', 'duckdb')"
    code = f"import sys, datalake.remote.session\nprint([n for n in {heavy} if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_settings_reach_the_client(tmp_path: Path) -> None:
    with using(RemoteConfig(retries=3), tmp_path):
        assert isinstance(current().client, Client)
        assert current().client.config.retries == 3
        assert current().cache.folder == tmp_path


# Redirects inside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "inside_"),
    [
        ("127.0.0.1", True), ("localhost", True), ("10.1.2.3", True), ("192.168.0.1", True), ("172.16.9.9", True),
        ("169.254.169.254", True), ("0.0.0.0", True), ("100.64.0.1", True), ("224.0.0.1", True), ("[::1]", True),
        ("[::ffff:127.0.0.1]", True), ("[::ffff:10.0.0.1]", True), ("[::127.0.0.1]", True), ("[fe80::1]", True),
        ("[fd00::1]", True), ("[64:ff9b::7f00:1]", True), ("[2002:7f00:1::]", True), ("[::]", True), ("127.1", True),
        ("2130706433", True), ("0x7f.1", True), ("0177.0.0.1", True), ("93.184.215.14", False),
        ("[2606:2800:21f:cb07:6820:80da:af6b:8b2c]", False), ("[64:ff9b::5db8:d70e]", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_inside_is_told_in_any_spelling(host: str, inside_: bool) -> None:
    assert inside.is_inside(host) is inside_


@pytest.fixture
def public_server(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> RangeServer:
    """127.0.0.1 counts as public, and so does what its name stands for; the rest of the loopback network doesn't."""
    real = inside.is_public
    monkeypatch.setattr(inside, "is_public", lambda address: address == "127.0.0.1" or real(address))
    return server


@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]", "0.0.0.0", "[::ffff:127.0.0.2]", "169.254.169.254", "127.2"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_public_address_leads_to_no_private_one(
    public_server: RangeServer, here: Session, host: str, status: int
) -> None:
    target = f"http://{host}:{public_server.port}/real.gz"
    public_server.put("/real.gz", DATA)
    public_server.always["/b.gz"] = Fault(status=status, headers={"Location": target}, methods=("HEAD", "GET"))
    public_server.always["/a.gz"] = Fault(status=302, headers={"Location": "/b.gz"}, methods=("HEAD", "GET"))
    with pytest.raises(RemoteError, match="on a private network, which isn't followed"):
        here.client.facts(public_server.url + "/a.gz")
    assert not public_server.requests(path="/real.gz")


def test_a_name_of_a_private_address_is_not_followed(
    public_server: RangeServer, here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"one.example": ["127.0.0.2"], "both.example": ["127.0.0.1", "10.0.0.1"], "flips.example": ["127.0.0.1"]}
    real = socket.getaddrinfo

    def lookup(host: str, *args: Any, **options: Any) -> Any:
        if host not in answers:
            return real(host, *args, **options)
        found = [real(address, *args, **options)[0] for address in answers[host]]
        if host == "flips.example":  # another answer each time it is asked
            answers[host] = ["127.0.0.2"]
        return found

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    public_server.put("/real.gz", DATA)
    for name in list(answers):
        target = f"http://{name}:{public_server.port}/real.gz"
        public_server.always["/a.gz"] = Fault(status=302, headers={"Location": target}, methods=("HEAD", "GET"))
        with pytest.raises(RemoteError):
            here.client.facts(public_server.url + "/a.gz")
    assert not public_server.requests(path="/real.gz")


def test_a_private_host_that_the_recipe_names_is_followed(public_server: RangeServer, tmp_path: Path) -> None:
    target = f"http://[::ffff:127.0.0.1]:{public_server.port}/real.gz"
    public_server.put("/real.gz", DATA)
    public_server.always["/a.gz"] = Fault(status=302, headers={"Location": target}, methods=("HEAD", "GET"))
    named = RemoteConfig(**QUICK, private_hosts=("::ffff:127.0.0.1",))  # type: ignore[arg-type]
    with using(named, tmp_path / "cache"):
        assert current().client.facts(public_server.url + "/a.gz").size == len(DATA)
    with using(RemoteConfig(**QUICK), tmp_path / "cache"):  # type: ignore[arg-type]
        assert current().client.facts(target).size == len(DATA)


@pytest.mark.parametrize("query", ["token=SECRET", "accessToken=SECRET", "k=SECRET", "SECRET", "X-Api-Key=SECRET"])
def test_no_query_is_kept_with_versions(server: RangeServer, here: Session, tmp_path: Path, query: str) -> None:
    server.put("/a.gz", DATA)
    versions = FileVersions(tmp_path / "v.json")
    told = versions.version(f"{server.url.replace('http', 'HTTP')}/a.gz?{query}")
    versions.save()
    assert "SECRET" not in told + (tmp_path / "v.json").read_text()
    assert "SECRET" not in (tmp_path / "v.json").read_text()
    (tmp_path / "v.json").write_text(json.dumps({f"{server.url}/a.gz?{query}": ["remote", 1.0, 0, "x"]}))
    again = FileVersions(tmp_path / "v.json")
    again.version(f"{server.url}/a.gz?{query}")
    again.save()
    assert "SECRET" not in (tmp_path / "v.json").read_text(), "what was kept once goes"


@pytest.mark.parametrize(
    "address", ["HTTPS://user:SECRET@h.example/a", "Https://user:se/SECRET@h.example/a", "S3://k:SECRET@b/a"]
)
def test_credentials_are_hidden_in_any_spelling(address: str) -> None:
    from datalake.secrets import masked

    for told in (shown(address), lasting(address), str(masked({"paths": [address]}))):
        assert "SECRET" not in told
        assert "/a" in told
