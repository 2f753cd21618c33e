"""The names by which llama.cpp knows how a tokenizer splits text before it merges bytes (`tokenizer.ggml.pre`), told
of a tokenizer that is written to a GGUF file and put back into one that is read from it.

llama.cpp's converter looks a tokenizer up by a hash of what it makes of one text, and refuses every tokenizer that was
trained since. Here the regular expression itself is compared with those in llama.cpp's `src/llama-vocab.cpp`: a
tokenizer trained yesterday that splits as Qwen2's does is `qwen2`.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError

_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# What a tokenizer splits by, one step after another -> llama.cpp's name. "digits": each digit apart.
_KNOWN: dict[tuple[str, ...], str] = {
    (_SHORT + _WORDS + r"|\p{N}" + _REST,): "qwen2",
    (_SHORT + _WORDS + r"|\p{N}{1,3}" + _REST,): "llama-bpe",
    (_GPT2,): "gpt-2",
    ("digits", _GPT2): "smollm",
}
_NORMAL_FORM = ({"type": "NFC"},)  # Qwen's: llama.cpp leaves it out, and text is nearly always in it
# Both ways in which a contraction is written.
_SPELLINGS = (r"'(?i:[sdmt]|ll|ve|re)", r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])")


def pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """llama.cpp's name of how a byte-level tokenizer splits text.

    Raises:
        UserError: for a tokenizer that llama.cpp could only read with other ids.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    model = described.get("model") or {}
    other = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    # Bytes that no text it was trained on had may be missing: llama.cpp leaves them out as tokenizers do.
    byte_level = _describes(described.get("pre_tokenizer"), "ByteLevel")
    if model.get("type") != "BPE" or model.get("unk_token") or other or not byte_level:
        raise UserError("GGUF is written of byte-level BPE tokenizers, as the tokenizer stage trains: leave out --gguf")
    name = _KNOWN.get(_steps(described.get("pre_tokenizer")))
    normal = described.get("normalizer")
    whole = bool(model.get("ignore_merges"))  # a word that is a token is taken whole: of these, Llama 3's alone
    if name is None or whole != (name == "llama-bpe") or (normal is not None and normal not in _NORMAL_FORM):
        raise UserError(
            "llama.cpp knows no way of splitting text that equals this tokenizer's, so ids would differ: export the"
            f" folder without --gguf (known are {', '.join(sorted(_KNOWN.values()))})"
        )
    return name


def named(name: str, described: Any) -> PreTokenizer | None:
    """The pre-tokenizer that llama.cpp knows by a name; None for one that isn't known here, or where the one described
    (as `tokenizers` writes it) splits in the same way."""
    steps = next((steps for steps, known in _KNOWN.items() if known == name), None)
    if steps is None or steps == _steps(described):
        return None
    parts: list[PreTokenizer] = []
    for step in steps:
        if step == "digits":
            parts.append(Digits(individual_digits=True))
        elif step == _GPT2:
            parts.append(ByteLevel(add_prefix_space=False))
        else:
            parts += [Split(Regex(step), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    return Sequence(parts)


def _describes(described: Any, kind: str) -> bool:
    """Whether a step of this kind is among those of a pre-tokenizer."""
    if not isinstance(described, dict):
        return False
    return described["type"] == kind or any(_describes(part, kind) for part in described.get("pretokenizers", ()))


def _steps(described: Any) -> tuple[str, ...]:
    """What a pre-tokenizer splits by, one step after another; something unknown is a step that equals none."""
    if not isinstance(described, dict):
        return ()
    kind = described["type"]
    if kind == "Sequence":
        return tuple(step for part in described["pretokenizers"] for step in _steps(part))
    if kind == "Digits" and described.get("individual_digits"):
        return ("digits",)
    if kind == "ByteLevel" and not described.get("add_prefix_space"):
        return (_GPT2,) if described.get("use_regex", True) else ()
    pattern = described.get("pattern") or {}
    if kind == "Split" and described.get("behavior") == "Isolated" and not described.get("invert"):
        return (_plain(pattern.get("Regex", "")),)
    return (f"unknown {kind}",)


def _plain(regex: str) -> str:
    """A regular expression with its contractions in one spelling."""
    for spelling in _SPELLINGS:
        regex = regex.replace(spelling, _SHORT)
    return regex
