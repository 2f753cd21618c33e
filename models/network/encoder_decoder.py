"""Encoder-decoders (T5, Raffel et al. 2020, arXiv 1910.10683), through Transformers: a text is read whole, another
written from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.network.foreign import ForeignConfig, Proof, read_folder, switch_off_noise


class EncoderDecoder(nn.Module):
    """A model that reads and writes; `inner` is the Transformers model, saved as itself. No dropout, as in `Foreign`.

    Raises:
        UserError: where its masks or logits aren't what training takes them for.
    """

    causal = False
    mask_by_kind = False

    def __init__(self, inner: Any):
        super().__init__()
        self.inner = inner
        self.config = ForeignConfig(inner.config)
        self.settings = inner.config.get_text_config()
        switch_off_noise(inner)
        _Proof(self).run()

    @classmethod
    def load(cls, folder: Path | str, trust_remote_code: bool = False) -> EncoderDecoder:
        """The model in a Hugging Face folder, in float32."""
        from transformers import AutoModelForSeq2SeqLM

        return cls(read_folder(AutoModelForSeq2SeqLM, folder, trust_remote_code))

    @property
    def start(self) -> int:
        """The token that what is written begins with."""
        return int(self.settings.decoder_start_token_id)

    def forward(self, tokens_BS: Tensor, attend_BS: Tensor | None, written_BT: Tensor) -> Tensor:
        """Hidden states (B, T, D) of the decoder at each written token, told what is read and what stands before it.

        `attend_BS`: boolean, False on padding. What is written is padded on the right, where none before looks.
        """
        mask = None if attend_BS is None else attend_BS.long()
        read_BSD = self.inner.get_encoder()(tokens_BS, attention_mask=mask).last_hidden_state
        decoder = self.inner.get_decoder()
        written = decoder(
            input_ids=written_BT, encoder_hidden_states=read_BSD, encoder_attention_mask=mask, use_cache=False
        )
        return written.last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of tokens, (..., D) -> (..., V)."""
        if getattr(self.settings, "scale_decoder_outputs", False):
            hidden = hidden * self.config.width**-0.5
        return self.inner.get_output_embeddings()(hidden)


class _Proof(Proof):
    """What is compared of an encoder-decoder: the first row is read, the second written."""

    def checks(self) -> Iterator[Callable[[], tuple[Tensor, Tensor]]]:
        """What is compared, in order."""
        yield from (self.causality, self.padding, self.training, self.logits)

    def alone(self) -> Tensor:
        """Hidden states of the second row, told the first."""
        return self.model(self.first, None, self.second)

    def causality(self) -> tuple[Tensor, Tensor]:
        """a later token moves earlier ones."""
        other = self.second.clone()
        other[:, -1] = (other[:, -1] + 1) % self.model.config.vocabulary
        return self.model(self.first, None, other)[:, :-1], self.alone()[:, :-1]

    def padding(self) -> tuple[Tensor, Tensor]:
        """rows padded on the right aren't what they are alone."""
        padded = torch.cat((self.first, self.second), 1)
        attend = torch.arange(padded.shape[1])[None] < self.first.shape[1]
        written = torch.cat((self.second, self.first), 1)
        return self.model(padded, attend, written)[:, : self.second.shape[1]], self.alone()

    def head(self) -> nn.Module:
        """The part that stands above the decoder."""
        return self.model.inner.get_output_embeddings()

    def whole(self) -> Tensor:
        """The logits of the whole model."""
        return self.model.inner(input_ids=self.first, decoder_input_ids=self.second).logits
