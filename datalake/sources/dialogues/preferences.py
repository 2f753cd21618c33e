"""Pairs of a preferred and another answer to one prompt, one pair a row.

- HH-RLHF (Bai et al. 2022, arXiv:2204.05862): `chosen` and `rejected` are whole dialogues, `\\n\\nHuman: ...
  \\n\\nAssistant: ...`; what both have in common is the prompt, the assistant's last turns are the answers.
- DPO as the training tools write it: `conversations` with `chosen` and `rejected`, or `prompt` (`instruction`,
  `question`, ...) with both and all that `dialogues.prompt` knows (history, system, context). messages: `chosen` and
  `rejected` are lists of messages that begin alike; a prompt beside them must be in what they begin with.
- ms-swift: `messages` or `query` and `response`, with `rejected_response` or `rejected_messages`.
- SHP (Ethayarajh et al. 2022, arXiv:2110.08420): `history`, `human_ref_A`, `human_ref_B`; `labels` 1 prefers A.
- PKU-SafeRLHF (Ji et al. 2023, arXiv:2307.04657), format `safe`: `response_0`, `response_1`, judged as better and as
  safer.
- Two answers and which is better, format `compared`: HelpSteer's, WebGPT's, summaries with a `choice`, arenas with a
  `winner`.
- KTO (Ethayarajh et al. 2024, arXiv:2402.01306): one answer and whether it is good. It stays a record of its own, with
  null for the answer that isn't there; nothing is paired with what another row says of the same prompt.
- Ratings as in UltraFeedback (Cui et al. 2023, arXiv:2310.01377) and ranks as in Nectar: several answers with scores or
  ranks; the best and the worst, the others in `attributes["others"]`.

A pair is valid if its prompt is a dialogue that awaits an answer, neither answer is empty and they differ. Others are
refused with a reason: `format`, `role`, `order`, `empty`, `equal`, `prompt` (the dialogues differ before their end, or
the prompt isn't theirs), `label`, `ratio` (the scores are too near to each other), `media`, `column` (one that holds
more of what is asked).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datalake.archive import Archive
from datalake.document import Entry, Preference, Quarantined, Refused
from datalake.formats.rows.files import RowFile, Shape
from datalake.formats.rows.json import Locators, Row
from datalake.formats.rows.nested import KEYS
from datalake.origin import OWN, Origin
from datalake.sources.dialogues import docstrings
from datalake.sources.dialogues.columns import Columns, as_attribute
from datalake.sources.dialogues.config import Preferences
from datalake.sources.dialogues.conversations import dialogue_archives, dialogue_files
from datalake.sources.dialogues.shapes import HEADER, LISTS, answer, list_in, list_of, prompt, with_system
from datalake.sources.dialogues.turns import (
    InvalidError,
    Messages,
    as_json,
    asked,
    holds,
    listed,
    message,
    text_of,
    told,
    tools_of,
    turns,
    validate,
)
from datalake.sources.tables import mappings

_TURN = re.compile(r"\n\n(Human|Assistant):")
# The columns that a preferred answer and another are in.
_BOTH = (("chosen", "rejected"), ("chosen_response", "rejected_response"), ("pos_resp", "neg_resp"))
_REJECTED = ("rejected_response", "rejected_messages")
# Two answers and the column that judges: by its sign or by a name. Which of the two a higher value prefers.
_COMPARED = (
    (("response_1", "response_2"), "preference_strength"),
    (("response1", "response2"), "overall_preference"),
    (("answer_0", "answer_1"), "score_0"),
    (("conversation_a", "conversation_b"), "winner"),
    (("response_a", "response_b"), "winner"),
)
_HEADER = HEADER.union(*_BOTH, _REJECTED, *(names for names, _ in _COMPARED), ("history",))
_SEVERAL = ("completions", "answers", "generations", "responses", "outputs")
_SCORES = ("overall_score", "score", "rating", "rank")
_PARALLEL = ("scores", "ratings", "rating", "ranks", "rank")


@dataclass(slots=True)
class Pair:
    """A prompt and two answers, one of them None where the row has but one, and what else the row says of them."""

    prompt: Messages
    chosen: str | None
    rejected: str | None
    attributes: dict[str, str] = field(default_factory=dict)


def archives(config: Preferences) -> list[Archive]:
    """One a file; `python:docstrings` gives pairs about the standard library."""
    return dialogue_archives(config)


def read(archive: Archive, config: Preferences) -> Iterator[Entry]:
    """One entry a row: a preference, or refused for what is wrong with it, or quarantined where it is malformed."""
    whole = config.origin(archive)
    if archive.path == docstrings.PATH:
        yield from docstrings.preferences(archive, whole)
        return
    for file in dialogue_files(archive, whole):
        if not isinstance(file, RowFile):
            yield file
            continue
        rows = file.rows(header=config.header, shape=_shape(config))
        make = partial(_entry, locators=Locators(), origin=file.origin, config=config)
        yield from file.origin.entries(rows, make)


def _shape(config: Preferences) -> Shape:
    """What is a row: an object that a pair can be made of. What is a header: one with a column of a pair."""

    def is_row(value: dict[str, Any]) -> bool:
        try:
            pair(value, config)
        except InvalidError:
            return False
        return True

    return Shape(is_row, lambda names: not _HEADER.isdisjoint(name.strip().lower() for name in names), KEYS)


def _entry(row: Row, locators: Locators, origin: Origin, config: Preferences) -> Preference | Refused | Quarantined:
    if damage := row.damage(origin):
        return damage
    value = row.value
    own = (value.get("id") or value.get("post_id")) if isinstance(value, dict) else None
    locator = locators.of(own, row.number)
    try:
        found, style = pair(value, config)
        _check(found)
    except InvalidError as problem:
        return origin.refused(row, locator, problem.reason, problem.detail)
    texts = [*(turn["content"] for turn in found.prompt), found.chosen or "", found.rejected or ""]
    if damage := row.damage(origin, texts):
        return damage
    prompt = [dict(turn) for turn in found.prompt]
    attributes = found.attributes | {"format": style, "group": asked(found.prompt)}
    licence = mappings.spdx(value.get("licence") or value.get("license")) or OWN
    return origin.preference(row, locator, prompt, found.chosen, found.rejected, attributes, licence=licence)


def pair(row: Any, config: Preferences) -> tuple[Pair, str]:
    """The pair in a row and the format it is in. Raises InvalidError where it is none, or in another format."""
    if not isinstance(row, dict):
        raise InvalidError("format", f"a {type(row).__name__}, not an object")
    columns = Columns(row)
    for name, fits, reader in _FORMATS:
        if config.format in ("auto", name) and fits(columns):
            found = reader(columns, config)
            if tools := tools_of(columns.take("tools")):
                found.attributes["tools"] = f"[{', '.join(tools)}]"
            about = told(found.prompt)
            rest = columns.rest(found.prompt, (found.chosen or "", found.rejected or ""))
            found.attributes = rest | about | found.attributes
            return found, name
    if "chosen" in row and "rejected" in row:
        kinds = f"{type(row['chosen']).__name__} and {type(row['rejected']).__name__}"
        raise InvalidError("format", f"answers are {kinds}, without a prompt")
    keys = ", ".join(sorted(map(str, row))[:8])
    raise InvalidError("format", f"keys {keys}"[:200])


def hh_turns(text: str) -> Messages:
    """A dialogue in HH-RLHF's notation as messages. Raises InvalidError where it doesn't begin with a turn."""
    first, *rest = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip())
    if first.strip() or not rest:
        raise InvalidError("format", "no '\\n\\nHuman:' at the beginning")
    roles = {"Human": "user", "Assistant": "assistant"}
    spoken = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": roles[who], "content": words.strip()} for who, words in spoken]


def _common(chosen: Messages, rejected: Messages) -> Pair:
    """What two dialogues have in common, and how each of them ends."""
    for messages in (chosen, rejected):
        if not messages or messages[-1]["role"] != "assistant":
            raise InvalidError("order", "an answer doesn't end with the assistant")
    if chosen[:-1] != rejected[:-1]:
        both = zip(chosen[:-1], rejected[:-1], strict=False)
        shorter = min(len(chosen), len(rejected)) - 1
        place = next((number for number, (a, b) in enumerate(both) if a != b), shorter)
        raise InvalidError("prompt", f"the dialogues differ from turn {place + 1} on, before their last")
    return Pair(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"])


def _asked(columns: Columns) -> Messages:
    """The prompt of a row that has one apart from its answers. Raises InvalidError where it has none."""
    for name in LISTS:
        if (items := list_in(columns, name)) is not None:
            columns.use(name)
            return with_system(columns, listed(items))
    found = prompt(columns)
    if found is None:
        raise InvalidError("format", "no prompt")
    last = found[-1]["content"] if found else ""
    if _TURN.match("\n\n" + last):  # in HH-RLHF's notation
        messages = hh_turns(last)
        if messages[-1] == {"role": "assistant", "content": ""}:
            messages.pop()
        return [*found[:-1], *messages]
    return found


def _dialogue(value: Any) -> Messages | None:
    """The turns of an answer that is given as a turn, as several, or as a dialogue; None where it is a text."""
    if isinstance(value, str):
        if value.lstrip().startswith("Human:") and "\n\nAssistant:" in value:
            return hh_turns(value)
        spelt = list_of(value) if value.lstrip().startswith("[{") else None
        if not spelt or not all(isinstance(item, dict) and ("role" in item or "from" in item) for item in spelt):
            return None
        value = spelt
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return [message("assistant", value[0])]
    return turns(value if isinstance(value, list) else [value])


def _answer(value: Any) -> Pair:
    """An answer without its prompt, as a text or as turns; `prompt` is what comes before it."""
    spoken = _dialogue(value)
    if spoken is None:
        return Pair([], value.strip(), None)
    if not spoken or spoken[-1]["role"] != "assistant":
        raise InvalidError("role", "an answer that isn't the assistant's")
    return Pair(spoken[:-1], spoken[-1]["content"], None, told(spoken[-1:], ""))


def _pair_of(columns: Columns, asked: Messages, chosen: Any, rejected: Any) -> Pair:
    """A pair of answers to what is asked; where they are dialogues, to what these have in common.

    Raises InvalidError where the dialogues differ before they end, or don't hold what is asked.
    """
    good, bad = _answer(chosen), _answer(rejected)
    attributes = {
        f"{which}.{name}": value
        for which, one in (("chosen", good), ("rejected", bad))
        for name, value in one.attributes.items()
    }
    if good.prompt or bad.prompt:
        common = _common([*good.prompt, _spoken(good)], [*bad.prompt, _spoken(bad)]).prompt
        asked = _joined(asked, common)
    return Pair(with_system(columns, asked), good.chosen, bad.chosen, attributes)


def _spoken(answer: Pair) -> dict[str, str]:
    return {"role": "assistant", "content": answer.chosen or ""}


def _joined(asked: Messages, begun: Messages) -> Messages:
    """What is asked, in how the answers' dialogues begin: all of it is in them, or they go on behind it."""
    system = [turn for turn in asked[:1] if turn["role"] == "system"]
    rest = asked[len(system) :]
    if begun[0]["role"] in ("assistant", "tool"):
        return [*asked, *begun]
    inside = iter(begun)
    if not all(any(turn == other for other in inside) for turn in rest):
        raise InvalidError("prompt", "the prompt isn't in the dialogues of the answers")
    return begun if begun[0]["role"] == "system" else [*system, *begun]


