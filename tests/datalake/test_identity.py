"""Identity: equal meaning gives equal bytes in every process, and nothing enters a fingerprint by accident."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from datalake.files import file_digest
from datalake.identity import Paths, Place, canonical, data_version, fingerprint, plain


class Colour(Enum):
    RED = "red"


class Config(BaseModel):
    threshold: float = 0.8
    names: set[str] = {"a", "b"}
    paths: Paths = []
    model: Annotated[str, Place()] = ""


class Nested(BaseModel):
    inner: Config = Config()
    many: list[Config] = []


# What an encoded value means, independent of how its parts are ordered in memory.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_the_encoding_is_pinned() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"x", "y"}, "c": b"\x00\xff", "d": Colour.RED, "e": date(2026, 11, 23)}
    assert canonical(value) == b'{"a":["x","y"],"b":[1,2.5,null,true],"c":"00ff","d":"red","e":"2026-11-23"}'
    assert canonical("水") == '"水"'.encode()
    assert fingerprint(value) == hashlib.sha256(canonical(value)).hexdigest()
    assert canonical(datetime(2026, 11, 23, tzinfo=UTC)) == b'"2026-11-23T00:00:00+00:00"'


def test_a_whole_float_and_its_integer_mean_the_same() -> None:
    assert canonical(1.0) == canonical(1)
    assert canonical(0.8) != canonical(1)


@given(st.dictionaries(st.text(), VALUES, max_size=6))
def test_the_order_of_a_mapping_has_no_meaning(value: dict[str, Any]) -> None:
    assert canonical(value) == canonical(dict(reversed(list(value.items()))))


@given(st.lists(st.integers(), min_size=2, max_size=5, unique=True))
def test_the_order_of_a_list_has_meaning(value: list[int]) -> None:
    assert canonical(value) != canonical(value[::-1])


@given(VALUES, VALUES)
def test_values_with_different_plain_forms_have_different_fingerprints(a: Any, b: Any) -> None:
    assert (fingerprint(a) == fingerprint(b)) == (canonical(a) == canonical(b))


@pytest.mark.parametrize(
    "value",
    [object(), Path("/a"), 1j, float("nan"), float("inf"), -float("inf"), {1: "a"}, [object()], lambda: 0, range(3)],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_what_the_encoder_does_not_know_raises(value: Any) -> None:
    with pytest.raises(TypeError):
        fingerprint({"deep": [value]})


def test_an_unknown_type_inside_a_config_raises() -> None:
    class Loose(BaseModel):
        anything: Any = None

    with pytest.raises(TypeError, match="PosixPath has no canonical encoding"):
        fingerprint(Loose(anything=Path("/a")))


def test_places_never_enter() -> None:
    base = fingerprint(Nested())
    moved = Config(paths=["/elsewhere"], model="/else/where.bin")
    assert fingerprint(Nested(inner=moved)) == base
    assert fingerprint(Nested(many=[moved])) == fingerprint(Nested(many=[Config()])) != base
    assert "paths" not in plain(moved)
    assert "model" not in plain(moved)


def test_everything_else_of_a_config_enters() -> None:
    prints = {fingerprint(c) for c in (Config(), Config(threshold=0.7), Config(names={"a"}), Config(names={"a", "c"}))}
    assert len(prints) == 4


def test_every_process_encodes_alike_whatever_its_hash_seed() -> None:
    code = (
        "from datalake.identity import fingerprint\n"
        "print(fingerprint({'s': {'x%d' % i for i in range(50)}, 'm': {str(i): {i, -i} for i in range(20)}}))"
    )
    root = Path(__file__).parents[2]
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4294967295")
    }
    here = {"s": {f"x{i}" for i in range(50)}, "m": {str(i): {i, -i} for i in range(20)}}
    assert prints == {fingerprint(here) + "\n"}


def test_a_data_version_depends_on_the_shards_and_not_on_their_order() -> None:
    assert data_version(["a", "b"]) == data_version(["b", "a"])
    assert len({data_version(d) for d in ([], ["a"], ["a", "a"], ["a", "b"])}) == 4


def test_a_files_digest_is_the_xxh128_of_its_bytes(tmp_path: Path) -> None:
    for size in (0, 5, (1 << 20) + 3):
        data = bytes(i % 251 for i in range(size))
        (tmp_path / "f").write_bytes(data)
        assert file_digest(str(tmp_path / "f")) == xxhash.xxh3_128_hexdigest(data)
