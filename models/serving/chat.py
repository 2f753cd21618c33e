"""Talking with a checkpoint: the answer to a dialogue, piece by piece as it is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from models.network.generate import stream
from models.text.packing import latest_turns, most
from models.text.rendering import render
from models.text.tokenizer import stop_ids, vocabulary_size

_BROKEN = "\ufffd"  # what a decoder shows for bytes that are no character, or not yet


def reply(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, str]],
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 0.95,
    top_k: int = 0,
    seed: int = 0,
) -> Iterator[str]:
    """Pieces of the assistant's answer; joined they are the whole. Equal arguments give equal answers.

    A dialogue too long for the model's context loses its oldest turns (a system message stays).

    Raises:
        UserError: where there is no message, or the last one alone doesn't fit.
    """
    if not messages:
        raise UserError("nothing to answer: give at least one message")
    context = int(model.config.context)  # type: ignore[union-attr, arg-type]
    new = min(max_new_tokens, max(1, context // 2))
    prompt = fitting(messages, tokenizer, context - new)
    stops = set(stop_ids(tokenizer, model))
    draw = torch.Generator().manual_seed(seed)
    tokens = stream(model, prompt, new, temperature, top_p, top_k, stops, draw, vocabulary_size(tokenizer))
    return pieces((token for token in tokens if token not in stops), tokenizer)


def fitting(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, room: int) -> list[int]:
    """The prompt for an answer in at most `room` tokens: all messages, or the system's and the latest that fit."""
    count, latest = latest_turns(messages, ("user", "tool", "system"))
    least = latest(1) if count else list(messages)
    tokens = len(render(least, tokenizer, prompt=True)[0])
    if tokens > room:
        raise UserError(f"the message is {tokens} tokens long, the model has room for {room}: shorten it")

    def fits(number: int) -> list[int] | None:
        ids, _ = render(latest(number) if count else least, tokenizer, prompt=True)
        return ids if len(ids) <= room else None

    return most(max(count, 1), fits) or []


def pieces(tokens: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Text from tokens as soon as it is sure; see `Pieces`."""
    text = Pieces(tokenizer)
    for token in tokens:
        if piece := text.push(token):
            yield piece
    if rest := text.rest():
        yield rest


class Pieces:
    """Text from tokens as soon as it is sure: a character whose bytes come in several tokens is held until it is whole.

    Each piece is what a token adds to the text before it, so that tokenizers which write spaces by context come out
    right too. Special tokens aren't shown, but for those `shown`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, shown: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder if shown else {}
        self.hidden = {number for number, token in added.items() if token.special and number not in shown}
        self.skip = not shown
        self.ids: list[int] = []
        self.before, self.after = 0, 0  # tokens already settled, and those already shown

    def push(self, token: int) -> str:
        """What a token adds; nothing while it is unsure."""
        if token in self.hidden:
            return ""
        self.ids.append(token)
        prefix, text = self._decode(self.ids[self.before : self.after]), self._decode(self.ids[self.before :])
        if len(text) <= len(prefix) or text.endswith(_BROKEN):
            return ""
        self.before, self.after = self.after, len(self.ids)
        return text[len(prefix) :]

    def rest(self) -> str:
        """What was held back when no more tokens come."""
        prefix, text = self._decode(self.ids[self.before : self.after]), self._decode(self.ids[self.before :])
        self.before = self.after = len(self.ids)
        return text[len(prefix) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=self.skip))
