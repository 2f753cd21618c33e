"""Templates that carry part of the sentence they stand in, rendered by name without their wiki.

Names and arguments as documented on the templates' own pages in the wikis of their languages. A template belongs here
if what it shows differs from its arguments as they stand, which is what `wikiwords` leaves of one that isn't named
here; which are dropped most often `benchmarks/wikipedia.py --dropped` prints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from datalake.extract.wiki.chinese import END, KEEP
from datalake.extract.wiki.formatting import SCRIPTS, SUB, SUB_END, SUP, SUP_END
from datalake.extract.wiki.functions import function
from datalake.extract.wiki.names import COUNTRIES, chinese, former_date, is_ship, junction, ordinal, ship, ship_class
from datalake.extract.wiki.units import convert


class Context(NamedTuple):
    """Where a template stands: its page's title, wiki's language, revision's time; whether infoboxes are kept."""

    title: str = ""
    language: str = "en"
    when: datetime | None = None
    infoboxes: bool = False


Render = Callable[[list[str], dict[str, str], Context], str]

MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_ENGLISH = ("en", "simple")
_YES = ("y", "yes", "on", "1", "true")


def _first(positional: list[str], named: dict[str, str], context: Context) -> str:
    return positional[0] if positional else named.get("1", named.get("text", ""))


def _second(positional: list[str], named: dict[str, str], context: Context) -> str:
    if len(positional) > 1:
        return positional[1]
    return next((named[key] for key in ("text", "2", "texte", "texto", "testo") if named.get(key)), "")


def _second_or_first(positional: list[str], named: dict[str, str], context: Context) -> str:
    return next((item for item in (*positional[1:2], *positional[:1]) if item), "")


def _third(positional: list[str], named: dict[str, str], context: Context) -> str:
    return positional[2] if len(positional) > 2 else ""


def _last(positional: list[str], named: dict[str, str], context: Context) -> str:
    return positional[-1] if positional else ""


def _nothing(positional: list[str], named: dict[str, str], context: Context) -> str:
    return ""


def _foreign(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{lang|ja|日本語}}`: the words alone, which Chinese script conversion leaves as they are."""
    words = _second(positional, named, context)
    return _kept(words) if positional and not positional[0].startswith("zh") else words


def _kept(words: str) -> str:
    return f"{KEEP}{words}{END}" if words and not re.search("[\n\ue000\ue004\ue005]", words) else words


def _convert(positional: list[str], named: dict[str, str], context: Context) -> str:
    return convert(_level(positional), named, context.language in _ENGLISH)


def _level(items: list[str]) -> list[str]:
    """Names of units as `convert` knows them: m2 of m<sup>2</sup>."""
    return [SCRIPTS.sub("", item) for item in items]


def _convert_short(positional: list[str], named: dict[str, str], context: Context) -> str:
    return convert(_level(positional), named, context.language in _ENGLISH, short=True)


def _person(unit: str) -> Render:
    """`{{height|ft=5|in=10}}`, `{{height|m=1.8}}`, `{{weight|kg=70}}`."""

    def render(positional: list[str], named: dict[str, str], context: Context) -> str:
        measures = [(key, named[key]) for key in ("ft", "in", "m", "cm", "kg", "lb", "st") if named.get(key)]
        items = [item for key, value in measures for item in (value, key)]
        if len(measures) == 1 and measures[0][0] in ("m", "cm"):
            items.append("ftin")
        return convert(items or positional, {}, False, short=True)

    return render


def _value(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{val|1234.5|0.2|e=6|u=m}}`: (1,234.5±0.2)×10^6 m."""
    out = _thousands("".join(positional[:1]))
    if len(positional) > 2 and positional[1] and positional[2]:
        out += f" +{positional[1].lstrip('+')}/−{positional[2].lstrip('-−')}"
    elif len(positional) > 1 and positional[1] and not positional[1][-1].isdecimal() and positional[1][0] != "(":
        out += f" {positional[1]}"
    elif len(positional) > 1 and positional[1]:
        out += positional[1] if positional[1].startswith("(") else f"±{positional[1]}"
    if named.get("e"):
        out = f"({out})×10^{named['e']}" if "±" in out else f"{out}×10^{named['e']}" if out else f"10^{named['e']}"
    unit = named.get("u") or named.get("ul") or ""
    per = named.get("up") or named.get("upl") or ""
    before, after = named.get("p", ""), named.get("s", "")
    return f"{before}{out}{after} {unit}{'/' + per if per else ''}".strip()


def _thousands(number: str) -> str:
    if not re.fullmatch(r"-?\d{5,300}(?:\.\d+)?", number):
        return number
    whole, dot, decimals = number.partition(".")
    return f"{int(whole):,}{dot}{decimals}"


def _format_number(positional: list[str], named: dict[str, str], context: Context) -> str:
    number = _first(positional, named, context)
    if context.language in (*_ENGLISH, "zh", "ja", "ko", "th", "he"):
        number = _thousands(number)
    unit = positional[1] if len(positional) > 1 else ""
    return number if not unit or unit in ("R", "NOSEP") or unit[0].isdecimal() else f"{number} {unit}"


def _country(code: str, context: Context) -> str | None:
    """`{{USA}}`: the country's name on an English wiki, its code on others."""
    return (COUNTRIES[code] if context.language in _ENGLISH else code) if code in COUNTRIES else None


