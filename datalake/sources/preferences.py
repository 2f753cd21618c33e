"""Pairs of a preferred and another answer to one prompt, one pair a row.

- HH-RLHF (Bai et al. 2022, arXiv:2204.05862): `chosen` and `rejected` are whole dialogues, `\\n\\nHuman: ...
  \\n\\nAssistant: ...`; what both have in common is the prompt, the assistant's last turns are the answers.
- DPO as LLaMA-Factory and MedicalGPT write it: `conversations` with `chosen` and `rejected`, or `prompt`
  (`instruction`, `question`) with both. messages: `chosen` and `rejected` are lists of messages that begin alike.
- SHP (Ethayarajh et al. 2022, arXiv:2110.08420): `history`, `human_ref_A`, `human_ref_B`; `labels` 1 prefers A.
- PKU-SafeRLHF (Ji et al. 2023, arXiv:2307.04657), format `safe`: `response_0`, `response_1`, judged as better and as
  safer.
- KTO (Ethayarajh et al. 2024, arXiv:2402.01306): one answer and whether it is good. It stays a record of its own, with
  null for the answer that isn't there; nothing is paired with what another row says of the same prompt.
- Ratings as in UltraFeedback (Cui et al. 2023, arXiv:2310.01377): `completions` with scores; the best and the worst.

A pair is valid if its prompt is a dialogue that awaits an answer, neither answer is empty and they differ. Others are
refused with a reason: `format`, `role`, `order`, `empty`, `equal`, `prompt` (the dialogues differ before their end),
`label`, `ratio` (the scores are too near to each other).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datalake.document import Entry, Preference, Refused, document_id
from datalake.sources import docstrings, mappings
from datalake.sources.config import Preferences
from datalake.sources.conversations import dialogue_files, language_of
from datalake.sources.dialogues import CONTENT, LISTS
from datalake.sources.entries import entries
from datalake.sources.protocol import InputShard, expand
from datalake.sources.row_files import RowFile
from datalake.sources.rows import Locators, Row
from datalake.sources.turns import InvalidError, Messages, asked, message, turns, validate, with_system

KIND = "preferences"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_CONTENT = CONTENT | {"human_ref_A", "human_ref_B", "response_0", "response_1", "completions", "label", "post_id"}


@dataclass(slots=True)
class Pair:
    """A prompt and two answers, one of them None where the row has but one, and what else the row says of them."""

    prompt: Messages
    chosen: str | None
    rejected: str | None
    attributes: dict[str, str] = field(default_factory=dict)


def shards(config: Preferences) -> list[InputShard]:
    """One shard a file; `python:docstrings` gives pairs about the standard library."""
    files = [path for path in config.paths if path != docstrings.PATH]
    out = [InputShard(KIND, name, path) for name, path in expand(files)] if files else []
    if docstrings.PATH in config.paths:
        out += docstrings.shards(KIND)
    return sorted(out, key=lambda shard: shard.name)


def read(shard: InputShard, config: Preferences) -> Iterator[Entry]:
    """One entry a row: a preference, or refused for what is wrong with it, or quarantined where it is malformed."""
    if shard.path == docstrings.PATH:
        yield from docstrings.preferences(shard, config.label)
        return
    for file in dialogue_files(shard, config.label):
        if not isinstance(file, RowFile):
            yield file
            continue
        make = partial(_entry, locators=Locators(), name=file.name, config=config)
        yield from entries(file.rows(config.label), make, config.label, file.name)


def _entry(row: Row, locators: Locators, name: str, config: Preferences) -> Preference | Refused:
    value = row.value
    own = (value.get("id") or value.get("post_id")) if isinstance(value, dict) else None
    locator = locators.of(own, row.number)
    identity, uri = document_id(KIND, name, locator), f"{name}#{locator}"
    try:
        found, style = pair(value, config)
        _check(found)
    except InvalidError as problem:
        where = {"archive": name, "offset": row.offset, "length": row.length}
        return Refused(identity, config.label, uri, problem.reason, problem.detail, **where)  # type: ignore[arg-type]
    answer = found.chosen if found.chosen is not None else found.rejected or ""
    attributes = mappings.attributes_of(value, _CONTENT) | found.attributes
    return Preference(
        id=identity,
        source=config.label,
        uri=uri,
        prompt=found.prompt,
        chosen=found.chosen,
        rejected=found.rejected,
        language=language_of([*found.prompt, {"role": "assistant", "content": answer}], config.language),
        licence=mappings.spdx(value.get("licence") or value.get("license")) or config.licence,
        archive=name,
        offset=row.offset,
        attributes=attributes | {"format": style, "group": asked(found.prompt)},
    )


def pair(row: Any, config: Preferences) -> tuple[Pair, str]:
    """The pair in a row and the format it is in. Raises InvalidError where it is none, or in another format."""
    if not isinstance(row, dict):
        raise InvalidError("format", f"a {type(row).__name__}, not an object")
    for name, fits, reader in _FORMATS:
        if config.format in ("auto", name) and fits(row):
            return reader(row, config), name
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


def _prompt(row: dict[str, Any]) -> Messages | None:
    """The prompt of a row that has one apart from its answers."""
    for key in (*LISTS, "prompt"):
        if isinstance(row.get(key), list):
            return with_system(row, turns(row[key]))
    for key in ("prompt", "instruction", "question"):
        if isinstance(row.get(key), str):
            content = row[key].strip()
            if key == "instruction" and isinstance(given := row.get("input"), str) and given.strip():
                content = f"{content}\n\n{given.strip()}"
            return with_system(row, _prompt_of(content))
    return None


def _prompt_of(text: str) -> Messages:
    """A prompt given as a text, which may be a dialogue in HH-RLHF's notation."""
    if _TURN.match("\n\n" + text.lstrip()):
        messages = hh_turns(text)
        if messages[-1] == {"role": "assistant", "content": ""}:
            messages.pop()
        return messages
    return [{"role": "user", "content": text.strip()}]


