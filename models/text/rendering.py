"""Dialogues as token ids, and which of these the assistant wrote: by our own tokenizer, and by any other's template.

What a template writes is what `apply_chat_template` gives, token for token. The assistant's part is what the template
marks with {% generation %}. Where it marks nothing, an answer begins where the prompt for it ends, which must be how
the whole dialogue begins, in text and in tokens: the model then learns from what it will be asked with. It ends with
its last character and the token that ends the turn, if the template writes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from datalake.errors import UserError
from models.text.config import BOS, END
from models.text.control import Controls, Quoting, controls_of, signs
from models.text.template import ROLES
from models.text.tokenizer import encode, ours

_GENERATION = re.compile(r"\{%-?\s*generation\b")
_ADVICE = "so what the assistant said can't be told: give it a template with {% generation %}"
Messages = Sequence[dict[str, str]]
Span = tuple[int, int]  # of characters


class UnfitError(UserError):
    """This dialogue can't be written by this tokenizer's chat template; others may."""


def render(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, prompt: bool = False, masked: bool = True
) -> tuple[list[int], list[bool]]:
    """A dialogue as token ids, and which of them are the assistant's, the token that ends its turn included.

    With `prompt`, the ids end where the assistant is to speak. No content becomes a control token, whatever it spells.
    Without `masked` nothing is marked, and nothing refused for want of what tells the assistant's part.

    Raises:
        UserError: for an unknown role, or a tokenizer or template that can't do this.
        UnfitError: where it can't be done with this dialogue.
    """
    vocabulary = ours(tokenizer)
    if vocabulary is None:
        return _by_template(messages, tokenizer, prompt, masked)
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


def _by_template(messages: Messages, tokenizer: Any, prompt: bool, masked: bool = True) -> tuple[list[int], list[bool]]:
    if not tokenizer.chat_template:
        raise UserError(
            "this tokenizer has no chat template: put one beside it (chat_template.jinja), or take an instruction-tuned"
            " model or a tokenizer that was trained here"
        )
    controls = controls_of(tokenizer)
    coder: Controls | Quoting = controls
    messages = [m | {"content": m["content"].encode("utf-8", "replace").decode()} for m in messages]
    if any(controls.spells(m["content"], m["role"]) for m in messages):
        coder = quoting = Quoting(controls, [m["content"] for m in messages])
        messages = [m | {"content": quoting.quoted(m["content"], m["role"])} for m in messages]
    text, marked = _write(tokenizer, messages, prompt, marks=True)
    ids, starts = coder.encode(text)
    if _GENERATION.search(tokenizer.get_chat_template()):
        ends = [*starts[1:], len(text)]
        return ids, [any(e > first and s < last for first, last in marked) for s, e in zip(starts, ends, strict=True)]
    mask = [False] * len(ids)
    if prompt or not masked or not any(message["role"] == "assistant" for message in messages):
        return ids, mask  # what is asked has no part to learn
    for first, last, closing in _answers(text, messages, tokenizer):
        place = _begins(text, first, ids, starts, coder)
        while place < len(ids) and starts[place] < last:
            mask[place] = True
            place += 1
        if closing and ids[place - 1] != tokenizer.convert_tokens_to_ids(closing):
            raise UserError(f"this tokenizer doesn't read the {closing} after an answer as a token: take another one")
    return ids, mask


def _write(tokenizer: Any, messages: Messages, prompt: bool = False, marks: bool = False) -> tuple[str, list[Span]]:
    """A dialogue in the template's words, and what it marks as generation."""
    try:
        found: Any = render_jinja_template(
            [list(messages)],
            chat_template=tokenizer.get_chat_template(),
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=marks and bool(_GENERATION.search(tokenizer.get_chat_template())),
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        raise UnfitError(f"this tokenizer's chat template can't write the dialogue: {why}") from None
    (text, *_), spans = found
    return str(text), list(spans[0]) if spans else []


def _answers(whole: str, messages: Messages, tokenizer: Any) -> Iterator[tuple[int, int, str]]:
    """Where each of the assistant's answers stands in a dialogue that is written out, and the token that ends it."""
    said = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    before = [(_write(tokenizer, messages[:number], True)[0]) for number in said]
    # A template that opens no answer when asked to opens it with the answer: what is said begins with its first letter.
    opens = before[0] != _write(tokenizer, messages[: said[0]])[0]
    begin, end = signs([whole, *(message["content"] for message in messages)])
    last = messages[: said[-1] + 1]
    closed = _write(tokenizer, [_between(m, "" if opens else begin, end) for m in last])[0]
    written = _write(tokenizer, [_between(m, "" if opens else begin, end) for m in messages])[0]
    starts, stops = (_places(written, mark, begin + end) for mark in (begin, end))
    if written.replace(begin, "").replace(end, "") != whole or len(stops) != len(said):
        raise UnfitError(f"this tokenizer's chat template changes an answer, {_ADVICE}")
    after = controls_of(tokenizer).token_at(closed, closed.rindex(end) + 1)  # what ends a turn
    closing = re.compile(rf"\s*{re.escape(after)}")
    past = 0
    for place, (opened, stop) in enumerate(zip(before, stops, strict=True)):
        if not whole.startswith(opened) or not past <= len(opened) <= stop:
            raise UserError(
                f"this tokenizer's chat template writes a turn in another way once others follow, {_ADVICE}"
            )
        start = len(opened)
        if not opens and len(starts) == len(stops) and whole[start : starts[place]].strip():
            start = starts[place]
        found = closing.match(whole, stop) if after else None
        past = found.end() if found else stop
        yield start, past, after if found else ""


def _between(message: dict[str, str], begin: str, end: str) -> dict[str, str]:
    """A message of the assistant with signs about its text, inside the white space around it."""
    if message["role"] != "assistant":
        return message
    text = message["content"].strip()
    ahead = len(message["content"]) - len(message["content"].lstrip()) if text else 0
    return message | {
        "content": f"{message['content'][:ahead]}{begin}{text}{end}{message['content'][ahead + len(text) :]}"
    }


def _places(text: str, mark: str, marks: str) -> list[int]:
    """Where a mark stands in a text, in the text without any mark."""
    found = enumerate(re.finditer(f"[{marks}]", text))
    return [match.start() - passed for passed, match in found if match[0] == mark]


def _begins(text: str, first: int, ids: list[int], starts: list[int], coder: Controls | Quoting) -> int:
    """The token that begins an answer, once the tokens before it are those of the text before it.

    That text is encoded from the last added token on, where tokenizers begin anew, or from its beginning.
    """
    controls = coder.controls if isinstance(coder, Quoting) else coder
    added = set(controls.added.values())
    near = [place for place, start in enumerate(starts) if start < first and ids[place] in added][-1:]
    for anchor in [*near, 0]:
        alone = coder.encode(text[starts[anchor] if anchor else 0 : first])[0]
        if ids[anchor : anchor + len(alone)] == alone:
            return anchor + len(alone)
    raise UnfitError("this tokenizer's chat template runs into the answer: no token of its own begins it")
