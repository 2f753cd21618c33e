"""The feed-forward half of a layer: SwiGLU (Shazeer 2020, arXiv 2002.05202), or several of them as experts, of which a
router chooses the top k for each token as in Mixtral (Jiang et al. 2024, arXiv 2401.04088); and the loss that keeps
experts evenly used.

Every expert keeps matrices of its own, so that a checkpoint, Muon and adapters see matrices. Letters in names: B batch,
T tokens, N tokens of all rows, K experts a token, E experts, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.network.config import NetworkConfig


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Mixture(nn.Module):
    """Sparse experts as in Mixtral: softmax over all experts, the top k kept, their weights rescaled to sum to one.

    After a forward pass in training mode, `routing` holds the router's logits (N, E) for `auxiliary`.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.per_token = config.experts_per_token
        # what the grouped product takes: rows of 16 bytes
        self.aligned = config.width % 8 == 0 and config.hidden % 8 == 0
        self.gate = nn.Linear(config.width, config.experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(config.width, config.hidden) for _ in range(config.experts))
        self.routing: Tensor | None = None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Sends every token to its experts and adds up what they say, weighted.

        Tokens are sorted by expert, so that each expert is one product. In bfloat16 all are: one grouped product whose
        shapes depend on no data, so that neither the host waits nor the graph breaks.
        """
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        logits_NE = self.gate(x_ND)
        self.routing = logits_NE if self.training else None
        weights_NK, chosen_NK = logits_NE.float().softmax(-1).topk(self.per_token, dim=-1)
        weights_NK = (weights_NK / weights_NK.sum(-1, keepdim=True)).to(x_ND.dtype)
        order = chosen_NK.flatten().argsort(stable=True)
        sorted_XD = x_ND[order // self.per_token]
        kind = x_ND.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_ND.dtype
        way = self._grouped if dtype == torch.bfloat16 and self.aligned else self._one_by_one
        said_XD = way(sorted_XD.to(dtype), chosen_NK)
        said_NKD = said_XD[order.argsort()].view(*chosen_NK.shape, -1).to(x_ND.dtype)
        return (said_NKD * weights_NK[..., None]).sum(1).view_as(x_BTD)

    def _grouped(self, sorted_XD: Tensor, chosen_NK: Tensor) -> Tensor:
        ends = uses(chosen_NK, len(self.experts)).cumsum(0).to(torch.int32)

        def product(x: Tensor, name: str) -> Tensor:
            weights = torch.stack([expert.get_parameter(f"{name}.weight") for expert in self.experts])
            return F.grouped_mm(x, weights.to(x.dtype).transpose(1, 2), offs=ends)

        return product(F.silu(product(sorted_XD, "gate_proj")) * product(sorted_XD, "up_proj"), "down_proj")

    def _one_by_one(self, sorted_XD: Tensor, chosen_NK: Tensor) -> Tensor:
        """Every expert is called, on no token at times: in training each stays in the graph, and ranks reduce alike."""
        parts = sorted_XD.split(uses(chosen_NK, len(self.experts)).tolist())
        return torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])


def uses(chosen_NK: Tensor, experts: int) -> Tensor:
    """How often each expert was chosen (E); unlike bincount without asking the device for the largest number."""
    flat = chosen_NK.flatten()
    return torch.zeros(experts, dtype=flat.dtype, device=flat.device).scatter_add_(0, flat, torch.ones_like(flat))


def auxiliary(model: nn.Module, counted_BT: Tensor | None = None) -> Tensor | None:
    """The load-balancing loss of the last training pass, as Transformers' Mixtral has it; None without experts.

    Fedus et al. 2021 (arXiv 2101.03961), equation 4, extended to top-k: experts times the sum over experts of (choices
    of it a token x mean probability), all layers' tokens taken together: k where experts are evenly used. Tokens that
    aren't `counted_BT`, padding, are left out.
    """
    mixtures = [module for module in model.modules() if isinstance(module, Mixture) and module.routing is not None]
    if not mixtures:
        return None
    logits_NE = torch.cat([module.routing for module in mixtures if module.routing is not None]).float()
    probabilities_NE = logits_NE.softmax(-1)
    chosen_NE = torch.zeros_like(probabilities_NE).scatter_(
        -1, probabilities_NE.topk(mixtures[0].per_token, dim=-1).indices, 1.0
    )
    if counted_BT is None:
        share_E, mean_E = chosen_NE.mean(0), probabilities_NE.mean(0)
    else:
        counted_N1 = counted_BT.reshape(-1, 1).to(probabilities_NE.dtype).repeat(len(mixtures), 1)
        tokens = counted_N1.sum().clamp(min=1)
        share_E, mean_E = ((row_NE * counted_N1).sum(0) / tokens for row_NE in (chosen_NE, probabilities_NE))
    return logits_NE.shape[1] * (share_E * mean_E).sum()
