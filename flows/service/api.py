"""Prefect's REST API as plain HTTP: importing Prefect's own client takes seconds."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from flows.service.login import header

# Loopback goes past proxies, whatever the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Api:
    """The API at `url` (…/api), asked with a login (`user:password`)."""

    url: str
    login: str = ""

    def __call__(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """One request.

        A server whose SQLite is locked just then says 503; it is asked again, as Prefect's own client does.

        Raises:
            urllib.error.HTTPError: for any other refusal.
        """
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | header(self.login),
            method=method or ("GET" if body is None else "POST"),
        )
        for attempt in range(8):
            try:
                with _OPENER.open(request, timeout=120) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == 7:
                    raise
                time.sleep(0.25 * 2**attempt)
        return None

    def status(self, timeout_s: float = 2.0) -> int:
        """What the server says to the login: 200, 401 where it is another's, 0 where nothing answers."""
        try:
            request = urllib.request.Request(f"{self.url}/admin/version", headers=header(self.login))
            with _OPENER.open(request, timeout=timeout_s) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError, http.client.HTTPException):
            return 0

    def answers(self) -> bool:
        """Whether the server is up and takes the login."""
        return self.status() == 200


def call(url: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """One request with the login of the environment (PREFECT_API_AUTH_STRING)."""
    return Api(url, os.environ.get("PREFECT_API_AUTH_STRING", ""))(path, body, method)
