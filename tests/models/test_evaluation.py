"""Figures of an evaluation equal a calculation by hand, and can tell a good model from a bad one."""

from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from datalake.document import document_id
from datalake.errors import UserError
from datalake.text.words import WORD
from models.evaluation import tasks
from models.evaluation.config import EvaluateConfig
from models.evaluation.evaluate import Held, evaluate
from models.evaluation.intervals import bootstrap, wilson
from models.methods.reward import RewardConfig
from models.methods.reward import reward as train_reward
from models.network import checkpoint
from models.network.build import ScalarHead, build_model
from models.network.config import NetworkConfig
from models.network.generate import generate
from models.serving import chat
from models.text import tokenizer as text
from models.text.config import TokenizerConfig
from models.text.rendering import render
from models.text.sampler import heldout
from models.text.shards import TokenShards, write_shard

COLOURS = ["red stone", "green leaf", "blue sea", "yellow sun", "white snow", "黑 夜", "grey cloud", "brown earth"]
TALKS = [
    {
        "messages": [
            {"role": "user", "content": f"What is number {number}?"},
            {"role": "assistant", "content": f"It is the {colour}."},
        ],
        "group": f"g{number}",
    }
    for number, colour in enumerate(COLOURS)
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [message["content"] for talk in TALKS for message in talk["messages"]] * 3
    return text.train(texts, TokenizerConfig(vocabulary=346), tmp_path_factory.mktemp("t") / "tokenizer")


def fresh(tokenizer) -> nn.Module:
    config = NetworkConfig(layers=1, width=48, heads=4, context=64).sized(len(tokenizer))
    return build_model(config).eval()


class Oracle(nn.Module):
    """A stand-in whose next token depends on the one before it alone: logits are a table."""

    def __init__(self, table: torch.Tensor, context: int = 64):
        super().__init__()
        self.table = nn.Parameter(table)
        self.config = SimpleNamespace(context=context, width=table.shape[0])

    def forward(self, tokens, positions=None, attend=None, cache=None):
        return nn.functional.one_hot(tokens, self.table.shape[0]).to(self.table.dtype)

    def logits(self, hidden):
        return hidden @ self.table


@pytest.fixture(scope="module")
def knowing(tokenizer) -> nn.Module:
    """A model that learned the talks by heart."""
    model = fresh(tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    rows = [render(talk["messages"], tokenizer) for talk in TALKS]
    width = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), -100)
    for place, (ids, mask) in enumerate(rows):
        tokens[place, : len(ids)] = torch.tensor(ids)
        targets[place, : len(ids)] = torch.where(torch.tensor(mask), torch.tensor(ids), -100)
    for _ in range(120):
        logits = model.logits(model(tokens[:, :-1]))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    return model.eval()


def test_wilson_equals_worked_examples() -> None:
    # Brown, Cai, DasGupta 2001 and Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for (successes, n), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(successes, n) == pytest.approx(expected, abs=1e-4)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    narrow, wide = wilson(5, 10, 0.8), wilson(5, 10, 0.99)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_the_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap(draw.exponential(2.0, 60), None, 0.9, 200, trial)
        hits += low <= 2.0 <= high
    assert 0.82 <= hits / 200 <= 0.96  # a little short of 0.9 for skewed data, as known


def test_the_bootstrap_of_a_ratio_weighs_items() -> None:
    assert bootstrap([2.0, 4.0, 6.0], [1, 2, 3]) == (2.0, 2.0)
    low, high = bootstrap([1.0, 1.0, 100.0], [1, 1, 10], resamples=500)
    assert 1.0 <= low < 102 / 12 < high <= 10.0
    assert bootstrap([1, 2, 3], seed=4) == bootstrap([1, 2, 3], seed=4)
    assert math.isnan(bootstrap([])[0])


