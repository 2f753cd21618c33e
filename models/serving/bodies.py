"""What servers here have in common: bodies of requests, which come from anybody, and answers and errors as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from models.serving.protocol import ApiError

BODY_BYTES = 8 << 20
PATIENCE_S = 60.0  # for a client to send its request, or to take a part of the answer


async def body_of(request: Request) -> bytes:
    """A request's body. Raises ApiError where it is too large or doesn't come."""
    too_large = ApiError(413, f"the body is larger than {BODY_BYTES >> 20} MiB", "body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > BODY_BYTES):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise ApiError(408, f"the body didn't come within {PATIENCE_S:g} s", "timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "the client went away") from None
    return bytes(body)


def as_bytes(value: Any) -> bytes:
    """A value as JSON, in ASCII: no surrogate is in its way. Raises ValueError for a number that JSON has none for."""
    return json.dumps(value, allow_nan=False).encode()


def answer(value: Any, status: int = 200) -> Response:
    """A value as an answer, which nobody keeps."""
    return Response(as_bytes(value), status, media_type="application/json", headers={"cache-control": "no-store"})


async def _told(request: Request, error: Any) -> Response:
    return answer(error.body, error.status)


async def _http(request: Request, error: Any) -> Response:
    why = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} isn't answered here"}
    return await _told(request, ApiError(error.status_code, why.get(error.status_code, str(error.detail))))


async def _failed(request: Request, error: Exception) -> Response:
    return await _told(request, ApiError(500, f"the server failed: {type(error).__name__}", "internal_error"))


# Every error, Starlette's own included, is an error object.
HANDLERS: dict[Any, Any] = {ApiError: _told, HTTPException: _http, Exception: _failed}
