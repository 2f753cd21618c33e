"""What pretraining may learn: the next token, hidden tokens, spans cut out. One more kind is a function and a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from datalake.errors import UserError
from models.objectives.base import Objective
from models.objectives.masked_tokens import mask_tokens, masked_tokens
from models.objectives.next_token import next_token
from models.objectives.span_corruption import corrupt_spans, span_corruption
from models.text.config import MASK, SPARES
from models.text.sampler import Batch


@dataclass
class Kind:
    """A kind of pretraining: the `family` of a fresh network, the objective, the plain one that is reported, and what
    becomes of a batch before it is learned, by random numbers."""

    family: str
    objective: Objective
    plain: Objective
    changed: Callable[[Batch, Generator], Any]


def _next_token(config: Any, words: Any) -> Kind:
    learned = next_token(config.mask_documents, config.z_loss, config.balance)
    return Kind("decoder", learned, next_token(config.mask_documents, balance=0.0), lambda batch, chance: batch)


def _masked_tokens(config: Any, words: Any) -> Kind:
    mask = words.mask_token_id if words.mask_token_id is not None else words.get_vocab().get(MASK)
    if mask is None:
        raise UserError("this tokenizer has no mask token: take another one, or pretrain.objective next_token")
    specials = [*words.all_special_ids, mask]

    def changed(batch: Batch, chance: Generator) -> Batch:
        return mask_tokens(batch, chance, mask, len(words), specials)

    return Kind("bert", masked_tokens, masked_tokens, changed)


def _span_corruption(config: Any, words: Any) -> Kind:
    known = words.get_vocab()
    sentinels = [known[name] for name in (*SPARES, *(f"<extra_id_{k}>" for k in range(100))) if name in known]
    if len(sentinels) < 2:
        raise UserError("this tokenizer has no sentinels: take another one, or pretrain.objective next_token")

    def changed(batch: Batch, chance: Generator) -> Any:
        return corrupt_spans(batch, chance, sentinels)

    return Kind("t5", span_corruption, span_corruption, changed)


KINDS: dict[str, Callable[[Any, Any], Kind]] = {
    "next_token": _next_token,
    "masked_tokens": _masked_tokens,
    "span_corruption": _span_corruption,
}
