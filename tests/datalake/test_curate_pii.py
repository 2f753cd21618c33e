"""Personal data: what is found, what is not, held to check digits and authorities worked out another way."""

from __future__ import annotations

import ipaddress
import random
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.checks.pii import card_number, find, placeholder, redact, resident_number
from datalake.curate.checks.pii_config import KINDS

FOUND = {
    "email": [
        "foo.bar+x@gmail.com", "a_b@mail.example-host.co.uk", "联系邮箱:zhang@qq.com请注明", "<JOHN@CORP.COM>",
        "见zhang＠163．com。", "mailto:first.last@uni-mainz.de?subject=x", "(x1@y2.org)", "me@site.com.",
    ],
    "phone": [
        "+44 20 7946 0958", "+1 (212) 555-0123", "+49 (0)30 1234567", "+33 1 23 45 67 89", "+86 138 1234 5678",
        "+86-10-62345678", "(212) 555-0123", "212-555-0123", "212.555.0123", "1-800-555-0199", "(212)555-0123",
        "电话13812345678，", "手机：138-1234-5678", "手机 138 1234 5678", "8613812345678", "0086 13812345678",
        "（010）62345678", "010-62345678", "0571-8765 4321", "电话：０１０－６２３４５６７８", "021 – 62345678",
        "86-10-62345678", "电话 010 65123456", "0571 87654321",
    ],
    "ip": [
        "93.184.216.34", "http://93.184.216.34:8080/x", "[2606:4700:4700::1111]:53",
        "2001:4860:4860:0:0:0:0:8888.", "8.8.4.114", "host 12.34.56.78", "12.34.56.78:8080",
        "http://12.34.56.78/x", "34.56.78.0/24", "IP地址：12.34.56.78",
    ],
    "ssn": [
        "078-05-1121", "SSN: 219-09-9998.", "665-01-0001", "899-99-9999",
    ],
    "resident_id": [
        "11010519491231002X", "身份证号11010519491231002x，", "110105 19491231 002X",
    ],
    "card": [
        "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "3782 822463 10005", "6212345678901232",
        "1990 1991 4111 1111 1111 1111 12/27",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819 is", "IBAN:FR1420041010050500013M02606",
    ],
}  # fmt: skip
NOT_FOUND = [
    # versions, sections, dates, times, prices, figures
    "MongoDB 4.4.2.11", "the ratio 3.14.15.9", "upgrade from 12.4.11.2 to 12.5.0.31",
    "v1.2.3.4", "version 10.20.30.40", "Chrome/120.0.6099.109", "Section 4.2.1.3", "nginx-1.18.0.12", "1.2.3.4",
    "Firefox 2.0.0.16", "2019-05-01 12:30:45", "2019年5月1日", "20190501123045", "12/05/2019", "1,234,567,890",
    "$2125550123", "¥13812345678", "0.13812345678", "3.14159265358979", "13812345678.50",
    "1990 1991 1992 1993 1994", "2019-2020-2021-2022",
    # books, orders, bar codes, accounts of other kinds
    "ISBN 978-7-111-12345-6", "ISBN 0-306-40615-2", "9787111123453", "4006381333931", "订单号202401011234567890",
    "1699999999999", "tracking 1Z999AA10123456784", "a13812345678b", "id_13812345678", "138123456789",
    "913812345678", "https://shop.com/item/13812345678.html", "www.x.com/?id=4111111111111111", "DOI 10.1000/182",
    "RFC 2616-1999",
    # check digits, authorities
    "110105194912310021", "11010519491331002X", "990105194912310021", "4111 1111 1111 1112",
    "DE89 3704 0044 0532 0130 01", "1234567890123456", "000-12-3456", "666-12-3456", "123-00-4567", "912-34-5678",
    "078-05-0000", "123-45-67890", "10.0.0.1", "192.168.1.10", "127.0.0.1", "203.0.113.7", "256.1.1.300",
    "93.184.216.034", "fe80::1", "2001:db8::1", "+999 1234 56789", "+1 111 111 1111", "+86 12345", "911-555-0123",
    "123-456-7890", "212-155-0123", "212-555-01234", "5-212-555-0123", "212-555-0123-4", "GMT+0800",
    "x+12345678901", "+45.20 1234.50 2.3", "+31.5 (2.1) 45.3 1000",
    # amounts
    "13800000000元", "18500000000 美元", "13812345678円",
    # at signs
    "@user", "user@host", "foo@bar..com", "git@github.com:a/b.git", "icon@2x.png", "me@example.com",
    "jquery@3.7.1", "core@1.0.0-beta.alpha", "@decorator", "a@@b.com", ".@x.com", "std::string a::b", "3::5", "::",
    "12:30:45", "aa:bb:cc:dd:ee:ff",
]  # fmt: skip


