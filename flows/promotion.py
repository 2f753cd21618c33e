"""Judging checkpoints of a lake, and promotion: a candidate beside the current model, and a person who agrees or not.

    judge      a grid of checkpoints and benchmarks; on a schedule the newest checkpoint, where that is still to do
    promote    the same for a candidate and the model that has the tag; then the run waits for a form to be filled in

A run of a deployment is suspended while it waits: its process ends, and begins again with the form, when all answers
are there already. One begun by the command or from Python waits in its process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import tasks.apart  # noqa: F401

# isort: split
from prefect import flow
from prefect.context import FlowRunContext
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from datalake.errors import UserError
from datalake.files import file_digest, folder_version
from datalake.lake import tags
from datalake.lake.lake import Lake
from datalake.lake.records import read_record
from datalake.lake.trace import find_checkpoint
from flows.checkpoints import Chosen, choose, names
from flows.flows import in_one_line, lake_folder, surroundings
from flows.parameters import LakeFolder
from flows.stages import ANSWERING, STAGES, TRAINING
from models.evaluation.benchmark import load
from models.evaluation.exam import exams, ways_of
from models.evaluation.judged import better
from tasks.benchmarks import Judgeable, grid, keep, ledger_rows
from tasks.cluster.connect import leaving
from tasks.runtime import Runtime, RuntimeConfig
from tasks.shown import artifacts
from tasks.shown.comparison import comparison, differences
from tasks.tracked import StageError

if TYPE_CHECKING:
    from models.evaluation.exam import Exam

TAKEN = frozenset((*STAGES, "last", "newest"))  # what can't be a tag
USUAL = ["arc_easy", "piqa", "lambada_openai"]
NEWEST = ["newest"]
NO_SHOTS: list[int] = []
_WAIT_S = 14 * 86_400
_POLL_S = 2
Reasons = Literal["yes", "no", "both"]


class Approval(RunInput):
    """What a person says of a candidate."""

    approve: bool = Field(False, title="Approve", description="Give it the tag. Left off, all stays as it is.")
    note: str = Field("", title="Note", description="Why; it is kept with the tag.")


@flow(name="judge")
@in_one_line
def judge(
    checkpoints: list[str] = NEWEST,
    benchmarks: list[str] = USUAL,
    limit: int = 200,
    shots: list[int] = NO_SHOTS,
    reasons: Reasons = "yes",
    lake: LakeFolder = "",
    cluster: str = "local",
) -> dict[str, Any]:
    """Judge checkpoints by benchmarks; what has been judged costs nothing.

    Args:
        checkpoints: stages of the last run (`sft`), tags, folders, fingerprints, or `newest`, whose run may go on.
        benchmarks: by name, or task files of yours.
        limit: the first so many items of each.
        shots: worked examples before each question; several for a curve. Each benchmark's own number when empty.
        reasons: whether worked examples show the way to their answers.
        lake: folder of the lake; the server's own when empty.
        cluster: `local` for Ray on this machine, an address, or `inline` for this process alone.
    """
    opened = Lake(lake_folder(lake)).require()
    with surroundings(opened):
        put = _exams(opened, benchmarks, limit, shots, reasons)
        chosen = {one.folder: one for one in (choose(name, opened.root) for name in checkpoints)}
        named = dict(zip(names(chosen.values()), chosen.values(), strict=True))
        if not named:
            raise UserError("no checkpoint is named: give one, such as newest")
        artifacts.name_run(f"judge {', '.join(named)}")
        figures = _figures(opened, named, put, cluster)
        artifacts.publish_evaluations("judge", figures["results"])
        return figures


@flow(name="promote")
@in_one_line
def promote(
    candidate: str = "last",
    tag: str = "current",
    benchmarks: list[str] = USUAL,
    limit: int = 200,
    contamination: float | None = None,
    losses: bool = False,
    lake: LakeFolder = "",
    cluster: str = "local",
) -> dict[str, Any]:
    """Judge a checkpoint beside the one that has the tag, wait for a person's approval, and give it the tag.

    Args:
        candidate: a stage of the last run (`sft`), a folder of the lake, a fingerprint, `last` or `newest`.
        tag: the name that it is to have.
        benchmarks: by name, or task files of yours.
        limit: the first so many items of each.
        contamination: refuse it where training documents hold more of a benchmark's items than this share (0.01).
        losses: let it be worse than the current one where that is no chance; else it is refused.
        lake: folder of the lake; the server's own when empty.
        cluster: `local` for Ray on this machine, an address, or `inline` for this process alone.
    """
    opened = Lake(lake_folder(lake)).require()
    with surroundings(opened):
        tags.check_name(tag, TAKEN)
        if contamination is not None and not 0 <= contamination <= 1:
            raise UserError(f"contamination {contamination}: a share from 0 to 1")
        put = _exams(opened, benchmarks, limit)
        asked = choose(candidate, opened.root)
        if asked.fingerprint is None:  # a folder: of this lake, else it can have no tag
            asked = choose(find_checkpoint(opened, str(asked.folder), TRAINING, ANSWERING).fingerprint, opened.root)
        assert asked.fingerprint, "it has a record"
        before = tags.tags(opened).get(tag)
        if before and before["fingerprint"] == asked.fingerprint:
            raise UserError(f"{candidate} is {tag} already: nothing to promote")
        artifacts.name_run(f"promote {asked.stage} {asked.fingerprint[:8]}")
        sides = {"current": choose(tag, opened.root)} if before else {}  # others are compared with the first one
        sides["candidate"] = asked
        figures = _figures(opened, sides, put, cluster)
        against = objections(figures, contamination, losses)
        said = f"{before['stage']} {before['fingerprint'][:16]}" if before else None
        short = differences(str(asked), said, tag, figures, against)
        artifacts.publish_page("promote", "comparison", lambda: comparison(short, figures))
        answer = {"candidate": asked.fingerprint, "tag": tag, "current": before and before["fingerprint"], **figures}
        if against:
            raise UserError(f"{candidate} isn't promoted: {'; '.join(against)}")
        artifacts.note("waiting for a person: Resume, at the top of this page or in its menu, opens the form")
        there = before["fingerprint"] if before else None
        page = f"{short}\n\nAll scores: the artifact `promote-comparison` of this run."
        approval = _asked(page, asked.fingerprint, there)
        if approval.approve:
            _give(opened, tag, asked.fingerprint, there, approval.note)
        artifacts.note(f"{asked}: {'is' if approval.approve else 'is not'} {tag} now{_because(approval.note)}")
        return answer | {"approved": approval.approve, "note": approval.note}


def objections(figures: dict[str, Any], contamination: float | None, losses: bool) -> list[str]:
    """What of the figures forbids a promotion: a benchmark that the candidate has seen too much of, or whose training
    documents aren't known where that is limited; a figure that is really worse than the current one's."""
    said = []
    if contamination is not None:
        dirty = [row for row in figures["contamination"] if row["checkpoint"] == "candidate"]
        if not dirty:
            said.append("its training documents aren't known, and contamination is limited")
        said += [
            f"its training documents hold {row['share']:.1%} of {row['task']}'s items, more than {contamination:.1%}"
            for row in dirty
            if row["share"] > contamination
        ]
    if not losses:
        said += [
            f"{row['task']} {row['metric']} is worse: {row['second']:.4g} after {row['first']:.4g} (p {row['p']:.2g})"
            for row in figures["compared"]
            if row["real"] and row["difference"] * better(row["metric"]) < 0
        ]
    return said


def _exams(
    lake: Lake, names: Sequence[str], limit: int, shots: Sequence[int] = (), reasons: Reasons = "yes"
) -> list[Exam]:
    """What checkpoints are asked; what is wrong with it is said before any is loaded."""
    if not names:
        raise UserError("no benchmark is named: give some, such as arc_easy")
    if limit < 1 or any(not 0 <= count <= 64 for count in shots):
        raise UserError(f"limit {limit}, shots {list(shots)}: at least one item, and from 0 to 64 worked examples")
    return exams([load(name, lake.root) for name in dict.fromkeys(names)], ways_of(shots, reasons, limit=limit))


def _figures(lake: Lake, named: dict[str, Chosen], put: Sequence[Exam], cluster: str) -> dict[str, Any]:
    """Judge checkpoints, keep what they said, and give the figures over it."""
    config = RuntimeConfig(cluster=cluster)
    judgeable = []
    for name, one in named.items():
        version = folder_version(one.here) if one.here.is_dir() else file_digest(str(one.here))
        judgeable.append(Judgeable(name, one.folder, version, one.fingerprint))
    with leaving(config, at_once=False) if cluster != "inline" else nullcontext():
        found = grid(judgeable, put, Runtime(config, lake.root, ""))
    if found.unfinished:
        name, why = next(iter(found.unfinished.items()))
        raise StageError(f"{len(found.unfinished)} not judged ({name}: {why}); run it again to do just these")
    figures = found.figures()
    for asked in judgeable:
        own = [row for row in figures["results"] if row["checkpoint"] == asked.name]
        stage = named[asked.name].stage or str(asked.folder)
        keep(lake, ledger_rows(asked.record or asked.version, stage, found.judged[asked.name]), own)
    return figures


def _asked(page: str, candidate: str, current: str | None) -> Approval:
    """A person's answer. Where one of the two has changed since they were asked, they are asked again."""
    form, key = Approval.with_initial_data(description=page), f"{candidate[:16]}-{(current or 'none')[:16]}"
    context = FlowRunContext.get()
    if context and context.flow_run and context.flow_run.deployment_id:
        return suspend_flow_run(wait_for_input=form, timeout=_WAIT_S, key=key)
    return pause_flow_run(wait_for_input=form, timeout=_WAIT_S, poll_interval=_POLL_S, key=key)


def _give(lake: Lake, name: str, fingerprint: str, before: str | None, note: str) -> None:
    """Move the tag, unless it has moved since the person was asked."""
    there = tags.tags(lake).get(name)
    if (there and there["fingerprint"]) != before:
        raise UserError(f"{name} has been given to another checkpoint meanwhile: promote again, beside that one")
    record = read_record(lake, fingerprint)
    assert record is not None, "it was chosen by its record"
    tags.tag(lake, name, record, note, move=True, taken=TAKEN)


def _because(note: str) -> str:
    return f" ({note})" if note else ""
