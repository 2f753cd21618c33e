"""Writing on from prompts with continuous batching: a row that has ended leaves its slot to the next prompt.

Prompts are read together, in passes of like lengths, and then written on with the rows that are there already; no row
is as wide as the widest of its batch. What a row becomes depends on its own random numbers and its own prompt, not on
its neighbours, its slot or when it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from datalake.errors import UserError
from models.network.config import round_up
from models.network.slots import KEYS, slots_for

TOKENS_A_PASS = 8192  # of prompts, padding and all, that are read at once


def pick(
    logits_BV: Tensor,
    uniform_B: Tensor,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    vocabulary: int | None = None,
) -> Tensor:
    """The next token of each row (B), from one uniform number for each (B, float64).

    `temperature` 0 takes the likeliest. `top_k` keeps that many tokens (0: all), then `top_p` the fewest whose mass
    reaches it (Holtzman et al. 2019, arXiv 1904.09751). `vocabulary` rules out ids from there on (rows of padding).
    """
    logits_BV = logits_BV.float()
    if vocabulary is not None:
        logits_BV = logits_BV[:, :vocabulary]
    if temperature == 0:
        return logits_BV.argmax(-1)
    if top_k:
        least = logits_BV.topk(min(top_k, logits_BV.shape[1]), dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    probabilities = (logits_BV.double() / temperature).softmax(-1)
    order = None
    if top_p < 1:
        probabilities, order = probabilities.sort(stable=True, dim=-1, descending=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    chosen = draw_from(probabilities, uniform_B)
    return chosen if order is None else order.gather(1, chosen[:, None])[:, 0]


def draw_from(probabilities_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token (B) at which each row's mass, added up, first exceeds a share of it (B, float64)."""
    mass = probabilities_BV.cumsum(-1, dtype=torch.float64)
    total = mass[:, -1:]
    # Below all mass, though rounding may say otherwise: the token found has some of its own.
    point = torch.minimum(uniform_B[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(mass, point, right=True)[:, 0]


Choose = Callable[[Tensor, Sequence[int]], tuple[list[int], Sequence[Any]]]
Follow = Callable[[int, int, Any], Sequence[int]]


@torch.no_grad()
def write(
    model: nn.Module,
    prompts: Sequence[Sequence[int]] | Mapping[int, Sequence[int]],
    width: int,
    slots: int,
    choose: Choose,
    follow: Follow,
    least: int = 1,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    arrivals: Callable[[], Iterable[int]] | None = None,
) -> Iterator[Sequence[int]]:
    """Writes on from all prompts, `slots` at once; yields the tokens of each pass.

    choose: (hidden states (N, D), the rows' numbers) -> their next tokens, and something more about each.
    follow: (a row's number, its new token, what was said more) -> what the row reads next, the token itself and
    whatever comes after it; nothing where the row has ended.
    width: tokens a row is likely to need. least: rows in every pass, and around: what every pass runs in; for results
    that are equal to the bit (`models.rl.exact`). arrivals: asked before every pass for the numbers of rows that came
    meanwhile, whose prompts stand in `prompts`, a mapping, by then. Runs in evaluation mode and restores the mode.
    """
    waiting = deque(range(len(prompts)) if arrivals is None else arrivals())
    slots = min(slots, len(prompts)) if arrivals is None else slots
    capacity = max(slots, least)
    store = slots_for(model, capacity, width)
    device = next(model.parameters()).device
    rows = [-1] * slots  # the row of each slot, -1 for none
    done = [0] * capacity  # how many of its tokens were read
    ahead: list[Sequence[int]] = [[0]] * capacity  # what it reads next

    def read(places: list[int], decoding: int = 0) -> list[int]:
        """One pass over the rows in these slots; with `decoding` over so many slots from the first on, a token each."""
        seen = range(decoding) if decoding else places
        longest = 1 if decoding else round_up(max(len(ahead[slot]) for slot in places), KEYS)
        tokens = torch.tensor([[*ahead[slot], *[0] * (longest - len(ahead[slot]))] for slot in seen], device=device)
        starts = torch.tensor([done[slot] for slot in seen], device=device)
        counts = torch.tensor([len(ahead[slot]) for slot in seen], device=device)
        with around():
            hidden_BD = store.read(slice(0, decoding) if decoding else places, tokens, starts, counts)
        if len(places) < len(seen):
            hidden_BD = hidden_BD[places]
        chosen, more = choose(hidden_BD, [rows[slot] for slot in places])
        for slot, token, extra in zip(places, chosen, more, strict=True):
            done[slot] += len(ahead[slot])
            ahead[slot] = follow(rows[slot], token, extra)
            if not ahead[slot]:
                rows[slot], done[slot], ahead[slot] = -1, 0, [0]
        return chosen

    training = model.training
    model.eval()
    try:
        while True:
            waiting.extend(arrivals() if arrivals is not None else ())
            free = [slot for slot, row in enumerate(rows) if row < 0]
            # Reading a prompt costs a pass: some come together.
            if waiting and (len(free) >= min(len(waiting), max(1, slots // 4)) or len(free) == slots):
                for slot, row in zip(free, list(waiting), strict=False):
                    rows[slot], ahead[slot] = waiting.popleft(), prompts[row]
            elif not waiting:
                _close_ranks(store, rows, done, ahead)
            reading = [slot for slot, row in enumerate(rows) if row >= 0 and len(ahead[slot]) > 1]
            if reading:
                for part in _of_like_length(reading, [len(ahead[slot]) for slot in reading]):
                    yield read(part)
                continue
            busy = [slot for slot, row in enumerate(rows) if row >= 0]
            if not busy:
                return
            yield read(busy, max(busy[-1] + 1, least))
    finally:
        model.train(training)


def _of_like_length(slots: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Parts of the slots, shortest first, that fit a pass and have no row more than twice as long as another."""
    part: list[int] = []
    shortest = 0
    for length, slot in sorted(zip(lengths, slots, strict=True)):
        if part and (length > max(2 * shortest, KEYS) or length * (len(part) + 1) > TOKENS_A_PASS):
            yield part
            part = []
        if not part:
            shortest = length
        part.append(slot)
    yield part


def _close_ranks(store: Any, rows: list[int], done: list[int], ahead: list[Sequence[int]]) -> None:
    """Rows from the last slots move to free ones, so that a pass is no longer than there are rows."""
    first, last = 0, len(rows) - 1
    while True:
        while first < last and rows[first] >= 0:
            first += 1
        while first < last and rows[last] < 0:
            last -= 1
        if first >= last:
            return
        store.move(last, first, done[last])
        rows[first], done[first], ahead[first] = rows[last], done[last], ahead[last]
        rows[last], done[last], ahead[last] = -1, 0, [0]


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    eos_id: int | Collection[int] | None = None,
    generator: torch.Generator | None = None,
    vocabulary: int | None = None,
) -> list[list[int]]:
    """The new tokens of each prompt, ending with the stop token where one came (`eos_id`: one, or several).

    `generator`: a CPU generator; the same state gives the same answers. Runs in evaluation mode and restores the mode.

    Raises:
        UserError: where a prompt is empty, or a prompt and its new tokens don't fit the model's context.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    if prompts and max_new_tokens > 0:
        options = temperature, top_p, top_k, vocabulary
        deque(_answer(model, prompts, answers, max_new_tokens, options, eos_id, generator), maxlen=0)
    return answers


def stream(
    model: nn.Module,
    prompt: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    eos_id: int | Collection[int] | None = None,
    generator: torch.Generator | None = None,
    vocabulary: int | None = None,
) -> Iterator[int]:
    """The tokens of one answer as they come, the stop token included; the same that `generate` gives for one prompt."""
    options = temperature, top_p, top_k, vocabulary
    for (token,) in _answer(model, [prompt], [[]], max_new_tokens, options, eos_id, generator):
        yield token


def _answer(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    answers: list[list[int]],
    new: int,
    options: tuple[float, float, int, int | None],
    eos_id: int | Collection[int] | None,
    generator: torch.Generator | None,
) -> Iterator[Sequence[int]]:
    """Fills the answers, all prompts at once; yields the tokens of each pass."""
    _check(model, prompts, new)
    stops = _stops(eos_id)
    uniforms = torch.rand(len(prompts), new, dtype=torch.float64, generator=generator)

    def choose(hidden_ND: Tensor, rows: Sequence[int]) -> tuple[list[int], Sequence[None]]:
        network: Any = model
        uniform_N = uniforms[rows, [len(answers[row]) for row in rows]].to(hidden_ND.device)
        return pick(network.logits(hidden_ND), uniform_N, *options).tolist(), [None] * len(rows)

    def follow(row: int, token: int, _: None) -> Sequence[int]:
        answers[row].append(token)
        return () if token in stops or len(answers[row]) == new else (token,)

    width = max(map(len, prompts)) + new
    return write(model, prompts, width, len(prompts), choose, follow)


def _stops(eos_id: int | Collection[int] | None) -> frozenset[int]:
    if eos_id is None:
        return frozenset()
    return frozenset([eos_id] if isinstance(eos_id, int) else eos_id)


def _check(model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if not getattr(model, "causal", True):
        raise UserError("this model fills gaps in texts, it writes none: take one that predicts the next token")
    if not all(prompts):
        raise UserError("a prompt is empty: give at least one token, such as <|bos|>")
    longest, context = max(len(prompt) for prompt in prompts), int(model.config.context)  # type: ignore[union-attr, arg-type]
    if longest + max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones don't fit the model's context of {context}: "
            "shorten one of them"
        )
