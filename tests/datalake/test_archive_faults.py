"""Archives that are cut, that inflate without end or that would leave their folder cost what they touch and no more.

Bounds that are tested: private memory by RLIMIT_DATA in a child process (mapped files don't count, the system takes
their pages back), disk by RLIMIT_FSIZE.
"""

from __future__ import annotations

import bz2
import gzip
import io
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
from test_archives import arc_line, arc_records, zstd
from test_common_crawl import record, response

from datalake.document import Passed, Quarantined
from datalake.formats import warc
from datalake.formats.containers import Member, archive_members
from datalake.formats.streams import decompressed
from datalake.origin import Origin

STEP = 4096


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def warc_records(kind: str) -> list[bytes]:
    """Records whose blocks don't compress, so that a packed archive has many cuts."""
    blocks = [noise(at, 3_000 + 2_500 * at) for at in range(10)]
    if kind == "conversion":
        return [record("conversion", block, f"http://example.com/{at}") for at, block in enumerate(blocks)]
    return [record("response", response(block), f"http://example.com/{at}") for at, block in enumerate(blocks)]


def noisy_arc() -> list[bytes]:
    out = arc_records(0)[:1]
    for at in range(10):
        block = response(noise(at, 3_000 + 2_500 * at))
        out.append(arc_line(f"http://example.com/{at}", len(block)) + block + b"\n")
    return out


def flushed(parts: list[bytes], kind: str) -> list[bytes]:
    """The parts as one packed stream, in pieces that end where the parts do."""
    if kind == "gzip":
        packer = zlib.compressobj(wbits=31)
        out = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        return [*out[:-1], out[-1] + packer.flush()]
    chunker = zstandard.ZstdCompressor().compressobj()
    out = [chunker.compress(part) + chunker.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts]
    return [*out[:-1], out[-1] + chunker.flush()]


FORMS = {
    "plain": lambda parts: parts,
    "gzip": lambda parts: [gzip.compress(part, mtime=0) for part in parts],
    "whole gzip": lambda parts: flushed(parts, "gzip"),
    "zstd": lambda parts: [zstd(part) for part in parts],
    "whole zstd": lambda parts: flushed(parts, "zstd"),
}
KINDS = {"WARC": lambda: warc_records("response"), "WET": lambda: warc_records("conversion"), "ARC": noisy_arc}