def test_perplexity_is_the_mean_over_each_documents_own_tokens(tokenizer, tmp_path) -> None:
    texts = ["the red stone and the green leaf " * 8, "blue", "", "黑夜 " * 9]
    documents = [(document_id("table", "a", str(number)), words) for number, words in enumerate(texts)]
    write_shard(documents, tokenizer, tmp_path, "x")
    shards = TokenShards(tmp_path)
    model = fresh(tokenizer)
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.1, generator=draw)
    windows = list(heldout(shards, shards.ids, 64, 2))  # wide enough that only the first document is cut
    training = np.array([4, 2, 1, 1] + [0] * (len(tokenizer) - 4))
    held = Held(windows, shards.sizes.tolist(), training)
    results = {row.metric: row for row in evaluate(model, tokenizer, held, EvaluateConfig(tasks=["perplexity"]))}

    nats, targets, at = [], [], 0
    for number in range(4):
        ids = shards.tokens(number).astype(np.int64)
        cuts = [0, *[c - at for c in range(64, at + len(ids), 64) if c > at], len(ids)]
        total = 0.0
        for start, end in itertools.pairwise(cuts):
            piece = torch.tensor(ids[start : end + 1])[None]
            if piece.shape[1] > 1:
                with torch.no_grad():
                    logs = model.logits(model(piece[:, :-1]))[0].log_softmax(-1)
                total -= float(logs.gather(1, piece[0, 1:, None]).sum())
        nats.append(total)
        targets += ids[1:].tolist()
        at += len(ids)
    assert results["loss"].value == pytest.approx(sum(nats) / len(targets), rel=1e-5)
    assert results["bits_per_byte"].value == pytest.approx(sum(nats) / math.log(2) / shards.sizes.sum(), rel=1e-5)
    assert results["unigram_entropy"].value == pytest.approx(1.75 * math.log(2))
    smoothed = (training + 1) / (8 + len(training))
    assert results["unigram_cross_entropy"].value == pytest.approx(-np.log(smoothed[targets]).mean())
    ratio = results["loss_over_entropy"]
    assert ratio.value == pytest.approx(results["loss"].value / results["unigram_entropy"].value)
    assert ratio.low < ratio.value < ratio.high
    assert {row.n for row in results.values()} == {4}


def test_a_model_that_knows_the_counts_alone_loses_their_entropy(tokenizer, tmp_path) -> None:
    write_shard([(b"a" * 16, "red red green 黑夜 blue " * 20)], tokenizer, tmp_path, "x")
    shards = TokenShards(tmp_path)
    counts = np.bincount(shards.tokens(0)[1:], minlength=len(tokenizer))
    table = torch.tensor(counts, dtype=torch.float64).clamp(min=1e-9).log().repeat(len(tokenizer), 1).float()
    rows = evaluate(
        Oracle(table), tokenizer, Held(list(heldout(shards, shards.ids, 32, 4)), (), counts), EvaluateConfig()
    )
    assert next(row.value for row in rows if row.metric == "loss_over_entropy") == pytest.approx(1.0, abs=1e-4)


@torch.no_grad()
def test_log_likelihoods_are_sums_over_the_answer(tokenizer) -> None:
    model = fresh(tokenizer)
    draw = np.random.default_rng(0)
    pairs = [
        (draw.integers(0, 200, size=p).tolist(), draw.integers(0, 200, size=a).tolist())
        for p, a in ((3, 5), (1, 1), (10, 2), (20, 30), (60, 20), (5, 90))
    ]
    found = tasks.log_likelihoods(model, pairs, batch=3)
    for (prompt, answer), (value, _greedy, _cut) in zip(pairs, found, strict=True):
        answer = answer[:63]
        if len(prompt) + len(answer) > 65:
            room = 65 - len(answer)
            prompt = [prompt[0], *prompt[len(prompt) - room + 1 :]]
        ids = torch.tensor([prompt + answer])
        logs = model.logits(model(ids[:, :-1]))[0].log_softmax(-1)
        expected = sum(float(logs[place - 1, ids[0, place]]) for place in range(len(prompt), ids.shape[1]))
        assert value == pytest.approx(expected, abs=1e-3)


def test_questions_have_one_right_answer_and_wrong_ones_that_differ() -> None:
    twice = [*TALKS, {"messages": [TALKS[0]["messages"][0], {"role": "assistant", "content": "Also this stone."}]}]
    twice.append({"messages": [TALKS[1]["messages"][0], {"role": "assistant", "content": "It is the GREEN leaf!"}]})
    made = tasks.questions(twice, 4, 100, seed=0)
    assert len(made) == len(twice)
    for item, talk in zip(made, twice, strict=True):
        assert item.choices[item.right] == talk["messages"][-1]["content"]
        normal = {" ".join(WORD.findall(choice.lower())) for choice in item.choices}
        assert len(normal) == 4
    assert "Also this stone." not in made[0].choices
    assert len({item.right for item in tasks.questions(TALKS, 4, 100, seed=1)}) > 1
    assert made == tasks.questions(twice, 4, 100, seed=0) != tasks.questions(twice, 4, 100, seed=1)
    assert len(tasks.questions(TALKS, 4, 3, seed=0)) == 3
    assert tasks.questions(TALKS[:3], 4, 9, seed=0) == []


