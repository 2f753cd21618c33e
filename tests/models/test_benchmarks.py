"""Benchmarks as data: items are asked as their file says, scored as by hand, and alike in any batch and order."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from datalake.curate.checks.evaluation_sets import WORD
from datalake.errors import UserError
from models.evaluation import benchmark as benchmarks
from models.evaluation.benchmark import Item, asked, load, text_of
from models.evaluation.compare import compare
from models.evaluation.contamination import contaminated
from models.evaluation.exam import Settings
from models.evaluation.judge import equal, judge, pairs, pass_at, windows
from models.evaluation.judged import Judged, results
from models.evaluation.tasks import log_likelihoods
from models.network.build import ScalarHead
from models.network.checkpoint import load as load_checkpoint
from models.objectives.bradley_terry import scores_of
from models.rl.rewards.unit_tests import verdict
from models.sandbox import Limits, guards
from models.text.rendering import render

ROWS = [
    {"q": f"the {a} {b} the", "c": ["bird.", "tree", "milk and the cat"], "g": (i + j) % 3}
    for i, a in enumerate(["cat", "dog", "cow", "bird and the cat and the dog and the cow"])
    for j, b in enumerate(["sees", "eats", "likes"])
]
CHOICE = {"kind": "choice", "source": "rows.jsonl", "prompt": "{{ q }}", "choices": "c", "gold": "g"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tiny")
    words = toys.words(folder / "words")
    model, tokenizer = load_checkpoint(toys.base(folder / "base", words, context=128))
    with torch.no_grad():  # fresh weights say `the the the` to everything; large ones are moved by what they read
        for part in model.parameters():
            part.mul_(6 if part.ndim > 1 else 1)
    return model, tokenizer


def own(folder: Path, rows=ROWS, **changes) -> benchmarks.Benchmark:
    """A task file of a user's own beside its rows."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "mine.yaml"
    path.write_text(json.dumps(CHOICE | changes))  # JSON is YAML
    return load(str(path))


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", benchmarks.known())
def test_every_benchmark_of_the_house_asks_its_items(name: str, samples: Path) -> None:
    one = load(name)
    if one.documents:
        pytest.skip("its items are made of a lake's documents")
    for item in (*one.items[:3], one.items[-1]):
        question = asked(one, item)
        assert all(question.answers) or one.kind in ("generation", "code", "dialogue", "checked")
        assert one.kind != "choice" or 0 <= question.gold < len(question.answers)
        assert one.kind not in ("continuation", "generation") or question.target
        assert text_of(one, item).strip()


def test_benchmarks_cover_all_samples(samples: Path) -> None:
    files = {path.relative_to(samples / "eval").as_posix() for path in (samples / "eval").rglob("*.gz")}
    used = {load(name).source for name in benchmarks.known()} | {load(name).examples for name in benchmarks.known()}
    again = {"llmfoundry/gsm8k.jsonl.gz", "llmfoundry/human_eval.jsonl.gz"}  # the same items as elsewhere
    assert files - used == again


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "no YAML"),
        ("- a", "no mapping"),
        ("kind: choice\nsource: x\nchoises: c\ngold: g", "did you mean 'choices'"),
        ("kind: riddle\nsource: x", "kind"),
        ("kind: choice\nsource: x\ngold: g", "needs 'choices'"),
        ("kind: generation\nsource: x\nprompt: '{{ q'\ntarget: a", "prompt is wrong"),
        ("kind: choice\nsource: x\nprompt: q\nchoices: c[\ngold: g", "choices is wrong"),
    ],
)
def test_a_mistake_in_a_task_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        load(str(tmp_path / "x.yaml"))
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean arc_easy"):
        load("arc_esay")
    monkeypatch.setenv("HEADWATER_SAMPLES", str(tmp_path))
    with pytest.raises(UserError, match="set HEADWATER_SAMPLES"):
        _ = load("piqa").items
    with pytest.raises(UserError, match="prompt is wrong"):
        asked(one := own(tmp_path, prompt="{{ nothing }}"), one.items[0])
    with pytest.raises(UserError, match="the place of the right choice"):
        asked(one := own(tmp_path, [{"q": "a", "c": ["a", "b"], "g": 2}]), one.items[0])


