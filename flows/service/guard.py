"""What stands before Prefect's app: this machine's names alone, the server's own pages alone, nothing loaded elsewhere.

A page of another site in the user's browser can send requests to loopback. Its `Origin` is refused, whatever the
request; a name of its own that it points at loopback (DNS rebinding) is refused by `Host`; framing is refused by the
policy. The policy also keeps Prefect's pages from calling other hosts: their analytics, pictures in texts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",  # of the first UI
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def trusted(host: str, origin: str | None, hosts: Collection[str] | None = HOSTS) -> bool:
    """Whether a request with these two headers is from a server's own pages or programs, under one of these names.

    Under any (None), where a server is for other machines too: its pages may then come through a proxy with TLS.
    """
    own = {None, f"http://{host}"} | ({f"https://{host}"} if hosts is None else set())
    try:
        return (hosts is None or urlsplit(f"//{host}").hostname in hosts) and origin in own
    except ValueError:
        return False


class Guard:
    """An ASGI app around another one; `headers` go with each of its answers, `hosts` are the names it answers to."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] = HEADERS, hosts: Collection[str] | None = HOSTS):
        self.app, self.headers, self.hosts = app, headers, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403 (a socket: before it is accepted)."""
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import PlainTextResponse
        from starlette.websockets import WebSocketClose

        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if not trusted(headers.get("host", ""), headers.get("origin"), self.hosts):
            if scope["type"] == "websocket":
                return await WebSocketClose(1008, "another site")(scope, receive, send)
            refused = PlainTextResponse("refused: this server answers its own pages and programs alone\n", 403)
            return await refused(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        return await self.app(scope, receive, with_headers)
