"""`headwater chat`: talk to a checkpoint in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.printable import from_terminal
from flows.checkpoints import Chosen, choose
from flows.commands.chat_commands import Commands, EndChat
from flows.commands.common import COMMON, Common
from flows.commands.dialogue import Dialogue, Sampling
from flows.output import Console, note
from flows.stages import ANSWERING

_STOPPED = 130  # the exit status after Ctrl-C, as shells have it


def chat(
    checkpoint: str = "last",
    *,
    message: Annotated[str | None, Parameter(name=("--message", "-m"))] = None,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_tokens: int = 200,
    seed: int | None = None,
    trust_remote_code: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Talk to a model.

    Parameters
    ----------
    checkpoint
        A stage of the last run (`ppo`), a tag (`current`), a checkpoint's folder or GGUF file, or `last`: the last
        model of the last complete run.
    message
        Ask this one thing and end.
    temperature
        0 takes the likeliest token each time.
    top_p
        Draw from the likeliest tokens that have this share of the probability.
    max_tokens
        Longest answer, in tokens.
    seed
        For an answer that can be repeated.
    trust_remote_code
        Run the Python code that a checkpoint's folder brings along. It can do all that you can: know who made it.
    """
    sampling = Sampling(temperature, top_p, max_tokens, seed)
    if message is not None and not message.strip():
        raise UserError("the message is empty: give --message something to answer, or leave it out for a dialogue")
    if message is None and common.json:
        raise UserError("--json needs --message")

    def load(name: str) -> tuple[Any, Any, str]:
        chosen = choose(name, common.folder)
        return *_writer(chosen, trust_remote_code), str(chosen)

    chosen = choose(checkpoint, common.folder)
    dialogue = Dialogue(*_writer(chosen, trust_remote_code), sampling, name=str(chosen))
    if chosen.stage:
        note(str(chosen))
    if message is None:
        console = Console()
        return converse(dialogue, Commands(dialogue, console.line, console.stream, load), _history())
    output = common.output
    dialogue.answer(from_terminal(message), output.stream)
    made = {"stage": chosen.stage, "run": chosen.run} if chosen.stage else {}
    answer = {"checkpoint": str(chosen.folder), **made, "messages": dialogue.messages}
    output.answer(answer, lambda console, _: console.line())
    return 0


def _writer(chosen: Chosen, trust_remote_code: bool) -> tuple[Any, Any]:
    """The model and the tokenizer of a checkpoint that writes. Raises UserError for a reward model."""
    from models.network.build import ScalarHead
    from models.network.checkpoint import load

    model, tokenizer = load(chosen.here, trust_remote_code)
    if isinstance(model, ScalarHead):
        raise UserError(f"a reward model scores answers and can't write any: chat with {' or '.join(ANSWERING[1:])}")
    return model, tokenizer


def converse(dialogue: Dialogue, commands: Commands | None = None, history: Path | None = None) -> int:
    """Answer line by line what is typed or piped in, until an empty line or the end; returns the exit status.

    At a terminal lines with a slash are commands, Ctrl-C stops an answer and a message that doesn't fit is said so; in
    a pipe everything is a message, and both end the dialogue. `history`: the file of what was typed, over dialogues.
    """
    console = Console()
    person = sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()
    if person:
        note("an empty line or Ctrl-D ends the chat, Ctrl-C stops an answer, Alt-Enter begins a line, /help")
    try:
        for text in typed(history) if person else piped():
            if not text.strip():
                break
            try:
                said = commands.take(text.strip()) if person and commands else text.strip()
                if said is None:
                    continue
                dialogue.answer(said, console.stream)
            except EndChat:
                break
            except UserError as error:
                if not person:
                    raise
                note(str(error))
            except KeyboardInterrupt:
                if not person:
                    raise
            console.line()
    except KeyboardInterrupt:
        return _STOPPED
    return 0


def piped() -> Iterator[str]:
    """The lines of stdin as text; bytes that are no UTF-8 become U+FFFD."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise UserError("there is nothing to read from: give --message something to answer")
    for number, raw in enumerate(stream):
        yield raw.decode("utf-8-sig" if number == 0 else "utf-8", "replace")


def _history() -> Path | None:
    """Where what was typed is kept, for its owner alone; None where there is no such place."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(state) / "headwater" / "chat_history"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    except (OSError, RuntimeError):
        return None
    return path


def typed(history: Path | None = None) -> Iterator[str]:
    """What a person types at the prompt, with editing and a history; a paste of several lines is one message."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import create_output

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    output = create_output(stdout=None if sys.stdout is not None and sys.stdout.isatty() else sys.stderr)
    session: PromptSession[str] = PromptSession(
        "> ", key_bindings=keys, multiline=True, output=output, history=FileHistory(str(history)) if history else None
    )
    while True:
        try:
            yield from_terminal(session.prompt())
        except EOFError:
            return
        except KeyboardInterrupt:
            if not session.default_buffer.text:
                raise
