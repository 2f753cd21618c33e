"""`{{convert}}` as a reader sees it: the value, its unit, and the same in another unit.

Rounding as Template:Convert documents it: as precise as the given value, and to two significant figures at least.
Factors are exact by definition (international yard and pound, 1959) or as the SI brochure gives them.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Unit(NamedTuple):
    """Symbol, name of one, name of many, dimension, how much of the SI unit it is, and what it converts to."""

    symbol: str
    one: str
    many: str
    dimension: str
    scale: float
    other: str


_FOOT, _INCH, _MILE, _POUND = 0.3048, 0.0254, 1609.344, 0.45359237


def _unit(dimension: str, symbol: str, one: str, scale: float, other: str, many: str = "") -> Unit:
    return Unit(symbol, one, many or one + "s", dimension, scale, other)


UNITS: dict[str, Unit] = {
    "mm": _unit("length", "mm", "millimetre", 1e-3, "in"),
    "cm": _unit("length", "cm", "centimetre", 1e-2, "in"),
    "m": _unit("length", "m", "metre", 1, "ft"),
    "km": _unit("length", "km", "kilometre", 1e3, "mi"),
    "in": _unit("length", "in", "inch", _INCH, "mm", "inches"),
    "ft": _unit("length", "ft", "foot", _FOOT, "m", "feet"),
    "yd": _unit("length", "yd", "yard", 0.9144, "m"),
    "mi": _unit("length", "mi", "mile", _MILE, "km"),
    "nmi": _unit("length", "nmi", "nautical mile", 1852, "km"),
    "ly": _unit("length", "ly", "light-year", 9.4607304725808e15, "pc"),
    "pc": _unit("length", "pc", "parsec", 3.0856775814913673e16, "ly"),
    "au": _unit("length", "AU", "astronomical unit", 1.495978707e11, "km"),
    "m2": _unit("area", "m²", "square metre", 1, "sqft"),
    "km2": _unit("area", "km²", "square kilometre", 1e6, "sqmi"),
    "ha": _unit("area", "ha", "hectare", 1e4, "acre"),
    "sqft": _unit("area", "sq ft", "square foot", _FOOT**2, "m2", "square feet"),
    "sqmi": _unit("area", "sq mi", "square mile", _MILE**2, "km2"),
    "acre": _unit("area", "acre", "acre", 4046.8564224, "ha"),
    "g": _unit("mass", "g", "gram", 1e-3, "oz"),
    "kg": _unit("mass", "kg", "kilogram", 1, "lb"),
    "t": _unit("mass", "t", "tonne", 1e3, "LT"),
    "oz": _unit("mass", "oz", "ounce", _POUND / 16, "g"),
    "lb": _unit("mass", "lb", "pound", _POUND, "kg"),
    "st": _unit("mass", "st", "stone", 14 * _POUND, "kg", "stone"),
    "ST": _unit("mass", "short tons", "short ton", 2000 * _POUND, "t"),
    "LT": _unit("mass", "long tons", "long ton", 2240 * _POUND, "t"),
    "ml": _unit("volume", "mL", "millilitre", 1e-6, "USoz"),
    "l": _unit("volume", "L", "litre", 1e-3, "USgal"),
    "m3": _unit("volume", "m³", "cubic metre", 1, "cuft"),
    "km3": _unit("volume", "km³", "cubic kilometre", 1e9, "cumi"),
    "cuft": _unit("volume", "cu ft", "cubic foot", _FOOT**3, "m3", "cubic feet"),
    "cumi": _unit("volume", "cu mi", "cubic mile", _MILE**3, "km3"),
    "USgal": _unit("volume", "US gal", "US gallon", 3.785411784e-3, "l"),
    "USoz": _unit("volume", "US fl oz", "US fluid ounce", 3.785411784e-3 / 128, "ml"),
    "impgal": _unit("volume", "imp gal", "imperial gallon", 4.54609e-3, "l"),
    "km/h": _unit("speed", "km/h", "kilometre per hour", 1 / 3.6, "mph", "kilometres per hour"),
    "mph": _unit("speed", "mph", "mile per hour", 0.44704, "km/h", "miles per hour"),
    "m/s": _unit("speed", "m/s", "metre per second", 1, "ft/s", "metres per second"),
    "ft/s": _unit("speed", "ft/s", "foot per second", _FOOT, "m/s", "feet per second"),
    "kn": _unit("speed", "kn", "knot", 1852 / 3600, "km/h"),
    "kw": _unit("power", "kW", "kilowatt", 1e3, "hp"),
    "hp": _unit("power", "hp", "horsepower", 550 * _FOOT * _POUND * 9.80665, "kW", "horsepower"),
    "/km2": _unit("density", "/km²", "inhabitants per square kilometre", 1e-6, "/sqmi", "per square kilometre"),
    "/sqmi": _unit("density", "/sq mi", "per square mile", 1 / _MILE**2, "/km2", "per square mile"),
    "c": _unit("temperature", "°C", "degree Celsius", 1, "F", "degrees Celsius"),
    "f": _unit("temperature", "°F", "degree Fahrenheit", 5 / 9, "C", "degrees Fahrenheit"),
    "k": _unit("temperature", "K", "kelvin", 1, "C"),
}
_ZERO = {"°C": 273.15, "°F": 459.67 * 5 / 9, "K": 0.0}  # in kelvin
_ALIASES = {
    "metre": "m", "meter": "m", "metres": "m", "meters": "m", "kilometre": "km", "kilometer": "km", "foot": "ft",
    "feet": "ft", "mile": "mi", "miles": "mi", "inch": "in", "inches": "in", "yard": "yd", "yards": "yd",
    "sqkm": "km2", "km²": "km2", "m²": "m2", "sqm": "m2", "acres": "acre", "hectare": "ha", "hectares": "ha",
    "lbs": "lb", "pound": "lb", "pounds": "lb", "mt": "t", "tonne": "t", "tonnes": "t", "kilogram": "kg",
    "kph": "km/h", "kmph": "km/h", "knot": "kn", "knots": "kn", "kt": "kn", "°c": "c", "°f": "f",
    "u.s.gal": "USgal", "usgal": "USgal", "imp gal": "impgal", "litre": "l", "liter": "l", "litres": "l",
    "liters": "l", "cubic feet": "cuft", "cubic metres": "m3", "/sqkm": "/km2", "pd/sqkm": "/km2", "pd/sqmi": "/sqmi",
    "pd/km2": "/km2", "pd/mi2": "/sqmi", "mi2": "sqmi", "ft2": "sqft", "ft3": "cuft", "long ton": "LT",
    "short ton": "ST", "shton": "ST", "lt": "LT",
}  # fmt: skip
_JOINERS = {
    "to": " to ", "-": "–", "–": "–", "and": " and ", "and(-)": " and ", "or": " or ", "x": " × ", "×": " × ",
    "by": " by ", "+/-": " ± ", "±": " ± ", "to(-)": " to ", "xx": " × ", "to about": " to about ",
}  # fmt: skip
_LARGEST = 1e200  # of what is converted: no unit's scale makes an infinity of it
_MOST_TARGETS = 10  # units that a value is converted to: each of them for each value


def _find(name: str) -> Unit | None:
    for key in (name, name.lower(), _ALIASES.get(name.lower(), "")):
        if key in UNITS:
            return UNITS[key]
    return None


def _value(text: str) -> tuple[float, int, int] | None:
    """A number as written: its value, decimals (below zero: zeros at its end) and denominator (0: no fraction)."""
    text = text.replace("−", "-").replace(",", "").strip()
    if match := re.fullmatch(r"(-?)(?:(\d{1,99})\+)?(\d{1,99})//?(\d{1,99})", text):
        if not int(match[4]):
            return None
        value = int(match[2] or 0) + int(match[3]) / int(match[4])
        return (-value if match[1] else value), 0, int(match[4])
    if not re.fullmatch(r"[-+]?(?:\d++(?:\.\d++)?|\.\d++)(?:e-?\d{1,2})?", text, re.IGNORECASE):
        return None
    digits, _, exponent = text.lower().partition("e")
    whole, dot, decimals = digits.partition(".")
    places = len(decimals) if dot else -(len(whole) - len(whole.rstrip("0")))
    value = float(text)
    return (value, places - int(exponent or 0), 0) if abs(value) < _LARGEST else None


def _converted(value: float, source: Unit, target: Unit) -> float:
    if source.dimension == "temperature":
        kelvin = value * source.scale + _ZERO[source.symbol]
        return (kelvin - _ZERO[target.symbol]) / target.scale
    return value * source.scale / target.scale


def _rounded(text: str, source: Unit, target: Unit, digits: int | None, figures: int | None = None) -> str:
    """A value in the target unit, as precise as it was given in the source's; "" where it is no number."""
    if (read := _value(text)) is None:
        return ""
    value, places, denominator = read
    out = _converted(value, source, target)
    if digits is None:
        if figures:
            digits = figures - 1 - math.floor(math.log10(abs(out)) + 1e-9) if out else 0
        elif source.dimension == "temperature":
            kelvin = abs(value * source.scale + _ZERO[source.symbol]) or 1.0
            digits = max(places, 2 - math.floor(math.log10(kelvin) + 1e-9))
        elif not value or not out:
            digits = 0
        else:
            precise = math.log10(denominator) if denominator else places
            least = 1 - math.floor(math.log10(abs(out)) + 1e-9)
            digits = max(math.floor(precise + math.log10(abs(value / out)) + math.log10(2)), least)
    return _number(out, digits)


