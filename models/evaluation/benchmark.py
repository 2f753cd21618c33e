"""A benchmark is data: one YAML file says where its items lie, how they are asked and how answers are scored.

Those of the house lie in `benchmarks/`; a user's own is named by its path. A prompt is a Jinja template over an item's
columns; `choices`, `contexts` and `gold` are Jinja expressions over them.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datalake.curate.checks.evaluation_sets import WORD, readings, stem
from datalake.document import Passed, Quarantined
from datalake.errors import UserError, first_line
from datalake.formats.rows.files import RowFile, row_files
from datalake.formats.rows.json import split_lines
from datalake.origin import Origin
from datalake.remote.address import base_name, is_remote, shown
from models.rl import rewards
from models.rl.rewards.config import built_in

FOLDER = Path(__file__).with_name("benchmarks")
Kind = Literal["choice", "continuation", "generation", "code", "text", "dialogue", "checked"]
METRICS: dict[str, tuple[str, ...]] = {
    "choice": ("accuracy", "accuracy_norm"),
    "continuation": ("accuracy", "perplexity"),
    "generation": ("exact_match", "ended"),
    "code": ("pass",),
    "text": ("bits_per_byte", "perplexity"),
    "dialogue": ("ended",),
    "checked": ("ended",),
}
_LONGEST = 1 << 26  # bytes of a line
_BETWEEN = "\n\n"  # shots, as EleutherAI's harness has it
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


class Benchmark(BaseModel):
    """One benchmark as its file has it. Templates and expressions see an item's columns by their names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="What the command calls it: the file's name.")
    about: str = Field("", description="What it asks, and the paper that it comes from.")
    kind: Kind = Field(
        description="`choice`: the likeliest of some answers; `continuation`: how likely one is; `generation`: an "
        "answer is written and compared; `code`: it is run against tests; `text`: how well a text is predicted; "
        "`dialogue`: turns are answered; `checked`: an answer is written in a dialogue and held to `checks`"
    )
    source: str = Field(
        "", description="A file of rows below the samples' `eval` folder, a path of yours, or an address."
    )
    rows: list[dict[str, Any]] = Field([], description="Instead of a source the rows themselves.")
    documents: int = Field(
        0, ge=0, le=100_000, description="Instead of a source: so many questions, made of the lake's own documents."
    )
    lake: str = Field("", exclude=True, description="The lake's folder, as the command knows it.")
    members: str = Field("*", description="Of an archive, the members that count (a glob over their paths).")
    begins: str = Field(
        "", description="Expression: whether a `line` of a text file begins a document; else each is one."
    )
    intro: str = Field("", description="Template of what stands before all, once.")
    prompt: str = Field("", description="Template of what is asked.")
    choices: str = Field("", description="Expression: the answers to choose from.")
    contexts: str = Field("", description="Expression: instead of `choices`, what may stand before `target`.")
    gold: str = Field("", description="Expression: the place of the right choice, from 0.")
    target: str = Field("", description="Template: the right answer, where it is a text.")
    reasons: str = Field("", description="Template: the answer with the way to it, shown where reasons are asked for.")
    question: str = Field(
        "", description="Template: the text that tells an item in training documents; else the prompt."
    )
    between: str = Field(" ", description="What parts a prompt from its answer.")
    shots: int = Field(0, ge=0, le=64, description="Worked examples before the question, unless the command says.")
    examples: str = Field("", description="Where examples come from; else from the items, never the one that is asked.")
    example_members: str = Field("*", description="As `members`, of `examples`.")
    group: str = Field("", description="Expression: an example is of the same group as its item.")
    compare: Literal["number", "text"] = Field("number", description="Of a generation: numbers, or words alone.")
    checks: dict[str, str] = Field(
        {},
        description="Metrics of a `checked` answer, each by a reward that can be verified: a file of models/rl/rewards "
        "or a function of one (`constraints:share`). They see the item's columns. The first is the main one.",
    )
    part: str = Field("", description="Expression: the part that an item belongs to; each has figures of its own.")
    tools: str = Field("", description="Expression: the tools that a `checked` answer may call, as OpenAI has them.")
    stop: list[str] = Field([], description="What ends a written answer.")
    new_tokens: int = Field(256, ge=1, le=65536, description="Longest written answer.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its figures, the first one the main one."""
        return (*self.checks, *METRICS[self.kind])

    def check(self) -> None:
        """Raises UserError where a field that its kind needs is missing, or a template isn't one."""
        needs: dict[str, tuple[str, ...]] = {
            "choice": ("gold", "target" if self.contexts else "choices"),
            "continuation": ("prompt", "target"),
            "generation": ("prompt", "target"),
            "code": ("prompt",),
            "text": (),
            "dialogue": ("prompt",),
            "checked": ("prompt", "checks"),
        }
        missing = [field for field in needs[self.kind] if not getattr(self, field)]
        if missing:
            raise UserError(f"benchmark {self.name}: {self.kind} needs {' and '.join(map(repr, missing))}")
        if (bool(self.source), bool(self.rows), bool(self.documents)).count(True) != 1:
            raise UserError(f"benchmark {self.name}: give it a `source`, `rows` or `documents`, one of them")
        for metric, name in self.checks.items():
            _verifier(self, metric, name)
        for field in ("intro", "prompt", "target", "reasons", "question"):
            _guarded(self, field, lambda text: _JINJA.from_string(text))
        for field in ("choices", "contexts", "gold", "group", "begins", "part", "tools"):
            _guarded(self, field, lambda text: _JINJA.compile_expression(text or "0"))

    def rendered(self, field: str, row: Mapping[str, Any]) -> str:
        """A template of its own, filled with an item's columns."""
        text: str = _guarded(self, field, lambda source: _template(source).render(**row))
        return text

    def value(self, field: str, row: Mapping[str, Any]) -> Any:
        """An expression of its own over an item's columns."""
        return _guarded(self, field, lambda source: _expression(source)(**row))

    @cached_property
    def items(self) -> list[Item]:
        """All items; where there are several members, the first of each, then the second of each..."""
        if self.rows or self.documents:
            rows = self.rows or _made(self)
            return [Item(str(place), place, row) for place, row in enumerate(rows)]
        return list(_read(self, self.source, self.members, "source"))

    @property
    def verifiers(self) -> dict[str, Callable[..., float]]:
        """The functions behind `checks`, by metric."""
        return {metric: _verifier(self, metric, name) for metric, name in self.checks.items()}

    @cached_property
    def pool(self) -> list[Item]:
        """What worked examples are drawn from."""
        return list(_read(self, self.examples, self.example_members, "examples")) if self.examples else self.items


@cache
def _template(source: str) -> Template:
    return _JINJA.from_string(source)


@cache
def _expression(source: str) -> Any:
    return _JINJA.compile_expression(source, undefined_to_none=False)


def _verifier(benchmark: Benchmark, metric: str, name: str) -> Callable[..., float]:
    """A reward that can be verified, by its name."""
    file, _, function = name.partition(":")
    if file not in built_in():
        raise UserError(f"benchmark {benchmark.name}: checks: {metric}: there is no {file!r} in models/rl/rewards")
    found = getattr(importlib.import_module(f"{rewards.__name__}.{file}"), function or "correct", None)
    if not callable(found):
        raise UserError(f"benchmark {benchmark.name}: checks: {metric}: {file} has no {function or 'correct'!r}")
    verifier: Callable[..., float] = found
    return verifier


def _guarded(benchmark: Benchmark, field: str, use: Any) -> Any:
    try:
        return use(getattr(benchmark, field))
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise UserError(
            f"benchmark {benchmark.name}: {field} is wrong ({first_line(error)}): correct its file"
        ) from None


@dataclass(frozen=True, slots=True)
class Item:
    """A row of a benchmark: its name (`member#row` of several members, else the row's number), place, and columns."""

    name: str
    place: int
    row: dict[str, Any]


class Asked(NamedTuple):
    """An item as a model is asked it.

    prompt: all that stands before the answer, worked examples included; of `contexts` one for each choice. answers:
    what may follow, each with what parts it from the prompt; empty where the model writes itself. gold: the place of
    the right one. target: the right answer as a text.
    """

    item: Item
    prompts: list[str]
    answers: list[str]
    gold: int
    target: str


def known() -> list[str]:
    """The benchmarks of the house."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, lake: Path | None = None) -> Benchmark:
    """A benchmark by its name, or by the path of its file (`.yaml`); `lake` is where documents are taken from.

    Raises:
        UserError: where there is none, or its file has a mistake.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if own else FOLDER / f"{name}.yaml"
    if not own and name not in known():
        near = difflib.get_close_matches(name, known(), 1)
        more = f"did you mean {near[0]}?" if near else f"known are {', '.join(known())}; a file of yours ends in .yaml"
        raise UserError(f"there is no task {name!r}: {more}")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the task file {path} can't be read ({error.strerror}): correct its path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the task file {path} is no YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(told, dict):
        raise UserError(f"the task file {path} holds no mapping: see docs/evaluation.md for its keys")
    if own and isinstance(source := told.get("source"), str) and not is_remote(source):
        told = {**told, **{key: _beside(path, told[key]) for key in ("source", "examples") if told.get(key)}}
    try:
        benchmark = Benchmark.model_validate({"name": path.stem, **told, "lake": str(lake or "")})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        near = difflib.get_close_matches(key, list(Benchmark.model_fields), 1)
        more = f": did you mean {near[0]!r}?" if first["type"] == "extra_forbidden" and near else ""
        raise UserError(f"the task file {path}: {key}: {first['msg']}{more}") from None
    benchmark.check()
    return benchmark


def _beside(file: Path, source: str) -> str:
    """Where a user's source lies: beside their file, if it is there; else as it is written."""
    there = file.parent / Path(source).expanduser()
    return str(there.absolute()) if there.exists() else source


def samples() -> Path:
    """The folder of the benchmarks' files: `eval` of HEADWATER_SAMPLES."""
    root = os.environ.get("HEADWATER_SAMPLES") or str(Path(__file__).parents[3] / "shared" / "samples")
    return Path(root) / "eval"


def _read(benchmark: Benchmark, source: str, members: str, field: str) -> Iterator[Item]:
    """The rows of a source. Raises UserError where it isn't there, damaged, or empty."""
    with TemporaryDirectory(prefix="headwater-eval-") as folder:
        if is_remote(source):
            from datalake.remote.client import Client
            from datalake.remote.config import RemoteConfig
            from datalake.remote.limits import Limits

            path = Path(folder) / base_name(source)
            path.write_bytes(Client(RemoteConfig(), Limits(Path(folder), RemoteConfig())).whole(source))
        else:
            path = samples() / Path(source).expanduser()
        if not path.is_file():
            raise UserError(
                f"benchmark {benchmark.name}: its {field}, {path}, is not there: set HEADWATER_SAMPLES to the samples' "
                "folder, or name another file in a task file of yours"
            )
        try:
            rows = [
                (number, member, value)
                for member, file in enumerate(_files(benchmark, path, members))
                for number, value in enumerate(_rows(benchmark, file))
            ]
        except OSError as error:
            raise UserError(f"benchmark {benchmark.name}: {path} can't be read ({error.strerror})") from None
    if not rows:
        raise UserError(f"benchmark {benchmark.name}: no item in {shown(source)} ({members}): correct its file")
    several = len({member for _, member, _ in rows}) > 1
    for place, (number, _, (name, row)) in enumerate(sorted(rows, key=lambda entry: entry[:2])):
        if not isinstance(row, dict):
            raise UserError(f"benchmark {benchmark.name}: row {number} of {shown(source)} is no object")
        yield Item(f"{name}#{number}" if several else str(number), place, {**row, "member": name})


def _made(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Questions made of the documents that the lake's last run kept."""
    from datalake.lake.lake import Lake
    from datalake.lake.ledger import query
    from datalake.lake.records import manifests
    from models.evaluation.grounded import items

    if not benchmark.lake:
        raise UserError(f"benchmark {benchmark.name} asks about a lake's documents: name the lake")
    lake = Lake(benchmark.lake).require()
    with_documents = (one for one in reversed(manifests(lake)) if "documents" in one.refs)
    if (run := next(with_documents, None)) is None:
        raise UserError(f"benchmark {benchmark.name}: no run in {lake.root} has documents: run a recipe that has some")
    sql = f'SELECT hex(id), text, language FROM "{run.corpus}"."documents" ORDER BY id LIMIT {20 * benchmark.documents}'
    rows = items(query(lake, sql, run.run)[1], benchmark.documents)
    if not rows:
        raise UserError(f"benchmark {benchmark.name}: no document in {lake.root} states a number to ask for")
    return rows


def _files(benchmark: Benchmark, path: Path, members: str) -> Iterator[RowFile]:
    for file in row_files(str(path), Origin("evaluation", "evaluation", path.name)):
        if isinstance(file, Quarantined):
            raise UserError(f"benchmark {benchmark.name}: {path} can't be read ({file.reason}: {file.detail})")
        if not isinstance(file, Passed) and (file.name == path.name or fnmatch(file.name, members)):
            yield file


def _rows(benchmark: Benchmark, file: RowFile) -> Iterator[tuple[str, Any]]:
    """(the member's own name, row) of a file; of a text file its documents, as `{"text": ...}`."""
    name = Path(stem(file.name)).name
    lines: Iterator[Any] = split_lines(file.chunks, file.origin, _LONGEST) if file.form == "text" else file.rows()
    held: list[str] = []

    def document() -> Iterator[tuple[str, Any]]:
        if text := "\n".join(held).strip():
            yield name, {"text": text}
        held.clear()

    for line in lines:
        if isinstance(line, Quarantined):
            raise UserError(f"benchmark {benchmark.name}: {file.name} is damaged ({line.reason}: {line.detail})")
        if not isinstance(line, tuple):
            yield name, line.value
            continue
        text = line[1].decode("utf-8", "replace").rstrip("\n")
        if held and (not benchmark.begins or benchmark.value("begins", {"line": text})):
            yield from document()
        held.append(text)
    yield from document()


def asked(benchmark: Benchmark, item: Item, shots: int = 0, seed: int = 0, reasons: bool = False) -> Asked:
    """An item behind so many worked examples.

    Examples are drawn by the seed and the item's place; those of fewer shots are the first of those of more. Raises
    UserError where there are too few to draw from.
    """
    before = benchmark.rendered("intro", item.row)
    for example in _examples(benchmark, item, shots, seed):
        shown_ = _single(benchmark, example)
        answer = benchmark.rendered("reasons", example.row) if reasons and benchmark.reasons else shown_.target
        head = shown_.prompts[max(shown_.gold, 0) if benchmark.contexts else 0]
        before += f"{head}{benchmark.between}{answer}{_BETWEEN}"
    one = _single(benchmark, item)
    return one._replace(prompts=[before + prompt for prompt in one.prompts])


def _single(benchmark: Benchmark, item: Item) -> Asked:
    """An item alone."""
    row = item.row
    if benchmark.kind == "text":
        return Asked(item, [""], [str(row.get("text", ""))], 0, "")
    if benchmark.kind != "choice":
        target = benchmark.rendered("target", row)
        answers = [benchmark.between + target] if benchmark.kind == "continuation" else []
        if answers and not target.strip():  # which every model would write
            raise UserError(f"benchmark {benchmark.name}: item {item.name} has an empty target: correct its file")
        return Asked(item, [benchmark.rendered("prompt", row)], answers, -1, target)
    choices = benchmark.value("contexts" if benchmark.contexts else "choices", row)
    gold, target = benchmark.value("gold", row), benchmark.rendered("target", row) if benchmark.contexts else ""
    if not isinstance(choices, list | tuple) or len(choices) < 2 or not all(isinstance(one, str) for one in choices):
        raise UserError(f"benchmark {benchmark.name}: item {item.name} has no choices: correct its file")
    if not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise UserError(f"benchmark {benchmark.name}: item {item.name} has {gold!r} as the place of the right choice")
    if not all(one.strip() for one in ([target] if benchmark.contexts else choices)):  # it would be likelier than any
        raise UserError(f"benchmark {benchmark.name}: item {item.name} has an empty choice: correct its file")
    if benchmark.contexts:
        return Asked(item, list(choices), [benchmark.between + target] * len(choices), gold, target)
    answers = [benchmark.between + choice for choice in choices]
    return Asked(item, [benchmark.rendered("prompt", row)], answers, gold, choices[gold])


def text_of(benchmark: Benchmark, item: Item, least: int = 8) -> str:
    """The text by which an item is known in other documents: its question. Where that is short (fewer than `least`
    words, two Chinese characters being one), or only the beginning of a sentence, with the choices or the answer."""
    if benchmark.documents:
        return ""  # what is asked about is to be known
    one = _single(benchmark, item)
    if benchmark.kind == "text":
        return one.answers[0]
    prompt = one.prompts[max(one.gold, 0) if benchmark.contexts else 0]
    text = benchmark.rendered("question", item.row) if benchmark.question else prompt
    words = WORD.findall(_bare(text))
    if 2 * len(words) - sum(word >= "\u3400" for word in words) < 2 * least or benchmark.contexts:
        text = prompt if benchmark.question else f"{prompt.rstrip()} {one.target}"
    elif benchmark.kind == "continuation":
        text = prompt + benchmark.between + one.target
    return _bare(text)


def _bare(text: str) -> str:
    """A text without the labels of a prompt (`Question:`, `Answer:`) at its ends."""
    return next(iter(readings(text)), "")


def _examples(benchmark: Benchmark, item: Item, shots: int, seed: int) -> Sequence[Item]:
    if not shots:
        return ()
    pool = benchmark.pool
    if benchmark.group:
        group = benchmark.value("group", item.row)
        pool = [one for one in pool if benchmark.value("group", one.row) == group]
    own = _single(benchmark, item)[1:]
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, item.place])))
    found: list[Item] = []
    for number in draw.permutation(len(pool)).tolist():
        # Equal is what is asked and what is right: the same question may stand in a file under two numbers.
        if _single(benchmark, pool[number])[1:] != own:
            found.append(pool[number])
        if len(found) == shots:
            return found
    raise UserError(f"benchmark {benchmark.name}: {shots} worked examples are asked for and there are {len(found)}")
