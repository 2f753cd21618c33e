"""The server of `headwater serve`: OpenAI's API over models in this process, and the chat page, as an ASGI application.

Whatever a client does (no JSON, an unknown model, too long a dialogue or a body, silence, going away), it is told in
OpenAI's error object or its place is freed, and the others are served on.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import math
import secrets
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from torch import nn
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from models.serving import bodies
from models.serving.engine import BusyError, Engine, Row, Sampling, Token, embedding
from models.serving.page import headers, page
from models.serving.protocol import ApiError, ChatBody, CompletionBody, EmbeddingBody, Sampled, read, several
from models.serving.writing import CALLS, Writing
from models.text.config import BOS
from models.text.rendering import render
from models.text.tokenizer import encode, ours, special, stop_ids, vocabulary_size

CHARACTERS = 64  # a token has fewer, all in all: a text with more than so many for each place isn't even tokenized
_TINY = 0.001  # a temperature below it is 0: the quotient of a score may overflow
_COMPLETION_TOKENS = 16  # where a completion says nothing, as with OpenAI


@dataclass
class Served:
    """A model under a name. `about`: what is told of it beside OpenAI's fields: stage, run, ancestors."""

    name: str
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    about: dict[str, Any] = field(default_factory=dict)
    slots: int = 16

    def __post_init__(self) -> None:
        # A tokenizer can't encode and decode at once; and one thread encodes, as it may take a while.
        self.encoder = copy.deepcopy(self.tokenizer)
        self.created = int(time.time())
        self.context = int(self.model.config.context)  # type: ignore[union-attr, arg-type]
        self.writes = bool(getattr(self.model, "causal", True))
        self.stops = frozenset(stop_ids(self.tokenizer, self.model)) if self.writes else frozenset[int]()
        self.reading = ThreadPoolExecutor(1)
        self.before, self.after = _edges(self.encoder)
        self.engine = Engine(self.model, vocabulary_size(self.tokenizer), self.slots)

    def close(self) -> None:
        """End its threads; answers in the making are given up."""
        self.engine.close()
        self.reading.shutdown(wait=False, cancel_futures=True)

    def card(self, full: bool = False) -> dict[str, Any]:
        """The model as OpenAI lists it, and what else is known."""
        about = self.about if full else {key: value for key, value in self.about.items() if key != "ancestors"}
        card = {"id": self.name, "object": "model", "created": self.created, "owned_by": "headwater"}
        return card | {"context": self.context, "writes": self.writes, **about}

    def prompt(self, body: ChatBody) -> list[int]:
        """The ids that an answer follows. Raises ApiError for a dialogue that can't be asked."""
        messages, tools = [message.plain for message in body.messages], body.offered
        self._check_size(sum(len(message["content"]) for message in messages))
        try:
            return render(messages, self.encoder, prompt=True, masked=False, tools=tools)[0]
        except UserError as error:
            raise ApiError(400, str(error), "invalid_messages", "messages") from None
        except RecursionError:
            raise ApiError(400, "the tools are nested too deeply", "invalid_value", "tools") from None

    def ids(self, given: str | list[int], whole: bool = False) -> list[int]:
        """The ids of a text, begun (`whole`: and ended) as the model has seen texts; ids given stand as they are."""
        if isinstance(given, str):
            self._check_size(len(given))
            given = [*self.before, *encode(self.encoder, [given])[0], *(self.after if whole else ())]
        elif max(given) >= self.engine.vocabulary:
            raise ApiError(400, f"token {max(given)} is not one of {self.engine.vocabulary}", "invalid_value")
        if not given:
            raise ApiError(400, "the text is empty", "invalid_value")
        return given

    def room(self, prompt: Sequence[int], wanted: int | None, param: str) -> int:
        """Tokens that an answer may have. Raises ApiError where they don't fit the context."""
        left = self.context - len(prompt)
        if left < (wanted or 1):
            asked = f"{wanted} tokens were asked for" if wanted else "there is no room for an answer"
            raise ApiError(
                400,
                f"this model's context is {self.context} tokens: the {param} take {len(prompt)}, and {asked}",
                "context_length_exceeded",
                param,
            )
        return wanted or left

    def _check_size(self, characters: int) -> None:
        if characters > CHARACTERS * self.context:
            raise ApiError(
                400,
                f"this model's context is {self.context} tokens: {characters:,} characters are more than it holds",
                "context_length_exceeded",
                "messages",
            )


