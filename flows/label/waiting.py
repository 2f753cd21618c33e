"""A flow's run that waits for people: paused in Prefect until enough is said, then it goes on by itself."""

from __future__ import annotations

from contextvars import copy_context
from threading import Event, Thread

from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import pause_flow_run, resume_flow_run

from datalake.errors import UserError, first_line, note
from flows.label.labels import Labels

_POLL_S = 2
_WAIT_S = 30 * 86_400  # Prefect wants an end


def wait_for_pairs(labels: Labels, wanted: int) -> int:
    """Pause this flow's run until so many pairs are compared in the lake; how many are.

    A person may resume it before, in Prefect's UI. Raises UserError after a month without enough.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run, over = context.flow_run.id, Event()

    def resume_when_enough() -> None:
        while not over.is_set():
            try:
                if labels.compared() >= wanted:
                    resume_flow_run(run)
                    return
            except Exception as error:  # a server that is busy, a file that a person has to correct: the run waits on
                if not isinstance(error, NotPausedError):  # not yet, or a person was faster
                    note(f"the run goes on waiting: {first_line(error)}")
            over.wait(_POLL_S)

    if labels.compared() < wanted:
        watch = Thread(target=copy_context().run, args=(resume_when_enough,), daemon=True)
        watch.start()
        try:
            pause_flow_run(timeout=_WAIT_S, poll_interval=_POLL_S)
        except FlowPauseTimeout:
            raise UserError(
                f"{labels.compared():,} of {wanted:,} pairs were compared in a month: run it again"
            ) from None
        finally:
            over.set()
            watch.join()
    return labels.compared()
