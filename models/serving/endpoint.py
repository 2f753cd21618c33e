"""A client of OpenAI-compatible endpoints: chat completions and completions, asked patiently and never twice.

`Client.ask(requests)` gives a `Reply` to each. What may pass is asked again (408, 409, 429, 5xx, silence, a broken
answer: jittered backoff, Retry-After before it), what the endpoint answers to one request alone (a prompt that is too
long, a filter, nothing) is that request's `problem`, and what no request can pass raises one UserError: nobody answers,
a key, a model that isn't there, a quota. Replies are kept by the content of their requests as they come, so that who
was ended goes on where it was. The key goes into a header and nowhere else.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.secrets import masked, remember
from models.serving.config import Endpoint

PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529))
ITS_OWN = frozenset((400, 413, 422))  # of one request, where others are answered
EMPTY = 2  # times that a request is made again which is answered with nothing
LONGEST_WAIT_S = 60.0
LONGEST_ASKED_S = 600.0  # a wait longer than this, asked for by the endpoint, is the user's
LARGEST = 64 << 20  # bytes of an answer
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "credit_balance_too_low", "credit_balance_exhausted")
# What servers call the end of an answer: cut by a limit, taken by a filter, lost on the way.
_LIMITS = frozenset(("length", "max_tokens", "model_context_window_exceeded"))
_FILTERS = frozenset(("content_filter", "sensitive"))
_LOST = frozenset(("error", "network_error", "insufficient_system_resource", "abort"))
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
_OPENED = re.compile(r"\A\s*<think>")


@dataclass(frozen=True)
class Reply:
    """What was answered. `ended`: by the model, not by a limit; `problem`: why there is no answer, a word and more.

    `prompt_tokens`, `new_tokens`: as the endpoint counts them, 0 where it doesn't.
    """

    text: str
    ended: bool = True
    problem: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0


class Answers:
    """Replies kept in a folder by what was asked: written whole as they come, read by whoever asks the same again."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> list[Reply] | None:
        """What was answered; None where nothing was, or what is there can't be read."""
        try:
            return [Reply(**one) for one in json.loads(self._path(key).read_bytes())]
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def put(self, key: str, replies: Sequence[Reply]) -> None:
        """Keep what was answered; readable by its owner alone, as it may be private or paid for."""
        body = json.dumps([asdict(one) for one in replies], sort_keys=True)
        write_atomically(self._path(key), body.encode("utf-8", "replace"), private=True)


class _PassingError(Exception):
    """Something that may pass; `after` seconds where the endpoint says so."""

    def __init__(self, why: str, after: float | None = None):
        super().__init__(why)
        self.after = after


class _EmptyError(Exception):
    """An answer without any text."""


class _RefusedError(Exception):
    """The endpoint refuses this request, as it stands."""


