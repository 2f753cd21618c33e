"""Writes the tables of `datalake/text/encodings.py` from the files of the WHATWG Encoding standard.

    .venv/bin/python benchmarks/build_encodings.py FOLDER

FOLDER holds `indexes.json` and `encodings.json` of https://github.com/whatwg/encoding. Pointers without a code point
are written as 0, which no index maps to. The tables that come with Headwater are from the standard as of May 2026.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from datalake.text.encodings import FILE

MULTI = {"gb18030": "gb18030", "big5": "big5", "jis0208": "jis0208", "jis0212": "jis0212", "euc_kr": "euc-kr"}


def _points(values: list[int | None]) -> np.ndarray:
    points = np.array([value or 0 for value in values], dtype=np.uint32)
    return points.astype(np.uint16) if points.max() < 1 << 16 else points


def main(folder: Path) -> None:
    indexes = json.loads((folder / "indexes.json").read_text())
    groups = json.loads((folder / "encodings.json").read_text())
    labels = {
        label: entry["name"].lower() for group in groups for entry in group["encodings"] for label in entry["labels"]
    }
    arrays = {name: _points(indexes[index]) for name, index in MULTI.items()}
    pointers, points = zip(*indexes["gb18030-ranges"], strict=True)
    arrays["range_pointers"], arrays["range_points"] = np.array(pointers, np.uint32), np.array(points, np.uint32)
    taken = {*MULTI.values(), "iso-2022-jp-katakana", "gb18030-ranges"}
    single = {name: _points(values) for name, values in indexes.items() if name not in taken}
    assert all(len(values) == 128 for values in single.values())
    told = {
        "labels": np.frombuffer(json.dumps(labels, sort_keys=True).encode(), np.uint8),
        "single": np.frombuffer(json.dumps(sorted(single)).encode(), np.uint8),
    }
    np.savez_compressed(FILE, **arrays, **single, **told)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {len(labels)} labels, {len(single)} single-byte encodings")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
