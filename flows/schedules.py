"""Runs that schedules ask for: of those whose time went by before anything began them, the last one does the work."""

from __future__ import annotations

import tasks.apart  # noqa: F401

# isort: split
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext

from datalake.lake.records import now


def successor() -> FlowRun | None:
    """The latest scheduled run of the same deployment and parameters that is due as well, where this run is a scheduled
    one that was not begun before. Of those due at one time, as by two schedules, one has none.

    A server that was down, a machine that slept or a run that took days leave several in line. Prefect begins all of
    them, the oldest not surely first. One that a person cancelled, or tries again, is left to that person.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.auto_scheduled or run.run_count > 1:
        return None
    if run.deployment_id is None or run.expected_start_time is None:
        return None
    place = run.expected_start_time, run.id
    later = get_client(sync_client=True).read_flow_runs(
        flow_run_filter=FlowRunFilter(
            expected_start_time=FlowRunFilterExpectedStartTime(after_=run.expected_start_time, before_=now())
        ),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
    for other in later:
        gone = other.state is not None and (other.state.is_cancelled() or other.state.is_cancelling())
        same = other.auto_scheduled and other.parameters == run.parameters
        if same and not gone and (other.expected_start_time, other.id) > place:
            return other
    return None
