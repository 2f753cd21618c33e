"""Control tokens: the strings that a tokenizer keeps for itself, and text that spells them as ordinary text.

A special token never comes out of text, whoever wrote it. Nor does any other added token that the chat template writes
(`<|im_start|>` isn't special everywhere), save in what the assistant says: <think> and <tool_call> are its own words.

Text that spells no control token goes through the tokenizer as it is. Where text does, its characters there are quoted,
each behind a sign that occurs nowhere else, so that they stay quoted whatever a template does with them; and the whole
goes through a twin of the tokenizer, whose control tokens have names that nobody can have written.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError

# Private-use characters, of which those that occur in no text at hand are taken as signs.
_SIGNS = range(0xF0000, 0xFFFFE)


def controls_of(tokenizer: PreTrainedTokenizerBase) -> Controls:
    """The control tokens of a tokenizer, worked out once. Raises UserError for one without a `tokenizer.json`."""
    state = str(tokenizer.chat_template), len(tokenizer)
    known: tuple[Any, Controls] | None = tokenizer.__dict__.get("_controls")
    if known is None or known[0] != state:
        known = tokenizer.__dict__["_controls"] = state, Controls(tokenizer)
    return known[1]


class Controls:
    """The control tokens of one tokenizer, and how text goes through it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"{type(tokenizer).__name__} has no tokenizer.json: save it as a fast tokenizer, "
                "or text could write its special tokens"
            )
        self.backend: Tokenizer = backend
        self.tokenizer: Any = tokenizer
        self.added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        named = set(tokenizer.all_special_tokens)
        tokens = tokenizer.added_tokens_decoder.values()
        self._special = [token.content for token in tokens if token.special or token.content in named]
        template = str(tokenizer.chat_template or "")
        self._written = [
            token.content
            for token in tokens
            if token.content in template and token.content not in self._special and token.content.strip()
        ]
        # Of these, what stands around a turn of the user belongs to no speaker.
        turn = self._dialogue(("user", "-")) if self._written else ""
        self._around = [name for name in self._written if name in turn]
        self.names = [*self._special, *self._written]
        self._normalized = [token.content for token in tokens if token.normalized and token.content in self.names]
        self._twins: dict[str, tuple[Tokenizer, dict[int, int]]] = {}

    def _dialogue(self, *turns: tuple[str, str]) -> str:
        """These turns in the template's words; empty where it won't have them."""
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception:  # whatever a template raises on a dialogue without what it asks for
            return ""

    @cached_property
    def end_of_turn(self) -> str:
        """The token with which the template ends what the assistant says; empty where it writes none."""
        text = self._dialogue(("user", "-"), ("assistant", chr(_SIGNS[0]))) if self.tokenizer.chat_template else ""
        return self.token_at(text, text.rfind(chr(_SIGNS[0])) + 1) if chr(_SIGNS[0]) in text else ""

    def token_at(self, text: str, place: int) -> str:
        """The added token at a place of a text, or after the white space there; empty where there is none."""
        found = re.compile(rf"\s*({_any(list(self.added)).pattern})").match(text, place)
        return found[1] if found else ""

    def kept(self, speaker: str = "assistant") -> list[str]:
        """What a speaker can't write; the author of a document is free as the assistant is."""
        return [*self._special, *(self._around if speaker == "assistant" else self._written)]

    def spells(self, text: str, speaker: str = "assistant") -> bool:
        """Whether a text spells what its speaker can't write."""
        return bool(_any(self.kept(speaker)).search(text)) or self._after_all(text)

    def _after_all(self, text: str) -> bool:
        """Whether a text becomes one that spells a control token once it is normalised."""
        normalizer = self.backend.normalizer
        if normalizer is None or not self._normalized:
            return False
        found: str = normalizer.normalize_str(text)
        return any(normalizer.normalize_str(name) in found for name in self._normalized)

    def encode(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """Ids of a text, control tokens where it spells them, and the places in it where each begins and ends."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = found["offset_mapping"]
        return list(found["input_ids"]), [start for start, _ in offsets], [end for _, end in offsets]

    def twin(self, sign: str) -> tuple[Tokenizer, dict[int, int]]:
        """The tokenizer with `sign` before the name of each control token, and what its added tokens' ids were."""
        if sign not in self._twins:
            self._twins = {sign: self._twin(sign)}
        return self._twins[sign]

    def _twin(self, sign: str) -> tuple[Tokenizer, dict[int, int]]:
        settings = json.loads(self.backend.to_str())
        model = settings["model"]
        merged = {"".join(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model.get("merges", ())}
        renamed = {name: sign + name for name in self.names}
        # What merges make can't go by another name; a text in which they make it is refused once it is met.
        words = {name: other for name, other in renamed.items() if name not in merged}
        if isinstance(model["vocab"], dict):
            model["vocab"] = {words.get(word, word): number for word, number in model["vocab"].items()}
        else:
            model["vocab"] = [[words.get(word, word), score] for word, score in model["vocab"]]
        if model.get("unk_token") in words:
            model["unk_token"] = words[model["unk_token"]]
        for token in settings["added_tokens"]:
            if token["content"] in renamed:
                token |= {"content": renamed[token["content"]], "normalized": False}
        settings |= {"post_processor": None, "truncation": None, "padding": None}
        twin = Tokenizer.from_str(json.dumps(settings))
        ids = ((twin.token_to_id(renamed.get(name, name)), number) for name, number in self.added.items())
        return twin, {other: number for other, number in ids if other is not None}


class Quoting:
    """Text whose quoted characters are never part of a control token: quote contents, then encode the whole.

    `texts`: all contents, none of which has the signs that are chosen.
    """

    def __init__(self, controls: Controls, texts: Iterable[str]):
        self.controls = controls
        self._quote, self._name = signs(texts)
        self._either = re.compile(f"{self._quote}(?s:(.))|({_any(controls.names).pattern})")

    def quoted(self, text: str, speaker: str = "assistant") -> str:
        """A text with what its speaker can't write quoted, character by character."""
        kept = _any(self.controls.kept(speaker))
        return kept.sub(lambda match: "".join(self._quote + letter for letter in match[0]), text)

    def encode(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """As `Controls.encode`, of a text with quoted characters; places are in the text as given.

        Raises UserError where the tokenizer makes a control token of ordinary text even so.
        """
        pieces: list[str] = []
        at, size, written = 0, 0, 0
        places, shifts = [0], [0]  # from each place of the encoded text on, how far on it stands in the given one
        for match in self._either.finditer(text):
            pieces += [text[at : match.start()], match[1] if match[1] is not None else self._name + match[2]]
            written += match[1] is None
            size += len(pieces[-2]) + len(pieces[-1])
            at = match.end()
            places.append(size)
            shifts.append(at - size)
        twin, ids = self.controls.twin(self._name)
        encoding = twin.encode("".join([*pieces, text[at:]]), add_special_tokens=False)
        found = [ids.get(number, number) for number in encoding.ids]
        reserved = {self.controls.added[name] for name in self.controls.names} - {self.controls.tokenizer.unk_token_id}
        if sum(number in reserved for number in found) > written:
            raise UserError(
                "this tokenizer makes special tokens of ordinary text, so what somebody writes could pass for them: "
                "take another tokenizer"
            )

        def placed(place: int) -> int:
            return place + shifts[bisect_right(places, place) - 1]

        starts = [placed(start) for start, _ in encoding.offsets]
        return found, starts, [min(placed(end - 1) + 1, placed(end)) if end else 0 for _, end in encoding.offsets]


def signs(texts: Iterable[str], count: int = 2) -> list[str]:
    """Characters for private use that occur in none of the texts."""
    taken = {letter for text in texts for letter in text if letter >= chr(_SIGNS[0])}
    return [sign for sign in map(chr, _SIGNS) if sign not in taken][:count]


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)")


def _any(names: Sequence[str]) -> re.Pattern[str]:
    """Any of these strings, the longest where several begin at one place, as tokenizers match added tokens."""
    return _pattern(tuple(names))
