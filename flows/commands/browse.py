"""`headwater browse`: a page on this machine to read what was kept and what was dropped."""

from __future__ import annotations

import secrets
import socket

from datalake.errors import UserError
from flows.commands.common import COMMON, Common

HOST = "127.0.0.1"


def browse(*, port: int = 0, common: Common = COMMON) -> None:
    """Read kept and dropped texts in a browser, with what-if beside them.

    The page is for this machine alone, at an address that only you are told; Ctrl-C ends it.

    Parameters
    ----------
    port
        Where to listen; 0: wherever there is room.
    """
    import uvicorn

    from flows.browse.app import application

    token = secrets.token_urlsafe(16)
    app = application(common.open().store, token)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(f"port {port} can't be used ({why.lower()}): choose another with --port") from None
        listening.listen()
        url = f"http://{HOST}:{listening.getsockname()[1]}/{token}/"
        common.output.answer({"url": url}, lambda console, _: console.line(f"{url}\nCtrl-C ends it"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            return
