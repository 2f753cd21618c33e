"""Who may judge in a lake: names, and the keys by which they log in, readable by the lake's owner alone."""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.places import is_local
from flows.label.labels import Labels

_NAME = re.compile(r"\w[\w.-]{0,47}")  # a file is called so; a letter may take 4 bytes of 255


def annotators(labels: Labels, names: Sequence[str] = ()) -> dict[str, str]:
    """Everybody's key by name, those of `names` that are new made now; where nobody is named ever, of this user.

    Whoever is new gets empty files, which a recipe may name from then on. Raises UserError for a name that can't be.
    """
    path = labels.root / "annotators.json"
    try:
        known = {str(name): str(key) for name, key in json.loads(path.read_bytes()).items()}
        if is_local(path) and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        known = {}
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path} can't be read: correct it, or remove it for new keys") from None
    wanted = dict.fromkeys(names) if names or known else {_user(): None}
    for name in wanted:
        if not _NAME.fullmatch(name):
            raise UserError(f"--annotators {name!r}: letters, digits, dots and dashes, at most 48, parted by commas")
        if other := next((old for old in known if old != name and old.casefold() == name.casefold()), None):
            raise UserError(
                f"--annotators {name!r}: there is {other!r} already, and a file system may take them for one"
            )
    if new := {name: secrets.token_urlsafe(18) for name in wanted if name not in known}:
        known |= new
        write_atomically(path, json.dumps(known, ensure_ascii=False, indent=1).encode(), private=True)
    for name in known:
        labels.begin(name)
    return known


def who(keys: Mapping[str, str], key: str) -> str | None:
    """Whose key it is; nobody's: None. It takes the same time for every key."""
    found = None
    for name, own in keys.items():
        if secrets.compare_digest(own.encode(), key.encode("utf-8", "replace")):
            found = name
    return found


def _user() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return name if _NAME.fullmatch(name) else "me"
