"""Extraction: text and title of pages whole and damaged, in any charset, in bounded time."""

from __future__ import annotations

import random
import re
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.extract.html.charset import decode
from datalake.extract.html.page import extract, tidy
from datalake.formats.http import BodyError, BodyTooLargeError, decode_body

PAGE = """<!doctype html><html><head><title> A  page\n</title><style>p{}</style></head><body>
<nav><a href=/>Home</a> <a href=/x>About us</a></nav><main><article><h1>Heading</h1>
<p>First paragraph, long enough to be taken for the content of this page by anybody.</p>
<p>Second&nbsp;paragraph\u00ad, which follows the first one and has as many words as that.</p>
<pre>def f():\n    return 1</pre></article></main><footer>Copyright</footer><script>var x = 1</script></body></html>"""


def test_the_content_without_what_surrounds_it() -> None:
    text, title = extract(PAGE)
    assert title == "A page"
    assert "First paragraph" in text
    assert "Second paragraph, which" in text
    assert "    return 1" in text
    for left_out in ("Home", "Copyright", "var x", "p{}"):
        assert left_out not in text
    assert "Home" in extract(PAGE, main_content=False).text


def test_a_page_that_is_all_navigation_gives_its_whole_text() -> None:
    assert extract("<body><nav><a href=/>Only this</a></nav></body>").text == "Only this"


def tidied(text: str) -> str:
    """`tidy` by regular expressions, one after the other."""
    text = re.sub(r"\r\n?|[\u2028\u2029\x85]", "\n", text)
    text = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "", text)
    text = re.sub("[\u00ad\u200b\u2060\ufeff]", "", text)
    text = re.sub("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]", " ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+(?=\n|\Z)", "", text)).strip("\n \t")


def test_tidy_is_what_its_rules_say_of_every_character_and_of_any_mixture() -> None:
    for code in [*range(0x3100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10010), 0x1F642, 0x10FFFF]:
        text = f"a{chr(code)}b"
        assert tidy(text) == tidied(text), hex(code)
    rng = random.Random(1)
    alphabet = "ab \n\r\t\x00\xa0\u200b\u3000\u2028\x85\ud800é日🙂ا"
    for _ in range(20_000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(14)))
        assert tidy(text) == tidied(text), ascii(text)
    assert tidy("") == tidy(" \n\t") == ""


def test_tidy_whitespace() -> None:
    assert tidy(" a \r\n\r\n\r\n\u00a0b\u200b\x00\x07 \n") == "a\n\n b"


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.lists(
            st.sampled_from(
                [
                    "<div>",
                    "</div>",
                    "<p",
                    ">",
                    "<!--",
                    "-->",
                    "<script>",
                    "</script>",
                    "<table>",
                    "<b>",
                    "</b>",
                    "&#x110000;",
                    "&amp",
                    "\x00",
                    "\ud800",
                    "<svg>",
                    "<template>",
                    "text ",
                    "<title>",
                    "<![CDATA[",
                ]
            )
        ).map("".join),
    )
)
@settings(max_examples=300)
def test_no_garbage_raises(page: str | bytes) -> None:
    text, title = extract(page)
    f"{text}{title}".encode()
    assert "\x00" not in text
    assert extract(page) == (text, title)


@pytest.mark.parametrize(
    "unit",
    [
        "<div>",
        "<div/>w ",
        "<div></x>",
        "<b><div></b>",
        "<span><div></span>",
        "<svg><g/>",
        "<table><tr><td>",
        "<ul><li>",
        "<p><b>w ",
        "<font>w ",
        "<x-y>w ",
    ],
)
def test_nesting_without_end_costs_no_time_and_no_text(unit: str) -> None:
    begin = time.process_time()
    text = extract(unit * 30_000 + "end").text
    assert time.process_time() - begin < 10  # the bound's absence costs minutes
    if "w " in unit:
        assert text.count("w") == 30_000


def test_formatting_left_open_is_not_multiplied() -> None:
    begin = time.process_time()
    extract("".join(f"<p><b id={number}>word " for number in range(5_000)))
    assert time.process_time() - begin < 10


def test_deep_but_sane_pages_are_untouched() -> None:
    page = "<div>" * 400 + "<p>deep</p>" + "</div>" * 400 + "<div><p>after</p></div>" * 400
    assert extract(page, main_content=False).text.count("after") == 400


