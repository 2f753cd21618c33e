"""Supervised tuning on the reversal game: the loss falls, long dialogues are cut at turns, a kill costs nothing."""

import pytest
import torch
from toys import assert_told_alike, base, dialogue, reversals, words

from datalake.errors import UserError
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.text.packing import NO_ANSWER
from models.training.epochs import Epochs

CONFIG = SftConfig(batch=16, steps=20, learning_rate=3e-3, warmup=0.1, checkpoint_every=5, eval_every=10)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    tokenizer = words(folder / "tokenizer")
    dialogues = [dialogue(*pair) for pair in reversals(150, seed=1)]
    return {
        "base": base(folder / "base", tokenizer),
        "conversations": dialogues[:120],
        "heldout": dialogues[120:],
        "tokenizer": tokenizer,
    }


def run(world, out, config=CONFIG, **other):
    given = {key: world[key] for key in ("base", "conversations", "heldout")} | other
    return sft(config, **given, out=out)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, run(world, out)


def test_the_heldout_loss_falls(whole):
    _, report = whole
    assert report["heldout_loss_before"] > 5
    assert report["heldout_loss"] < 0.5 * report["heldout_loss_before"]
    assert (report["steps"], report["dialogues"], report["dropped"], report["cut"]) == (20, 120, 0, 0)
    # five digits and the end of each dialogue; an epoch is 8 steps, one of which has 8 dialogues instead of 16
    assert report["target_tokens"] in (6 * (2 * 120 + 4 * 16), 6 * (2 * 120 + 3 * 16 + 8))


def test_a_run_cut_in_the_middle_ends_with_the_same_bytes(world, whole, tmp_path):
    def cut(row):
        if row["step"] == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path, on_step=cut)
    torch.manual_seed(5)
    report = run(world, tmp_path)
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (tmp_path, whole[0])]
    assert weights[0] == weights[1]
    assert_told_alike(report, whole[1])


def test_cut_and_dropped_dialogues_are_counted(world, tmp_path):
    dialogues = [
        *world["conversations"][:4],
        [*dialogue("12", "21"), *dialogue("3" * 20, "3" * 20)],
        dialogue("9" * 30, "9"),
        dialogue("9", "9")[:1],
    ]
    report = run(world, tmp_path, CONFIG.model_copy(update={"steps": 1}), conversations=dialogues, heldout=[])
    assert (report["dialogues"], report["cut"], report["dropped"]) == (6, 2, 1)
    assert report["cut_by_length"] == {"up to 64 tokens": 2}
    assert report["left_out"] == [[6, NO_ANSWER, 4, 24]]
    assert "heldout_loss" not in report


def test_nothing_that_fits_is_said_in_one_line(world, tmp_path):
    with pytest.raises(UserError, match=r"none of 1 dialogues.*no answer of the assistant") as error:
        run(world, tmp_path, conversations=[dialogue("9" * 30, "9")[:1]])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoint").exists()


def test_the_tokenizer_goes_with_the_checkpoint(world, whole):
    _, tokenizer = checkpoint.load(whole[0] / "checkpoint")
    assert tokenizer.get_vocab() == world["tokenizer"].get_vocab()


class TestEpochs:
    def test_every_epoch_visits_each_item_once_in_another_order(self):
        lengths = [3 + place * 7 % 50 for place in range(101)]
        epochs = Epochs(lengths, seed=1, batch=8)
        seen = [[item for step in range(13) for item in epochs.items(step + 13 * epoch)] for epoch in range(2)]
        assert [sorted(items) for items in seen] == [list(range(101))] * 2
        assert seen[0] != seen[1]

    def test_a_step_depends_on_seed_and_number_alone(self):
        one, other = Epochs(list(range(50)), 3, 4), Epochs(list(range(50)), 3, 4)
        forwards = [one.items(step) for step in range(30)]
        assert forwards == [other.items(step) for step in reversed(range(30))][::-1]
        assert forwards != [Epochs(list(range(50)), 4, 4).items(step) for step in range(30)]

    def test_rows_of_a_batch_are_of_like_length(self):
        lengths = [place * 37 % 200 for place in range(400)]
        epochs = Epochs(lengths, 0, 8)
        waste = [
            max(lengths[item] for item in items) - min(lengths[item] for item in items)
            for items in map(epochs.items, range(50))
        ]
        assert sum(waste) / len(waste) < 25

    def test_epochs_become_whole_steps(self):
        assert [Epochs([1] * 10, 0, 4).steps(epochs) for epochs in (0.1, 1, 1.5, 2)] == [1, 3, 5, 6]
