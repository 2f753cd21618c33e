"""What fits a context: cut where the context ends, oldest turns first, and no more work than there is text."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from toys import dialogue, words

from models.serving import chat
from models.text import packing as fitting
from models.text import tokenizer
from models.text.config import TokenizerConfig
from models.text.packing import fit_dialogue, fit_pair, fit_prompt, most
from models.text.rendering import UnfitError, render


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return words(tmp_path_factory.mktemp("words") / "tokenizer")


SYSTEM = {"role": "system", "content": "0"}
TURNS = [*dialogue("11111", "22222"), {"role": "user", "content": "3"}]
PAIR = {"prompt": [SYSTEM, *TURNS], "chosen": "4", "rejected": "55555"}
LESSON = [*dialogue("12", "21"), *dialogue("34567", "76543")]


class TestDialogue:
    def test_one_that_fits_stays_whole(self, vocabulary):
        ids, mask = render(LESSON, vocabulary)
        assert fit_dialogue(LESSON, vocabulary, len(ids)) == ((ids, mask), len(ids), False, "")
        assert sum(mask) == 3 + 6
        # what follows the last answer teaches nothing
        more = [*LESSON, {"role": "user", "content": "8"}]
        assert fit_dialogue(more, vocabulary, 100).item == (ids, mask)
        assert not fit_dialogue(more, vocabulary, 100).cut

    def test_where_its_first_answer_begins_its_tokens_are_the_first_and_the_last_is_the_assistants(self, vocabulary):
        ids, mask = render(LESSON, vocabulary)
        first = mask.index(True)
        for limit in range(first + 3, len(ids) + 1):
            item, tokens, cut, _ = fit_dialogue(LESSON, vocabulary, limit)
            assert tokens == len(ids)
            kept, counted = item
            assert len(kept) <= limit
            assert (kept, counted) == (ids[: len(kept)], mask[: len(kept)])
            assert counted[-1]
            assert sum(counted) == sum(mask[:limit])
            assert cut == (sum(counted) < sum(mask))

    def test_a_first_question_too_long_goes_with_its_answer(self, vocabulary):
        talk = [SYSTEM, *dialogue("9" * 40, "1"), *dialogue("8" * 40, "2"), *dialogue("3", "4"), *dialogue("5", "6")]
        item, tokens, cut, _ = fit_dialogue(talk, vocabulary, 20)
        assert item == render([SYSTEM, *talk[-4:]], vocabulary)
        assert (tokens, cut) == (len(render(talk, vocabulary)[0]), True)
        # what isn't learned is no answer to begin with
        weighed = [message | {"weight": str(int(place > 6))} for place, message in enumerate(talk)]
        weighed[7] = talk[7] | {"content": "8" * 40}
        (ids, mask), *_ = fit_dialogue(weighed, vocabulary, 20)
        assert (len(ids) <= 20, sum(mask)) == (True, 2)

    @pytest.mark.parametrize("limit", [16, 24, 40])
    def test_then_the_middle_of_the_last_question_until_the_answer_has_room_to_begin(self, vocabulary, limit):
        talk = [*dialogue("7" * 60, "1"), *dialogue("12345" * 10 + "67890", "3" * 30)]
        (ids, mask), tokens, cut, _ = fit_dialogue(talk, vocabulary, limit)
        assert (tokens, cut) == (len(render(talk, vocabulary)[0]), True)
        assert len(ids) == limit
        assert limit // 4 <= sum(mask) < limit // 4 + 3
        text = vocabulary.decode(ids)
        assert text.startswith("<|bos|><|user|>1")
        assert re.fullmatch(r"<\|bos\|><\|user\|>12345\d* … \d*0<\|end\|><\|assistant\|>3+", text) or limit == 16

    def test_a_long_system_message_gives_way_too(self, vocabulary):
        talk = [{"role": "system", "content": "4" * 80}, *dialogue("5", "6")]
        (ids, mask), *_ = fit_dialogue(talk, vocabulary, 24)
        assert vocabulary.decode(ids).endswith("<|end|><|user|>5<|end|><|assistant|>6<|end|>")
        assert sum(mask) == 2
        assert 20 <= len(ids) <= 24

    def test_one_that_the_context_holds_nothing_of_is_left_out(self, vocabulary):
        assert fit_dialogue(LESSON, vocabulary, 4).reason == fitting.TOO_LONG
        (ids, mask), *_ = fit_dialogue(LESSON, vocabulary, 5)  # bos, user, end, assistant, and one of the answer
        assert (len(ids), sum(mask)) == (5, 1)

    def test_a_turn_without_weight_is_read_and_not_learned(self, vocabulary):
        ids, mask = render(LESSON, vocabulary)
        for unlearned, learned in ((1, 3), (3, 1)):
            weighed = [turn | {"weight": str(int(place == learned))} for place, turn in enumerate(LESSON)]
            (kept, counted), *_ = fit_dialogue(weighed, vocabulary, 100)
            assert kept == ids[: len(kept)]
            assert sum(counted) == len(LESSON[learned]["content"]) + 1
            alone = render(LESSON[: unlearned + 1], vocabulary)[1]
            said = range(alone.index(True) if unlearned == 1 else len(alone) - 6, len(alone))
            assert not any(counted[place] for place in said if place < len(counted))
            assert mask[said[0]]
        nothing = [turn | {"weight": "0"} for turn in LESSON]
        assert fit_dialogue(nothing, vocabulary, 100)[2:] == (False, fitting.NO_ANSWER)

    def test_one_without_an_answer_is_left_out(self, vocabulary):
        assert fit_dialogue(LESSON[:1], vocabulary, 100)[2:] == (False, fitting.NO_ANSWER)
        assert fit_dialogue([], vocabulary, 100).item is None


class TestPair:
    def test_old_turns_go_first_the_same_for_both_answers_and_the_system_stays(self, vocabulary):
        whole = fit_pair(PAIR, vocabulary, 100).item
        shorter = fit_pair(PAIR, vocabulary, len(whole[1]) - 1)
        assert shorter.item == fit_pair({**PAIR, "prompt": [SYSTEM, TURNS[-1]]}, vocabulary, 100).item
        assert (shorter.cut, shorter.tokens) == (True, len(whole[1]))

    def test_then_the_answers_are_cut_where_the_context_ends(self, vocabulary):
        least = fit_pair({**PAIR, "prompt": [SYSTEM, TURNS[-1]]}, vocabulary, 100).item
        opening = least.start
        assert (
            least.chosen[opening:]
            == render([{"role": "user", "content": ""}, {"role": "assistant", "content": PAIR["chosen"]}], vocabulary)[
                0
            ][-2:]
        )
        for context in range(opening + 3, len(least[1])):
            found = fit_pair(PAIR, vocabulary, context)
            assert found.item == (least[0][:context], least[1][:context], opening)
            assert found.cut
            assert found.tokens == len(fit_pair(PAIR, vocabulary, 100).item[1])
        # answers that differ only beyond the context say nothing
        alike = {**PAIR, "chosen": "5" * 50 + "4", "rejected": "5" * 60}
        assert fit_pair(alike, vocabulary, 40).reason == fitting.TOO_LONG

    def test_a_prompt_too_long_is_cut_in_the_middle_the_same_for_both(self, vocabulary):
        long = {**PAIR, "prompt": [SYSTEM, {"role": "user", "content": "1" + "9" * 60 + "2"}]}
        chosen, rejected, start = fit_pair(long, vocabulary, 24).item
        opening = rejected.index(tokenizer.special(vocabulary, "<|assistant|>"))
        assert start == opening + 1
        assert chosen[: opening + 1] == rejected[: opening + 1]
        assert "<|user|>19" in vocabulary.decode(rejected[:opening])
        assert vocabulary.decode(rejected[:opening]).endswith("92<|end|>")
        assert vocabulary.decode(rejected[opening + 1 :]) in ("55555<|end|>", "55555")
        assert fit_pair(long, vocabulary, 4).reason == fitting.TOO_LONG

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"rejected": "4"}, fitting.EQUAL),
            ({"rejected": None}, fitting.ONE_ANSWER),
            ({"chosen": None}, fitting.ONE_ANSWER),
            ({"prompt": [SYSTEM]}, fitting.NO_QUESTION),
            ({"prompt": []}, fitting.NO_QUESTION),
        ],
    )
    def test_what_is_no_pair_is_left_out_with_the_reason(self, vocabulary, change, reason):
        assert fit_pair({**PAIR, **change}, vocabulary, 100)[::3] == (None, reason)


def test_a_prompt_without_room_loses_old_turns_and_then_its_middle(vocabulary):
    turns = [*dialogue("11111", "22222"), {"role": "user", "content": "3"}]
    whole = len(render(turns, vocabulary, prompt=True)[0])
    assert fit_prompt(turns, vocabulary, 10) == (render(turns[-1:], vocabulary, prompt=True)[0], whole, True, "")
    assert fit_prompt(turns, vocabulary, whole).cut is False
    long = [{"role": "user", "content": "1" + "9" * 60 + "2"}]
    found = fit_prompt(long, vocabulary, 20)
    assert (len(found.item) in (19, 20), found.cut) == (True, True)
    assert vocabulary.decode(found.item).startswith("<|bos|><|user|>19")
    assert vocabulary.decode(found.item).endswith("92<|end|><|assistant|>")
    assert fit_prompt(turns, vocabulary, 3)[::3] == (None, fitting.TOO_LONG)
    assert fit_prompt([], vocabulary, 4).item is None


def test_what_was_cut_and_left_out_is_counted_by_length(vocabulary):
    talks = [dialogue("1", "2"), dialogue("3", "4" * 100), dialogue("5" * 50, "6" * 9), [], LESSON[:1]]
    found = fitting.fit_all(talks, lambda talk: fit_dialogue(talk, vocabulary, 20))
    figures = found.figures(20)
    assert (found.numbers, found.cut, figures["cut"], figures["dropped"]) == ([0, 1, 2], 2, 2, 2)
    assert figures["cut_by_length"] == {"up to 64 tokens": 1, "up to 128 tokens": 1}
    assert figures["left_out_by_length"] == {"up to 1 tokens": 1, "up to 8 tokens": 1}
    assert figures["left_out"] == [[3, fitting.NO_ANSWER, 1, 20], [4, fitting.NO_ANSWER, 5, 20]]
    assert found.why == fitting.NO_ANSWER
    assert fitting.by_length([256, 257, 512]) == {"up to 256 tokens": 1, "up to 512 tokens": 2}


def test_one_that_the_template_cant_write_costs_no_other(vocabulary, monkeypatch):
    plain = fitting.render

    def refusing(messages, *arguments, **more):
        if messages[0]["content"] == "12":
            raise UnfitError("roles must alternate")
        return plain(messages, *arguments, **more)

    monkeypatch.setattr(fitting, "render", refusing)
    found = fitting.fit_all([LESSON, LESSON[2:]], lambda talk: fit_dialogue(talk, vocabulary, 100))
    assert found.numbers == [1]
    assert found.left_out == [(0, fitting.REFUSED, 0)]


@pytest.mark.parametrize("context", [128, 256])
def test_of_real_dialogues_hardly_one_is_lost(context: int, samples: Path, tmp_path: Path):
    talks = []
    for name in ("alpaca_en_demo", "alpaca_zh_demo"):
        rows = json.loads(gzip.decompress((samples / f"instruction/llamafactory-{name}.json.gz").read_bytes()))
        talks += [dialogue(f"{row['instruction']}\n\n{row['input']}".strip(), row["output"]) for row in rows]
    texts = [message["content"] for talk in talks[::5] for message in talk]
    ours = tokenizer.train(texts, TokenizerConfig(vocabulary=2048), tmp_path / "words")
    some = talks[::2]
    found = fitting.fit_all(some, lambda talk: fit_dialogue(talk, ours, context))
    assert len(found.left_out) <= 0.02 * len(some)
    assert all(any(mask) and len(ids) <= context for ids, mask in found.items)


def test_most_finds_the_largest_that_fits():
    for count in range(1, 40):
        for limit in range(45):
            assert most(count, lambda n, limit=limit: n if n <= limit else None) == (min(count, limit) or None)


@pytest.mark.parametrize("kind", ["sft", "pair", "prompt", "chat"])
def test_a_dialogue_of_many_turns_is_encoded_a_few_times_not_once_a_turn(vocabulary, monkeypatch, kind):
    encoded = 0
    plain = tokenizer.encode

    def counting(words, texts):
        nonlocal encoded
        encoded += len(texts)
        return plain(words, texts)

    monkeypatch.setattr(tokenizer, "encode", counting)
    talk = [message for number in range(2000) for message in dialogue(f"{number}", f"{number}")]
    question = [*talk, {"role": "user", "content": "1"}]
    for room in (60, 10**6):
        encoded = 0
        if kind == "sft":
            assert fit_dialogue(talk, vocabulary, room).item
        elif kind == "pair":
            assert fit_pair({"prompt": question, "chosen": "4", "rejected": "5"}, vocabulary, room).item
        elif kind == "prompt":
            assert fit_prompt(question, vocabulary, room).item
        else:
            assert chat.fitting(question, vocabulary, room)
        assert encoded < (200 if room == 60 and kind == "chat" else 8 * len(question))
