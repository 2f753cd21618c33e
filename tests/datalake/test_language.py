"""Language identification: right on real sentences, unsure where it should be, the same for any amount of text."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest

from datalake.errors import UserError
from datalake.text.language import detect

ENGLISH = "The quick brown fox jumps over the lazy dog while everybody is watching it happen."


def test_plain_sentences() -> None:
    assert detect(ENGLISH)[0] == "en"
    assert detect("今天天气很好，我们一起去公园散步吧。")[0] == "zh"
    assert detect(ENGLISH.upper())[0] == "en"


@pytest.mark.parametrize("text", ["", " \n\t\x00", "12345 67 !!", "()[]{}"])
def test_a_text_without_letters_has_no_language(text: str) -> None:
    assert detect(text) == ("und", 0.0)


def test_below_the_threshold_a_language_is_undetermined() -> None:
    language, score = detect(ENGLISH, threshold=0.0)
    assert language == "en"
    assert detect(ENGLISH, threshold=min(1.0, score + 0.0001))[0] == ("und" if score < 1 else "en")
    assert detect("zxq wvut", threshold=0.99)[0] == "und"


def test_newlines_nul_and_lone_surrogates_do_no_harm() -> None:
    assert detect(ENGLISH.replace(" ", "\n")) == detect(ENGLISH)
    assert detect(f"{ENGLISH}\x00\udcff")[0] == "en"


def test_only_the_beginning_counts() -> None:
    german = " Und so weiter und so fort, bis niemand mehr zuhören möchte."
    assert detect(ENGLISH * 30 + german * 1000) == detect(ENGLISH * 30 + german * 2000)
    assert detect("x" * 50_000_000 + german)[1] <= 1.0


def test_a_named_model_gives_the_same_and_another_file_is_refused(samples: Path, tmp_path: Path) -> None:
    assert detect(ENGLISH, model=str(samples / "models" / "lid.176.ftz")) == detect(ENGLISH)
    (tmp_path / "no.ftz").write_bytes(b"not a model at all")
    with pytest.raises(UserError, match="no fastText model"):
        detect(ENGLISH, model=str(tmp_path / "no.ftz"))


def test_accuracy_on_sentences_in_75_languages(samples: Path) -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    wrong_but_sure = 0
    with gzip.open(samples / "lid" / "lingua-sentences.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found, _ = detect(row["text"], threshold=0.0)
            right[row["lang"]].append(found == row["lang"])
            sure, _ = detect(row["text"])
            wrong_but_sure += sure not in ("und", row["lang"])
    total = sum(map(len, right.values()))
    assert total == 4500
    assert sum(right["en"]) / len(right["en"]) >= 0.98
    assert sum(right["zh"]) / len(right["zh"]) >= 0.95
    # Eight of the 75 languages aren't among the model's 176, so the ceiling is below 0.9.
    assert sum(map(sum, right.values())) / total >= 0.75
    assert wrong_but_sure / total <= 0.12
