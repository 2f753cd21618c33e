"""Near duplicates of a text: what the lake's bands propose, beside a comparison with every document."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import world
from harness import Command

from datalake.dedup.similar import search, sign_text, signing_of
from datalake.dedup.texts.shingles import word_list
from datalake.errors import UserError
from datalake.lake.lake import Lake as Store
from datalake.lake.lake import TableRef
from datalake.lake.records import find_manifest
from flows.lake import Lake


def edited(text: str, words: int, seed: int) -> str:
    """The text with so many of its words replaced."""
    draw, pieces = random.Random(seed), text.split(" ")
    for place in draw.sample(range(len(pieces)), words):
        pieces[place] = f"edited{place}"
    return " ".join(pieces)


@pytest.fixture(scope="module")
def made(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A lake with originals, versions of them edited more and more, and an unrelated rest; all texts by address."""
    folder = tmp_path_factory.mktemp("similar")
    texts = {f"o{n}": world.prose(n, 16) for n in range(6)}
    texts |= {f"e{n}-{k}": edited(world.prose(n, 16), k, 10 * n + k) for n in range(3) for k in (1, 2, 3, 5, 9, 20)}
    texts |= {f"r{n}": world.prose(100 + n) for n in range(20)}
    texts |= {"zh": world.CHINESE, "none": "... --- ..."}
    file = world.jsonl(folder / "in.jsonl", [{"id": id, "text": text} for id, text in texts.items()])
    world.run(world.tables(folder, [file]), folder / "lake", "deduplicate")
    return folder / "lake", {f"in.jsonl#{id}": text for id, text in texts.items()}


def jaccard(one: str, other: str, ngram: int = 5) -> float:
    """By the definition: sets of word n-grams, in plain Python."""
    sets = []
    for text in (one, other):
        words = word_list(text)
        size = min(ngram, len(words))
        sets.append({tuple(words[k : k + size]) for k in range(len(words) - size + 1)} if words else set())
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if sets[0] | sets[1] else 0.0


@pytest.mark.parametrize("asked", ["o0", "e1-3", "e2-9", "zh", "r5", "new"])
def test_what_is_found_is_what_a_comparison_with_every_document_finds(
    made: tuple[Path, dict[str, str]], asked: str
) -> None:
    lake, texts = made
    text = world.prose(999) if asked == "new" else texts[f"in.jsonl#{asked}"]
    exact = {uri: jaccard(text, other) for uri, other in texts.items()}
    found = Lake(lake).similar(text)
    assert {row["uri"]: row["similarity"] for row in found} == {u: s for u, s in exact.items() if s >= 0.8}
    assert [row["similarity"] for row in found] == sorted((row["similarity"] for row in found), reverse=True)
    ledger = {row["id"].hex(): row for row in Lake(lake).query("SELECT id, uri, verdict FROM small.ledger").to_pylist()}
    for row in found:
        assert (row["uri"], row["verdict"]) == (ledger[row["id"]]["uri"], ledger[row["id"]]["verdict"])
    lower = {row["uri"]: row["similarity"] for row in Lake(lake).similar(text, threshold=0.3)}
    assert lower.items() <= exact.items()
    assert lower.keys() >= {row["uri"] for row in found}
    assert min(lower.values(), default=1.0) >= 0.3


def test_what_is_no_character_is_no_part_of_a_word(made: tuple[Path, dict[str, str]]) -> None:
    lake, texts = made
    assert Lake(lake).similar(texts["in.jsonl#o0"].replace(" ", " \ud800 ")) == Lake(lake).similar(texts["in.jsonl#o0"])


def test_a_documents_own_text_has_the_bands_that_are_stored(made: tuple[Path, dict[str, str]]) -> None:
    lake, texts = made
    ref = find_manifest(Store(lake)).refs["signatures"]
    assert isinstance(ref, TableRef)
    [file] = Store(lake).files(ref)
    import pyarrow.parquet as pq

    stored = {row["id"]: row for row in pq.read_table(file, columns=["id", "bands", "shingles"]).to_pylist()}
    for row in Lake(lake).query("SELECT id, uri FROM small.raw").to_pylist():
        if row["uri"] != "in.jsonl#none":
            shingles, bands = sign_text(texts[row["uri"]], signing_of(file))
            assert stored[row["id"]]["bands"] == bands.astype("<i8").tobytes()
            assert stored[row["id"]]["shingles"] == shingles.astype("<u8").tobytes()
    with pytest.raises(UserError, match="no words"):
        list(search([file], "!?", 0.5))


def test_the_text_comes_as_an_argument_a_file_or_from_stdin(
    made: tuple[Path, dict[str, str]],
    tmp_path: Path,
    headwater: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lake, texts = made
    text = texts["in.jsonl#e0-1"]
    status, out, err = headwater("similar", text, "--lake", lake, "--json")
    assert (status, err) == (0, "")
    rows = json.loads(out)
    assert list(rows[0]) == ["uri", "id", "similarity", "verdict"]
    assert (rows[0]["uri"], rows[0]["similarity"]) == ("in.jsonl#e0-1", 1.0)
    assert {row["verdict"] for row in rows} == {"kept", "duplicate"}
    (tmp_path / "text.txt").write_text(f"\ufeff{text}", encoding="utf-8")
    assert headwater("similar", "--file", tmp_path / "text.txt", "--lake", lake, "--json").out == out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert headwater("similar", "-", "--lake", lake, "--json").out == out
    table = headwater("similar", text, "--lake", lake).out
    assert table.splitlines()[0] == "similarity\tverdict\turi\tid"
    assert table.splitlines()[1].split("\t")[2] == "in.jsonl#e0-1"
    status, _, err = headwater("similar", text, "--lake", lake, "--threshold", "0.5")
    assert status == 0
    assert "they find" in err


def test_what_cannot_be_asked_is_one_line(
    made: tuple[Path, dict[str, str]], tmp_path: Path, headwater: Command
) -> None:
    lake, texts = made
    file = world.texts(tmp_path / "in.jsonl", range(3))
    world.run(world.tables(tmp_path, [file]), tmp_path / "lake", "curate")
    world.run(world.tables(tmp_path, [file], "other"), tmp_path / "two", "deduplicate")
    world.run(world.tables(tmp_path, [file]), tmp_path / "two", "deduplicate")
    for arguments, said in (
        (["similar", "--lake", lake], "give one text"),
        (["similar", "a", "--file", file, "--lake", lake], "give one text"),
        (["similar", "--file", tmp_path / "none", "--lake", lake], "can't be read"),
        (["similar", "...", "--lake", lake], "no words"),
        (["similar", "a", "--threshold", "1.5", "--lake", lake], "above 0 and at most 1"),
        (["similar", "a", "--corpus", "b", "--lake", lake], "no finished run of a corpus 'b'"),
        (["similar", "a", "--lake", tmp_path / "lake"], "small has no signatures"),
        (["similar", "a", "--lake", tmp_path / "two"], "name one of other, small (--corpus)"),
    ):
        assert said in headwater(*arguments).mistake()
    [row] = Lake(tmp_path / "two").similar(world.prose(1), corpus="other")
    assert row["similarity"] == 1.0
    assert texts
