"""What the default preset keeps for what it says, and what still goes: small inputs of each kind."""

from __future__ import annotations

import pytest

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.document import Document, document_id
from datalake.tables import RAW, to_table


def judged(text: str, language: str = "en", preset: str = "auto") -> tuple[list[str], str]:
    """(failed rules, kept text) of one page."""
    page = Document(
        document_id("s", language, text), text, "common_crawl", "u", language, 0.9, attributes={"group": ""}
    )
    config = CurateConfig.model_validate({"preset": preset})
    curation, kept = curate_batch(to_table([page], RAW), config)
    return curation["rules"].to_pylist()[0], "".join(kept["text"].to_pylist())


BRIDGE = """\
The old bridge at Ham was closed to traffic on Monday after engineers had found cracks in two of its piers.
"We have to look at every stone before anyone crosses it again," said the mayor, who lives on the other bank.
People who work at the mill now walk to the ford and back, which takes them most of an hour in good weather.
The council will vote on the cost of repairs in March, and the bishop has promised a third of what is needed.
A ferry may be had from the inn until then, but the boatman asks that nobody bring more than one cow at a time."""

MATCH = """\
Ham beat Eel Pie 3-1 (1-0) on Saturday, Jan. 12, 2008, to go 9-2-1 overall and 4-0 at home, where it lost on 11/3/07.
Ann Lee scored 25 points, took 11 rebounds and had 6 assists in 38 minutes; the guards shot 8-for-12 from 3-point range.
Kent (7-5, 2-2) got 17 points on 6-of-9 shooting, but was 11-of-24 at the line and lost the ball 19 times to Ham's 8.
"We were down 12-4, then 28-15, and we never got it under 5," the coach said after the 81-65 loss, its 3rd in 8 days.
Ham plays at No. 7 York (14-1) on Feb. 2; tickets are $5 to $12.50, and the 1,200-seat hall opens at 6:30."""

CHEMISTRY = """\
Benzene and the compounds that are made from it were called aromatic long before anyone knew why they are so stable.
Hückel's rule says that a flat ring with 4n + 2 electrons in its system is aromatic, where n is 0 or a whole number.
The set of values {2, 6, 10} is therefore the one that a student meets first, and rings with 4 or 8 are another case.
Of the heats of hydrogenation that were measured, that of benzene is lower by 36 kcal per mole than a diene's would be.
It is the difference that is called resonance energy, and it tells why the ring is kept in most of its reactions."""

CHINESE_NEWS = """\
“今年春节不放鞭炮，让老人和孩子们都能好好睡上一觉，这件事从我做起，同意的请在后面签上自己的名字。”
“我家楼下停着的汽车，去年除夕夜被鞭炮炸碎了玻璃，到现在也没有找到是谁干的，只好自己花钱换了一块。”
“过年不放鞭炮还叫什么过年，小时候最高兴的就是跟着父亲在院子里点炮仗，现在的孩子连这个都没有了。”
“大家都不放，那我进的这些货卖给谁去呢，今年的品种比去年还要多，仓库里已经堆得满满的了。”
“城里可以少放一些，到了乡下就随大家的意思好了，反正地方大，人也少，不会影响到别人。\u201d"""

CHINESE_SCHOLAR = """\
李慎言（1843年2月28日－1911年7月6日），字敬之（后改静之），号石泉，江苏省苏州府吴县（今苏州市）人，清末学者、藏书家。
1862年（同治元年）中秀才（第7名），1867年（同治六年）中举人（第23名），1871年（同治十年）进士（二甲第58名），授翰林院编修。
1884年（光绪十年）至1889年（光绪十五年）任浙江学政，其间主持重刻《石泉丛书》（12种，共48卷，1887年），校勘极精。
1898年（光绪二十四年）后辞官（一说1899年）归里，建“静远楼”（今不存）藏书，有书32,000余卷，其中宋本17种、元本41种。
著有《静远楼书目》（4卷，1901年）、《石泉文存》（6卷，1905年）、《吴县金石考》（2卷，未刊，稿本今藏苏州市图书馆）等。"""

WRAPPED = """\
The working group will produce a series of drafts that describe how
messages with sound and pictures are sent from one host to another,
and how a host that cannot show them says so to the one that sent
them. Comments are to be sent to the list, where a vote may be called
by anyone who has written to it before; whoever calls it then keeps the
archive of the draft and makes it known to all of those who have asked
for it, whether or not they have taken part in writing any part of it."""

SONNET = """\
Shall I compare thee to a summer's day?
Thou art more lovely and more temperate.
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date.
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimmed,
And every fair from fair sometime declines,
By chance or nature's changing course untrimmed.
But thy eternal summer shall not fade,
Nor lose possession of that fair thou ow'st,
Nor shall death brag thou wander'st in his shade."""


