"""Dialogues as token ids, and which of these the assistant wrote: by our own tokenizer, and by any other's template.

What a template writes is what `apply_chat_template` gives, token for token. The assistant's part is what the template
marks with {% generation %}. Where it marks nothing, an answer begins where the prompt for it ends, which must be how
the whole dialogue begins, in text and in tokens: the model then learns from what it will be asked with. It ends with
its last character and the token that ends the turn, if the template writes one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from datalake.errors import UserError
from models.text.config import BOS, END
from models.text.control import Controls, Quoting, controls_of, signs
from models.text.template import CHAT_TEMPLATE, ROLES
from models.text.tokenizer import encode, ours, special
from models.text.tool_calls import CALL, CALL_END, RESULT, RESULT_END, as_json, call_text, read_call, tool_text

_GENERATION = re.compile(r"\{%-?\s*generation\b")
_ADVICE = "so what the assistant said can't be told: give it a template with {% generation %}"
Messages = Sequence[dict[str, Any]]
Tools = Sequence[dict[str, Any]]
Span = tuple[int, int]  # of characters


class UnfitError(UserError):
    """This dialogue can't be written by this tokenizer's chat template; others may."""


def render(
    messages: Messages,
    tokenizer: PreTrainedTokenizerBase,
    prompt: bool = False,
    masked: bool = True,
    tools: Tools = (),
) -> tuple[list[int], list[bool]]:
    """A dialogue as token ids, and which of them are the assistant's, the token that ends its turn included.

    With `prompt`, the ids end where the assistant is to speak. No content becomes a control token, whatever it spells.
    Without `masked` nothing is marked, and nothing refused for want of what tells the assistant's part. Messages are
    OpenAI's: one of the assistant's may have `tool_calls`; `tools` are those that it may call.

    Raises:
        UserError: for an unknown role, or a tokenizer or template that can't do this.
        UnfitError: where it can't be done with this dialogue.
    """
    if not writes_all(tokenizer):
        return _by_template(messages, tokenizer, prompt, masked, tools)
    pieces = [_Piece(special=BOS), *(piece for message in _offering(messages, tools) for piece in _pieces(message))]
    if prompt:
        pieces.append(_Piece(special=ROLES["assistant"]))
    texts = iter(encode(tokenizer, [piece.text for piece in pieces if not piece.special]))
    ids: list[int] = []
    mask: list[bool] = []
    for piece in pieces:
        found = [special(tokenizer, piece.special)] if piece.special else next(texts)
        ids += found
        mask += [piece.said] * len(found)
    return ids, mask


class _Piece(NamedTuple):
    """A special token, or a text, and whether the assistant says it."""

    text: str = ""
    special: str = ""
    said: bool = False


def _pieces(message: Mapping[str, Any]) -> list[_Piece]:
    """A message as our own template writes it."""
    role, text = message["role"], message["content"] or ""
    if role == "tool":
        return [_Piece(special=RESULT), _Piece(text), _Piece(special=RESULT_END)]
    if role not in ROLES:
        raise UserError(f"unknown role {role!r}: use system, user, assistant or tool")
    said = role == "assistant"
    pieces = [_Piece(special=ROLES[role]), _Piece(text, said=said)]
    for call in (message.get("tool_calls") or ()) if said else ():
        pieces += [_Piece(special=CALL, said=True), _Piece(call_text(call), said=True)]
        pieces.append(_Piece(special=CALL_END, said=True))
    return [*pieces, _Piece(special=END, said=said)]


def _offering(messages: Messages, tools: Tools) -> Messages:
    """The messages with the tools at the end of the system's, one JSON object a line."""
    if not tools:
        return messages
    listed = "\n".join(["Tools:", *map(tool_text, tools)])
    if not messages or messages[0]["role"] != "system":
        return [{"role": "system", "content": listed}, *messages]
    content = messages[0]["content"]
    return [messages[0] | {"content": f"{content}\n\n{listed}" if content else listed}, *messages[1:]]


