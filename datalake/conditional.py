"""Small files that are written only if: if there is none yet, or if there still is the one that was seen.

On this machine by a hard link. In a store by a conditional request, so that of several machines which try at once one
does; each kind of store has its own for the second.
"""

from __future__ import annotations

import errno
import os
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from datalake.atomic import temporary
from datalake.places import is_local, protocols_of, store_of

CONFLICTS = 8  # how often an object is written that another writes at the same moment


def write_first(path: Path, data: bytes) -> bool:
    """Write a small file unless it is there. Whether this process did.

    In a store by `If-None-Match: *`, or what Google's calls so.
    """
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = temporary(path)
        part.write_bytes(data)
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        finally:
            part.unlink()
        return True
    store, key = store_of(path)
    for attempt in range(1, CONFLICTS + 1):
        try:
            store.pipe_file(key, data, mode="create")
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if attempt == CONFLICTS or not _conflict(error):
                raise
            time.sleep(random.uniform(0.05, 0.2) * attempt)
    raise AssertionError


def _conflict(error: OSError) -> bool:
    """Whether another writes the same object at this moment, which S3 has decided for neither yet."""
    return error.errno == errno.EBUSY or "ConditionalRequestConflict" in str(error)


def tag(path: Path) -> str:
    """What an object of a store is told from its next version by; empty where it is gone."""
    store, key = store_of(path)
    try:
        about = store.info(key)
    except FileNotFoundError:
        return ""
    return str(about.get("generation") or about.get("ETag") or about.get("etag") or "")


def write_over(path: Path, data: bytes, seen: str) -> bool:
    """Write an object of a store in place of the one with this tag. Whether it still had it.

    False for a store whose conditional requests aren't known here, too.
    """
    store, key = store_of(path)
    over = next((_OVER[protocol] for protocol in protocols_of(path) if protocol in _OVER), None)
    if over is None:
        return False
    try:
        over(store, key, data, seen)
    except OSError:  # another was first
        return False
    return True


def _over_s3(store: Any, key: str, data: bytes, seen: str) -> None:
    store.pipe_file(key, data, IfMatch=seen)


def _over_azure(store: Any, key: str, data: bytes, seen: str) -> None:
    from azure.core import MatchConditions
    from azure.core.exceptions import AzureError

    try:
        store.pipe_file(key, data, etag=seen, match_condition=MatchConditions.IfNotModified)
    except AzureError as error:
        raise OSError(str(error)) from error


def _over_google(store: Any, key: str, data: bytes, seen: str) -> None:
    """As gcsfs sends a small object, whose own method knows of no generation but none."""
    bucket, name, _ = store.split_path(key)
    where = f"{store._location}/upload/storage/v1/b/{quote(bucket)}/o"
    store.call("POST", where, uploadType="media", name=name, ifGenerationMatch=seen, data=data)


_OVER: dict[str, Callable[[Any, str, bytes, str], None]] = {"s3": _over_s3, "az": _over_azure, "gs": _over_google}


def holds_conditions(root: Path) -> bool:
    """Whether a store writes an object only where there is none, and in place of the one that was seen alone, as leases
    and `lake.json` need. Raises OSError where it can't be written."""
    probe = root / f".conditional.{uuid.uuid4().hex}"
    try:
        if not write_first(probe, b"first") or write_first(probe, b"second"):
            return False
        seen = tag(probe)
        return write_over(probe, b"second", seen) and not write_over(probe, b"third", seen)
    finally:
        with suppress(OSError):
            probe.unlink()