def iban(text: str) -> bool:
    return [(span.start, span.end) for span in find(text, ("iban",))] == [(0, len(text))]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_what_is_personal_is_found_whole_and_alone(kind: str, text: str) -> None:
    for around in ("{}", "see {} there", "请看{}。", "（{}）", "\n{}\n"):
        found = find(around.format(text))
        assert [span.kind for span in found] == [kind], found
        left, right = around.split("{}")
        clean = redact(around.format(text), found)
        assert clean.startswith(left)
        assert clean.endswith(right)
        assert not re.search(r"\d{5}|[@＠]", clean)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    for around in ("{}", "see {} there", "请看{}。"):
        assert find(around.format(text)) == []


def test_placeholders_stand_in_their_places() -> None:
    text = "写信给zhang@qq.com或打13812345678。卡号 4111 1111 1111 1111, 身份证11010519491231002X, ip 93.184.216.34"
    assert redact(text, find(text)) == "写信给<EMAIL>或打<PHONE>。卡号 <CARD>, 身份证<RESIDENT_ID>, ip <IP>"
    assert redact(text, find(text, ("ip",))) == text.replace("93.184.216.34", "<IP>")
    assert find(text, ()) == []
    assert [find(placeholder(kind)) for kind in KINDS] == [[]] * len(KINDS)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("+1 212 555 0123 24 hours", "<PHONE> 24 hours"),
        ("+1 (212) 555-0123 2019", "<PHONE> 2019"),
        ("+86 571 8765 4321 24", "<PHONE> 24"),
        ("13812345678元旦休息", "<PHONE>元旦休息"),
    ],
)
def test_what_stands_behind_a_number_neither_hides_it_nor_goes_with_it(text: str, clean: str) -> None:
    assert redact(text, find(text)) == clean


def test_of_finds_that_overlap_the_one_with_check_digits_is_taken() -> None:
    card = next(n for n in range(6212121255501230, 6212121255501240) if card_number(str(n)))
    assert [span.kind for span in find(f"{card}")] == ["card"]
    assert [s.kind for s in find("11010519491231002X", ("phone", "card"))] == []


def luhn(digits: str) -> bool:
    table = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    return sum(table[int(d)] if k % 2 else int(d) for k, d in enumerate(digits[::-1])) % 10 == 0


def test_check_digits_are_those_of_their_standards() -> None:
    draw = random.Random(1)
    for _ in range(2000):
        digits = "51" + "".join(draw.choices("0123456789", k=14))
        assert card_number(digits) == luhn(digits)
        body = "110105" + f"{draw.randrange(1900, 2020)}0{draw.randrange(1, 10)}1{draw.randrange(10)}"
        body += f"{draw.randrange(1000):03}"
        # ISO 7064: the sum of digits by powers of 2, check character included, is 1 modulo 11.
        right = [
            c
            for c in "0123456789X"
            if (sum(int(d) * pow(2, 17 - k, 11) for k, d in enumerate(body)) + "0123456789X".index(c)) % 11 == 1
        ]
        assert [c for c in "0123456789X" if resident_number(body + c)] == right
        bban = "".join(draw.choices("0123456789", k=18))
        check = 98 - int(bban + "131400") % 97  # D is 13, E is 14
        assert [k for k in range(2, 99) if iban(f"DE{k:02}{bban}")] == [check]


# Digits that cards begin with, at both ends of every issuer's range and right outside (ISO/IEC 7812), and how many
# digits they have.
CARDS = {
    **{"4": (13, 16, 19), "50": (), "51": (16,), "55": (16,), "56": (), "2220": (), "2221": (16,), "2720": (16,)},
    **{"2721": (), "33": (), "34": (15,), "37": (15,), "6010": (), "6011": (16, 19), "6012": (), "643": ()},
    **{"644": (16, 19), "659": (16, 19), "66": (), "299": (), "300": (14,), "305": (14,), "306": (), "36": (14,)},
    **{"38": (14, 16), "39": (14, 16), "3527": (), "3528": (16, 19), "3589": (16, 19), "3590": ()},
    **{"61": (), "62": (16, 17, 18, 19), "2199": (), "2200": (16,), "2204": (16,), "2205": ()},
}