def _number(value: float, digits: int) -> str:
    digits = max(-15, min(digits, 9))
    rounded = math.floor(abs(value) * 10.0**digits + 0.5 + 1e-9) / 10.0**digits
    sign = "−" if value < 0 and rounded else ""
    return sign + f"{rounded:,.{max(digits, 0)}f}"


def _shown(text: str) -> str:
    """A given number with its thousands parted."""
    if re.fullmatch(r"-?\d{4,300}(?:\.\d+)?", text):
        whole, dot, decimals = text.partition(".")
        return f"{int(whole):,}".replace("-", "−") + dot + decimals
    return re.sub(r"^-(?=\d)", "−", text).replace("//", "/").replace("+", " ") if "+/-" not in text else text


def convert(positional: list[str], named: dict[str, str], words: bool, short: bool = False) -> str:
    """`{{convert|10|km|mi}}`: 10 kilometres (6.2 mi). Unknown units stay as they are written, without a second value.

    - `words`: whether units are written out, as English does; `short`: symbols are asked for (`{{cvt}}`).
    """
    items = [item.strip() for item in positional]
    if not items:
        return ""
    values, between = [items[0]], [""]
    at = 1
    while at + 1 < len(items) and items[at] in _JOINERS:
        between.append(_JOINERS[items[at]])
        values.append(items[at + 1])
        at += 2
    rest = items[at:]
    given = "".join(joiner + _shown(value) for joiner, value in zip(between, values, strict=True))
    if not rest:
        return given
    name, rest = rest[0], rest[1:]
    unit = _find(name)
    if len(rest) >= 2 and _value(rest[0]) is not None and (small := _find(rest[1])) and unit:
        return _compound(values[0], unit, rest, small)
    if unit is None:
        return f"{given} {name}".strip()
    full = words and not short and named.get("abbr", "") not in ("on", "in", "y", "yes") and unit.one != unit.symbol
    adjective = named.get("adj", "") in ("on", "mid", "1")
    if unit.dimension in ("temperature",) and named.get("abbr", "") != "off":
        full = False
    if full:
        label = unit.one if adjective or values[-1] in ("1", "-1") else unit.many
        if named.get("sp") == "us":
            label = re.sub(r"(met|lit)re", r"\1er", label)
        shown = f"{given}-{label}".replace(" ", "-") if adjective and len(values) == 1 else f"{given} {label}"
    else:
        shown = given + ("" if unit.symbol.startswith("/") else " ") + unit.symbol
    if named.get("disp", "") in ("number", "unit"):
        return given if named["disp"] == "number" else unit.symbol
    outputs = [_output(values, between, unit, target, rest, named) for target in _targets(rest, unit)]
    second = "; ".join(output for output in outputs if output)
    if not second:
        return shown
    if named.get("disp") in ("out", "output only", "output number only"):
        return second
    if named.get("order") == "flip" or named.get("disp") == "flip":
        return f"{second} ({given} {unit.symbol})"
    return f"{shown}, {second}" if named.get("disp") in ("comma", "or") else f"{shown} ({second})"


