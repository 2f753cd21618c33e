"""A model judged by benchmarks: every item as it was asked, answered and scored, and figures with intervals over them.

What a model says of an item depends on the item, the seed and the settings: not on the batch, nor on the other items.
On a CPU in float32 that holds to the bit (`models.network.bitwise`); on other devices to their rounding.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from datalake.curate.checks.evaluation_sets import WORD
from datalake.errors import UserError
from models.evaluation.benchmark import Asked, Benchmark
from models.evaluation.exam import AS_THEY_ARE, Exam, Settings, exam
from models.evaluation.judged import Judged
from models.evaluation.tasks import Likelihood, log_likelihoods, shortened
from models.network.bitwise import possible
from models.objectives.bradley_terry import scores_of
from models.rl.answers import Answer, Sampling
from models.rl.engine import Engine
from models.rl.rewards.numbers import final, same
from models.rl.rewards.unit_tests import verdict
from models.sandbox import Limits
from models.text.rendering import render
from models.text.tokenizer import edges, encode, ours, stop_ids, vocabulary_size

Progress = Callable[[int], object]
Scorer = tuple[nn.Module, PreTrainedTokenizerBase]  # a reward model
_TAIL = 24  # tokens in which a stop text is looked for, as they are written


def judge(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    settings: Settings = AS_THEY_ARE,
    progress: Progress | None = None,
    reward: Scorer | None = None,
) -> list[Judged]:
    """The items of a benchmark, each answered by a model and scored; see `answered`."""
    return answered(model, tokenizer, exam(benchmark, settings), progress, reward)


def answered(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    exam: Exam,
    progress: Progress | None = None,
    reward: Scorer | None = None,
) -> list[Judged]:
    """The questions of an exam, each answered by a model and scored; `progress` is told how many more are done.

    reward: a reward model and its tokenizer, which score the answers of a `dialogue`.

    Raises:
        UserError: for a model that predicts no next token, a benchmark whose rows don't fit its file, one that needs a
            chat template where there is none, or a sandbox that has no walls here.
    """
    benchmark, settings, questions = exam.benchmark, exam.settings, exam.questions
    if not getattr(model, "causal", True) or not hasattr(model, "logits"):
        raise UserError("this model predicts no next token, so benchmarks can't ask it: take a causal language model")
    if benchmark.kind == "dialogue" and not tokenizer.chat_template:
        raise UserError(f"{benchmark.name} asks in turns, and this tokenizer has no chat template: leave the task out")
    rows = [_row(exam, question) for question in questions]
    model.eval()
    told = progress or (lambda _: None)
    {
        "choice": _choices,
        "continuation": _continuations,
        "generation": _generations,
        "code": _code,
        "text": _texts,
        "dialogue": _dialogues,
        "checked": _checked,
    }[benchmark.kind](Asker(model, tokenizer, settings, reward), benchmark, questions, rows, told)
    return rows


def _row(exam: Exam, question: Asked) -> Judged:
    prompt = question.prompts[0] if len(question.prompts) == 1 else "\n".join(question.prompts)
    name, seed = exam.benchmark.name, exam.settings.seed
    return Judged(name, question.item.name, seed, exam.shots, exam.reasons, prompt, "", question.target, {})


class Asker(NamedTuple):
    """A model, and how it is asked."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    reward: Scorer | None = None

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, up to where the answer begins."""
        if self.settings.chat:
            turns = [[{"role": "user", "content": text}] for text in texts]
            return [render(messages, self.tokenizer, prompt=True)[0] for messages in turns]
        first = opening(self.tokenizer)
        return [first + ids or beginning_of_text(self.tokenizer) for ids in encode(self.tokenizer, texts)]

    def pairs(self, texts: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token ids of (prompt, answer)."""
        if self.settings.chat:
            prompts = self.prompts([prompt for prompt, _ in texts])
            return list(zip(prompts, encode(self.tokenizer, [answer.lstrip() for _, answer in texts]), strict=True))
        return pairs(self.tokenizer, texts)

    def likelihoods(self, texts: Sequence[tuple[str, str]], told: Progress | None = None) -> list[Likelihood]:
        """Of (prompt, answer), how likely the answer is."""
        return log_likelihoods(self.model, self.pairs(texts), self.settings.batch, told)

    def written(
        self,
        prompts: Sequence[list[int]],
        places: Sequence[tuple[int, ...]],
        stops: Sequence[str],
        new: int,
        temperature: float,
        told: Progress,
        special: bool = False,
    ) -> list[tuple[str, bool, bool]]:
        """(text, whether it ended by itself, whether its prompt was cut) of each prompt; a row's random numbers are
        those of its place. special: whether special tokens, but the one that ends an answer, stand in the texts."""
        context = int(self.model.config.context)  # type: ignore[union-attr, arg-type]
        new = min(new, context // 2)
        whole, prompts = prompts, [shortened(prompt, context - new) for prompt in prompts]
        seeds = [_seed((self.settings.seed, *place)) for place in places]
        ends = stop_ids(self.tokenizer, self.model)
        if self.settings.chat:  # a turn ends by itself, and may have several paragraphs, or define several functions
            stops = ()
        sampling = Sampling(new, temperature, tuple(ends), vocabulary_size(self.tokenizer))

        def over(answer: Answer) -> bool:
            tail = str(self.tokenizer.decode(answer.tokens[-_TAIL:], skip_special_tokens=True))
            return any(stop in tail for stop in stops)

        engine = Engine(self.model, sampling, self.settings.batch, possible(self.model), over if stops else None)
        found = []
        step = 4 * self.settings.batch  # so that progress moves
        for start in range(0, len(prompts), step):
            answers = engine(prompts[start : start + step], seeds[start : start + step])
            told(len(answers))
            for number, answer in enumerate(answers, start):
                tokens = answer.tokens[:-1] if special and answer.ended else answer.tokens
                text = str(self.tokenizer.decode(tokens, skip_special_tokens=not special))
                first = min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))
                ended = answer.ended or first < len(text)
                found.append((text[:first], ended, len(prompts[number]) < len(whole[number])))
        return found


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What every text begins with: the token that the tokenizer or training here puts before it; often none."""
    begin = tokenizer.bos_token_id
    if begin is None:
        return []
    return [int(begin)] if ours(tokenizer) is not None or list(tokenizer("a")["input_ids"])[:1] == [begin] else []


def beginning_of_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What stands before the first token that is predicted, where there is no prompt."""
    begin, end = edges(tokenizer)
    return [number for number in (begin if begin is not None else end,) if number is not None]