@pytest.mark.parametrize(
    ("data", "header", "text", "charset"),
    [
        ("中文".encode("gbk"), "gb2312", "中文", "gbk"),
        ('<meta charset="big5">中文'.encode("big5"), None, '<meta charset="big5">中文', "big5"),
        (b"\xef\xbb\xbfabc", "latin1", "abc", "utf-8"),
        ("\ufeffabc".encode("utf-16le"), "utf-8", "abc", "utf-16le"),
        (b"caf\xe9", "iso-8859-1", "café", "windows-1252"),
        (b"un caf\xe9 tr\xe8s agr\xe9able", "no such charset", "un café très agréable", "windows-1252"),
        (b"abc", "rot13", "abc", "windows-1252"),
        ("中文网页内容测试".encode(), "gb2312", "中文网页内容测试", "utf-8"),  # declared wrongly, as happens
        (
            b'<meta http-equiv=content-type content="text/html; charset=windows-1251">\xcf',
            None,
            '<meta http-equiv=content-type content="text/html; charset=windows-1251">П',
            "windows-1251",
        ),
        (
            b'<?xml version="1.0" encoding="windows-1251"?><p>\xcf',
            None,
            '<?xml version="1.0" encoding="windows-1251"?><p>П',
            "windows-1251",
        ),
        (("中文" * 50).encode()[:-1], None, "中文" * 49 + "中\ufffd", "utf-8"),  # cut inside a character
    ],
)
def test_charsets_as_browsers_find_them(data: bytes, header: str | None, text: str, charset: str) -> None:
    assert decode(data, header) == (text, charset)


def gzip(data: bytes, bits: int = 31) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return packer.compress(data) + packer.flush()


def chunked(data: bytes, size: int = 7) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


BODY = b"<p>some text that is long enough</p>" * 20


@pytest.mark.parametrize(
    ("body", "transfer", "content"),
    [
        (BODY, [], []),
        (chunked(BODY), ["chunked"], []),
        (chunked(gzip(BODY)), ["Chunked"], ["gzip"]),
        (gzip(BODY), [], ["x-gzip"]),
        (gzip(gzip(BODY)), [], ["gzip, gzip"]),
        (gzip(BODY[:100]) + gzip(BODY[100:]), [], ["gzip"]),
        (gzip(BODY, 15), [], ["deflate"]),
        (gzip(BODY, -15), [], ["deflate"]),
        (BODY, ["chunked"], ["gzip"]),  # decoded by the crawler, the headers left as they were
        (BODY, [], ["br"]),
        (BODY, [], ["deflate"]),
        (BODY, [], ["none"]),
    ],
)
def test_encodings_are_undone(body: bytes, transfer: list[str], content: list[str]) -> None:
    assert decode_body(body, transfer, content, 10_000) == BODY


def test_brotli() -> None:
    brotli = pytest.importorskip("brotli")
    assert decode_body(brotli.compress(BODY), [], ["br"], 10_000) == BODY
    with pytest.raises(BodyTooLargeError):
        decode_body(brotli.compress(b"a" * 1_000_000), [], ["br"], 10_000)


@pytest.mark.parametrize(
    ("body", "transfer", "content", "reason"),
    [
        (chunked(BODY)[:-20], ["chunked"], [], "chunking"),
        (chunked(BODY)[:18] + b"garbage" + chunked(BODY)[18:], ["chunked"], [], "chunking"),
        (chunked(BODY)[:-5], ["chunked"], [], "chunking"),
        (gzip(BODY)[:-9], [], ["gzip"], "content_encoding"),
        (gzip(BODY)[:20] + b"\xff\xff\xff" + gzip(BODY)[23:], [], ["gzip"], "content_encoding"),
        (b"\x00\x01\x02", [], ["br"], "content_encoding"),
    ],
)
def test_damaged_bodies_say_why(body: bytes, transfer: list[str], content: list[str], reason: str) -> None:
    with pytest.raises(BodyError) as error:
        decode_body(body, transfer, content, 10_000)
    assert error.value.reason == reason


def test_what_the_crawler_cut_is_decoded_as_far_as_it_goes() -> None:
    unpacked = decode_body(gzip(BODY)[:-9], [], ["gzip"], 100_000, cut=True)
    unchunked = decode_body(chunked(BODY)[:-20], ["chunked"], [], 10_000, cut=True)
    for part in (unpacked, unchunked):
        assert BODY.startswith(part)
        assert len(part) >= 100 if part is unpacked else len(part) > len(BODY) - 20


def test_a_bomb_stops_at_the_limit() -> None:
    with pytest.raises(BodyTooLargeError):
        decode_body(gzip(b"\0" * 50_000_000), [], ["gzip"], 1_000_000)
