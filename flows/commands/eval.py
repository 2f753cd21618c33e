"""`headwater eval`: judge any checkpoint by benchmarks, compare several, and say which differences are real."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from flows.checkpoints import Chosen, choose
from flows.commands.common import COMMON, Common
from flows.output import Console, note

_KEY = "HEADWATER_JUDGE_KEY"  # the variable that holds the key of a judge behind an address

if TYPE_CHECKING:
    from datalake.lake.lake import Lake
    from models.evaluation.arena import Judge
    from models.evaluation.exam import Exam
    from models.evaluation.judge import Progress, Scorer
    from models.evaluation.judged import Judged


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
    judge: str | None = None,
    judge_model: str | None = None,
    out: Path | None = None,
    training: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    trust_remote_code: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Judge checkpoints by benchmarks, with intervals; compare several.

    Of several, each is compared with the first.

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
    judge
        Who judges answers to open questions (mt_bench): a reward model (`reward`, or a folder) scores each; the address
        of an OpenAI-compatible server says whose of two is better, asked in both orders. Its key, where it needs one,
        stands in HEADWATER_JUDGE_KEY.
    judge_model
        What that server calls the model that judges.
    out
        Also write every item as asked, answered and scored: .jsonl or .parquet.
    training
        Files with the training documents of a model that no lake made, to look for the items in.
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

    asked = [benchmarks.load(name, common.folder) for name in dict.fromkeys(names)]

    from models.evaluation.exam import exams, ways_of

    # What is missing or wrong is said before a model is loaded.
    ways = ways_of(counts, reasons, limit=limit, batch=batch, seed=seed, samples=samples, chat=chat)
    put = exams(asked, ways)
    named = _named(training) if training else None

    from models.evaluation.arena import win_rates
    from models.evaluation.compare import compare
    from models.evaluation.contamination import contaminated
    from models.evaluation.judged import beside, contamination, figures_of, tell_documents

    if judge and "://" in judge and len(chosen) < 2:
        raise UserError("--judge with an address compares: name two checkpoints")
    remote = _remote(judge, judge_model, common.folder) if judge and "://" in judge else None
    scorer = _scorer(_chosen(judge, common.folder), trust_remote_code) if judge and not remote else None
    lake = _lake(common.folder)
    judged: list[list[Judged]] = []
    rows: list[dict[str, Any]] = []
    dirty: list[dict[str, Any]] = []
    for place in chosen:
        mine: dict[str, Any] = {"checkpoint": str(place)} if len(chosen) > 1 else {}
        judged.append(_judge(place, put, scorer, trust_remote_code))
        documents = named if named is not None else _documents(lake, place)
        held: list[dict[str, Any]] = []
        if documents is not None:
            tell_documents(judged[-1], put, partial(contaminated, documents=documents))
            held = contamination(judged[-1])
        dirty += [mine | row for row in held]
        figures = beside(figures_of(judged[-1]), held)
        rows += [figure | mine for figure in figures]
        if lake is not None or out is not None:
            _keep(lake, out, place, judged[-1], figures, first=place is chosen[0])
    answer: dict[str, Any] = {"results": rows}
    if len(chosen) > 1:
        answer["compared"] = [
            {"checkpoint": str(place), "with": str(chosen[0])} | row
            for place, found_ in zip(chosen[1:], judged[1:], strict=True)
            for row in compare(judged[0], found_)
        ]
    if remote:
        answer["wins"] = [
            {"checkpoint": str(place), "with": str(chosen[0])} | row
            for place, found_ in zip(chosen[1:], judged[1:], strict=True)
            for row in win_rates(remote, _written(judged[0], put), _written(found_, put))
        ]
    if dirty:
        answer["contamination"] = dirty
    cut = Counter(row.task for found_ in judged for row in found_ if row.cut)
    if cut:
        answer["cut"] = dict(cut)
    common.output.answer(answer, _draw)
    return 0


def _lake(folder: Path) -> Lake | None:
    """The lake there, if there is one: it keeps the answers."""
    from datalake.lake.lake import Lake

    try:
        return Lake(folder).require()
    except UserError:
        return None


def _named(paths: Sequence[str]) -> list[tuple[str, str]]:
    """The rows of files, (name, text)."""
    from datalake.curate.checks.evaluation_sets import evaluation_rows
    from datalake.paths import expand

    return [
        (f"{row.set}#{row.number}", row.readings[0])
        for name, path in expand(paths)
        for row in evaluation_rows(name, path)
    ]


def _documents(lake: Lake | None, chosen: Chosen) -> list[tuple[str, str]] | None:
    """What trained a checkpoint, (id, text), as its stages have it; None where no lake made it."""
    if lake is None or chosen.fingerprint is None:
        return None
    from tasks.training_texts import training_texts

    return list(training_texts(lake, chosen.fingerprint))


def _keep(
    lake: Lake | None, out: Path | None, chosen: Chosen, judged: Sequence[Judged], figures: list[Any], first: bool
) -> None:
    """Every item as asked, answered and scored: into the lake's `runs.answers`, and to a file."""
    from datalake.files import file_digest, folder_version
    from datalake.lake.records import ANSWERS
    from tasks.benchmarks import keep, ledger_rows

    folder = chosen.here
    made = chosen.fingerprint or (folder_version(folder) if folder.is_dir() else file_digest(str(folder)))
    rows = ledger_rows(made, chosen.stage or str(chosen.folder), judged)
    if lake is not None:
        keep(lake, rows, figures)
    if out is None:
        return
    try:
        if out.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pa.Table.from_pylist(rows, ANSWERS)
            pq.write_table(table if first else pa.concat_tables([pq.read_table(out, schema=ANSWERS), table]), out)
        else:
            with out.open("w" if first else "a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise UserError(f"--out {out} can't be written ({error.strerror}): choose another place") from None


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


def _judge(chosen: Chosen, put: Sequence[Exam], scorer: Scorer | None, trust_remote_code: bool) -> list[Judged]:
    """What a checkpoint says in every exam."""
    import torch

    from models.evaluation.judge import answered
    from models.network.build import ScalarHead, keep_freed_memory
    from models.network.checkpoint import load

    keep_freed_memory()
    model, tokenizer = load(chosen.here, trust_remote_code)
    if isinstance(model, ScalarHead):
        raise UserError(f"{chosen} is a reward model, which scores answers and writes none: judge another")
    if torch.cuda.is_available():
        model = model.to("cuda")
    found: list[Judged] = []
    for one in put:
        with _bar(one.benchmark.name, len(one.questions)) as told:
            found += answered(model, tokenizer, one, told, scorer)
    return found


def _remote(url: str, model: str | None, lake: Path) -> Judge:
    """A judge behind an address; what it says is kept in the lake, or for this command alone.

    Raises UserError where it can't be reached.
    """
    import tempfile

    from pydantic import ValidationError

    from models.serving.config import Endpoint
    from models.serving.endpoint import Answers
    from models.synthesis.config import WriterConfig
    from models.synthesis.writer import Remote

    if not model:
        raise UserError("--judge with an address: say with --judge-model which of its models judges")
    key = os.environ.get(_KEY, "")
    try:
        endpoint = Endpoint(url=url, model=model, key_variable=_KEY)
    except ValidationError as error:
        raise UserError(f"--judge {url}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    with tempfile.TemporaryDirectory() as folder:  # whether it answers is seen before any model is asked
        once = WriterConfig(endpoint=endpoint.model_copy(update={"retries": 0}), new_tokens=8)
        Remote(once, key, Answers(Path(folder))).choose([[{"role": "user", "content": "Say A."}]], [0])
    kept = lake / "judgements" if _lake(lake) else Path(tempfile.mkdtemp(prefix="headwater-judge-"))
    return Remote(WriterConfig(endpoint=endpoint, new_tokens=8), key, Answers(kept))


def _written(judged: Sequence[Judged], put: Sequence[Exam]) -> list[Judged]:
    """The answers in words, which a judge can read."""
    written = {one.benchmark.name for one in put if one.benchmark.kind in ("dialogue", "checked", "generation")}
    return [row for row in judged if row.task in written]


def _scorer(chosen: Chosen, trust_remote_code: bool) -> Scorer:
    from models.network.build import ScalarHead
    from models.network.checkpoint import load

    model, tokenizer = load(chosen.folder, trust_remote_code)
    if not isinstance(model, ScalarHead):
        raise UserError(f"--judge {chosen} is no reward model: name the one that the stage `reward` made")
    return model, tokenizer


@contextmanager
def _bar(title: str, total: int) -> Iterator[Progress]:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    terminal = sys.stderr is not None and sys.stderr.isatty()
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True, disable=not terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda items: bar.advance(task, items)


def _draw(console: Console, answer: dict[str, Any]) -> None:
    for name in ("results", "compared", "wins"):
        rows = answer.get(name)
        if rows:
            console.table(list(rows[0]), [list(row.values()) for row in rows])
            console.line()
    for row in answer.get("contamination", ()):
        without = ", ".join(f"{one['metric']} {one['value']:.4g}" for one in row["without"])
        rest = f"; without them {without} (n {row['clean']})" if row["items"] and without else ""
        console.line(f"{row['task']}: training documents hold {row['share']:.1%} of {row['n']} items{rest}")
    for task, number in answer.get("cut", {}).items():
        note(f"{task}: {number} prompts were longer than the context and lost their beginning")
