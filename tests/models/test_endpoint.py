"""Endpoints are asked patiently, never twice, and whatever they do is one line or one request's own problem."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from completions import CompletionServer, Fault, completion, completions
from harness import free_port
from pydantic import ValidationError

from datalake.errors import UserError
from datalake.identity import fingerprint
from models.serving.config import Endpoint
from models.serving.endpoint import Answers, Client, key_of


@pytest.fixture
def server() -> Iterator[CompletionServer]:
    with completions(lambda body: body["messages"][-1]["content"].upper()) as running:
        yield running


def client(server: CompletionServer | str, folder: Path, key: str = "", **settings: Any) -> Client:
    url = server if isinstance(server, str) else server.url
    return Client(Endpoint(url=url, model="m", **{"backoff_seconds": 0.001, **settings}), key, Answers(folder))


def asking(*texts: str) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": text}], "seed": 1} for text in texts]


def test_replies_come_in_the_order_of_the_requests_several_at_once(server: CompletionServer, tmp_path: Path) -> None:
    server.gather = 3
    replies = client(server, tmp_path, connections=3).ask(asking(*"abcdef"))
    assert [reply.text for reply in replies] == list("ABCDEF")
    assert server.most == 3
    assert [(reply.prompt_tokens, reply.new_tokens) for reply in replies] == [(7, 3)] * 6


def test_nothing_is_asked_twice(server: CompletionServer, tmp_path: Path) -> None:
    assert [r.text for r in client(server, tmp_path).ask(asking("a", "b", "a"))] == ["A", "B", "A"]
    again = client(server, tmp_path)
    assert [r.text for r in again.ask(asking("b", "c"))] == ["B", "C"]
    assert sorted(body["messages"][0]["content"] for body in server.asked) == ["a", "b", "c"]
    assert again.counts == {"kept": 1, "requests": 1}
    assert [r.text for r in client(server, tmp_path).ask([asking("a")[0] | {"seed": 2}])] == ["A"]
    assert len(server.asked) == 4, "another seed is another request"


def test_what_was_answered_before_a_failure_is_kept(server: CompletionServer, tmp_path: Path) -> None:
    server.answer = lambda body: Fault(500) if body["messages"][0]["content"] == "c" else "yes"
    with pytest.raises(UserError, match=r"fails after 3 tries: status 500.*what it answered is kept"):
        client(server, tmp_path, retries=2, connections=1).ask(asking("a", "b", "c"))
    server.answer = lambda body: "yes"
    before = len(server.asked)
    client(server, tmp_path).ask(asking("a", "b", "c"))
    assert [body["messages"][0]["content"] for body in server.asked[before:]] == ["c"]


def test_an_answer_that_was_half_written_is_asked_for_again(server: CompletionServer, tmp_path: Path) -> None:
    client(server, tmp_path).ask(asking("a"))
    (kept,) = tmp_path.rglob("*.json")
    assert kept.stat().st_mode & 0o077 == 0, "what was paid for is its owner's"
    kept.write_bytes(kept.read_bytes()[:10])
    assert client(server, tmp_path).ask(asking("a"))[0].text == "A"
    assert len(server.asked) == 2


PASSING = [
    Fault(500),
    Fault(503, b"<html>busy</html>"),
    Fault(429),
    Fault(408),
    Fault(529, b'{"error": {"message": "overloaded"}}'),
    Fault(hang_up=True),
    Fault(body=b'{"choices": [{"mess'),
    Fault(body=b"<html>captive portal</html>"),
    Fault(body=b"[]"),
    Fault(body=b"[" * 100_000),
    Fault(body=b'{"error": {"code": 429, "message": "rate limited"}}'),  # with status 200, as gateways do
    Fault(body=b'{"error": "upstream died"}'),
    Fault(body=completion(None)),
    Fault(body=completion("")),
    Fault(body=b'{"choices": []}'),
    Fault(body=b'{"choices": null, "object": "chat.completion"}'),
    Fault(body=completion("half of it", "error")),
    Fault(body=b'{"choices": [{"message": {"content": "half"}, "finish_reason": "stop", "error": {"code": 502}}]}'),
    Fault(body=b'{"choices": [{"message": null, "finish_reason": "stop"}]}'),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.status}-{fault.body[:30]!r}")
def test_what_may_pass_is_asked_again(fault: Fault, server: CompletionServer, tmp_path: Path) -> None:
    server.faults = [fault]
    asked = client(server, tmp_path)
    assert asked.ask(asking("a"))[0].text == "A"
    assert asked.counts == {"requests": 2, "retries": 1}


@pytest.mark.parametrize(
    "wait", [{"Retry-After": "0"}, {"retry-after-ms": "3"}, {"Retry-After": format_datetime(datetime.now(UTC))}]
)
def test_retry_after_goes_before_the_backoff(wait: dict[str, str], server: CompletionServer, tmp_path: Path) -> None:
    server.faults = [Fault(429, headers=wait)] * 5  # by the backoff it would take minutes
    assert client(server, tmp_path, backoff_seconds=60).ask(asking("a"))[0].text == "A"


STOPS = {
    "401": (
        Fault(401, b'{"error": {"message": "Incorrect API key provided"}}'),
        r"refuses access \(401: Incorrect API",
    ),
    "403": (Fault(403), "refuses access"),
    "404": (Fault(404, b'{"error": {"message": "The model `m` does not exist"}}'), "has no model 'm'.*correct `model`"),
    "quota": (Fault(429, b'{"error": {"code": "insufficient_quota", "message": "You exceeded"}}'), "no quota left"),
    "credit": (Fault(429, b'{"error": {"type": "insufficient_quota", "message": "no credits"}}'), "no quota left"),
    "402": (Fault(402), "no quota left"),
    "moved": (Fault(301, headers={"location": "https://elsewhere.example/v1"}), "leads elsewhere.*elsewhere.example"),
    "hours": (Fault(429, headers={"Retry-After": "7200"}), "asks to wait 7,200 s"),
    "418": (Fault(418), "status 418"),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_does_not_pass_is_one_line_at_once(name: str, server: CompletionServer, tmp_path: Path) -> None:
    fault, line = STOPS[name]
    server.faults = [fault]
    with pytest.raises(UserError, match=line) as told:
        client(server, tmp_path, key="sk-secret-secret").ask(asking("a"))
    assert "\n" not in str(told.value)
    assert "sk-secret" not in str(told.value)
    assert len(server.asked) == 1
    assert not list(tmp_path.rglob("*.json"))


def test_nobody_there_and_a_body_that_drips_are_told(server: CompletionServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fails after 2 tries: .*refused.*see that it runs"):
        client(f"http://127.0.0.1:{free_port()}/v1", tmp_path, retries=1).ask(asking("a"))
    server.answer = lambda body: Fault(drip=True)
    with pytest.raises(UserError, match=r"longer than 0\.2 s"):
        client(server, tmp_path, retries=0, seconds=0.2).ask(asking("a"))


def test_silence_ends_at_the_time_limit(server: CompletionServer, tmp_path: Path) -> None:
    over = threading.Event()
    server.answer = lambda body: over.wait(60) and "late"
    with pytest.raises(UserError, match=r"(?i)timed out"):
        client(server, tmp_path, retries=0, seconds=0.2).ask(asking("a"))
    over.set()


def test_what_one_request_alone_gets_is_its_own_problem(server: CompletionServer, tmp_path: Path) -> None:
    long = b'{"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}}'
    answers: dict[str, Any] = {
        "long": Fault(400, long),
        "bad": completion(None, "content_filter"),
        "no": completion(None, refusal="I can't"),
        "cut": completion("half an ans", "length"),
        "full": completion("half an ans", "model_context_window_exceeded"),
        "grok": completion("whole", "end_turn"),
        "thought": completion("<think>for ever", "length"),
        "null": completion(None),
        "parts": completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        "reasons": completion("<think>so</think>\n\nyes"),
        "fine": "yes",
    }
    server.answer = lambda body: answers[body["messages"][0]["content"]]
    names = ["fine", *(name for name in answers if name != "fine")]
    for _ in range(2):
        found = dict(zip(names, client(server, tmp_path, connections=1).ask(asking(*names)), strict=True))
        assert found["long"].problem.startswith("refused: 400: maximum context length")
        assert found["bad"].problem == "filtered: content_filter"
        assert found["no"].problem == "filtered: I can't"
        assert (found["cut"].text, found["cut"].ended, found["cut"].problem) == ("half an ans", False, "")
        assert not found["full"].ended
        assert found["grok"].ended
        assert found["thought"].problem == "empty: its tokens ended before an answer began"
        assert found["null"].problem == "empty: no content (stop)"
        assert [found[name].text for name in ("parts", "reasons", "fine")] == ["ab", "yes", "yes"]
    assert len(server.asked) == len(names) + 2, "what was answered with nothing is asked three times, once and for all"


def test_where_every_request_is_refused_it_is_the_request_that_is_wrong(
    server: CompletionServer, tmp_path: Path
) -> None:
    told = b'{"error": {"message": "Unsupported parameter: max_tokens"}}'
    server.answer = lambda body: Fault(400, told) if "max_tokens" in body else "yes"
    with pytest.raises(
        UserError, match="refused: 400: Unsupported parameter: max_tokens: correct the endpoint's `body`"
    ):
        client(server, tmp_path).ask([asking("a")[0] | {"max_tokens": 5}])
    mended = client(server, tmp_path, body={"max_tokens": None, "max_completion_tokens": 5})
    assert mended.ask([asking("a")[0] | {"max_tokens": 5}])[0].text == "yes"
    assert server.asked[-1].keys() == {"model", "messages", "seed", "max_completion_tokens"}


def test_the_key_goes_into_a_header_and_nowhere_else(
    server: CompletionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint(url=server.url, model="m", key_variable="SOME_KEY")
    with pytest.raises(UserError, match="SOME_KEY isn't set"):
        key_of(endpoint)
    monkeypatch.setenv("SOME_KEY", " sk-abcdefgh \n")
    assert key_of(endpoint) == "sk-abcdefgh"
    client(server, tmp_path, key=key_of(endpoint)).ask(asking("a"))
    assert server.headers[0]["Authorization"] == "Bearer sk-abcdefgh"
    assert "sk-abcdefgh" not in json.dumps(server.asked)
    assert not any(b"sk-abcdefgh" in path.read_bytes() for path in tmp_path.rglob("*.json"))
    server.faults = [Fault(401, b'{"error": "no such key: sk-abcdefgh"}')]
    with pytest.raises(UserError, match=r"no such key: \*\*\*"):
        client(server, tmp_path, key="sk-abcdefgh").ask(asking("b"))
    with_other = Endpoint(url=server.url, model="m", key_variable="OTHER", retries=1, seconds=5, connections=9)
    assert fingerprint(endpoint) == fingerprint(with_other)
    assert fingerprint(endpoint) != fingerprint(Endpoint(url=server.url, model="n"))


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_this_machine_is_asked_without_a_proxy(
    proxy: str, server: CompletionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert client(server, tmp_path).ask(asking("a"))[0].text == "A"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"url": "localhost:8000"}, "an address is wanted"),
        ({"url": "https://me:pw@host/v1"}, "a key stands in the address"),
        ({"url": "https://host/v1?api_key=abc"}, "a key stands in the address"),
        ({"url": "https://host/v1/chat/completions"}, "leave /chat/completions out"),
        ({"key_variable": "sk-abcdef"}, "the name of an environment variable"),
        ({"key_variable": "hf_AbCdEf"}, "the name of an environment variable"),
        ({"body": {"stream": True}}, "'stream' isn't set here"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        Endpoint.model_validate({"url": "http://host/v1", "model": "m", **settings})