def pairs(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Token ids of (prompt, answer), both as they are in the whole text: the answer's are those behind as many as the
    prompt has alone, and white space that ends a prompt is the answer's, as in EleutherAI's harness."""
    moved = []
    for prompt, answer in texts:
        bare = prompt.rstrip()
        moved.append((bare, prompt[len(bare) :] + answer))
    heads = encode(tokenizer, [prompt for prompt, _ in moved])
    wholes = encode(tokenizer, [prompt + answer for prompt, answer in moved])
    first = opening(tokenizer)
    found = []
    for head, whole, (_, answer) in zip(heads, wholes, moved, strict=True):
        # An answer may grow together with the prompt's last token, and be none of its own: then it stands apart.
        tokens = whole[len(head) :] or encode(tokenizer, [answer])[0]
        found.append((first + head or beginning_of_text(tokenizer), tokens))
    return found


def windows(
    ids: list[int], before: list[int], context: int, stride: int | None = None
) -> list[tuple[list[int], list[int]]]:
    """A text's tokens as pairs (what is read before, what is predicted): each token once, behind at least
    `context - stride` others where there are so many. `before` stands in front of the text."""
    stride = stride or max(1, context // 2)
    found = [(before, ids[:context])] if ids else []
    for start in range(context, len(ids), stride):
        end = min(start + stride, len(ids))
        found.append((ids[max(0, end - context - 1) : start], ids[start:end]))
    return found


def _choices(
    asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress
) -> None:
    """accuracy: whether the right choice is the likeliest; accuracy_norm: by the likelihood per byte of its text."""
    texts, owners = [], []
    for number, question in enumerate(questions):
        for place, answer in enumerate(question.answers):
            texts.append((question.prompts[place if benchmark.contexts else 0], answer))
            owners.append(number)
    counts, done = Counter(owners), _Whole(owners, told)
    found = iter(asker.likelihoods(texts, done))
    for number, (question, row) in enumerate(zip(questions, rows, strict=True)):
        likely = [next(found) for _ in range(counts[number])]
        nats = np.array([one.nats for one in likely])
        sizes = [max(1, len(answer[len(benchmark.between) :].encode())) for answer in question.answers]
        best, per_byte = int(np.argmax(nats)), int(np.argmax(nats / np.array(sizes)))
        row.answer = (question.prompts if benchmark.contexts else question.answers)[best].removeprefix(
            benchmark.between
        )
        row.cut = any(one.cut for one in likely)
        row.figures = {
            "accuracy": (float(best == question.gold), 1.0),
            "accuracy_norm": (float(per_byte == question.gold), 1.0),
        }
        row.scores = {f"log_likelihood_{place}": float(value) for place, value in enumerate(nats)}


class _Whole:
    """Turns pairs that are done into items that are."""

    def __init__(self, owners: Sequence[int], told: Progress) -> None:
        self.each = max(1, round(len(owners) / max(1, len(set(owners)))))
        self.left, self.told = 0, told

    def __call__(self, pairs: int) -> None:
        items, self.left = divmod(self.left + pairs, self.each)
        self.told(items)


def _continuations(
    asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress
) -> None:
    """accuracy: whether greedy decoding writes the right one; perplexity: of the right ones, by item."""
    found = asker.likelihoods([(question.prompts[0], question.answers[0]) for question in questions], told)
    for row, one in zip(rows, found, strict=True):
        row.answer, row.cut = (row.target if one.greedy else ""), one.cut
        row.figures = {"accuracy": (float(one.greedy), 1.0), "perplexity": (-one.nats, 1.0)}
        row.scores = {"log_likelihood": one.nats}


def _texts(asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress) -> None:
    """bits_per_byte, and perplexity by token, which can't be compared between tokenizers."""
    context, before = int(asker.model.config.context), beginning_of_text(asker.tokenizer)  # type: ignore[union-attr, arg-type]
    texts = [question.answers[0] for question in questions]
    parts = [windows(ids, before, context) for ids in encode(asker.tokenizer, texts)]
    found = iter(log_likelihoods(asker.model, [pair for part in parts for pair in part], asker.settings.batch))
    for row, part, text in zip(rows, parts, texts, strict=True):
        nats = -math.fsum(next(found).nats for _ in part)
        tokens = sum(len(answer) for _, answer in part)
        row.target = text
        row.figures = {
            "bits_per_byte": (nats / math.log(2), float(len(text.encode("utf-8", "replace")))),
            "perplexity": (nats, float(tokens)),
        }
        row.scores = {"log_likelihood": -nats}
        told(1)


def _generations(
    asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress
) -> None:
    """exact_match: whether the answer ends in the right number, or has the right words; ended: by itself."""
    prompts = asker.prompts([question.prompts[0] for question in questions])
    places = [(question.item.place,) for question in questions]
    found = asker.written(prompts, places, benchmark.stop, benchmark.new_tokens, 0.0, told)
    for row, (text, ended, cut) in zip(rows, found, strict=True):
        row.answer, row.cut = text.strip(), cut
        row.figures = {
            "exact_match": (float(equal(text, row.target, benchmark.compare)), 1.0),
            "ended": (float(ended), 1.0),
        }


def equal(answer: str, target: str, compare: str) -> bool:
    """Whether an answer's final number is the target's, or its words are the same."""
    if compare == "text":
        return [word.lower() for word in WORD.findall(answer)] == [word.lower() for word in WORD.findall(target)]
    right, given = final(target), final(answer)
    if right is None:
        raise UserError(f"the right answer {target[:80]!r} has no number to compare with: set `compare: text`")
    return given is not None and same(given, right)


def _code(asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress) -> None:
    """pass@k, for k of 1, 10 and 100 that there are samples for: the share of items that one of k samples solves."""
    samples = asker.settings.samples
    prompts = asker.prompts([question.prompts[0] for question in questions for _ in range(samples)])
    places = [(question.item.place, sample) for question in questions for sample in range(samples)]
    temperature = asker.settings.temperature if samples > 1 else 0.0
    written = asker.written(prompts, places, benchmark.stop, benchmark.new_tokens, temperature, lambda _: None)
    jobs = [(questions[number // samples].item.row, text) for number, (text, _, _) in enumerate(written)]
    limits = Limits(unshielded=asker.settings.unshielded)

    def passes(job: tuple[dict[str, Any], str]) -> bool:
        row, text = job
        return verdict(text, {**row, "setup": row.get("setup") or row.get("prompt", "")}, limits).right

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # they wait for other processes
        passed = list(threads.map(passes, jobs))
    for number, row in enumerate(rows):
        own = slice(number * samples, (number + 1) * samples)
        right = sum(passed[own])
        row.answer, row.cut = written[own][0][0], any(cut for _, _, cut in written[own])
        row.figures = {f"pass@{k}": (pass_at(samples, right, k), 1.0) for k in (1, 10, 100) if k <= samples}
        row.scores = {"samples": float(samples), "passed": float(right)}
        told(1)


def pass_at(samples: int, right: int, k: int) -> float:
    """The unbiased estimate of the chance that one of k answers is right (Chen et al. 2021, arXiv 2107.03374, section
    2.1): 1 - C(samples - right, k) / C(samples, k)."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _checked(
    asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress
) -> None:
    """What the benchmark's checks say of answers, of all items and of each part; ended: by themselves. Asked in a
    dialogue, where the tokenizer has a chat template."""
    items = [question.item.row for question in questions]
    tools = [benchmark.value("tools", row) if benchmark.tools else [] for row in items]
    if asker.tokenizer.chat_template:
        turns = [[{"role": "user", "content": question.prompts[0]}] for question in questions]
        prompts = [
            render(turn, asker.tokenizer, prompt=True, masked=False, tools=offered)[0]
            for turn, offered in zip(turns, tools, strict=True)
        ]
    elif benchmark.tools:
        raise UserError(f"{benchmark.name} offers tools, and this tokenizer has no chat template: leave the task out")
    else:
        prompts = asker.prompts([question.prompts[0] for question in questions])
    places = [(question.item.place,) for question in questions]
    found = asker.written(
        prompts, places, benchmark.stop, benchmark.new_tokens, 0.0, told, special=bool(benchmark.tools)
    )
    verifiers = benchmark.verifiers
    for row, item, (text, ended, cut) in zip(rows, items, found, strict=True):
        row.answer, row.cut = text.strip(), cut
        part = f"_{benchmark.value('part', item)}" if benchmark.part else ""
        for metric, verifier in verifiers.items():
            try:
                row.figures[metric] = (float(verifier(row.prompt, row.answer, item)), 1.0)
            except ValueError as error:
                raise UserError(f"benchmark {benchmark.name}: item {row.item}: {error}") from None
            if part:
                row.figures[metric + part] = row.figures[metric]
        row.figures["ended"] = (float(ended), 1.0)


def _dialogues(
    asker: Asker, benchmark: Benchmark, questions: Sequence[Asked], rows: list[Judged], told: Progress
) -> None:
    """ended: the share of answers that end by themselves; score: of whole dialogues by a reward model, where one is
    given. Whose answers score higher, and how often, `compare` says."""
    talks: list[list[dict[str, str]]] = [[] for _ in questions]
    turns = [list(question.item.row.get("turns") or question.prompts) for question in questions]
    ended, cuts = [0.0] * len(questions), [False] * len(questions)
    for turn in range(max(map(len, turns), default=0)):
        going = [number for number in range(len(turns)) if turn < len(turns[number])]
        for number in going:
            talks[number].append({"role": "user", "content": str(turns[number][turn])})
        prompts = [render(talks[number], asker.tokenizer, prompt=True)[0] for number in going]
        places = [(questions[number].item.place, turn) for number in going]
        found = asker.written(prompts, places, benchmark.stop, benchmark.new_tokens, 0.0, lambda _: None)
        for number, (text, end, cut) in zip(going, found, strict=True):
            talks[number].append({"role": "assistant", "content": text})
            ended[number] += end
            cuts[number] |= cut
    scores: list[float] = []
    if asker.reward is not None:
        scorer, words = asker.reward
        context = int(scorer.config.context)  # type: ignore[union-attr, arg-type]
        whole = [render(talk, words, masked=False)[0][:context] for talk in talks]
        scores = scores_of(scorer.eval(), whole, 1).tolist()  # one by one: no score depends on its neighbours
    for number, row in enumerate(rows):
        said = [message["content"] for message in talks[number]]
        row.prompt, row.answer = "\n\n".join(said[::2]), "\n\n".join(said[1::2])
        row.cut, row.figures = cuts[number], {"ended": (ended[number], float(len(turns[number])))}
        if scores:
            row.figures["score"] = (scores[number], 1.0)
        told(1)


def _seed(parts: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0])
