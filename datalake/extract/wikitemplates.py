"""Templates that carry part of the sentence they stand in, rendered by name without their wiki.

Names and arguments as documented on the templates' own pages in English and Chinese Wikipedia. What isn't named here
renders as nothing. A template belongs here if its absence leaves a hole in the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Render = Callable[[list[str], dict[str, str]], str]

MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)


def _first(positional: list[str], named: dict[str, str]) -> str:
    return positional[0] if positional else named.get("1", named.get("text", ""))


def _second(positional: list[str], named: dict[str, str]) -> str:
    return positional[1] if len(positional) > 1 else named.get("text", named.get("2", ""))


def _last(positional: list[str], named: dict[str, str]) -> str:
    return positional[-1] if positional else ""


def _nothing(positional: list[str], named: dict[str, str]) -> str:
    return ""


def _convert(positional: list[str], named: dict[str, str]) -> str:
    """`{{convert|10|km|mi}}`: 10 km. Ranges `10|to|20|km` keep their words; what it converts to is left out."""
    joiners = {"to": " to ", "and": " and ", "or": " or ", "-": "–", "–": "–", "x": " × ", "by": " by ", "+/-": " ± "}
    if not positional:
        return ""
    out = positional[0]
    rest = positional[1:]
    while len(rest) >= 2 and rest[0] in joiners:
        out += joiners[rest[0]] + rest[1]
        rest = rest[2:]
    # `{{convert|5|ft|10|in}}`: a second measure of the same quantity
    if len(rest) >= 3 and re.fullmatch(r"[\d.,]+", rest[1]):
        return f"{out} {rest[0]} {rest[1]} {rest[2]}"
    return f"{out} {rest[0]}".strip() if rest else out


def _value(positional: list[str], named: dict[str, str]) -> str:
    """`{{val|1.23|e=6|u=m}}`: 1.23×10^6 m."""
    out = "".join(positional[:1])
    if len(positional) > 1 and positional[1]:
        out += f"±{positional[1]}"
    if named.get("e"):
        out += f"×10^{named['e']}"
    unit = named.get("u") or named.get("ul") or ""
    return f"{out} {unit}".strip()


def _date(positional: list[str], named: dict[str, str]) -> str:
    """Year, month, day in that order, as far as given: 3 May 1990."""
    numbers = [item for item in positional[:3] if re.fullmatch(r"\d{1,4}", item)]
    if not numbers:
        return " ".join(positional[:1])
    year = numbers[0]
    if len(numbers) == 1 or not 1 <= int(numbers[1]) <= 12:
        return year
    month = MONTHS[int(numbers[1]) - 1]
    return f"{int(numbers[2])} {month} {year}" if len(numbers) > 2 else f"{month} {year}"


def _as_of(positional: list[str], named: dict[str, str]) -> str:
    lead = named.get("alt")
    if lead:
        return lead
    word = "as of" if named.get("lc", "").lower() in ("y", "yes") else "As of"
    return f"{word} {_date(positional, named)}".strip()


def _fraction(positional: list[str], named: dict[str, str]) -> str:
    if len(positional) == 1:
        return f"1/{positional[0]}"
    if len(positional) == 2:
        return f"{positional[0]}/{positional[1]}"
    return f"{positional[0]} {positional[1]}/{positional[2]}" if positional else ""


def _list(positional: list[str], named: dict[str, str]) -> str:
    # the placeholder of a list's dash, as `datalake.extract.wikitext` writes it
    return "\n" + "\n".join(f"\ue000-\ue001{item}" for item in positional if item) + "\n"


def _in_line(positional: list[str], named: dict[str, str]) -> str:
    return ", ".join(item for item in positional if item)


def _plain_list(positional: list[str], named: dict[str, str]) -> str:
    return "\n" + (positional[0] if positional else named.get("1", "")) + "\n"


def _quote(positional: list[str], named: dict[str, str]) -> str:
    words = positional[0] if positional else named.get("text", named.get("quote", ""))
    who = positional[1] if len(positional) > 1 else named.get("author", named.get("sign", ""))
    return f"\n\n{words}\n" + (f"— {who}\n" if who else "") + "\n" if words else ""


def _circa(positional: list[str], named: dict[str, str]) -> str:
    return "c. " + " – ".join(positional[:2]) if positional else "c."


def _power(positional: list[str], named: dict[str, str]) -> str:
    return f"×10^{positional[0]}" if positional else ""


def _scripts(before: str) -> Render:
    return lambda positional, named: before + positional[0] if positional else ""


def _joined(between: str) -> Render:
    return lambda positional, named: between.join(item for item in positional if item)


def _constant(text: str) -> Render:
    return lambda positional, named: text


def _born_died(positional: list[str], named: dict[str, str]) -> str:
    """`{{bd|1900年|1月2日|1980年|3月4日|catIdx=..}}` of Chinese Wikipedia: （1900年1月2日－1980年3月4日）."""
    parts = [*positional, "", "", "", ""][:4]
    born, died = parts[0] + parts[1], parts[2] + parts[3]
    return f"（{born}－{died}）" if born or died else ""


def _money(symbol: str) -> Render:
    return lambda positional, named: symbol + positional[0] if positional else ""


def _linked(positional: list[str], named: dict[str, str]) -> str:
    """`{{link-en|本地|Foreign|显示}}`, `{{le|...}}`: what is shown, else the local title."""
    return named.get("d") or (positional[2] if len(positional) > 2 and positional[2] else _first(positional, named))


def _translation_link(positional: list[str], named: dict[str, str]) -> str:
    """`{{tsl|en|Foreign|本地|显示}}`: what is shown, else the local title, else the foreign one."""
    return next((item for item in reversed(positional[1:4]) if item), "")


_TABLE: dict[str, Render] = {}


def _add(names: str, render: Render) -> None:
    for name in names.split("|"):
        _TABLE[name.strip()] = render


_add("convert|cvt|conv", _convert)
_add("val|num|ntsh|physconst", _value)
_add(
    "formatnum|nts|number|rounddown|nowrap|nobr|nobreak|nobold|small|smaller|big|larger|mvar|math|var|mono|code|kbd",
    _first,
)
_add(
    "em|strong|strike|not a typo|sic|proper name|abbr|abbrv|tooltip|hover title|keypress|key press|samp|texttt", _first
)
_add("flag|flagcountry|flagu|flagicon text|country|noitalic|nihongo|nihongo2|nihongo3|ill|interlanguage link", _first)
_add("illm|link-interwiki|visible anchor|vanchor|anchor text|linktext|ship|chem name|gene|smallcaps|sc|sm", _first)
_add(
    "j|zhu|ruby|kana|hanzi|unicode|phonetic|angbr|nobold|resize1|asiantitle|tq|tooltip2|self|okina name|ipa link",
    _first,
)
_add("chem|chem2|chemf|gaps|mset", _joined(""))
_add("lang|langx|transl|transliteration|font color text|script|zh-lang|color box text|color|fontcolor", _second)
_add("resize|sort|wikt-lang|bo-textonly|vr|cite text|tooltip text", _last)
_add("as of", _as_of)
_add("start date|end date|date|birth date|death date|birth date and age|death date and age|dts|film date", _date)
_add("start date and age|bda|start-date|release date|launch date|dob|年月日|開始日期|开始日期|结束日期", _date)
_add("frac|fraction|sfrac|tfrac", _fraction)
_add("sqrt|radic", _scripts("√"))
_add("sub", _scripts("_"))
_add("sup|^", _scripts("^"))
_add("e|esp", _power)
_add("10^", _scripts("10^"))
_add("c.|circa|ca", _circa)
_add("unbulleted list|ubl|bulleted list|ordered list|plain list items|numbered list", _list)
_add("hlist|flatlist items|comma separated entries|and list", _in_line)
_add("plainlist|flatlist|columns-list|div col|colbegin|column|multicol list", _plain_list)
_add("quote|blockquote|cquote|quotation|rquote|quote box|引文|引用|cquote2", _quote)
_add("bd|生卒", _born_died)
_add("link-en|link-ja|link-de|link-fr|link-ru|link-ko|link-es|link-it|le|lj|ld|lf|internal link helper", _linked)
_add("tsl|translink", _translation_link)
_add("us$|usd|us dollar", _money("US$"))
_add("gbp|£", _money("£"))
_add("eur|€|euro", _money("€"))
_add("inr|indian rupee", _money("₹"))
_add("jpy|¥|cny|rmb", _money("¥"))
_add("snd|spnd|spaced ndash|spaced en dash|dash", _constant(" – "))
_add("ndash|en dash", _constant("–"))
_add("mdash|em dash|emdash", _constant("—"))
_add("spaced mdash", _constant(" — "))
_add("'|apostrophe|okina", _constant("'"))
_add("'s", _constant("'s"))
_add('"', _constant('"'))
_add("!|pipe", _constant("|"))
_add("=", _constant("="))
_add("·|•|middot|dot|bullet|*", _constant(" · "))
_add("nbsp|space|thinsp|thin space|hair space|hairsp|ns|pad", _constant(" "))
_add("pi", _constant("π"))
_add("times|x", _constant("×"))
_add("minus", _constant("−"))
_add("plusmn|±", _constant("±"))
_add("deg", _constant("°"))
_add("break|br|clear", _constant("\n"))
_add("ref|efn|sfn|cite|citation needed", _nothing)


def render_template(name: str, positional: list[str], named: dict[str, str]) -> str:
    """What a template shows in a sentence, or nothing.

    - `name`: as written, spaces made one; `positional` and `named`: its arguments, already rendered.
    """
    key = name.lower()
    if render := _TABLE.get(key):
        return render(positional, named)
    if key.startswith("formatnum:"):
        return name.partition(":")[2].strip()
    if key.startswith(("lc:", "uc:", "lcfirst:", "ucfirst:")):
        return name.partition(":")[2].strip()
    if key.startswith("lang-"):
        return positional[0] if positional else ""
    if re.fullmatch(r"link-[a-z]{2,3}", key):
        return _linked(positional, named)
    return ""