def found_in(path: Path) -> tuple[list[bytes | None], list[warc.Fault]]:
    """Blocks and faults of an archive."""
    found = list(warc.records(str(path), 1 << 24))
    return (
        [one.block for one in found if isinstance(one, warc.Record)],
        [one for one in found if isinstance(one, warc.Fault)],
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_archive_keeps_every_whole_record(tmp_path: Path, kind: str, form: str) -> None:
    parts = FORMS[form](KINDS[kind]())
    data = b"".join(parts)
    path = tmp_path / "whole"
    path.write_bytes(data)
    blocks, faults = found_in(path)
    assert (len(blocks), faults) == (len(parts), [])
    ends = [sum(map(len, parts[: at + 1])) for at in range(len(parts))]
    cuts = [*range(STEP, len(data), STEP), *(end for end in ends[:-1])]
    assert len(cuts) > 30
    path = tmp_path / "cut"
    for cut in cuts:
        path.write_bytes(data[:cut])
        kept, faults = found_in(path)
        whole = sum(end <= cut for end in ends)
        assert kept[:whole] == blocks[:whole], cut
        assert kept == blocks[: len(kept)], cut
        lost = cut not in ends and len(kept) == whole
        assert len(faults) == 1 if lost else len(faults) <= 1, (cut, faults)


@pytest.mark.parametrize("name", ["cc/commoncrawl/whirlwind.warc.gz", "cc/commoncrawl/whirlwind.warc.wet.gz",
                                  "cc/commoncrawl/whirlwind.warc", "cc/warc/pywb-iana.warc.gz"])  # fmt: skip
def test_a_cut_sample_keeps_every_whole_record(tmp_path: Path, samples: Path, name: str) -> None:
    data = (samples / name).read_bytes()
    entries = [one for one in warc.records(str(samples / name), 1 << 24) if isinstance(one, warc.Record)]
    for cut in range(STEP, len(data), max(STEP, len(data) // 40 // STEP * STEP)):
        (tmp_path / "cut").write_bytes(data[:cut])
        kept, faults = found_in(tmp_path / "cut")
        whole = sum(one.offset + one.length <= cut and not one.inner for one in entries)
        assert len(kept) >= whole
        assert kept == [one.block for one in entries[: len(kept)]]
        assert faults or any(one.offset + one.length <= cut <= one.offset + one.length + 4 for one in entries)


CHILD = """
import resource, sys
from datalake.formats import warc
from datalake.formats.containers import archive_members
from datalake.origin import Origin
from datalake.formats.streams import decompressed
warc.MAX_SEGMENT = 256 << 20
resource.setrlimit(resource.RLIMIT_FSIZE, (260 << 20, 260 << 20))  # a larger temporary file ends the process
how, path, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + most, used + most))
if how == "warc":
    for one in warc.records(path, 1 << 20):
        print(type(one).__name__, getattr(one, "reason", one.block_length if hasattr(one, "block_length") else ""))
elif how == "files":
    for one in archive_members(path, Origin("code", "code", "x"), 1 << 20):
        print(type(one).__name__, one.content is None if hasattr(one, "content") else one.reason)
else:
    print(sum(len(one) for one in decompressed(path, Origin("y", "y", "x")) if isinstance(one, bytes)))
"""


def in_child(how: str, path: Path, most: int) -> list[str]:
    """What a child prints that may take as much private memory beyond its imports."""
    command = [sys.executable, "-c", CHILD, how, str(path), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def pack(kind: str, piece: bytes, times: int) -> bytes:
    """The piece over and over, in one gzip member or Zstandard frame."""
    packer = zlib.compressobj(1, wbits=31) if kind == "gzip" else zstandard.ZstdCompressor().compressobj()
    return b"".join([packer.compress(piece) for _ in range(times)]) + packer.flush()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_an_archive_that_inflates_without_end_is_bounded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(pack(kind, bytes(1 << 20), 400))  # more than the child's limit of 256 MiB on disk
    assert path.stat().st_size < 4 << 20
    assert in_child("warc", path, 100 << 20)[-1] == "Fault too_large"


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bz2", "xz"])
def test_a_stream_that_inflates_without_end_comes_in_blocks(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb"
    data = bytes(1 << 20)
    if kind in ("gzip", "zstd"):
        path.write_bytes(pack(kind, data, 200))
    else:
        import lzma

        packer = bz2.BZ2Compressor() if kind == "bz2" else lzma.LZMACompressor(preset=0)
        path.write_bytes(b"".join([packer.compress(data) for _ in range(200)]) + packer.flush())
    assert in_child("stream", path, 64 << 20) == [str(200 << 20)]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_member_that_inflates_without_end_is_no_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    size = 200 << 20
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("a.py", "w") as member:
            for _ in range(200):
                member.write(bytes(1 << 20))
    else:
        info = tarfile.TarInfo("a.py")
        info.size = size
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            archive.addfile(info, io.BytesIO(bytes(size)))
    assert in_child("files", path, 64 << 20) == ["Member True"]


OUTSIDE = ["../out.py", "/out.py", "C:\\out.py", "c:out.py", "a/../../out.py", "\\\\host\\share\\out.py"]


def test_names_that_leave_a_zip_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in OUTSIDE:
            archive.writestr(name, "x = 1")
        link = zipfile.ZipInfo("link.py")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("good.py", "x = 1")
    check(path, [Passed("link")])


def test_names_that_leave_a_tar_its_links_and_devices_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as archive:
        for name in OUTSIDE:
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"x = 1"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}.py")
            info.type, info.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info)
        info = tarfile.TarInfo("good.py")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"x = 1"))
    check(path, [Passed("link"), Passed("link"), *[Passed("special")] * 3])


def check(path: Path, passed: list[Passed]) -> None:
    """That of an archive only the good member is read, the others are told, and nothing is written."""
    found = list(archive_members(str(path), Origin("code", "code", path.name), 1 << 20))
    assert [one.reason for one in found if isinstance(one, Quarantined)] == ["path_traversal"] * len(OUTSIDE)
    assert [one for one in found if isinstance(one, Passed)] == passed
    assert [(one.name, one.content) for one in found if isinstance(one, Member)] == [("good.py", b"x = 1")]
    assert [one for one in path.parent.parent.rglob("*") if one.is_file()] == [path]


LINE = 300 << 20


@pytest.mark.parametrize("kind", ["block", "header"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_300_mb_is_bounded(tmp_path: Path, kind: str, packed: bool) -> None:
    head = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\n"
    head += b"X: " if kind == "header" else b"Content-Length: %d\r\n\r\n" % LINE
    path = tmp_path / "long.warc"
    good = record("conversion", b"good text")
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        file.write(head)
        for _ in range(LINE >> 20):
            file.write(b"x" * (1 << 20))
        file.write(b"\r\n\r\n" + good)
    line = f"Record {LINE}" if kind == "block" else "Fault header"
    found = in_child("warc", path, 100 << 20)
    if packed:  # it inflates to more than the child's limit of 256 MiB
        assert found == ["Fault too_large"]
    else:
        assert found == [line, "Record 9"]


@pytest.mark.parametrize("kind", ["gzip", "bz2", "zstd"])
def test_damage_of_one_stream_costs_no_other(tmp_path: Path, kind: str) -> None:
    pack = {"gzip": gzip.compress, "bz2": bz2.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}[
        kind
    ]
    texts = [random.Random(number).randbytes(20_000).hex().encode() for number in range(5)]
    packed = [pack(text) for text in texts]
    spoilt = bytearray(packed[1])
    spoilt[len(spoilt) // 2 : len(spoilt) // 2 + 400] = bytes(400)
    path = tmp_path / "file"
    path.write_bytes(b"".join([packed[0], bytes(spoilt), *packed[2:]]))
    found = list(decompressed(path, Origin("x", "x", "file")))
    (fault,) = (one for one in found if isinstance(one, Quarantined))
    assert (fault.offset, fault.length) == (len(packed[0]), len(spoilt))
    whole = b"".join(one for one in found if isinstance(one, bytes))
    assert whole.startswith(texts[0])
    assert whole.endswith(b"".join(texts[2:]))


def test_zstandard_frames_to_skip_are_skipped(tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    (tmp_path / "file").write_bytes(skipped + pack(b"one ") + skipped + pack(b"two") + skipped)
    assert b"".join(decompressed(tmp_path / "file", Origin("x", "x", "file"))) == b"one two"  # type: ignore[arg-type]