def _dpo(columns: Columns, config: Preferences) -> Pair:
    good, bad = next(names for names in _BOTH if all(name in columns for name in names))
    chosen, rejected = (_value(columns, name) for name in (good, bad))
    if len(_dialogue(chosen) or ()) > 1:
        asked = _text_asked(columns)
    else:
        asked = _asked(columns)
        if asked and asked[-1]["role"] == "assistant" and asked[-1]["content"] == _answer(chosen).chosen:
            asked = asked[:-1]  # the dialogue with its answer
    return _pair_of(columns, asked, chosen, rejected)


def _text_asked(columns: Columns) -> Messages:
    """The prompt beside whole dialogues, where a list of messages may be one of these again."""
    if "prompt" in columns or not any(list_in(columns, name) is not None for name in LISTS):
        return prompt(columns) or []
    return _asked(columns)


def _value(columns: Columns, name: str) -> Any:
    """A column that has to be there, used; "" where it holds nothing."""
    columns.use(name)
    value = columns.get(name)
    return "" if value is None else value


def _messages(columns: Columns, config: Preferences) -> Pair:
    return _pair_of(columns, [], _value(columns, "chosen"), _value(columns, "rejected"))


def _hh(columns: Columns, config: Preferences) -> Pair:
    chosen, rejected = (hh_turns(str(_value(columns, name))) for name in ("chosen", "rejected"))
    found = _common(chosen, rejected)
    found.prompt = with_system(columns, found.prompt)
    return found


