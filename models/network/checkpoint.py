"""A checkpoint is a Hugging Face folder: config, weights in safetensors, tokenizer, chat template, generation settings.

Our decoder is written as the architecture it equals: Llama, Qwen3 (QK-norm), Mixtral (experts) or Qwen3-MoE (both), so
`AutoModelForCausalLM.from_pretrained(folder)` gives the same logits, and `load` reads folders of these architectures
from anywhere. Names map one to one: ours with `model.` before them; Mixtral's files call the block `block_sparse_moe`
and its matrices w1 (gate), w3 (up), w2 (down).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase

from datalake.atomic import whole_folder
from datalake.errors import UserError
from datalake.places import place
from models import gguf
from models.network.build import ScalarHead
from models.network.config import NetworkConfig, RopeScaling
from models.network.decoder import Decoder
from models.network.encoder_decoder import EncoderDecoder
from models.network.foreign import Foreign, ForeignConfig
from models.text import tokenizer as text

VALUE_HEAD = "value_head.safetensors"
GENERATION = "generation_config.json"
_FAMILIES = {"llama": (False, False), "qwen3": (True, False), "mixtral": (False, True), "qwen3_moe": (True, True)}
_OF_DRAWING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_OLD_NAMES = ("torch_dtype", "_name_or_path")  # a dtype that is no longer the file's, and a place
_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


@dataclass(frozen=True)
class Base:
    """What a folder says that a model is loaded from: its config and generation settings. A model saved later says the
    same wherever the decoder has no word of its own."""

    config: dict[str, Any]
    generation: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> Base:
        """The settings that lie beside a config; a GGUF file has none."""
        path = folder / GENERATION
        generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls({name: value for name, value in config.items() if name not in _OLD_NAMES}, generation)

    @property
    def stops(self) -> tuple[int, ...]:
        """The ids that end an answer by the generation settings, or by the config where there are none, as Transformers
        takes them."""
        found = (self.generation or self.config).get("eos_token_id")
        if found is None:
            return ()
        return (int(found),) if isinstance(found, int) else tuple(int(id) for id in found)


def save(model: nn.Module, tokenizer: PreTrainedTokenizerBase | Path | str | None, folder: Path | str) -> Path:
    """Write a checkpoint, whole or not at all; a folder that is there already is replaced. Returns the folder.

    `model`: a `Decoder`, a model of another family, or a `ScalarHead` on either, whose head lies beside the body's
    weights. `tokenizer`: one, or a folder that holds one, or None for weights alone.
    """
    folder = place(folder)
    if isinstance(tokenizer, str | Path):
        tokenizer = text.load(tokenizer)
    with whole_folder(folder) as temporary:
        trunk = model.trunk if isinstance(model, ScalarHead) else model
        if isinstance(model, ScalarHead):
            _write(model.head.state_dict(), temporary / VALUE_HEAD)
        if tokenizer is not None:
            text.save(tokenizer, temporary)
        if isinstance(trunk, Foreign | EncoderDecoder):
            trunk.inner.save_pretrained(temporary)
            if tokenizer is not None and getattr(trunk, "causal", True):
                _add_stops(temporary / GENERATION, text.stop_ids(tokenizer, trunk))
        elif isinstance(trunk, Decoder):
            _write(to_hub(trunk), temporary / "model.safetensors")
            stops = text.stop_ids(tokenizer, trunk) if tokenizer is not None else []
            dtype = trunk.embed_tokens.weight.dtype
            base = getattr(trunk, "base", Base({}, {}))
            settings = hub_config(trunk.config, tokenizer, dtype, stops)
            _write_json(base.config | settings, temporary / "config.json")
            generation = {"do_sample": False} | base.generation | _generation(tokenizer, stops)
            _write_json(_valid(generation), temporary / GENERATION)
        else:
            raise TypeError(f"{type(trunk).__name__} is no network of this house: build it with build_model")
        mode = (temporary / "config.json").stat().st_mode  # the umask's: safetensors makes files for their owner alone
        for path in temporary.iterdir():
            path.chmod(mode)
    return folder


def load(folder: Path | str, trust_remote_code: bool = False) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model (a `Decoder` where the architecture is ours, else a `Foreign`; a `ScalarHead` where a head lies beside)
    and its tokenizer, in float32 and evaluation mode, from a folder or a GGUF file. Code that lies in the folder runs
    with `trust_remote_code` alone.

    Raises:
        UserError: for what is no checkpoint, in one line.
    """
    model = load_model(folder, trust_remote_code)
    return model, text.load(folder, trust_remote_code)


