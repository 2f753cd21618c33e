"""How a user names a Transformers model, and the version by which it enters an identity. Imports only pydantic."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from datalake.errors import UserError
from datalake.files import File, folder_version

_OF_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}")


class Model(File):
    """A folder with a model and its tokenizer, or one of the Hugging Face hub with its commit.

    Its version is a digest of the folder, or name and commit, and the libraries' versions.
    """

    @classmethod
    def _place(cls, path: str) -> str:
        folder = Path(path).expanduser().absolute()
        return path if not folder.is_dir() and _OF_THE_HUB.fullmatch(path) else str(folder)

    def content(self) -> str:
        """The version of what is there now. Raises UserError where nothing is."""
        libraries = ", ".join(f"{name} {version(name).split('+')[0]}" for name in ("transformers", "torch"))
        if Path(self.path).is_dir():
            return f"{folder_version(Path(self.path))[:32]}, {libraries}"
        if _OF_THE_HUB.fullmatch(self.path):
            return f"{self.path}, {libraries}"
        raise UserError(
            f"there is no folder {self.path!r}: correct `model`; one of the hub is named with its commit, name@ and 40"
            " hexadecimal digits, so that it can't change"
        )


class TransformerConfig(BaseModel):
    """A Transformers model that reads the beginnings of texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Model = Field(
        min_length=1,
        title="Model",
        description="A folder with the model and its tokenizer, or one of the Hugging Face hub with its commit: "
        "`name@commit`",
    )
    max_tokens: int = Field(
        default=512,
        ge=8,
        le=1_000_000,
        title="Most tokens",
        description="Of a document's beginning that are read, or as many as the model can take",
    )
