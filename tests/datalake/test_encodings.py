"""Encodings of the web: every byte and pair of bytes as browsers read them, and by which encoding a page is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datalake.extract.html.charset import declared_inside
from datalake.extract.html.charset import decode as decode_page
from datalake.text.charsets import detected
from datalake.text.encodings import decode, encoding_of, standard

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from encodings_of_the_web import CHROMIUM_ERRS, TWO_BYTES, browser_reads, found_browser


@pytest.fixture(scope="module")
def browser() -> dict[str, list[str]]:
    """What Chromium's TextDecoder makes of every byte and of every pair of bytes."""
    binary = found_browser()
    if binary is None:
        pytest.skip("no Chromium: apt-get install chromium")
    return browser_reads(binary, TWO_BYTES, [name for name in standard().single if name != "replacement"])


@pytest.mark.parametrize("name", TWO_BYTES)
def test_every_pair_of_bytes_is_read_as_a_browser_reads_it(browser: dict[str, list[str]], name: str) -> None:
    wrong = [
        (hex(lead), hex(trail), got, wanted)
        for lead in range(0x80, 256)
        for trail, got in enumerate(decode(bytes([lead, trail]), name) for trail in range(256))
        if got != (wanted := browser[name][(lead - 0x80) * 256 + trail]) and (name, lead, trail) not in CHROMIUM_ERRS
    ]
    assert not wrong


def test_every_byte_of_the_other_encodings_is_read_as_a_browser_reads_it(browser: dict[str, list[str]]) -> None:
    for name in standard().single:
        assert [decode(bytes([byte]), name) for byte in range(256)] == browser[name], name


def pairs(codec: str) -> Iterator[tuple[bytes, str]]:
    for lead in range(0x80, 256):
        for trail in range(256):
            try:
                text = bytes([lead, trail]).decode(codec)
            except UnicodeDecodeError:
                continue
            if not any("\uf8f0" <= point <= "\uf8f3" for point in text):  # Apple's, for bytes that are none
                yield bytes([lead, trail]), text


@pytest.mark.parametrize(
    ("name", "codec", "apart"), [("shift_jis", "cp932", 0), ("euc-kr", "cp949", 0), ("euc-jp", "euc_jp", 6)]
)
def test_what_python_reads_by_the_windows_codecs_is_read_alike(name: str, codec: str, apart: int) -> None:
    """`apart`: dashes and signs that EUC-JP's pages wrote by Windows' table, `～` for JIS's wave dash."""
    unlike = [(data.hex(), text, decode(data, name)) for data, text in pairs(codec) if decode(data, name) != text]
    assert len(unlike) == apart, unlike[:20]


def test_characters_that_python_s_codecs_of_the_name_lack() -> None:
    for text, codec, label in (
        ("髙橋①番㈱山田～﨑㎏", "cp932", "Shift_JIS"),
        ("嗰個喺度咗啲嘅", "big5hkscs", "big5"),
        ("镕龍㐂€", "gb18030", "gb2312"),
        ("똠방각하 펲시콜라", "cp949", "euc-kr"),
    ):
        name = encoding_of(label)
        assert name
        assert decode(text.encode(codec), name) == text
    assert decode(b"\x80", "gbk") == "€"
    assert decode(b"\x83\xad\xa1", "windows-874") == "\x83ญก"
    assert decode(b"\xcf\xf0\xe8", "x-mac-cyrillic") == "ѕри"


@pytest.mark.parametrize(
    "name", [*TWO_BYTES, "iso-2022-jp", "utf-8", "utf-16le", "utf-16be", "windows-1252", "hz-gb-2312"]
)
def test_a_pair_that_fails_leaves_its_neighbours(name: str) -> None:
    """The byte behind a failed lead is read for itself where it is ASCII, so that no markup is swallowed."""
    if name in TWO_BYTES:
        lead = b"\xfe" if name != "shift_jis" else b"\xfc"
        assert decode(b"a" + lead + b"<b>", name).endswith("<b>")
    for data in (
        b"",
        b"\x81",
        b"\x81\x30",
        b"\x81\x30\x81",
        b"\x8f\xa1",
        b"\x1b$B\x24",
        b"\x1b",
        bytes(range(256)) * 3,
    ):
        assert isinstance(decode(data, name), str)


def test_iso_2022_jp_goes_from_state_to_state() -> None:
    text = "山の上、ｱｲｳ and ¥"
    assert decode("山の上".encode("iso2022_jp") + b" and", "iso-2022-jp") == "山の上 and"
    assert decode(b"\x1b(I\x31\x32\x1b(B a", "iso-2022-jp") == "ｱｲ a"
    assert decode(b"\x1b(J\\\x7e\x1b(B\\", "iso-2022-jp") == "¥‾\\"
    assert decode(b"\x1b$B-!\x1b(B", "iso-2022-jp") == "①"  # NEC's row 13
    assert decode(b"\x1b(B\x1b$B-!\x1b(B\x1b$B-!", "iso-2022-jp") == "①①"  # browsers mark the empty run in between
    assert decode(text.encode("iso2022_jp_3", "ignore"), "iso-2022-jp").startswith("山の上、")


def test_what_browsers_refuse_is_read() -> None:
    assert decode("中文网页".encode("hz"), "hz-gb-2312") == "中文网页"
    assert decode("한국어".encode("iso2022_kr"), "iso-2022-kr") == "한국어"