@pytest.mark.parametrize(("begin", "lengths"), CARDS.items())
def test_a_card_is_one_that_an_issuer_issues_in_this_length(begin: str, lengths: tuple[int, ...]) -> None:
    draw, found = random.Random(2), []
    for length in range(12, 21):
        body = begin + "".join(draw.choices("12345678", k=length - 1 - len(begin)))
        numbers = [f"{body}{k}" for k in range(10) if luhn(f"{body}{k}")]
        found += [length for number in numbers if card_number(number)]
    assert found == list(lengths)


def test_a_resident_number_begins_with_a_province_and_holds_a_day_of_the_calendar() -> None:
    def number(area: str, day: str) -> str:
        body = f"{area}0105{day}002"
        total = sum(int(d) * pow(2, 17 - k, 11) for k, d in enumerate(body))
        return body + next(c for k, c in enumerate("0123456789X") if (total + k) % 11 == 1)

    provinces = [*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66)]
    provinces += [71, 81, 82, 83]
    assert [k for k in range(100) if resident_number(number(f"{k:02}", "19491231"))] == provinces
    days = ["20240229", "20230229", "19000229", "19491301", "19490931", "19490930"]
    assert [day for day in days if resident_number(number("11", day))] == ["20240229", "19490930"]


def test_neither_a_figure_repeated_nor_a_bar_code_is_a_card() -> None:
    assert not any(card_number(digit * length) for digit in "0123456789" for length in range(12, 21))
    codes = [f"4{k:012}" for k in range(10_000) if luhn(f"4{k:012}")]
    weights = (1, 3) * 6 + (1,)
    bars = {code for code in codes if sum(w * int(d) for w, d in zip(weights, code, strict=True)) % 10 == 0}
    assert {code for code in codes if not card_number(code)} == bars
    assert 50 < len(bars) < len(codes)


# Examples of the ISO 13616 registry.
IBANS = """
    NO9386011117947 BE68539007547034 DK5000400440116243 FI2112345600000785 NL91ABNA0417164300 AT611904300234573201
    LU280019400644750000 CH9300762011623852957 GB29NWBK60161331926819 IE29AIBK93115212345678 GE29NB0000000101904917
    AE070331234567890123456 IL620108000000099999999 ES9121000418450200051332 SE4550000000058398257466
    SA0380000000608010167519 CZ6508000000192000145399 PT50000201231234567890154 TR330006100519786457841326
    FR1420041010050500013M02606 IT60X0542811101000000123456 GR1601101250000000012300695 PL61109010140000071219812874
    HU42117730161111101800000000 BR9700360305000010009795493P1 QA58DOHB00001234567890ABCDEFG
    KW81CBKU0000000000001234560101 MT84MALT011000012345MTLCAST001S LC55HEMM000100010012001200023015
""".split()  # noqa: SIM905


@pytest.mark.parametrize("example", IBANS)
def test_the_registrys_examples_are_ibans_and_of_no_other_length(example: str) -> None:
    assert iban(example)
    assert [span[:2] for span in find(f"an {example} x")] == [(3, 3 + len(example))]
    for body in (example[4:-1], example[4:] + "0"):
        figures = "".join(str(int(c, 36)) for c in f"{body}{example[:2]}00")
        assert not iban(f"{example[:2]}{98 - int(figures) % 97:02}{body}"), "right check digits, wrong length"


@settings(max_examples=300)
@given(st.ip_addresses())
def test_addresses_are_those_that_are_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    text = f"IP <{address}>"  # a word for it, since one without three figures is most often a version
    public = address.is_global and not address.is_multicast
    if isinstance(address, ipaddress.IPv4Address):
        public &= len(str(address)) > 7 and ".0.0." not in str(address)
    else:
        public &= address in ipaddress.ip_network("2000::/3")
    found = [text[s.start : s.end] for s in find(text, ("ip",))]
    assert found == ([str(address)] if public else [])


