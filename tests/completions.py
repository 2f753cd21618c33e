"""An OpenAI-compatible server for tests, in this process: it answers by a function, or by what the next answers are
said to be (a status, a body, silence)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], Any]


@dataclass
class Fault:
    """What a request gets in place of an answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drip: bool = False  # a byte, and another, and so on until the client has gone
    hang_up: bool = False  # no answer, the connection closes


def completion(text: Any, reason: str = "stop", **more: Any) -> bytes:
    """The body of an answer."""
    message = {"role": "assistant", "content": text, **more}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


class CompletionServer:
    """Answers `answer(body)`: a text, or a `Fault`. `faults` come first, one a request; `asked` are all bodies seen."""

    def __init__(self, answer: Answer):
        self.answer, self.faults = answer, list[Fault]()
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.active = self.most = 0
        self.gather = 0  # no answer before so many requests are there at once
        self.lock = threading.Condition()
        home = self

        class Handler(_Handler):
            server_of = home

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has gone is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: CompletionServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        home = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with home.lock:
            home.asked.append(body)
            home.paths.append(self.path)
            home.headers.append(dict(self.headers))
            home.active += 1
            home.most = max(home.most, home.active)
            home.lock.notify_all()
            home.lock.wait_for(lambda: home.most >= home.gather, 60)
            fault = home.faults.pop(0) if home.faults else None
        try:
            said = fault or home.answer(body)
            fault = (
                said if isinstance(said, Fault) else Fault(body=said if isinstance(said, bytes) else completion(said))
            )
            if fault.hang_up:
                self.close_connection = True
                return
            self.send_response(fault.status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            if fault.drip:
                self.send_header("connection", "close")
                self.end_headers()
                gone = threading.Event()
                while not gone.wait(0.01):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            self.send_header("content-length", str(len(fault.body)))
            self.end_headers()
            self.wfile.write(fault.body)
        finally:
            with home.lock:
                home.active -= 1


@contextmanager
def completions(answer: Answer = lambda body: "yes") -> Iterator[CompletionServer]:
    """A server for the length of a test."""
    server = CompletionServer(answer)
    try:
        yield server
    finally:
        server.close()
