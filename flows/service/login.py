"""The password of a lake's Prefect server: made once, kept in the lake, readable by its owner alone.

Whoever reaches the API can run commands as the user who started the server, and so could any page in that user's
browser. Each lake has a password of its own, so a server is also known by it: one that refuses it is another lake's.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from datalake.errors import UserError
from datalake.places import home as kept_here

USER = "headwater"


def place_of(lake: Path) -> Path:
    """Where Prefect's files of a lake lie: in it, or, of one in a store, on this machine."""
    return kept_here(lake) / "prefect"


def home(lake: Path) -> Path:
    """The folder of Prefect's files in a lake, closed to others: logs, addresses, the database and the password."""
    folder = place_of(lake)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): choose another --lake") from None
    return folder


def login(lake: Path) -> str:
    """`headwater:PASSWORD` of a lake's server, from `<lake>/prefect/password`; made where there is none.

    Raises:
        UserError: where the file can't be read or made.
    """
    path = home(lake) / "password"
    try:
        if text := _read(path):
            return text
        draft = path.with_name(f".password-{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{USER}:{secrets.token_urlsafe(18)}\n")
        try:
            if path.exists():  # empty
                path.unlink()
            os.link(draft, path)  # of two that make one at a time, the first counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return _read(path)
    except OSError as error:
        raise UserError(f"{path} can't be read or made ({error.strerror}): correct its permissions") from None


def _read(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def header(login: str) -> dict[str, str]:
    """The HTTP header that carries a login; none for an empty one."""
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
