"""The stage `feedback`: preferences by principles, from answers that a model criticises, revises and judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datalake.identity import fingerprint
from datalake.lake.lake import FolderRef
from datalake.lake.shards import ShardWriter
from datalake.tables import PREFERENCES, to_table
from models.synthesis.config import FeedbackConfig
from tasks.dialogues import HoldOut, Tables, dialogues, prompts
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage
from tasks.writing import Writers, written_alone


class Judged(NamedTuple):
    """Pairs of answers, and those that nobody can learn from."""

    feedback: Table
    feedback_refused: Table


def _feedback(config: FeedbackConfig, asked: Sequence[Any], writers: Writers, key: str, out: Path) -> dict[str, Any]:
    """Answer, revise and judge; the tables lie in `out`."""
    from models.synthesis.constitution import PRINCIPLES, Constitution, Prompt, feedback
    from models.synthesis.records import UNUSED

    path = Path(config.principles.path) if config.principles else PRINCIPLES
    constitution = Constitution.read(path, config.kinds)
    write, judge = writers["writer"], writers["judge"] if config.judge else None
    found = feedback(config, constitution, write, judge, [Prompt(*one) for one in asked], writers.on_step)
    with ShardWriter(out, "feedback", key, {"feedback": PREFERENCES, "feedback_refused": UNUSED}) as tables:
        tables.write("feedback", to_table(found.kept, PREFERENCES))
        tables.write("feedback_refused", to_table(found.unused, UNUSED))
        for reason, count in sorted(found.reasons.items()):
            tables.count(f"refused:{reason}", count)
    said = {"writer": write.name, "usage": write.usage()}
    if judge is not None:
        said |= {"judge": judge.name, "judge_usage": judge.usage(), **found.figures}
    note = ", ".join(f"{name} {value:.2f}" for name, value in found.figures.items())
    return said | {"prompts": len(asked), "note": note}


@stage(Judged, version="1", libraries=("pyarrow",))
def feedback(
    config: FeedbackConfig,
    runtime: Runtime,
    conversations: Tables,
    holdout: HoldOut,
    model: FolderRef | None = None,
) -> Produced:
    """Answers to the prompts of dialogues, criticised, revised and judged by principles; pairs of them.

    A pair is held out with the dialogue whose prompt it answers.
    """
    from models.synthesis.records import UNUSED

    if config.principles:
        config.principles.check("feedback.principles")
    rows = sorted(
        (row for side in dialogues(runtime.lake, conversations, holdout) for row in side),
        key=lambda row: fingerprint([config.seed, row["id"]]),
    )
    asked = [
        (row["id"].hex(), row["group"], [{name: turn[name] for name in ("role", "content")} for turn in said])
        for row, said in zip(rows, (prompt["messages"] for prompt in prompts(rows)), strict=True)
        if said and said[-1]["role"] in ("user", "tool")
    ][: config.prompts]
    told = [(*one, "zh" if any("\u4e00" <= c <= "\u9fff" for c in one[2][-1]["content"]) else "en") for one in asked]
    made, report = written_alone(_feedback, "feedback", config, runtime, model, told)
    files = {name: [file for file in made.files if file.table == name] for name in Judged._fields}
    kept, refused = (sum(file.rows for file in files[name]) for name in Judged._fields)
    return Produced(
        tables={"feedback": (PREFERENCES, files["feedback"]), "feedback_refused": (UNUSED, files["feedback_refused"])},
        counts={"kept": kept, "prompts": len(asked)} | made.counts,
        records_in=len(asked) * len(config.answers),
        records_out=kept,
        equations=[
            ("answers compared = kept + refused", len(asked) * len(config.answers), kept + refused),
            ("feedback refused = sum over reasons", refused, sum(made.counts.values())),
        ],
        funnel=[{"what": "kept", "number": kept}]
        + [{"what": name, "number": count} for name, count in sorted(made.counts.items())],
        **report,
    )
