"""The server of `headwater label`: the page, who is logged in, and what he says, as an ASGI application.

Nobody is answered about items without a key, which the page exchanges for a cookie that no script reads and that other
sites' requests don't carry. Requests that change something are JSON, which a form can't send, and `flows.service.guard`
looks at where they come from. Errors are objects, as `headwater serve` has them, and the server lives on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from datalake.errors import UserError
from flows.label.annotators import who
from flows.label.desk import Desk, TakenError, UnknownItemError
from flows.label.kinds import Asked, Row
from flows.service.guard import HOSTS, Guard
from models.serving import bodies
from models.serving.page import headers, page
from models.serving.protocol import ApiError, read

PAGE = Path(__file__).with_name("page.html")
COOKIE = "headwater_label"
_DAYS = 30  # that a login lasts


class Login(BaseModel):
    """What the page sends to log in."""

    model_config = ConfigDict(extra="forbid")
    key: str = Field(max_length=200)


Answer = Callable[[str, bytes], Any]  # of an annotator and a body


def application(desk: Desk, keys: Mapping[str, str], hosts: Collection[str] | None = HOSTS) -> ASGIApp:
    """The page over a desk, for whoever has one of these keys; under one of these names, None: under any."""
    return Guard(App(desk, keys).application(), {}, hosts)


class App:
    """What is asked of a desk."""

    def __init__(self, desk: Desk, keys: Mapping[str, str]):
        self.desk, self.keys = desk, keys

    def application(self) -> Starlette:
        """The routes."""
        routes = [
            Route("/", self._page),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/state", self._known(lambda name, _: self.desk.state(name))),
            Route("/labels", self._known(self._judge), methods=["POST"]),
            Route("/skip", self._known(self._skip), methods=["POST"]),
            Route("/undo", self._known(self._undo), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers=bodies.HANDLERS)

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(page(PAGE), headers=headers(PAGE))  # it holds no secret

    async def _login(self, request: Request) -> Response:
        key = read(Login, await _json(request)).key
        name = who(self.keys, key)
        if name is None:
            raise ApiError(401, "a wrong key: take the address that `headwater label` shows", "invalid_key", "key")
        response = bodies.answer(self.desk.state(name))
        response.set_cookie(_cookie(request), key, max_age=_DAYS * 86_400, httponly=True, samesite="strict")
        return response

    async def _logout(self, request: Request) -> Response:
        response = bodies.answer({})
        response.delete_cookie(_cookie(request), httponly=True, samesite="strict")
        return response

    def _known(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Answer a request of somebody who is logged in."""

        async def checked(request: Request) -> Response:
            name = who(self.keys, request.cookies.get(_cookie(request), ""))
            if name is None:
                raise ApiError(401, "log in first", "not_logged_in")
            body = await _json(request) if request.method == "POST" else b""
            try:
                return bodies.answer(await run_in_threadpool(answer, name, body))
            except UnknownItemError:
                raise ApiError(404, "there is no such item", "unknown_item", "item") from None
            except TakenError:
                raise ApiError(409, "you said something else of it before: take that back first", "taken") from None
            except UserError as error:
                raise ApiError(507, str(error), "not_written") from None

        return checked

    def _judge(self, name: str, body: bytes) -> Row:
        new = self.desk.judge(name, read(self.desk.kind.body, body))
        return {"counted": new} | self.desk.state(name)

    def _skip(self, name: str, body: bytes) -> Row:
        self.desk.skip(name, read(Asked, body).item)
        return self.desk.state(name)

    def _undo(self, name: str, body: bytes) -> Row:
        undone = self.desk.undo(name) or {}
        return self.desk.state(name) | undone


def _cookie(request: Request) -> str:
    """The name of the cookie here: browsers give one server's to those at every other port of its machine."""
    return COOKIE if request.url.port is None else f"{COOKIE}_{request.url.port}"


async def _json(request: Request) -> bytes:
    """The body of a request that says it is JSON, as no form of another site can."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send application/json", "not_json")
    return await bodies.body_of(request)
