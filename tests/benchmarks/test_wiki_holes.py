"""The count of sentences with holes finds those that there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datalake.extract.wiki import wikitext
from datalake.extract.wiki.wikitext import Options, clean

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import wiki_holes


def test_pages_have_no_holes_and_had_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(render: Callable[..., str]) -> int:
        monkeypatch.setattr(wikitext, "_template", render)
        wiki_holes.marked(wikitext)
        texts = [(clean(text, Options(language=lang)), lang) for lang, _, text in wiki_holes.pages_of_tests()]
        return sum(len(wiki_holes.holes(text, language)[1]) for text, language in texts)

    whole = wikitext._template

    def known_alone(values: list[str], arguments: list[list[str]], context: Any, place: Any) -> str:
        return whole(values, arguments, context, place._replace(words=False, kind="", before="", behind=""))

    assert count(whole) == 0
    assert count(known_alone) >= 5
