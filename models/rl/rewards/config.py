"""What a recipe says of a reward. Imports nothing heavier than pydantic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from datalake import functions
from datalake.errors import UserError
from datalake.functions import Function
from datalake.identity import Place

MODEL = "model"  # the reward model's column among the rewards
DEFAULT = "correct"  # the function of a file here that is named without one
_OWN = ("__init__", "config", "scoring", "numbers")  # files here that hold no rewards


def built_in() -> list[str]:
    """The files here that hold rewards."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _OWN)


class RewardFunction(BaseModel):
    """One reward: a function `(prompt, answer, row, **options) -> float`, and what it weighs in the sum.

    In a recipe a text, `FILE_OR_MODULE:function` or the short name of a built-in reward, or a mapping with `function`.
    What was stored with its content is read as it stands, though the file has gone since.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: Annotated[str, Place()] = Field(
        title="Function",
        description="`FILE.py:function` (the file lies beside the recipe), `package.module:function`, or built in: "
        "`arithmetic`, `gsm8k`, `format:thinking`, `unit_tests`...",
    )
    weight: float = Field(1.0, ge=-1e6, le=1e6, title="Weight", description="Its part in the sum of the rewards.")
    options: dict[str, Any] = Field(
        default_factory=dict, title="Options", description="Handed to the function by name, such as {most: 200}."
    )
    seconds: Annotated[float, Place()] = Field(
        60.0, gt=0, le=86_400, title="Seconds", description="The longest that it may take for one answer."
    )
    code: Function | None = Field(None, title="Content", description="What it says; filled in when left empty.")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        given = {"function": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or given.get("code") or not isinstance(given.get("function"), str):
            return given
        entry = functions.absolute(_in_full(given["function"]))
        return {**given, "function": entry, "code": functions.read(entry, "rewards")}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, dict(handler(schema))]}

    @property
    def said(self) -> Function:
        """Its code, as it was when the recipe was read."""
        if self.code is None:
            raise UserError(f"rewards: {self.function!r} has no content: read the recipe again")
        return self.code


def _in_full(entry: str) -> str:
    """A built-in reward by its module; any other entry as it is."""
    file, _, name = entry.partition(":")
    return f"{__package__}.{file}:{name or DEFAULT}" if file in built_in() else entry


def labels(rewards: Sequence[RewardFunction], taken: Sequence[str] = (MODEL,)) -> list[str]:
    """A name for each reward, none twice and none of those taken.

    It is the function's; the file's for `correct` of a built-in file; both, where that name occurs again; and a number
    behind it, where that does.
    """
    short, long = [], []
    for reward in rewards:
        place, _, name = reward.function.rpartition(":")
        code = reward.said
        stem = code.module.rpartition(".")[2] if code.module else PurePath(place).stem
        stem = "".join(letter if letter.isalnum() else "_" for letter in stem)
        own = code.module.rpartition(".")[0] == __package__ and name == DEFAULT
        short.append(stem if own else name)
        long.append(f"{stem}_{name}")
    counts = Counter([*short, *taken])
    found: list[str] = []
    for name, longer in zip(short, long, strict=True):
        label = chosen = name if counts[name] == 1 else longer
        number = 2
        while label in found or label in taken:
            label, number = f"{chosen}_{number}", number + 1
        found.append(label)
    return found
