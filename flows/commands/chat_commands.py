"""What a person can say to `headwater chat` itself: lines that begin with a slash. A command is a method of `Commands`,
whose first line of documentation is its help.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.atomic import write_atomically
from datalake.errors import UserError

if TYPE_CHECKING:
    from flows.commands.dialogue import Dialogue

_SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "max_tokens": int,
    "seed": lambda text: None if text == "none" else int(text),
}
_ROLES = ("system", "user", "assistant", "tool")


class EndChat(Exception):  # noqa: N818
    """The person has had enough."""


class Commands:
    """The commands of one dialogue. `say` shows a line; `load` opens another model by name."""

    def __init__(
        self, dialogue: Dialogue, say: Callable[[str], None], show: Callable[[str], None], load: Callable[[str], Any]
    ) -> None:
        self.dialogue, self.say, self.show, self.load = dialogue, say, show, load

    def take(self, text: str) -> str | None:
        """Obey a command; or the text that is to be said to the model: what begins with no slash, or with two.

        Raises:
            UserError: for a command that there isn't, or that can't be obeyed.
            EndChat: where it ends the chat.
        """
        if text.startswith("//"):
            return text[1:]
        if not text.startswith("/"):
            return text
        name, _, argument = text[1:].partition(" ")
        command = getattr(self, f"do_{name}", None) if name.isidentifier() else None
        if command is None:
            raise UserError(f"there is no command /{name}: /help names them all; // begins a message with a slash")
        command(argument.strip())
        return None

    def do_help(self, _: str) -> None:
        """Show the commands."""
        for name in sorted(name for name in dir(self) if name.startswith("do_")):
            self.say(f"/{name[3:]:<8} {getattr(self, name).__doc__.splitlines()[0]}")

    def do_system(self, text: str) -> None:
        """Set the system prompt: /system TEXT; without TEXT it is shown, /system none takes it away."""
        messages = self.dialogue.messages
        present = bool(messages) and messages[0]["role"] == "system"
        if not text:
            self.say(messages[0]["content"] if present else "there is no system prompt")
            return
        if present:
            del messages[0]
        if text != "none":
            messages.insert(0, {"role": "system", "content": text})

    def do_reset(self, _: str) -> None:
        """Begin anew; the system prompt stays."""
        self.dialogue.messages[:] = [one for one in self.dialogue.messages if one["role"] == "system"]

    def do_undo(self, _: str) -> None:
        """Take the last message and its answer back."""
        self._last()

    def do_again(self, _: str) -> None:
        """Have the last message answered again."""
        seed = self.dialogue.sampling.seed
        text = self._last()
        if seed is not None:  # the same seed would give the same answer
            self.dialogue.sampling = replace(self.dialogue.sampling, seed=seed + 1)
        self.dialogue.answer(text, self.show)
        self.say("")

    def do_show(self, _: str) -> None:
        """Show what was said so far."""
        for message in self.dialogue.messages:
            self.say(f"{message['role']}: {message['content']}")

    def do_set(self, text: str) -> None:
        """Show the sampling, or change it: /set temperature 0.2; top_p, max_tokens, seed (a number or none)."""
        sampling = self.dialogue.sampling
        name, _, value = text.replace("=", " ").partition(" ")
        name = name.replace("-", "_")
        if not name:
            self.say(", ".join(f"{name} {getattr(sampling, name)}" for name in _SETTINGS))
            return
        if name not in _SETTINGS:
            raise UserError(f"there is no {name}: set {', '.join(_SETTINGS)}")
        try:
            read = _SETTINGS[name](value.strip())
        except ValueError:
            raise UserError(f"{value.strip()!r} is no number: /set {name} 1") from None
        self.dialogue.sampling = replace(sampling, **{name: read})

    def do_model(self, name: str) -> None:
        """Go on with another checkpoint: /model sft, or a folder; without a name, show which it is."""
        if name:
            self.dialogue.model, self.dialogue.tokenizer, self.dialogue.name = self.load(name)
        self.say(self.dialogue.name)

    def do_save(self, name: str) -> None:
        """Save the dialogue as JSON: /save FILE."""
        path = _path(name, "/save FILE")
        if path.exists():
            raise UserError(f"{path} is there already: choose another name")
        body = {"checkpoint": self.dialogue.name, "messages": self.dialogue.messages}
        try:
            write_atomically(path, (json.dumps(body, ensure_ascii=True, indent=1) + "\n").encode())
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}") from None
        self.say(f"saved {path}")

    def do_load(self, name: str) -> None:
        """Go on from a dialogue that was saved: /load FILE."""
        path = _path(name, "/load FILE")
        try:
            messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
            known = [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError(f"{path} holds no dialogue: take a file that /save wrote") from None
        if any(one["role"] not in _ROLES for one in known):
            raise UserError(f"{path} has a role that there isn't: {', '.join(_ROLES)} are known")
        self.dialogue.messages[:] = known

    def do_exit(self, _: str) -> None:
        """End the chat, as an empty line and Ctrl-D do."""
        raise EndChat

    def _last(self) -> str:
        """Take the last message of the user back, and all after it."""
        messages = self.dialogue.messages
        places = [place for place, one in enumerate(messages) if one["role"] == "user"]
        if not places:
            raise UserError("nothing was said yet")
        text = messages[places[-1]]["content"]
        del messages[places[-1] :]
        return text


def _path(name: str, usage: str) -> Path:
    if not name:
        raise UserError(f"a file is wanted: {usage}")
    try:
        parts = shlex.split(name)
    except ValueError:
        parts = [name]
    return Path(os.path.expanduser(parts[0] if len(parts) == 1 else name)).absolute()  # noqa: PTH111
