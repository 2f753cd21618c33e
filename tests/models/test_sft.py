"""Supervised tuning on the reversal game: the loss falls, long dialogues are cut at turns, a kill costs nothing."""

import random
from collections import Counter

import pytest
import torch
from pydantic import ValidationError
from toys import assert_told_alike, base, conversations, dialogue, reversals, words
from transformers import AutoConfig, AutoModelForCausalLM

from datalake.errors import UserError
from models.methods.mixing import Mixed, shares_of
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.network.foreign import Foreign
from models.objectives.assistant_tokens import assistant_tokens, collate
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
        "conversations": conversations(dialogues[:120]),
        "heldout": conversations(dialogues[120:]),
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
        [*dialogue("12", "21"), *dialogue("3" * 20, "3" * 20)],
        dialogue("9" * 30, "9"),
        dialogue("9", "9")[:1],
    ]
    dialogues = [*world["conversations"][:4], *conversations(dialogues)]
    report = run(world, tmp_path, CONFIG.model_copy(update={"steps": 1}), conversations=dialogues, heldout=[])
    assert (report["dialogues"], report["cut"], report["dropped"]) == (6, 2, 1)
    assert report["cut_by_length"] == {"up to 64 tokens": 2}
    assert report["left_out"] == [[6, NO_ANSWER, 4, 24]]
    assert "heldout_loss" not in report


def test_nothing_that_fits_is_said_in_one_line(world, tmp_path):
    with pytest.raises(UserError, match=r"none of 1 dialogues.*no answer of the assistant") as error:
        run(world, tmp_path, conversations=conversations([dialogue("9" * 30, "9")[:1]]))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoint").exists()


def test_the_tokenizer_goes_with_the_checkpoint(world, whole):
    _, tokenizer = checkpoint.load(whole[0] / "checkpoint")
    assert tokenizer.get_vocab() == world["tokenizer"].get_vocab()