class Client:
    """Asks one endpoint, `endpoint.connections` requests at once. `counts`: `requests`, `retries`, `kept` (not asked).

    `key` is the key itself, empty for none.
    """

    def __init__(self, endpoint: Endpoint, key: str, answers: Answers):
        self.endpoint, self.answers, self.counts = endpoint, answers, Counter[str]()
        remember([key])
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "headwater"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._stopped, self._lock, self._not_before = threading.Event(), threading.Lock(), 0.0
        self._answered = False  # whether any request ever was
        self._http = _connections(endpoint)

    # Asking ----------------------------------------------------------------------------------------------------------

    def ask(self, requests: Sequence[Mapping[str, Any]], path: str = "chat/completions") -> list[Reply]:
        """The replies, in the order of the requests; equal requests are asked once.

        Raises:
            UserError: in one line, for what asking again doesn't mend. What was answered is kept.
        """
        bodies = [self._body(request) for request in requests]
        keys = [fingerprint({"url": f"{self.endpoint.url}/{path}", "body": body}) for body in bodies]
        replies: dict[str, Reply] = {}
        missing: dict[str, dict[str, Any]] = {}
        for key, body in zip(keys, bodies, strict=True):
            found = self.answers.get(key)
            if found:
                replies[key] = found[0]
                self._count("kept")
            else:
                missing[key] = body
        self._answered = self._answered or any(not reply.problem for reply in replies.values())
        self._stopped.clear()

        def one(key: str) -> Reply:
            reply = self._patiently(path, missing[key])
            if not reply.problem.startswith("refused"):  # those are kept once it is known that others are answered
                self.answers.put(key, [reply])
            return reply

        with ThreadPoolExecutor(max(1, min(self.endpoint.connections, len(missing)))) as pool:
            futures = {key: pool.submit(one, key) for key in missing}
            try:
                for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:  # the others end as soon as they can
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            replies |= {key: future.result() for key, future in futures.items()}
        self._answered = self._answered or any(not reply.problem for reply in replies.values())
        refused = [key for key in missing if replies[key].problem.startswith("refused")]
        if refused and not self._answered:
            raise UserError(f"{self._name} {replies[refused[0]].problem}: correct the endpoint's `body` or its model")
        for key in refused:
            self.answers.put(key, [replies[key]])
        return [replies[key] for key in keys]

    def _body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        body = {"model": self.endpoint.model, **request, **self.endpoint.body}
        return {name: value for name, value in body.items() if value is not None}

    @property
    def _name(self) -> str:
        return f"the endpoint {self.endpoint.url}"

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    # Patience --------------------------------------------------------------------------------------------------------

    def _patiently(self, path: str, body: Mapping[str, Any]) -> Reply:
        """The reply to one request, asked again while what fails may pass."""
        failures, empty = 0, 0
        while True:
            self._turn()
            try:
                return self._once(path, body)
            except _RefusedError as error:
                return Reply("", False, str(error))
            except _EmptyError as error:
                empty += 1
                if empty > EMPTY:
                    return Reply("", False, f"empty: {error}")
                pause = 0.0
            except _PassingError as error:
                failures += 1
                if failures > self.endpoint.retries:
                    tries = f"{failures} tries" if failures > 1 else "one try"
                    raise UserError(
                        f"{self._name} fails after {tries}: {error}; see that it runs, or raise its `retries` or "
                        "`seconds`; what it answered is kept, so the next run goes on from there"
                    ) from None
                if (error.after or 0) > LONGEST_ASKED_S:
                    raise UserError(
                        f"{self._name} asks to wait {error.after:,.0f} s ({error}): run again then; what it answered "
                        "is kept"
                    ) from None
                drawn = random.uniform(0.5, 1) * self.endpoint.backoff_seconds * 2 ** min(failures - 1, 16)
                pause = min(drawn, LONGEST_WAIT_S) if error.after is None else error.after
                if error.after:  # for every other request as well
                    with self._lock:
                        self._not_before = max(self._not_before, time.monotonic() + error.after)
            self._count("retries")
            self._stopped.wait(pause)

    def _turn(self) -> None:
        """Wait until the endpoint wants requests; ends where another request has failed for good."""
        with self._lock:
            pause = self._not_before - time.monotonic()
        if pause > 0:
            self._stopped.wait(pause)
        if self._stopped.is_set():
            raise UserError(f"{self._name} wasn't asked any more")

    # One request -----------------------------------------------------------------------------------------------------

    def _once(self, path: str, body: Mapping[str, Any]) -> Reply:
        deadline = time.monotonic() + self.endpoint.seconds
        self._count("requests")
        address, query = self.endpoint.url.partition("?")[::2]
        try:
            response = self._http.request(
                "POST",
                f"{address}/{path}" + (f"?{query}" if query else ""),
                body=json.dumps(body, ensure_ascii=True).encode(),
                headers=self._headers,
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=min(30.0, self.endpoint.seconds), read=self.endpoint.seconds),
            )
            try:
                content = self._read(response, deadline)
            finally:
                response.close()
        except (urllib3.exceptions.SSLError, urllib3.exceptions.LocationValueError) as error:
            raise UserError(f"{self._name} can't be asked ({_why(error)}): correct its `url`") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _PassingError(_why(error)) from None
        self._check(response.status, response.headers, content)
        return self._parsed(content)

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """The body, within the time limit, however slowly it drips."""
        parts: list[bytes] = []
        size = 0
        while piece := response.read1(1 << 16):
            parts.append(piece)
            size += len(piece)
            if time.monotonic() > deadline:
                raise _PassingError(f"it takes longer than {self.endpoint.seconds:g} s")
            if size > LARGEST:
                raise _PassingError(f"its answer is larger than {LARGEST >> 20} MB")
        return b"".join(parts)

    def _check(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Raises what a status means where it is no success."""
        if status == 200:
            return
        said = _said(content)
        told = f"{status}{': ' + said if said else ''}"
        if status in (301, 302, 303, 307, 308):
            raise UserError(
                f"{self._name} leads elsewhere ({status}, {masked(headers.get('location', ''))}): give that address"
            )
        if status in (401, 403, 407):
            variable = self.endpoint.key_variable
            do = f"set {variable} to a key that it takes" if variable else "name the key's variable in `key_variable`"
            raise UserError(f"{self._name} refuses access ({told}): {do}")
        if status == 402 or any(word in said or word.encode() in content for word in _QUOTA):
            raise UserError(f"{self._name} has no quota left ({told}): raise it there, then run again")
        if status in (404, 405, 410):
            raise UserError(
                f"{self._name} has no model {self.endpoint.model!r}, or its API isn't there ({told}): correct `model`"
                " or `url`"
            )
        if status in ITS_OWN:
            raise _RefusedError(f"refused: {told}")
        if status in PASSING or status >= 500:
            raise _PassingError(f"status {told}", _retry_after(headers))
        raise UserError(f"{self._name} answers with status {told}: correct its `url` or `body`")

    def _parsed(self, content: bytes) -> Reply:
        """The reply in the body of an answer."""
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            raise _PassingError(f"its answer is no JSON ({_brief(content)})") from None
        if isinstance(data, dict) and data.get("error") and not data.get("choices"):  # with status 200, as gateways do
            code = _mapping(data["error"]).get("code")
            status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else 500
            self._check(status if status >= 300 else 500, {}, content)
        if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
            raise _PassingError(f"its answer is no completion ({_brief(content)})")
        if not data["choices"]:
            raise _EmptyError("no choices")
        choice = _mapping(data["choices"][0])
        message = _mapping(choice.get("message"))
        reason = choice.get("finish_reason")
        if choice.get("error") or reason in _LOST:
            raise _PassingError(f"its answer broke off ({_said(json.dumps(choice).encode())[:80]})")
        text = _text(message.get("content", choice.get("text")))
        thinking = bool(_OPENED.match(text)) and "</think>" not in text
        text = "" if thinking else _THOUGHT.sub("", text)
        usage = _mapping(data.get("usage"))
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        tokens = [int(count) if isinstance(count, int | float) else 0 for count in counts]
        if reason in _FILTERS or message.get("refusal"):
            said = _text(message.get("refusal")) or reason
            return Reply("", False, f"filtered: {said}", *tokens)
        if not text.strip() and reason in _LIMITS:
            return Reply("", False, "empty: its tokens ended before an answer began", *tokens)
        if not text.strip():
            raise _EmptyError(f"no content ({reason})")
        return Reply(text, reason not in _LIMITS, "", *tokens)


def _connections(endpoint: Endpoint) -> urllib3.PoolManager:
    """Connections to an endpoint, by way of the proxy that the environment names; this machine is asked directly."""
    parts = urlsplit(endpoint.url)
    proxy = ""
    if not _is_here(parts.hostname or "") and not urllib.request.proxy_bypass(parts.netloc):
        proxies = urllib.request.getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy:
        return urllib3.PoolManager(maxsize=endpoint.connections)
    at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    login = f"{at.username}:{at.password or ''}" if at.username else None
    return urllib3.ProxyManager(
        f"{at.scheme}://{at.netloc.rpartition('@')[2]}",
        proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None,
        maxsize=endpoint.connections,
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(content: Any) -> str:
    """The text of a message: one, or a list of parts of which some are text."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in content)
    return content if isinstance(content, str) else ""


def _said(content: bytes) -> str:
    """What an answer that is no success says, in a line."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return _brief(content)
    error = data.get("error", data.get("detail", data.get("message"))) if isinstance(data, dict) else data
    if isinstance(error, dict):
        parts = [str(error[name]) for name in ("message", "code") if error.get(name)]
        error = " ".join(parts) or error
    text = error if isinstance(error, str) else json.dumps(error)
    return str(masked(" ".join(text.split())[:300]))


def _brief(content: bytes) -> str:
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return str(masked(text[:80])) or "nothing"


def _why(error: BaseException) -> str:
    """What went wrong with a connection, in a line."""
    inner = getattr(error, "reason", None)
    text = " ".join(str(inner or error).split())
    text = re.sub(r"^<[^>]*>: |^[A-Za-z]+\(.*?\): ", "", text)
    return str(masked(f"{text}"[:200])) or type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait: Retry-After as a number or a date (RFC 9110), or in milliseconds; None
    where it asks for nothing."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            return float(value) * scale
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            continue
    return None


def key_of(endpoint: Endpoint) -> str:
    """The key that the environment holds; empty where none is named. Raises UserError where it holds none."""
    if not endpoint.key_variable:
        return ""
    key = os.environ.get(endpoint.key_variable, "").strip()
    if not key:
        raise UserError(f"{endpoint.key_variable} isn't set: it has to hold the key of the endpoint {endpoint.url}")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{endpoint.key_variable} holds characters that no key has: copy the key once more")
    return key