def test_a_template_reaches_nothing_but_its_row(tmp_path: Path) -> None:
    one = own(tmp_path, prompt="{{ q.__class__.__mro__ }}")
    with pytest.raises(UserError, match="prompt is wrong"):
        asked(one, one.items[0])


# Worked examples ------------------------------------------------------------------------------------------------------


def test_examples_are_never_the_item_and_those_of_fewer_shots_come_first(tmp_path: Path) -> None:
    one = own(tmp_path, [*ROWS, *ROWS])  # each row twice: the other copy is the item too
    for item in one.items:
        few, many = (asked(one, item, shots, seed=1).prompts[0].split("\n\n") for shots in (2, 5))
        assert few[:-1] == many[:2]
        assert len(many) == 6
        assert not any(example.startswith(item.row["q"] + " ") and example != many[-1] for example in many[:-1])
    assert asked(one, one.items[0], 5, seed=1) != asked(one, one.items[0], 5, seed=2)


def test_reasons_are_shown_only_where_asked_for(samples: Path) -> None:
    gsm8k = load("gsm8k")
    item = gsm8k.items[0]
    direct, reasoned = (asked(gsm8k, item, 2, reasons=reasons).prompts[0] for reasons in (False, True))
    assert "####" in reasoned
    assert "####" not in direct
    assert "<<" not in direct
    assert direct.split("\n\n")[-1] == reasoned.split("\n\n")[-1]


def test_examples_of_a_group_are_of_the_group(samples: Path) -> None:
    cmmlu = load("cmmlu")
    assert len({item.row["member"] for item in cmmlu.items[:67]}) == 67  # the first of each subject
    subject = [item for item in cmmlu.pool if item.row["member"] == "marketing"]
    prompt = asked(cmmlu, next(item for item in cmmlu.items if item.row["member"] == "marketing"), 5).prompts[0]
    assert sum(item.row["Question"] in prompt for item in subject) == 5


# Scores ---------------------------------------------------------------------------------------------------------------


