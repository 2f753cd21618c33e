"""Models of other families behind the decoder's interface, through Transformers, and the proof that they train exactly.

Training packs documents into rows, generation pads prompts on the left and keeps a cache: what a family makes of masks,
positions and caches decides whether a token sees what it may see and nothing else. So a family isn't known by a list:
at loading each is compared with itself, on rows of a few tokens, and what differs is refused in one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datalake.errors import UserError
from models.network.masks import Mask, as_tensor, within_documents

TOLERANCE = 1e-3  # of a token's hidden state: float32 leaves some 1e-6, a leak in tiny fresh models 1e-2 and more
# What stands between the head's matrix and the logits, by the config's field.
_LOGIT_RULES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "logit_scale": lambda logits, scale: logits * scale,  # Cohere
    "logits_scaling": lambda logits, scale: logits / scale,  # Granite
    "final_logit_softcapping": lambda logits, cap: cap * torch.tanh(logits / cap),  # Gemma 2
}


def why_not(folder: Path | str, error: Exception) -> str:
    """Why a folder's model or tokenizer can't be loaded, in one line."""
    if "trust_remote_code" in str(error):
        return (
            f"{folder} brings Python code of its own, which isn't run: take a model that Transformers knows,"
            f" or, if you know who made it, headwater chat {folder} --trust-remote-code"
        )
    return f"{folder} can't be loaded: {' '.join(str(error).split())[:200]}"


def read_folder(auto: Any, folder: Path | str, trust_remote_code: bool = False) -> Any:
    """What one of Transformers' Auto classes makes of a folder, in float32.

    Raises:
        UserError: where the folder holds no model of this kind, or not all of its weights.
    """
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder} is not a checkpoint: expected config.json and model.safetensors")
    try:
        # Said in so many words: left out, Transformers asks on stdin and takes what lies there for the answer.
        model, loading = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a family's own code trips over
        raise UserError(why_not(folder, error)) from None
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UserError(
            f"{folder} can't be loaded as {type(model).__name__}: {len(missing)} of its weights are missing, "
            f"such as {missing[0]}"
        )
    return model


class ForeignConfig:
    """What callers ask of a config, answered for a model of another family."""

    def __init__(self, config: Any):
        config = config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        self.width = int(config.hidden_size)
        self.context = int(getattr(config, "max_position_embeddings", 0) or (1 << 30))


class Foreign(nn.Module):
    """A model of another family behind the decoder's interface; `inner` is the Transformers model, saved as itself.

    Dropout is off, in training too: the decoder has none, and a policy's ratio to itself must be 1.

    Raises:
        UserError: where masks, positions, cache or logits aren't what they are for the decoder.
    """

    def __init__(self, inner: Any, causal: bool = True):
        super().__init__()
        self.inner = inner
        self.causal = causal
        self.config = ForeignConfig(inner.config)
        self.settings = inner.config.get_text_config()
        self._arguments = frozenset(inspect.signature(inner.base_model.forward).parameters)
        # A family that builds a mask for each kind of layer takes them as a dict: whether it does shows when tried.
        self.mask_by_kind = bool(getattr(self.settings, "layer_types", None))
        switch_off_noise(inner)
        Proof(self).run()

    @classmethod
    def load(
        cls, folder: Path | str, task: Literal["causal", "masked"] = "causal", trust_remote_code: bool = False
    ) -> Foreign:
        """The model in a Hugging Face folder, in float32. Code of its own runs with `trust_remote_code` alone."""
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

        auto = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}[task]
        return cls(read_folder(auto, folder, trust_remote_code), task == "causal")

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, attend: Mask | None = None, cache: Any = None
    ) -> Tensor:
        """Hidden states (B, T, D), as `Decoder.forward`; for an encoder `attend` defaults to everything."""
        attend = None if attend is None else as_tensor(attend)
        new = tokens_BT.shape[1]
        more: dict[str, Any] = {}
        if isinstance(cache, RecomputingCache):
            tokens_BT, positions_BT, attend = cache.extend(tokens_BT, positions_BT, attend)
        elif cache is not None:
            more |= {"past_key_values": cache.inner, "use_cache": True}
        elif self.causal and self._takes("use_cache"):
            more["use_cache"] = False
        if positions_BT is not None:
            more["position_ids"] = positions_BT.expand(tokens_BT.shape)
        if attend is not None:
            columns_BT = getattr(cache, "columns_BT", None)
            more["attention_mask"] = self._masks(attend.expand(tokens_BT.shape[0], -1, -1, -1), columns_BT)
        body = _BODIES.get(self.settings.model_type) if attend is not None else None
        if body is not None:
            hidden_BTD = body(self.inner.base_model, tokens_BT, more.get("position_ids"), more["attention_mask"])
        else:
            hidden_BTD = self.inner.base_model(tokens_BT, **more).last_hidden_state
        if cache is not None and not isinstance(cache, RecomputingCache):
            cache.length += new
        return hidden_BTD[:, -new:]

    @property
    def checkpointing(self) -> bool:
        """Whether layers are computed again for their gradients, as in `Decoder`."""
        return bool(self.inner.is_activation_checkpointing)

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        if on and not self.inner.supports_gradient_checkpointing:
            raise UserError(f"{type(self.inner).__name__} knows no activation checkpointing: leave it off")
        if on:
            self.inner.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        elif self.checkpointing:
            self.inner.activation_checkpointing_disable()

    def _takes(self, argument: str) -> bool:
        return argument in self._arguments

    def _masks(self, attend: Tensor, columns_BT: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """What may be attended to, as this family takes it: added to the scores, and narrowed for layers with a window.
        `columns_BT`: where among the keys the tokens stand, unless they are the last.

        Additive masks serve every implementation of attention; boolean ones reach those that add as 0 and 1.
        """
        window = getattr(self.settings, "sliding_window", None)
        if not self.mask_by_kind:
            return self._additive(_within_window(attend, window, columns_BT))
        return {
            kind: self._additive(_within_window(attend, window, columns_BT) if kind == "sliding_attention" else attend)
            for kind in sorted(set(self.settings.layer_types))
        }

    def _additive(self, attend: Tensor) -> Tensor:
        dtype = self.inner.dtype
        return torch.zeros(attend.shape, dtype=dtype, device=attend.device).masked_fill(~attend, torch.finfo(dtype).min)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of tokens, (..., D) -> (..., V): what stands above the body, in its order, and the family's rule."""
        body = self.inner.base_model_prefix
        for name, module in self.inner.named_children():
            if name != body:
                hidden = module(hidden)
        for name, rule in _LOGIT_RULES.items():
            number = getattr(self.settings, name, None)
            if number is not None:
                hidden = rule(hidden, number)
        return hidden

    def new_cache(self, batch: int, capacity: int) -> ForeignCache | RecomputingCache:
        """An empty cache; it grows, so `batch` and `capacity` only mirror the decoder's call."""
        return ForeignCache() if self._takes("past_key_values") else RecomputingCache()


