"""Next-token pretraining: from token shards to a decoder.

A run that was killed and is started again ends with the same bytes in its checkpoint as an undisturbed one (CPU,
float32, equal threads).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.mixture.config import Shares
from models.network.config import NetworkConfig, RopeScaling
from models.training.config import EvaluatedConfig
from models.training.method import Ended, Method, Prepared, Seen

if TYPE_CHECKING:
    from models.text.phases import Phases
    from models.text.sampler import Sampler
    from models.text.shards import TokenShards


HIDDEN = 1 << 22  # beside the seeds of orders: what is hidden of a batch
HELDOUT = 1 << 40  # held-out rows have theirs drawn as if they were steps from here on


class PhaseConfig(BaseModel):
    """A stretch of a run with a mixture and a length of rows of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, le=1e9, title="Share", description="Of the run's tokens, relative to the other phases.")
    mixture: Shares = Field(
        default_factory=Shares,
        title="Mixture",
        description="Shares of the sources in tokens, among the documents of the recipe's mixture.",
    )
    context: int | None = Field(
        None, ge=8, title="Context", description="Tokens in a row, in as many more rows; empty: the run's."
    )


class PretrainConfig(EvaluatedConfig):
    """Next-token pretraining of a decoder from nothing. The vocabulary's size is the tokenizer's."""

    layers: int = Field(6, ge=1, le=256, title="Layers", description="Decoder blocks.")
    width: int = Field(192, ge=8, le=65536, title="Width", description="Of the residual stream; a multiple of heads.")
    heads: int = Field(6, ge=1, le=1024, title="Heads", description="Query heads of attention.")
    kv_heads: int = Field(3, ge=1, le=1024, title="KV heads", description="Key and value heads; they divide the heads.")
    hidden: int | None = Field(
        None,
        ge=8,
        le=262144,
        title="Hidden width",
        description="Of the feed-forward; empty: 8/3 of the width, rounded.",
    )
    context: int = Field(256, ge=8, le=1_048_576, title="Context", description="Tokens in a row.")
    experts: int = Field(
        0,
        ge=0,
        le=512,
        title="Experts",
        description="In each layer, hidden width each (then a Mixtral folder); 0: none.",
    )
    experts_per_token: int = Field(2, ge=1, le=64, title="Experts per token", description="That each token is sent to.")
    balance: float = Field(
        0.01, ge=0, le=10, title="Balance", description="Weight of the experts' load-balancing loss."
    )
    rope_base: float = Field(10000.0, gt=1, title="RoPE base", description="Of the rotary positions; longer: larger.")
    rope_scaling: RopeScaling | None = Field(
        None,
        title="RoPE scaling",
        description="Positions scaled for a context longer than the base's: linear, llama3 or yarn, with its factor.",
    )
    objective: Literal["next_token", "masked_tokens", "span_corruption"] = Field(
        "next_token",
        title="Objective",
        description="What is learned: the next token (a decoder), hidden tokens (BERT), spans cut out (T5).",
    )
    tied: bool = Field(True, title="Tied head", description="The output head is the embedding.")
    qk_norm: bool = Field(False, title="QK-norm", description="Normalise queries and keys (then a Qwen3 folder).")
    steps: int = Field(
        300, ge=1, le=100_000_000, title="Steps", description="Optimizer steps, unless tokens are given."
    )
    tokens: int | None = Field(
        None, ge=1, title="Token budget", description="Tokens to train on; steps are then tokens / (batch x context)."
    )
    packing: Literal["stream", "best_fit"] = Field(
        "stream",
        title="Packing",
        description="stream: documents end to end, cut where a row ends. best_fit: each whole in a row, where none is"
        " longer, with padding where nothing fits.",
    )
    phases: tuple[PhaseConfig, ...] = Field(
        (),
        title="Phases",
        description="A curriculum: stretches with other shares of the sources (in tokens) and shorter rows. Empty: the"
        " recipe's mixture from first to last.",
    )
    mask_documents: bool = Field(
        True, title="Mask documents", description="A token attends to its own document only, however rows are packed."
    )
    z_loss: float = Field(
        0.0, ge=0, le=1, title="z-loss", description="Weight of the squared log partition (1e-4 is usual)."
    )

    @model_validator(mode="after")
    def _shapes(self) -> PretrainConfig:
        self.network(64)
        for phase in self.phases:
            length = phase.context or self.context
            if length > self.context or self.batch * self.context % length:
                raise ValueError(
                    f"a phase's context is {length}: give one of at most pretrain.context ({self.context}) that divides"
                    f" batch x context ({self.batch * self.context})"
                )
        return self

    def network(self, vocabulary: int) -> NetworkConfig:
        """The decoder's shape for a tokenizer of `vocabulary` tokens. Raises ValueError on sizes that don't fit."""
        return NetworkConfig(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            hidden=self.hidden or 0,
            context=self.context,
            tie=self.tied,
            qk_norm=self.qk_norm,
            experts=self.experts,
            experts_per_token=self.experts_per_token,
            rope_base=self.rope_base,
            rope_scaling=self.rope_scaling,
        ).sized(vocabulary)

    @property
    def total_steps(self) -> int:
        """The optimizer steps that the budget comes to."""
        return self.steps if self.tokens is None else max(1, -(-self.tokens // (self.batch * self.context)))


@dataclass
class Corpus:
    """The token shards, the documents to train on and how often each is seen in an epoch, those held out."""

    config: PretrainConfig
    shards: TokenShards
    train: Sequence[tuple[bytes, int]]
    heldout: Sequence[bytes]
    origins: Mapping[bytes, tuple[str, str]]

    @property
    def steps(self) -> int:
        """What the config's budget comes to."""
        return self.config.total_steps

    @cached_property
    def sampler(self) -> Sampler | Phases:
        """Which tokens each step sees."""
        from models.text.phases import phased
        from models.text.sampler import Sampler

        config, packed = self.config, self.config.packing == "best_fit"
        if not config.phases:
            return Sampler(self.shards, self.train, config.seed, config.context, config.batch, packed)
        sources = {document: self.origins.get(document, ("", ""))[0] for document, times in self.train if times}
        plan = [(phase.share, phase.mixture, phase.context or config.context) for phase in config.phases]
        return phased(self.shards, sources, plan, self.steps, config.seed, config.context, config.batch, packed)

    def seen(self, step: int) -> list[Seen]:
        """The documents of a step, row by row: (id, its first token in the row, how many)."""
        return list(self.sampler.documents(step))


def data(
    config: PretrainConfig,
    shards: Sequence[Path],
    train: Sequence[tuple[bytes, int]],
    heldout: Sequence[bytes],
    origins: Mapping[bytes, tuple[str, str]] | None = None,
) -> Corpus:
    """`shards`: token shards or folders of them. `train`: document ids and how often each is seen in an epoch.
    `heldout`: documents that no step sees. `origins`: source and language of those that train. Raises UserError where a
    document is on both sides."""
    from datalake.errors import UserError
    from models.text.shards import TokenShards

    shared = {document for document, times in train if times}.intersection(heldout)
    if shared:
        raise UserError(f"document {min(shared).hex()} is in training and held out: take it from one of them")
    return Corpus(config, TokenShards(list(shards)), train, heldout, origins or {})


def prepare(
    config: PretrainConfig,
    data: Corpus,
    shards: Sequence[Path],
    train: Sequence[tuple[bytes, int]],
    heldout: Sequence[bytes],
    tokenizer: Path,
    base: Path | None = None,
    origins: Mapping[bytes, tuple[str, str]] | None = None,
) -> Prepared:
    """A decoder of the config's shape from nothing, or the model in `base`, of its own shape, goes on learning.

    The held-out loss and the unigram entropies beside it are in nats per token.

    Raises UserError when a document isn't in the shards or the shards were made by another tokenizer.
    """
    import numpy as np

    from datalake.errors import UserError
    from datalake.files import file_digest, folder_version
    from models.evaluation.heldout import heldout_rows, token_counts, unigram_losses
    from models.network.build import build_model, lengthened
    from models.network.checkpoint import load_model
    from models.network.decoder import Decoder
    from models.objectives.base import IGNORED
    from models.objectives.next_token import losses_of_tokens
    from models.objectives.pretraining import KINDS
    from models.text import tokenizer as tokenizers
    from models.text.phases import Phases
    from models.training.device import moved
    from models.training.epochs import draw
    from models.training.loop import mean_loss, split

    words = tokenizers.load(tokenizer)
    tokens = data.shards
    size = tokenizers.vocabulary_size(words)
    if tokens.vocabulary > size:
        raise UserError(
            f"the token shards use {tokens.vocabulary} tokens, {tokenizer} has {size}: run the recipe again"
        )
    sampler = data.sampler
    kind = KINDS[config.objective](config, words)
    if base is None:
        model = build_model(config.network(size).model_dump() | {"family": kind.family}, config.seed)
    else:
        model = lengthened(load_model(base), config.context, config.rope_scaling)
    plain = heldout_rows(tokens, heldout, config.seed, config.context, config.batch, config.eval_rows)
    judged = [kind.changed(batch, draw(config.seed, HIDDEN, HELDOUT + place)) for place, batch in enumerate(plain)]

    def blame(network: Any, step: int) -> Iterator[tuple[str, int, float]]:
        batch = sampler.batch(step)
        losses = losses_of_tokens(network, moved(batch, next(network.parameters()).device), config.mask_documents).cpu()
        documents = iter(sampler.documents(step))
        for row, segments in enumerate(batch.segments):
            for segment in range(int(segments.max()) + 1):
                targets = (segments == segment) & (batch.targets[row] != IGNORED)
                document, _, _ = next(documents)
                yield document.hex(), int(targets.sum()), float(losses[row][targets].sum())

    def finish(ended: Ended) -> dict[str, Any]:
        report = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "epochs": ended.step / sampler.steps_per_epoch,
            **_packing(config, data),
            **_seen(data, ended),
            **({"warnings": sampler.warnings} if isinstance(sampler, Phases) and sampler.warnings else {}),
        }
        if not judged:
            return report
        loss = ended.heldout["loss"]
        targets = np.concatenate([batch.targets[batch.targets != IGNORED].numpy() for batch in judged])
        report |= {"heldout_loss": loss, "heldout_targets": len(targets)}
        if config.objective != "next_token":
            return report | {"heldout_token_accuracy": ended.heldout["token_accuracy"]}
        entropy, cross = unigram_losses(targets, token_counts(tokens, train, size))
        return report | {
            "unigram_entropy": entropy,
            "heldout_unigram_cross_entropy": cross,
            "loss_to_unigram_entropy": loss / entropy if entropy else None,
        }

    return Prepared(
        model=model,
        objective=kind.objective,
        batches=lambda step: [
            split(kind.changed(sampler.batch(step), draw(config.seed, HIDDEN, step)), config.accumulation)
        ],
        words=words,
        inputs={
            "tokens": hashlib.sha256(b"".join(tokens.ids) + tokens.lengths.tobytes()).hexdigest(),
            "train": [[document, times] for document, times in train],
            "heldout": list(heldout),
            "tokenizer": file_digest(str(tokenizer / "tokenizer.json")),
            **({} if base is None else {"base": folder_version(base)}),
            **({"sources": [data.origins[id][0] for id, _ in train]} if config.phases and data.origins else {}),
        },
        measure=(lambda network: mean_loss(network, judged, kind.plain)) if judged else None,
        ahead=True,
        compiles=isinstance(model, Decoder) and not model.config.experts and not config.phases,
        finish=finish,
        blame=blame if config.objective == "next_token" else None,
    )


def _seen(data: Corpus, ended: Ended) -> dict[str, Any]:
    """The tokens that trained by source and language, and what share was asked of each source by phases."""
    from collections import Counter

    from models.text.phases import Phases

    if not data.origins:
        return {}
    counts: Counter[tuple[str, str]] = Counter()
    for id, tokens in zip(data.shards.ids, data.sampler.tokens_seen(ended.step, ended.without).tolist(), strict=True):
        if tokens:
            counts[data.origins[id]] += tokens
    seen = [{"source": of[0], "language": of[1], "tokens": tokens} for of, tokens in sorted(counts.items())]
    phases = data.sampler if isinstance(data.sampler, Phases) else None
    return {"tokens_seen": seen} | ({"asked": phases.asked(ended.step), "why": phases.why} if phases else {})


def _packing(config: PretrainConfig, data: Corpus) -> dict[str, Any]:
    """Of best fit: the documents that are longer than a row, with their tokens and the row's."""
    if config.packing != "best_fit":
        return {}
    room = min(phase.context or config.context for phase in config.phases) if config.phases else config.context
    lengths = ((id, int(data.shards.lengths[data.shards.number(id)])) for id, times in data.train if times)
    return {"in_pieces": [[id.hex(), length, room] for id, length in lengths if length > room]}


pretrain = Method("pretrain", PretrainConfig, data, prepare, title="Pretraining", default=True, version="2")
