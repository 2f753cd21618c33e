"""Numbers and texts as a page shows them to people."""

from __future__ import annotations

from typing import Any

CHARACTERS = 700  # of each text shown


def number(value: Any) -> str:
    """A count with separators, a fraction with four digits."""
    if value is None:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{int(value):,}"


def amount(value: int, what: str) -> str:
    """A count with its noun: "1 record", "2,000 records"."""
    return f"{number(value)} {what}{'' if value == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    if not whole:
        return ""
    percent = 100 * part / whole
    return f"{percent:.1f}%" if percent >= 0.1 or not part else "under 0.1%"


def seconds(value: float) -> str:
    """A span of time in the unit that suits it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def excerpt(text: str, limit: int = CHARACTERS) -> str:
    """The beginning of a text; what is cut off is said."""
    text = text.strip()
    return text if len(text) <= limit else f"{text[:limit].rstrip()} … ({len(text) - limit:,} more characters)"