def _answer(value: Any) -> str:
    """An answer given as text, as a turn, or as a list that ends with the assistant's."""
    if isinstance(value, str):
        return value.strip()
    spoken = turns(value if isinstance(value, list) else [value])
    if not spoken or spoken[-1]["role"] != "assistant":
        raise InvalidError("role", "an answer that isn't the assistant's")
    return spoken[-1]["content"]


def _dpo(row: dict[str, Any], config: Preferences) -> Pair:
    return Pair(_prompt(row) or [], _answer(row["chosen"]), _answer(row["rejected"]))


def _messages(row: dict[str, Any], config: Preferences) -> Pair:
    return _common(turns(row["chosen"]), turns(row["rejected"]))


def _hh(row: dict[str, Any], config: Preferences) -> Pair:
    return _common(hh_turns(row["chosen"]), hh_turns(row["rejected"]))


def _shp(row: dict[str, Any], config: Preferences) -> Pair:
    label, ratio = row.get("labels"), _number(row.get("score_ratio"))
    if label not in (0, 1):
        raise InvalidError("label", f"labels is {str(label)[:50]}, not 0 or 1")
    if ratio is not None and ratio < config.least_ratio:
        raise InvalidError("ratio", f"score_ratio {ratio} is below {config.least_ratio}")
    if ratio is None and config.least_ratio > 1:
        raise InvalidError("ratio", "no score_ratio")
    answers = [message("assistant", row["human_ref_B"])["content"], message("assistant", row["human_ref_A"])["content"]]
    return Pair([message("user", row["history"])], answers[int(label)], answers[1 - int(label)])


