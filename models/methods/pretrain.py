"""Next-token pretraining: from token shards to a Hugging Face folder.

`out` holds `metrics.jsonl` (a row a step, to follow), `state` (to resume from) and, at the end, `checkpoint`. A run
that was killed and is started again ends with the same bytes in `checkpoint` as an undisturbed one (CPU, float32, equal
threads).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from datalake.errors import UserError
from datalake.files import file_digest
from datalake.identity import fingerprint
from models.network import checkpoint
from models.network.build import build_model
from models.objectives.base import IGNORED
from models.objectives.next_token import next_token
from models.text import tokenizer as tokenizers
from models.text.sampler import Batch, Sampler
from models.text.sampler import heldout as heldout_batches
from models.text.shards import TokenShards
from models.training.callbacks import Checkpoints, Evaluation, Metrics, Progress, SpikeGuard
from models.training.config import PretrainConfig
from models.training.epochs import draw
from models.training.loop import Callback, fit, load_state, mean_loss, split
from models.training.optimizer import build_optimizer
from models.training.schedule import schedule_of

OnStep = Callable[[dict[str, Any]], None]


def pretrain(
    config: PretrainConfig,
    shards: Sequence[Path],
    train: Sequence[tuple[bytes, int]],
    heldout: Sequence[bytes],
    tokenizer: Path,
    out: Path,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Trains a decoder and writes it to `out/checkpoint`; returns a report of plain values.

    `shards`: token shards or folders of them. `train`: document ids and how often each is seen in an epoch. `heldout`:
    documents that no step sees, for the held-out loss and the unigram entropies beside it (all in nats per token).
    `on_step` is told of every step's metrics. Raises UserError when a document isn't in the shards, the shards were
    made by another tokenizer, a document is on both sides, or `out/state` belongs to another run.
    """
    words = tokenizers.load(tokenizer)
    tokens = TokenShards(list(shards))
    if tokens.vocabulary > len(words):
        raise UserError(
            f"the token shards use {tokens.vocabulary} tokens, {tokenizer} has {len(words)}: run the recipe again"
        )
    shared = {document for document, times in train if times}.intersection(heldout)
    if shared:
        raise UserError(f"document {min(shared).hex()} is in training and held out: take it from one of them")
    sampler = Sampler(tokens, train, config.seed, config.context, config.batch)
    torch.manual_seed(config.seed)
    model = build_model(config.network(len(words)), config.seed)
    judged = _heldout(tokens, heldout, config)
    identity = fingerprint(
        {
            "stage": "pretrain",
            "config": config,
            "tokens": hashlib.sha256(b"".join(tokens.ids) + tokens.lengths.tobytes()).hexdigest(),
            "train": [[document, times] for document, times in train],
            "heldout": list(heldout),
            "tokenizer": file_digest(str(tokenizer / "tokenizer.json")),
        }
    )
    objective = next_token(config.mask_documents, config.z_loss)

    def measure(network: nn.Module) -> dict[str, float]:
        return mean_loss(network, judged, next_token(config.mask_documents))

    guard, metrics = SpikeGuard(config.spike_sigma), Metrics(out / "metrics.jsonl")
    evaluation = Evaluation(measure, config.eval_every)
    callbacks: list[Callback] = [guard, *([evaluation] if judged else []), metrics, Progress(on_step)]
    state = fit(
        model,
        objective,
        lambda step: [split(sampler.batch(step), config.accumulation)],
        build_optimizer(config, {"model": model}),
        schedule_of(config, config.total_steps),
        [*callbacks, Checkpoints(out / "state", config.checkpoint_every, identity)],
        load_state(out / "state", identity),
        steps=config.total_steps,
        clip=config.clip,
    )
    checkpoint.save(model, words, out / "checkpoint")
    report: dict[str, Any] = {
        "steps": state.step,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "target_tokens": state.targets,
        "epochs": state.step / sampler.steps_per_epoch,
        "loss": metrics.last["loss"],
        "tokens_per_s": metrics.tokens_per_s,
        "skipped": len(guard.events),
    }
    if judged:
        targets = np.concatenate([batch.targets[batch.targets != IGNORED].numpy() for batch in judged])
        own, of_training = unigram_entropies(targets, token_counts(tokens, train, len(words)))
        loss = evaluation.last["loss"]
        report |= {
            "heldout_loss": loss,
            "heldout_targets": len(targets),
            "heldout_unigram_entropy": own,
            "training_unigram_cross_entropy": of_training,
            "loss_to_unigram_entropy": loss / own if own else None,
        }
    return report


def _heldout(tokens: TokenShards, documents: Sequence[bytes], config: PretrainConfig) -> list[Batch]:
    """The rows that the held-out loss reads: documents in an order drawn from the seed, up to `eval_rows` rows."""
    missing = next((document for document in documents if document not in tokens), None)
    if missing is not None:
        raise UserError(f"held-out document {missing.hex()} isn't in the token shards: run the recipe again")
    order = draw(config.seed, 1 << 20).permutation(len(documents))
    batches: list[Batch] = []
    left = config.eval_rows
    for batch in heldout_batches(tokens, [documents[place] for place in order], config.context, config.batch):
        rows = min(left, len(batch.tokens))
        batches.append(Batch(*(part[:rows] for part in (batch.tokens, batch.targets, batch.positions, batch.segments))))
        left -= rows
        if not left:
            break
    return [batch for batch in batches if bool((batch.targets != IGNORED).any())]


def token_counts(tokens: TokenShards, train: Sequence[tuple[bytes, int]], vocabulary: int) -> np.ndarray:
    """How often each token (V) is a target in one epoch: all of each document but its first, times its repetitions."""
    counts = np.zeros(vocabulary, np.int64)
    by_times: dict[int, list[int]] = {}
    for document, times in train:
        by_times.setdefault(times, []).append(tokens.number(document))
    for times in sorted(set(by_times) - {0}):
        numbers = by_times[times]
        for start in range(0, len(numbers), 1024):
            pieces = [tokens.tokens(number)[1:] for number in numbers[start : start + 1024]]
            counts += times * np.bincount(np.concatenate(pieces), minlength=vocabulary)
    return counts


def unigram_entropies(targets: np.ndarray, training_counts: np.ndarray) -> tuple[float, float]:
    """Two baselines in nats per token for held-out targets (N): what a model that knows only frequencies could reach.

    First the entropy of the targets' own distribution, the lowest loss of any fixed distribution on them; then the
    cross-entropy under the training tokens' distribution, with one added to each count so that no token is impossible.
    """
    counts = np.bincount(targets, minlength=len(training_counts)).astype(np.float64)
    share = counts[counts > 0] / len(targets)
    smoothed = (training_counts + 1) / (training_counts.sum() + len(training_counts))
    return float(-(share * np.log(share)).sum()), float(-(counts * np.log(smoothed)).sum() / len(targets))
