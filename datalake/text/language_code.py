"""How a language is named in a recipe. Imports only pydantic."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_CODE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]+)*")


def _code(value: str) -> str:
    if not _CODE.fullmatch(value):
        raise ValueError(f"{value!r} is no code of a language: name it as the `language` column does, such as en or zh")
    return value


# As lid.176 names it, or another model of languages (`zho_Hans`): a name such as `english` would fit no document.
LanguageCode = Annotated[str, AfterValidator(_code)]
