"""An answer as it is written: from tokens to text, up to a stop string, with tool calls and log-probabilities apart."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from models.serving.chat import Pieces
from models.serving.engine import Token
from models.text.tokenizer import token_bytes
from models.text.tool_calls import CALL, CALL_END, OPENS, Call, as_json, calls_in

CALLS = 128  # of tools in one answer


class Writing:
    """One answer. `push` takes tokens and gives the text that is sure; after the last, `rest` what was held back.

    calls: what it asks of tools, as in OpenAI's messages, `most_calls` of them. reason: why it ended. offsets: where in
    the text each token begins that has a log-probability.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = (), most_calls: int = 0) -> None:
        self.tokenizer, self.stops, self.most_calls = tokenizer, list(stops), most_calls
        vocabulary = tokenizer.get_vocab() if most_calls else {}
        self.pieces = Pieces(tokenizer, {vocabulary[name] for name in (CALL, CALL_END) if name in vocabulary})
        # Templates write a call in a line of its own.
        self.openings = [*(f"\n{mark}" for mark in OPENS), *OPENS] if most_calls else []
        self.calls: list[dict[str, Any]] = []
        self.reason: str | None = None
        self.tokens = 0
        self.log_probs: list[dict[str, Any]] = []
        self.offsets: list[int] = []
        self._characters = 0
        self._held = ""
        self._called: str | None = None  # all from where a call begins
        self._cut = False  # by a stop string

    def push(self, token: Token) -> str:
        """The text that a token makes sure; `reason` is set where it ends the answer."""
        self.tokens += 1
        said = ""
        if token.ended != "stop":
            if token.log_prob is not None:
                self.log_probs.append(self._told(token))
                self.offsets.append(self._characters)
            piece = self.pieces.push(token.id)
            self._characters += len(piece)
            said = self._take(piece)
        self.reason = self.reason or token.ended
        return said

    def rest(self) -> str:
        """What was held back, once the answer has ended; calls of tools are read now."""
        if self._cut:
            return ""
        said = self._take(self.pieces.rest())
        if self._cut:
            return said
        said += self._held
        if self._called is not None:
            found = calls_in(self._called)
            if None in found:  # it can't be read: it stands as it was written, up to a stop string
                place = min((at for stop in self.stops if (at := self._called.find(stop)) >= 0), default=None)
                self.reason = self.reason if place is None else "stop"
                return said + self._called[:place]
            self.calls = [_as_call(call) for call in found if call][: self.most_calls]
            self.reason = "tool_calls" if self.reason == "stop" else self.reason
        return said

    def _take(self, piece: str) -> str:
        """The part of what is held and a new piece that is sure; sets `reason` at a stop string."""
        if self._called is not None:
            self._called += piece
            return ""
        text, marks = self._held + piece, [*self.stops, *self.openings]
        found = [(place, mark not in self.stops) for mark in marks if (place := text.find(mark)) >= 0]
        if found:
            place, opens = min(found)
            self._held = ""
            if opens:
                self._called = text[place:]
            else:
                self.reason, self._cut = "stop", True
            return text[:place]
        held = max((_overlap(text, mark) for mark in marks), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _told(self, token: Token) -> dict[str, Any]:
        told = self._alternative(token.id, token.log_prob or 0.0)
        return told | {"top_logprobs": [self._alternative(id, log_prob) for id, log_prob in token.top]}

    def _alternative(self, id: int, log_prob: float) -> dict[str, Any]:
        text, own = str(self.tokenizer.decode([id])), token_bytes(self.tokenizer, id)
        if own is None:
            own = None if "\ufffd" in text else text.encode()
        elif "\ufffd" in text:  # a part of a character: its bytes, as OpenAI writes them
            text = str(own)[2:-1]
        return {"token": text, "logprob": log_prob, "bytes": None if own is None else list(own)}


def _as_call(call: Call) -> dict[str, Any]:
    """A call as OpenAI's messages have it."""
    function = {"name": call.name, "arguments": as_json(call.arguments)}
    # Templates of Mistral's take ids of nine letters and digits alone.
    return {"id": secrets.token_hex(5)[:9], "type": "function", "function": function}


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of a text may begin a mark."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
