"""`headwater promote`: a candidate judged beside the current model, and the tag once a person agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from flows.commands.common import COMMON, Common
from flows.output import Console, note

if TYPE_CHECKING:
    from flows.ending import Ending


def promote(
    candidate: str = "last",
    *,
    tasks: str = "arc_easy,piqa,lambada_openai",
    tag: str = "current",
    limit: int = 200,
    contamination: float | None = None,
    losses: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Judge a checkpoint beside the current one; once a person agrees, it is current.

    The comparison is shown by the server that `headwater up` started, where the run waits for its form.

    Parameters
    ----------
    candidate
        A stage of the last run (`sft`), a folder of the lake, a fingerprint, `last` or `newest`.
    tasks
        Benchmarks by name or as YAML files of yours, parted by commas.
    tag
        The name that it is to have.
    limit
        The first so many items of each.
    contamination
        Refuse it where training documents hold more of a benchmark's items than this share, such as 0.01.
    losses
        Let it be worse than the current one where that is no chance; else it is refused.
    """
    from flows.ending import in_order
    from flows.start import FailedRunError
    from flows.start import promote as start

    if limit < 1:
        raise UserError(f"--limit {limit}: a number from 1")
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    asked: dict[str, Any] = {"candidate": candidate, "tag": tag, "benchmarks": names, "limit": limit}

    def body(ending: Ending) -> tuple[int, str]:
        try:
            answer = start(common.folder, note, ending.lose, **asked, contamination=contamination, losses=losses)
        except FailedRunError as error:
            return 1, str(error)
        common.output.answer(answer, _draw)
        return 0, ""

    return in_order(body)


def _draw(console: Console, answer: dict[str, Any]) -> None:
    rows = answer["compared"] or answer["results"]
    console.table(list(rows[0]), [list(row.values()) for row in rows])
    console.line(f"{answer['candidate'][:16]} is {'' if answer['approved'] else 'not '}{answer['tag']} now")
