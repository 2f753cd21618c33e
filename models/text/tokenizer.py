"""The tokenizer: byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; bytes as in Radford et al. 2019), kept as a
folder that Transformers' `AutoTokenizer` loads, and the one place where text becomes token ids.

Text is split as GPT-4's cl100k does (letters with one leading character, punctuation, line ends), but every digit
stands alone, so that numbers are read place by place. Text never yields a special token, whatever it contains: a user
who writes `<|end|>` gets the tokens of those seven characters. Code puts special tokens in by their ids.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from datalake.errors import UserError
from models.text.config import BOS, END, EOS, PAD, SPECIALS, TokenizerConfig
from models.text.template import CHAT_TEMPLATE, ROLES

SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RUN = 10_000  # characters without a split (a data blob) are cut here, so that no word costs the trainer its memory


def train(texts: Iterable[str], config: TokenizerConfig, folder: Path | str) -> PreTrainedTokenizerBase:
    """Train on texts in their order and save to `folder`, atomically; equal texts and config give equal bytes.

    Raises:
        UserError: where the texts hold nothing to learn from.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        min_frequency=config.min_frequency,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    taken = _Taken(texts, config.sample_bytes)
    tokenizer.train_from_iterator(taken, trainer)
    if not taken.bytes:
        raise UserError("no text to train a tokenizer on: lower mixture.holdout, or choose a milder curate.preset")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(SPECIALS[3:]),
        clean_up_tokenization_spaces=False,
        model_max_length=1 << 30,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        wrapped.save_pretrained(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load(folder)


class _Taken:
    """Texts in order, until `limit` bytes; counts what it gave."""

    def __init__(self, texts: Iterable[str], limit: int):
        self.texts, self.limit, self.bytes = texts, limit, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            room = self.limit - self.bytes
            if room <= 0:
                return
            encoded = text.encode("utf-8", "replace")
            if len(encoded) > room:
                encoded = encoded[:room]
                text = encoded.decode("utf-8", "ignore")
            self.bytes += len(encoded)
            for start in range(0, len(text), _RUN):
                yield text[start : start + _RUN]


def load(folder: Path | str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, ours or any other's; code that lies there runs with `trust_remote_code` alone.

    Raises UserError where there is none.
    """
    folder = Path(folder)
    if not (folder / "tokenizer_config.json").is_file() and not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} holds no tokenizer: expected tokenizer.json, as the tokenizer stage or a model has it"
        )
    try:
        if (folder / "tokenizer.json").is_file():
            json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"the tokenizer in {folder} can't be read: {' '.join(str(error).split())[:200]}") from None
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without any special token, even where the text spells one out."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    return [found.ids for found in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def special(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a special token. Raises UserError for a tokenizer that has it not."""
    number = tokenizer.get_vocab().get(token)
    if number is None:
        raise UserError(f"this tokenizer has no {token}: use one that the tokenizer stage trained")
    return int(number)


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: <|end|> where the tokenizer has it, and its end of text."""
    vocabulary = tokenizer.get_vocab()
    ids = {vocabulary[END]} if END in vocabulary else set()
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return sorted(ids)


def render(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """A dialogue as token ids, and which of them are the assistant's (its closing <|end|> included).

    With `prompt`, the ids end where the assistant is to speak. Contents are encoded piece by piece, so they can't spell
    special tokens. A tokenizer without our special tokens goes through its own chat template instead, which promises
    no such safety.

    Raises:
        UserError: for an unknown role, or a tokenizer that knows no dialogues.
    """
    vocabulary = tokenizer.get_vocab()
    if any(name not in vocabulary for name in SPECIALS):
        return _render_by_template(messages, tokenizer, prompt)
    for message in messages:
        if message["role"] not in ROLES:
            raise UserError(f"unknown role {message['role']!r}: use system, user, assistant or tool")
    ids, mask = [vocabulary[BOS]], [False]
    for message, content in zip(messages, encode(tokenizer, [m["content"] for m in messages]), strict=True):
        said = message["role"] == "assistant"
        ids += [vocabulary[ROLES[message["role"]]], *content, vocabulary[END]]
        mask += [False, *([said] * (len(content) + 1))]
    if prompt:
        ids.append(vocabulary[ROLES["assistant"]])
        mask.append(False)
    return ids, mask


def _render_by_template(
    messages: Sequence[dict[str, str]], tokenizer: Any, prompt: bool
) -> tuple[list[int], list[bool]]:
    """By the tokenizer's own template; the assistant's part of each turn is what follows its generation prompt."""
    if not tokenizer.chat_template:
        raise UserError(
            "this tokenizer has no chat template: take an instruction-tuned model, or train a tokenizer here"
        )

    def ids_of(count: int, opened: bool) -> list[int]:
        text = tokenizer.apply_chat_template(list(messages[:count]), tokenize=False, add_generation_prompt=opened)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = ids_of(len(messages), prompt)
    mask = [False] * len(ids)
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = len(ids_of(number, True)), len(ids_of(number + 1, False))
            mask[start:end] = [True] * (min(end, len(ids)) - start)
    return ids, mask
