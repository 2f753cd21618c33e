"""The formats that dialogues are published in, one row at a time, as messages.

- Alpaca and BELLE: `instruction`, `input`, `output`, optional `system` and `history` (pairs of earlier turns); BELLE's
  longer dialogues have their turns (`Human:`, `Assistant:`) in `instruction`. Dolly: `context` and `response`.
- Seed tasks (self-instruct): `instruction` with `instances` of `input` and `output`, each a dialogue.
- Pairs: `prompt` and `response` and their likes; FLAN's `inputs` and `targets`, P3's `inputs_pretokenized`. What a
  question is about (`context`, `passage`, `choices`, ...) follows it.
- ShareGPT: `conversations` of `from` and `value`, of exchanges (`human` and `assistant`, `input` and `output`), or of
  texts by turns; tool calls as LLaMA-Factory writes them (`function_call`, `observation`). Messages: `messages` of
  `role` and `content`, with OpenAI's `tool_calls`. UltraChat: `data`, a list.
- Glaive's function calling: `system` and `chat`, a text with `USER:`, `ASSISTANT:`, `FUNCTION RESPONSE:`.
- MOSS: `chat` of `turn_1`, `turn_2`, ..., each of `Human`, `Commands`, `Tool Responses`, `MOSS`.
- OpenAssistant: trees of replies and the single messages of such trees, see `trees`.

Alpaca's frame around a prompt (`### Instruction:` ... `### Response:`) is taken off: how a dialogue is framed is
decided where it is tokenised. Columns that no format uses are `columns`' part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from datalake.sources.dialogues import trees
from datalake.sources.dialogues.columns import Columns, is_tokens
from datalake.sources.dialogues.turns import (
    InvalidError,
    Messages,
    Turn,
    calls,
    holds,
    lines_of,
    listed,
    message,
    text_of,
    told,
    tools_of,
    turns,
    weights,
)

ASKED = ("instruction", "prompt", "question", "query", "inputs_pretokenized", "inputs", "problem", "human", "user",
         "message_1", "trans_instruction", "input")  # fmt: skip
ANSWERED = ("response", "completion", "output", "solution", "answer", "targets_pretokenized", "target", "targets",
            "generation", "assistant", "bot", "message_2", "trans_output", "answers")  # fmt: skip
GIVEN = ("input", "trans_input", "context", "contexts", "passage", "passages", "paragraph", "document", "documents",
         "article", "background", "evidence", "knowledge", "story")  # fmt: skip
LISTS = {"messages": "messages", "conversations": "sharegpt", "conversation": "sharegpt", "items": "sharegpt",
         "data": "sharegpt"}  # fmt: skip
# Columns by which a header is told from a row.
HEADER = frozenset((*ASKED, *ANSWERED, *GIVEN, *LISTS, "text", "chat", "instances", "message_id", "message_tree_id"))
_SYSTEM = ("system", "system_prompt", "system_message", "meta_instruction")
_HISTORY = ("history", "chat_history")
_OPTIONS = ("choices", "options")
_LETTERS = ("A", "B", "C", "D", "E")

_FRAME = re.compile(r"\A\s*+(?:Below is an instruction[^\n]*+\n++)?### Instruction:[ \t]*+\n")
_INPUT, _RESPONSE = re.compile(r"\n### Input:[ \t]*+\n"), "\n### Response:"
# Who speaks, at the beginning of a line; what he says is stripped of the blank lines before.
_SPOKEN = re.compile(r"(?:\A\s*+|\n[^\S\n]*+)(Human|Assistant)[:：]")
_CHAT = re.compile(r"(?:\A\s*+|\n[^\S\n]*+)(USER|ASSISTANT|FUNCTION RESPONSE):")
_CALL = re.compile(r"<functioncall>\s*+(?=\{)")
_MOSS = re.compile(r"\A<\|[\w ]{1,32}\|>:|<eo[a-z]>\Z")
_ARGUMENTS = re.compile(r'"arguments":\s*+(?=\')')


@dataclass(slots=True)
class Dialogue:
    """What a row holds: messages, or why not. `part` tells it from others of the row.

    `attributes` are its own and what else the row says; `tools` are those it may call, a line of JSON each.
    """

    messages: Messages
    format: str
    problem: InvalidError | None = None
    part: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    tools: list[str] = field(default_factory=list)


def dialogues(row: Any, format: str = "auto", all_paths: bool = False) -> Iterator[Dialogue]:
    """The dialogues of a row: one in most formats, at least one in all."""
    try:
        found, name = _reader(row, format)
    except InvalidError as problem:
        yield Dialogue([], "", problem)
        return
    if name == "openassistant":
        for tree in trees.paths_of(row, all_paths):
            about = {"tree": str(tree.tree), "lang": tree.lang}
            path = Dialogue(tree.messages, name, tree.problem, tree.part, {k: v for k, v in about.items() if v})
            yield whole(path, Columns(row), "prompt", "message_tree_id")
        return
    instances = row.get("instances") if name == "instances" else [row]
    for number, instance in enumerate(instances or [{}]):
        part = f"instance {number}" if number else ""
        try:
            if not isinstance(instance, dict):
                raise InvalidError("format", f"instance {number} is a {type(instance).__name__}, not an object")
            twice = {f"row.{name}": row[name] for name in instance if name in row} if instance is not row else {}
            columns = Columns({**row, **instance, **twice})
            yield whole(Dialogue(found(columns), name, part=part), columns, "instances")
        except InvalidError as problem:
            yield Dialogue([], name, problem, part)


def whole(found: Dialogue, columns: Columns, *used: str) -> Dialogue:
    """A dialogue with what else its row says; with a problem where that can't be kept."""
    columns.use(*used)
    if found.problem:
        return found
    try:
        for name in ("tools", "functions"):
            if not found.tools and (tools := tools_of(columns.get(name))):
                found.tools = tools
                columns.use(name)
        about = told(found.messages) | weights(found.messages)
        found.attributes = columns.rest(found.messages) | about | found.attributes
    except InvalidError as problem:
        found.problem = problem
    return found


