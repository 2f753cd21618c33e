"""A dialogue with a model, as `headwater chat` has one."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datalake.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Raises UserError where a number is out of bounds."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 200
    seed: int | None = None

    def __post_init__(self) -> None:
        # Below a thousandth the quotient of a score may overflow, and nothing but the likeliest is left anyway.
        if not (self.temperature == 0 or 0.001 <= self.temperature <= 100):
            raise UserError(f"--temperature {self.temperature:g}: 0 for the likeliest token each time, or 0.001 to 100")
        if not (math.isfinite(self.top_p) and 0 < self.top_p <= 1):
            raise UserError(f"--top-p {self.top_p:g}: a share of the probability, above 0 and at most 1")
        if not 1 <= self.max_tokens <= 1 << 20:
            raise UserError(f"--max-tokens {self.max_tokens}: a number from 1 to {1 << 20}")
        if self.seed is not None and not 0 <= self.seed < 1 << 62:
            raise UserError(f"--seed {self.seed}: a number from 0 to {(1 << 62) - 1}")


@dataclass
class Dialogue:
    """A dialogue with a model; `messages` is what was said so far."""

    model: Any
    tokenizer: Any
    sampling: Sampling
    messages: list[dict[str, str]] = field(default_factory=list)
    name: str = ""

    def answer(self, text: str, show: Callable[[str], None]) -> None:
        """Say something and get the answer, piece by piece; what an interruption cuts short stays as it is.

        Raises:
            UserError: where the message doesn't fit the model; it is then not said.
        """
        from models.serving.chat import reply

        seed = self.sampling.seed
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            for piece in reply(
                self.model,
                self.tokenizer,
                self.messages,
                max_new_tokens=self.sampling.max_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                seed=secrets.randbits(31) if seed is None else seed + len(self.messages),
            ):
                said.append(piece)
                show(piece)
        except UserError:
            del self.messages[-1]
            raise
        finally:
            if self.messages and self.messages[-1]["role"] == "user":
                self.messages.append({"role": "assistant", "content": "".join(said)})
