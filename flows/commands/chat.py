"""`headwater chat`: talk to a checkpoint in the terminal."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from datalake.errors import UserError
from datalake.lake import FolderRef, Lake
from flows.commands.look import find_checkpoint
from flows.commands.show import as_json


def checkpoint_folder(name: str, lake: Path) -> Path:
    """The folder of a checkpoint, by stage, fingerprint or path. A folder needn't belong to the lake."""
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.exists() and name not in ("last", "pretrain", "sft", "ppo"):
        raise UserError(f"{path} is not a checkpoint: it has no config.json")
    opened = Lake(lake).require()
    record = find_checkpoint(opened, name)
    folder = next((opened.path(ref) for ref in record.outputs.values() if isinstance(ref, FolderRef)), None)
    if folder is None:
        raise UserError(f"{name} is a record of {record.stage}, which makes no model: chat with pretrain, sft or ppo")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is gone or not a checkpoint: run the recipe again")
    return folder


def chat_with(
    checkpoint: str,
    message: str | None,
    temperature: float,
    max_tokens: int,
    seed: int | None,
    lake: Path,
    json: bool,
) -> int:
    """Answer one message, or hold a dialogue until the input ends."""
    if temperature < 0 or max_tokens < 1:
        raise UserError("temperature must be at least 0 and max-tokens at least 1")
    if message is not None and not message.strip():
        raise UserError("the message is empty: give --message something to answer, or leave it out for a dialogue")
    folder = checkpoint_folder(checkpoint, lake)
    from models.chat import reply
    from models.network.build import ScalarHead
    from models.network.checkpoint import load

    model, tokenizer = load(folder)
    if isinstance(model, ScalarHead):
        raise UserError("a reward model scores answers and can't write any: chat with sft or ppo")
    history: list[dict[str, str]] = []

    def draw() -> int:
        """A repeatable seed for each turn where one was given, else chance."""
        return secrets.randbits(31) if seed is None else seed + len(history)

    def answer(text: str) -> str:
        history.append({"role": "user", "content": text})
        pieces = []
        for piece in reply(model, tokenizer, history, max_new_tokens=max_tokens, temperature=temperature, seed=draw()):
            pieces.append(piece)
            if not json:
                print(piece, end="", flush=True)
        if not json:
            print()
        history.append({"role": "assistant", "content": "".join(pieces)})
        return history[-1]["content"]

    if message is not None:
        answer(message)
        if json:
            as_json({"checkpoint": str(folder), "messages": history})
        return 0
    if json:
        raise UserError("--json needs --message")
    if sys.stdin.isatty():
        print(f"{folder}\nAn empty line or Ctrl-D ends the chat.", file=sys.stderr)
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return 0
        if not text:
            return 0
        answer(text)
