"""The tokenizer: byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; bytes as in Radford et al. 2019), kept as a
folder that Transformers' `AutoTokenizer` loads, and the one place where text becomes token ids.

Text is split as GPT-4's cl100k does (letters with one leading character, punctuation, line ends), but every digit
stands alone, so that numbers are read place by place. Text never yields a special token, whatever it contains: a user
who writes `<|end|>` gets the tokens of those seven characters. Code puts special tokens in by their ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from datalake.atomic import whole_folder
from datalake.errors import UserError
from models import gguf
from models.text.config import BOS, DIALOGUE, END, EOS, MASK, PAD, SPECIALS, TokenizerConfig
from models.text.control import Controls, Quoting, controls_of
from models.text.template import CHAT_TEMPLATE

SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Between two words matched by `SPLIT` in any text, whatever else stands in it: no alternative goes on over a space or
# tab after what is neither white space nor a line's end, from a line's end to what follows, or from a letter to a mark.
_SAFE = re.compile(r"(?<=[\w!-~])(?=[ \t])|(?<=\n)(?=[\w!-~])|(?<=[\u4e00-\u9fa5])(?=[，。、！？；：])")
PIECE = 100_000  # characters given to the tokenizer at once: its regular expression fails at ten million blanks
_CHARACTER = 8  # tokens of one character at most, and some to spare
_LOOK = 1_000  # characters looked through at once, from the end, for a place to cut
_TOGETHER = 4_000_000  # characters encoded at once: some 100 bytes of memory each
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte that no token of a SentencePiece vocabulary has
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
        mask_token=MASK,
        additional_special_tokens=[name for name in SPECIALS if name not in (BOS, EOS, PAD, MASK)],
        clean_up_tokenization_spaces=False,
        model_max_length=1 << 30,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    folder = Path(folder)
    with whole_folder(folder) as temporary:
        save(wrapped, temporary)
    return load(folder)


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer so that Transformers 4 reads it as well as 5.

    Transformers 5 names a class that 4 doesn't have, and lists special tokens where 4 expects a mapping; it reads the
    names of 4.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    for name in ("backend", "is_local", "local_files_only"):  # how it was loaded here
        settings.pop(name, None)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


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
    """The tokenizer in a folder, ours or any other's, or in a GGUF file; code that lies there runs with
    `trust_remote_code` alone.

    Raises UserError where there is none.
    """
    folder = Path(folder)
    if gguf.is_gguf(folder):
        return _whole(gguf.read_tokenizer(folder))
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
    return _whole(tokenizer)


def _whole(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that neither cuts nor pads, whatever its file was last used for: `tokenizer.json` remembers that."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without any control token, even where the text spells one out.

    A long text goes through our own tokenizer in pieces, so that time and memory grow with its length alone: cut where
    that changes no token, or, in a run of `PIECE` characters without such a place, where the run is that long. What
    isn't a character (a lone surrogate) is read as a question mark.
    """
    if ours(tokenizer) is None:
        controls = controls_of(tokenizer)
        spelled = [number for number, text in enumerate(texts) if controls.spells(text)]
        if spelled:
            rest = iter(encode(tokenizer, [text for text in texts if not controls.spells(text)]))
            return [_quoted(controls, text) if number in spelled else next(rest) for number, text in enumerate(texts)]
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    cut = ours(tokenizer) is not None
    found: list[list[int]] = [[] for _ in texts]
    batch: list[tuple[int, str]] = []
    room = 0

    def flush() -> None:
        pieces = [piece for _, piece in batch]
        try:
            encodings = backend.encode_batch_fast(pieces, add_special_tokens=False)
        except TypeError:
            pieces = [piece.encode("utf-8", "replace").decode() for piece in pieces]
            encodings = backend.encode_batch_fast(pieces, add_special_tokens=False)
        for (number, _), encoding in zip(batch, encodings, strict=True):
            found[number] += encoding.ids
        batch.clear()

    for number, text in enumerate(texts):
        for piece in _pieces(text) if cut else [text]:
            if batch and len(piece) > room:
                flush()
            room = _TOGETHER if not batch else room
            batch.append((number, piece))
            room -= len(piece)
    if batch:
        flush()
    return found


