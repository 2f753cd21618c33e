"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W x becomes W x + (alpha / rank) B A x; B and A are trained.

A starts as torch's linear layers do, B at zero: an adapted model begins as its base. Adapters lie on the layers they
change, which keep their names: a method trains, saves its state and resumes as ever. They are written in peft's format,
or added to the weights for an ordinary folder. Experts and their router are left alone: Transformers keeps a layer's
experts as one tensor, which adapters of peft don't fit.

Embedding and head are frozen, but for the rows of tokens that the dialogues need and the base never learned (`rows.py`;
peft's `trainable_token_indices`).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from datalake.atomic import whole_folder
from datalake.errors import UserError
from models.network.build import ScalarHead
from models.network.checkpoint import VALUE_HEAD, load_model
from models.network.config import LoraConfig
from models.network.experts import Mixture
from models.network.foreign import Foreign
from models.network.rows import merge_rows, train_rows, untrained

TOKENS = ".token_adapter.trainable_tokens_delta"  # peft's name for rows, which are whole there

ADAPTER = "adapter_config.json"


def apply_lora(model: nn.Module, config: LoraConfig, seed: int = 0, tokens: Iterable[int] = ()) -> nn.Module:
    """Put adapters on the layers that a config names, and freeze all else but a scalar head. Returns the same model.

    Of the `tokens` those that the model never learned have their rows trained as well; they are its `lora_tokens` then.

    Raises:
        UserError: for a name that no layer has.
    """
    trunk = model.trunk if isinstance(model, ScalarHead) else model
    chosen = [(name, layer) for name, layer in _candidates(trunk) if _named(name, config.targets)]
    unknown = [target for target in config.targets if not any(_named(name, (target,)) for name, _ in chosen)]
    if unknown or not chosen:
        found = sorted({name.rpartition(".")[2] for name, _ in _candidates(trunk)})
        raise UserError(f"lora.targets {unknown} name no layer that can be adapted: this model has {', '.join(found)}")
    trunk.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for _, layer in chosen:
        width, out = reversed(layer.weight.shape) if isinstance(layer, nn.Linear) else layer.weight.shape
        down = torch.empty(config.rank, width).uniform_(-1, 1, generator=generator) / math.sqrt(width)
        layer.lora_A = _matrix(down, layer.weight)
        layer.lora_B = _matrix(torch.zeros(out, config.rank), layer.weight)
        layer.lora_scale = config.alpha / config.rank
        layer.register_forward_hook(_add)
    embedding, head = _ends(trunk)
    unlearned = untrained((embedding if head is None else head).weight, tokens)
    if unlearned:
        train_rows(embedding, head, unlearned)
    model.lora, model.lora_tokens = config, unlearned  # type: ignore[assignment]
    return model


def merged(model: nn.Module) -> nn.Module:
    """A copy of an adapted model with its adapters added to the weights: an ordinary model, every weight trainable."""
    for module in model.modules():
        if isinstance(module, Mixture):
            module.routing = None  # belongs to a pass that is over, and can't be copied
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer in _adapted(model):
            change = layer.lora_scale * (layer.lora_B.weight @ layer.lora_A.weight)
            layer.weight += change if isinstance(layer, nn.Linear) else change.T
            del layer.lora_A, layer.lora_B, layer.lora_scale
            for key in [key for key, hook in layer._forward_hooks.items() if hook is _add]:
                del layer._forward_hooks[key]
        merge_rows(model)
    del model.lora, model.lora_tokens
    return model.requires_grad_(True)


def save_adapter(model: nn.Module, folder: Path | str, base: Path | str = "") -> Path:
    """Write the adapters of a model as peft does: `adapter_config.json` and `adapter_model.safetensors`; a scalar head
    lies beside them. Returns the folder. `base`: where the base model lies, for who loads it.
    """
    trunk = model.trunk if isinstance(model, ScalarHead) else model
    config: Any = model.lora
    prefix = "base_model.model." if isinstance(trunk, Foreign) else "base_model.model.model."
    weights: dict[str, Tensor] = {}
    taught: dict[str, Any] = {}
    for name, weight in trunk.state_dict().items():
        if ".lora_" in name and not name.endswith(".lora_rows"):
            weights[prefix + name.removeprefix("inner.")] = weight.detach().contiguous().cpu()
    embedding, head = _ends(trunk)
    for layer in (embedding, *(() if head is None or head.weight is embedding.weight else (head,))):
        if model.lora_tokens:
            name = next(name for name, module in trunk.named_modules() if module is layer).removeprefix("inner.")
            above = "base_model.model." if layer is head else prefix
            rows = (layer.weight[layer.lora_ids] + layer.lora_rows).detach().contiguous().cpu()
            weights[above + name + TOKENS] = rows
            taught[name.rpartition(".")[2]] = model.lora_tokens
    layers = [(name, layer) for name, layer in trunk.named_modules() if hasattr(layer, "lora_A")]
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(layer, Conv1D) for _, layer in layers),
        "target_modules": sorted({name.removeprefix("inner.") for name, _ in layers}),
        "inference_mode": True,
    }
    if taught:
        settings["trainable_token_indices"] = taught
    with whole_folder(Path(folder)) as temporary:
        save_file(weights, temporary / "adapter_model.safetensors", {"format": "pt"})
        if isinstance(model, ScalarHead):
            save_file(model.head.state_dict(), temporary / VALUE_HEAD, {"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (temporary / ADAPTER).write_text(text, encoding="utf-8")
    return Path(folder)


def load_adapter(folder: Path | str) -> tuple[nn.Module, str]:
    """The base that a folder of adapters names, with the adapters added to its weights, and where the base lies.

    Raises:
        UserError: where the base isn't on this machine, or the adapters don't fit it or do more than `W + s B A`.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
        base, config = settings["base_model_name_or_path"], LoraConfig(rank=settings["r"], alpha=settings["lora_alpha"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"the adapters in {folder} can't be read: {' '.join(str(error).split())[:200]}") from None
    rows = {name.removesuffix(TOKENS): weights.pop(name) for name in [*weights] if name.endswith(TOKENS)}
    more = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
    other = [name for name in more if settings.get(name)] or [name for name in weights if ".lora_" not in name]
    if settings.get("peft_type") != "LORA" or other:
        raise UserError(f"{folder} holds other adapters than plain LoRA ({', '.join(other[:3])}): merge them with peft")
    place = next((path for path in (Path(base or ""), folder / (base or "")) if base and path.exists()), None)
    if place is None and (folder.parent / "config.json").is_file():
        raise UserError(f"{folder} holds adapters alone: {folder.parent} is the model with them, take that")
    if place is None:
        raise UserError(f"{folder} holds adapters of {base or 'an unnamed base'}, which isn't here: fetch it first")
    model = load_model(place)
    prefix = "base_model.model." if isinstance(model, Foreign) else "base_model.model.model."
    lead = "inner." if isinstance(model, Foreign) else ""
    found = {lead + name.removeprefix(prefix): weight for name, weight in weights.items()}
    layers = tuple(sorted({name.split(".lora_")[0] for name in found}))
    apply_lora(model, config.model_copy(update={"targets": layers}))
    try:
        _teach(model, rows, settings.get("trainable_token_indices") or ())
        _, unknown = model.load_state_dict(found, strict=False)
    except (RuntimeError, IndexError, KeyError):
        unknown = [*found, *rows]
    if unknown:
        raise UserError(f"the adapters in {folder} don't fit {place}: they change {unknown[0]}, which it hasn't so")
    return merged(model).eval(), str(place)


def _teach(model: nn.Module, rows: dict[str, Tensor], ids: Any) -> None:
    """Put rows in the place of a base's: of the embedding, or of the head as well, as peft's settings name them."""
    embedding, head = _ends(model)
    by_name = {name.rpartition(".")[2]: layer for name, layer in model.named_modules() if layer in (embedding, head)}
    for name, values in rows.items():
        layer = name.rpartition(".")[2]
        with torch.no_grad():
            by_name[layer].weight[ids[layer] if isinstance(ids, dict) else list(ids)] = values


def _ends(trunk: nn.Module) -> tuple[Any, Any]:
    """A model's embedding, and its head where that is a layer of its own."""
    if isinstance(trunk, Foreign):
        return trunk.inner.get_input_embeddings(), trunk.inner.get_output_embeddings()
    return trunk.embed_tokens, trunk.lm_head


def _add(layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The forward hook of an adapted layer: a plain function, so that a copied model's hooks are its own."""
    return output + layer.lora_scale * layer.lora_B(layer.lora_A(arguments[0]))


def _matrix(values: Tensor, like: Tensor) -> nn.Linear:
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(values.to(device=like.device, dtype=like.dtype))
    return layer


def _candidates(trunk: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of a body that can be adapted: linear ones, but for heads, experts and their routers."""
    head = trunk.inner.get_output_embeddings() if isinstance(trunk, Foreign) else None
    for name, layer in trunk.named_modules():
        parts = name.split(".")
        if (
            isinstance(layer, nn.Linear | Conv1D)
            and layer is not head
            and not {"lm_head", "gate", "experts"} & {*parts}
        ):
            yield name, layer


def _named(name: str, targets: tuple[str, ...]) -> bool:
    return not targets or any(name == target or name.endswith(f".{target}") for target in targets)


def _adapted(model: nn.Module) -> Iterator[Any]:
    return (layer for layer in model.modules() if hasattr(layer, "lora_A"))