def _rejected(columns: Columns, config: Preferences) -> Pair:
    """ms-swift's: a dialogue or a question with its answer, and what is worse than that."""
    name = next(name for name in _REJECTED if name in columns)
    worse = _value(columns, name)
    if any(list_in(columns, key) is not None for key in LISTS):
        asked = _asked(columns)
        if not asked or asked[-1]["role"] != "assistant":
            raise InvalidError("order", "the dialogue doesn't end with the assistant")
        asked, chosen = asked[:-1], asked[-1]["content"]
    else:
        chosen, asked = _text(answer(columns)), _asked(columns)
    bad = _answer(worse)
    if bad.prompt:
        asked = _joined_equal(asked, bad.prompt)
    return Pair(asked, chosen, bad.chosen, {f"rejected.{name}": value for name, value in bad.attributes.items()})


def _joined_equal(asked: Messages, begun: Messages) -> Messages:
    if begun != asked[len(asked) - len(begun) :]:
        raise InvalidError("prompt", "the rejected dialogue begins otherwise")
    return asked


def _text(value: Any) -> str:
    return message("assistant", value)["content"]


def _shp(columns: Columns, config: Preferences) -> Pair:
    columns.use("history", "human_ref_A", "human_ref_B", "labels")
    row = columns.row
    label, ratio = row.get("labels"), _number(row.get("score_ratio"))
    if label not in (0, 1):
        raise InvalidError("label", f"labels is {str(label)[:50]}, not 0 or 1")
    if ratio is not None and ratio < config.least_ratio:
        raise InvalidError("ratio", f"score_ratio {ratio} is below {config.least_ratio}")
    if ratio is None and config.least_ratio > 1:
        raise InvalidError("ratio", "no score_ratio")
    answers = [_text(row["human_ref_B"]), _text(row["human_ref_A"])]
    return Pair([message("user", row["history"])], answers[int(label)], answers[1 - int(label)])