def switch_off_noise(inner: nn.Module) -> None:
    """No dropout and no router noise in any module, whatever its mode; the config that is saved stays as it is."""
    for module in inner.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, number in vars(module).items():
            if isinstance(number, float) and ("drop" in name or "jitter" in name):
                setattr(module, name, 0.0)


def _within_window(attend: Tensor, window: int | None, columns_BT: Tensor | None = None) -> Tensor:
    """Of what may be attended to (B, 1, T, S), the last `window` tokens."""
    if window is None:
        return attend
    T, S = attend.shape[-2:]
    query, key = torch.arange(S - T, S, device=attend.device)[:, None], torch.arange(S, device=attend.device)
    if columns_BT is not None:
        query = columns_BT[:, None, :, None]
    return attend & (key > query - window)


def _gpt(body: Any, tokens_BT: Tensor, positions_BT: Tensor | None, mask: Any) -> Tensor:
    """The body of the first GPT: Transformers' takes a mask by whole rows only, its blocks take any."""
    if positions_BT is None:
        positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
    hidden_BTD = body.drop(body.tokens_embed(tokens_BT) + body.positions_embed(positions_BT))
    for block in body.h:
        hidden_BTD = block(hidden_BTD, mask)[0]
    return hidden_BTD


_BODIES: dict[str, Callable[[Any, Tensor, Tensor | None, Any], Tensor]] = {"openai-gpt": _gpt}


