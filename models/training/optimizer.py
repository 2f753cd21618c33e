"""Optimizers: AdamW with decay on matrices only, and Muon for the inner matrices where a config asks for it.

AdamW: Loshchilov and Hutter 2019. Muon: Jordan et al. 2024, torch's own implementation; its Newton-Schulz iteration
runs in bfloat16, which a CPU without AVX512-BF16 or AMX computes slowly. Which parameters get decay: those with two or
more dimensions, as in GPT-2's and nanoGPT's training; norms and biases get none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.parallel.ranks import ALONE, Ranks
from models.training.config import TrainingConfig


class Optimizers:
    """Several optimizers that step as one. `param_groups` are all their groups, in order."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; a change to a group's `lr` takes effect."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of every part, as torch saves it."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts a saved state back. Raises ValueError when it comes from another set of parts."""
        if len(state["parts"]) != len(self.parts):
            raise ValueError("the saved optimizer state belongs to another optimizer")
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def _groups(parameters: Iterable[Tensor], config: TrainingConfig, rate: float, clip_unit: str) -> list[dict[str, Any]]:
    """Parameters split into those that decay and those that don't; each group knows its peak rate and clip unit."""
    shared = {"lr": rate, "peak": rate, "clip_unit": clip_unit}
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in parameters:
        (matrices if parameter.ndim >= 2 else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, **shared},
        {"params": others, "weight_decay": 0.0, **shared},
    ]
    return [group for group in groups if group["params"]]


def _ends(module: nn.Module) -> set[int]:
    """Which parameters, by `id`, stand between tokens and width: embeddings, and the heads of Transformers' models."""
    inside: list[Any] = list(module.modules())
    parts = [part for part in inside if isinstance(part, nn.Embedding)]
    parts += [part.get_output_embeddings() for part in inside if hasattr(part, "get_output_embeddings")]
    return {id(part.weight) for part in parts if part is not None}


def build_optimizer(
    config: TrainingConfig, modules: dict[str, nn.Module], rates: dict[str, float] | None = None
) -> Optimizers:
    """The optimizer of a config over named modules, whose gradients are clipped apart from each other.

    `rates` gives a module a peak rate of its own (PPO's critic). A parameter shared by several modules or names, such
    as a tied head, is updated once. Muon takes neither embeddings and heads nor the routers of experts: their rows are
    one token's or one expert's, and orthogonal they needn't be.
    """
    adam: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    seen: set[int] = set()
    for unit, module in modules.items():
        rate = (rates or {}).get(unit, config.learning_rate)
        outer: list[Tensor] = []
        inner: list[Tensor] = []
        ends = _ends(module)
        for name, parameter in module.named_parameters():
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            is_inner = parameter.ndim == 2 and id(parameter) not in ends and "head" not in name
            is_inner = is_inner and name.split(".")[-2:-1] not in (["gate"], ["router"])
            (inner if config.optimizer == "muon" and is_inner else outer).append(parameter)
        adam += _groups(outer, config, rate, unit)
        if inner:
            peak = config.muon_learning_rate * rate / config.learning_rate
            muon += _groups(inner, config, peak, unit)
    if not adam and not muon:
        raise ValueError("the model has no parameters to train")
    # The fused kernel does one pass over memory; it exists for float parameters on every device we train on.
    parts: list[torch.optim.Optimizer] = []
    if adam:
        parts.append(
            torch.optim.AdamW(
                adam, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
            )
        )
    if muon:
        parts.append(torch.optim.Muon(muon, lr=config.muon_learning_rate, weight_decay=config.weight_decay))
    return Optimizers(parts)


def set_rate(optimizer: Optimizers, factor: float) -> float:
    """Sets every group's rate to its peak times the factor; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])


def gradient_norms(optimizer: Optimizers, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """The norm of the gradients of each clip unit, on their device; of a unit without gradients there is none."""
    units: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        units.setdefault(group["clip_unit"], []).extend(parameters)
    return {unit: ranks.norm(parameters) for unit, parameters in units.items() if parameters}


def whole_norm(norms: Mapping[str, float], scale: float) -> float:
    """The norm over all clip units of gradients multiplied by `scale`; not finite where one isn't."""
    squares = 0.0
    for norm in norms.values():
        squares += (norm * scale) * (norm * scale)
    return float(squares**0.5)


def scale_and_clip(
    optimizer: Optimizers, scale: float, limit: float, norms: Mapping[str, float] | None = None
) -> float:
    """Multiplies all gradients by `scale`, then clips each clip unit to the global norm `limit` (0: none).

    `norms` are those of `gradient_norms`, where they are known already. Returns the norm over all units after scaling,
    before clipping; not finite where a gradient isn't.
    """
    if norms is None:
        norms = {unit: float(norm) for unit, norm in gradient_norms(optimizer).items()}
    factors: dict[str, float] = {}
    for unit, norm in norms.items():
        scaled = norm * scale
        factors[unit] = scale * min(1.0, limit / scaled) if limit and scaled > 0 else scale
    for group in optimizer.param_groups:
        gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        factor = factors.get(group["clip_unit"], 1.0)
        if gradients and factor != 1.0:
            torch._foreach_mul_(gradients, factor)
    return whole_norm(norms, scale)
