"""The tasks a model is judged by. Each is a function from a model and plain data to figures per item.

Likelihoods are taken of token sequences laid out as in training; wrong answers and the choice of items come from the
seed alone, so that two models are asked the same questions.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from datalake.text.words import WORD
from models.evaluation.preferences import Scored
from models.network.bitwise import Passes, possible
from models.network.config import round_up
from models.network.generate import generate
from models.network.masks import within_documents
from models.objectives.bradley_terry import scores_of
from models.text.packing import fit_all, fit_pair
from models.text.rendering import UnfitError, render, writes_all
from models.text.sampler import IGNORED, Batch
from models.text.tokenizer import beginning, encode, end_of_turn, stop_ids, vocabulary_size

_WIDTH = 32  # tokens: rows are padded to a multiple
_TARGETS = 512  # of a row, whose logits are held at once


@dataclass(frozen=True, slots=True)
class Losses:
    """Held-out losses by document: nats and predicted tokens (float64, int64) of each; all targets (N) in any order."""

    nats: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray


@torch.no_grad()
def losses(model: nn.Module, batches: Iterable[Batch]) -> Losses:
    """The loss of every target of held-out batches (`models.text.sampler.heldout`), documents kept apart by mask."""
    network: Any = model
    device = next(model.parameters()).device
    nats: defaultdict[int, float] = defaultdict(float)
    tokens: Counter[int] = Counter()
    seen = [np.empty(0, np.int64)]
    for batch in batches:
        batch = batch.to(device)
        hidden_BTD = network(batch.tokens, batch.positions, within_documents(batch.segments))
        chosen = batch.targets != IGNORED
        targets_N = batch.targets[chosen]
        nats_N = F.cross_entropy(network.logits(hidden_BTD[chosen]).float(), targets_N, reduction="none").double()
        segments_N = batch.segments[chosen]
        for document in segments_N.unique().tolist():
            own = segments_N == document
            nats[document] += float(nats_N[own].sum())
            tokens[document] += int(own.sum())
        seen.append(targets_N.cpu().numpy())
    documents = range(max(tokens, default=-1) + 1)
    return Losses(
        np.array([nats[document] for document in documents], np.float64),
        np.array([tokens[document] for document in documents], np.int64),
        np.concatenate(seen),
    )


class Likelihood(NamedTuple):
    """log p(answer | prompt) in nats; whether each of its tokens is the likeliest; whether the pair had to be cut."""

    nats: float
    greedy: bool
    cut: bool = False


@torch.no_grad()
def log_likelihoods(
    model: nn.Module,
    pairs: Sequence[tuple[list[int], list[int]]],
    batch: int,
    progress: Callable[[int], object] | None = None,
) -> list[Likelihood]:
    """The likelihood of the answer of each pair (prompt, answer) of token lists.

    A pair too long for the context loses the oldest of its prompt but the first token; an answer that alone is too long
    is cut to the context.

    Raises:
        UserError: where the model's numbers overflow, of which no likelihood comes.

    A row is as wide as its own length asks for, a multiple of `_WIDTH`, and rows of like width are read together: on a
    CPU in float32 a row's numbers are then the same to the bit in any batch and order (`models.network.bitwise`).
    Pairs that read the same tokens, as letters behind one question do, are read once. `progress` is told how many more
    pairs are done.
    """
    network: Any = model
    device = next(model.parameters()).device
    context = int(network.config.context)
    rows: dict[
        tuple[int, ...], list[tuple[int, int, list[int]]]
    ] = {}  # what is read: pair, first target's place, answer
    cut = []
    for number, (prompt, whole) in enumerate(pairs):
        answer = whole[: context - 1]
        opening = shortened(prompt, context + 1 - len(answer))  # the last token of a row is a target only
        cut.append(len(opening) < len(prompt) or len(answer) < len(whole))
        rows.setdefault((*opening, *answer[:-1]), []).append((number, len(opening) - 1, answer))
    found = [Likelihood(0.0, True)] * len(pairs)
    widths = {row: min(round_up(max(len(row), 1), _WIDTH), max(context, len(row))) for row in rows}
    around: Callable[[], AbstractContextManager[Any]] = Passes if possible(model) else nullcontext
    order = sorted(rows, key=lambda row: widths[row], reverse=True)  # what needs most memory first
    for part in _alike(order, widths, batch):
        tokens_BT = torch.zeros(len(part), widths[part[0]], dtype=torch.long)
        asked = [(place, *entry) for place, row in enumerate(part) for entry in rows[row] if entry[2]]
        for place, row in enumerate(part):
            tokens_BT[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        with around():
            hidden_BTD = network(tokens_BT.to(device))
            for place, number, first, answer in asked:
                nats, greedy = 0.0, True
                for start in range(0, len(answer), _TARGETS):
                    targets_N = torch.tensor(answer[start : start + _TARGETS], device=device)
                    at = first + start
                    logits_NV = network.logits(hidden_BTD[place, at : at + len(targets_N)]).double()
                    logs_N = F.log_softmax(logits_NV, -1).gather(1, targets_N[:, None])
                    nats += float(logs_N.sum())
                    greedy = greedy and bool((logits_NV.argmax(-1) == targets_N).all())
                if math.isnan(nats):
                    raise UserError(
                        "the model's numbers overflow: take a checkpoint whose weights are whole, or more precision"
                    )
                found[number] = Likelihood(nats, greedy, cut[number])
        if progress is not None:
            progress(sum(len(rows[row]) for row in part))
    return found


def _alike(
    order: Sequence[tuple[int, ...]], widths: dict[tuple[int, ...], int], batch: int
) -> Iterator[list[tuple[int, ...]]]:
    """At most `batch` rows at a time, all of one width."""
    part: list[tuple[int, ...]] = []
    for row in order:
        if part and (len(part) == batch or widths[row] != widths[part[0]]):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def shortened(prompt: list[int], room: int) -> list[int]:
    """The prompt in at most `room` tokens (at least one): its first token and the last ones."""
    if len(prompt) <= room:
        return prompt
    return prompt[:1] + prompt[len(prompt) - room + 1 :] if room > 1 else prompt[:1]


def drawn(count: int, limit: int, seed: int) -> list[int]:
    """At most `limit` of `count` items, in order, chosen by the seed."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    return sorted(order[:limit].tolist())


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice item: messages up to the answer, the candidates, and the place of the right one."""

    messages: list[dict[str, str]]
    choices: list[str]
    right: int


def questions(conversations: Sequence[dict[str, Any]], choices: int, limit: int, seed: int) -> list[Question]:
    """Items from dialogues that end with the assistant: its last answer among answers to other prompts.

    Wrong answers differ from the right one, and from each other, in their words, and never answer the same prompt.
    Where there are too few for the asked number of choices there are no items.
    """
    asked = [_turns(conversation) for conversation in conversations]
    made: list[Question] = []
    for number in drawn(len(asked), limit, seed):
        prompt, answer = asked[number]
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
        known = {" ".join(WORD.findall(other.lower())) for turns, other in asked if turns == prompt}
        wrong: list[str] = []
        for other in draw.permutation(len(asked)).tolist():
            words = " ".join(WORD.findall(asked[other][1].lower()))
            if words not in known:
                known.add(words)
                wrong.append(asked[other][1])
            if len(wrong) == choices - 1:
                right = int(draw.integers(choices))
                made.append(Question(prompt, [*wrong[:right], answer, *wrong[right:]], right))
                break
    return made


def _turns(conversation: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    """A dialogue up to its last message of the assistant, and that message."""
    messages = list(conversation["messages"])
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise ValueError("a dialogue without an answer can't be judged: leave it out")
    return messages[:-1], messages[-1]["content"]


def askable(conversations: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Of these dialogues those that the tokenizer's chat template can ask for; none where it has no template."""
    if writes_all(tokenizer):
        return list(conversations)
    if not tokenizer.chat_template:
        return []
    found = []
    for conversation in conversations:
        with suppress(UnfitError):
            render(_turns(conversation)[0], tokenizer, prompt=True)
            found.append(conversation)
    return found


