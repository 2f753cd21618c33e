"""Secrets stay out of what is stored and shown: manifests, records, parameters of flow runs, logs, error lines.

A secret is the value of a variable whose name says so (`token`, `api_key`, `mirror_password`), the user part of an
address, and what follows a parameter such as `token=` or `X-Amz-Signature=` in one. A reader gets the secret itself;
whatever is written down goes through `masked`. A fingerprint is computed from what is meant and shows nothing of it.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["MASK", "is_secret", "is_signature", "known", "masked", "remember", "scrub"]

MASK = "***"
_WORDS = frozenset({"token", "key", "secret", "password", "passwd", "passphrase", "pwd", "auth", "authorization"})
_WORDS |= {"credential", "credentials", "cookie", "jwt", "bearer", "signature", "sas"}
_ENDINGS = ("token", "secret", "password", "passwd", "apikey", "accesskey", "credential", "credentials")
_LONG = 8  # a shorter value is masked only where it stands alone: `a` mustn't take every a of a text

# The user part behind `://`, as addresses are read; and a password with a slash in it, which isn't one of a port.
_USER = re.compile(r"(?<=://)(?:[^\s/?#\"'<>]{1,2048}@|[^\s/?#@:]{0,256}:(?!\d{1,5}(?:[/?#]|$))[^\s@\"'<>]{1,256}@)")
_QUERY = re.compile(r"(?<=[?&;#])([\w.~%+\[\]-]{1,128})=([^\s&;#\"'<>]+)")

# Parameters of signed addresses (AWS, Google, Azure, CloudFront) and others that open doors.
_SIGNATURE = re.compile(
    r"^(x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|sig|se|sp|sv|sr|st|skoid|"
    r"sktid|skt|ske|sks|skv|(.*[_-])?(key|auth|sid|pwd|pass|user|username|jwt|sas|session|sessionid)|"
    r".*(token|secret|passw|passphrase|api_?key|accesskey|credential|signature|authori).*)$",
    re.IGNORECASE,
)

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def is_secret(name: str) -> bool:
    """Whether the name of a variable, option or header says that its value is a secret: `HF_TOKEN`, `X-Api-Key`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return not _WORDS.isdisjoint(re.split(r"[^a-z]+", words)) or words.endswith(_ENDINGS)


def is_signature(name: str) -> bool:
    """Whether a parameter of an address signs it or opens a door."""
    return bool(_SIGNATURE.match(name))


def remember(values: Iterable[str]) -> None:
    """From now on `masked` hides these values wherever they stand, and so do logs, in this process."""
    global _pattern
    found = set(filter(None, map(str.strip, values))) - _known
    if not found:
        return
    _mask_logs()
    for value in found:
        _known.update({value, quote(value), quote(value, safe=""), unquote(value), json.dumps(value)[1:-1]})
    whole = [re.escape(v) if len(v) >= _LONG else rf"(?<!\w){re.escape(v)}(?!\w)" for v in sorted(_known, key=_order)]
    _pattern = re.compile("|".join(whole))


def _mask_logs() -> None:
    """Let every log record of this process be masked when it is made, whoever handles it later."""
    make = logging.getLogRecordFactory()
    if getattr(make, "masks", False):
        return

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        with suppress(Exception):  # arguments that don't fit are told by the handler
            message = made.getMessage()
            if (left := masked(message)) != message:
                made.msg, made.args = left, None
        if made.exc_info and made.exc_info[1] is not None:
            made.exc_text = masked("".join(traceback.format_exception(*made.exc_info)).rstrip())
        return made

    record.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def _order(value: str) -> tuple[int, str]:
    return -len(value), value


def known() -> tuple[str, ...]:
    """The values remembered so far: what a worker process has to be told."""
    return tuple(sorted(_known))


def masked(value: Any) -> Any:
    """Text or plain JSON data without secrets; whatever isn't text stays as it is.

    In addresses the user is left out and secret parameters say `***`, as do remembered values and, in mappings, the
    text under a name that says it is secret.
    """
    if isinstance(value, str):
        return _without(value)
    if isinstance(value, dict):
        return {
            masked(name): MASK if isinstance(item, str) and item and _holds_secret(str(name)) else masked(item)
            for name, item in value.items()
        }
    return [masked(item) for item in value] if isinstance(value, list | tuple) else value


def _holds_secret(name: str) -> bool:
    """Whether a text under this name is a secret; `key_variable` says where one is."""
    return is_secret(name) and not name.endswith("_variable")


def _without(text: str) -> str:
    if "://" in text:
        text = _QUERY.sub(_parameter, _USER.sub("", text))
    return _pattern.sub(MASK, text) if _pattern else text


def _parameter(match: re.Match[str]) -> str:
    name = unquote(match[1])
    return f"{match[1]}={MASK}" if is_signature(name) or is_secret(name) else match[0]


def scrub(error: BaseException) -> BaseException:
    """The error, and those that led to it, with masked messages: it is about to be logged or stored."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        one.args = tuple(masked(argument) if isinstance(argument, str) else argument for argument in one.args)
        if isinstance(one, OSError):
            for part in ("filename", "filename2", "strerror"):
                if getattr(one, part) is not None:  # one that is set, to None even, changes what the error says
                    setattr(one, part, masked(getattr(one, part)))
        one = one.__cause__ or one.__context__
    return error
