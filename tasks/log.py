"""What a run has done so far, for whoever watches it. Prefect needs not be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datalake.lake.records import StageReport

if TYPE_CHECKING:
    from prefect.states import State


@dataclass
class RunLog:
    """What one run has done so far: a report per stage, and Prefect's states, so that the UI draws the graph."""

    run: str
    reports: list[StageReport] = field(default_factory=list)
    states: dict[str, State[Any]] = field(default_factory=dict)
    on_report: Callable[[StageReport], None] | None = None

    def add(self, report: StageReport) -> None:
        """Append a report and tell whoever listens."""
        self.reports.append(report)
        if self.on_report:
            self.on_report(report)