class TestPacking:
    """Dialogues that share rows: less padding and the same numbers."""

    def dialogues(self):
        draw = random.Random(3)
        made = []
        for length in (40, 7, 12, 9, 20, 2, 15, 6, 3, 5):
            mask = [place > 0 and draw.random() < 0.5 for place in range(length - 1)]
            made.append(([draw.randrange(40, 300) for _ in range(length)], [*mask, True]))
        return made

    @pytest.mark.parametrize("family", ["decoder", "qwen2", "gpt_neox"])
    def test_loss_and_gradient_are_those_of_a_row_each(self, family):
        if family == "decoder":
            model = build_model(NetworkConfig(layers=2, width=64, heads=4, kv_heads=2, context=64).sized(320), 0)
        else:
            settings = AutoConfig.for_model(
                family, vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            )  # fmt: skip
            torch.manual_seed(0)
            model = Foreign(AutoModelForCausalLM.from_config(settings).float())
        found = []
        for packed in (False, True):
            batch = collate(self.dialogues(), packed)
            loss = assistant_tokens(model, batch)
            (loss.total / loss.targets).backward()
            found.append((len(batch.tokens), loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
            model.zero_grad()
        (rows, plain, gradients), (fewer, packed, others) = found
        assert (rows, fewer) == (10, 3)
        assert (plain.targets, plain.sums["token_accuracy"]) == (packed.targets, packed.sums["token_accuracy"])
        assert abs(float(plain.total - packed.total)) / plain.targets < 1e-5
        assert max(float((a - b).abs().max()) for a, b in zip(gradients, others, strict=True)) < 1e-5

    def test_every_token_and_target_is_there_once(self):
        plain, packed = (collate(self.dialogues(), packed) for packed in (False, True))
        for name in ("tokens", "targets"):
            whole = [sorted(x for x in getattr(batch, name).flatten().tolist() if x > 0) for batch in (plain, packed)]
            assert whole[0] == whole[1]
        starts = packed.positions[packed.segments >= 0].tolist().count(0)
        assert starts == 10
        assert packed.tokens.shape[1] == 39

    def test_rows_stay_apart_where_sharing_saves_little(self):
        alike = [([40 + n] * length, [True] * length) for n, length in enumerate((9, 10, 10, 11, 3, 10))]
        assert len(collate(alike, packed=True).tokens) == 6

    def test_training_sees_the_same_dialogues_and_ends_with_the_same_loss(self, world, tmp_path):
        talks = conversations([dialogue(*pair) for n in range(1, 9) for pair in reversals(5, seed=n, digits=n)])
        found = []
        for packing in (False, True):
            config = CONFIG.model_copy(update={"packing": packing, "weights": {"": 1.0}, "steps": 4})
            given = {"base": world["base"], "conversations": talks, "heldout": []}
            seen = [sft.seen(config, step, **given) for step in range(1, 5)]
            report = sft(config, **given, out=tmp_path / str(packing))
            found.append((seen, report["target_tokens"], report["loss"]))
        assert found[0][:2] == found[1][:2]
        assert found[0][2] == pytest.approx(found[1][2], abs=1e-5)


class TestMixing:
    """Sources in shares of the tokens."""

    def world(self, world, tmp_path, **settings):
        talks = [
            {"messages": dialogue(*pair), "source": source}
            for source, digits, number in (("short", 2, 30), ("long", 8, 10), ("none", 5, 10))
            for pair in reversals(number, seed=digits, digits=digits)
        ]
        config = CONFIG.model_copy(update={"steps": 60, "eval_every": 0, **settings})
        return config, {"base": world["base"], "conversations": talks, "heldout": []}

    def test_the_shares_of_tokens_are_those_asked_for_and_every_dialogue_is_named(self, world, tmp_path):
        config, given = self.world(world, tmp_path, weights={"short": 1, "long": 3, "none": 0}, batch=4)
        report = sft(config, **given, out=tmp_path)
        mixture = {row["source"]: row for row in report["mixture"]}
        assert {name: row["wanted"] for name, row in mixture.items()} == {"short": 0.25, "long": 0.75, "none": 0.0}
        assert all(abs(row["share"] - row["wanted"]) < 0.01 for row in mixture.values())
        seen = [one for step in range(1, 61) for one in sft.seen(config, step, **given)]
        assert len(seen) == 240
        tokens = Counter()
        for number, length in seen:
            tokens[given["conversations"][number]["source"]] += length
        assert tokens == {name: row["tokens"] for name, row in mixture.items() if row["tokens"]}
        counts = Counter(number for number, _ in seen)
        long = [counts[number] for number in range(30, 40)]
        assert max(long) - min(long) <= 1

    def test_a_step_depends_on_seed_and_number_alone(self):
        lengths, sources = [3 + place * 7 % 50 for place in range(101)], ["ab"[place % 7 > 4] for place in range(101)]
        one, other = (Mixed(lengths, sources, {"a": 0.1, "b": 0.9}, 3, 4) for _ in range(2))
        assert [one.items(step) for step in range(30)] == [other.items(step) for step in reversed(range(30))][::-1]
        assert Mixed(lengths, sources, {"a": 0.1, "b": 0.9}, 4, 4).items(0) != one.items(0)

    def test_shares_follow_the_number_of_examples_up_to_a_cap_and_evened_out(self):
        tokens = {"large": [10] * 900, "small": [20] * 100}
        assert shares_of(tokens, {}) == {"large": 9000 / 11000, "small": 2000 / 11000}
        assert shares_of(tokens, {}, cap=100) == {"large": 1000 / 3000, "small": 2000 / 3000}
        assert shares_of(tokens, {}, temperature=2) == {"large": 300 / 500, "small": 200 / 500}
        assert shares_of(tokens, {"large": 3}) == {"large": 0.75, "small": 0.25}

    def test_what_cant_be_is_said_in_one_line(self, world, tmp_path):
        for wrong in ({"weights": {"a": -1}}, {"weights": {"a": 0}}, {"weights": {"a": 1}, "source_cap": 3}):
            with pytest.raises(ValidationError):
                SftConfig(**wrong)
        config, given = self.world(world, tmp_path, weights={"short": 0, "long": 0, "none": 0, "other": 1})
        with pytest.raises(UserError, match=r"sft\.weights leaves no dialogue to learn from"):
            _ = sft.data(config, **given).epochs


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
