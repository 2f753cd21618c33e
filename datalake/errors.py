"""The one kind of error a user can cause: shown as one clear line, without a traceback, exit code 2."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right. The message is one line that says what is wrong and what to do about it."""