def test_a_model_that_knows_answers_better_than_one_that_doesnt(knowing, tokenizer) -> None:
    config = EvaluateConfig(tasks=["multiple_choice", "generation"], max_new_tokens=24)
    held = Held(conversations=TALKS)
    good = {(row.task, row.metric): row for row in evaluate(knowing, tokenizer, held, config)}
    bad = {(row.task, row.metric): row for row in evaluate(fresh(tokenizer), tokenizer, held, config)}
    assert good["multiple_choice", "accuracy"].value == 1
    assert bad["multiple_choice", "accuracy"].value < 1
    assert good["multiple_choice", "chance"].value == 0.25
    assert good["generation", "token_f1"].value == 1
    assert good["generation", "ended"].value == 1
    assert bad["generation", "token_f1"].value < 0.3
    assert good["multiple_choice", "accuracy"].n == len(TALKS)
    assert evaluate(knowing, tokenizer, held, config) == list(good.values())


def test_token_f1_counts_words_and_characters() -> None:
    assert tasks.token_f1("The red stone", "red STONE!") == pytest.approx(2 * 2 / 5)
    assert tasks.token_f1("水往低处流", "水流") == pytest.approx(2 * 2 / 7)
    assert tasks.token_f1("a a a", "a") == pytest.approx(2 * 1 / 4)
    assert tasks.token_f1("", "x") == 0
    assert tasks.token_f1("!", "?") == 1


def test_reward_accuracy_counts_what_the_model_prefers(tokenizer) -> None:
    stone = text.encode(tokenizer, [" stone"])[0][-1]
    pairs = [
        {"prompt": TALKS[0]["messages"][:1], "chosen": "a stone stone stone", "rejected": "a leaf"},
        {"prompt": TALKS[1]["messages"][:1], "chosen": "leaf", "rejected": "no stone"},
        {"prompt": TALKS[2]["messages"][:1], "chosen": "sea", "rejected": "sea"},
    ]

    class Counting(nn.Module):
        """Scores a row by how many stones stand up to each token."""

        config = SimpleNamespace(context=64)

        def __init__(self) -> None:
            super().__init__()
            self.some = nn.Parameter(torch.zeros(()))

        def forward(self, tokens, positions=None, attend=None):
            return (tokens == stone).cumsum(1).float()

    config = EvaluateConfig(tasks=["reward_accuracy"], batch=2)
    row, longer = evaluate(fresh(tokenizer), tokenizer, Held(preferences=pairs), config, reward=Counting())
    # the third pair has two equal answers: neither is better
    assert (row.task, row.metric, row.value, row.n) == ("reward_accuracy", "accuracy", 0.5, 2)
    assert (row.low, row.high) == wilson(1, 2)
    assert (longer.metric, longer.value) == ("longer_wins", 0.5)  # no pair is of equal length
    zero = ScalarHead(fresh(tokenizer))
    row, *_ = evaluate(fresh(tokenizer), tokenizer, Held(preferences=pairs), config, reward=zero)
    assert row.value == 0.5
    assert evaluate(fresh(tokenizer), tokenizer, Held(preferences=pairs), config) == []


def test_reward_accuracy_is_the_stages_own(tokenizer, tmp_path) -> None:
    """On pairs of every length, some to be cut and some that can't be compared: the same pairs and the same share."""
    draw = random.Random(1)
    pairs = []
    for number in range(40):
        answers = [" ".join(draw.choices(COLOURS, k=draw.choice([1, 2, 12]))) for _ in range(2)]
        question = [{"role": "user", "content": "x " * draw.choice([1, 10, 80])}]
        pairs.append({"prompt": question, "chosen": answers[0], "rejected": answers[number % 9 > 0]})
    base = checkpoint.save(fresh(tokenizer), tokenizer, tmp_path / "base")
    config = RewardConfig(batch=4, steps=3, learning_rate=1e-2, eval_rows=1000)
    report = train_reward(config, base, pairs[20:], pairs[:20], tmp_path / "out")
    model, _ = checkpoint.load(tmp_path / "out" / "checkpoint")
    asked = EvaluateConfig(tasks=["reward_accuracy"])
    row, *_ = evaluate(fresh(tokenizer), tokenizer, Held(preferences=pairs[:20]), asked, reward=model)
    assert (row.value, row.n) == (pytest.approx(report["heldout_accuracy"]), report["heldout_pairs"])
    assert 0 < report["heldout_dropped"] < 20


