"""Chat templates as data: how a dialogue becomes one sequence of tokens, in Jinja as Transformers renders it.

Each file of `templates/` is one, called by its name; its first comment names the tokens that it writes. A template is
stored with the tokenizer, so that any program that applies it writes dialogues as training did. `generation` blocks
mark what the assistant says, with the token that ends it; Transformers reads them as the assistant mask.
"""

from __future__ import annotations

from pathlib import Path

from models.text.config import ASSISTANT, SYSTEM, USER

TEMPLATES = Path(__file__).parent / "templates"
# Role -> the special token that its message opens with; a tool's result has two of its own.
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def names() -> list[str]:
    """The templates at hand."""
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def read(name: str) -> str:
    """A template at hand, by its name, as it is stored with a tokenizer."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


CHAT_TEMPLATE = read("headwater")
