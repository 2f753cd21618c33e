"""The tokenizer loses nothing, can't be talked into special tokens, and is the same in every process."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from datalake.errors import UserError
from models.text import tokenizer as room
from models.text.config import END, EOS, SPECIALS, TokenizerConfig

TEXTS = [
    "def total(values):\n    return sum(values)  # 2024\n\n\n" * 20,
    "Water flows downhill, and 1,234 streams don't stop. " * 30,
    "水往低处流，人往高处走。繁體字也一樣。" * 30,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "trained"
    room.train(TEXTS, TokenizerConfig(vocabulary=500), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    return room.load(folder)


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "",
        " ",
        "\r\n\t  \n x",
        "café naïve ﬁ",
        "👩‍👩‍👧 🇨🇭 🌊",
        "𠮷野家 漢字",
        "\x00\ufffd\u200b",
        "a<|bos|><|end|>b",
        "<|pad|>" * 3,
    ],
)
def test_text_comes_back_as_it_was_and_never_as_special_tokens(tokenizer, text: str) -> None:
    ids = room.encode(tokenizer, [text])[0]
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.convert_tokens_to_ids(list(SPECIALS)))


def test_special_tokens_come_first_and_never_move(tokenizer) -> None:
    pinned = """<|bos|> <|eos|> <|pad|> <|system|> <|user|> <|assistant|> <|end|> <|mask|>
        <|tool_call|> <|/tool_call|> <|tool_result|> <|/tool_result|> <|think|> <|/think|>
        <|fim_prefix|> <|fim_middle|> <|fim_suffix|>
        <|spare_0|> <|spare_1|> <|spare_2|> <|spare_3|> <|spare_4|> <|spare_5|> <|spare_6|> <|spare_7|>
        <|spare_8|> <|spare_9|> <|spare_10|> <|spare_11|> <|spare_12|> <|spare_13|> <|spare_14|> <|spare_15|>"""
    assert list(SPECIALS) == pinned.split()
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == list(range(33))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == SPECIALS[:3]
    assert tokenizer.mask_token_id == 7
    assert set(tokenizer.all_special_tokens) == set(SPECIALS)
    assert len(tokenizer) <= 500
    assert room.stop_ids(tokenizer) == sorted([room.special(tokenizer, EOS), room.special(tokenizer, END)])


def test_a_tokenizer_from_before_the_reserved_ones_writes_dialogues_still(tokenizer) -> None:
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    settings["added_tokens"] = settings["added_tokens"][:7]
    older = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)))
    assert room.ours(older) == room.ours(tokenizer)


def test_every_digit_stands_alone(tokenizer) -> None:
    pieces = tokenizer.convert_ids_to_tokens(room.encode(tokenizer, ["1,234 in 2024x10"])[0])
    assert all(len(piece) == 1 for piece in pieces if any(c.isdigit() for c in piece))


def test_training_is_the_same_in_another_process_with_other_threads(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.models.test_tokenizer import TEXTS, TokenizerConfig, room\n"
        f"room.train(iter(TEXTS), TokenizerConfig(vocabulary=500), {str(tmp_path / 'again')!r})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=root)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_use_doesnt_change_what_is_saved(folder: Path, tokenizer, tmp_path: Path) -> None:
    room.encode(tokenizer, ["<|bos|>"])
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_file_that_remembers_cutting_and_padding_does_neither(folder: Path, tokenizer, tmp_path: Path) -> None:
    # model2vec#374, fastembed#716: whoever used the tokenizer last left its lengths in tokenizer.json
    shutil.copytree(folder, tmp_path / "used")
    used = room.load(tmp_path / "used")
    used.backend_tokenizer.enable_truncation(4)
    used.backend_tokenizer.enable_padding(length=9)
    used.backend_tokenizer.save(str(tmp_path / "used" / "tokenizer.json"))
    texts = ["A long text that has far more than four tokens in it.", "a"]
    assert room.encode(room.load(tmp_path / "used"), texts) == room.encode(tokenizer, texts)


def test_tokens_without_a_row_in_the_model_are_refused_unless_nothing_writes_them(folder: Path) -> None:
    # transformers#11102: added tokens, and an embedding that wasn't made larger
    words = room.load(folder)
    rows = len(words)
    room.check_rows(words, rows)
    words.add_special_tokens({"pad_token": "[PAD]"})
    room.check_rows(words, rows)
    with pytest.raises(UserError, match=r"2 tokens beyond the \d+ that the model has rows for, such as"):
        room.check_rows(words, rows - 2)
    words.eos_token = "[PAD]"
    with pytest.raises(UserError, match=r"1 tokens beyond .* such as '\[PAD\]'"):
        room.check_rows(words, rows)


def test_training_stops_at_the_sample(tmp_path: Path) -> None:
    asked = []

    def texts():
        for number in range(10):
            asked.append(number)
            yield "ä" * 50

    room.train(texts(), TokenizerConfig(vocabulary=300, sample_bytes=151), tmp_path / "t")
    assert asked == [0, 1, 2]  # 100 bytes, then 51 of the second, cut between characters; the third ends it


def test_no_text_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text"):
        room.train([], TokenizerConfig(), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_tokenizer_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        room.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{ not json")
    with pytest.raises(UserError, match="can't be read"):
        room.load(tmp_path)


ALPHABETS = ["ab '", "a \n", "a\t \r\n", "1a ,.", "水。，a ", "é'sll ", " \n\t!", "\u0301a  \u3000\n", "🌊 _\x85\x1c a"]


def test_a_text_cut_where_it_may_be_has_the_tokens_of_the_whole(tokenizer) -> None:
    draw = random.Random(3)
    cuts = 0
    for number in range(600):
        letters = ALPHABETS[number % len(ALPHABETS)]
        text = "".join(draw.choice(letters) for _ in range(draw.randint(2, 60)))
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        for match in room._SAFE.finditer(text):
            parts = [
                tokenizer(part, add_special_tokens=False)["input_ids"]
                for part in (text[: match.start()], text[match.start() :])
            ]
            assert parts[0] + parts[1] == whole, (text, match.start())
            cuts += 1
    assert cuts > 1000


def test_a_long_text_has_the_tokens_of_the_whole(tokenizer, monkeypatch) -> None:
    texts = ["\n\n".join(TEXTS) * 3, "水往低处流，人往高处走。" * 50, "", "short"]
    whole = room.encode(tokenizer, texts)
    monkeypatch.setattr(room, "PIECE", 37)
    monkeypatch.setattr(room, "_TOGETHER", 100)
    assert all(len(piece) <= 37 for text in texts for piece in room._pieces(text))
    assert ["".join(room._pieces(text)) for text in texts] == texts
    assert room.encode(tokenizer, texts) == whole


@pytest.mark.parametrize("unit", [" ", "a", "水", "\n", "🌊", "!", "a1", " \n", "word "])
def test_a_run_of_anything_is_cut_into_pieces_and_loses_nothing(tokenizer, unit: str, monkeypatch) -> None:
    monkeypatch.setattr(room, "PIECE", 1000)
    text = "Begin" + unit * 3000 + "end"
    ids = room.encode(tokenizer, [text])[0]
    assert tokenizer.decode(ids) == text


@pytest.mark.slow
def test_ten_million_blanks_are_tokens(tokenizer) -> None:
    # in one go the regular expression gives up: retry-limit-in-match over
    ids, more = room.encode(tokenizer, [" " * 10_000_000, "blanks"])
    assert len(ids) > 1000
    assert more == room.encode(tokenizer, ["blanks"])[0]


def test_what_is_no_character_is_read_as_a_question_mark(tokenizer) -> None:
    assert room.encode(tokenizer, ["a\ud800b", "c"]) == room.encode(tokenizer, ["a?b", "c"])