def _safe(columns: Columns, config: Preferences) -> Pair:
    row, column = columns.row, f"{config.prefer}_response_id"
    chosen = row.get(column)
    if chosen not in (0, 1):
        raise InvalidError("label", f"{column} is {str(chosen)[:50]}, not 0 or 1")
    answers = [_text(_value(columns, f"response_{number}")) for number in (0, 1)]
    safe = [row.get(f"is_response_{number}_safe") for number in (0, 1)]
    attributes = {
        f"{which}_safe": str(safe[number]).lower()
        for which, number in (("chosen", int(chosen)), ("rejected", 1 - int(chosen)))
        if isinstance(safe[number], bool)
    }
    asked = _asked(columns)
    return Pair(asked, answers[int(chosen)], answers[1 - int(chosen)], attributes | {"prefer": config.prefer})


def _compares(columns: Columns) -> tuple[tuple[str, str], str] | None:
    found = (two for two in _COMPARED if two[1] in columns and all(name in columns for name in two[0]))
    return next(found, None)


def _compared(columns: Columns, config: Preferences) -> Pair:
    names, judge = _compares(columns) or (("", ""), "")
    answers = [_value(columns, name) for name in names]
    said = columns.row.get(judge)
    if judge == "winner":
        second = {"model_a": False, "a": False, "model_b": True, "b": True}.get(str(said).strip().lower())
        strength = None if second is None else float(second) - 0.5
    else:
        strength = _number(said)
        other = _number(columns.row.get("score_1"))
        if judge == "score_0" and strength is not None and other is not None:
            strength = other - strength
    if not strength:  # equal, or not said
        raise InvalidError("label", f"{judge} is {str(said)[:50]}: neither is better")
    if strength > 0:
        answers.reverse()
    if names[0].startswith("conversation"):
        return _pair_of(columns, [], *answers)
    if names[0] == "answer_0":
        question = _value(columns, "question")
        more = dict(question) if isinstance(question, dict) else {"full_text": question}
        asked: Messages = [message("user", text_of(more.pop("full_text", ""), "question"))]
        found = _pair_of(columns, asked, *answers)
        found.attributes |= {f"question.{key}": as_attribute(value) for key, value in more.items() if holds(value)}
        return found
    context = columns.get("context")
    if isinstance(context, list) and not any(name in columns for name in ("prompt", "instruction", "question")):
        columns.use("context")
        return _pair_of(columns, with_system(columns, turns(context)), *answers)
    return _pair_of(columns, _asked(columns), *answers)