def _edges(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts before and after a text by itself; ours begin a document."""
    if ours(tokenizer) is not None:
        return [special(tokenizer, BOS)], []
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    place = next((at for at in range(len(framed)) if framed[at : at + len(alone)] == alone), 0)
    return framed[:place], framed[place + len(alone) :]


def application(models: Mapping[str, Served], token: str = "") -> ASGIApp:
    """The API of these models, by name, and the page; with a token, /v1 answers whoever brings it alone."""
    return Api(models, token).application()


class Api:
    """What is asked of the models."""

    def __init__(self, models: Mapping[str, Served], token: str) -> None:
        self.models, self.token = models, token

    def application(self) -> ASGIApp:
        """The routes; errors are OpenAI's objects."""
        routes = [
            Route("/", self._page),
            Route("/health", self._health),
            Route("/v1/models", self._allowed(self._list)),
            Route("/v1/models/{name:path}", self._allowed(self._model)),
            Route("/v1/chat/completions", self._allowed(self._chat), methods=["POST"]),
            Route("/v1/completions", self._allowed(self._complete), methods=["POST"]),
            Route("/v1/embeddings", self._allowed(self._embed), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers=bodies.HANDLERS)

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(page(), headers=headers())

    async def _health(self, request: Request) -> Response:
        return bodies.answer({"status": "ok"})

    def _allowed(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            if self.token:
                scheme, _, given = request.headers.get("authorization", "").partition(" ")
                if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), self.token.encode()):
                    raise ApiError(401, "a wrong key, or none: send Authorization: Bearer KEY", "invalid_api_key")
            try:
                return await answer(request)
            except BusyError:
                raise ApiError(429, "too many requests are waiting: try again later", "rate_limit_exceeded") from None

        return checked

    def _find(self, name: str) -> Served:
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(404, f"there is no model {name!r} here: name one of {known}", "model_not_found", "model")
        return self.models[name]

    async def _list(self, request: Request) -> Response:
        return bodies.answer({"object": "list", "data": [served.card() for served in self.models.values()]})

    async def _model(self, request: Request) -> Response:
        return bodies.answer(self._find(request.path_params["name"]).card(full=True))

    async def _embed(self, request: Request) -> Response:
        body = read(EmbeddingBody, await bodies.body_of(request))
        served = self._find(body.model)
        width = None

        def prepared() -> list[list[int]]:
            found = [served.ids(one, whole=True) for one in several(body.input)]
            for ids in found:
                served.room(ids[1:], None, "input")  # every place may be taken
            return found

        texts = await _in(served, prepared)
        data = []
        for number, ids in enumerate(texts):
            work = asyncio.wrap_future(served.engine.call(partial(embedding, served.model, ids)))
            values = await _unless_gone(request, work)
            width = len(values)
            if not all(map(math.isfinite, values)):
                raise ApiError(500, "the model's numbers overflow at this text", "model_failed", "input")
            if body.dimensions not in (None, width):
                raise ApiError(400, f"this model's embeddings have {width} dimensions", "invalid_value", "dimensions")
            packed = base64.b64encode(struct.pack(f"<{width}f", *values)).decode()
            told = values if body.encoding_format == "float" else packed
            data.append({"object": "embedding", "index": number, "embedding": told})
        tokens = sum(map(len, texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return bodies.answer({"object": "list", "data": data, "model": served.name, "usage": usage})

    async def _chat(self, request: Request) -> Response:
        body = read(ChatBody, await bodies.body_of(request))
        served = self._writer(body.model)
        wanted = body.max_completion_tokens or body.max_tokens
        prompt = await _in(served, partial(served.prompt, body))
        new = served.room(prompt, wanted, "messages")
        calls = (CALLS if body.parallel_tool_calls else 1) if body.offered else 0
        return await self._answer(request, served, body, [prompt], new, body.top, Chat(served.name, calls))

    async def _complete(self, request: Request) -> Response:
        body = read(CompletionBody, await bodies.body_of(request))
        served = self._writer(body.model)
        prompts = await _in(served, lambda: [served.ids(one) for one in several(body.prompt)])
        new = min(served.room(prompt, body.max_tokens or _COMPLETION_TOKENS, "prompt") for prompt in prompts)
        return await self._answer(request, served, body, prompts, new, body.logprobs, Completion(served.name))

    def _writer(self, name: str) -> Served:
        served = self._find(name)
        if not served.writes:
            raise ApiError(400, f"{name} fills gaps and writes nothing: it gives embeddings", "invalid_value", "model")
        return served

    async def _answer(
        self,
        request: Request,
        served: Served,
        body: Sampled,
        prompts: Sequence[list[int]],
        new: int,
        top: int | None,
        form: Form,
    ) -> Response:
        """`n` answers to each prompt, whole or as they come. Choice i of seed s is what seed s + i gives alone."""
        arriving: asyncio.Queue[tuple[int, Token | Exception]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        seed = secrets.randbits(62) if body.seed is None else body.seed
        temperature = 1.0 if body.temperature is None else body.temperature
        top_p = 1.0 if body.top_p is None else body.top_p
        if temperature < _TINY or top_p == 0:  # the likeliest alone
            temperature, top_p = 0.0, 1.0
        rows = []
        for number in range(len(prompts) * (body.n or 1)):
            turn = seed + number % (body.n or 1)
            sampling = Sampling(new, temperature, top_p, turn & ((1 << 63) - 1), served.stops, top)
            rows.append(Row(prompts[number // (body.n or 1)], sampling, _deliver(loop, arriving, number)))
        writings = [Writing(served.tokenizer, body.stops, form.calls) for _ in rows]
        usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": 0}
        served.engine.submit(rows)

        async def pieces() -> AsyncGenerator[tuple[int, str], None]:
            """What each answer says, as soon as it is sure; at their ends every answer has its reason."""
            left = len(rows)
            try:
                while left:
                    number, token = await arriving.get()
                    writing = writings[number]
                    if rows[number].gone:  # a stop string came
                        continue
                    if isinstance(token, Exception):
                        raise ApiError(500, f"the model failed: {type(token).__name__}", "model_failed")
                    said = writing.push(token)
                    if writing.reason:
                        rows[number].gone = True
                        left -= 1
                        said += writing.rest()
                    yield number, said
            finally:
                for row in rows:
                    row.gone = True
                usage["completion_tokens"] = sum(writing.tokens for writing in writings)
                usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]

        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            return Events(form.stream(pieces(), writings, usage if with_usage else None))

        async def whole() -> list[str]:
            texts = [""] * len(rows)
            async for number, said in pieces():
                texts[number] += said
            return texts

        texts = await _unless_gone(request, asyncio.ensure_future(whole()))
        choices = [form.choice(*one) for one in zip(range(len(rows)), texts, writings, strict=True)]
        return bodies.answer(form.head | {"choices": choices, "usage": usage})


class Form:
    """How answers are written down. One for each request. `calls`: of tools, that one answer may make."""

    kind, streamed, prefix = "", "", ""

    def __init__(self, model: str, calls: int = 0) -> None:
        self.calls = calls
        name = f"{self.prefix}-{secrets.token_hex(12)}"
        self.head = {"id": name, "object": self.kind, "created": int(time.time()), "model": model}

    def choice(self, number: int, text: str, writing: Writing) -> dict[str, Any]:
        """A whole answer."""
        raise NotImplementedError

    def part(self, number: int, text: str, writing: Writing, first: bool, told: list[Any]) -> dict[str, Any]:
        """A part of an answer; `told`: log-probabilities of the tokens since the last one."""
        raise NotImplementedError

    async def stream(
        self, pieces: AsyncGenerator[tuple[int, str], None], writings: Sequence[Writing], usage: dict[str, int] | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The parts of answers as they come; the last of each has its reason."""
        head = self.head | {"object": self.streamed} | ({} if usage is None else {"usage": None})
        told = [0] * len(writings)
        begun: set[int] = set()
        async with aclosing(pieces):
            async for number, text in pieces:
                writing = writings[number]
                if not (text or writing.reason):
                    continue
                since = writing.log_probs[told[number] :]
                told[number] = len(writing.log_probs)
                yield head | {"choices": [self.part(number, text, writing, number not in begun, since)]}
                begun.add(number)
        if usage is not None:
            yield head | {"choices": [], "usage": usage}


class Chat(Form):
    """`chat.completion`."""

    kind, streamed, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, number: int, text: str, writing: Writing) -> dict[str, Any]:
        """A whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if writing.calls:
            message |= {"content": text or None, "tool_calls": writing.calls}
        log_probs = {"content": writing.log_probs, "refusal": None} if writing.log_probs else None
        return {"index": number, "message": message, "logprobs": log_probs, "finish_reason": writing.reason}

    def part(self, number: int, text: str, writing: Writing, first: bool, told: list[Any]) -> dict[str, Any]:
        """A part of an answer."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if text or first:
            delta["content"] = text
        if writing.reason and writing.calls:
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(writing.calls)]
        log_probs = {"content": told, "refusal": None} if told else None
        return {"index": number, "delta": delta, "logprobs": log_probs, "finish_reason": writing.reason}


class Completion(Form):
    """`text_completion`."""

    kind = streamed = "text_completion"
    prefix = "cmpl"

    def choice(self, number: int, text: str, writing: Writing) -> dict[str, Any]:
        """A whole answer."""
        return self.part(number, text, writing, True, writing.log_probs)

    def part(self, number: int, text: str, writing: Writing, first: bool, told: list[Any]) -> dict[str, Any]:
        """A part of an answer."""
        log_probs = None
        if told:
            past = len(writing.log_probs) - len(told)
            log_probs = {
                "tokens": [one["token"] for one in told],
                "token_logprobs": [one["logprob"] for one in told],
                "top_logprobs": [{more["token"]: more["logprob"] for more in one["top_logprobs"]} for one in told],
                "text_offset": writing.offsets[past:],
            }
        return {"index": number, "text": text, "logprobs": log_probs, "finish_reason": writing.reason}


class Events(Response):
    """Server-sent events, ended by [DONE], or by an error object where something fails on the way.

    A client that goes away, or takes nothing for `PATIENCE_S`, ends the work for it.
    """

    def __init__(self, parts: AsyncGenerator[dict[str, Any], None]) -> None:
        # The second is for proxies, which else collect an answer before they give it on.
        kept = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(media_type="text/event-stream", headers=kept)
        del self.headers["content-length"]
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or nobody takes them."""

        async def give(data: bytes, more: bool = True) -> None:
            event = {"type": "http.response.body", "body": data, "more_body": more}
            await asyncio.wait_for(send(event), bodies.PATIENCE_S)

        async def give_all() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for part in self.parts:
                    await give(b"data: " + bodies.as_bytes(part) + b"\n\n")
                await give(b"data: [DONE]\n\n")
            except ApiError as error:
                await give(b"data: " + bodies.as_bytes(error.body) + b"\n\n")
            await give(b"", more=False)

        sending, leaving = asyncio.ensure_future(give_all()), asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self.parts.aclose()


def _deliver(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[tuple[int, Token | Exception]], number: int
) -> Callable[[Token | Exception], None]:
    def deliver(token: Token | Exception) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, (number, token))
        except RuntimeError:  # the server has ended
            return

    return deliver


async def _in(served: Served, work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(served.reading, work)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(request: Request, work: asyncio.Future[Any]) -> Any:
    """What comes of some work; it is given up when the client goes away."""
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise ApiError(400, "the client went away")
        return await work
    finally:
        leaving.cancel()
