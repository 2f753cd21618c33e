"""Personal data and lists: what is found on the samples' pages, and how fast, by processor time.

Block list and words are made up here. With `--show N`, N finds of each kind are printed to be read by eye.

    .venv/bin/python benchmarks/privacy.py [--entries N] [--show N] [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datalake.curate.checks.lists import BlockLists
from datalake.curate.checks.pii import Span, find
from datalake.text.automaton import Automaton
from datalake.text.characters import points

SAMPLES = Path(os.environ.get("HEADWATER_SAMPLES", Path(__file__).resolve().parents[2] / "shared" / "samples"))
IDEOGRAPHS = 0.1  # of the characters, from which on a page is counted as Chinese


def pages() -> list[tuple[str, str]]:
    """(address, all text that a reader sees) of every page."""
    out = []
    for path in sorted((SAMPLES / "cc" / "pages").glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                body = record.reader.read()
                text = extract_plain_text(bytes_to_str(body, detect_encoding(body)))
                out.append((record.headers.get("WARC-Target-URI") or "", text))
    return out


def chinese(text: str) -> bool:
    codes = points(text)
    return len(codes) > 0 and ((codes >= 0x4E00) & (codes < 0xA000)).mean() > IDEOGRAPHS


def show(found: list[tuple[str, list[Span]]], amount: int, seed: int) -> None:
    draw = random.Random(seed)
    kinds: dict[str, list[tuple[str, Span]]] = {}
    for text, spans in found:
        for span in spans:
            kinds.setdefault(span.kind, []).append((text, span))
    for kind, finds in sorted(kinds.items()):
        for text, span in draw.sample(finds, min(amount, len(finds))):
            around = f"{text[max(0, span.start - 25) : span.start]}[[{text[span.start : span.end]}]]"
            print(f"{kind:<12}", (around + text[span.end : span.end + 20]).replace("\n", " "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the block list")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="finds of each kind to print")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "domains")
        with path.open("w") as stream:
            stream.writelines(f"site{k:x}.example{k % 97}.org\n" for k in range(arguments.entries))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.process_time()
        lists = BlockLists([("domains", str(path))], [], [], [])
        seconds = time.process_time() - begin
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"block list of {arguments.entries:,} entries: read in {seconds:.1f} s, {more:.0f} MB more at its peak")

    read = pages()
    texts = [text for _, text in read]
    characters = sum(map(len, texts))
    find("compile 1 a@b.org")
    begin = time.process_time()
    found = [(text, find(text)) for text in texts]
    seconds = time.process_time() - begin
    print(f"{len(texts)} pages, {characters / 1e6:.1f} million characters")
    print(f"personal data: {characters / seconds / 1e6:.0f} million characters a second")
    plain = "The river runs past the old mill and the bridge, in 1998 as in 2024. " * 100_000
    begin = time.process_time()
    find(plain)
    print(f"prose without any: {len(plain) / (time.process_time() - begin) / 1e6:.0f} million characters a second")
    for name, some in (("all pages", found), ("Chinese pages", [row for row in found if chinese(row[0])])):
        counts = Counter(span.kind for _, spans in some for span in spans)
        print(
            f"{name}: {len(some)}, {sum(bool(spans) for _, spans in some)} with finds, {dict(sorted(counts.items()))}"
        )
    show(found, arguments.show, arguments.seed)

    draw = random.Random(arguments.seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(4, 12))) for _ in range(1500)]
    automaton = Automaton(words)
    automaton.look("compile", bounded=True)
    for bounded in (True, False):
        begin = time.process_time()
        for text in texts:
            automaton.look(text.lower(), bounded)
        rate = characters / (time.process_time() - begin) / 1e6
        print(f"1,500 words, {'between boundaries' if bounded else 'anywhere'}: {rate:.0f} million characters a second")

    begin = time.process_time()
    for uri, _ in read:
        lists.find(uri)
    print(f"addresses: {len(read) / (time.process_time() - begin):,.0f} a second")


if __name__ == "__main__":
    main()
