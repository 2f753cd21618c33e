"""An exam: a benchmark's items as they are put to every model, one way of asking. No model is needed to set one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datalake.errors import UserError
from models.evaluation.benchmark import Asked, Benchmark, asked, load, text_of
from models.evaluation.config import EvaluateConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """How items are asked.

    limit: the first so many of each benchmark. batch: rows at once, which changes no score. shots: worked examples;
    None is the benchmark's own number. samples: answers to a code item, of which pass@k is estimated; one alone is
    greedy. reasons: whether worked examples show the way to their answers. chat: whether prompts are put as a user's
    turn in the tokenizer's chat template.
    """

    limit: int | None = None
    batch: int = 16
    shots: int | None = None
    seed: int = 0
    samples: int = 1
    temperature: float = 0.8
    reasons: bool = True
    chat: bool = False
    unshielded: bool = False


AS_THEY_ARE = Settings()


@dataclass(frozen=True, slots=True)
class Exam:
    """A benchmark as it is put to every model: its items, asked one way. Parts of it can be judged apart."""

    benchmark: Benchmark
    settings: Settings
    questions: list[Asked]

    @property
    def shots(self) -> int:
        """Worked examples before each question."""
        return shots_of(self.benchmark, self.settings)

    @property
    def reasons(self) -> bool:
        """Whether these show the way to their answers."""
        return bool(self.settings.reasons and self.benchmark.reasons and self.shots)

    @property
    def identity(self) -> dict[str, Any]:
        """All that a model's answers and their scores depend on: what is asked, never where the rows lie."""
        said = [(one.item.name, one.prompts, one.answers, one.gold, one.target) for one in self.questions]
        rows = [one.item.row for one in self.questions]
        content = json.dumps([said, rows], sort_keys=True, default=str, ensure_ascii=False)
        benchmark = self.benchmark.model_dump(exclude={"about", "source", "examples", "rows", "documents"})
        asked_ = {name: getattr(self.settings, name) for name in ("seed", "samples", "temperature", "chat")}
        digest = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
        return benchmark | asked_ | {"shots": self.shots, "reasons": self.reasons, "questions": digest}

    @property
    def texts(self) -> list[str]:
        """The texts by which its items are known in training documents."""
        return [text_of(self.benchmark, question.item) for question in self.questions]

    def parts(self, items: int) -> list[Exam]:
        """The exam in pieces of so many items, without what they aren't asked."""
        bare = Benchmark.model_construct(**dict(self.benchmark))
        starts = range(0, len(self.questions), items)
        return [replace(self, benchmark=bare, questions=self.questions[start : start + items]) for start in starts]


def shots_of(benchmark: Benchmark, settings: Settings) -> int:
    """How many worked examples a benchmark is asked with."""
    if benchmark.kind in ("text", "dialogue"):
        return 0
    return benchmark.shots if settings.shots is None else settings.shots


def exam(benchmark: Benchmark, settings: Settings = AS_THEY_ARE) -> Exam:
    """A benchmark's items as these settings ask them.

    Raises:
        UserError: where its rows aren't there or don't fit its file, or give too few worked examples.
    """
    shots, items = shots_of(benchmark, settings), benchmark.items[: settings.limit]
    asked_ = [asked(benchmark, item, shots, settings.seed, settings.reasons) for item in items]
    return Exam(benchmark, settings, asked_)


def exams(benchmarks: Sequence[Benchmark], ways: Sequence[Settings]) -> list[Exam]:
    """Every benchmark asked in every way, each once: without worked examples, reasons make no difference.

    Raises UserError where two are called alike.
    """
    if len({one.name for one in benchmarks}) < len(benchmarks):
        raise UserError("two tasks have one name: rename one of the files")
    found: dict[tuple[str, int, bool], Exam] = {}
    for one in (exam(benchmark, way) for benchmark in benchmarks for way in ways):
        found.setdefault((one.benchmark.name, one.shots, one.reasons), one)
    return list(found.values())


def ways_of(shots: Sequence[int | None], reasons: str, **more: Any) -> list[Settings]:
    """Settings for each number of shots; `reasons` is yes, no or both. `more`: as `Settings` has them."""
    shown = {"yes": (True,), "no": (False,), "both": (True, False)}[reasons]
    return [Settings(shots=count, reasons=why, **more) for count in shots or [None] for why in shown]


def exams_of(config: EvaluateConfig, lake: Path | None = None) -> list[Exam]:
    """The exams that a recipe asks for, of a lake's documents too; see `exam` for what is raised."""
    ways = ways_of(config.shots, config.reasons, limit=config.limit, batch=config.batch, seed=config.seed)
    return exams([load(name, lake) for name in dict.fromkeys(config.benchmarks)], ways)
