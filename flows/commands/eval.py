"""`headwater eval`: judge any checkpoint by benchmarks, compare several, and say which differences are real."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from flows.commands.chat import Chosen, choose
from flows.commands.common import COMMON, Common
from flows.output import Console, note

if TYPE_CHECKING:
    from models.evaluation.judge import Judged, Progress, Settings


def eval(
    *checkpoints: str,
    tasks: str,
    limit: int | None = None,
    batch: int = 16,
    shots: str | None = None,
    seed: int = 0,
    samples: int = 1,
    reasons: str = "yes",
    chat: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    trust_remote_code: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Judge checkpoints by benchmarks; of several, each is compared with the first.

    Parameters
    ----------
    checkpoints
        Stages of the last run (`sft`), folders, fingerprints, or .gguf files.
    tasks
        Benchmarks by name or as YAML files of yours, parted by commas: arc_easy,piqa,mine.yaml
    limit
        The first so many items of each.
    batch
        Rows in one pass. It changes no score.
    shots
        Worked examples before each question: a number, or several parted by commas for a curve.
    seed
        Of worked examples and of what is drawn.
    samples
        Answers to an item of code, for pass@k; one is greedy.
    reasons
        Whether worked examples show the way to their answers: yes, no, or both beside each other.
    chat
        Put prompts as a user's turn, by the model's chat template.
    out
        Also write every item as asked, answered and scored: .jsonl or .parquet.
    trust_remote_code
        Run the Python code that a checkpoint's folder brings along. It can do all that you can: know who made it.
    """
    if not checkpoints:
        raise UserError("name a checkpoint: a stage (sft), a folder, or a .gguf file")
    bounds = (("limit", limit, 1, 1 << 31), ("batch", batch, 1, 4096), ("samples", samples, 1, 1000))
    for name, value, least, most in (*bounds, ("seed", seed, 0, (1 << 31) - 1)):
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name} {value}: a number from {least} to {most}")
    if reasons not in ("yes", "no", "both"):
        raise UserError(f"--reasons {reasons}: choose yes, no or both")
    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"--out {out}: give a name that ends in .jsonl or .parquet")
    counts = _counts(shots)
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UserError("--tasks names nothing: give benchmarks, such as arc_easy,piqa")
    chosen = [_chosen(name, common.folder) for name in checkpoints]

    from models.evaluation import benchmark as benchmarks

    asked = [benchmarks.load(name) for name in dict.fromkeys(names)]
    if len({one.name for one in asked}) < len(asked):
        raise UserError("two tasks have one name: rename one of the files")
    for one in asked:
        _ = one.items  # what is missing is said before a model is loaded

    from models.evaluation.judge import Settings

    several = len(counts) > 1 or reasons == "both"
    ways = [
        Settings(limit, batch, count, seed, samples, reasons=why, chat=chat)
        for count in counts
        for why in {"yes": (True,), "no": (False,), "both": (True, False)}[reasons]
    ]
    judged = [_judge(one, asked, ways, trust_remote_code) for one in chosen]
    from models.evaluation.compare import compare
    from models.evaluation.judge import results

    rows: list[dict[str, Any]] = []
    for one, found in zip(chosen, judged, strict=True):
        for way, answers in zip(ways, found, strict=True):
            more: dict[str, Any] = {"checkpoint": str(one)} if len(chosen) > 1 else {}
            for result in results(answers):
                own = (
                    {"shots": _shots(answers, result.task), "reasons": _reasons(answers, result.task)}
                    if several
                    else {}
                )
                rows.append(
                    {name: getattr(result, name) for name in ("task", "metric", "value", "low", "high", "n")}
                    | more
                    | own
                )
    cut: dict[str, int] = {}
    for answer in (answer for found in judged for answers in found for answer in answers):
        cut[answer.task] = cut.get(answer.task, 0) + answer.cut
    answer_ = {"results": rows, "cut": {task: number for task, number in cut.items() if number}}
    if len(chosen) > 1:
        first = [answer for answers in judged[0] for answer in answers]
        answer_["compared"] = [
            {"checkpoint": str(one), "with": str(chosen[0])} | row
            for one, found in zip(chosen[1:], judged[1:], strict=True)
            for row in compare(first, [answer for answers in found for answer in answers])
        ]
    common.output.answer(answer_, _draw)
    return 0


def _counts(shots: str | None) -> list[int | None]:
    if shots is None:
        return [None]
    parts = [part.strip() for part in shots.split(",")]
    if not all(part.isdecimal() and int(part) <= 64 for part in parts):
        raise UserError(f"--shots {shots}: a number from 0 to 64, or several parted by commas")
    return [int(part) for part in dict.fromkeys(parts)]


def _chosen(name: str, lake: Path) -> Chosen:
    path = Path(name).expanduser()
    return Chosen(path) if path.suffix == ".gguf" and path.is_file() else choose(name, lake)


def _judge(
    chosen: Chosen, asked: Sequence[Any], ways: Sequence[Settings], trust_remote_code: bool
) -> list[list[Judged]]:
    """What a checkpoint says of every benchmark, for each way of asking."""
    import torch

    from models.evaluation.judge import judge
    from models.network.build import ScalarHead, keep_freed_memory
    from models.network.checkpoint import load

    keep_freed_memory()
    model, tokenizer = load(chosen.folder, trust_remote_code)
    if isinstance(model, ScalarHead):
        raise UserError(f"{chosen} is a reward model, which scores answers and writes none: judge another")
    if torch.cuda.is_available():
        model = model.to("cuda")
    found: list[list[Judged]] = []
    for way in ways:
        found.append([])
        for one in asked:
            with _bar(one.name, len(one.items[: way.limit])) as told:
                found[-1] += judge(model, tokenizer, one, way, told)
    return found


@contextmanager
def _bar(title: str, total: int) -> Iterator[Progress]:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    terminal = sys.stderr is not None and sys.stderr.isatty()
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True, disable=not terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda items: bar.advance(task, items)


def _shots(rows: Sequence[Judged], task: str) -> int:
    return next(row.shots for row in rows if row.task == task)


def _reasons(rows: Sequence[Judged], task: str) -> bool:
    return next(row.reasons for row in rows if row.task == task)


def _draw(console: Console, answer: dict[str, Any]) -> None:
    for name in ("results", "compared"):
        rows = answer.get(name)
        if rows:
            columns = list(rows[0])
            console.table(columns, [[row[column] for column in columns] for row in rows])
            console.line()
    for task, number in answer["cut"].items():
        note(f"{task}: {number} prompts were longer than the context and lost their beginning")