def _safe(row: dict[str, Any], config: Preferences) -> Pair:
    column = f"{config.prefer}_response_id"
    chosen = row.get(column)
    if chosen not in (0, 1):
        raise InvalidError("label", f"{column} is {str(chosen)[:50]}, not 0 or 1")
    answers = [message("assistant", row[f"response_{number}"])["content"] for number in (0, 1)]
    safe = [row.get(f"is_response_{number}_safe") for number in (0, 1)]
    attributes = {
        f"{which}_safe": str(safe[number]).lower()
        for which, number in (("chosen", int(chosen)), ("rejected", 1 - int(chosen)))
        if isinstance(safe[number], bool)
    }
    prompt = [message("user", row.get("prompt"))]
    return Pair(prompt, answers[int(chosen)], answers[1 - int(chosen)], attributes | {"prefer": config.prefer})


def _kto(row: dict[str, Any], config: Preferences) -> Pair:
    label = row.get("label", row.get("kto_tag"))
    if not isinstance(label, bool):
        raise InvalidError("label", f"the label is {str(label)[:50]}, not true or false")
    prompt = _prompt(row)
    if prompt is None:
        raise InvalidError("format", "no prompt")
    answer = next((row[key] for key in ("completion", "response", "output") if row.get(key) is not None), None)
    if answer is not None:
        answer = _answer(answer)
    elif not prompt or prompt[-1]["role"] != "assistant":
        raise InvalidError("order", "the dialogue doesn't end with the assistant")
    else:
        prompt, answer = prompt[:-1], prompt[-1]["content"]
    attributes = {"label": str(label).lower()}
    return Pair(prompt, answer, None, attributes) if label else Pair(prompt, None, answer, attributes)


def _ratings(row: dict[str, Any], config: Preferences) -> Pair:
    scored = []
    for number, completion in enumerate(row["completions"]):
        score = (
            _number(completion.get("overall_score", completion.get("score"))) if isinstance(completion, dict) else None
        )
        if score is not None:
            text = completion.get("response", completion.get("text"))
            scored.append((score, -number, message("assistant", text)["content"]))
    if len(scored) < 2:
        raise InvalidError("label", f"{len(scored)} answers with a score")
    best, worst = max(scored), min(scored)
    if best[0] == worst[0]:
        raise InvalidError("equal", f"all answers score {best[0]}")
    scores = {"chosen_score": str(best[0]), "rejected_score": str(worst[0])}
    return Pair(_prompt(row) or [], best[2], worst[2], scores)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return float(value) if plain and abs(value) < 1e300 else None


def _both(row: dict[str, Any], kind: type) -> bool:
    return isinstance(row.get("chosen"), kind) and isinstance(row.get("rejected"), kind)


def _prompted(row: dict[str, Any]) -> bool:
    lists = any(isinstance(row.get(key), list) for key in LISTS)
    return (
        lists
        or isinstance(row.get("prompt"), list | str)
        or any(isinstance(row.get(key), str) for key in ("instruction", "question"))
    )


# Name, whether a row is in the format, and what reads it; the first that fits is taken.
_FORMATS: tuple[tuple[str, Callable[[dict[str, Any]], bool], Callable[[dict[str, Any], Preferences], Pair]], ...] = (
    ("dpo", lambda row: "chosen" in row and "rejected" in row and _prompted(row), _dpo),
    ("messages", lambda row: _both(row, list), _messages),
    ("hh", lambda row: _both(row, str), _hh),
    ("shp", lambda row: {"history", "human_ref_A", "human_ref_B"} <= row.keys(), _shp),
    ("safe", lambda row: {"response_0", "response_1"} <= row.keys(), _safe),
    ("ratings", lambda row: isinstance(row.get("completions"), list), _ratings),
    ("kto", lambda row: "label" in row or "kto_tag" in row, _kto),
)


def _check(found: Pair) -> None:
    validate(found.prompt, answered=False)
    for which, answer in (("chosen", found.chosen), ("rejected", found.rejected)):
        if answer is not None and not answer:
            raise InvalidError("empty", f"the {which} answer")
    if found.chosen == found.rejected:
        raise InvalidError("equal", "both answers are the same")