class TestAnswersThatDontFit:
    """Choices longer than the context: what is scored is what is divided by."""

    def table(self, tokenizer) -> torch.Tensor:
        """Likely: what the answer `It is the red stone.` is made of; a token of its own costs 6 nats."""
        logits = torch.full((len(tokenizer), len(tokenizer)), -6.0)
        logits[:, text.encode(tokenizer, ["It is the red stone."])[0]] = 0.0
        logits[:, text.stop_ids(tokenizer)] = 0.0
        return logits

    @pytest.mark.parametrize("junk", ["zq%7 " * 1000, "\u6f22" * 5000, "🌊" * 1250, "qj" * 2500])
    @pytest.mark.parametrize("right", [0, 1])
    def test_junk_never_beats_the_right_answer(self, tokenizer, junk: str, right: int) -> None:
        choices = ["It is the red stone.", junk] if not right else [junk, "It is the red stone."]
        item = tasks.Question(TALKS[0]["messages"][:1], choices, right)
        assert tasks.multiple_choice(Oracle(self.table(tokenizer)), tokenizer, [item], 2) == [True]

    @torch.no_grad()
    def test_scores_are_those_of_a_calculation_by_hand(self, tokenizer, monkeypatch) -> None:
        draw = torch.Generator().manual_seed(3)
        model = Oracle(torch.randn(len(tokenizer), len(tokenizer), generator=draw), context=32)
        logs = model.table.log_softmax(-1)
        answers = ["It is the sea.", "水🌊x " * 40, "red stone " * 30, "a " * 8]
        question = TALKS[0]["messages"][:1]
        seen = []
        plain = tasks.log_likelihoods
        monkeypatch.setattr(tasks, "log_likelihoods", lambda *given: seen.append(plain(*given)) or seen[-1])
        scores = []
        monkeypatch.setattr(tasks.np, "argmax", lambda values: scores.extend(values) or 0)
        tasks.multiple_choice(model, tokenizer, [tasks.Question(question, answers, 0)], 2)
        monkeypatch.undo()
        prompt = render(question, tokenizer, prompt=True)[0]
        for answer, score in zip(answers, scores, strict=True):
            ids = [*text.encode(tokenizer, [answer])[0], text.special(tokenizer, "<|end|>")]
            size = len(answer.encode()) + 1
            if len(ids) > 31:
                ids = ids[:31]
                while not answer.startswith(tokenizer.decode(ids)):
                    ids.pop()
                size = len(tokenizer.decode(ids).encode())
            total = sum(float(logs[before, token]) for before, token in zip([prompt[-1], *ids], ids, strict=False))
            assert score == pytest.approx(total / size, rel=1e-5)

    def test_the_question_gives_way_to_the_whole_answer(self, tokenizer) -> None:
        long = [{"role": "user", "content": "What is number 0? " * 40}]
        choices = ["It is the blue sea.", "It is the red stone."]
        item = tasks.Question(long, choices, 1)
        assert tasks.multiple_choice(Oracle(self.table(tokenizer)), tokenizer, [item], 2) == [True]


def test_chat_writes_the_answer_piece_by_piece(knowing, tokenizer) -> None:
    found = list(chat.reply(knowing, tokenizer, TALKS[5]["messages"][:1], 24, temperature=0))
    assert "".join(found) == "It is the 黑 夜."
    assert len(found) > 3
    assert not any("\ufffd" in piece for piece in found)
    prompt, _ = render(TALKS[5]["messages"][:1], tokenizer, prompt=True)
    whole = generate(knowing, [prompt], 24, temperature=0, eos_id=text.stop_ids(tokenizer))[0]
    assert tokenizer.decode(whole, skip_special_tokens=True) == "".join(found)


@pytest.mark.parametrize("said", ["水往低处流", "👩‍👩‍👧 ok 🌊", "", "plain words, 123", "\ufffd kept", "é"])
def test_pieces_never_break_a_character(tokenizer, said: str) -> None:
    ids = text.encode(tokenizer, [said])[0]
    found = list(chat.pieces(ids, tokenizer))
    assert "".join(found) == said
    if "\ufffd" not in said:
        assert not any("\ufffd" in piece for piece in found)


def test_bytes_that_end_too_early_are_shown_as_such(tokenizer) -> None:
    ids = text.encode(tokenizer, ["a🌊"])[0]
    assert "".join(chat.pieces(ids[:-1], tokenizer)) == tokenizer.decode(ids[:-1])


def test_a_long_dialogue_loses_its_oldest_turns(tokenizer) -> None:
    turns = [{"role": "system", "content": "Be brief."}]
    for number in range(5):
        turns += [{"role": "user", "content": f"What is number {number}?"}, {"role": "assistant", "content": "It is."}]
    turns.append({"role": "user", "content": "And?"})
    whole = render(turns, tokenizer, prompt=True)[0]
    assert chat.fitting(turns, tokenizer, len(whole)) == whole
    short = tokenizer.decode(chat.fitting(turns, tokenizer, len(whole) - 1))
    assert short.startswith("<|bos|><|system|>Be brief.<|end|><|user|>What is number 1?")
    assert short.endswith("<|user|>And?<|end|><|assistant|>")
    with pytest.raises(UserError, match="shorten it"):
        chat.fitting(turns, tokenizer, 4)
    with pytest.raises(UserError, match="nothing to answer"):
        chat.reply(fresh(tokenizer), tokenizer, [])