def _summaries(columns: Columns, config: Preferences) -> Pair:
    """Two summaries of a text and which was chosen (Stiennon et al. 2020, arXiv:2009.01325)."""
    info, summaries, choice = (columns.row.get(name) for name in ("info", "summaries", "choice"))
    columns.use("summaries", "choice")
    if choice not in (0, 1):
        raise InvalidError("label", f"choice is {str(choice)[:50]}, not 0 or 1")
    if not isinstance(info, dict) or not isinstance(summaries, list) or len(summaries) != 2:
        raise InvalidError("format", "no text with two summaries")
    parts = [info.get(name) for name in ("title", "post", "article")]
    asked = "\n\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
    texts = [_text(one.get("text") if isinstance(one, dict) else one) for one in summaries]
    columns.use("info")
    about = {
        f"info.{name}": str(value) for name, value in info.items() if isinstance(value, str) and value not in parts
    }
    which = {"chosen": int(choice), "rejected": 1 - int(choice)}
    for name, number in which.items():
        one = summaries[number]
        more = one.items() if isinstance(one, dict) else ()
        about |= {f"{name}.{key}": as_attribute(value) for key, value in more if key != "text" and value is not None}
    return Pair([message("user", asked)], texts[int(choice)], texts[1 - int(choice)], about)


def _kto(columns: Columns, config: Preferences) -> Pair:
    name = "label" if "label" in columns else "kto_tag"
    label = columns.take(name)
    if not isinstance(label, bool):
        raise InvalidError("label", f"the label is {str(label)[:50]}, not true or false")
    said = columns.take("completion", "response", "output")
    asked = _asked(columns)
    attributes = {"label": str(label).lower()}
    if said is not None:
        found = _answer(said)
        if found.prompt:
            asked = _joined(asked, found.prompt)
        text = found.chosen
        attributes |= {f"answer.{name}": value for name, value in found.attributes.items()}
    elif any(name in columns for name in ("completion", "response", "output")):
        text = ""
    elif not asked or asked[-1]["role"] != "assistant":
        raise InvalidError("order", "the dialogue doesn't end with the assistant")
    else:
        asked, text = asked[:-1], asked[-1]["content"]
    return Pair(asked, text, None, attributes) if label else Pair(asked, None, text, attributes)


def _several(columns: Columns) -> str | None:
    """The column of several answers to one question; None where there is none."""
    return next((name for name in _SEVERAL if isinstance(columns.row.get(name), list)), None)