def multiple_choice(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, items: Sequence[Question], batch: int
) -> list[bool]:
    """Whether each item's right answer has the highest likelihood per byte of its text (its end token included).

    Of an answer that the context doesn't hold even without the question, the beginning is judged: the likelihood of its
    tokens over their bytes, as if it ended there; it has no end token.
    """
    context = int(model.config.context)  # type: ignore[union-attr, arg-type]
    stop = [number for number in (end_of_turn(tokenizer),) if number is not None]
    pairs, sizes = [], []
    for item in items:
        prompt, _ = render(item.messages, tokenizer, prompt=True)
        for choice, ids in zip(item.choices, encode(tokenizer, item.choices), strict=True):
            if len(ids) + 1 < context:
                answer, size = [*ids, *stop], len(choice.encode("utf-8", "replace")) + 1
            else:
                answer, size = beginning(tokenizer, choice, ids, context - 1)
            pairs.append((prompt, answer))
            sizes.append(max(size, 1))
    scores = iter(
        np.array([one.nats for one in log_likelihoods(model, pairs, batch)]) / np.array(sizes or [1])[: len(pairs)]
    )
    return [int(np.argmax([next(scores) for _ in item.choices])) == item.right for item in items]


@dataclass(frozen=True, slots=True)
class Written:
    """One generated answer: its text, the reference, their token F1, and whether it ended by itself."""

    text: str
    reference: str
    f1: float
    ended: bool