def _quoted(controls: Controls, text: str) -> list[int]:
    quoting = Quoting(controls, [text])
    return quoting.encode(quoting.quoted(text))[0]


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most `PIECE` characters."""
    start = 0
    while len(text) - start > PIECE:
        end = _cut(text, start, start + PIECE)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int, end: int) -> int:
    """The last place after `start` and up to `end` where a text can be cut and has the same tokens, or `end`."""
    for stop in range(end, start, -_LOOK):
        place = start
        for match in _SAFE.finditer(text, max(stop - _LOOK, start + 1), min(stop + 1, end + 1)):
            place = match.start()
        if place > start:
            return place
    return end


def beginning(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], room: int) -> tuple[list[int], int]:
    """The first `room` of a text's tokens, or some fewer to end with a whole character, and their bytes of it."""

    def written(count: int) -> str:
        return str(tokenizer.decode(ids[:count], clean_up_tokenization_spaces=False))

    count = next((n for n in range(room, max(room - _CHARACTER, 0), -1) if text.startswith(written(n))), room)
    return ids[:count], len(written(count).encode("utf-8", "replace"))


def special(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a special token. Raises UserError for a tokenizer that has it not."""
    number = tokenizer.backend_tokenizer.token_to_id(token)  # not `get_vocab`, which copies every token
    if number is None:
        raise UserError(f"this tokenizer has no {token}: use one that the tokenizer stage trained")
    return int(number)


def edges(tokenizer: PreTrainedTokenizerBase) -> tuple[int | None, int | None]:
    """The tokens that a document begins and ends with, bos and eos (or cls and sep, as encoders call them); None for
    one that the tokenizer hasn't.

    Raises:
        UserError: for one that has neither, so that documents couldn't be told apart, or has no `tokenizer.json`.
    """
    controls_of(tokenizer)
    begin = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if begin is None and end is None:
        raise UserError(
            "this tokenizer has no token to begin or end a document with: name its eos_token in tokenizer_config.json"
        )
    return begin, end


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than a tokenizer's largest id: the rows that an embedding needs. There may be gaps below."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))


def check_rows(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raises UserError where text, the chat template or a document's edges come to a token for which an embedding of so
    many rows has none. A token that nothing writes, such as padding that was added later, does no harm."""
    if vocabulary_size(tokenizer) <= rows:
        return
    template = str(tokenizer.chat_template or "")
    idle = {name for name in tokenizer.all_special_tokens if name not in template}
    idle -= {tokenizer.bos_token, tokenizer.eos_token, tokenizer.cls_token, tokenizer.sep_token}
    beyond = {number: name for name, number in tokenizer.get_vocab().items() if number >= rows and name not in idle}
    if beyond:
        raise UserError(
            f"the tokenizer has {len(beyond):,} tokens beyond the {rows:,} that the model has rows for, such as"
            f" {beyond[min(beyond)]!r}: take the tokenizer that came with the model, or a model made larger for it"
        )


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends what the assistant says: what its chat template writes, <|end|> where the tokenizer has it,
    or its end of text; None for one that has nothing of the kind."""
    vocabulary = tokenizer.get_vocab()
    written = controls_of(tokenizer).end_of_turn if tokenizer.chat_template else ""
    number = vocabulary.get(written or END, tokenizer.eos_token_id)
    return None if number is None else int(number)


def token_bytes(tokenizer: PreTrainedTokenizerBase, id: int) -> bytes | None:
    """The bytes of a token, which may be a part of a character; None where its tokenizer writes no bytes, or it is one
    that was added."""
    name = tokenizer.convert_ids_to_tokens(id)
    if not isinstance(name, str) or id in tokenizer.added_tokens_decoder:
        return None
    if not isinstance(getattr(tokenizer.backend_tokenizer, "decoder", None), decoders.ByteLevel):
        fallback = _BYTE.fullmatch(name)
        return bytes([int(fallback[1], 16)]) if fallback else None
    found = [_letters().get(letter) for letter in name]
    return None if None in found else bytes(found)  # type: ignore[arg-type]


@cache
def _letters() -> dict[str, int]:
    """The byte behind each letter of a byte-level vocabulary (Radford et al. 2019): those that can be seen are their
    own letters, in their order, the others come after U+0100."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: Any = None) -> list[int]:
    """Ids that end an answer: the end of a turn, the end of text, and what the model's own generation settings name
    (`stops`, as `models.network.checkpoint.load` finds them)."""
    ids = {end_of_turn(tokenizer), tokenizer.eos_token_id, *getattr(model, "stops", ())}
    return sorted(number for number in ids if number is not None)


def control_ids(tokenizer: PreTrainedTokenizerBase, model: Any = None) -> list[int]:
    """Ids of the special tokens that dialogues are written with: the chat template's, and what ends an answer."""
    template = str(tokenizer.chat_template or "")
    written = {id for id, token in tokenizer.added_tokens_decoder.items() if token.content in template}
    return sorted({*written, *stop_ids(tokenizer, model)})


def ours(tokenizer: PreTrainedTokenizerBase) -> dict[str, int] | None:
    """The ids of the special tokens that dialogues are made of; None for a tokenizer that wasn't trained here."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    ids = {name: backend.token_to_id(name) for name in DIALOGUE}
    return None if None in ids.values() else ids
