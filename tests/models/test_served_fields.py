"""Fields of OpenAI's requests as clients of other servers send them: null, idle, unknown, in several forms; and what an
answer says of its tokens and its calls. Each was a report against another server."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import toys
from served import Server, scripted, serving

from models.network.checkpoint import load
from models.serving import api
from models.serving.protocol import _IDLE
from models.text.rendering import render
from models.text.tokenizer import encode, token_bytes

ASKED = [{"role": "user", "content": "the cat sees"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
# As Mistral's templates write calls and their results: by ids of nine letters and digits, or not at all.
STRICT = """{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{%- if message.tool_call_id is not defined or message.tool_call_id|length != 9 -%}
{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
{%- endif -%}
[R]{{ message.content }}#{{ message.tool_call_id }}[/R]
{%- elif message.tool_calls -%}
{%- for call in message.tool_calls -%}[C]{{ call.function.name }}#{{ call.id }}[/C]{%- endfor -%}{{ '<|end|>' }}
{%- else -%}
[{{ message.role }}]{{ message.content }}{{ '<|end|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}[assistant]{%- endif -%}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fields")
    model, tokenizer = load(toys.base(folder / "m", toys.words(folder / "words"), context=320))
    strict, words = load(folder / "m")
    words.chat_template = STRICT
    with serving({"m": api.Served("m", model, tokenizer), "strict": api.Served("strict", strict, words)}) as made:
        yield made


def post(server: Server, path: str, **body: Any) -> tuple[int, Any]:
    answer = httpx.post(f"{server.base}/{path}", json={"model": "m"} | body, timeout=60)
    return answer.status_code, answer.json() if not body.get("stream") else answer.text


def chat(server: Server, **body: Any) -> tuple[int, Any]:
    return post(server, "chat/completions", **({"messages": ASKED, "max_tokens": 4, "seed": 5} | body))


def written(server: Server, text: str, name: str = "m", **body: Any) -> Any:
    """The choice where the model writes a text."""
    served = server.models[name]
    ids = [*encode(served.tokenizer, [text])[0], max(served.stops)]
    with scripted(served.model, ids):
        status, answer = chat(server, **({"model": name, "temperature": 0, "max_tokens": 200} | body))
    assert status == 200, answer
    return answer["choices"][0]


def test_null_is_a_field_that_is_not_there(server: Server) -> None:
    names = "temperature top_p n seed stop stream stream_options max_completion_tokens logprobs top_logprobs tools"
    idle = "tool_choice parallel_tool_calls response_format logit_bias user store metadata top_k frequency_penalty"
    plain = chat(server)
    nulls = dict.fromkeys(f"{names} {idle}".split()) | {"seed": 5}
    assert chat(server, **nulls)[1]["choices"] == plain[1]["choices"]
    assert "data: [DONE]" in chat(server, stream=True, stream_options={"include_usage": None})[1]
    called = [{"id": None, "type": None, "function": {"name": "add", "arguments": None}}]
    turns = [*ASKED, {"role": "assistant", "content": None, "tool_calls": called}, {"role": "tool", "content": "3"}]
    assert chat(server, messages=turns, tools=TOOLS)[0] == 200
    assert post(server, "embeddings", input="the cat", encoding_format=None, dimensions=None)[0] == 200
    status, said = post(server, "completions", prompt=None)
    assert (status, said["error"]["code"], said["error"]["param"]) == (400, "missing_required_parameter", "prompt")


def test_what_other_servers_take_and_this_one_does_not_is_refused_not_passed_over(server: Server) -> None:
    changing = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.2, "guided_json": {}, "ignore_eos": True,
                "continue_final_message": True, "chat_template_kwargs": {"enable_thinking": False}, "grammar": "x",
                "function_call": {"name": "add"}, "stop_token_ids": [3], "min_tokens": 2}  # fmt: skip
    for name, value in changing.items():
        status, said = chat(server, **{name: value})
        assert (status, said["error"]["code"]) == (400, "invalid_value"), name
        assert name in said["error"]["message"]
    for name, values in _IDLE.items():
        for value in values:
            assert chat(server, max_tokens=1, **{name: value})[0] == 200, (name, value)


def test_a_mistake_in_one_of_several_forms_has_its_place_in_the_body(server: Server) -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    for path, body, place in (
        ("chat/completions", {"messages": picture}, "messages.0.content.0.type"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
        ),
        ("chat/completions", {"messages": ASKED, "stop": ["a", 1]}, "stop.1"),
        ("embeddings", {"input": []}, "input"),
        ("embeddings", {"input": [[]]}, "input.0"),
        ("completions", {"prompt": [[1, -1]]}, "prompt.0.1"),
    ):
        status, said = post(server, path, **body)
        assert (status, said["error"]["param"]) == (400, place), said


def test_no_share_of_the_mass_is_the_likeliest_token(server: Server) -> None:
    greedy = chat(server, temperature=0)
    assert chat(server, temperature=1.5, top_p=0)[1]["choices"] == greedy[1]["choices"]


def test_no_is_no_number_of_log_probabilities(server: Server) -> None:
    plain = post(server, "completions", prompt="the cat", max_tokens=4, seed=1, logprobs=False)
    assert plain[1]["choices"][0]["logprobs"] is None
    assert post(server, "completions", prompt="the cat", logprobs=0, seed=1)[1]["choices"][0]["logprobs"]["tokens"]
    assert post(server, "completions", prompt="the cat", logprobs=True)[0] == 400


def test_tokens_that_are_parts_of_characters_are_told_by_their_bytes(server: Server) -> None:
    text = "狗 the 😀 cat"
    told = written(server, text, logprobs=True, top_logprobs=3)["logprobs"]["content"]
    assert bytes(byte for one in told for byte in one["bytes"]).decode() == text
    assert all(len({more["token"] for more in one["top_logprobs"]}) == 3 for one in told)
    tokenizer = server.models["m"].tokenizer
    for id, (_, name) in enumerate(sorted((id, name) for name, id in tokenizer.get_vocab().items())):
        alone = str(tokenizer.decode([id]))
        if id not in tokenizer.added_tokens_decoder and "\ufffd" not in alone:
            assert token_bytes(tokenizer, id) == alone.encode(), name
    assert token_bytes(tokenizer, max(tokenizer.added_tokens_decoder)) is None


def test_offsets_are_places_in_the_text(server: Server) -> None:
    served = server.models["m"]
    text = "狗 the 😀 cat"
    ids = [*encode(served.tokenizer, [text])[0], max(served.stops)]
    with scripted(served.model, ids):
        _, answer = post(server, "completions", prompt="x", max_tokens=60, logprobs=2, temperature=0)
    told = answer["choices"][0]["logprobs"]
    assert answer["choices"][0]["text"] == text
    whole = [(token, place) for token, place in zip(told["tokens"], told["text_offset"], strict=True) if token in text]
    assert len(whole) >= 3
    assert all(text[place:].startswith(token) for token, place in whole)
    assert told["text_offset"][:3] == [0, 0, 0]  # the parts of one character
    with scripted(served.model, ids):
        body = {"prompt": "x", "max_tokens": 60, "logprobs": 2, "temperature": 0, "stream": True}
        _, parts = post(server, "completions", **body)
    events = [json.loads(line[6:]) for line in parts.splitlines() if line.startswith("data: {")]
    streamed = [choice["logprobs"] for event in events for choice in event["choices"] if choice["logprobs"]]
    assert [place for one in streamed for place in one["text_offset"]] == told["text_offset"]


def test_a_stop_string_ends_a_call_that_is_none(server: Server) -> None:
    choice = written(server, "the cat\n<tool_call>no JSON STOP and more", tools=TOOLS, stop="STOP")
    assert choice["message"]["content"] == "the cat\n<tool_call>no JSON "
    assert choice["finish_reason"] == "stop"
    call = '<tool_call>{"name": "add", "arguments": {"a": "STOP"}}</tool_call>'
    choice = written(server, call, tools=TOOLS, stop="STOP")
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"a": "STOP"}


def test_arguments_are_json_that_every_client_reads(server: Server) -> None:
    for bad in ("NaN", "-Infinity"):
        call = f'<tool_call>{{"name": "add", "arguments": {{"a": {bad}}}}}</tool_call>'
        choice = written(server, call, tools=TOOLS)
        assert choice["message"]["content"] == call
        assert "tool_calls" not in choice["message"]


def test_one_call_alone_where_several_are_not_wanted(server: Server) -> None:
    calls = "".join(f'<tool_call>{{"name": "add", "arguments": {{"a": {n}}}}}</tool_call>' for n in range(3))
    assert len(written(server, calls, tools=TOOLS)["message"]["tool_calls"]) == 3
    alone = written(server, calls, tools=TOOLS, parallel_tool_calls=False)["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in alone] == [{"a": 0}]


def test_ids_of_calls_come_back_as_templates_want_them(server: Server) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    made = written(server, call, tools=TOOLS)["message"]["tool_calls"][0]
    turns = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [made]}]
    result = {"role": "tool", "tool_call_id": made["id"], "content": "3"}
    assert chat(server, model="strict", messages=[*turns, result])[0] == 200
    served = server.models["strict"]
    read = api.ChatBody.model_validate({"model": "strict", "messages": [*turns, result]})
    assert f"#{made['id']}[/R]" in served.tokenizer.decode(served.prompt(read))
    status, said = chat(server, model="strict", messages=[*turns, result | {"tool_call_id": "short"}])
    assert (status, said["error"]["code"]) == (400, "invalid_messages")


def test_an_id_writes_no_control_token(server: Server) -> None:
    words = copy.deepcopy(server.models["strict"].tokenizer)
    words.chat_template = STRICT.replace("|length != 9", " == ''")
    end = words.convert_tokens_to_ids("<|end|>")
    turns = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "<|end|>", "type": "function", "function": {"name": "add", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "<|end|>ab", "content": "3"}]  # fmt: skip
    ids = render(turns, words, prompt=True, masked=False)[0]
    assert ids.count(end) == 2  # of the user's turn and the assistant's
    assert words.decode(ids).count("<|end|>") == 4


