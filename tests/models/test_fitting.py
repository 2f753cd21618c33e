"""What fits a context: cut where the context ends, oldest turns first, and no more work than there is text."""

from __future__ import annotations

import pytest
from toys import dialogue, words

from models.serving import chat
from models.text import packing as fitting
from models.text import tokenizer
from models.text.packing import fit_dialogue, fit_pair, fit_prompt, most
from models.text.rendering import render


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

    def test_at_every_limit_its_tokens_are_the_first_and_the_last_is_the_assistants(self, vocabulary):
        ids, mask = render(LESSON, vocabulary)
        first = mask.index(True)
        for limit in range(1, len(ids) + 1):
            item, tokens, cut, reason = fit_dialogue(LESSON, vocabulary, limit)
            assert tokens == len(ids)
            if limit <= first:
                assert (item, reason) == (None, fitting.TOO_LONG)
                continue
            kept, counted = item
            assert len(kept) <= limit
            assert (kept, counted) == (ids[: len(kept)], mask[: len(kept)])
            assert counted[-1]
            assert sum(counted) == sum(mask[:limit])
            assert cut == (sum(counted) < sum(mask))

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
        assert not shorter.cut

    def test_then_the_answers_are_cut_where_the_context_ends(self, vocabulary):
        least = fit_pair({**PAIR, "prompt": [SYSTEM, TURNS[-1]]}, vocabulary, 100).item
        opening = len(least[0]) - 2
        for context in range(1, len(least[1])):
            found = fit_pair(PAIR, vocabulary, context)
            if context <= opening:
                assert (found.item, found.reason) == (None, fitting.TOO_LONG)
            else:
                assert found.item == (least[0][:context], least[1][:context])
                assert found.cut
        # answers that differ only beyond the context say nothing
        alike = {**PAIR, "chosen": "5" * 50 + "4", "rejected": "5" * 60}
        assert fit_pair(alike, vocabulary, 40).reason == fitting.TOO_LONG

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


def test_a_prompt_without_room_loses_old_turns_or_is_left_out(vocabulary):
    turns = [*dialogue("11111", "22222"), {"role": "user", "content": "3"}]
    assert fit_prompt(turns, vocabulary, 10).item == render(turns[-1:], vocabulary, prompt=True)[0]
    assert fit_prompt(turns, vocabulary, 4)[::3] == (None, fitting.TOO_LONG)
    assert fit_prompt([], vocabulary, 4).item is None


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
        assert encoded < (200 if room == 60 and kind != "sft" else 8 * len(question))
