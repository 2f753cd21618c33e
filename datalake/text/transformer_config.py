"""How a user names a Transformers model, and the version by which it enters an identity. Imports only pydantic."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.identity import Place, folder_version


class TransformerConfig(BaseModel):
    """A Transformers model that reads the beginnings of texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Annotated[str, Place()] = Field(
        min_length=1,
        title="Model",
        description="A folder with the model and its tokenizer, or one of the Hugging Face hub with its commit: "
        "`name@commit`",
    )
    model_version: str = Field(
        default="",
        title="Version of the model",
        description="Digest of the folder, or name and commit, and the libraries' versions; filled in when left empty",
    )
    max_tokens: int = Field(
        default=512,
        ge=8,
        le=1_000_000,
        title="Most tokens",
        description="Of a document's beginning that are read, or as many as the model can take",
    )

    @model_validator(mode="before")
    @classmethod
    def _version(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("model"), str) or values.get("model_version"):
            return values
        libraries = ", ".join(f"{name} {version(name).split('+')[0]}" for name in ("transformers", "torch"))
        folder = Path(values["model"]).expanduser().absolute()
        if folder.is_dir():
            return {**values, "model": str(folder), "model_version": f"{folder_version(folder)[:32]}, {libraries}"}
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}", values["model"]):
            raise ValueError(
                f"there is no folder {values['model']!r}: correct `model`; one of the hub is named with its commit,"
                " name@ and 40 hexadecimal digits, so that it can't change"
            )
        return {**values, "model_version": f"{values['model']}, {libraries}"}
