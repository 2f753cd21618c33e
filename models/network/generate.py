"""Writing on from prompts: batched, with a cache of keys and values, and equal to the loop that recomputes everything.

Prompts of unequal length are padded on the left, so that every row's next token stands in the last column; padding is
masked and positions count from each prompt's first token. A row's random numbers are drawn for it in advance: what a
row becomes depends on the seed, its place and its own prompt, not on when its neighbours end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datalake.errors import UserError


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
    mass = probabilities.cumsum(-1)
    chosen = torch.searchsorted(mass, uniform_B[:, None] * mass[:, -1:], right=True)
    # rounding may point past the last token that has any mass
    last = (probabilities > 0).long().cumsum(-1).argmax(-1, keepdim=True)
    chosen = torch.minimum(chosen, last)
    return (chosen if order is None else order.gather(1, chosen))[:, 0]


@torch.no_grad()
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
    if not prompts or max_new_tokens < 1:
        return [[] for _ in prompts]
    _check(model, prompts, max_new_tokens)
    stops = _stops(eos_id)
    device = next(model.parameters()).device
    uniforms = torch.rand(len(prompts), max_new_tokens, dtype=torch.float64, generator=generator).to(device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    width = int(lengths.max())
    tokens = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
    padding = width - lengths
    rows = torch.arange(len(prompts), device=device)  # which prompts are still being written
    seen = torch.arange(width + max_new_tokens, device=device)[None, :] >= padding[:, None]
    answers: list[list[int]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    try:
        network: Any = model
        cache = network.new_cache(len(prompts), width + max_new_tokens)
        padded = bool(padding.any())
        attend = None
        if padded:
            causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
            # a padded position may see itself: an empty row would be NaN
            eye = torch.eye(width, dtype=torch.bool, device=device)
            attend = ((seen[:, None, :width] & causal) | eye)[:, None]
        positions = (torch.arange(width, device=device)[None, :] - padding[:, None]).clamp(min=0)
        for step in range(max_new_tokens):
            hidden_BTD = network(tokens, positions, attend, cache)
            logits_BV = network.logits(hidden_BTD[:, -1])
            chosen = pick(logits_BV, uniforms[rows, step], temperature, top_p, top_k, vocabulary)
            keep = []
            for place, (row, token) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
                if answers[row] and answers[row][-1] in stops:
                    continue
                answers[row].append(token)
                if token not in stops:
                    keep.append(place)
            if not keep or step + 1 == max_new_tokens:
                break
            if 2 * len(keep) <= len(rows):  # leave finished rows behind once half are
                kept = torch.tensor(keep, device=device)
                cache.select(kept)
                rows, chosen = rows[kept], chosen[kept]
            tokens = chosen[:, None]
            positions = (lengths[rows] + step)[:, None]
            attend = seen[rows, None, None, : width + step + 1] if padded else None
    finally:
        model.train(training)
    return answers


@torch.no_grad()
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
    _check(model, [prompt], max_new_tokens)
    stops = _stops(eos_id)
    device = next(model.parameters()).device
    uniforms = torch.rand(1, max_new_tokens, dtype=torch.float64, generator=generator).to(device)
    network: Any = model.eval()
    cache = network.new_cache(1, len(prompt) + max_new_tokens)
    tokens = torch.tensor([list(prompt)], device=device)
    for step in range(max_new_tokens):
        positions = torch.arange(cache.length, cache.length + tokens.shape[1], device=device)[None]
        logits_BV = network.logits(network(tokens, positions, None, cache)[:, -1])
        chosen = pick(logits_BV, uniforms[:, step], temperature, top_p, top_k, vocabulary)
        yield int(chosen)
        if int(chosen) in stops:
            return
        tokens = chosen[:, None]


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
