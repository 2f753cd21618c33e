"""What a tokenizer may be told. Nothing heavier than pydantic is imported here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

# The special tokens, in the order of their ids from 0. Text never yields one: they are put in by code alone.
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIALS = (BOS, EOS, PAD, SYSTEM, USER, ASSISTANT, END)


class TokenizerConfig(BaseModel):
    """A byte-level BPE tokenizer, trained on the documents of the mixture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(
        8192,
        ge=256 + len(SPECIALS),
        le=1_000_000,
        title="Vocabulary",
        description="Tokens at most: 256 bytes, the special tokens, and as many merges as fit and occur often enough.",
    )
    min_frequency: int = Field(
        2, ge=1, le=1_000_000, title="Least frequency", description="Pairs seen fewer times than this aren't merged."
    )
    sample_bytes: int = Field(
        100_000_000,
        ge=1,
        le=100_000_000_000,
        title="Sample",
        description="Bytes of UTF-8 text to train on at most; where there is more, an even sample of the documents.",
    )
