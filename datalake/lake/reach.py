"""Whether a lake in a store can be reached, read and written, and why not: one line for each thing that may be wrong.

`lake.json` says that a lake begins here and in which format; whoever comes first writes it. An older Headwater on a
lake of a later format says so and touches nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from datalake.atomic import write_atomically
from datalake.conditional import write_first
from datalake.errors import UserError, first_line
from datalake.places import place, store_of

FORMAT = 1
MARK = "lake.json"
TRIES = 4  # before a run has begun, a store that doesn't answer is told within seconds

_EXPIRED = ("expired", "ExpiredToken")
_NO_BUCKET = ("bucket does not exist", "NoSuchBucket", "container does not exist")
_AWAY = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ConnectionError",
    "SSLError",
    "ServiceRequestError",
    "ClientConnectorError",
    "ClientConnectorDNSError",
)


class _Store(NamedTuple):
    """The variables that a kind of store is reached by."""

    prefix: str
    credentials: str
    endpoint: str


_S3 = _Store("AWS_", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE", "AWS_ENDPOINT_URL")
_AZURE = _Store(
    "AZURE_STORAGE_",
    "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
)
_GOOGLE = _Store("GOOGLE_", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST")
_STORES = (
    {"s3": _S3, "s3a": _S3} | dict.fromkeys(("az", "abfs", "abfss"), _AZURE) | dict.fromkeys(("gs", "gcs"), _GOOGLE)
)


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
    protocol, _, rest = str(root).partition("://")
    bucket, store = rest.partition("/")[0], _STORES.get(protocol, _STORES["s3"])
    if any(word in said for word in _NO_BUCKET) or isinstance(error, FileNotFoundError):
        return f"reached: there is no bucket {bucket}: make it, or correct --lake"
    if kind == "NoCredentialsError" or "credentials" in said.lower():
        return f"reached: no credentials: set {store.credentials}"
    if "request time" in said:
        return f"reached ({said}): this machine's clock is wrong: set it"
    if any(word in said for word in _EXPIRED):
        return f"reached ({said}): log in again, and set AWS_SESSION_TOKEN anew"
    if isinstance(error, PermissionError) or kind == "ClientAuthenticationError":
        return (
            f"read and written ({said}): correct the credentials ({store.prefix}...), or what they may do in {bucket}"
        )
    if kind == "ProfileNotFound":
        return f"reached ({said}): correct AWS_PROFILE"
    if said.startswith("Invalid endpoint"):
        return f"reached ({said}): write AWS_ENDPOINT_URL as https://HOST, or http://HOST:PORT"
    if kind in _AWAY:
        return f"reached ({said}): start the store, or correct {store.endpoint}"
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