def _ratings(columns: Columns, config: Preferences) -> Pair:
    name = _several(columns) or ""
    given = columns.row[name]
    columns.use(name)
    keys = [
        next((key for key in _SCORES if isinstance(one, dict) and _number(one.get(key)) is not None), "")
        for one in given
    ]
    beside = "" if any(keys) else next((key for key in _PARALLEL if _are_scores(columns.row.get(key), given)), "")
    scored: list[tuple[float, int, Any]] = []
    for number, (one, key) in enumerate(zip(given, keys, strict=True)):
        score = _number(one[key] if key else columns.row[beside][number] if beside else None)
        if score is not None:
            scored.append((-score if (key or beside).startswith("rank") else score, -number, one))
    columns.use(*filter(None, [beside]))
    if len(scored) < 2:
        raise InvalidError("label", f"{len(scored)} answers with a score")
    best, worst = max(scored, key=lambda one: one[:2]), min(scored, key=lambda one: one[:2])
    if best[0] == worst[0]:
        raise InvalidError("equal", f"all answers score {best[0]}")
    attributes = {"chosen_score": str(abs(best[0])), "rejected_score": str(abs(worst[0]))}
    for which, (_, _, one) in (("chosen", best), ("rejected", worst)):
        more = {key: value for key, value in one.items() if key not in _ANSWERS} if isinstance(one, dict) else {}
        attributes |= {f"{which}.{key}": as_attribute(value) for key, value in more.items()}
    others = [one for place, one in enumerate(given) if -place not in (best[1], worst[1])]
    if others:
        attributes["others"] = as_json(others)
    return Pair(_asked(columns), _rated(best[2]), _rated(worst[2]), attributes)


def _are_scores(value: Any, given: list[Any]) -> bool:
    return isinstance(value, list) and len(value) == len(given) and all(_number(one) is not None for one in value)


_ANSWERS = ("response", "answer", "text", "content")


def _rated(one: Any) -> str:
    """The text of an answer that is rated."""
    value = next((one[key] for key in _ANSWERS if key in one), None) if isinstance(one, dict) else one
    return _text(value)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return float(value) if plain and abs(value) < 1e300 else None


def _prompted(columns: Columns) -> bool:
    lists = any(list_in(columns, name) is not None for name in LISTS)
    asks = ("prompt", "instruction", "question", "query", "input", "problem")
    return lists or any(isinstance(columns.get(name) or columns.row.get(name), str | list) for name in asks)


# Name, whether a row is in the format, and what reads it; the first that fits is taken.
_FORMATS: tuple[tuple[str, Callable[[Columns], bool], Callable[[Columns, Preferences], Pair]], ...] = (
    ("dpo", lambda row: any(a in row and b in row for a, b in _BOTH) and _prompted(row), _dpo),
    ("messages", lambda row: all(list_in(row, name) is not None for name in _BOTH[0]), _messages),
    ("hh", lambda row: all(isinstance(row.row.get(name), str) for name in _BOTH[0]), _hh),
    ("rejected", lambda row: any(name in row for name in _REJECTED), _rejected),
    ("shp", lambda row: {"history", "human_ref_A", "human_ref_B"} <= row.row.keys(), _shp),
    ("safe", lambda row: {"response_0", "response_1"} <= row.row.keys(), _safe),
    ("compared", lambda row: _compares(row) is not None, _compared),
    ("summaries", lambda row: {"summaries", "choice"} <= row.row.keys(), _summaries),
    ("ratings", lambda row: _several(row) is not None, _ratings),
    ("kto", lambda row: "label" in row or "kto_tag" in row, _kto),
)


def _check(found: Pair) -> None:
    validate(found.prompt, answered=False)
    for which, text in (("chosen", found.chosen), ("rejected", found.rejected)):
        if text is not None and not text:
            raise InvalidError("empty", f"the {which} answer")
    if found.chosen == found.rejected:
        raise InvalidError("equal", "both answers are the same")
