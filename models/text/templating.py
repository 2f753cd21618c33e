"""A tokenizer with another chat template than its own, and with the tokens that this template writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from models.text import tokenizer
from models.text.tokenizer import vocabulary_size

_NAMED = re.compile(r"\{#-?.*?Tokens: (.*?)-?#\}", re.S)
_LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>\s]{1,60}｜>|\[/?INST\]|\b(?:bos|eos)_token\b")
# Tokens that families keep for what comes later: ours, Llama 3's, Qwen's and Phi's, Gemma's, BERT's.
_SPARE = re.compile(r"<\|(?:spare|reserved_special_token|extra|dummy)_\d+\|>|<unused\d+>|\[unused\d+\]")


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
    with TemporaryDirectory(prefix="headwater-") as folder:
        tokenizer.save(words, Path(folder))
        for path in Path(folder).glob("*.json"):
            text = path.read_text(encoding="utf-8")
            for name, other in names.items():
                text = text.replace(json.dumps(name), json.dumps(other, ensure_ascii=False))
            path.write_text(text, encoding="utf-8")
        return tokenizer.load(folder)