def _reader(row: Any, format: str) -> tuple[Callable[[Columns], Messages], str]:
    """What reads a row of this format (or `auto`), and the format's name. Raises InvalidError where it is another."""
    if not isinstance(row, dict):
        raise InvalidError("format", f"a {type(row).__name__}, not an object")
    columns = Columns(row)
    for name, fits, read in _FORMATS:
        if format in ("auto", name) and fits(columns):
            return read, name
    keys = ", ".join(sorted(map(str, row))[:8])
    raise InvalidError("format", f"keys {keys}"[:200])


def list_in(columns: Columns, name: str) -> list[Any] | None:
    """A column that is a list, or spells one in JSON; None where it is none."""
    return list_of(columns.row.get(name))


def list_of(value: Any) -> list[Any] | None:
    """A list, given as such or spelt in JSON; None where it is none."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _list_of(columns: Columns, wanted: str) -> tuple[str, list[Any]] | None:
    for name, format in LISTS.items():
        if format == wanted and (items := list_in(columns, name)) is not None:
            return name, items
    return None


def _spoken(columns: Columns, wanted: str) -> Messages:
    name, items = _list_of(columns, wanted) or ("", [])
    columns.use(name)
    return with_system(columns, turns(items) if wanted == "messages" else listed(items))


def with_system(columns: Columns, messages: Messages) -> Messages:
    """The messages, begun with the row's system message where it has one and they have none."""
    if messages and messages[0]["role"] == "system":
        return messages
    system = columns.take(*_SYSTEM)
    return messages if system is None else [message("system", system), *messages]


def history(columns: Columns) -> Messages:
    """The earlier turns that a row gives beside its question. Raises InvalidError where they are none."""
    earlier = columns.take(*_HISTORY)
    if earlier is None:
        return []
    if not isinstance(earlier, list) or not all(isinstance(item, dict) or _is_pair(item) for item in earlier):
        raise InvalidError("format", "a turn of the history isn't a pair")
    return turns(earlier)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2


