"""Crawled pages to kept Parquet: the `headwater run` of it beside datatrove's FineWeb pipeline, on one core.

    .venv/bin/python benchmarks/pages_to_parquet.py --peer-python PEER/bin/python [--pages 10000] [--rounds 1]
        [--peer-pages 1000] [--folder build/pages] [--samples ../shared/samples]

PEER is a virtual environment as `peer_datatrove.py` names it. The pages are the samples' own, under as many addresses
as it takes, gzipped record by record, a thousand an archive. Both commands are timed from their start to their end,
each pinned to one core with everything it starts. datatrove, which takes most of a minute for a thousand pages, gets
--peer-pages of them, and pages a second are compared. Headwater: ingest and curation with the preset `fineweb`,
committed to a new lake. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from _command import headwater_run, on_one_core, taking_turns

ARCHIVE = 1000  # pages


def copies(samples: Path, pages: int) -> Iterator[tuple[str, bytes]]:
    """Addresses and HTTP messages of so many pages."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    taken, round_ = 0, 0
    while True:
        for file in sorted(samples.glob("pages-dev-*.warc.gz")):
            with file.open("rb") as stream:
                for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=False):
                    address = record.headers["WARC-Target-URI"]
                    yield f"{address}{'&' if '?' in address else '?'}copy={round_}", record.reader.read()
                    taken += 1
                    if taken == pages:
                        return
        round_ += 1


def archives(folder: Path, samples: Path, pages: int) -> Path:
    """The archives of so many pages, written unless they are there; where they lie."""
    from io import BytesIO

    from warcio.warcwriter import WARCWriter

    place = folder / f"pages-{pages}"
    if (place / "done").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    messages = copies(samples, pages)
    for k in range(-(-pages // ARCHIVE)):
        with (place / f"pages-{k:05d}.warc.gz").open("wb") as out:
            writer = WARCWriter(out, gzip=True)
            for address, message in (next(messages) for _ in range(min(ARCHIVE, pages - k * ARCHIVE))):
                headers = {"WARC-Date": "2026-01-01T00:00:00Z"}
                record = writer.create_warc_record(
                    address,
                    "response",
                    payload=BytesIO(message),
                    warc_headers_dict=headers,
                    warc_content_type="application/http; msgtype=response",
                )
                writer.write_record(record)
    (place / "done").touch()
    return place


def ours(place: Path, work: Path) -> dict[str, float]:
    recipe = work / "recipe.yaml"
    source = f"  - {{kind: common_crawl, paths: ['{place}/*.warc.gz']}}"
    recipe.write_text(f"corpus: bench\nsources:\n{source}\ncurate: {{preset: fineweb}}\n")
    return headwater_run(recipe, "curate", work)


def datatrove(python: str, place: Path, lid: Path, work: Path) -> dict[str, float]:
    script = str(Path(__file__).with_name("peer_datatrove.py"))
    command = [python, script, "pipeline", str(place), str(work / "kept.jsonl"), "--lid", str(lid)]
    whole, printed = on_one_core(command, work / "datatrove.log")
    answer = json.loads(printed.splitlines()[-1])
    return {"whole": whole, "stages": answer["total"], "kept": answer["kept"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="an interpreter with datatrove")
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--peer-pages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/pages"))
    parser.add_argument("--samples", type=Path, default=Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples")))
    given = parser.parse_args()
    folder, web = given.folder.resolve(), given.samples.resolve() / "cc" / "pages"
    many = archives(folder, web, given.pages)
    contestants = {"headwater": lambda: ours(many, folder)}
    if given.peer_python:
        few, lid = archives(folder, web, given.peer_pages), given.samples.resolve() / "models" / "lid.176.ftz"
        contestants["datatrove"] = lambda: datatrove(given.peer_python, few, lid, folder)
    medians = taking_turns(contestants, given.rounds)
    medians = {name: of for name, of in medians.items() if isinstance(of, dict)}
    for name, pages in (("headwater", given.pages), ("datatrove", given.peer_pages)):
        if name in medians:
            medians[name]["pages/s"] = round(pages / medians[name]["whole"], 1)
    if "datatrove" in medians:
        times = medians["headwater"]["pages/s"] / medians["datatrove"]["pages/s"]
        medians["times as fast"] = round(times, 2)
    print(json.dumps({"pages": given.pages, "peer pages": given.peer_pages, **medians}))


if __name__ == "__main__":
    main()
