"""Whether a lake in a store can be reached, read and written, and why not: one line for each thing that may be wrong.

`lake.json` says that a lake begins here and in which format; whoever comes first writes it. An older Headwater on a
lake of a later format says so and touches nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datalake.atomic import write_atomically, write_first
from datalake.errors import UserError, first_line
from datalake.places import place, store_of

FORMAT = 1
MARK = "lake.json"
TRIES = 4  # before a run has begun, a store that doesn't answer is told within seconds

_EXPIRED = ("expired", "ExpiredToken")


@contextmanager
def _told(root: Path) -> Iterator[None]:
    """Say in one line what keeps a lake from being reached."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{root}: {first_line(error)}: install fsspec's package for such addresses") from None
    except Exception as error:  # of the store's own library, which has many kinds
        raise UserError(f"the lake {root} can't be {_why(root, error)}") from None


def _why(root: Path, error: Exception) -> str:
    said, kind = first_line(error), type(error).__name__
    bucket = str(root).partition("://")[2].partition("/")[0]
    if "bucket does not exist" in said or "NoSuchBucket" in said:
        return f"reached: there is no bucket {bucket}: make it, or correct --lake"
    if kind == "NoCredentialsError" or "credentials" in said.lower():
        return "reached: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if "request time" in said:
        return f"reached ({said}): this machine's clock is wrong: set it"
    if any(word in said for word in _EXPIRED):
        return f"reached ({said}): log in again, and set AWS_SESSION_TOKEN anew"
    if isinstance(error, PermissionError):
        return f"read and written ({said}): correct the credentials (AWS_...), or what they may do in {bucket}"
    if kind == "ProfileNotFound":
        return f"reached ({said}): correct AWS_PROFILE"
    if said.startswith("Invalid endpoint"):
        return f"reached ({said}): write AWS_ENDPOINT_URL as https://HOST, or http://HOST:PORT"
    if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionError", "SSLError"):
        return f"reached ({said}): start the store, or correct AWS_ENDPOINT_URL"
    return f"reached ({said}): try again later, or look with headwater doctor --lake {root}"


def reach(root: Path) -> None:
    """Make sure that a lake can be read, and isn't of a later format. Raises UserError where it can't, or is."""
    with _told(root):
        store, key = store_of(place(str(root), TRIES) / MARK)
        try:
            data = store.cat_file(key)
        except PermissionError:
            store.cat_file(key, 0, 1)  # the size was asked for by HEAD, whose answer doesn't say why: that to GET does
            raise
        except FileNotFoundError as error:
            if "bucket" in str(error):
                raise
            return
    try:
        found = int(json.loads(data)["format"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{root / MARK} can't be read: remove it, and run a recipe again") from None
    if found > FORMAT:
        raise UserError(
            f"the lake {root} is of format {found}, which a later Headwater made: this one knows {FORMAT};"
            " install that one"
        )


def begin(root: Path) -> None:
    """Make sure that a lake is there and can be written. Raises UserError where it can't."""
    reach(root)
    with _told(root):
        write_first(place(str(root), TRIES) / MARK, json.dumps({"format": FORMAT}).encode())
        probe = place(str(root), TRIES) / f".writable.{uuid.uuid4().hex}"
        write_atomically(probe, b"")
        probe.unlink()


def holds_conditions(root: Path) -> bool:
    """Whether the store writes an object only where there is none, as leases and `lake.json` need. Raises OSError where
    it can't be written."""
    probe = root / f".conditional.{uuid.uuid4().hex}"
    try:
        return write_first(probe, b"first") and not write_first(probe, b"second")
    finally:
        with suppress(OSError):
            probe.unlink()
