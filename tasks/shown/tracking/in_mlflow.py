"""Curves and settings for MLflow: `mlflow ui --backend-store-uri LAKE/tracking/mlflow`, or a server by
MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.shown.tracking import Tracked, Write, address

_LONGEST = 500  # characters of a setting that MLflow takes


@contextmanager
def track(place: Path, tracked: Tracked) -> Iterator[Write]:
    """An experiment for each corpus, a run for each stage; one that goes on is found by its fingerprint."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # no server and no database, which its slim package has not
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address("MLFLOW_TRACKING_URI", place.resolve().as_uri()))
    known = client.get_experiment_by_name(tracked.corpus)
    experiment = known.experiment_id if known else client.create_experiment(tracked.corpus)
    tag = "headwater.fingerprint"
    before = client.search_runs([experiment], f"tags.`{tag}` = '{tracked.fingerprint}'", max_results=1)
    if before:
        run = before[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(experiment, tags={tag: tracked.fingerprint}, run_name=tracked.name).info.run_id
        params = [Param(name, str(value)[:_LONGEST]) for name, value in tracked.settings.items()]
        client.log_batch(run, params=params)

    def write(step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(run, [Metric(_named(name), value, now, step) for name, value in figures.items()])

    status = "FAILED"
    try:
        yield write
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)


def _named(name: str) -> str:
    """A metric's name as MLflow takes it, which makes files of them: that of a reward is as its file's."""
    parts = [re.sub(r"[^\w .:-]", "_", part) for part in name.split("/")]
    return "/".join(part for part in parts if part.strip(".")) or "_"