def prompt(columns: Columns) -> Messages | None:
    """What a row asks, with all that it gives for it: system message, earlier turns, texts, choices.

    None where it has no column that asks. Raises InvalidError.
    """
    question = columns.take(*_asks(columns))
    if question is None:
        if not any(name in columns for name in _asks(columns)):
            return None
        question = ""
    tokens = (name for name in ("inputs", "targets") if f"{name}_pretokenized" in columns)
    columns.use(*(name for name in tokens if is_tokens(columns.get(name))))
    if isinstance(question, list | dict):
        return with_system(columns, [*history(columns), *turns(question if isinstance(question, list) else [question])])
    text = message("user", question)["content"]
    given = columns.given(*GIVEN)
    if not given and (earlier := turns_in(text)):
        return with_system(columns, [*history(columns), *earlier])
    if frame := _framed(text):
        text = "\n\n".join(part.strip() for part in frame if part.strip())
    parts = [text, *given, _choices(columns, text)]
    return with_system(columns, [*history(columns), message("user", "\n\n".join(part for part in parts if part))])


def _choices(columns: Columns, text: str) -> str:
    """The choices that a question leaves, a line each; none where the question names them itself."""
    found = columns.take(*_OPTIONS)
    if found is None and all(holds(columns.row.get(letter)) for letter in _LETTERS[:2]):
        found = {letter: columns.row[letter] for letter in _LETTERS if holds(columns.row.get(letter))}
        columns.use(*found)
    if found is None:
        return ""
    if isinstance(found, dict) and isinstance(found.get("text"), list):
        labels = found.get("label")
        uneven = isinstance(labels, list) and len(labels) != len(found["text"])
        if uneven or any(holds(value) for name, value in found.items() if name not in ("text", "label")):
            raise InvalidError("format", "the choices are no texts")
        found = dict(zip(labels, found["text"], strict=False)) if isinstance(labels, list) else found["text"]
    if isinstance(found, list):
        found = dict(zip(map(chr, range(ord("A"), ord("Z") + 1)), found, strict=False))
    if isinstance(found, str):
        return "" if found.strip() in text else found.strip()
    if not isinstance(found, dict) or not all(isinstance(one, str | int | float) for one in found.values()):
        raise InvalidError("format", "the choices are no texts")
    if all(str(one).strip() in text for one in found.values()):
        return ""
    return "\n".join(f"{label}. {str(one).strip()}" for label, one in found.items())


def answer(columns: Columns) -> Any:
    """What a row answers, as text or turn. Raises InvalidError where it has no such column, or several answers."""
    found = columns.take(*ANSWERED)
    if found is None and not any(name in columns for name in ANSWERED):
        raise InvalidError("unanswered", "no column with an answer")
    if isinstance(found, dict) and found.keys() == {"text", "answer_start"}:  # SQuAD's: what and where
        found = found["text"]
    if isinstance(found, list) and found and all(isinstance(item, str) for item in found):
        different = list(dict.fromkeys(item.strip() for item in found))
        if len(different) > 1:
            raise InvalidError("several", f"{len(different)} answers, none of which is said to be the right one")
        return different[0]
    return found


def _asked_and_answered(columns: Columns) -> Messages:
    found = answer(columns)
    asked = prompt(columns)
    if isinstance(found, list) and found and all(isinstance(item, dict) and "role" in item for item in found):
        return [*(asked or []), *turns(found)]
    if not holds(columns.get("tools")):
        return [*(asked or []), message("assistant", found)]
    turn = message("assistant", calls(found))
    _note_calls(turn, found)
    return [*(asked or []), turn]


def _note_calls(turn: Turn, value: Any) -> None:
    """Say which of a turn's lines are calls, where a value is some."""
    if made := lines_of(value):
        turn.more["tool_calls"] = [id for _, id in made]


def turns_in(text: str) -> Messages:
    """The turns of a dialogue that is written in one text and awaits the assistant's answer; none where it is none."""
    before, *rest = _SPOKEN.split(text)
    if before.strip() or len(rest) < 4 or rest[0] != "Human" or rest[-2] != "Assistant" or rest[-1].strip():
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [message(roles[who], words) for who, words in zip(rest[:-2:2], rest[1:-2:2], strict=True)]