def load_model(folder: Path | str, trust_remote_code: bool = False) -> nn.Module:
    """The model of a checkpoint without its tokenizer; as `load` otherwise."""
    folder = Path(folder)
    if not gguf.is_gguf(folder) and not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a checkpoint: expected a folder with config.json and model.safetensors, or a .gguf file"
        )
    try:
        model: nn.Module
        if gguf.is_gguf(folder):
            inner = gguf.read_model(folder)
            settings = inner.config.to_dict()
            config = from_hub_config(settings)
            # Experts have other names in a module than in a file: these models stay Transformers'.
            model = Foreign(inner) if config is None or config.experts else _decoder(inner.state_dict(), config)
        else:
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config = from_hub_config(settings)
            if config is None:
                model = _foreign(folder, settings, trust_remote_code)
            else:
                model = _decoder(*_untied(_read(folder), config))
        model.base = Base.read(folder, settings)  # type: ignore[assignment]
        model.stops = model.base.stops  # type: ignore[union-attr]
        if (folder / VALUE_HEAD).is_file():
            model = ScalarHead(model)
            model.head.load_state_dict(load_file(folder / VALUE_HEAD))
        wrong = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
        if wrong is not None:
            raise UserError(f"the checkpoint {folder} holds a weight that is no number, in {wrong}: take another model")
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"the checkpoint {folder} can't be read: its files have no {error.args[0]}") from None
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, SafetensorError) as error:
        raise UserError(f"the checkpoint {folder} can't be read: {' '.join(str(error).split())[:200]}") from None
    return model.eval()


def load_language_model(folder: Path | str) -> nn.Module:
    """The model of a checkpoint that writes. Raises UserError for a reward model, which can't."""
    model = load_model(folder)
    if isinstance(model, ScalarHead):
        raise UserError(f"{folder} is a reward model: give the checkpoint of a language model")
    if not getattr(model, "causal", True):
        raise UserError(f"{folder} is a model that fills gaps and can't write: give the checkpoint of a language model")
    return model


def _foreign(folder: Path, settings: dict[str, Any], trust_remote_code: bool) -> nn.Module:
    """A model of another family, of the kind that its config says it was made for."""
    if settings.get("is_encoder_decoder"):
        return EncoderDecoder.load(folder, trust_remote_code)
    masked = any(name.endswith("ForMaskedLM") for name in settings.get("architectures") or ())
    return Foreign.load(folder, "masked" if masked else "causal", trust_remote_code)


def _decoder(weights: dict[str, Tensor], config: NetworkConfig) -> Decoder:
    model = Decoder(config)
    model.load_state_dict(from_hub(weights, config))
    return model


def _untied(weights: dict[str, Tensor], config: NetworkConfig) -> tuple[dict[str, Tensor], NetworkConfig]:
    """A head that is there and isn't the embedding counts, whatever the config says of ties, as for Transformers."""
    head = weights.get("lm_head.weight")
    if config.tie and head is not None and not torch.equal(head, weights["model.embed_tokens.weight"]):
        config = config.model_copy(update={"tie": False})
    return weights, config


def context_of(folder: Path | str) -> int:
    """The tokens that the model of a checkpoint takes at once, told from its config alone."""
    return int(_shape(folder).context)


def vocabulary_of(folder: Path | str) -> int:
    """The rows of a checkpoint's embedding, told from its config alone."""
    return int(_shape(folder).vocabulary)


def _shape(folder: Path | str) -> NetworkConfig | ForeignConfig:
    folder = Path(folder)
    if gguf.is_gguf(folder):
        return ForeignConfig(gguf.read(AutoConfig, folder))
    try:
        config = from_hub_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        if config is None:
            return ForeignConfig(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
        return config
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"the checkpoint {folder} can't be read: {' '.join(str(error).split())[:200]}") from None


def to_hub(model: Decoder) -> dict[str, Tensor]:
    """The decoder's weights under the names of its architecture's files."""
    mixtral = bool(model.config.experts) and not model.config.qk_norm
    return {_hub_name(name, mixtral): weight for name, weight in model.state_dict().items()}