def writes_all(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether dialogues are written as our own template has them: there is none that it refuses."""
    return ours(tokenizer) is not None and tokenizer.chat_template in (None, CHAT_TEMPLATE)


def observation(results: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What follows an answer that called tools: their results, up to where the assistant is to speak again.

    Raises UserError for a template that knows no results of tools.
    """
    calls = [{"type": "function", "id": "", "function": {"name": "-", "arguments": {}}} for _ in results]
    asked: list[dict[str, Any]] = [
        {"role": "user", "content": "-"},
        {"role": "assistant", "content": "-", "tool_calls": calls},
    ]
    ids, mask = render(asked, tokenizer)
    answered = len(mask) - mask[::-1].index(True)
    found = render([*asked, *({"role": "tool", "content": text} for text in results)], tokenizer, prompt=True)[0]
    if found[:answered] != ids[:answered]:
        raise UserError("this tokenizer's chat template writes a call in another way once its result follows")
    return found[answered:]


def _by_template(
    messages: Messages, tokenizer: Any, prompt: bool, masked: bool = True, tools: Tools = ()
) -> tuple[list[int], list[bool]]:
    if not tokenizer.chat_template:
        raise UserError(
            "this tokenizer has no chat template: name one in sft.template, put one beside it (chat_template.jinja), or"
            " take an instruction-tuned model or a tokenizer that was trained here"
        )
    controls = controls_of(tokenizer)
    coder: Controls | Quoting = controls
    messages, tools = _known(messages, tools, tokenizer)
    written = [text for message in messages for text in _texts(message)] + [tool_text(tool) for tool in tools]
    if any(controls.spells(text, m["role"]) for m in messages for text in _texts(m)) or any(
        controls.spells(tool_text(tool), "system") for tool in tools
    ):
        coder = quoting = Quoting(controls, written)
        messages = [_mapped(m, partial(quoting.quoted, speaker=m["role"])) for m in messages]
        tools = [_each(tool, partial(quoting.quoted, speaker="system")) for tool in tools]
    write = partial(_write, tokenizer, tools=tools)
    text, marked = write(messages, prompt, marks=True)
    ids, starts, ends = coder.encode(text)
    if marks_answers(tokenizer):
        # a space that begins a word may have no place of its own, and all tokens of one character have the same
        return ids, [
            any(start < last and (start >= first or end > first) for first, last in marked)
            for start, end in zip(starts, ends, strict=True)
        ]
    mask = [False] * len(ids)
    if prompt or not masked or not any(message["role"] == "assistant" for message in messages):
        return ids, mask  # what is asked has no part to learn
    for first, last, closing in _answers(text, messages, tokenizer, write):
        place = _begins(text, first, ids, starts, coder)
        while place < len(ids) and starts[place] < last:
            mask[place] = True
            place += 1
        if closing and ids[place - 1] != tokenizer.convert_tokens_to_ids(closing):
            raise UserError(f"this tokenizer doesn't read the {closing} after an answer as a token: take another one")
    return ids, mask


def marks_answers(tokenizer: Any) -> bool:
    """Whether a tokenizer's template says itself what the assistant's part is."""
    return bool(_GENERATION.search(tokenizer.get_chat_template()))


def _known(messages: Messages, tools: Tools, tokenizer: Any) -> tuple[Messages, Tools]:
    """Messages and tools as a template knows them; one that knows no tools has them in the texts, as lines of JSON."""
    template = tokenizer.get_chat_template()
    if tools and not re.search(r"\btools\b", template):
        messages, tools = _offering(messages, tools), ()
    calls = re.search(r"\btool_calls\b", template)
    found = []
    for message in messages:
        message = _mapped(message, lambda text: text.encode("utf-8", "replace").decode())
        if message.get("tool_calls") and not calls:
            lines = [message["content"], *map(call_text, message["tool_calls"])]
            message = {k: v for k, v in message.items() if k != "tool_calls"} | {
                "content": "\n".join(filter(None, lines))
            }
        elif message.get("tool_calls"):
            message["tool_calls"] = [_called_as(call, tokenizer) for call in message["tool_calls"]]
        found.append(message)
    return found, tools


def _called_as(call: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """A call with its arguments as the template takes them, an object or a text: with the other it fails, or writes a
    text in quotes. One that asks which it is takes both."""
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    if "is string" in tokenizer.get_chat_template():
        return dict(call)
    if isinstance(arguments, str):
        read = read_call(as_json({"name": "-", "arguments": arguments}))
        arguments = read.arguments if read else arguments
    asked = [{"role": "user", "content": "-"}, {"role": "assistant", "content": "-"}]
    try:
        _write(tokenizer, [asked[0], asked[1] | {"tool_calls": [{**call, "function": {**function, "arguments": {}}}]}])
    except UnfitError:
        arguments = as_json(arguments) if isinstance(arguments, Mapping) else arguments
    return {**call, "function": {**function, "arguments": arguments}}


def _texts(message: Mapping[str, Any]) -> list[str]:
    """What somebody wrote in a message."""
    return [message["content"], message.get("tool_call_id") or "", *map(as_json, message.get("tool_calls") or ())]


def _mapped(message: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A message with what somebody wrote in it changed."""
    changed = dict(message) | {"content": change(message["content"] or "")}
    if message.get("tool_calls"):
        changed["tool_calls"] = [_each(call, change) for call in message["tool_calls"]]
    if message.get("tool_call_id"):
        changed["tool_call_id"] = change(message["tool_call_id"])
    return changed


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed, names of an object's fields among them."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _each(item, change) for key, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list | tuple) else value


def _write(
    tokenizer: Any, messages: Messages, prompt: bool = False, marks: bool = False, tools: Tools = ()
) -> tuple[str, list[Span]]:
    """A dialogue in the template's words, and what it marks as generation."""
    try:
        found: Any = render_jinja_template(
            [list(messages)],
            tools=list(tools) or None,
            chat_template=tokenizer.get_chat_template(),
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=marks and marks_answers(tokenizer),
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        raise UnfitError(f"this tokenizer's chat template can't write the dialogue: {why}") from None
    (text, *_), spans = found
    return str(text), list(spans[0]) if spans else []


def _answers(whole: str, messages: Messages, tokenizer: Any, write: Any) -> Iterator[tuple[int, int, str]]:
    """Where each of the assistant's answers stands in a dialogue that is written out, and the token that ends it.

    An answer in words ends where a sign behind it stands; one that calls tools, where what follows is another turn.
    """
    said = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    spoken = [number for number in said if not messages[number].get("tool_calls")]
    before = [write(messages[:number], True)[0] for number in said]
    # A template that opens no answer when asked to opens it with the answer: what is said begins with its first letter.
    opens = before[0] != write(messages[: said[0]])[0]
    begin, end = signs([whole, *(text for message in messages for text in _texts(message))])
    written = write([_between(m, "" if opens else begin, end) for m in messages])[0]
    starts, stops = (_places(written, mark, begin + end) for mark in (begin, end))
    if written.replace(begin, "").replace(end, "") != whole or len(stops) != len(spoken):
        raise UnfitError(f"this tokenizer's chat template changes an answer, {_ADVICE}")
    after = ""
    if spoken:  # what ends a turn
        closed = write([_between(m, "" if opens else begin, end) for m in messages[: spoken[-1] + 1]])[0]
        after = controls_of(tokenizer).token_at(closed, closed.rindex(end) + 1)
    closing = re.compile(rf"\s*{re.escape(after)}")
    past = 0
    for number, opened in zip(said, before, strict=True):
        ended = after
        if number in spoken:
            place = spoken.index(number)
            stop = stops[place]
        else:
            stop, ended = _called(whole, write(messages[: number + 1])[0], tokenizer)
        if not whole.startswith(opened) or not past <= len(opened) <= stop:
            raise UserError(
                f"this tokenizer's chat template writes a turn in another way once others follow, {_ADVICE}"
            )
        start = len(opened)
        if number in spoken:
            if not opens and len(starts) == len(stops) and whole[start : starts[place]].strip():
                start = starts[place]
            found = closing.match(whole, stop) if after else None
            stop, ended = (found.end(), after) if found else (stop, "")
        past = stop
        yield start, stop, ended


def _called(whole: str, until: str, tokenizer: Any) -> tuple[int, str]:
    """Where a turn that calls tools ends, being the last of what is written until there, and the token that ends it."""
    until = until.rstrip()
    if not whole.startswith(until):
        return -1, ""
    ending = [name for name in controls_of(tokenizer).added if name.strip() and until.endswith(name)]
    return len(until), max(ending, key=len, default="")


def _between(message: Mapping[str, Any], begin: str, end: str) -> Mapping[str, Any]:
    """A message of the assistant with signs about its text, inside the white space around it."""
    if message["role"] != "assistant" or message.get("tool_calls"):
        return message
    text = message["content"].strip()
    ahead = len(message["content"]) - len(message["content"].lstrip()) if text else 0
    return dict(message) | {
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
