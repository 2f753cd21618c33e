"""`headwater browse`: a page on this machine to read what was kept and what was dropped."""

from __future__ import annotations

import secrets
from contextlib import suppress

from flows.commands.common import COMMON, Common
from flows.service.listening import HOST, address, answer_requests, listener


def browse(*, port: int = 0, common: Common = COMMON) -> None:
    """Read kept and dropped texts in a browser, with what-if beside them.

    The page is for this machine alone, at an address that only you are told; Ctrl-C ends it.

    Parameters
    ----------
    port
        Where to listen; 0: wherever there is room.
    """
    from flows.browse.app import application

    token = secrets.token_urlsafe(16)
    app = application(common.open().store, token)
    with listener(HOST, port) as listening, suppress(KeyboardInterrupt):
        url = f"{address(HOST, listening.getsockname()[1])}/{token}/"
        common.output.answer({"url": url}, lambda console, _: console.line(f"{url}\nCtrl-C ends it"))
        answer_requests(app, listening)
