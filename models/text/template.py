"""Chat templates as data: how a dialogue becomes one sequence of tokens, in Jinja as Transformers renders it.

Each file of `templates/` is one, called by its name; its first comment names the tokens that it writes. A template is
stored with the tokenizer, so that any program that applies it writes dialogues as training did. `generation` blocks
mark what the assistant says, with the token that ends it; Transformers reads them as the assistant mask.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from datalake.errors import UserError
from models.text.config import ASSISTANT, SYSTEM, TEMPLATES, USER

# Role -> the special token that its message opens with; a tool's result has two of its own.
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
_NAMED = re.compile(r"\{#-?.*?Tokens: (.*?)-?#\}", re.S)
_LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>\s]{1,60}｜>|\[/?INST\]|\b(?:bos|eos)_token\b")
# Tokens that families keep for what comes later: ours, Llama 3's, Qwen's and Phi's, Gemma's, BERT's.
_SPARE = re.compile(r"<\|(?:spare|reserved_special_token|extra|dummy)_\d+\|>|<unused\d+>|\[unused\d+\]")


def read(path: Path) -> str:
    """A template as it is stored with a tokenizer. Raises UserError where it is none."""
    try:
        template = path.read_text(encoding="utf-8").rstrip("\n")
        render_jinja_template([[{"role": "user", "content": "-"}]], chat_template=template)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the chat template {path} can't be read: {' '.join(str(error).split())[:200]}") from None
    except TemplateSyntaxError as error:
        raise UserError(f"{path} is no Jinja template: {error.message} (line {error.lineno})") from None
    except (TemplateError, TypeError, ValueError, LookupError):
        pass  # it wants more than a question
    return template


def tokens_of(template: str) -> list[str]:
    """The tokens that a template writes, as its first comment names them, or what looks like one; `eos_token` and
    `bos_token` stand for the tokenizer's own."""
    named = _NAMED.match(template)
    return list(dict.fromkeys(named[1].split() if named else _LOOKS_SPECIAL.findall(template)))


def with_template(words: PreTrainedTokenizerBase, template: str, rows: int) -> PreTrainedTokenizerBase:
    """A tokenizer with another chat template, and with the tokens that it needs.

    What the tokenizer lacks takes the names of its spare tokens, or else free rows of the model's embedding, of which
    there are `rows`. Raises UserError where there is neither.
    """
    from models.text.tokenizer import vocabulary_size

    known = words.get_vocab()
    own = ("bos_token", "eos_token")
    lacks = [name for name in tokens_of(template) if name in own and getattr(words, name) is None]
    missing = [name for name in tokens_of(template) if name not in own and name not in known]
    if lacks:
        raise UserError(
            f"the chat template needs the tokenizer's {lacks[0]}, and it has none: name it in tokenizer_config.json,"
            " or take another sft.template"
        )
    spares = sorted((name for name in words.added_tokens_encoder if _SPARE.fullmatch(name)), key=known.__getitem__)
    if missing and len(missing) <= len(spares):
        words = _renamed(words, dict(zip(spares, missing, strict=False)))
    elif missing and vocabulary_size(words) + len(missing) <= rows:
        words.add_tokens(missing, special_tokens=True)
    elif missing:
        raise UserError(
            f"the chat template needs {', '.join(missing)}, which this tokenizer hasn't, and neither it nor the model "
            f"has room for more: take another sft.template (alpaca needs no token), or leave it out"
        )
    words.chat_template = template
    return words


def _renamed(words: PreTrainedTokenizerBase, names: dict[str, str]) -> Any:
    """The tokenizer with some of its tokens called otherwise."""
    from models.text import tokenizer

    with TemporaryDirectory(prefix="headwater-") as folder:
        tokenizer.save(words, Path(folder))
        for path in Path(folder).glob("*.json"):
            text = path.read_text(encoding="utf-8")
            for name, other in names.items():
                text = text.replace(json.dumps(name), json.dumps(other, ensure_ascii=False))
            path.write_text(text, encoding="utf-8")
        return tokenizer.load(folder)


CHAT_TEMPLATE = read(TEMPLATES / "headwater.jinja")