def _targets(rest: list[str], unit: Unit) -> list[str]:
    """The names of the units to convert to: those given, else the unit's own."""
    if rest and rest[0] and not re.fullmatch(r"-?\d+", rest[0]):
        names = rest[0].replace("+", " ").split() if _find(rest[0]) is None else [rest[0]]
        if found := [name for name in names if name in ("ftin", "ft in") or _find(name)]:
            return found[:_MOST_TARGETS]
        return []
    return [unit.other]


def _output(
    values: list[str], between: list[str], unit: Unit, target: str, rest: list[str], named: dict[str, str]
) -> str:
    digits = next((int(item) for item in rest[:2] if re.fullmatch(r"-?\d{1,2}", item)), None)
    figures = int(named["sigfig"]) if re.fullmatch(r"[1-9]", named.get("sigfig", "")) else None
    if target == "ftin":
        if (read := _value(values[0])) is None or unit.dimension != "length":
            return ""
        inches = round(read[0] * unit.scale / _INCH)
        return f"{inches // 12} ft {inches % 12} in"
    found = _find(target)
    if found is None or found.dimension != unit.dimension:
        return ""
    numbers = [_rounded(value, unit, found, digits, figures) for value in values]
    if not all(numbers):
        return ""
    if len(set(numbers)) == 1:
        numbers, between = numbers[:1], between[:1]
    joined = "".join(joiner + number for joiner, number in zip(between, numbers, strict=True))
    return joined + ("" if found.symbol.startswith("/") else " ") + found.symbol


def _compound(value: str, unit: Unit, rest: list[str], small: Unit) -> str:
    """`{{convert|5|ft|10|in}}`: 5 ft 10 in (1.78 m)."""
    first, second = _value(value), _value(rest[0])
    shown = f"{_shown(value)} {unit.symbol} {rest[0]} {small.symbol}"
    name = next((item for item in rest[2:] if _find(item)), "m" if unit.dimension == "length" else "kg")
    target = _find(name)
    if first is None or second is None or target is None or target.dimension != unit.dimension:
        return shown
    total = first[0] * unit.scale + second[0] * small.scale
    out = total / target.scale
    # to the hundredth of a metre below inches, which the template's own code does; else to the whole unit
    least = max(2 + math.floor(math.log10(target.scale)), 0) if small.symbol == "in" else 0
    return f"{shown} ({_number(out, least)} {target.symbol})"
