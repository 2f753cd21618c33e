"""YAML as people mean it: what is a number and what a text, and the line of every mistake."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.text.yaml_text import YamlError, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3", 0.003),
        ("1E5", 100_000.0),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("65_536", 65_536),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'3'", "3"),
        ('"\\u4f60"', "你"),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
        ("1e", "1e"),
        ("e5", "e5"),
        ("-.inf", -math.inf),
    ],
)
def test_a_plain_value_is_what_it_looks_like(text: str, value: Any) -> None:
    found = read_yaml(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice, first in line 1"),
        ("a:\n  b: 1\n  'b': 2", "line 3: 'b' is given twice, first in line 2"),
        ("a: &x [1, *x]", "line 1: *x stands within what it stands for"),
        ("a: &x {b: *x}", "line 1: *x stands within"),
        ("a: *x", "line 1: *x stands for nothing"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag !!python/object/apply:os.system has no meaning"),
        ("a: !Ref x", "line 1: the tag !Ref"),
        ("a: !!set {x}", "line 1: the tag !!set"),
        ("a: !!int x", "'x' is no !!int"),
        ("a:\n\tb: 1", "line 2: a tab"),
        ("a: @x", "line 1: a value can't begin with @: put it in quotes"),
        ("a: 1\n---\nb: 2", "line 2: a second document begins"),
        ("a: 1\nb: \0", "line 2: a character that no text has (U+0000)"),
        (b"a: 1\nb: \xe9", "line 2: it isn't UTF-8"),
        ("a: 1".encode("utf-16"), "line 1: it isn't UTF-8"),
        ("[" * 100_000, "nested deeper"),
        ("- " * 5_000, "nested deeper"),
        ("a: " + "1" * 5_000, "line 1: a number of 5,000 digits"),
        ("? [a]\n: 1", "line 1: a key must be a name"),
        ("a: [1", "line 2: "),
        ("<<: 3", "<< takes a mapping"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_own(text: str | bytes, said: str) -> None:
    with pytest.raises(YamlError) as error:
        read_yaml(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_aliases_that_grow_without_end_are_refused_before_they_do() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    with pytest.raises(YamlError, match="line 6: more than 200,000 values"):
        read_yaml("l0: &l0 [1]\n" + levels)


def test_an_alias_is_a_value_of_its_own_and_merging_keeps_what_is_said() -> None:
    data = read_yaml("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}")
    data["a"]["y"].append(9)
    assert data["b"] == {"x": 1, "y": [2]}
    assert data["c"] == {"x": 3, "y": [2]}


def test_marks_line_ends_and_empty_texts() -> None:
    assert read_yaml(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}
    assert read_yaml("") is read_yaml("# nothing\n") is None
    assert read_yaml("2024: x\n~: y") == {"2024": "x", "~": "y"}
    assert read_yaml("vars: {a: 010, b: ~}\nc: 010", verbatim=["vars"]) == {"vars": {"a": "010", "b": None}, "c": 10}


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(_DATA)
def test_json_is_read_as_json_is(data: Any) -> None:
    """JSON is YAML: whatever is written as JSON is read as the same data."""
    assert read_yaml(json.dumps(data, ensure_ascii=False)) == data


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_TEXT.filter(lambda t: t != "<<"), _DATA, max_size=4))
def test_what_pyyaml_writes_of_sure_values_is_read_back(data: dict[str, Any]) -> None:
    """Texts quoted, as a writer of YAML 1.1 leaves some unquoted that 1.2 takes for numbers."""
    assert read_yaml(yaml.safe_dump(data, allow_unicode=True, default_style='"', sort_keys=False)) == data