class ForeignCache:
    """Transformers' own cache with the three things generation asks of one."""

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.inner = DynamicCache()
        self.length = 0

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        self.inner.batch_select_indices(rows)


class RecomputingCache:
    """For a family without a cache: the tokens so far, with positions and mask, to be computed again each time."""

    def __init__(self) -> None:
        self.tokens: Tensor | None = None
        self.positions: Tensor | None = None
        self.attend: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens in a row so far."""
        return 0 if self.tokens is None else self.tokens.shape[1]

    def extend(
        self, tokens_BT: Tensor, positions_BT: Tensor | None, attend: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All tokens (B, S), their positions and what each may attend to (B, 1, S, S), these at the end."""
        (B, T), past = tokens_BT.shape, self.length
        everything = torch.arange(past + T, device=tokens_BT.device)
        positions_BT = everything[None, past:] if positions_BT is None else positions_BT
        attend = everything <= everything[past:, None] if attend is None else attend
        whole = torch.zeros(B, 1, past + T, past + T, dtype=torch.bool, device=tokens_BT.device)
        whole[:, :, past:] = attend
        positions_BT = positions_BT.expand(B, T)
        if self.tokens is not None and self.positions is not None and self.attend is not None:
            whole[:, :, :past, :past] = self.attend
            tokens_BT = torch.cat((self.tokens, tokens_BT), 1)
            positions_BT = torch.cat((self.positions, positions_BT), 1)
        self.tokens, self.positions, self.attend = tokens_BT, positions_BT, whole
        return tokens_BT, positions_BT, whole

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        if self.tokens is not None and self.positions is not None and self.attend is not None:
            self.tokens, self.positions, self.attend = self.tokens[rows], self.positions[rows], self.attend[rows]


_PROVEN: dict[tuple[type, str], bool] = {}  # class and config: whether masks are given by kind of layer


