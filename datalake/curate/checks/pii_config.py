"""What a user may set about personal data. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["email", "phone", "ip", "ssn", "resident_id", "card", "iban"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class PiiConfig(BaseModel):
    """Personal data: which kinds are replaced by placeholders, and how much of it a document may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[Kind, ...] = Field(
        default=KINDS,
        title="Kinds",
        description="What is looked for: e-mail addresses, phone numbers, public IP addresses, US social security "
        "numbers, Chinese resident identity numbers, payment cards, IBANs",
    )
    code: tuple[Kind, ...] = Field(
        default=("email", "ip"),
        title="Kinds in code",
        description="What is looked for in code, where figures are mostly constants; empty looks for nothing",
    )
    maximum: int | None = Field(
        default=None,
        ge=0,
        title="Most finds",
        description="Documents with more are rejected by the rule `pii` (Dolma has 5); empty rejects none",
    )