PIECES = st.sampled_from(
    ["a@b.com", "@", "+", "::", "(", ")", "-", " ", ".", "1", "13812345678", "4111 1111 1111 1111", "2001:", "DE89",
     "\ud800", "\U0001f600", "ش", "１", "。", "\n", "X", "x", "93.184.216.34", "0571-87654321", "\x00", "0" * 40]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(PIECES, max_size=30).map("".join) | st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text_has_spans_in_order_and_none_is_left_after_redaction(text: str) -> None:
    spans = find(text)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    clean = redact(text, spans)
    places = [0, *(place for span in spans for place in span[:2]), len(text)]
    kept = [text[a:b] for a, b in zip(places[::2], places[1::2], strict=True)]
    stand_ins = [*(placeholder(span.kind) for span in spans), ""]
    assert clean == "".join(part + stand_in for part, stand_in in zip(kept, stand_ins, strict=True))
    for kind in KINDS:  # each by itself is in what all find, or overlaps with it
        for span in find(text, (kind,)):
            assert any(span.start < other.end and other.start < span.end for other in spans)


@pytest.mark.parametrize(
    "piece", ["1 ", "a@", "@", "1", "1.", "::", "2::", "+1", "(", "a@a.", "AA11", "word ", "138 1234 5678 "]
)
def test_long_lines_take_seconds_at_most(piece: str) -> None:
    text = piece * (2_000_000 // len(piece))
    find("warm up 1")
    begin = time.process_time()
    find(text)
    assert time.process_time() - begin < 30


# What public reports against other tools took for personal data (stringlifier, ZAP, Presidio), and what they missed.
NOTHING = [
    "Please upgrade the package to 10.4.31.9 before the audit, as MongoDB 4.4.2.11 does.",
    "Firmware 3.18.204.7 fixed it; Chrome/120.0.6099.71 and Edge 120.0.2210.91 did not.",
    "See section 12.4.11.2 of the manual and OID 1.3.6.1.4.1.311.21.20 in the certificate.",
    "ISBN 978-3-16-148410-0 and ISSN 2049-3630, doi 10.1000/182, arXiv:2101.00027v1.",
    "Order 4929-1830-2211-7788-9 was shipped on 2023-10-05 14:48:00+0800, tracking 1Z999AA10123456784.",
    "The event began at 20231005T144800Z and ended 1696517280000 milliseconds later.",
    "At 48.8584 N, 2.2945 E the tower stands; bounding box +45.2031 +12.3344 +46.0021 +13.1120.",
    "The hash is 3f2504e0-4f89-11d3-9a0c-0305e82c3301 and the commit 9fceb02d0ae598e95dc970b74767f19372d61af8.",
    "Use npm i lodash@4.17.21 and git clone git@git.example.org:team/repo.git, decorators @app.route, @2x.png.",
    "Population 12 345 678 in 2020, 1 234 567 890 dollars, 100.200.300 items, score 21-15 21-18.",
    "IPv6 loopback ::1, 2001:db8::1 for documentation, fe80::1%eth0, time 12:34:56:78, C++ std::vector::iterator.",
    "The ratio 3.14.15.9 is no address, nor are 192.168.1.17 and 10.0.0.5 and 127.0.0.1.",
    "电话会议在2023年10月5日14:48举行，编号20231005144800123，价格13800元，身份证号码格式为18位。",
]
SOMETHING = {
    "Write to jan.example-person@mail.valley-town.org or +44 20 7946 0018 for the keys.": ["email", "phone"],
    "Call (212) 664-7665 or 1-415-731-0102 before noon.": ["phone", "phone"],
    "请拨打13812345678或010-62345678联系。": ["phone", "phone"],
    "The visitor came from 203.104.153.9 and 2a00:1450:4001:81b::200e.": ["ip", "ip"],
    "The requests came from 54.12.33.41, and the IP 54.12.33.42 answered; (54.12.33.43)": ["ip", "ip", "ip"],
    "Follow @keeper@social.valley-town.org for the levels.": ["email"],
    '<a href="mailto:keeper@valley-town.org?subject=Hi">mail</a>': ["email"],
    "联系邮箱：keeper＠valley-town．org": ["email"],
    "Card 4111 1111 1111 1111 and IBAN DE89 3704 0044 0532 0130 00.": ["card", "iban"],
    "SSN 078-05-1121 is on file.": ["ssn"],
}


@pytest.mark.parametrize("text", NOTHING)
def test_versions_identifiers_and_times_are_nobodys(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize("text", SOMETHING)
def test_what_reports_call_missed_is_found(text: str) -> None:
    assert sorted(span.kind for span in find(text)) == sorted(SOMETHING[text])