def from_hub(weights: dict[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """A file's weights under the decoder's names, in float32. Raises KeyError where one is missing."""
    mixtral = bool(config.experts) and not config.qk_norm
    with torch.device("meta"):
        names = list(Decoder(config).state_dict())
    return {name: weights[_hub_name(name, mixtral)].float() for name in names}


def _hub_name(name: str, mixtral: bool) -> str:
    if name.startswith("lm_head."):
        return name
    if mixtral:
        name = re.sub(r"\.mlp\.experts\.(\d+)\.(\w+)\.", lambda m: f".mlp.experts.{m[1]}.{_MIXTRAL[m[2]]}.", name)
        name = name.replace(".mlp.", ".block_sparse_moe.")
    return f"model.{name}"


def hub_config(
    config: NetworkConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype = torch.float32,
    stops: Sequence[int] = (),
) -> dict[str, Any]:
    """`config.json` of the architecture that the decoder equals."""
    family = next(name for name, traits in _FAMILIES.items() if traits == (config.qk_norm, bool(config.experts)))
    architecture = {"llama": "Llama", "qwen3": "Qwen3", "mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe"}[family]
    scaling = config.rope_scaling.hub() if config.rope_scaling else {}
    settings: dict[str, Any] = {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": family,
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        # Both spellings: Transformers 5 reads the first, older readers the others.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base} | scaling,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tie,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if scaling:
        settings["rope_scaling"] = scaling
    if family == "llama":
        settings["mlp_bias"] = False
    if family.startswith("qwen3"):
        settings |= {"use_sliding_window": False, "sliding_window": None}
    if family == "mixtral":
        settings |= {"num_local_experts": config.experts, "sliding_window": None}
    if family == "qwen3_moe":
        settings |= {
            "num_experts": config.experts,
            "moe_intermediate_size": config.hidden,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if config.experts:
        settings |= {"num_experts_per_tok": config.experts_per_token, "output_router_logits": False}
    if tokenizer is not None:
        stops = list(stops) or text.stop_ids(tokenizer)
        settings |= {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": stops if len(stops) != 1 else stops[0],
            "pad_token_id": tokenizer.pad_token_id,
        }
    return settings


def from_hub_config(settings: dict[str, Any]) -> NetworkConfig | None:
    """The decoder's shape from a `config.json`; None where the model does something our decoder doesn't."""
    family = settings.get("model_type")
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    sparse = family in ("mixtral", "qwen3_moe")
    if (
        family not in _FAMILIES
        or rope.get("partial_rotary_factor", 1.0) != 1.0
        or kind not in ("default", "linear", "llama3", "yarn")
        or settings.get("hidden_act", "silu") != "silu"
        or settings.get("attention_bias")
        or settings.get("mlp_bias")
        or settings.get("quantization_config")
        or (settings.get("sliding_window") and (family == "mixtral" or settings.get("use_sliding_window")))
        or (family == "qwen3_moe" and not settings.get("norm_topk_prob"))
        or (family == "qwen3_moe" and (settings.get("mlp_only_layers") or settings.get("decoder_sparse_step", 1) != 1))
    ):
        return None
    heads = settings["num_attention_heads"]
    base = {"mixtral": 1e6}.get(str(family), 10000.0)  # what Transformers takes where a file is silent
    eps = {"mixtral": 1e-5}.get(str(family), 1e-6)
    return NetworkConfig(
        vocabulary=settings["vocab_size"],
        layers=settings["num_hidden_layers"],
        width=settings["hidden_size"],
        heads=heads,
        kv_heads=settings.get("num_key_value_heads") or heads,
        head_width=settings.get("head_dim") or settings["hidden_size"] // heads,
        hidden=settings["moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size"],
        context=settings["max_position_embeddings"],
        rope_base=rope.get("rope_theta") or settings.get("rope_theta") or base,
        rope_scaling=None if kind == "default" else _scaling(kind, rope, settings),
        norm_eps=settings.get("rms_norm_eps", eps),
        tie=bool(settings.get("tie_word_embeddings", False)),
        qk_norm=_FAMILIES[str(family)][0],
        experts=(settings.get("num_local_experts") or settings["num_experts"]) if sparse else 0,
        experts_per_token=settings.get("num_experts_per_tok", 2) if sparse else 2,
    )


def _scaling(kind: str, rope: dict[str, Any], settings: dict[str, Any]) -> RopeScaling:
    """The scaling of positions that a config names; fields that Transformers doesn't read are left out."""
    fields = {name: rope[name] for name in RopeScaling.model_fields if rope.get(name) is not None}
    fields.setdefault("original_max_position_embeddings", settings["max_position_embeddings"])
    return RopeScaling(**fields | {"rope_type": kind})


def _generation(tokenizer: PreTrainedTokenizerBase | None, stops: list[int]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if tokenizer is not None:
        settings["eos_token_id"] = stops
        for name in ("bos_token_id", "pad_token_id"):
            if getattr(tokenizer, name) is not None:
                settings[name] = getattr(tokenizer, name)
    return settings


def _valid(settings: dict[str, Any]) -> dict[str, Any]:
    """Generation settings that Transformers writes again: who doesn't draw has no settings of drawing, which count for
    nothing and keep it from saving."""
    return settings if settings.get("do_sample") else {k: v for k, v in settings.items() if k not in _OF_DRAWING}


def _add_stops(path: Path, stops: list[int]) -> None:
    """What ends an answer, in the generation settings that Transformers wrote: the template may end a turn with a token
    of which a base that never wrote dialogues doesn't know."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = settings.get("eos_token_id")
    known = set() if named is None else {named} if isinstance(named, int) else set(named)
    more = {} if known.issuperset(stops) else {"eos_token_id": sorted({*known, *stops})}
    if (valid := _valid(settings | more)) != settings:
        _write_json(valid, path)


def _read(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, in one file or in the several that its index names."""
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise UserError(f"{folder} is not a checkpoint: model.safetensors is missing")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
        weights |= load_file(folder / name)
    return weights


def _write(weights: dict[str, Tensor], path: Path) -> None:
    save_file({name: weight.detach().contiguous().cpu() for name, weight in weights.items()}, path, {"format": "pt"})


def _write_json(settings: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
