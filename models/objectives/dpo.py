"""Direct preference optimisation: preferences without a reward model (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

A pair's margin is beta times how much more the policy prefers the chosen answer than the reference does:

    margin = beta (log p(chosen) - log p_ref(chosen) - log p(rejected) + log p_ref(rejected))

`sigmoid`: -log sigmoid(margin), with label smoothing as in Mitchell 2023 (conservative DPO). `ipo`: the squared
distance of margin / beta from 1 / (2 beta), of log-probabilities per token (Azar et al. 2023, arXiv 2310.12036,
equation 17). Where the policy is the reference the margin is 0: sigmoid starts at ln 2, ipo at 1 / (4 beta^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from models.objectives.answers import answer_log_probs, as_rows
from models.objectives.base import Loss, Objective
from models.objectives.bradley_terry import bradley_terry_loss

Kind = Literal["sigmoid", "ipo"]


@dataclass(slots=True)
class Compared:
    """Pairs as rows, the chosen and the rejected answer of each side by side, padded on the right: `tokens` (B, 2, T),
    `targets` (B, 2, T), the next token where it is the answer's, else -100, and the reference's `log_probs` (B, 2)."""

    tokens: Tensor
    targets: Tensor
    log_probs: Tensor


def collate(pairs: Sequence[Any], log_probs: Tensor) -> Compared:
    """Rows from pairs with `chosen` and `rejected` token lists, and `start`, where their answers begin."""
    tokens, targets = as_rows([(ids, pair.start) for pair in pairs for ids in (pair.chosen, pair.rejected)])
    shape = (len(pairs), 2)
    return Compared(tokens.unflatten(0, shape), targets.unflatten(0, shape), log_probs)


def dpo(beta: float = 0.1, kind: Kind = "sigmoid", label_smoothing: float = 0.0, per_token: bool = False) -> Objective:
    """The objective over `Compared`; a target is a pair. `per_token` takes log-probabilities per token, as ipo always
    does (the reference's must be taken alike). Metrics: loss, accuracy (a tie counts half), margin, and the implicit
    rewards beta (log p - log p_ref) of both answers."""

    def objective(model: nn.Module, batch: Compared) -> Loss:
        rows = batch.tokens.flatten(0, 1), batch.targets.flatten(0, 1)
        gains_B2 = answer_log_probs(model, *rows, per_token or kind == "ipo").view(-1, 2) - batch.log_probs
        margins_B = beta * (gains_B2[:, 0] - gains_B2[:, 1])
        if kind == "ipo":
            total = (margins_B / beta - 1 / (2 * beta)).square().sum()
        else:
            total = bradley_terry_loss(margins_B, label_smoothing).sum()
        margins_B, rewards_B2 = margins_B.detach(), beta * gains_B2.detach()
        sums = {
            "loss": total.detach(),
            "accuracy": (margins_B > 0).sum() + 0.5 * (margins_B == 0).sum(),
            "margin": margins_B.sum(),
            "reward_chosen": rewards_B2[:, 0].sum(),
            "reward_rejected": rewards_B2[:, 1].sum(),
        }
        return Loss(total, margins_B.numel(), sums, (rows[0].shape,))

    return objective
