"""An Ollama Modelfile for a GGUF file: where it is, how dialogues are written, what ends an answer.

Ollama writes dialogues by templates of Go (`text/template`), not of Jinja: each of the templates that come with us has
its counterpart beside it here, `templates/NAME.go`, for messages of text. Offering tools is left to what reads the GGUF
file's own template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from models.text import template
from models.text.config import TEMPLATES

GO_TEMPLATES = Path(__file__).parent / "templates"


def go_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The counterpart in Go of a tokenizer's chat template; None for one that didn't come with us."""
    for path in sorted(GO_TEMPLATES.glob("*.go")):
        if template.read(TEMPLATES / f"{path.stem}.jinja") == tokenizer.chat_template:
            text = path.read_text(encoding="utf-8").rstrip("\n")
            for name in ("bos_token", "eos_token"):
                text = text.replace(f"<{name}>", getattr(tokenizer, name) or "")
            return text
    return None


def modelfile(gguf: Path, tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> str:
    """The text of a Modelfile that lies beside a GGUF file; `stops` end an answer."""
    ends = [str(tokenizer.convert_ids_to_tokens(id)) for id in stops]
    lines = [f"FROM ./{gguf.name}"]
    found = go_template(tokenizer)
    if found is not None:
        lines.append(f'TEMPLATE """{found}"""')
    elif tokenizer.chat_template:
        lines.append("# The chat template has no counterpart in Go here: write TEMPLATE, or Ollama guesses one.")
    lines += [f'PARAMETER stop "{end}"' for end in ends]
    return "\n".join(lines) + "\n"
