"""Headwater's presets beside datatrove's filters on the same texts: how often they agree, and what parts them.

    .venv/bin/python benchmarks/parity.py --peer-python PEER/bin/python [--pages ../shared/samples/cc/pages]

PEER is a virtual environment with what `peer_datatrove.py` names. The texts are the English pages of the sample as
Headwater extracts them, for `fineweb2` the Chinese ones; datatrove gives each to a preset's filters one after the other
and stops at the first that drops it. Prints a Markdown table, and for each disagreement its rule and some addresses.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from curate import documents_of, peer

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.tables import RAW, to_table

READINGS = (
    ("gopher", CurateConfig(preset="gopher")),
    ("gopher", CurateConfig(preset="gopher", compat="datatrove")),
    ("c4", CurateConfig(preset="c4")),
    ("c4", CurateConfig(preset="c4", compat="datatrove")),
    ("fineweb", CurateConfig(preset="fineweb")),
    ("fineweb2", CurateConfig(preset="fineweb2")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="an interpreter with datatrove")
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser.add_argument("--pages", type=Path, default=samples / "cc" / "pages")
    given = parser.parse_args()
    if not given.peer_python:
        print("left out: name an interpreter with datatrove by --peer-python or PEER_PYTHON")
        return
    documents = [one for one in documents_of(given.pages) if one.language in ("en", "zh")]
    with tempfile.TemporaryDirectory() as scratch:
        texts, result = Path(scratch) / "texts.jsonl", Path(scratch) / "verdicts.jsonl"
        rows = ({"id": k, "text": one.text, "language": one.language} for k, one in enumerate(documents))
        texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        peer(given.peer_python, "verdicts", texts, result)
        theirs = [json.loads(line) for line in result.open(encoding="utf-8")]
    print("| preset | compat | both keep | both drop | only Headwater drops | only datatrove drops | agree |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    notes = []
    for name, config in READINGS:
        held = [other for other in theirs if name in other]
        decisions = curate_batch(to_table([documents[one["id"]] for one in held], RAW), config)[0].to_pylist()
        counts: Counter[tuple[bool, bool]] = Counter()
        apart: dict[str, list[str]] = defaultdict(list)
        for ours, other in zip(decisions, held, strict=True):
            drops = ours["rule"] is not None, other[name] is not None
            counts[drops] += 1
            if drops[0] != drops[1]:
                reason = f"Headwater: {ours['rule']}" if drops[0] else f"datatrove: {other[name]}"
                apart[reason].append(documents[other["id"]].uri)
        agree = (counts[False, False] + counts[True, True]) / len(held)
        numbers = counts[False, False], counts[True, True], counts[True, False], counts[False, True]
        print(f"| {name} | {config.compat} | " + " | ".join(map(str, numbers)) + f" | {agree:.1%} |")
        for reason, uris in sorted(apart.items(), key=lambda item: -len(item[1])):
            notes.append(f"{name} {config.compat} {reason}: {len(uris)}, such as {', '.join(uris[:2])}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
