"""Tables after public bug reports, written for them, and what is right: see `datalake/test_tables.py`."""

from __future__ import annotations

from pathlib import Path

TABLES = Path(__file__).parent / "datalake" / "tables"
RIVER = [
    "The river runs past the old mill and the meadows beside it are dry.",
    "Herons come down to the gardens in the early morning.",
    "The council will decide in autumn about the two bends.",
    "A model in the town hall shows how the valley may look.",
]
# File: its texts, and the reasons of what is refused or quarantined.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "array-trailing-comma.json": (RIVER, []),  # a comma behind an array's last element
    "arrow-data-00000-of-00001.arrow": (RIVER, []),  # a stream, as `datasets.save_to_disk` writes it
    "csv-backslash.csv": (  # as Spark writes it
        ['He said "the water is low", and left the mill at noon.', "A plain row of the table, with a comma.",
         'She answered "yes" to the council.'], []),
    "csv-cr.csv": (["The river runs past the mill.", "Herons come down in the morning."], []),  # old Excel for Mac
    "csv-headerless.csv": ([], ["header", "column"]),
    "csv-latin1.csv": (["Der Fluß an der Mühle ist tief.", "Plain ASCII row of the table."], []),
    "csv-quirks.csv": (  # UTF-16, quoted line ends, doubled quotes
        ["First line\r\nsecond line of the cell, long enough.", 'With "doubled" quotes in the text of the row.',
         "Plain text of the third row."], []),
    "csv-ragged.csv": (  # a row that is cut off, and one with a comma behind it
        ["Herons come down in the morning.", "The council will decide in autumn.", "A model shows the valley."],
        ["csv"]),
    "csv-semicolon.csv": (["The river runs past the mill.", "Herons come down in the morning."], []),
    "gzip-tail.jsonl.gz": (RIVER, ["damaged"]),  # two members, and something behind them
    "ids-mixed.jsonl": (RIVER, []),  # some rows have numbers for ids, others none
    "json-columns.json": (RIVER, []),  # as pandas writes it by default
    "json-field.json": (RIVER, []),  # rows under `data`
    "json-multiline.json": (RIVER, []),
    "jsonl-quirks.jsonl": (  # lone surrogates, NaN, equal keys, huge numbers
        ["First row of the file, with a lone surrogate \ud800 in it.", "Second value wins in this row of the file.",
         "A row with NaN beside its text.", "A row with a huge number for an id.", "one\ntwo",
         "last row without an end of line"],
        ["column", "column", "empty", "empty"]),
    "parquet-empty.parquet": ([], []),
    "parquet-ns.parquet": (RIVER, []),  # nanoseconds, which Python has none of
    "parquet-types.parquet": (RIVER, []),  # a dictionary, a large_string, a list, a struct, a decimal, binary
    "parquet-utf8.parquet": ([RIVER[0], RIVER[2], RIVER[3]], ["encoding"]),
    "trailing-comma.jsonl": (RIVER, []),  # an array whose brackets were cut off
    "zstd-frames.jsonl.zst": (RIVER, []),
    "zstd-long.jsonl.zst": ([f"{RIVER[n % 4]} Entry {n}." for n in range(200)], []),  # `--long=31`, as Pushshift's
}  # fmt: skip
