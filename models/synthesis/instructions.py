"""Self-instruct: from a few tasks a model writes more of them, and answers (Wang et al. 2022, arXiv:2212.10560).

In rounds: requests show tasks drawn by seed and ask for new ones; each instruction that comes passes the rules below,
in their order, or is kept as unused under the first that refuses it; those that pass are answered, and dialogues pass
the rules for answers. A round is a function of what came before it and of what the writer answers, which is kept: who
was ended goes through the same rounds again without asking.

    format      nothing in a reply could be told to be an instruction
    cut         the limit of tokens ended the reply within it
    short long  words, by `least_words` and `most_words`
    punctuation it begins with a sign
    keyword     it asks for what text alone can't do (instructions.yaml)
    language    it is in another language than the one that was asked for
    similar     ROUGE-L to a seed or an earlier instruction (at or above `rouge`)
    near        by the lake's signatures: the question to one that is given, or the dialogue to any (`jaccard`)
    empty filtered refused truncated declined echo      the answer: there is none, or none to learn from
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from datalake.document import Conversation, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.text.language import UNDETERMINED, detect
from datalake.text.yaml_text import read_yaml
from models.serving.endpoint import Reply
from models.synthesis.config import InstructConfig
from models.synthesis.records import Near, Unused
from models.synthesis.rouge import Pool, rouge_l
from models.synthesis.writer import Writer

SOURCE = "instruct"
STALE = 3  # rounds in a row that give nothing end it: each of them costs
ECHO = 0.9  # ROUGE-L of an answer to its instruction
SHOWN = 3  # seed tasks with answers that a model is shown which isn't tuned
_NUMBERED = re.compile(r"[ \t*#]{0,8}(?:[Tt]ask|任务)?[ \t]{0,3}(\d{1,4})[ \t]{0,3}[.)．、:：](?:\*\*)?[ \t]*(.*)")
_BULLET = re.compile(r"[ \t]{0,8}[-*•][ \t]+(.*)")
_OPENS = "\"'“‘「『《（(¿¡`$"  # signs that an instruction may begin with


@cache
def prompts() -> Any:
    """What is asked and what is refused, by language."""
    return read_yaml((Path(__file__).parent / "instructions.yaml").read_bytes())


@cache
def _keywords(language: str) -> re.Pattern[str]:
    words = "|".join(map(re.escape, prompts()[language]["keywords"]))
    return re.compile(words if language == "zh" else rf"\b(?:{words})\b", re.IGNORECASE)


class Task(NamedTuple):
    """A task with its answer, given or written; `name` is its id in hex."""

    name: str
    question: str
    answer: str
    language: str


@dataclass
class Instructed:
    """What came of it. `rounds`: a row of figures for each; `note`: why it ended before all were written."""

    kept: list[Conversation] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    @property
    def reasons(self) -> Counter[str]:
        """How many were refused, by reason."""
        return Counter(one.reason for one in self.unused)


def instruct(
    config: InstructConfig,
    write: Writer,
    seeds: Sequence[Task],
    given: Sequence[Task],
    on_round: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Instructed:
    """Instructions with answers in whole rounds, until there are as many as wanted.

    `given` are dialogues that nothing written may be a near duplicate of. Raises UserError where a language has no
    seed task.
    """
    found, state = Instructed(), _State(config, write, seeds, given)
    while len(found.kept) < config.instructions and len(found.rounds) < config.rounds:
        number = len(found.rounds) + 1
        kept, unused, nearest = state.round(number)
        found.kept += kept
        found.unused += unused
        figures = {"kept": len(kept), "refused": len(unused), "instructions": len(found.kept), "rouge": nearest}
        found.rounds.append({"step": number, **figures})
        on_round(found.rounds[-1])
        if len(found.rounds) >= STALE and not any(row["kept"] for row in found.rounds[-STALE:]):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in found.reasons.most_common(4))
            found.note = f"warning: ended after {STALE} rounds that gave nothing ({reasons})"
            break
    if not found.note and len(found.kept) < config.instructions:
        found.note = f"warning: {len(found.kept):,} of {config.instructions:,} instructions in {config.rounds:,} rounds"
    return found


class _State:
    """What a round is told by: seeds, what was written, and all that nothing may be like."""

    def __init__(self, config: InstructConfig, write: Writer, seeds: Sequence[Task], given: Sequence[Task]):
        self.config, self.write = config, write
        self.seeds: dict[str, list[Task]] = {
            language: [one for one in seeds if one.language == language] for language in config.languages
        }
        for language, some in self.seeds.items():
            if not some:
                raise UserError(
                    f"instruct: there is no seed task in {language!r}: add some to `seeds`, or leave it out"
                )
        self.written: dict[str, list[Task]] = {language: [] for language in config.languages}
        self.refused = 0
        self.pool = Pool([one.question for one in seeds])
        self.questions, self.dialogues = Near(config.signing), Near(config.signing)
        known = {one.name: one for one in (*seeds, *given)}.values()
        for near, texts in ((self.questions, [one.question for one in known]), (self.dialogues, [*map(_whole, known)])):
            for one, signature in zip(known, near.signed(texts), strict=True):
                near.add(one.name, signature)

    def round(self, number: int) -> tuple[list[Conversation], list[Unused], float]:
        """One round: what is kept, what isn't, and the mean ROUGE-L of what was tried to what it is nearest to."""
        asked = [self._request(number, place) for place in range(self.config.requests)]
        replies = self.write([one.messages for one in asked], [one.seed for one in asked])
        unused: list[Unused] = []
        passed: list[tuple[_Request, str, float]] = []
        scores: list[float] = []
        for request, reply in zip(asked, replies, strict=True):
            for instruction, reason, detail in self._told(request, reply):
                score = 0.0
                if not reason:
                    reason, detail, score = self._refusal(request.language, instruction)
                    scores.append(score)
                if reason:
                    unused.append(self._unused(request, number, reason, detail, instruction))
                else:
                    self.pool.add(instruction)
                    passed.append((request, instruction, score))
        answers = self.write(
            [self._question(request, instruction) for request, instruction, _ in passed],
            [seed_of(self.config.seed, number, instruction) for _, instruction, _ in passed],
        )
        kept = []
        for (request, instruction, score), reply in zip(passed, answers, strict=True):
            answer, reason, detail = self._answered(request.language, instruction, reply)
            if reason:
                unused.append(self._unused(request, number, reason, detail, instruction, answer))
                continue
            name = self._id(instruction).hex()
            task = Task(name, instruction, answer, request.language)
            self.dialogues.add(name, self.dialogues.signed([_whole(task)])[0])
            self.written[request.language].append(task)
            attributes = self._lineage(request, number) | {"rouge": f"{score:.4f}"}
            messages = _dialogue(instruction, answer)
            kept.append(
                Conversation(
                    self._id(instruction), SOURCE, f"{SOURCE}:{name}", messages, request.language, attributes=attributes
                )
            )
        return kept, unused, sum(scores) / len(scores) if scores else 0.0

    # Asking ----------------------------------------------------------------------------------------------------------

    def _request(self, number: int, place: int) -> _Request:
        config = self.config
        language = config.languages[place % len(config.languages)]
        seed = seed_of(config.seed, number, place)
        draw = random.Random(seed)
        seeds, written = self.seeds[language], self.written[language]
        shown = draw.sample(seeds, min(config.examples, len(seeds)))
        shown += draw.sample(written, min(config.written, len(written)))
        draw.shuffle(shown)
        examples = "\n".join(f"{n}. {' '.join(one.question.split())}" for n, one in enumerate(shown, 1))
        first = len(shown) + 1
        said = prompts()[language]["request" if config.writer.format == "chat" else "continuation"]
        numbers = {"examples": examples, "first": first, "last": first + config.more - 1, "more": config.more}
        return _Request(language, seed, first, [{"role": "user", "content": said.format(**numbers)}], shown)

    def _question(self, request: _Request, instruction: str) -> list[dict[str, str]]:
        if self.config.writer.format == "chat":
            return [{"role": "user", "content": instruction}]
        said = prompts()[request.language]["answer"]
        shown = random.Random(request.seed).sample(self.seeds[request.language], min(SHOWN, len(request.shown)))
        turns = [f"{said.format(task=one.question)} {one.answer}" for one in shown]
        return [{"role": "user", "content": "\n\n".join([*turns, said.format(task=instruction)])}]

    # Rules -----------------------------------------------------------------------------------------------------------

    def _told(self, request: _Request, reply: Reply) -> list[tuple[str, str, str]]:
        """The instructions of a reply: each with a reason and a detail where it is refused already."""
        if reply.problem:
            return [("", reply.problem.partition(":")[0], reply.problem)]
        goes_on = self.config.writer.format == "text"
        items = numbered(f"{request.first}. {reply.text}" if goes_on else reply.text)[: self.config.more]
        if not items:
            return [("", "format", reply.text)]
        whole = [(item, "", "") for item in items]
        if not reply.ended and len(items) < self.config.more:
            whole[-1] = (items[-1], "cut", "")
        return whole

    def _refusal(self, language: str, text: str) -> tuple[str, str, float]:
        """Why an instruction isn't taken ("" where it is), what that was measured by, its ROUGE-L to the nearest."""
        from datalake.dedup.texts.shingles import word_list

        config, words = self.config, len(word_list(text))
        if not config.least_words <= words <= config.most_words:
            return ("short" if words < config.least_words else "long"), f"{words} words", 0.0
        if not text[0].isalnum() and text[0] not in _OPENS:
            return "punctuation", text[0], 0.0
        keyword = _keywords(language).search(text)
        if keyword:
            return "keyword", keyword[0].lower(), 0.0
        settings = config.language
        spoken, probability = detect(
            text, model=settings.model.path, threshold=settings.threshold, characters=settings.characters
        )
        if spoken not in (language, UNDETERMINED):
            return "language", f"{spoken} {probability:.2f}", 0.0
        _, score = self.pool.nearest(text)
        if score >= config.rouge:
            return "similar", f"{score:.4f}", score
        name, alike = self.questions.nearest(self.questions.signed([text])[0])
        return ("near", f"{name} {alike:.4f}", score) if alike >= config.jaccard else ("", "", score)

    def _answered(self, language: str, instruction: str, reply: Reply) -> tuple[str, str, str]:
        """The answer, and why it isn't taken ("" where it is), with a detail."""
        text, ended = reply.text, reply.ended
        if self.config.writer.format == "text":
            said = prompts()[language]["answer"].partition("{task}")[0].strip()
            text, marker, _ = text.partition(f"\n\n{said}")
            ended = ended or bool(marker)
        text = text.strip()
        if reply.problem or not text:
            return text, (reply.problem or "empty").partition(":")[0], reply.problem
        if not ended:
            return text, "truncated", f"{reply.new_tokens} tokens"
        beginning = text[:200].lower().replace("’", "'")
        declined = next((one for one in prompts()[language]["declined"] if one in beginning), "")
        if declined:
            return text, "declined", declined
        echo = rouge_l(instruction, text)
        if echo >= ECHO:
            return text, "echo", f"{echo:.4f}"
        task = Task("", instruction, text, language)
        name, alike = self.dialogues.nearest(self.dialogues.signed([_whole(task)])[0])
        return (text, "near", f"{name} {alike:.4f}") if alike >= self.config.jaccard else (text, "", "")

    # Rows ------------------------------------------------------------------------------------------------------------

    def _lineage(self, request: _Request, number: int) -> dict[str, str]:
        return {"round": str(number), "seeds": " ".join(one.name for one in request.shown), "writer": self.write.name}

    def _id(self, instruction: str) -> bytes:
        return document_id(SOURCE, self.write.name, instruction)

    def _unused(
        self, request: _Request, number: int, reason: str, detail: str, instruction: str, answer: str = ""
    ) -> Unused:
        self.refused += 1
        id = document_id(SOURCE, self.write.name, f"{self.refused} {request.seed} {instruction or detail}")
        return Unused(id, SOURCE, reason, detail, _dialogue(instruction, answer), self._lineage(request, number))


class _Request(NamedTuple):
    language: str
    seed: int
    first: int
    messages: list[dict[str, str]]
    shown: list[Task]


def numbered(text: str) -> list[str]:
    """The items of a numbered list, or of one with bullets; lines without a mark belong to the item before them."""
    lines = text.splitlines()
    marked = [(match[2] if (match := _NUMBERED.match(line)) else None) for line in lines]
    if not any(mark is not None for mark in marked):
        marked = [(match[1] if (match := _BULLET.match(line)) else None) for line in lines]
    items: list[list[str]] = []
    for line, mark in zip(lines, marked, strict=True):
        if mark is not None:
            items.append([mark])
        elif items:
            items[-1].append(line)
    found = ["\n".join(item).strip().strip("*").strip() for item in items]
    return [item for item in found if item]


def seed_of(*parts: Any) -> int:
    """A number below 2^31 by what it is for: what servers take for a seed."""
    return int(fingerprint(list(parts))[:8], 16) >> 1


def _whole(task: Task) -> str:
    return f"{task.question}\n\n{task.answer}"


def _dialogue(question: str, answer: str) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return turns if answer else turns[:1]
