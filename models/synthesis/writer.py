"""Whoever writes for training, behind one interface: a model at hand, or an OpenAI-compatible endpoint.

    ask = writer(config, folder, key, answers)
    ask([[{"role": "user", "content": "..."}]], seeds=[1])      # -> [Reply]
    ask.choose(dialogues, seeds)                                # -> the probability of "A" over "B", or None

Answers are kept by what was asked, so that nothing is asked twice, whatever ended the one who asked. A model at hand
writes so many dialogues at once (`batch`), and these are kept together: what one becomes depends on its neighbours'
lengths in the last bits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from datalake.errors import UserError
from datalake.files import file_digest, folder_version
from datalake.identity import fingerprint
from models.serving.endpoint import Answers, Client, Reply
from models.synthesis.config import WriterConfig

Messages = Sequence[dict[str, str]]
LETTERS = ("A", "B")
# A judge's verdict: a letter that stands alone at the beginning, or on the last line, or is said to be the answer.
_ALONE = r"[*(\[【（\"“ ]{0,6}([AB])[*)\]】）\"”]{0,6}"
_BEGINS = re.compile(rf"{_ALONE} {{0,6}}(?:[.:：。,，;\n]|$)")
_ENDS = re.compile(rf"{_ALONE}[.。]?")
_SAID = re.compile(
    rf"(?:answer|choice|verdict|better|答案|选择|选项|更好)(?: is| are|:|：|是|为)?{_ALONE}(?![A-Za-z'])", re.I
)
_LOOK = 200  # characters at each end of an answer


class Writer(Protocol):
    """Answers dialogues. `name` tells who it is, for whoever reads what it wrote."""

    name: str

    def __call__(self, dialogues: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        """An answer to each dialogue, drawn by its seed."""

    def choose(self, dialogues: Sequence[Messages], seeds: Sequence[int]) -> list[float | None]:
        """To dialogues that ask for "A" or "B": the probability of "A", of a letter alone 0 or 1; None for neither."""

    def usage(self) -> dict[str, int]:
        """What was asked and written so far; `requests` are those that were made now."""


def writer(config: WriterConfig, folder: Path | None, key: str, answers: Path) -> Writer:
    """The writer of a config: `folder` of the model at hand, `key` of the endpoint, `answers` where these are kept."""
    if config.endpoint is not None:
        return Remote(config, key, Answers(answers))
    assert folder is not None, "a model at hand lies in a folder"
    return Local(config, folder, Answers(answers))


class _Counted:
    """Adds up what replies took."""

    def __init__(self) -> None:
        self._replies = self._prompt = self._new = 0

    def _took(self, replies: Sequence[Reply]) -> list[Reply]:
        self._replies += len(replies)
        self._prompt += sum(reply.prompt_tokens for reply in replies)
        self._new += sum(reply.new_tokens for reply in replies)
        return list(replies)

    def usage(self) -> dict[str, int]:
        return {"answers": self._replies, "prompt_tokens": self._prompt, "new_tokens": self._new}


class Remote(_Counted):
    """A model behind an endpoint."""

    def __init__(self, config: WriterConfig, key: str, answers: Answers):
        super().__init__()
        assert config.endpoint is not None
        self.config, self.client = config, Client(config.endpoint, key, answers)
        self.name = f"{config.endpoint.model} at {config.endpoint.url.partition('?')[0]}"

    def _ask(self, dialogues: Sequence[Messages], seeds: Sequence[int], tokens: int, temperature: float) -> list[Reply]:
        chat = self.config.format == "chat"
        requests = [
            ({"messages": list(messages)} if chat else {"prompt": as_text(messages)})
            | {"max_tokens": tokens, "temperature": temperature, "top_p": self.config.top_p, "seed": seed}
            for messages, seed in zip(dialogues, seeds, strict=True)
        ]
        return self._took(self.client.ask(requests, "chat/completions" if chat else "completions"))

    def __call__(self, dialogues: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        """As every writer."""
        return self._ask(dialogues, seeds, self.config.new_tokens, self.config.temperature)

    def choose(self, dialogues: Sequence[Messages], seeds: Sequence[int]) -> list[float | None]:
        """By the letter that is written at temperature 0."""
        replies = self._ask(dialogues, seeds, self.config.new_tokens, 0)
        letters = [letter(reply.text) for reply in replies]
        return [None if one is None else float(one == LETTERS[0]) for one in letters]

    def usage(self) -> dict[str, int]:
        """As every writer."""
        return super().usage() | {name: self.client.counts[name] for name in ("requests", "retries")}


class Local(_Counted):
    """A model at hand; loaded when something is asked that it wasn't asked before."""

    def __init__(self, config: WriterConfig, folder: Path, answers: Answers):
        super().__init__()
        self.config, self.folder, self.answers = config, folder, answers
        self.version = folder_version(folder) if folder.is_dir() else file_digest(str(folder))
        self.name = f"model {self.version[:16]}"
        self._requests = 0

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from models.network.checkpoint import load_language_model
        from models.text.tokenizer import load

        return load_language_model(self.folder).eval(), load(self.folder)

    def __call__(self, dialogues: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        """As every writer."""
        config = self.config
        replies: list[Reply] = []
        for first in range(0, len(dialogues), config.batch):
            batch = [list(messages) for messages in dialogues[first : first + config.batch]]
            drawn = list(seeds[first : first + config.batch])
            drawing = [config.format, config.temperature, config.top_p, config.new_tokens]
            key = fingerprint({"model": self.version, "drawing": drawing, "dialogues": batch, "seeds": drawn})
            found = self.answers.get(key)
            if found is None or len(found) != len(batch):
                found = self._write(batch, drawn)
                self.answers.put(key, found)
            replies += found
        return self._took(replies)

    def _ids(self, messages: Messages) -> list[int]:
        from models.text.rendering import render
        from models.text.tokenizer import edges, encode

        _, words = self._loaded
        if self.config.format == "chat":
            return render(messages, words, prompt=True, masked=False)[0]
        begins = edges(words)[0]
        return [*([] if begins is None else [begins]), *encode(words, [as_text(messages)])[0]]

    def _write(self, batch: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        import torch

        from models.network.generate import generate
        from models.text.tokenizer import stop_ids, vocabulary_size

        model, words = self._loaded
        config, context = self.config, int(model.config.context)
        prompts = [self._ids(messages) for messages in batch]
        fits = [place for place, ids in enumerate(prompts) if len(ids) + config.new_tokens <= context]
        replies = [Reply("", False, f"refused: a prompt of {len(ids)} tokens in {context}") for ids in prompts]
        stops = set(stop_ids(words, model))
        draw = torch.Generator().manual_seed(int(fingerprint(list(seeds))[:15], 16))
        written = generate(
            model,
            [prompts[place] for place in fits],
            config.new_tokens,
            config.temperature,
            config.top_p,
            eos_id=stops,
            generator=draw,
            vocabulary=vocabulary_size(words),
        )
        for place, ids in zip(fits, written, strict=True):
            ended = bool(ids) and ids[-1] in stops
            text = str(words.decode(ids[:-1] if ended else ids, skip_special_tokens=True))
            problem = "" if text.strip() else "empty: no content"
            replies[place] = Reply(text, ended, problem, len(prompts[place]), len(ids))
        self._requests += len(batch)
        return replies

    def choose(self, dialogues: Sequence[Messages], seeds: Sequence[int]) -> list[float | None]:
        """By the logits of the two letters, which need no drawing."""
        chosen: list[float | None] = []
        for messages in dialogues:
            key = fingerprint({"model": self.version, "choose": [self.config.format, list(messages)]})
            found = self.answers.get(key)
            if found is None:
                found = [self._weigh(messages)]
                self.answers.put(key, found)
            self._took(found)
            chosen.append(float(found[0].text) if not found[0].problem else None)
        return chosen

    def _weigh(self, messages: Messages) -> Reply:
        """The probability of "A" beside "B" as what comes next."""
        import torch

        from models.text.tokenizer import encode

        model, words = self._loaded
        ids = self._ids(messages)
        if len(ids) >= int(model.config.context):
            return Reply("", False, f"refused: a prompt of {len(ids)} tokens in {int(model.config.context)}")
        spelt = [encode(words, [letter, f" {letter}"]) for letter in LETTERS]
        alone = [[one[0] for one in ways if len(one) == 1] for ways in spelt]
        if not all(alone):
            raise UserError("the judge's tokenizer has no token of its own for A and B: take another model as judge")
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([ids], device=next(model.parameters()).device))[:, -1])[0].double()
        masses = [logits[torch.tensor(one)].logsumexp(0) for one in alone]
        self._requests += 1
        return Reply(repr(round(float(torch.sigmoid(masses[0] - masses[1])), 6)), True, "", len(ids), 0)

    def usage(self) -> dict[str, int]:
        """As every writer."""
        return super().usage() | {"requests": self._requests}


def as_text(messages: Messages) -> str:
    """A dialogue as a text to be gone on from: what is said, a paragraph each."""
    return "\n\n".join(message["content"] for message in messages)


def letter(text: str) -> str | None:
    """The one of the letters that a judge's answer names; None where it names none clearly."""
    text = text.strip()
    first, last = text[:_LOOK], text[-_LOOK:]
    found = (
        _BEGINS.match(first) or _ENDS.fullmatch(last.rpartition("\n")[2]) or _SAID.search(first) or _SAID.search(last)
    )
    return found[1].upper() if found else None
