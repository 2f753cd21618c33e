"""Settings of an OpenAI-compatible endpoint. Imports nothing heavier than pydantic."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from datalake.identity import Place
from datalake.secrets import is_signature

# Not "the key": keys have small letters or dashes, and one that is written here by mistake mustn't be taken for a name.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Endpoint(BaseModel):
    """A server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama, a gateway, a provider.

    Address, model and parameters are its identity, since its answers say who gave them; the key and patience are not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(title="Address", description="Of the API's root, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, title="Model", description="Its name there")
    key_variable: Annotated[str, Place()] = Field(
        "", title="Variable of the key", description="The environment variable that holds the key; empty: none is sent"
    )
    body: dict[str, Any] = Field(
        default_factory=dict,
        title="More parameters",
        description="Sent with every request, before what is sent otherwise; null leaves one out, such as "
        "{max_tokens: null, max_completion_tokens: 512}",
    )
    seconds: Annotated[float, Place()] = Field(
        120, gt=0, le=86_400, title="Time limit (s)", description="Of one request, from its beginning to its last byte"
    )
    retries: Annotated[int, Place()] = Field(
        6, ge=0, le=100, title="Retries", description="Of a request: 408, 429, 5xx, silence, a broken answer"
    )
    backoff_seconds: Annotated[float, Place()] = Field(
        1, ge=0, le=60, title="Backoff (s)", description="Doubled with each failure; Retry-After goes before it"
    )
    connections: Annotated[int, Place()] = Field(4, ge=1, le=1_000, title="Requests at once")

    @field_validator("url")
    @classmethod
    def _root(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address is wanted, such as http://localhost:8000/v1")
        if parts.username or any(is_signature(pair.partition("=")[0]) for pair in parts.query.split("&") if pair):
            raise ValueError("a key stands in the address: put it in an environment variable, named by key_variable")
        for ending in ("/chat/completions", "/completions"):
            if parts.path.rstrip("/").endswith(ending):
                raise ValueError(f"the address of the API's root is wanted: leave {ending} out")
        return value.strip().rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if value and not _VARIABLE.fullmatch(value):
            raise ValueError("the name of an environment variable is wanted, in capitals, such as OPENAI_API_KEY")
        return value

    @field_validator("body")
    @classmethod
    def _no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("model", "messages", "prompt", "stream", "n", "api_key"):
            if name in value:
                raise ValueError(f"{name!r} isn't set here")
        return value