@pytest.mark.parametrize(
    ("language", "text"),
    [
        pytest.param("en", MATCH, id="news full of numbers"),
        pytest.param("en", CHEMISTRY, id="science with a curly bracket"),
        pytest.param("en", f"{BRIDGE}\n\n{BRIDGE.splitlines()[2]}", id="a paragraph twice"),
        pytest.param("en", f"{BRIDGE}\n\n{BRIDGE}", id="a body twice"),
        pytest.param("en", WRAPPED, id="hard-wrapped lines"),
        pytest.param("en", SONNET, id="verse"),
        pytest.param(
            "en", BRIDGE.replace(".\n", '."\n').replace("The", '"The'), id="lines that end in a quotation mark"
        ),
        pytest.param("zh", CHINESE_NEWS, id="paragraphs that end in a quotation mark"),
        pytest.param("zh", CHINESE_SCHOLAR, id="dates and brackets"),
        pytest.param("zh", CHINESE_NEWS + "\n" + CHINESE_NEWS.splitlines()[1], id="a Chinese paragraph twice"),
    ],
)
def test_text_that_says_something_is_kept(language: str, text: str) -> None:
    rules, kept = judged(text, language)
    assert rules == []
    assert kept.split() == text.split()


def test_a_japanese_paragraph_that_a_quotation_mark_closes_ends_in_a_sentence() -> None:
    lines = (
        "「橋は月曜日から通れなくなりましたが、渡し船は宿屋から出ていますので、どうぞ使ってください。」",
        "「石を一つずつ調べてからでなければ、だれも渡らせるわけにはいきません。」と村長は町の人に話した。」",
        "「水車小屋で働いている人たちは、浅瀬まで歩いて行って、また戻って来なければならないのです。」",
    )
    assert judged("\n".join(lines), "ja") == ([], "\n".join(lines))
    assert "min_line_punct" in judged("\n".join(lines), "ja", "fineweb2")[0]


MENU = "\n".join(
    ["Home", "News", "Sport", "Your account", "Terms of use and privacy", "About us and the team", "Jobs at the mill"]
    * 6
)
HEADLINES = "\n".join(
    f"- {name} to {what} of the {place} that {more} with its {last}"
    for name in ("Mayor", "Bishop", "Miller")
    for what, place, more, last in (
        ("speak", "bridge", "closed", "piers"),
        ("vote", "ford", "flooded", "cows"),
        ("hear", "inn", "burned", "beds"),
    )
)
TEASERS = "\n".join(f"{line[:90]}..." for line in (BRIDGE + "\n" + MATCH + "\n" + CHEMISTRY).splitlines())
STUFFED = " ".join(
    f"Buy the best shoes of {city} and have the best shoes to wear with you." for city in ("Ham", "Kent") * 20
)
CHINESE_SHOP = "\n".join(
    f"{name}{k}号 特价{k}9元 包邮 正品 厂家直销 联系电话 0312-55{k}014"
    for name in ("办公椅", "折叠沙发")
    for k in range(10, 22)
)
CHINESE_TEASERS = "\n".join(f"{line[1:34]}..." for line in CHINESE_NEWS.splitlines() * 2)
TABLE = "\n".join(f"{k} | N | E | {k * 7 % 10} | {k * 3}.{k} | {k * 13} kg | {k}-{k + 1}" for k in range(40))


@pytest.mark.parametrize(
    ("language", "text", "rule"),
    [
        pytest.param("en", MENU, "min_prose", id="menu"),
        pytest.param("en", HEADLINES, "min_prose", id="headlines"),
        pytest.param("en", TEASERS, "min_prose", id="teasers"),
        pytest.param("en", STUFFED, "dup_10gram", id="key words"),
        pytest.param("en", TABLE, "min_alpha_words", id="table of numbers"),
        pytest.param("en", "\n".join([BRIDGE.splitlines()[0]] * 9), "max_char_dup", id="one line again and again"),
        pytest.param("en", BRIDGE.splitlines()[0], "min_words", id="a sentence alone"),
        pytest.param("zh", CHINESE_SHOP, "min_prose", id="Chinese shop"),
        pytest.param("zh", CHINESE_TEASERS, "min_prose", id="Chinese teasers"),
    ],
)
def test_what_says_nothing_still_goes(language: str, text: str, rule: str) -> None:
    rules, kept = judged(text, language)
    assert rule in rules
    assert not kept


def test_lines_about_javascript_are_kept_and_notices_of_it_are_not() -> None:
    lesson = (
        "In JavaScript a function is a value like any other, so that it can be given to another function and called"
        " by it later, when the data has come."
    )
    notices = ("Please enable JavaScript to see this page.", "This site uses cookies.", "Follow us")
    rules, kept = judged("\n".join((*notices, BRIDGE, lesson, "It is written f = { x: 1 } there.")))
    assert rules == []
    assert kept == "\n".join((BRIDGE, lesson, "It is written f = { x: 1 } there."))
