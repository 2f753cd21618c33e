"""The API of `headwater serve`, asked by OpenAI's own client: what it answers, what it refuses, what it survives."""

from __future__ import annotations

import base64
import json
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from served import Server, scripted, serving, until
from transformers import AutoModelForCausalLM

from models.network.checkpoint import load
from models.network.generate import generate
from models.serving import api, bodies
from models.serving.engine import Engine, Row, Sampling
from models.text.rendering import render
from models.text.tokenizer import encode, special, stop_ids, token_bytes

openai = pytest.importorskip("openai", reason="no openai: pip install -e .[dev]")

ASKED = [{"role": "user", "content": "the cat sees"}]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    words = toys.words(folder / "tokenizer")
    return {
        name: toys.base(folder / name, words, context=320, seed=seed) for seed, name in enumerate(("small", "other"))
    }


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[Server]:
    with serving({name: api.Served(name, *load(folder), {"stage": name}) for name, folder in folders.items()}) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return server.client()


# Answers ------------------------------------------------------------------------------------------------------------


def test_models_are_listed_by_name(client: Any) -> None:
    assert [one.id for one in client.models.list()] == ["small", "other"]
    assert client.models.retrieve("other").context == 320


def test_a_chat_says_what_generate_says(server: Server, client: Any) -> None:
    served = server.models["small"]
    prompt = render(ASKED, served.tokenizer, prompt=True)[0]
    stops = stop_ids(served.tokenizer, served.model)
    for options in ({"temperature": 0}, {"temperature": 1.3, "top_p": 0.9}):
        draw = torch.Generator().manual_seed(7)
        expected = generate(
            served.model,
            [prompt],
            20,
            options["temperature"],
            options.get("top_p", 1.0),
            0,
            stops,
            draw,
            len(served.tokenizer),
        )[0]
        answer = client.chat.completions.create(model="small", messages=ASKED, max_tokens=20, seed=7, **options)
        choice = answer.choices[0]
        assert choice.message.content == served.tokenizer.decode(expected, skip_special_tokens=True)
        assert choice.finish_reason == ("stop" if expected[-1] in stops else "length")
        assert answer.usage.prompt_tokens == len(prompt)
        assert answer.usage.completion_tokens == len(expected)
        assert answer.usage.total_tokens == len(prompt) + len(expected)


def test_a_stream_says_what_comes_whole(client: Any) -> None:
    asked = {"model": "small", "messages": ASKED, "max_tokens": 30, "seed": 3, "n": 3}
    whole = client.chat.completions.create(**asked)
    texts, reasons, usage = ["", "", ""], [None, None, None], None
    for part in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        usage = part.usage or usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    assert len(set(texts)) > 1


def test_each_of_several_choices_is_that_of_the_next_seed(client: Any) -> None:
    asked = {"model": "small", "messages": ASKED, "max_tokens": 16}
    several = client.chat.completions.create(**asked, seed=11, n=3)
    alone = [client.chat.completions.create(**asked, seed=seed) for seed in (11, 12, 13)]
    assert [one.message.content for one in several.choices] == [one.choices[0].message.content for one in alone]


def written_as(tokenizer: Any, id: int) -> bytes:
    return token_bytes(tokenizer, id) or str(tokenizer.decode([id])).encode()


def test_log_probabilities_are_those_of_transformers(server: Server, client: Any, folders: dict[str, Path]) -> None:
    served = server.models["small"]
    answer = client.chat.completions.create(
        model="small", messages=ASKED, max_tokens=12, seed=1, temperature=1.7, logprobs=True, top_logprobs=3
    )
    told = answer.choices[0].logprobs.content
    prompt = render(ASKED, served.tokenizer, prompt=True)[0]
    draw = torch.Generator().manual_seed(1)
    stops = stop_ids(served.tokenizer, served.model)
    ids = generate(served.model, [prompt], 12, 1.7, 1.0, 0, stops, draw, len(served.tokenizer))[0]
    ids = [id for id in ids if id not in stops]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folders["small"])(torch.tensor([prompt + ids])).logits[0]
    expected = logits[len(prompt) - 1 : -1, : len(served.tokenizer)].log_softmax(-1)
    assert [one.bytes for one in told] == [list(written_as(served.tokenizer, id)) for id in ids]
    assert [one.logprob for one in told] == pytest.approx(expected[range(len(ids)), ids].tolist(), abs=1e-4)
    for one, row in zip(told, expected, strict=True):
        assert [more.logprob for more in one.top_logprobs] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
    streamed = client.chat.completions.create(
        model="small",
        messages=ASKED,
        max_tokens=12,
        seed=1,
        temperature=1.7,
        logprobs=True,
        top_logprobs=3,
        stream=True,
    )
    parts = [one for part in streamed if part.choices[0].logprobs for one in part.choices[0].logprobs.content]
    assert [(one.token, len(one.top_logprobs)) for one in parts] == [(one.token, 3) for one in told]


