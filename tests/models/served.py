"""Servers of `headwater serve` for tests, in this process, and models that write what they are told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import uvicorn

from models.serving import api


class Server:
    """A server in this process: `base` is its API's root, `client` OpenAI's, `models` what it serves."""

    def __init__(self, models: dict[str, api.Served], token: str = "") -> None:
        self.models = models
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(256)
        self.address = self.socket.getsockname()
        self.home = f"http://127.0.0.1:{self.address[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                api.application(models, token), log_level="critical", lifespan="off", http="h11", loop="asyncio"
            )
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self._thread.start()

    @property
    def base(self) -> str:
        return f"{self.home}/v1"

    def client(self, key: str = "none") -> Any:
        import openai

        return openai.OpenAI(base_url=self.base, api_key=key, max_retries=0, timeout=120)

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()
        for served in self.models.values():
            served.close()


@contextmanager
def serving(models: dict[str, api.Served], token: str = "") -> Iterator[Server]:
    server = Server(models, token)
    try:
        yield server
    finally:
        server.close()


def until(ready: Callable[[], Any]) -> None:
    """Wait for a condition; a test's own time limit ends a wait for nothing."""
    for _ in range(120_000):
        if ready():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it didn't come")


@contextmanager
def scripted(model: Any, tokens: Iterable[int]) -> Iterator[None]:
    """A model that writes these tokens, whatever it is asked; one request at a time."""
    coming = iter(tokens)

    def logits(hidden_ND: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(hidden_ND), model.config.vocabulary)
        found[:, next(coming)] = 30.0
        return found

    model.logits = logits
    try:
        yield
    finally:
        del model.logits