# Quotation marks by language; others have those of English.
_MARKS = {
    "de": "„“", "bg": "„“", "cs": "„“", "sk": "„“", "is": "„“", "fr": ("« ", " »"), "ru": "«»", "uk": "«»", "es": "«»",
    "it": "«»", "pt": "«»", "ca": "«»", "no": "«»", "el": "«»", "fa": "«»", "ar": "«»", "pl": "„”", "nl": "„”",
    "hu": "„”",
    "ro": "„”", "sv": "””", "fi": "””", "ja": "「」", "he": "„”",
}  # fmt: skip


def _said(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{"|words}}` in a line: the words in quotation marks; a quotation of its own where it names who said it."""
    words = (positional[0] if positional else "") or named.get("Text", "") or named.get("text", "")
    if not words:
        return '"'
    who = (positional[1] if len(positional) > 1 else "") or named.get("Autor", "") or named.get("autor", "")
    opened, closed = _MARKS.get(context.language, "“”")
    words = words if words[0] in '„“«"「' else f"{opened}{words}{closed}"
    return f"\n\n{words}\n— {who}\n\n" if who and not positional else f"{words} ({who})" if who else words


def _tag_name(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{tag|ref}}`: the tag as it is written."""
    name, form = [*positional, "", ""][:2]
    whole = {"open": f"<{name}>", "o": f"<{name}>", "close": f"</{name}>", "c": f"</{name}>", "single": f"<{name} />"}
    return whole.get(form, f"<{name}>{named.get('content', '...')}</{name}>") if name else ""


def _span_of_years(before: str) -> Render:
    """`{{reign|1901|1931}}`: r. 1901–1931."""
    return lambda positional, named, context: f"{before} " + "–".join(item for item in positional[:2] if item)


def _either(positional: list[str], named: dict[str, str], context: Context) -> str:
    """The label where there is one, else the title: `{{w|nuclear weapon|nuclear weapons}}`."""
    shown = (positional[1] if len(positional) > 1 else "") or _first(positional, named, context)
    return shown or named.get("текст", "") or named.get("надо", "")


def _before(text: str) -> Render:
    """`{{Mme|Ida}}`: Mme Ida."""
    return lambda positional, named, context: " ".join([text, *positional[:1]]).strip()


_CODE = re.compile("[a-z]{2,3}")


def _is_number(text: str) -> bool:
    """Whether a text is a whole number of a length that numbers have."""
    return text.isdecimal() and len(text) < 10


def _is_month(text: str) -> bool:
    return _is_number(text) and 1 <= int(text) <= 12


def _day(year: str, month: str, day: str, day_first: bool, context: Context) -> str:
    """A date as the language writes it; what isn't a number stays as it is."""
    numbers = _is_month(month)
    if context.language in ("zh", "ja") and numbers:
        return f"{year}年{int(month)}月" + (f"{int(day)}日" if _is_number(day) else "")
    if context.language == "ko" and numbers:
        return f"{year}년 {int(month)}월" + (f" {int(day)}일" if _is_number(day) else "")
    if context.language not in _ENGLISH and numbers:
        return ".".join(part for part in (day, month, year) if part) if day else f"{month}/{year}"
    name = MONTHS[int(month) - 1] if numbers else month
    if not name:
        return year
    if not day:
        return f"{name} {year}".strip()
    day = str(int(day)) if _is_number(day) else day
    return f"{day} {name} {year}".strip() if day_first else f"{name} {day}, {year}"


def _date(positional: list[str], named: dict[str, str], context: Context) -> str:
    """Year, month, day in that order, as far as given: May 3, 1990, or 3 May 1990 with `df=y`."""
    items = [item for item in positional[:3] if item]
    if not items or not re.fullmatch(r"-?\d{1,4}", items[0]):
        return " ".join(positional[:1])
    day_first = named.get("df", "").lower() in _YES
    year, month, day = [*items, "", ""][:3]
    return _day(year, month, day, day_first, context)


def _words_of_date(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{date|19|janvier|2000}}` and `{{date de naissance|11|novembre|1866}}`: the parts in their order."""
    if len(positional) > 1 and not positional[0]:
        positional = positional[1:]
    months = "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()  # noqa: SIM905
    parts = [item for item in positional[:3] if item]
    if len(parts) == 3 and _is_month(parts[1]):
        parts[1] = months[int(parts[1]) - 1]
    return " ".join(["1er" if part == "1" else part for part in parts])


def _years(start: list[str], end: list[str]) -> int | None:
    """Full years between two dates of year, month, day."""
    try:
        begin = [int(part) for part in start[:3]]
        until = [int(part) for part in end[:3]]
    except ValueError:
        return None
    begin, until = [*begin, 1, 1][:3], [*until, 1, 1][:3]
    return until[0] - begin[0] - (until[1:] < begin[1:])


def _age_words(years: int | None, word: str, context: Context) -> str:
    if years is None or not 0 <= years < 130:
        return ""
    if context.language == "zh":
        return f"（{years}岁）"
    return f" ({word} {years})" if context.language in _ENGLISH else f" ({years})"


def _now(context: Context) -> list[str]:
    return [str(context.when.year), str(context.when.month), str(context.when.day)] if context.when else []


def _birth_and_age(positional: list[str], named: dict[str, str], context: Context) -> str:
    """The date and, at the time of the revision, the age."""
    years = _years(positional, _now(context)) if context.when and positional else None
    return _date(positional, named, context) + _age_words(years, "age", context)


def _death_and_age(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{death date and age|2000|1|2|1920|3|4}}`: January 2, 2000 (aged 79)."""
    years = _years(positional[3:6], positional[:3]) if len(positional) >= 6 else None
    return _date(positional[:3], named, context) + _age_words(years, "aged", context)


def _age(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{age|1990|5|3|2000|1|1}}`; without an end, at the time of the revision."""
    end = positional[3:6] if len(positional) > 3 else _now(context)
    years = _years(positional[:3], end) if positional and end else None
    return "" if years is None else str(years)


def _as_of(positional: list[str], named: dict[str, str], context: Context) -> str:
    if lead := named.get("alt"):
        return lead
    word = "as of" if named.get("lc", "").lower() in _YES else "As of"
    if named.get("since", "").lower() in _YES:
        word = "since" if word == "as of" else "Since"
    return f"{word} {_date(positional, {'df': named.get('df', 'y')}, context)}{named.get('post', '')}".strip()


def _fraction(positional: list[str], named: dict[str, str], context: Context) -> str:
    if len(positional) == 1:
        return f"1/{positional[0]}"
    if len(positional) == 2:
        return f"{positional[0]}/{positional[1]}"
    return f"{positional[0]} {positional[1]}/{positional[2]}" if positional else ""


def _list(positional: list[str], named: dict[str, str], context: Context) -> str:
    # the placeholder of a list's dash, as `datalake.extract.wiki.wikitext` writes it
    return "\n" + "\n".join(f"\ue000-\ue001{item}" for item in positional if item) + "\n"


def _in_line(positional: list[str], named: dict[str, str], context: Context) -> str:
    return ", ".join(item for item in positional if item)


def _plain_list(positional: list[str], named: dict[str, str], context: Context) -> str:
    body = next((item for item in positional if "\n" in item), "") or _first(positional, named, context)
    return "\n" + (body or named.get("תוכן", named.get("nombre", ""))) + "\n"


_QUOTED = ("text", "quote", "Text", "texte", "texto", "testo", "текст", "tekst", "1", "cita", "content", "متن")
_AUTHORS = ("author", "sign", "Autor", "autor", "auteur", "autore", "автор", "by", "source", "2")


def _quote(positional: list[str], named: dict[str, str], context: Context) -> str:
    words = positional[0] if positional else next((named[key] for key in _QUOTED if named.get(key)), "")
    who = positional[1] if len(positional) > 1 else next((named[key] for key in _AUTHORS if named.get(key)), "")
    return f"\n\n{words}\n" + (f"— {who}\n" if who else "") + "\n" if words else ""


def _circa(positional: list[str], named: dict[str, str], context: Context) -> str:
    return "c. " + " – ".join(positional[:2]) if positional else "c."


def _scripts(before: str, after: str = "") -> Render:
    return lambda positional, named, context: before + positional[0] + after if positional and positional[0] else ""


def _joined(between: str) -> Render:
    return lambda positional, named, context: between.join(item for item in positional if item)


def _constant(text: str) -> Render:
    return lambda positional, named, context: text


def _or(text: str) -> Render:
    """The first argument, else a text."""
    return lambda positional, named, context: (positional[0] if positional else "") or text


def _born_died(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{bd|1900年|1月2日|1980年|3月4日|catIdx=..}}` of Chinese Wikipedia: （1900年1月2日－1980年3月4日）."""
    parts = [*positional, "", "", "", ""][:4]
    born, died = parts[0] + parts[1], parts[2] + parts[3]
    return f"（{born}－{died}）" if born or died else ""


def _money(symbol: str) -> Render:
    return lambda positional, named, context: symbol + positional[0] if positional and positional[0] else symbol


def _linked(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{link-en|本地|Foreign|显示}}`, `{{le|...}}`: what is shown, else the local title."""
    shown = named.get("d") or (positional[2] if len(positional) > 2 and positional[2] else "")
    return shown or _first(positional, named, context)


def _translation_link(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{tsl|en|Foreign|本地|显示}}`: what is shown, else the local title, else the foreign one."""
    return next((item for item in reversed(positional[1:4]) if item), "")


def _interlanguage(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{ill|Title|de|Titel|lt=shown}}`; of German or Russian kin `{{ill|de|Title|...}}`."""
    if shown := named.get("lt") or named.get("display"):
        return shown
    if len(positional) > 1 and re.fullmatch(r"[a-z]{2,3}", positional[0]):
        return positional[1]
    return positional[0] if positional else ""


def _french_link(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{lien|langue=en|trad=Foreign|fr=Titre|texte=montré}}`."""
    return named.get("texte") or named.get("fr") or _first(positional, named, context) or named.get("trad", "")


def _quantity(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{unité|3500|hab./km|2}}`: 3500 hab./km²; a number is followed by its unit, a unit by its exponent."""
    powers = {"2": "²", "3": "³", "-1": "⁻¹", "-2": "⁻²", "-3": "⁻³", "1": ""}
    out = positional[0] if positional else ""
    for index, item in enumerate(positional[1:]):
        if item in powers and index % 2:
            out += powers[item]
        elif item:
            out += f" {item}" if not index or not index % 2 else f"^{item}"
    if named.get("e"):
        out = out.replace(positional[0], f"{positional[0]}×10^{named['e']}", 1)
    return out


def _century(before: str, after: str = "") -> Render:
    return lambda positional, named, context: f"{before}{positional[0]}{after}" if positional and positional[0] else ""


def _clock(positional: list[str], named: dict[str, str], context: Context) -> str:
    units = ("h", "min", "s")
    return " ".join(f"{value} {unit}" for value, unit in zip(positional, units, strict=False) if value)


def _twin(positional: list[str], named: dict[str, str], context: Context) -> str:
    """A twin town: its name, country and year."""
    parts = positional[:2]
    if context.language == "it":
        parts = parts[::-1]
    year = named.get("année") or named.get("מתאריך") or (positional[2] if len(positional) > 2 else "")
    place = ", ".join(part for part in parts if part)
    return f"\n\ue000-\ue001{place} ({year})\n" if year else f"\n\ue000-\ue001{place}\n"


def _coordinates(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{coord|52|31|12|N|13|24|18|E}}`: 52°31′12″N 13°24′18″E; nothing where they only stand beside the title."""
    display = named.get("display", "inline").lower()
    if "inline" not in display and "i" not in display.split(","):
        return ""
    out, marks, numbers = "", "°′″", 0
    for item in positional:
        if re.fullmatch(r"-?\d+(?:\.\d+)?", item):
            out += item + marks[min(numbers, 2)]
            numbers += 1
        elif item.upper() in ("N", "S", "E", "W", "O"):
            out += item.upper() + " "
            numbers = 0
        else:
            break
    if " " in out:
        return out.strip()
    signed = [item for item in positional if re.fullmatch(r"-?\d+(?:\.\d+)?", item)][:2]
    if len(signed) < 2:
        return ""
    latitude, longitude = signed
    north, east = "S" if latitude.startswith("-") else "N", "W" if longitude.startswith("-") else "E"
    return f"{latitude.lstrip('-')}°{north} {longitude.lstrip('-')}°{east}"


def _share(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{bar percent|Muslim|green|98}}`: a bar of a chart, as its label and number."""
    return f"\n{positional[0]}: {positional[2]}%\n" if len(positional) > 2 else ""


def _rounded(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{sigfig|4.22|1}}`: to so many significant figures."""
    try:
        return f"{float(f'{float(positional[0]):.{min(max(int(positional[1]), 1), 17)}g}'):g}"
    except (ValueError, IndexError, OverflowError):
        return _first(positional, named, context)


def _phoneme(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{IPA|/a/}}`: a sound that the sentence names stays, in slashes or brackets; a bare transcription goes."""
    sound = positional[0] if positional else ""
    return _kept(sound) if sound[:1] in ("/", "[") and len(sound) < 40 else ""


def _density(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{pop density|3645257|640081.87|km2|sqmi}}`: 5.7/km² (14.7/sq mi)."""
    try:
        people, area = (float(item.replace(",", "")) for item in positional[:2])
        per = people / area
    except (ValueError, ZeroDivisionError):
        return ""
    if not math.isfinite(per):
        return ""
    places = int(named["prec"]) if re.fullmatch("[0-9]", named.get("prec", "")) else 1
    return convert([f"{per:.{places}f}", f"/{positional[2] if len(positional) > 2 else 'km2'}"], {}, False)


def _patent(positional: list[str], named: dict[str, str], context: Context) -> str:
    return f"U.S. Patent {_thousands(positional[0])}" if positional else ""


def _verse(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{bibleref|Mark|3:25|9}}`: Mark 3:25; `{{cite quran|29|46}}`: 29:46."""
    return (" " if ":" in "".join(positional[1:2]) else ":").join(positional[:2])


def _accidental(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{music|flat}}`, `{{music|flat|4}}`: the sign and what follows it."""
    sign = "".join(positional[:1])
    for word, character in (("flat", "♭"), ("sharp", "♯"), ("natural", "♮")):
        sign = sign.replace(word, character)
    return sign + "".join(positional[1:2])


def _spoken(positional: list[str], named: dict[str, str], context: Context) -> str:
    """`{{nihongo|English|漢字|romaji}}`: English (漢字, romaji)."""
    words = [*positional, "", "", ""][:3]
    inner = ", ".join(part for part in (_kept(words[1]), words[2]) if part)
    if not words[0]:
        return inner
    return f"{words[0]} ({inner})" if inner else words[0]


def _named_foreign(names: dict[str, str]) -> Render:
    """`{{lang-de|Berlin}}`: German: Berlin, where the language's name is known."""

    def render(positional: list[str], named: dict[str, str], context: Context) -> str:
        code = positional[0] if positional else ""
        words = _second(positional, named, context)
        name = names.get(code, "")
        return f"{name}: {_kept(words)}" if name and words and context.language in _ENGLISH else _kept(words)

    return render


_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "ga": "Irish", "grc": "Ancient Greek", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "ko": "Korean", "la": "Latin",
    "lt": "Lithuanian", "lv": "Latvian", "mn": "Mongolian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sa": "Sanskrit", "sk": "Slovak", "sl": "Slovene",
    "sr": "Serbian", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip

_TABLE: dict[str, Render] = {}


def _add(names: str, render: Render) -> None:
    for name in names.split("|"):
        _TABLE[name.strip()] = render


# Measures and numbers
_add("convert|conv|換算|换算|convertir|converti|umrechnung", _convert)
_add("cvt", _convert_short)
_add("height", _person("m"))
_add("weight", _person("kg"))
_add("val|num|ntsh|physconst", _value)
_add("formatnum|nts|number|fmtn|fmt|nombre|numero|число", _format_number)
_add("rounddown|bartable|tmp|rating", _joined(" "))
_add("frac|fraction|sfrac|tfrac|分數|分数|дробь", _fraction)
_add("sigfig", _rounded)
_add("sqrt|radic", _scripts("√"))
_add("sub", _scripts(SUB, SUB_END))
_add("sup|^", _scripts(SUP, SUP_END))
_add("e|esp", _scripts("×10^"))
_add("10^", _scripts("10^"))
_add("c.|circa|ca", _circa)
_add("unité|unite|unidad|unità|unit|единица|одиниця", _quantity)
_add("heure|horaire", _clock)
_add("coord|coor|coord dm|coord dms|坐标|坐標", _coordinates)
_add("bar percent|bar pixel", _share)
_add("bar percent2", _share)
_add("pop density", _density)
_add("railgauge|track gauge|bible verse|bibleverse-nb|simplenuclide-", _first)
_add("nuclide|simplenuclide|simplenuclide2|isotope", _joined("-"))
# Sounds, chemistry, music, verses
_add("ipa|ipaslink|ipalink|ipablink|afi|api", _phoneme)
_add("carbon", _scripts("C"))
_add("hydrogen", _scripts("H"))
_add("oxygen", _scripts("O"))
_add("eqm|eqarrow", _constant("⇌"))
_add("music", _accidental)
_add("bibleref|bibleref2|bibleverse|cite quran|quran-usc", _verse)
_add("us patent|uspatent", _patent)
_add("isbn", _scripts("ISBN "))
_add("etc.", _constant(", etc."))
# Dates
_add("as of|até", _as_of)
_add("start date|end date|date|birth date|death date|dts|film date|birth-date|death-date|年月日", _date)
_add("start-date|release date|launch date|dob|開始日期|开始日期|结束日期|結束日期|出生日期|birth year", _date)
_add(
    "birth date and age|bda|start date and age|出生日期和年龄|出生日期和年齡|出生日期及年龄|出生日期及年齡",
    _birth_and_age,
)
_add("birthdateandage|birth-date and age|end date and age", _birth_and_age)
_add("death date and age|dda|死亡日期和年龄|死亡日期和年齡|逝世日期及年龄|death-date and age", _death_and_age)
_add("age|age in years|年龄|年齡|alter|возраст|вік|edad|âge|età|idade|나이", _age)
_add("date-|date de naissance|date de décès|date sport|jour", _words_of_date)
_add("s-|s|s2|s2-|siècle", _century("", "e siècle"))
_add("-s|-s-", _century("", "e siècle av. J.-C."))
_add("séc", _century("século "))
_add("siglo", _century("siglo "))
# Words shown as they are
_add("nowrap|nobr|nobreak|nobold|small|smaller|big|larger|mvar|math|var|mono|code|kbd|lang-zh2|not typo|ta", _first)
_add("em|strong|strike|not a typo|sic|proper name|abbr|abbrv|tooltip|hover title|keypress|key press|samp", _first)
_add("flag|flagcountry|flagu|flagicon text|country|noitalic|nihongo2|nihongo3|texttt|pre|tt|underline|u", _first)
_add("link-interwiki|visible anchor|vanchor|anchor text|linktext|chem name|gene|smallcaps|sc|sm", _first)
_add("j|zhu|ruby|kana|hanzi|unicode|phonetic|angbr|resize1|asiantitle|tq|tooltip2|self|okina name|ipa link", _first)
_add("senza fonte|chiarire|terme défini|latin|polytonic|hebrew|script/hebrew|nastaliq", _first)
_add("script/nastaliq|script/arabic", _first)
_add("citation needed span|cn span|clarify span|bold|italic|b|i|nobelium|sort name|u-boat|uss name|fett", _first)
_add("国旗|國旗|flagg|drapeau2|pays|flaglink|国家|band|fb|nft|cr|tnavbar-header|efn-text|ja-stroke|nobr2", _first)
_add("article principal court|petit|souligner|formule|mh|script|ה|אנ|גר|abréviation|abréviation discrète", _first)
_add("nihongo|nihongo foot", _spoken)
_add("ill|illm|interlanguage link|interlanguage link multi", _interlanguage)
_add(
    "iw", lambda p, named, context: (_interlanguage if _CODE.fullmatch("".join(p[1:2])) else _either)(p, named, context)
)
_add("仮リンク", lambda p, named, context: named.get("label", "") or _first(p, named, context))
_add("не переведено|не переведено 2|не переведено 3|не переведено 4|не переведено 5|нп|нп1|нп2|нп3|нп4|нп5", _either)
_add("w|wp|page link|нп5с|translation link", _either)
# Names, years and numbers in a few words
_add("ship", lambda positional, named, context: ship("".join(positional[:1]), positional[1:]))
_add("sclass|sclass-|sclass2|sclass2-|sclass/core", lambda positional, named, context: ship_class(positional))
_add("jct", lambda positional, named, context: junction(positional))
_add("ordinal|ord", lambda positional, named, context: ordinal("".join(positional[:1])))
_add("oldstyledate|osdate", lambda p, named, context: former_date(p, context.language in _ENGLISH))
_add("zh|zh-full|lang-zh|zh-cn", lambda positional, named, context: chinese(positional, named))
_add("nee|née", _scripts("née "))
_add("né", _scripts("né "))
_add("reign|r.", _span_of_years("r."))
_add("floruit|fl.|fl", _span_of_years("fl."))
_add("born in|b.", _span_of_years("b."))
_add("died in|d.", _span_of_years("d."))
_add("mya", lambda p, named, context: f"{'–'.join(item for item in p[:2] if item)} million years ago" if p else "")
_add("interp|bracket|bracketed", _scripts("[", "]"))
_add("baseball year|by|mlby|nbay|nfly|nhly|cfb link year|scy|aut|year|год|рік|ano|año|anno|anné|jahr", _first)
_add("tag|xtag", _tag_name)
_add(
    "comment|rarechar|وإو|وصلة إنترويكي|комментарий|комент|коментар|подсказка|пояснение|מונחון|hint|"
    "dica|abreviatura|skrót|abk|abkürzung|註解文字",
    _first,
)
_add("höhe", lambda p, named, context: f"{p[0]} m" if p and p[0] else "")
_add("§|§§", lambda p, named, context: " ".join(["§", *p[:2]]))
_add("p.|pp.", lambda p, named, context: f"p. {p[0]}" if p and p[0] else "")
_add("lien", _french_link)
_add("chem|chem2|chemf|gaps|mset", _joined(""))
_add("lang|langue|llang|transl|transliteration|lang1|zh-lang|bo-textonly|wikt-lang|lang-tool", _foreign)
_add("rtl-lang|en langue", _foreign)
_add("لغة-أل|آلمانی|انگلیسی|إنجليزية|فرنسية|ألمانية|لاتينية", _first)
_add("langx|lang-x", _named_foreign(_LANGUAGES))
_add("font color text|color box text|color|fontcolor|font color|legend|범례|légende|leyenda|legende|color box", _second)
_add("resize|sort|vr|cite text|tooltip text|bg|bgcolor", _last)
_add("link", _third)
_add("incise", _scripts("– ", " –"))
_add("citation étrangère|citation bloc|citation", _first)
_add("er|ier", _constant("er"))
_add("1er|ier2", _constant("1er"))
_add("re|ire", _constant("re"))
_add("1re", _constant("1re"))
_add("n°|no|numéro", _before("n°"))
_add("mlle", _before("Mlle"))
_add("mme", _before("Mme"))
_add("m.", _before("M."))
_add("av jc|av. j.-c.", _constant("av. J.-C."))
_add("ap jc|ap. j.-c.", _constant("apr. J.-C."))
_add("a.c.", _constant("a. C."))
_add("jumelage|gemellaggio|עיר תאומה", _twin)
_add("n/a|na", _or("N/A"))
_add("yes|ya|aye", _or("Yes"))
_add("no|nay", _or("No"))
_add("won|win", _or("Won"))
_add("nom|nominated", _or("Nominated"))
_add("tba", _or("TBA"))
_add("unknown", _or("Unknown"))
_add("partial", _or("Partial"))
_add("draw", _or("Draw"))
_add("cmain", _or("Main"))
_add("crecurring", _or("Recurring"))
_add("cguest", _or("Guest"))
_add("increase|augmentation|profit|green up arrow", _constant("▲"))
_add("decrease|baisse|loss|red down arrow|augmentation négative", _constant("▼"))
_add("steady", _constant("–"))
# Lists and blocks
_add("unbulleted list|ubl|bulleted list|ordered list|plain list items|numbered list|liste|ublist|blist", _list)
_add("hlist|flatlist items|comma separated entries|and list|csv", _in_line)
_add(
    "plainlist|flatlist|columns-list|div col|colbegin|column|multicol list|colonnes|טורים|columns|columnas", _plain_list
)
_add(
    "цитата|начало цитаты|цитата2|врезка цитата|quotation|citazione|citação|citat|citaat|alıntı|اقتباس|ציטוט|인용문",
    _quote,
)
_add("quote|blockquote|cquote|quotation|rquote|quote box|引文|引用|cquote2|centered pull quote|poem quote|cita", _quote)
_add("verse translation|poemquote|bq|quotebox|cita2|quote frame|citation en bloc|zitat", _quote)
# Chinese and its kin
_add("bd|生卒|bdx", _born_died)
_add("link-en|link-ja|link-de|link-fr|link-ru|link-ko|link-es|link-it|le|lj|ld|lf|internal link helper", _linked)
_add("tsl|translink|link-lang", _translation_link)
_add("zhongwen|zy|注|漢字|汉字|僻字|!字|專名|专名|書名|专名号|專名號|書名號|书名号|旗幟|旗帜|lk", _first)
_add("ruby-zh|ruby-ja|ruby-py|拼音|註音|注音|ふりがな|読み仮名|ルビ", _first)
_add("fact-text|r-text|color|顏色|颜色|彩色", _second_or_first)
# Money
_add("us$|usd|us dollar|usdollar", _money("US$"))
_add("a$|aud", _money("A$"))
_add("c$|cad", _money("C$"))
_add("nt$|twd|新台币|新臺幣", _money("NT$"))
_add("hk$|hkd|港币|港幣", _money("HK$"))
_add("gbp|£|pound sterling", _money("£"))
_add("eur|€|euro", _money("€"))
_add("inr|indian rupee|rs|indianrupee", _money("₹"))
_add("jpy|¥|cny|rmb|jp¥|人民币|人民幣|日圓|日元", _money("¥"))
_add("krw", _money("₩"))
_add("r$|brl", _money("R$"))
_add("usd-|$", _money("$"))
# Characters
_add("snd|spnd|spaced ndash|spaced en dash|dash|spnd-", _constant(" – "))
_add("ndash|en dash|–", _constant("–"))
_add("mdash|em dash|emdash|—", _constant("—"))
_add("spaced mdash|mdashb", _constant(" — "))
_add("'|apostrophe|okina", _constant("'"))
_add("'s", _constant("'s"))
_add('"', _said)
_add("!|pipe", _constant("|"))
_add("!!", _constant("||"))
_add("!-", _constant("\n|-\n"))
_add("=", _constant("="))
_add("·|•|middot|dot|bullet|*|・|wrap dot|、", _constant(" · "))
_add("nbsp|space|thinsp|thin space|hair space|hairsp|ns|pad|sp|spaces|0|nb", _constant(" "))
_add("esd", _or(" "))
_add("pi", _constant("π"))
_add("times|x", _constant("×"))
_add("minus", _constant("−"))
_add("plusmn|±", _constant("±"))
_add("deg", _constant("°"))
_add("sharp", _constant("♯"))
_add("flat", _constant("♭"))
_add("(", _constant("{"))
_add("((", _constant("{{"))
_add(")", _constant("}"))
_add("))", _constant("}}"))
_add("break|br|clear|-|clr|crlf", _constant("\n"))
_add(",|ref|efn|sfn|cite|citation needed|refn|note|notetag", _nothing)

_INFOBOX = re.compile(
    r"infobox|taxobox|speciesbox|automatic taxobox|geobox|信息框|資訊框|.*infobox|.*信息框|.*資訊框|ficha de|info/|"
    r"tassobox|divisione amministrativa|صندوق معلومات|جعبه اطلاعات|картка|кутия|карточка|도시 정보|.* 정보$|"
    r"กล่องข้อมูล|thông tin|hộp thông tin|基礎情報|.*基礎情報|bio$|ज्ञानसन्दूक|infotaula|chembox|drugbox"
)
_NO_VALUE = re.compile(
    r"image|imag|map|caption|logo|flag|seal|coat|width|size|alt|photo|foto|bild|pushpin|style|colou?r|"
    r"(?:^|[ _-])(?:ref|footnote|note)s?$|图|圖"
)
_SPOKEN = re.compile(r"lang-([a-z]{2,3})(?:-.*)?$")
_TODAY: dict[str, Callable[[datetime], str]] = {  # of the revision
    "CURRENTYEAR": lambda when: str(when.year), "LOCALYEAR": lambda when: str(when.year),
    "CURRENTMONTH": lambda when: f"{when.month:02}", "CURRENTMONTHNAME": lambda when: MONTHS[when.month - 1],
    "CURRENTDAY": lambda when: str(when.day), "CURRENTDAY2": lambda when: f"{when.day:02}",
}  # fmt: skip
_GERMAN = re.compile(r"[a-z]{2,3}(?:[SFA]|-Hant|-Hans)")
_LINKED = re.compile(r"(?:link|lk)-[a-z]{2,3}$")
_ORDINAL = re.compile(r"\d{1,3}(?:er|e|re|ème)$")


def _key_values(named: dict[str, str]) -> str:
    """An infobox as lines; what dresses it up and what is empty left out."""
    lines = [
        f"{key.replace('_', ' ')}: {' '.join(value.split())}"
        for key, value in named.items()
        if value and len(value) < 1_000 and not _NO_VALUE.search(key.lower()) and not key.isdecimal()
    ]
    return "\n\n" + "\n".join(lines) + "\n\n" if lines else ""


def render_template(
    name: str,
    positional: list[str],
    named: dict[str, str],
    context: Context = Context(),  # noqa: B008
) -> str | None:
    """What a template shows, or None where its name isn't known.

    - `name`: as written, spaces made one; `positional` and `named`: its arguments, already rendered.
    """
    key = name.lower()
    if context.language == "fr" and key in ("citation", "de", "en"):
        return f"« {positional[0]} »" if key == "citation" and positional else ""
    if context.language == "fr" and key == "date":
        return _words_of_date(positional, named, context)
    if key == "citation":  # a source, but in French a quotation
        return ""
    if context.language == "fr" and key in ("sp", "sp-", "sap", "sav") and len(positional) > 1:
        return f"{positional[0]}{positional[1]} siècle"
    if context.language == "it" and key == "m":
        return _value(positional, named, context)
    if key in ("s", "s-") and context.language != "fr":
        return None
    if render := _TABLE.get(key):
        return render(positional, named, context)
    if is_ship(name) and positional:
        return ship(name, positional)
    if not positional and not named and (country := _country(name, context)):
        return country
    if context.infoboxes and _INFOBOX.match(key):
        return _key_values(named)
    if key in ("pagename", "fullpagename", "subpagename", "basepagename"):
        return context.title
    if name in _TODAY and not positional:
        return _TODAY[name](context.when) if context.when else ""
    called, colon, argument = name.partition(":")
    if colon:
        called = called.strip().lower()
        if called in ("subst", "safesubst", "msg", "msgnw", "raw"):
            return render_template(argument.strip(), positional, named, context)
        if called == "formatnum":
            return _format_number([argument.strip()], {}, context)
        given = [f"{key}={value}" for key, value in named.items()]
        shown = function(called, [argument.strip(), *positional, *given])
        return shown or ""
    if context.language == "de" and _GERMAN.fullmatch(name) and positional:  # `{{enS|words|transcription}}`
        return ", ".join(part for part in (_kept(positional[0]), *positional[1:2]) if part)
    if spoken := _SPOKEN.match(key):
        if spoken[1] == "zh":
            return _first(positional, named, context) or named.get("t", named.get("s", named.get("c", "")))
        return _named_foreign(_LANGUAGES)([spoken[1], *positional], named, context) if positional else ""
    if _LINKED.match(key):
        return _linked(positional, named, context)
    if context.language == "fr" and _ORDINAL.match(key):
        return f"{name} {positional[0]}".strip() if positional else name
    return None