def _framed(text: str) -> tuple[str, str] | None:
    """What is asked and what is given with it within Alpaca's frame; None where there is none."""
    begin = _FRAME.match(text)
    text = text.rstrip()
    end = len(text) - len(_RESPONSE)
    if begin is None or not text.endswith(_RESPONSE) or end < begin.end():
        return None
    given = _INPUT.search(text, begin.end(), end + 1)
    if given is None or given.end() > end:  # without a line of its own
        return text[begin.end() : end], ""
    return text[begin.end() : given.start()], text[given.end() : end]


def _chat(columns: Columns) -> Messages:
    before, *rest = _CHAT.split(str(columns.take("chat") or "").replace("<|endoftext|>", "\n"))
    if before.strip() or not rest:
        raise InvalidError("format", "no 'USER:' at the beginning of the chat")
    roles = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
    messages: list[Turn] = [message(roles[who], words) for who, words in zip(rest[::2], rest[1::2], strict=True)]
    for turn in messages:
        content = turn["content"]
        if turn["role"] == "assistant" and (match := _CALL.search(content)):
            end = content.rfind("}", match.end()) + 1
            if end:
                said, call = content[: match.start()].strip(), _glaive_call(content[match.end() : end])
                turn["content"] = "\n".join(part for part in (said, call) if part)
                _note_calls(turn, call)
    system = columns.take("system")
    words = text_of(system, "system").removeprefix("SYSTEM:").strip() if system is not None else ""
    return [*([message("system", words)] if words else []), *messages]


def _moss(columns: Columns) -> Messages:
    """MOSS's dialogues: what a turn's command gives comes between question and answer."""
    parts = (("Human", "user"), ("Commands", "assistant"), ("Tool Responses", "tool"), ("MOSS", "assistant"))
    chat = columns.take("chat") or {}
    messages: Messages = []
    for number in range(1, len(chat) + 1):
        turn = chat.get(f"turn_{number}")
        if not isinstance(turn, dict):
            raise InvalidError("format", f"no turn_{number} in the chat")
        more = {str(name): value for name, value in turn.items() if name not in dict(parts) and holds(value)}
        for name, role in parts:
            said = _MOSS.sub("", text_of(turn.get(name) or "", name)).strip()
            if name in ("Human", "MOSS") or said not in ("", "None"):
                messages.append(message(role, said, more if name == "MOSS" else None))
    return with_system(columns, messages)


def _glaive_call(text: str) -> str:
    """A call whose arguments are JSON between single quotes, which isn't JSON."""
    # the last quotation mark, if nothing but the object's end is behind it
    end = len(text.rstrip().removesuffix("}").rstrip()) - 1
    match = _ARGUMENTS.search(text)
    if match and match.end() < end and text[end] == "'" and text.rstrip().endswith("}"):
        text = f"{text[: match.end()]}{json.dumps(text[match.end() + 1 : end])}{text[end + 1 :]}"
    return str(calls(text))


def _any(columns: Columns, names: tuple[str, ...]) -> bool:
    return any(name in columns for name in names)


def _asks(columns: Columns) -> tuple[str, ...]:
    """The columns that ask; a user's column does where the assistant has one, else it is a name."""
    spoken = "assistant" in columns or "bot" in columns
    return ASKED if spoken else tuple(name for name in ASKED if name not in ("human", "user"))


# Name, whether a row is in the format, and what reads it; the first that fits is taken.
_FORMATS: tuple[tuple[str, Callable[[Columns], bool], Callable[[Columns], Messages]], ...] = (
    ("messages", lambda row: _list_of(row, "messages") is not None, lambda row: _spoken(row, "messages")),
    ("sharegpt", lambda row: _list_of(row, "sharegpt") is not None, lambda row: _spoken(row, "sharegpt")),
    ("openassistant", lambda row: trees.is_tree(row.row), lambda row: []),
    ("glaive", lambda row: isinstance(row.get("chat"), str), _chat),
    ("moss", lambda row: isinstance(row.get("chat"), dict) and "turn_1" in row.row["chat"], _moss),
    ("instances", lambda row: "instruction" in row and isinstance(row.get("instances"), list), _asked_and_answered),
    ("dolly", lambda row: "instruction" in row and "context" in row and "input" not in row, _asked_and_answered),
    ("alpaca", lambda row: "instruction" in row, _asked_and_answered),
    ("pairs", lambda row: _any(row, _asks(row)) and _any(row, ANSWERED), _asked_and_answered),
)
