"""The one kind of error a user can cause: shown as one clear line, without a traceback, exit code 2."""

from __future__ import annotations

import sys

from datalake.printable import one_line, write


class UserError(ValueError):
    """Something the user can put right. The message is one line that says what is wrong and what to do about it."""


class LostDataError(UserError):
    """What the lake should hold is gone, or isn't what was written: `what` it is, and `why` it can't be read."""

    def __init__(self, what: str, why: str, several: bool = False):
        super().__init__(what, why, several)
        self.what, self.why, self.several = what, why, several

    def __str__(self) -> str:
        verb, pronoun = ("are", "them") if self.several else ("is", "it")
        return f"{self.what} {verb} gone or damaged ({self.why}): run its recipe again to make {pronoun} anew"


_noted: set[str] = set()


def note(text: str) -> None:
    """Say on stderr, in one line and once, that something was wrong and what was done about it."""
    if text not in _noted:
        _noted.add(text)
        write(f"headwater: {one_line(text)}", sys.stderr)


def first_line(error: BaseException) -> str:
    """What an error says, as part of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