def test_completions_follow_a_text_or_ids(server: Server, client: Any) -> None:
    served = server.models["small"]
    text = "the dog eats"
    ids = [special(served.tokenizer, "<|bos|>"), *encode(served.tokenizer, [text])[0]]
    asked = {"model": "small", "temperature": 0, "max_tokens": 8}
    by_text = client.completions.create(prompt=[text, text], logprobs=2, **asked)
    by_ids = client.completions.create(prompt=ids, **asked)
    assert [one.index for one in by_text.choices] == [0, 1]
    assert by_text.choices[0].text == by_text.choices[1].text == by_ids.choices[0].text
    told = by_text.choices[0].logprobs
    assert "".join(told.tokens) == by_text.choices[0].text
    assert told.text_offset == [sum(map(len, told.tokens[:place])) for place in range(len(told.tokens))]
    assert max(told.top_logprobs[0].values()) == told.token_logprobs[0]
    streamed = "".join(part.choices[0].text for part in client.completions.create(prompt=ids, stream=True, **asked))
    assert streamed == by_ids.choices[0].text


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_an_answer_before_it(server: Server, client: Any, stream: bool) -> None:
    served = server.models["small"]
    written = encode(served.tokenizer, ["the cat sees the bird. the dog"])[0]
    for stop, said in ((". the", "the cat sees the bird"), (["dog", "sees t"], "the cat "), ("none", None)):
        with scripted(served.model, [*written, *[special(served.tokenizer, "<|end|>")]] * 2):
            answer = client.chat.completions.create(model="small", messages=ASKED, stop=stop, stream=stream)
            if stream:
                parts = list(answer)
                text = "".join(part.choices[0].delta.content or "" for part in parts)
                reason = parts[-1].choices[0].finish_reason
            else:
                text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
            until(lambda: not served.engine.busy)
        assert (text, reason) == (said or "the cat sees the bird. the dog", "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called(server: Server, client: Any, stream: bool) -> None:
    served = server.models["small"]
    words = served.tokenizer
    call, end, over = (special(words, name) for name in ("<|tool_call|>", "<|/tool_call|>", "<|end|>"))
    said, sum_, broken = encode(words, ["I add.", '{"name": "add", "arguments": {"a": 1, "b": [2]}}', '{"name": '])

    def ask(tokens: list[int], **options: Any) -> tuple[str, list[Any], str]:
        with scripted(served.model, tokens):
            answer = client.chat.completions.create(model="small", messages=ASKED, stream=stream, **options)
            if not stream:
                message = answer.choices[0].message
                return message.content or "", message.tool_calls or [], answer.choices[0].finish_reason
            parts = [part.choices[0] for part in answer]
        calls = [call for part in parts for call in part.delta.tool_calls or []]
        return "".join(part.delta.content or "" for part in parts), calls, parts[-1].finish_reason

    text, calls, reason = ask([*said, call, *sum_, end, call, *sum_, end, over], tools=TOOLS)
    assert (text, reason, len(calls)) == ("I add.", "tool_calls", 2)
    assert calls[0].function.name == "add"
    assert json.loads(calls[0].function.arguments) == {"a": 1, "b": [2]}
    assert calls[0].id != calls[1].id
    text, calls, reason = ask([*said, call, *broken, over], tools=TOOLS)
    assert (text, calls, reason) == ('I add.<|tool_call|>{"name": ', [], "stop")
    text, calls, reason = ask([call, *sum_, end, over], tools=TOOLS, tool_choice="none")
    assert (calls, reason) == ([], "stop")
    assert "add" in text


def test_what_tools_gave_back_is_part_of_the_dialogue(server: Server, client: Any) -> None:
    served = server.models["small"]
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "3"}]},
    ]
    answer = client.chat.completions.create(model="small", messages=messages, tools=TOOLS, max_tokens=1)
    plain = [messages[0], messages[1] | {"content": ""}, {"role": "tool", "content": "3"}]
    expected = render(plain, served.tokenizer, prompt=True, tools=TOOLS)[0]
    assert answer.usage.prompt_tokens == len(expected)


