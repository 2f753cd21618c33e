"""One shard's documents to one shard of embeddings: a vector of length 1 for each, by any encoder of Transformers.

The tokens' last hidden states become one vector as Sentence-Transformers pools them: their mean over the tokens that
are no padding, the first token's, or the last one's. Only the beginning of a text is read (`transformer.py`):
documents that differ behind it alone are one in meaning. A blank text has no embedding, nor one of which a model makes
no numbers.

Work is in float32, the result is rounded to float16, which moves a cosine by less than 0.001. Texts are batched by
length; neighbours in a batch, processor and threads change no more than a last digit of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.dedup.config import SemanticConfig
from datalake.dedup.schema import EMBEDDINGS
from datalake.errors import UserError
from datalake.identity import canonical
from datalake.text.transformer import load, token_batches

COLUMNS = ["id", "text", "language"]
EMBEDDED_WITH = b"headwater.embedding"  # metadata key: model, tokens, pooling, languages in canonical JSON


def embedding_schema(config: SemanticConfig) -> pa.Schema:
    """EMBEDDINGS, marked with what it was made with."""
    return EMBEDDINGS.with_metadata({EMBEDDED_WITH: canonical(config.embedding)})


def embed_batches(batches: Iterable[pa.RecordBatch], config: SemanticConfig) -> Iterator[pa.RecordBatch]:
    """Embeds record batches with the columns of `COLUMNS`, in their order; documents in other languages have none.

    Raises:
        UserError: where there is no such model, or the folder has changed.
    """
    schema = embedding_schema(config)
    for batch in batches:
        texts: list[str] = batch.column("text").to_pylist()
        if config.languages is not None:
            read = batch.column("language").to_pylist()
            texts = [text if language in config.languages else "" for text, language in zip(texts, read, strict=True)]
        vectors = embed(texts, config)
        values = [None if vector is None else vector.astype("<f2").tobytes() for vector in vectors]
        columns = [batch.column("id").cast(pa.binary(16)), pa.array(values, pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def embed(texts: Sequence[str], config: SemanticConfig) -> list[npt.NDArray[np.float32] | None]:
    """Each text's embedding, shape (dimension,), of length 1; None for a blank one.

    Raises:
        UserError: where there is no such model, or the folder has changed.
    """
    import torch

    vectors: list[npt.NDArray[np.float32] | None] = [None] * len(texts)
    chosen = [row for row, text in enumerate(texts) if text.strip()]
    if not chosen:
        return vectors
    loaded = load(config.model, "AutoModel", "encoder", "deduplicate.semantic")
    if loaded.model.config.is_encoder_decoder:
        raise UserError(f"{config.model.path} has a decoder as well: name an encoder in `deduplicate.semantic`, model")
    for batch, tokens in token_batches([texts[row] for row in chosen], loaded, config.max_tokens):
        if not tokens["input_ids"].shape[1]:
            continue  # a tokenizer that finds nothing in them
        with torch.inference_mode():
            states = loaded.model(**tokens).last_hidden_state.float()
            pooled = _pool(states, tokens["attention_mask"], config.pooling)
            pooled = pooled / pooled.norm(dim=1, keepdim=True)
        for k, vector in zip(batch, pooled.cpu().numpy(), strict=True):
            if np.isfinite(vector).all():
                vectors[chosen[k]] = vector
    return vectors


def _pool(states_BTD: Any, mask_BT: Any, pooling: str) -> Any:
    """One vector (B, D) of the states where the mask is 1, whichever side the padding is on."""
    import torch

    if pooling == "mean":
        weights = mask_BT.unsqueeze(-1).to(states_BTD.dtype)
        return (states_BTD * weights).sum(1) / weights.sum(1)
    places = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    if pooling == "last":
        chosen = (mask_BT * places).argmax(1)
    else:
        chosen = mask_BT.argmax(1)
    return states_BTD[torch.arange(len(states_BTD), device=mask_BT.device), chosen]