class Proof:
    """That a model of another family does what the decoder would: each method gives two tensors that must be equal."""

    LENGTHS = (7, 5)  # two documents of unequal length; windows are set to 3 meanwhile, so that they show

    def __init__(self, model: Any):
        self.model = model
        self.first, self.second = (
            (torch.arange(length, device=model.inner.device)[None] * 7 + 3 + 11 * place) % model.config.vocabulary
            for place, length in enumerate(self.LENGTHS)
        )

    @torch.no_grad()
    def run(self) -> None:
        """Raises UserError with the first difference; what was found equal once in this process isn't asked again."""
        model, training = self.model, self.model.inner.training
        name, asked = type(model.inner).__name__, (type(model.inner), model.inner.config.to_json_string())
        if asked in _PROVEN:
            model.mask_by_kind = _PROVEN[asked]
            return
        with short_windows(model.settings), model.inner.device:
            model.inner.eval()
            try:
                if model.mask_by_kind and self._difference(self.packing):
                    model.mask_by_kind = False  # its config tells layers apart, its code takes one mask
                for check in self.checks():
                    difference = self._difference(check)
                    if difference:
                        what = (check.__doc__ or "").removesuffix(".")
                        raise UserError(
                            f"{name} can't be trained exactly here: {what} ({difference}): take another model"
                        )
            finally:
                model.inner.train(training)
        _PROVEN[asked] = model.mask_by_kind

    def checks(self) -> Iterator[Callable[[], tuple[Tensor, Tensor]]]:
        """What is compared, in order."""
        if self.model.causal:
            yield self.causality
        yield self.packing
        if self.model.causal:
            yield self.continuing
            yield self.padding
        yield self.training
        yield self.logits

    def _difference(self, check: Callable[[], tuple[Tensor, Tensor]]) -> str:
        """How far apart the two are, in words; empty where they are equal."""
        try:
            left, right = check()
        except Exception as error:  # a family's own code may trip over anything
            return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        if left.shape != right.shape:
            return f"shapes {tuple(left.shape)} and {tuple(right.shape)}"
        apart = float(((left - right).norm(dim=-1) / right.norm(dim=-1).clamp(min=1e-12)).max())
        return "" if apart < TOLERANCE else f"apart by {apart:.2g}"

    def alone(self) -> Tensor:
        """Hidden states of both documents, each by itself."""
        return torch.cat((self.model(self.first), self.model(self.second)), 1)

    def causality(self) -> tuple[Tensor, Tensor]:
        """a later token moves earlier ones."""
        row = torch.cat((self.first, self.second), 1)
        other = torch.cat((self.first, (self.second + 1) % self.model.config.vocabulary), 1)
        until = self.first.shape[1]
        return self.model(other)[:, :until], self.model(row)[:, :until]

    def packing(self) -> tuple[Tensor, Tensor]:
        """documents in one row aren't what they are alone, by its masks or its positions."""
        row = torch.cat((self.first, self.second), 1)
        segments = torch.cat((torch.zeros_like(self.first), torch.ones_like(self.second)), 1)
        positions = torch.cat([torch.arange(length) for length in self.LENGTHS])[None]
        attend = as_tensor(within_documents(segments))
        if not self.model.causal:
            attend = attend | attend.transpose(-1, -2)
        return self.model(row, positions, attend), self.alone()

    def continuing(self) -> tuple[Tensor, Tensor]:
        """tokens after a cache aren't what they are in one pass."""
        cache = self.model.new_cache(1, self.first.shape[1])
        parts = [self.model(part, None, None, cache) for part in (self.first[:, :4], *self.first[:, 4:].split(1, 1))]
        return torch.cat(parts, 1), self.model(self.first)

    def padding(self) -> tuple[Tensor, Tensor]:
        """rows padded on the left aren't what they are alone."""
        width, cache = max(self.LENGTHS), self.model.new_cache(2, max(self.LENGTHS))
        empty = torch.tensor([[width - length] for length in self.LENGTHS])
        rows = torch.zeros(2, width, dtype=torch.long)
        for row, tokens in enumerate((self.first, self.second)):
            rows[row, width - tokens.shape[1] :] = tokens[0]
        seen = torch.arange(width)[None] >= empty
        positions = (torch.arange(width)[None] - empty).clamp(min=0)
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        attend = ((seen[:, None] & causal) | torch.eye(width, dtype=torch.bool))[:, None]
        last = width - 1
        parts = [
            self.model(rows[:, :last], positions[:, :last], attend[:, :, :last, :last], cache),
            self.model(rows[:, last:], positions[:, last:], seen[:, None, None], cache),
        ]
        hidden = torch.cat(parts, 1)
        return torch.cat([hidden[row : row + 1, int(empty[row]) :] for row in (0, 1)], 1), self.alone()

    def training(self) -> tuple[Tensor, Tensor]:
        """training differs from evaluation, by noise that can't be switched off."""
        plain = self.alone()
        self.model.inner.train()
        try:
            return self.alone(), plain
        finally:
            self.model.inner.eval()

    def logits(self) -> tuple[Tensor, Tensor]:
        """its logits come from its hidden states in a way that isn't known."""
        # Large enough that a cap or a scale shows, whatever the weights.
        hidden = self.alone()
        factor = 100.0 / self.model.logits(hidden).std().clamp(min=1e-3)

        def louder(_module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (arguments[0] * factor, *arguments[1:])

        ours = self.model.logits(hidden * factor)
        hook = self.head().register_forward_pre_hook(louder)
        try:
            return ours, self.whole()
        finally:
            hook.remove()

    def head(self) -> nn.Module:
        """The first part that stands above the body."""
        inner = self.model.inner
        return next(part for name, part in inner.named_children() if name != inner.base_model_prefix)

    def whole(self) -> Tensor:
        """The logits of the whole model for both documents."""
        return torch.cat([self.model.inner(tokens).logits for tokens in (self.first, self.second)], 1)


@contextmanager
def short_windows(settings: Any, window: int = 3) -> Iterator[None]:
    """Windows of 3 tokens while it lasts: a row of a few tokens then shows what a window does."""
    names = ("sliding_window", "attention_chunk_size")
    before = {name: getattr(settings, name) for name in names if getattr(settings, name, None)}
    for name in before:
        setattr(settings, name, window)
    try:
        yield
    finally:
        for name, number in before.items():
            setattr(settings, name, number)
