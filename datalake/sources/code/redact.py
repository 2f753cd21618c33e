"""Secrets in source code: found by detect-secrets' detectors and replaced by what they were, `<SECRET:GITHUB_TOKEN>`.

Only detectors of tokens with a form of their own are used; those that judge by entropy or by the name of a variable
take too much honest code for secrets, as do those of bare hexadecimal runs. Nothing is verified, so nothing goes over
the network. A detector sees a line only where a literal that all its tokens contain stands in it, which makes the scan
quick. Addresses and other personal data are curation's.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from functools import cache
from typing import Any

# detector -> literals one of which every token of its kind contains
_NEEDLES: dict[str, tuple[str, ...]] = {
    "aws.AWSKeyDetector": ("AKIA", "ASIA", "ABIA", "ACCA", "A3T", "aws", "AWS"),
    "azure_storage_key.AzureStorageKeyDetector": ("AccountKey=",),
    "basic_auth.BasicAuthDetector": ("://",),
    "github_token.GitHubTokenDetector": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    "gitlab_token.GitLabTokenDetector": (
        "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941", "glcbt-", "glimt-", "glptt-", "glagent-", "gloas-",
    ),
    "jwt.JwtTokenDetector": ("eyJ",),
    "npm.NpmDetector": (":_authToken=",),
    "openai.OpenAIDetector": ("T3BlbkFJ",),
    "pypi_token.PypiTokenDetector": ("pypi-AgE",),
    "sendgrid.SendGridDetector": ("SG.",),
    "slack.SlackDetector": ("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-", "hooks.slack.com"),
    "square_oauth.SquareOAuthDetector": ("sq0csp-",),
    "stripe.StripeDetector": ("k_live_",),
}  # fmt: skip
# Forms that came up after the detectors, by the prefixes their issuers publish.
_MORE = {
    "GitHub Token": r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    "Google API Key": r"AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])",
    "Hugging Face Token": r"\bhf_[A-Za-z]{34}\b",
    "Anthropic API Key": r"sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}",
}
_MORE_NEEDLES = ("github_pat_", "AIza", "hf_", "sk-ant-")
_KEY_LINE = re.compile(r"-----(BEGIN|END) ((?:[A-Z0-9]++ )*PRIVATE KEY(?: BLOCK)?)(?=-----)")
_TOKEN = 16  # characters that a pattern's group needs to be the token itself
_REST = re.compile(r"[A-Za-z0-9_.+/=-]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+")
_KEY_BODY = 64  # characters of base64 below which a key block is an example's or a pattern's
# Passwords in addresses that documentation uses, and what stands for one.
_EXAMPLES = re.compile(
    r"pass|pwd|secret|token|user|example|your|xxx|\.\.\.|\A(?:[^A-Za-z0-9]*|.{1,5})\Z|\A[$%<{\[(]|[)}\]>'\"`\\,|]",
    re.IGNORECASE,
)


@cache
def _detectors() -> list[tuple[tuple[str, ...], Any, str]]:
    """(literals, detector, placeholder) of each kind of token."""
    from importlib import import_module

    out = []
    for name, needles in _NEEDLES.items():
        module, _, detector = name.partition(".")
        made = getattr(import_module(f"detect_secrets.plugins.{module}"), detector)()
        out.append((needles, made, _placeholder(made.secret_type)))
    return out


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], str]]:
    return [
        (needle, re.compile(pattern), _placeholder(kind))
        for needle, (kind, pattern) in zip(_MORE_NEEDLES, _MORE.items(), strict=True)
    ]


def _placeholder(kind: str) -> str:
    """`<SECRET:AWS_ACCESS_KEY>` for `AWS Access Key`."""
    return f"<SECRET:{re.sub(r'[^A-Z0-9]+', '_', kind.upper())}>"


def redact(text: str) -> tuple[str, dict[str, int]]:
    """The text with its secrets replaced, and how many there were of each kind (`AWS_ACCESS_KEY`), sorted."""
    found: list[tuple[int, int, str]] = []
    for needles, detector, placeholder in _detectors():
        for needle in needles:
            if needle in text:
                found += [(start, end, placeholder) for start, end in _in_lines(text, needle, detector)]
    for needle, pattern, placeholder in _patterns():
        if needle in text:
            found += [(*match.span(), placeholder) for match in pattern.finditer(text) if _real(match[0])]
    if "PRIVATE KEY" in text:
        for start, end in _keys(text):
            if sum(map(len, _BASE64.findall(text, start, end))) >= _KEY_BODY:
                found.append((start, end, "<SECRET:PRIVATE_KEY>"))
    if not found:
        return text, {}
    parts: list[str] = []
    counts: Counter[str] = Counter()
    done = 0
    for start, end, placeholder in sorted(set(found), key=lambda item: (item[0], -item[1], item[2])):
        if start >= done:
            parts += [text[done:start], placeholder]
            counts[placeholder[8:-1]] += 1
            done = end
    return "".join((*parts, text[done:])), dict(sorted(counts.items()))


def _keys(text: str) -> Iterator[tuple[int, int]]:
    """What stands between the first and the last line of each private key; both say its kind."""
    begins: list[re.Match[str]] = []
    ends: dict[str, deque[re.Match[str]]] = {}
    for match in _KEY_LINE.finditer(text):
        if match[1] == "BEGIN":
            begins.append(match)
        else:
            ends.setdefault(match[2], deque()).append(match)
    place = 0
    for begin in begins:
        start, waiting = begin.end() + 5, ends.get(begin[2], deque())
        if begin.start() < place:
            continue  # within a key
        while waiting and waiting[0].start() <= start:
            waiting.popleft()
        if waiting:
            yield start, waiting[0].start()
            place = waiting[0].end() + 5


def _in_lines(text: str, needle: str, detector: Any) -> list[tuple[int, int]]:
    """Where a detector's tokens stand, in the lines that hold its literal."""
    out = []
    place = text.find(needle)
    while place >= 0:
        # A line of any length, but a token is near its literal.
        near, far = max(0, place - 1_000), min(place + 3_000, len(text))
        start, end = text.rfind("\n", near, place), text.find("\n", place, far)
        left, right = start + 1 if start >= 0 else near, end if end >= 0 else far
        line = text[left:right]
        if needle != "://" or "@" in line:
            for pattern in detector.denylist:
                out += [(left + first, left + last) for first, last in _tokens(line, pattern, needle, detector)]
        place = text.find(needle, max(right, place + 1))
    return out


def _tokens(line: str, pattern: re.Pattern[str], needle: str, detector: Any) -> Iterator[tuple[int, int]]:
    """Spans of a pattern's tokens in a line: its group where that is the token and not just its prefix."""
    for match in pattern.finditer(line):
        group = 1 if pattern.groups and (needle == "://" or len(match[1] or "") >= _TOKEN) else 0
        start, end = match.span(group)
        if needle == "://":
            if not _EXAMPLES.search(match[group]):
                yield start, end
            continue
        if needle == "eyJ":  # the detector's pattern ends before the signature
            if not detector.is_formally_valid(match[0]):
                continue
            rest = _REST.match(line, end)
            end = rest.end() if rest else end
        # A token stands by itself; within a longer run of letters and digits it is a blob's.
        around = (line[start - 1] if start else "") + line[end : end + 1]
        if _real(line[start:end]) and not any(character.isalnum() for character in around):
            yield start, end


def _real(secret: str) -> bool:
    """Whether a token is one that was issued rather than drawn up: not sequential, not one character over and over."""
    from detect_secrets.filters.heuristic import is_sequential_string, is_templated_secret

    return len(set(secret)) >= 8 and not is_sequential_string(secret) and not is_templated_secret(secret)
