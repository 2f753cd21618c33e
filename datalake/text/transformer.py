"""Transformers models that read the beginnings of texts: loaded once a process, fed in batches of like length.

A text is read up to `max_tokens` tokens, or as many as the model takes; of one too long to be cut into tokens as a
whole, the first 32 characters for each of these tokens are. A GPU is used where the process sees one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datalake.errors import UserError
from datalake.text.transformer_config import Model

if TYPE_CHECKING:
    import torch

_CHARACTERS_PER_TOKEN = 32
_BATCH_TOKENS = 8192  # of a batch, padding included
_BATCH_TEXTS = 256


class Loaded(NamedTuple):
    """A model in float32, its tokenizer, where it works and how many tokens both take."""

    model: Any
    tokenizer: Any
    device: torch.device
    most: int


@lru_cache(maxsize=8)
def load(model: Model, auto: str, what: str, setting: str) -> Loaded:
    """The model of a TransformerConfig, loaded once a process.

    `auto` names the class of Transformers that loads it; `what` it should be and `setting` are for messages.

    Raises:
        UserError: where there is no such model, or the folder has changed.
    """
    import torch
    import transformers

    model.check(f"{setting}.model")
    path = model.path
    name, _, commit = path.partition("@")
    # Code that comes with a model isn't run: left out, Transformers would ask on stdin.
    where: dict[str, Any] = {"revision": commit, "trust_remote_code": False}
    if Path(path).is_dir():
        name, where = path, {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
        network = getattr(transformers, auto).from_pretrained(name, dtype=torch.float32, **where)
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no {what} ({why}): correct `{setting}`, model") from error
    # A causal model tells where a text ends by its padding.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    positions = getattr(network.config, "max_position_embeddings", None) or 1 << 20
    most = min(int(tokenizer.model_max_length), int(positions), 1 << 20)
    return Loaded(network.eval().to(device), tokenizer, device, most)


def token_batches(texts: Sequence[str], loaded: Loaded, max_tokens: int) -> Iterator[tuple[list[int], Any]]:
    """The places of some texts and their tokens, padded, on the model's device; all texts, the shortest first."""
    most = min(max_tokens, loaded.most)
    # Lone surrogates can't reach the tokenizer.
    cut = [text[: _CHARACTERS_PER_TOKEN * most].encode("utf-8", "replace").decode("utf-8") for text in texts]
    tokens = loaded.tokenizer(cut, truncation=True, max_length=most)
    for batch in batches_by_length([len(ids) for ids in tokens["input_ids"]]):
        chosen = {name: [values[k] for k in batch] for name, values in tokens.items()}
        yield batch, loaded.tokenizer.pad(chosen, return_tensors="pt").to(loaded.device)


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like length together, the shortest first, no more than fit a batch when padded to its longest."""
    batch: list[int] = []
    for k in sorted(range(len(lengths)), key=lambda k: (lengths[k], k)):
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * lengths[k] > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(k)
    yield batch
