"""What `masked` takes out of texts, addresses and JSON data, and what it leaves."""

from __future__ import annotations

import time

import pytest

from datalake import secrets
from datalake.secrets import is_secret, masked, remember, scrub


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setattr(secrets, "_pattern", None)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:hunter2@example.org/a.gz", "https://example.org/a.gz"),
        ("HTTPS://me:hunter2@example.org/a.gz", "HTTPS://example.org/a.gz"),
        ("https://hunter2@example.org", "https://example.org"),
        ("https://me:hun@ter2@example.org/a", "https://example.org/a"),
        ("https://me:hun/ter2@example.org/a", "https://example.org/a"),
        ("s3://AKIA:hunter2@bucket/key", "s3://bucket/key"),
        ("https://h/a?token=hunter2", "https://h/a?token=***"),
        ("https://h/a?id=3&X-Amz-Signature=hunter2&b=c", "https://h/a?id=3&X-Amz-Signature=***&b=c"),
        ("https://h/a?TOKEN=hunter2#sha256=ab", "https://h/a?TOKEN=***#sha256=ab"),
        ("https://h/a?to%6ben=hunter2", "https://h/a?to%6ben=***"),
        ("https://h/a?sig=hunter2;api_key=hunter2", "https://h/a?sig=***;api_key=***"),
        ("https://h/a#access_token=hunter2", "https://h/a#access_token=***"),
        ("https://h/a?accessToken=hunter2", "https://h/a?accessToken=***"),
        ("no 'http://u:hunter2@h/x' and https://v:hunter2@h/y: 403", "no 'http://h/x' and https://h/y: 403"),
    ],
)
def test_addresses_lose_their_secrets(text: str, left: str) -> None:
    assert masked(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "https://medium.com:443/@someone",
        "https://example.org/a?id=3&page=2#section",
        "mail me@example.org about key=value",
        "git@github.com:owner/name",
        "a plain text: with @ and ?token=x but no address",
        "/work/shared/samples/cc/*.warc.gz",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


def test_names_that_say_so() -> None:
    for name in ("token", "HF_TOKEN", "apiKey", "X-Api-Key", "mirror_password", "secret", "accesstoken", "db-passwd"):
        assert is_secret(name), name
    for name in ("samples", "keywords", "monkey", "tokenizer", "max_tokens", "secrets", "author", "mirror"):
        assert not is_secret(name), name


def test_remembered_values_are_hidden_wherever_they_stand() -> None:
    remember(["s3cr3t/Wörd+", "ab"])
    assert masked("x s3cr3t/Wörd+ y") == "x *** y"
    assert masked("https://h/s3cr3t%2FW%C3%B6rd%2B/x") == "https://h/***/x"
    assert masked("/ab/table ab-c") == "/***/table ***-c"  # a short one where it stands alone, not inside a word
    assert masked({"paths": ["/mnt/ab/x"], "rows": 3, "token": "t", "none": None}) == {
        "paths": ["/mnt/***/x"],
        "rows": 3,
        "token": "***",
        "none": None,
    }


def test_an_error_is_scrubbed_with_what_led_to_it() -> None:
    cause = FileNotFoundError(2, "nothing there", "https://u:hunter2@h/x")
    error = RuntimeError(f"reading failed: {cause}")
    error.__cause__ = cause
    scrub(error)
    assert "hunter2" not in f"{error} {cause} {cause!r}"
    assert "https://h/x" in str(error)


@pytest.mark.parametrize("piece", ["://", "://a:b", "?a", "://a?token", "&token=", "://a@", "https://u:p@h/?key=v "])
def test_masking_takes_time_in_proportion(piece: str) -> None:
    def took(times: int) -> float:
        text, begin = "x://" + piece * times, time.process_time()
        masked(text)
        return time.process_time() - begin

    took(1_000)
    short, long = min(took(20_000) for _ in range(3)), min(took(80_000) for _ in range(3))
    assert long < 12 * short + 0.1


def test_the_name_of_a_variable_that_holds_a_key_is_no_key() -> None:
    assert masked({"key_variable": "SOME_KEY", "api_key": "abc"}) == {"key_variable": "SOME_KEY", "api_key": "***"}