def test_labels_are_the_standard_s() -> None:
    known = {
        "latin1": "windows-1252", " UTF8 ": "utf-8", "x-sjis": "shift_jis", "GB2312": "gbk", "big5-hkscs": "big5",
        "ks_c_5601-1987": "euc-kr", "tis-620": "windows-874",
        "x-mac-ukrainian": "x-mac-cyrillic", "iso-8859-9": "windows-1254",
        "rot13": None, "": None, None: None, "utf-7": None, "unicode": "utf-16le",
    }  # fmt: skip
    assert {label: encoding_of(label) for label in known} == known


META = b"<meta charset=windows-1251>"


@pytest.mark.parametrize(
    "before",
    [
        b"<!-- <meta charset=gb2312> -->",
        b"<!-- > <meta charset=gb2312> -->",
        b"<script>var a = '<meta charset=gb2312>'</script>",
        b"<style>/* <meta charset=gb2312> */</style>",
        b"<title><meta charset=gb2312></title>",
        b"<noscript><meta charset=gb2312></noscript>",
        b'<meta name="description" content="text/html; charset=gb2312">',
        b"<meta name=description content='<meta charset=gb2312>'>",
        b"<link title='>' data-x=\"<meta charset=gb2312>\">",
        b"<meta http-equiv=refresh content='0; charset=gb2312'>",
        b"<meta charset=nonsense>",
        b"<html xmlns='a' lang=\"zh\"><head profile=x>" + b" " * 2000,
    ],
)
def test_a_declaration_counts_where_a_browser_finds_it(before: bytes) -> None:
    assert declared_inside(before + META) == "windows-1251"


def test_declarations_of_all_forms() -> None:
    for meta in (
        b'<META  CHARSET = "Shift_JIS" />',
        b"<meta http-equiv='Content-Type' content='text/html;charset=shift_jis'>",
        b"<meta content=\"charset='x-sjis'\" http-equiv=content-type>",
        b"<meta http-equiv=content-type content='charset=;'><meta content='charset = x-sjis' HTTP-EQUIV=content-type>",
        b"<meta charset=shift_jis charset=gbk>",
        b'<?xml version="1.0" encoding="shift_jis"?><html>',
    ):
        assert declared_inside(meta) == "shift_jis", meta
    assert declared_inside(b"<meta charset=utf-16>") == "utf-8"
    assert declared_inside(b"<body>" + META) is None
    assert declared_inside(b"<p>" + b"a" * 2000 + b"<p>" + META) is None
    assert declared_inside(b"<" * 70_000) is None


CHINESE = "北京是中华人民共和国的首都，有三千多年的历史，许多人住在这座城市里。"
JAPANESE = "日本の首都は東京です。多くの人々がこの町に住んでいて、毎日電車で通っています。"


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (CHINESE, "gb18030", "gb18030"),
        ("臺北是中華民國的首都，有許多歷史悠久的廟宇和夜市，很多人住在這裡。", "big5", "big5"),
        (JAPANESE, "cp932", "shift_jis"),
        (JAPANESE, "euc_jp", "euc-jp"),
        (JAPANESE, "iso2022_jp", "iso-2022-jp"),
        ("서울은 대한민국의 수도이며 많은 사람들이 살고 있는 도시입니다.", "cp949", "euc-kr"),
        ("Москва является столицей России, в ней живут миллионы людей.", "cp1251", "windows-1251"),
        ("Москва является столицей России, в ней живут миллионы людей.", "koi8_r", "koi8-u"),
        ("Größere Städte haben schöne Straßen und überall Bäume.", "cp1252", "windows-1252"),
    ],
)
def test_bytes_that_declare_nothing_are_told_by_what_they_say(text: str, codec: str, name: str) -> None:
    assert detected(text.encode(codec)) == name
    assert decode_page(text.encode(codec)) == (text, name)


def test_where_declaration_and_bytes_disagree() -> None:
    gbk = f"<p>{CHINESE}</p>"
    assert decode_page(b"\xff\xfe" + gbk.encode("utf-16le"), "gbk") == (gbk, "utf-16le")  # the mark goes first
    assert decode_page(gbk.encode("gbk"), "gbk")[1] == "gbk"
    assert decode_page(b"<meta charset=utf-8>" + gbk.encode("gbk"), "gb2312")[0].endswith(gbk)  # then the header
    assert decode_page(gbk.encode(), "gb2312") == (gbk, "utf-8")  # valid UTF-8 is no other charset by chance
    assert decode_page(gbk.encode("gbk"), "utf-8") == (
        gbk,
        "gb18030",
    )  # damaged nearly everywhere
    broken = gbk.encode()[:20] + b"\xff" + gbk.encode()[20:]
    assert decode_page(broken)[1] == "utf-8"
    assert decode_page(broken, "utf-8")[0].count("\ufffd") <= 3
    assert decode_page("<p>中文".encode("utf-16le"), "utf-16")[0] == "<p>中文"
    assert decode_page(b"<p>plain", "utf-16") == ("<p>plain", "utf-8")
    # Two characters of GBK that are valid UTF-8, too: what is declared stands.
    assert decode_page("摹".encode("gbk") + b"\n", "gbk")[1] == "gbk"