def test_embeddings_are_means_of_hidden_states(server: Server, client: Any) -> None:
    served = server.models["small"]
    texts = ["the cat", "the cow likes the milk."]
    told = client.embeddings.create(model="small", input=texts)  # as base64, which the client asks for
    for text, one in zip(texts, told.data, strict=True):
        ids = [special(served.tokenizer, "<|bos|>"), *encode(served.tokenizer, [text])[0]]
        with torch.no_grad():
            mean = served.model(torch.tensor([ids]))[0].mean(0)
        assert one.embedding == pytest.approx((mean / mean.norm()).tolist(), abs=1e-6)
    plain = client.embeddings.create(model="small", input=texts[1], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(told.data[1].embedding, abs=1e-6)
    raw = client.embeddings.with_raw_response.create(model="small", input="the cat", encoding_format="base64")
    packed = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    assert math.hypot(*struct.unpack(f"<{len(packed) // 4}f", packed)) == pytest.approx(1)


# Many at once -------------------------------------------------------------------------------------------------------


def test_twenty_clients_at_once_get_what_each_gets_alone(server: Server) -> None:
    def ask(number: int) -> tuple[str, str, int]:
        asked = [{"role": "user", "content": "the cat sees " * (1 + number % 5)}]
        options = {"temperature": (0, 0.7, 1.2)[number % 3], "top_p": (1, 0.8)[number % 2], "seed": number}
        model = ("small", "other")[number % 2]
        stream = server.client().chat.completions.create(
            model=model,
            messages=asked,
            max_tokens=5 + number,
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
        parts = list(stream)
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        return text, [part.choices[0].finish_reason for part in parts if part.choices][-1], parts[-1].usage.total_tokens

    alone = [ask(number) for number in range(20)]
    with ThreadPoolExecutor(20) as clients:
        assert list(clients.map(ask, range(20))) == alone
        assert list(clients.map(ask, range(20))) == alone
    assert all(served.engine.busy == served.engine.waiting == 0 for served in server.models.values())


def test_rows_join_a_batch_that_is_under_way(folders: dict[str, Path]) -> None:
    """The second row begins while the first is written, and neither is another for it."""
    model, words = load(folders["small"])
    engine = Engine(model, len(words), slots=2)
    prompt = render(ASKED, words, prompt=True)[0]
    expected = generate(model, [prompt], 40, temperature=0)[0]
    told: dict[int, list[int]] = {0: [], 1: []}
    order: list[int] = []
    ended = threading.Semaphore(0)

    def deliver(number: int) -> Callable[[Any], None]:
        def take(token: Any) -> None:
            told[number].append(token.id)
            order.append(number)
            if (number, len(told[0])) == (0, 5):
                engine.submit([Row(prompt, Sampling(40, 0.0), deliver(1))])
            if token.ended:
                ended.release()

        return take

    engine.submit([Row(prompt, Sampling(40, 0.0), deliver(0))])
    assert ended.acquire(timeout=120)
    assert ended.acquire(timeout=120)
    engine.close()
    assert told == {0: expected, 1: expected}
    assert order[:5] == [0] * 5
    assert order[6:40].count(1) > 10


# What goes wrong ----------------------------------------------------------------------------------------------------


def refused(kind: type[Exception], ask: Callable[[], Any]) -> Any:
    with pytest.raises(kind) as error:
        ask()
    return error.value


def test_mistakes_are_told_in_openais_words(client: Any) -> None:
    chat = client.chat.completions.create
    error = refused(openai.NotFoundError, lambda: chat(model="none", messages=ASKED))
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error")
    long = [{"role": "user", "content": "the cat " * 200}]
    error = refused(openai.BadRequestError, lambda: chat(model="small", messages=long))
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    longer = [{"role": "user", "content": "the cat " * 20_000}]
    assert refused(openai.BadRequestError, lambda: chat(model="small", messages=longer)).code == error.code
    error = refused(openai.BadRequestError, lambda: chat(model="small", messages=ASKED, max_tokens=320))
    assert error.code == "context_length_exceeded"
    error = refused(openai.BadRequestError, lambda: client.embeddings.create(model="small", input="the cat " * 200))
    assert error.code == "context_length_exceeded"
    for options, param in [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"seed": 1 << 70}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 3}, None),
        ({"response_format": {"type": "json_object"}}, None),
        ({"frequency_penalty": 1}, None),
        ({"tool_choice": "required", "tools": TOOLS}, None),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools.0.function.name"),
    ]:
        error = refused(openai.BadRequestError, lambda options=options: chat(model="small", messages=ASKED, **options))
        assert error.param == param, options
        assert error.message
    for messages in ([], [{"role": "king", "content": "-"}], [{"role": "user"}], [{"role": "user", "content": 3}],
                     [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]):  # fmt: skip
        assert refused(openai.BadRequestError, lambda messages=messages: chat(model="small", messages=messages)).code
    assert refused(openai.BadRequestError, lambda: client.completions.create(model="small", prompt=[99_999])).message
    assert refused(openai.BadRequestError, lambda: client.embeddings.create(model="small", input=[])).param