def test_choices_are_judged_by_likelihood_and_by_likelihood_per_byte(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    one = own(tmp_path)
    for item, row in zip(one.items, judge(model, tokenizer, one), strict=True):
        nats = []
        for choice in item.row["c"]:
            ((prompt, answer),) = pairs(tokenizer, [(item.row["q"], " " + choice)])
            with torch.no_grad():
                logs = model.logits(model(torch.tensor([prompt + answer[:-1]])))[0].double().log_softmax(-1)
            nats.append(sum(float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(answer)))
        per_byte = [value / len(choice.encode()) for value, choice in zip(nats, item.row["c"], strict=True)]
        assert list(row.scores.values()) == pytest.approx(nats, abs=1e-5)
        assert row.figures["accuracy"] == (float(np.argmax(nats) == item.row["g"]), 1.0)
        assert row.figures["accuracy_norm"] == (float(np.argmax(per_byte) == item.row["g"]), 1.0)


def test_no_score_depends_on_batch_or_order(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    choices = own(tmp_path)
    written = choices.model_copy(update={"kind": "generation", "target": "1", "new_tokens": 12})
    for one in (choices, written):
        alone = judge(model, tokenizer, one, Settings(batch=1, shots=2))
        for batch in (3, 16):
            assert judge(model, tokenizer, one, Settings(batch=batch, shots=2)) == alone
        assert len({(row.answer, *row.scores.values()) for row in alone}) > 1
    stop = alone[0].answer[2:4]
    stopped = judge(model, tokenizer, written.model_copy(update={"stop": [stop]}), Settings(batch=5, shots=2))
    assert [row.answer for row in stopped] == [row.answer.partition(stop)[0].strip() for row in alone]
    assert stopped[0].figures["ended"] == (1.0, 1.0)
    texts = [(row["q"], " " + choice) for row in ROWS for choice in row["c"]]
    forth = log_likelihoods(model, pairs(tokenizer, texts), 5)
    back = log_likelihoods(model, pairs(tokenizer, texts[::-1]), 4)
    assert forth == back[::-1]


def test_prompts_longer_than_the_context_lose_their_beginning_and_are_counted(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    rows = [{**ROWS[0], "q": "the dog eats the milk. " * 40 + ROWS[0]["q"]}, {**ROWS[0], "q": "the " * 5}]
    judged = judge(model, tokenizer, own(tmp_path, rows))
    assert [row.cut for row in judged] == [True, False]
    ((prompt, answer),) = pairs(tokenizer, [(rows[0]["q"], " bird.")])
    kept = [prompt[0], *prompt[len(prompt) - (128 - len(answer)) :]]
    assert judged[0].scores["log_likelihood_0"] == log_likelihoods(model, [(kept, answer)], 1)[0].nats


def test_windows_predict_every_token_once_behind_enough_others() -> None:
    for length, context, stride in itertools.product((1, 7, 8, 9, 40), (4, 8), (1, 3, 8)):
        ids = list(range(100, 100 + length))
        found = windows(ids, [1], context, min(stride, context))
        assert [token for _, answer in found for token in answer] == ids
        for before, answer in found:
            assert before + answer == ([1, *ids] * 1)[: len(before + answer)] or before[0] in ids
            assert len(before) + len(answer) <= context + 1
            assert answer[0] - 100 < context or len(before) >= context + 1 - min(stride, context)


def test_bits_per_byte_of_a_text_is_its_loss_over_its_bytes(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    text = "the cat sees the bird. the dog eats the milk. 水"
    one = own(tmp_path, [{"text": text}], kind="text", prompt="", choices="", gold="")
    (row,) = judge(model, tokenizer, one)
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        logs = model.logits(model(torch.tensor([ids[:-1]])))[0].double().log_softmax(-1)
    nats = -sum(float(logs[place, token]) for place, token in enumerate(ids[1:]))
    told = {result.metric: result.value for result in results([row])}
    assert told["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text.encode()))
    assert told["perplexity"] == pytest.approx(math.exp(nats / (len(ids) - 1)))


@pytest.mark.parametrize(("samples_", "right", "k"), [(5, 0, 1), (5, 2, 1), (5, 2, 3), (6, 5, 2), (4, 4, 4)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(samples_: int, right: int, k: int) -> None:
    draws = list(itertools.combinations([1] * right + [0] * (samples_ - right), k))
    assert pass_at(samples_, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.skipif(bool(guards().missing), reason="the sandbox has no walls here")
def test_the_solutions_of_human_eval_pass_and_others_do_not(samples: Path) -> None:
    for item in load("human_eval").items[:3]:
        row = {**item.row, "setup": item.row["prompt"]}
        assert verdict(row["canonical_solution"], row, Limits()).right
        assert not verdict("    return None\n", row, Limits()).right


def test_answers_are_compared_by_their_final_number() -> None:
    assert equal(" 3 + 4 = 7.\nSo the answer is 7.", "7", "number")
    assert not equal("7 of 8", "7", "number")
    assert equal("Paris!", " paris", "text")


# Comparison -----------------------------------------------------------------------------------------------------------


def judged(right: list[int], task: str = "t", **more) -> list[Judged]:
    return [
        Judged(task, str(n), 0, 0, False, "", "", "", {"accuracy": (float(one), 1.0)}, **more)
        for n, one in enumerate(right)
    ]


def test_a_difference_is_real_where_mcnemar_says_so() -> None:
    draw = np.random.default_rng(0)
    first = draw.integers(0, 2, 200)
    worse = np.where(draw.random(200) < 0.15, 0, first)
    (row,) = compare(judged(first.tolist()), judged(worse.tolist()))
    lost = int((first > worse).sum())
    exact = 2 * sum(math.comb(lost, k) for k in range(1)) / 2**lost  # none was gained
    assert row["p"] == pytest.approx(exact, abs=2e-3)
    assert row["real"]
    assert row["high"] < 0
    assert row["difference"] == pytest.approx(worse.mean() - first.mean())
    (same,) = compare(judged(first.tolist()), judged(first.tolist()))
    assert (same["p"], same["real"], same["difference"]) == (1.0, False, 0.0)
    gained = first.copy()
    gained[np.flatnonzero(first == 0)[:2]] = 1
    gained[np.flatnonzero(first == 1)[:1]] = 0
    (row,) = compare(judged(first.tolist()), judged(gained.tolist()))
    assert row["p"] == pytest.approx(1.0, abs=0.02)  # two of three: McNemar's is 1
    assert not row["real"]


def test_many_comparisons_need_more_than_one(tmp_path: Path) -> None:
    five = [1] * 6 + [0] * 40  # six gained of 46, p 1/32
    first = [row for n in range(8) for row in judged([0] * 46, f"t{n}")]
    second = [row for n in range(8) for row in judged(five if n == 0 else [0] * 46, f"t{n}")]
    rows = compare(first, second)
    assert rows[0]["p"] < 0.05
    assert not any(row["real"] for row in rows)
    assert compare(first[:46], second[:46])[0]["real"]


# Contamination --------------------------------------------------------------------------------------------------------


def test_planted_overlaps_are_found_and_nothing_else(samples: Path) -> None:
    draw = np.random.default_rng(0)
    texts: list[str] = []
    for name in ("arc_easy", "gsm8k", "winogrande", "cmmlu", "commonsense_qa", "lambada_openai", "human_eval"):
        one = load(name)
        texts += [text_of(one, one.items[place]) for place in draw.choice(len(one.items), 60, replace=False)]
    texts = list(dict.fromkeys(text for text in texts if weight(text) >= 16))
    prose = [item.row["text"] for item in load("wikitext").items]
    documents, truth = [], set()
    for number, text in enumerate(texts):
        way = number % 5
        words = WORD.findall(text)
        if way == 0:
            said = text
        elif way == 1:
            said = text.upper().replace(",", " ;").replace("\n", "  ")
        elif way == 2:  # half of it: a quotation that both have
            said = " ".join(words[: len(words) // 2])
        elif way == 3:  # every fifth word is another
            said = " ".join("zebra" if k % 5 == 4 else word for k, word in enumerate(words))
        else:
            continue
        around = prose[number % len(prose)]
        documents.append((f"d{number}", f"{around[:700]}\n{said}\n{around[700:1400]}"))
        if way < 2:
            truth.add((number, f"d{number}"))
    documents.append(("all", "\n".join(texts[:20])))  # a page with items in a row
    truth |= {(number, "all") for number in range(20)}
    documents += [(f"p{k}", text) for k, text in enumerate(prose)]
    found = {(number, name) for number, names in enumerate(contaminated(texts, documents)) for name in names}
    assert len(texts) > 250
    assert len(found & truth) >= 0.99 * len(found), sorted(found - truth)[:5]
    assert len(found & truth) >= 0.99 * len(truth), [texts[n] for n, _ in sorted(truth - found)[:5]]


def weight(text: str) -> int:
    """Of an item's words, in halves: a Chinese character is half a word."""
    words = WORD.findall(text)
    return 2 * len(words) - sum(word >= "\u3400" for word in words)


def test_an_item_is_known_by_its_question_and_a_short_one_by_more(samples: Path) -> None:
    cmmlu, copa = load("cmmlu"), load("copa")
    assert "A. " in text_of(cmmlu, Item("x", 0, {**cmmlu.items[0].row, "Question": "下列正确的是"}))
    assert text_of(copa, copa.items[0]).endswith(copa.items[0].row["choices"][copa.items[0].row["gold"]])
    assert not text_of(load("arc_easy"), load("arc_easy").items[0]).startswith("Question")


def test_a_reward_model_scores_open_answers_and_tells_whose_are_better(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    open_ended = {"kind": "dialogue", "prompt": "{{ turns[0] }}", "new_tokens": 4}
    one = own(tmp_path, [{"turns": ["the cat?", "the dog?"]}, {"turns": ["the cow"]}], **open_ended)
    torch.manual_seed(0)
    scorer = ScalarHead(load_checkpoint(toys.base(tmp_path / "b", tokenizer, context=128))[0])
    torch.nn.init.normal_(scorer.head.weight)
    rows = judge(model, tokenizer, one, Settings(batch=2), None, (scorer, tokenizer))
    assert rows == judge(model, tokenizer, one, Settings(batch=1), None, (scorer, tokenizer))
    assert rows[0].prompt == "the cat?\n\nthe dog?"
    said = [{"role": "user", "content": "the cow"}, {"role": "assistant", "content": rows[1].answer}]
    ids = render(said, tokenizer)[0]
    assert rows[1].figures["score"][0] == pytest.approx(float(scores_of(scorer, [ids], 1)))
    better = [
        dataclasses.replace(row, figures={"score": (row.figures["score"][0] + n, 1.0)}) for n, row in enumerate(rows)
    ]
    (row,) = compare(rows, better)
    assert row["higher"] == 0.75  # one won, one tied


# Checked answers ------------------------------------------------------------------------------------------------------


def test_checked_answers_have_figures_of_every_part(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    said = itertools.product(["cat", "dog"], ["sees", "eats"])
    rows = [
        {"q": f"the {a} {b}", "constraints": [{"words": {"most": most}}, {"lacks": ["zebra"]}], "kind": kind}
        for (a, b), most, kind in zip(said, (0, 99, 0, 99), "xxyy", strict=True)
    ]
    changes = {"kind": "checked", "prompt": "{{ q }}", "checks": {"kept": "constraints", "parts": "constraints:share"}}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(changes | {"rows": rows, "part": "kind", "new_tokens": 6}))
    one = load(str(path))
    assert one.metrics == ("kept", "parts", "ended")
    answers = judge(model, tokenizer, one)
    assert all(row.answer for row in answers)
    assert [row.figures["kept"][0] for row in answers] == [0.0, 1.0, 0.0, 1.0]
    assert [row.figures["parts"][0] for row in answers] == [0.5, 1.0, 0.5, 1.0]
    assert [set(row.figures) - {"kept", "parts", "ended"} for row in answers] == [{"kept_x", "parts_x"}] * 2 + [
        {"kept_y", "parts_y"}
    ] * 2
    found = {row.metric: (row.value, row.n) for row in results(answers)}
    assert (found["kept"], found["kept_x"], found["parts_y"]) == ((0.5, 4), (0.5, 2), (0.75, 2))
    assert [row.answer for row in judge(model, tokenizer, one, Settings(batch=1))] == [row.answer for row in answers]
    rows[1]["constraints"] = [{"wrods": {}}]
    path.write_text(json.dumps(changes | {"rows": rows}))
    with pytest.raises(UserError, match="item 1: there is no constraint 'wrods'"):
        judge(model, tokenizer, load(str(path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checks": {"kept": "constrains"}}, "there is no 'constrains'"),
        ({"checks": {"kept": "constraints:none"}}, "constraints has no 'none'"),
        ({"checks": {}}, "needs 'checks'"),
        ({"source": "rows.jsonl"}, "one of them"),
        ({"rows": []}, "one of them"),
        ({"documents": 5, "rows": []}, "name the lake"),
    ],
)
def test_a_mistake_in_a_checked_task_is_one_line(changes: dict, said: str, tmp_path: Path) -> None:
    task = {"kind": "checked", "prompt": "{{ q }}", "checks": {"kept": "constraints"}, "rows": [{"q": "a"}]} | changes
    (tmp_path / "mine.yaml").write_text(json.dumps(task))
    with pytest.raises(UserError, match=said) as error:
        _ = load(str(tmp_path / "mine.yaml")).items
    assert "\n" not in str(error.value)