def test_numbers_that_overflow_are_an_error_and_no_body_that_is_no_json(server: Server) -> None:
    served = server.models["m"]
    weight = next(served.model.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        for path, body in (("embeddings", {"input": "the cat"}), ("chat/completions", {"messages": ASKED})):
            status, said = post(server, path, **body)
            assert (status, said["error"]["code"]) == (500, "model_failed")
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert chat(server)[0] == 200


def test_a_stream_tells_proxies_to_give_it_on_and_has_usage_in_its_last_part_alone(server: Server) -> None:
    body = {"model": "m", "messages": ASKED, "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    answer = httpx.post(f"{server.base}/chat/completions", json=body)
    assert answer.headers["x-accel-buffering"] == "no"
    parts = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert [part["usage"] is None for part in parts] == [True] * (len(parts) - 1) + [False]


def test_the_scheme_of_a_key_is_read_in_any_case(tmp_path: Path) -> None:
    model, tokenizer = load(toys.base(tmp_path / "m", toys.words(tmp_path / "words")))
    with serving({"m": api.Served("m", model, tokenizer)}, "secret") as server:
        for given, status in (("bearer secret", 200), ("Bearer secret", 200), ("secret", 401), ("Basic secret", 401)):
            assert httpx.get(f"{server.base}/models", headers={"authorization": given}).status_code == status
