"""Constitutional feedback: answers criticised, revised and judged by principles (Bai et al. 2022, arXiv:2212.08073).

To each prompt a model answers; by a principle drawn for it, it criticises the answer and revises it. The revision is
preferred to the first answer, or a judge is asked which of two is better by the principle: with either first, and only
what it says both times is believed. How often it takes the answer that stands first is the bias of its position.

    refused filtered empty truncated      there is no answer, critique or revision to learn from
    equal                                 both answers say the same
    no_verdict                            the judge names neither
    inconsistent                          it prefers another when they change places
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datalake.document import Preference, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.text.yaml_text import YamlError, read_yaml
from models.serving.endpoint import Reply
from models.synthesis.config import FeedbackConfig
from models.synthesis.instructions import seed_of
from models.synthesis.records import Unused
from models.synthesis.writer import Writer

SOURCE = "feedback"
BLOCK = 64  # prompts that go through together
PRINCIPLES = Path(__file__).parent / "principles.yaml"
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Wording(BaseModel):
    """A principle in a language: what asks for a critique, for a revision, and for a judgement."""

    model_config = _STRICT
    critique: str
    revision: str
    question: str


class Principle(BaseModel):
    """One principle, in the languages that it is written in."""

    model_config = _STRICT
    name: str
    kind: str
    en: Wording | None = None
    zh: Wording | None = None


class Words(BaseModel):
    """What is asked in a language; {critique}, {revision}, {dialogue}, {a}, {b} and {question} are filled in."""

    model_config = _STRICT
    critique: str
    revision: str
    judge: str
    roles: dict[str, str]


class Constitution(BaseModel):
    """Principles, and the words that ask for them."""

    model_config = _STRICT
    templates: dict[str, Words]
    principles: list[Principle] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path, kinds: Sequence[str] = ()) -> Constitution:
        """The principles of a file, of some kinds or all. Raises UserError where it isn't one, or has none of them."""
        try:
            read = cls.model_validate(read_yaml(path.read_bytes()))
        except YamlError as error:
            raise UserError(f"feedback.principles: {path} is not YAML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"feedback.principles: {path}: {place}: {first['msg']}") from None
        there = {one.kind for one in read.principles}
        if unknown := [kind for kind in kinds if kind not in there]:
            raise UserError(f"feedback.kinds: no principle is {unknown[0]!r}: there are {', '.join(sorted(there))}")
        chosen = [one for one in read.principles if not kinds or one.kind in kinds]
        return cls(templates=read.templates, principles=chosen)

    def drawn(self, language: str, *parts: Any) -> tuple[Principle, Wording, Words]:
        """A principle by what it is for, in a language."""
        some = [one for one in self.principles if getattr(one, language) is not None]
        if not some or language not in self.templates:
            raise UserError(f"feedback.principles: none is written in {language!r}, which some prompts are in")
        one = random.Random(seed_of(*parts)).choice(some)
        return one, getattr(one, language), self.templates[language]


class Prompt(NamedTuple):
    """What is asked: the messages up to the answer, of which dialogue, and the group that is held out together."""

    name: str
    group: str
    messages: list[dict[str, str]]
    language: str


@dataclass
class Judged:
    """What came of it. `votes`: how often a judge took the answer that stood first, of so many verdicts."""

    kept: list[Preference] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    votes: Counter[str] = field(default_factory=Counter)

    @property
    def reasons(self) -> Counter[str]:
        """How many were refused, by reason."""
        return Counter(one.reason for one in self.unused)

    @property
    def figures(self) -> dict[str, float]:
        """Of the judge: how often it took what stood first (0.5: no bias), how often it said the same both ways, and
        how often it preferred the revision where it did."""
        votes = self.votes
        shares = {
            "first_position": (votes["first"], votes["verdicts"]),
            "consistent": (votes["consistent"], votes["pairs"]),
            "revision_preferred": (votes["revision"], votes["revised"]),
        }
        return {name: round(part / whole, 6) for name, (part, whole) in shares.items() if whole}


@dataclass
class _Candidate:
    """Two answers on their way to a pair: `problem` is a reason and a detail."""

    prompt: Prompt
    how: str
    first: Reply
    principle: Principle
    wording: Wording
    words: Words
    other: Reply = field(default_factory=lambda: Reply(""))
    attributes: dict[str, str] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    revision_first: bool | None = None  # whether the judge prefers `other`


def feedback(
    config: FeedbackConfig,
    constitution: Constitution,
    write: Writer,
    judge: Writer | None,
    prompts: Sequence[Prompt],
    on_step: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Judged:
    """A pair, or the reason why there is none, for each prompt and each way to come by a second answer."""
    judged = Judged()
    for step, start in enumerate(range(0, len(prompts), BLOCK), 1):
        block = prompts[start : start + BLOCK]
        firsts = write([one.messages for one in block], [seed_of(config.seed, one.name, "first") for one in block])
        candidates: list[_Candidate] = []
        for how in config.answers:
            some = []
            for one, reply in zip(block, firsts, strict=True):
                drawn = constitution.drawn(one.language, config.seed, one.name, how)
                some.append(_Candidate(one, how, reply, *drawn, problem=_problem(reply)))
            (_revise if how == "revised" else _sample)(config, constitution, write, some)
            candidates += some
        for candidate in candidates:
            if not candidate.problem and _same(candidate.first.text, candidate.other.text):
                candidate.problem = ("equal", "")
        if judge is not None:
            _judge(config, judge, [one for one in candidates if not one.problem], judged.votes)
        for candidate in candidates:
            _settle(judged, candidate, write, judge)
        kept, unused = len(judged.kept), len(judged.unused)
        on_step({"step": step, "kept": kept, "refused": unused, **judged.figures})
    return judged


def _going(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    return [one for one in candidates if not one.problem]


def _revise(
    config: FeedbackConfig, constitution: Constitution, write: Writer, candidates: Sequence[_Candidate]
) -> None:
    """Criticise each answer and revise it, as often as asked, each time by another principle's draw."""
    for one in candidates:
        one.other = one.first
    for number in range(config.revisions):
        going = _going(candidates)
        for one in going:
            drawn = constitution.drawn(one.prompt.language, config.seed, one.prompt.name, "revision", number)
            one.principle, one.wording, one.words = drawn
        asked = [
            [*one.prompt.messages, _said("assistant", one.other.text), _said("user", _filled(one, "critique"))]
            for one in going
        ]
        critiques = write(asked, [seed_of(config.seed, one.prompt.name, "critique", number) for one in going])
        for one, critique, dialogue in zip(going, critiques, asked, strict=True):
            one.problem = _problem(critique)
            one.attributes |= {
                "critique": critique.text.strip(),
                "principles": " ".join([*one.attributes.get("principles", "").split(), one.principle.name]),
            }
            dialogue += [_said("assistant", critique.text.strip()), _said("user", _filled(one, "revision"))]
        pairs = [(one, dialogue) for one, dialogue in zip(going, asked, strict=True) if not one.problem]
        revisions = write(
            [dialogue for _, dialogue in pairs],
            [seed_of(config.seed, one.prompt.name, "revision", number) for one, _ in pairs],
        )
        for (one, _), revision in zip(pairs, revisions, strict=True):
            one.other, one.problem = revision, _problem(revision)


def _sample(
    config: FeedbackConfig, constitution: Constitution, write: Writer, candidates: Sequence[_Candidate]
) -> None:
    """A second answer to each prompt, by another seed."""
    going = _going(candidates)
    replies = write(
        [one.prompt.messages for one in going], [seed_of(config.seed, one.prompt.name, "second") for one in going]
    )
    for one, reply in zip(going, replies, strict=True):
        one.other, one.problem = reply, _problem(reply)


def _judge(config: FeedbackConfig, judge: Writer, candidates: Sequence[_Candidate], votes: Counter[str]) -> None:
    """Ask which of each two answers is better, with either first, and believe what is said both times."""
    asked = []
    for one in candidates:
        for a, b in ((one.first, one.other), (one.other, one.first)):
            dialogue = "\n\n".join(
                f"[{one.words.roles.get(turn['role'], turn['role'])}] {turn['content']}" for turn in one.prompt.messages
            )
            said = _fill(
                one.words.judge,
                {"dialogue": dialogue, "a": a.text.strip(), "b": b.text.strip(), "question": one.wording.question},
            )
            asked.append([_said("user", said)])
    chosen = judge.choose(asked, [seed_of(config.seed, "judge")] * len(asked))
    for one, straight, turned in zip(candidates, chosen[::2], chosen[1::2], strict=True):
        if straight is None or turned is None:
            one.problem = ("no_verdict", f"{straight} {turned}")
            continue
        votes["pairs"] += 1
        votes["verdicts"] += 2
        votes["first"] += (straight > 0.5) + (turned > 0.5)
        one.attributes |= {"preferred_first": f"{straight:.4f}", "preferred_turned": f"{turned:.4f}"}
        if (straight > 0.5) == (turned > 0.5) or 0.5 in (straight, turned):
            one.problem = ("inconsistent", f"{straight:.4f} {turned:.4f}")
            continue
        votes["consistent"] += 1
        one.revision_first = turned > 0.5
        if one.how == "revised":
            votes["revised"] += 1
            votes["revision"] += one.revision_first


def _settle(judged: Judged, one: _Candidate, write: Writer, judge: Writer | None) -> None:
    """Keep a candidate as a pair, or as unused."""
    id = document_id(SOURCE, write.name, f"{one.how} {one.prompt.name}")
    lineage = {
        "conversation": one.prompt.name,
        "group": one.prompt.group,
        "how": one.how,
        "writer": write.name,
        "principle": one.principle.name,
        "kind": one.principle.kind,
    }
    if judge is not None:
        asked = fingerprint([one.words.judge, one.wording.question])[:16]
        lineage |= {"judge": judge.name, "question": one.wording.question, "judge_prompt": asked}
    lineage |= one.attributes
    if one.problem:
        answers = [_said("assistant", reply.text.strip()) for reply in (one.first, one.other) if reply.text.strip()]
        judged.unused.append(Unused(id, SOURCE, *one.problem, [*one.prompt.messages, *answers], lineage))
        return
    chosen, rejected = (one.first, one.other) if one.revision_first is False else (one.other, one.first)
    judged.kept.append(
        Preference(
            id,
            SOURCE,
            f"{SOURCE}:{id.hex()}",
            one.prompt.messages,
            chosen.text.strip(),
            rejected.text.strip(),
            one.prompt.language,
            attributes=lineage,
        )
    )


def _problem(reply: Reply) -> tuple[str, str] | None:
    """Why nothing can be made of a reply; None where something can."""
    if reply.problem or not reply.text.strip():
        return (reply.problem or "empty").partition(":")[0], reply.problem
    return None if reply.ended else ("truncated", f"{reply.new_tokens} tokens")


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _filled(one: _Candidate, name: str) -> str:
    return _fill(getattr(one.words, name), {name: getattr(one.wording, name)})


def _fill(template: str, values: dict[str, str]) -> str:
    """A template with its places filled, once: braces in what is filled in are none."""
    return re.sub(r"\{([a-z]+)\}", lambda match: values.get(match[1], match[0]), template)
