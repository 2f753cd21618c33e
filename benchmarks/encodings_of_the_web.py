"""Two-byte pairs of the encodings of East Asia: how many are read as a browser reads them, by Headwater and by Python.

    .venv/bin/python benchmarks/encodings_of_the_web.py

Chromium's own TextDecoder is asked, offline, for every pair of bytes whose first has its high bit set, so the WHATWG
Encoding standard is compared with an implementation that isn't ours. Counted are the pairs that stand for characters in
the browser. Python's codec is the one of the encoding's name; web pages were read with it before. Chromium itself
errs at five pairs (`CHROMIUM_ERRS`), where the standard's own index is followed.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from datalake.text.encodings import decode

TWO_BYTES = ("gb18030", "gbk", "big5", "euc-jp", "shift_jis", "euc-kr")
# Where Chromium 156 errs: four pairs of Big5 that stand for a letter and a mark, and the space of EUC-JP.
CHROMIUM_ERRS = {
    ("big5", 0x88, 0x62),
    ("big5", 0x88, 0x64),
    ("big5", 0x88, 0xA3),
    ("big5", 0x88, 0xA5),
    ("euc-jp", 0xA1, 0xA1),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=60000",
    "--dump-dom",
]
_PAGE = """<pre id=o></pre><script>
const told = {};
const points = s => [...s].map(c => c.codePointAt(0).toString(16)).join("+");
for (const name of %s) {
  const decoder = new TextDecoder(name), rows = [];
  for (let a = 0x80; a < 256; a++)
    for (let b = 0; b < 256; b++) rows.push(points(decoder.decode(new Uint8Array([a, b]))));
  told[name] = rows.join(",");
}
for (const name of %s) {
  const decoder = new TextDecoder(name);
  told[name] = Array.from({length: 256}, (_, b) => points(decoder.decode(new Uint8Array([b])))).join(",");
}
document.getElementById("o").textContent = JSON.stringify(told);
</script>"""


def found_browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def browser_reads(binary: str, two_bytes: Sequence[str], single: Sequence[str]) -> dict[str, list[str]]:
    """By encoding, what the browser makes of each pair (first byte from 0x80, second from 0) or of each single byte."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(_PAGE % (json.dumps(list(two_bytes)), json.dumps(list(single))))
        command = [binary, *_OPTIONS, f"--user-data-dir={folder}/profile", page.as_uri()]
        told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    found = re.search(r'<pre id="o">(.*?)</pre>', told, re.DOTALL)
    if not found:
        raise ValueError(f"the browser showed something else: {told[:500]}")
    return {
        name: ["".join(chr(int(point, 16)) for point in text.split("+") if point) for text in row.split(",")]
        for name, row in json.loads(html.unescape(found[1])).items()
    }


def main() -> int:
    binary = found_browser()
    if binary is None:
        print("no Chromium: apt-get install chromium", file=sys.stderr)
        return 2
    reads = browser_reads(binary, TWO_BYTES, ())
    print("| encoding | pairs that stand for characters | read so by Headwater | read so by Python's codec |")
    print("| --- | --- | --- | --- |")
    for name in TWO_BYTES:
        pairs = ours = theirs = 0
        for number, wanted in enumerate(reads[name]):
            lead, trail = 0x80 + number // 256, number % 256
            if "\ufffd" in wanted or not wanted or (name, lead, trail) in CHROMIUM_ERRS:
                continue
            pair = bytes([lead, trail])
            pairs += 1
            ours += decode(pair, name) == wanted
            theirs += pair.decode(name, "replace") == wanted
        print(f"| {name} | {pairs:,} | {ours:,} | {theirs:,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