def post(server: Server, body: bytes, path: str = "/v1/chat/completions", headers: str = "") -> tuple[int, Any]:
    """A request as bytes: its status and the JSON that comes back."""
    with socket.create_connection(server.address, timeout=120) as there:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}"
        )
        there.sendall(head.encode() + b"\r\n" + body)
        return answer_of(there)


def answer_of(there: socket.socket) -> tuple[int, Any]:
    found = b""
    while part := there.recv(65536):
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"', b"[" * 100_000, b'{"model": "small"}',
     b'{"model": 3, "messages": 4}',
     b'{"model": "small", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
     b'{"model": "small", "messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused(server: Server, body: bytes) -> None:
    status, told = post(server, body)
    assert status == 400
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"]


def test_half_characters_are_read_and_written(server: Server) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": "\ud800 \u202e\x00 <|end|>"}], "max_tokens": 4}
    status, told = post(server, json.dumps(body).encode())
    assert status == 200
    assert told["choices"][0]["message"]["role"] == "assistant"
    assert post(server, json.dumps(body | {"model": "\ud800"}).encode())[0] == 404


def test_a_huge_body_is_refused_before_it_is_read(server: Server) -> None:
    with socket.create_connection(server.address, timeout=120) as there:
        there.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n"
        )
        status, told = answer_of(there)
    assert (status, told["error"]["code"]) == (413, "body_too_large")
    with socket.create_connection(server.address, timeout=120) as there:
        there.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        try:
            for _ in range(bodies.BODY_BYTES // 65536 + 2):
                there.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            status = answer_of(there)[0]
        except OSError:  # it has answered and closed, with some of the body unread
            return
        assert status == 413


def test_a_body_that_never_comes_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.05)
    with socket.create_connection(server.address, timeout=120) as there:
        there.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{")
        status, told = answer_of(there)
    assert (status, told["error"]["code"]) == (408, "timeout")


def test_paths_and_methods_that_are_none(server: Server) -> None:
    assert post(server, b"{}", "/v1/nothing")[1]["error"]["type"] == "invalid_request_error"
    assert post(server, b"{}", "/v1/models")[0] == 405
    assert post(server, b"{}", "/v1/chat/../../etc/passwd")[0] == 404


@pytest.mark.parametrize("stream", [False, True])
def test_the_row_of_a_client_that_goes_away_is_freed(server: Server, stream: bool) -> None:
    served = server.models["small"]
    word = encode(served.tokenizer, ["the"])[0]
    going = threading.Event()

    def words() -> Iterator[int]:
        while True:
            going.set()
            yield word[0]
            threading.Event().wait(0.05)

    body = json.dumps({"model": "small", "messages": ASKED, "stream": stream}).encode()
    with scripted(served.model, words()):
        with socket.create_connection(server.address, timeout=120) as there:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            there.sendall(head.encode() + body)
            assert going.wait(120)
            until(lambda: served.engine.busy == 1)
            [row] = served.engine._rows.values()
        until(lambda: not served.engine.busy)
    assert row.written < row.sampling.new_tokens  # it wasn't written to its end for nobody
    assert server.client().chat.completions.create(model="small", messages=ASKED, max_tokens=2).choices


def test_a_pass_that_fails_is_told_and_the_next_request_is_answered(server: Server, client: Any) -> None:
    model: Any = server.models["small"].model

    def fail(_: Any) -> Any:
        raise MemoryError("no room")

    model.logits = fail
    try:
        error = refused(
            openai.InternalServerError, lambda: client.chat.completions.create(model="small", messages=ASKED)
        )
        assert error.code == "model_failed"
        with pytest.raises(openai.APIError, match="model failed"):
            list(client.chat.completions.create(model="small", messages=ASKED, stream=True))
    finally:
        del model.logits
    assert client.chat.completions.create(model="small", messages=ASKED, max_tokens=2).choices


def test_more_than_may_wait_are_turned_away(server: Server, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.models["small"].engine, "most", 1)
    error = refused(openai.RateLimitError, lambda: client.chat.completions.create(model="small", messages=ASKED, n=2))
    assert error.code == "rate_limit_exceeded"


def test_with_a_token_nobody_else_is_answered(folders: dict[str, Path]) -> None:
    with serving({"small": api.Served("small", *load(folders["small"]))}, "a key") as server:
        assert server.client("a key").models.list().data
        for key in ("another", "a ke", "a keys"):
            error = refused(openai.AuthenticationError, lambda key=key: server.client(key).models.list())
            assert error.code == "invalid_api_key"
        assert post(server, b"{}")[0] == 401
        assert post(server, b"{}", headers="Authorization: Bearer \xff\r\n")[0] == 401
