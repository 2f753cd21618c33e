"""What a recipe says of a tool. Imports nothing heavier than pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

_OWN = ("__init__", "config", "tool", "turns")  # files here that are no tools


def built_in() -> list[str]:
    """The tools there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _OWN)


class ToolUse(BaseModel):
    """A tool that a policy may call: its name, or a mapping with `tool` and options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = Field(title="Tool", description="`calculator`, `python` or `search`.")
    options: dict[str, Any] = Field(
        default_factory=dict, title="Options", description="Handed to the tool by name, such as {seconds: 5}."
    )

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return {"tool": value} if isinstance(value, str) else value

    @field_validator("tool")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if name not in built_in():
            raise ValueError(f"there is no tool {name!r}: choose of {', '.join(built_in())}")
        return name

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, dict(handler(schema))]}