def written(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[dict[str, Any]],
    max_new_tokens: int,
    batch: int,
) -> list[Written]:
    """Greedy answers to the last question of each dialogue."""
    context = int(model.config.context)  # type: ignore[union-attr, arg-type]
    new = min(max_new_tokens, context // 2)
    stops = stop_ids(tokenizer, model)
    asked = [_turns(conversation) for conversation in conversations]
    prompts = [shortened(render(messages, tokenizer, prompt=True)[0], context - new) for messages, _ in asked]
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        found = generate(
            model,
            [prompts[n] for n in numbers],
            new,
            temperature=0,
            eos_id=stops,
            vocabulary=vocabulary_size(tokenizer),
        )
        for number, answer in zip(numbers, found, strict=True):
            answers[number] = answer
    results = []
    for answer, (_, reference) in zip(answers, asked, strict=True):
        text = str(tokenizer.decode(answer, skip_special_tokens=True))
        results.append(Written(text, reference, token_f1(text, reference), bool(answer) and answer[-1] in stops))
    return results


def token_f1(answer: str, reference: str) -> float:
    """F1 of two texts as bags of words (Rajpurkar et al. 2016, SQuAD, section 6.1; words as in this house)."""
    ours, theirs = (Counter(WORD.findall(text.lower())) for text in (answer, reference))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total())


def scored_pairs(
    reward: nn.Module, tokenizer: PreTrainedTokenizerBase, preferences: Sequence[dict[str, Any]], batch: int
) -> Scored:
    """The scores that a reward model gives both answers of each pair.

    Pairs are made to fit as in training (`models.text.packing.fit_pair`); those that can't be are left out.
    """
    context = int(reward.config.context)  # type: ignore[union-attr, arg-type]
    fitted = fit_all(preferences, lambda pair: fit_pair(pair, tokenizer, context))
    scores = scores_of(reward, [answer for pair in fitted.items for answer in pair[:2]], batch)
    return Scored.of(fitted.items, scores.tolist(), [preferences[n].get("source", "") for n in fitted.numbers])
