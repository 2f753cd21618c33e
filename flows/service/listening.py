"""How commands answer a browser or a program: where they listen, at which address, until they are interrupted."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from datalake.errors import UserError

HOST = "127.0.0.1"


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UserError where it can't."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{host} port {port} can't be used ({why.lower()}): choose another with --port") from None
    listening.listen(1024)
    return listening


def address(host: str, port: int) -> str:
    """The beginning of a server's addresses."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def answer_requests(app: Any, listening: socket.socket) -> None:
    """Answer with an ASGI application in this process until it is interrupted."""
    import uvicorn

    settings: dict[str, Any] = {"log_level": "warning", "lifespan": "off", "server_header": False}
    # One way for all installations, whatever else happens to be there.
    settings |= {"http": "h11", "loop": "asyncio", "timeout_graceful_shutdown": 1}
    uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
