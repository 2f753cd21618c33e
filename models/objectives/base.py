"""What an objective is: a small function from (model, batch) to a `Loss`, a sum over targets and how many there were.

Objectives return sums and never means, so that the loop can divide by the number of targets in the whole update: a
loss is then the same whatever the accumulation, the packing or the padding. A target is what the loss is a mean over:
a token for language modelling, a pair for a reward model, an action for PPO.

Letters in names: B batch, T tokens, N tokens of all rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.network.experts import auxiliary

IGNORED = -100  # the target that no loss counts, torch's own convention
# Bytes of logits, as float32, that are computed at once; some three times as much is in use then.
LARGEST_ON_CPU, LARGEST = 1 << 29, 1 << 31


@dataclass(slots=True)
class Loss:
    """A loss over one micro-batch: the scalar sum to differentiate, its targets, and metrics summed over them.

    targets: a number, or a tensor of one that the host needn't wait for. read: the shapes (rows, tokens) of what the
    network read, padding and all: what speed is told by; where there are none, targets.
    """

    total: Tensor
    targets: int | Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    read: Sequence[tuple[int, ...]] = ()


Objective = Callable[[nn.Module, Any], Loss]


def without_looking(tensor: Tensor) -> bool:
    """Whether the host can't look into a tensor without waiting for a device, or breaking a compiled graph."""
    return tensor.device.type != "cpu" or torch.compiler.is_compiling()


def cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """The sum over N targets of -log p(target), in nats, and the same with `z_loss` times each squared log partition.

    The z-loss (Chowdhery et al. 2022, PaLM, section 5) keeps log sum exp near zero; 1e-4 is its usual weight.
    """
    plain = F.cross_entropy(logits_NV.float(), targets_N, reduction="sum", ignore_index=IGNORED)
    if not z_loss:
        return plain, plain
    squares_N = logits_NV.float().logsumexp(-1).square()
    return plain, plain + z_loss * (squares_N * (targets_N != IGNORED)).sum()


def token_loss(
    model: nn.Module, hidden_BTD: Tensor, targets_BT: Tensor, z_loss: float = 0.0, accuracy: bool = False
) -> Loss:
    """The loss of tokens told from hidden states: the sum of -log p, in nats, of all targets that aren't -100.

    The metric `loss` leaves the z-loss out; `token_accuracy` counts the targets that were the likeliest token. The head
    runs on targets alone, but where the host would have to wait to know them, on all. Logits above `LARGEST` bytes are
    computed in parts, each again for its gradients: the same numbers in less memory, for a third more of the head.
    """
    hidden_ND, targets_N = hidden_BTD.flatten(0, -2), targets_BT.flatten()
    targets: int | Tensor
    if without_looking(targets_N):
        targets = (targets_N != IGNORED).sum()
    else:
        chosen_N = targets_N != IGNORED
        hidden_ND, targets_N = hidden_ND[chosen_N], targets_N[chosen_N]
        targets = targets_N.numel()

    def part(hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, ...]:
        logits_NV: Tensor = model.logits(hidden_ND)  # type: ignore[operator]
        sums = cross_entropy_sum(logits_NV, targets_N, z_loss)
        return (*sums, (logits_NV.detach().argmax(-1) == targets_N).sum()) if accuracy else sums

    pieces = in_parts(model, part, hidden_ND, targets_N)
    plain, total, *right = pieces[0] if len(pieces) == 1 else (torch.stack(s).sum() for s in zip(*pieces, strict=True))
    sums = {"loss": plain.detach()} | ({"token_accuracy": right[0]} if accuracy else {})
    return Loss(total, targets, sums)


def in_parts(
    model: nn.Module, part: Callable[[Tensor, Tensor], tuple[Tensor, ...]], hidden_ND: Tensor, targets_N: Tensor
) -> list[tuple[Tensor, ...]]:
    """What `part` gives for hidden states and their targets, in as many pieces as keep logits within `LARGEST` bytes;
    where they are several, each is computed again for its gradients."""
    parts = -(-targets_N.numel() * _vocabulary(model) * 4 // _largest(hidden_ND))
    if parts <= 1:
        return [part(hidden_ND, targets_N)]
    return [
        checkpoint(part, *piece, use_reentrant=False, preserve_rng_state=False)
        for piece in zip(hidden_ND.chunk(parts), targets_N.chunk(parts), strict=True)
    ]


def pay_for_balance(loss: Loss, model: nn.Module, counted_BT: Tensor, weight: float) -> None:
    """Adds to a loss `weight` times the load-balancing loss of a model's experts, if it has any.

    That loss is a mean over the micro-batch's tokens, paid once for each target: what an update adds is the mean of its
    micro-batches' balance losses, weighted by their targets. Balance is asked of a micro-batch, so 2 of them aren't
    quite 1 of twice the size. `counted_BT`: False on padding. The metric `balance` is that loss before its weight:
    experts_per_token where experts are evenly used.
    """
    unbalanced = auxiliary(model, counted_BT)
    if unbalanced is not None:
        loss.total = loss.total + weight * loss.targets * unbalanced
        loss.sums["balance"] = loss.targets * unbalanced.detach()


def _vocabulary(model: nn.Module) -> int:
    return int(model.config.vocabulary)  # type: ignore[union-attr, arg-type]


def _largest(tensor: Tensor) -> int:
    return LARGEST_ON_CPU if tensor.device.type == "cpu" else LARGEST
