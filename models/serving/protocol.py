"""OpenAI's protocol: the bodies of requests, checked, and the error object. Imports nothing heavier than pydantic.

Fields that change nothing here (`user`, `store`, `metadata`...) are passed over; those that would change the answer and
that this server doesn't know are refused, as nobody is to take one thing for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

STOPS = 16  # stop strings of a request
CHOICES = 128
INPUTS = 2048  # texts of one request for embeddings


class ApiError(Exception):
    """What a client is told in OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @property
    def body(self) -> dict[str, Any]:
        """The object."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Body(BaseModel):
    """A part of a request; what it has beyond its fields is passed over, and null is what isn't there."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body


class StreamOptions(Body):
    """What a stream tells beside the text."""

    include_usage: bool = False


class Sampled(Body):
    """What requests for a text have in common."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=CHOICES)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: str | Annotated[list[str], Field(max_length=STOPS)] | None = None
    max_tokens: int | None = Field(None, ge=1)

    @field_validator("stop")
    @classmethod
    def _says_something(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and not all([value] if isinstance(value, str) else value):
            raise ValueError("an empty stop string would end everything")
        return value

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @model_validator(mode="before")
    @classmethod
    def _known(cls, body: Any) -> Any:
        """Refuses what would change the answer and isn't done here."""
        if not isinstance(body, dict):
            return body
        for name, idle in _IDLE.items():
            if name in body and body[name] not in (None, *idle):
                raise ValueError(f"{name} is not supported: leave it out")
        return body


_IDLE: dict[str, tuple[Any, ...]] = {  # values with which a field that is not supported changes nothing
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "functions": ([],),
    "audio": (),
    "modalities": (["text"],),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
    "function_call": ("none", "auto"),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    # What vLLM, SGLang, llama.cpp and Transformers take beyond OpenAI's.
    "add_generation_prompt": (True,),
    "bad_words": ([],),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "ebnf": (),
    "generation_config": (),
    "grammar": ("",),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "json_schema": (),
    "length_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "prompt_logprobs": (),
    "regex": (),
    "repeat_penalty": (1,),
    "repetition_penalty": (1,),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "top_k": (0, -1),
    "truncate_prompt_tokens": (-1,),
    "typical_p": (1,),
    "use_beam_search": (False,),
}


class Part(Body):
    """A part of a message; texts alone are read."""

    type: Literal["text"]
    text: str


class Function(Body):
    """What a call asks for."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(Body):
    """A call that the assistant made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: Function


class Message(Body):
    """One turn of a dialogue."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a message of the {self.role} needs content")
        return self

    @property
    def plain(self) -> dict[str, Any]:
        """The message as templates take it."""
        parts = self.content or ""
        content = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": content}
        if self.tool_calls and role == "assistant":
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id and role == "tool":
            message["tool_call_id"] = self.tool_call_id
        return message


class Offered(Body):
    """A function that the model may call."""

    name: Annotated[str, StringConstraints(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A tool that is offered."""

    type: Literal["function"]
    function: Offered


class ChatBody(Sampled):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True

    @model_validator(mode="after")
    def _agrees(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.tool_choice not in (None, "auto", "none"):
            raise ValueError("tool_choice can be auto or none: the model decides what it calls")
        return self

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that are offered to the model."""
        return [] if self.tool_choice == "none" else [tool.model_dump(exclude_none=True) for tool in self.tools or ()]

    @property
    def top(self) -> int | None:
        """Alternatives told for each token; None without log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionBody(Sampled):
    """`POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=INPUTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=INPUTS)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)

    @field_validator("logprobs", mode="before")
    @classmethod
    def _counts(cls, value: Any) -> Any:
        if value is True:
            raise ValueError("a number of alternatives is wanted, such as 1")
        return None if value is False else value  # which would be the number 0


class EmbeddingBody(Body):
    """`POST /v1/embeddings`."""

    model: str
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=INPUTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def several(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """The texts of a request, each a text or ids."""
    if isinstance(given, str):
        return [given]
    if all(isinstance(one, int) for one in given):
        return [given]  # type: ignore[list-item]
    return list(given)  # type: ignore[arg-type]


B = TypeVar("B", bound=BaseModel)


def read(kind: type[B], body: bytes) -> B:
    """A request's body. Raises ApiError that says what is wrong with it."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"the body is not JSON ({why})", "invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is to be a JSON object", "invalid_json")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        place, first = _deepest(error, value)
        why = str(first["msg"]).removeprefix("Value error, ")
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise ApiError(400, f"{place}: {why}" if place else why, code, place or None) from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", "invalid_json") from None


def _deepest(error: ValidationError, body: dict[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The place in a body where it went wrong, and what; of a field that may be of several forms, that of the form
    which it comes nearest to."""
    found: list[tuple[list[str], Mapping[str, Any]]] = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        at: Any = body
        path: list[str] = []
        for part in one["loc"]:
            missing = part == one["loc"][-1] and one["type"] == "missing"
            if isinstance(at, dict) and (part in at or missing):
                at = at.get(part)
            elif isinstance(at, list) and isinstance(part, int) and (part < len(at) or missing):
                at = at[part] if part < len(at) else None
            else:  # the name of a form
                continue
            path.append(str(part))
        found.append((path, one))
    path, first = max(found, key=lambda one: (len(one[0]), not str(one[1]["type"]).endswith("_type")))
    return ".".join(path), first
