"""A run's meters for Prometheus, in a file for node_exporter's textfile collector: `<folder>/headwater-<corpus>.prom`.

Runs come and go and have no port of their own, so the file is the endpoint. It is written at most every few seconds,
whole or not at all. Counters begin at nothing with each run, which Prometheus takes for what it is; a corpus has one
run at a time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, write_to_textfile

EVERY_S = 5.0
_LABELS = ("corpus", "stage")


class Meters:
    """The meters of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.written = 0.0

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"headwater_{name}", says, (*_LABELS, *labels), registry=self.registry)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"headwater_{name}", says, (*_LABELS, *labels), registry=self.registry)

        self.shards = counter("shards", "Shards that came to an end, by how: ran, found, failed", "state")
        self.shard_seconds = counter("shard_seconds", "Seconds of work on shards")
        self.stages = counter("stages", "Stages that came to an end, by how: ran, cached, partial, failed", "state")
        self.seconds = gauge("stage_seconds", "Seconds that the stage took in its last run")
        self.records = gauge("stage_records", "Records that went in and came out", "way")
        self.progress = gauge("stage_progress_ratio", "How much of the stage in progress is done")
        self.step = gauge("training_step", "The last training step")
        self.value = gauge("training_value", "A figure of the last step: loss, tokens_per_s, reward...", "name")
        self.seen = gauge("last_event_timestamp_seconds", "When the run last told of anything")

    def take(self, event: str, told: Mapping[str, Any]) -> None:
        """Count an event in."""
        labels = told.get("corpus", ""), told.get("stage", "")
        self.seen.labels(*labels).set_to_current_time()
        match event:
            case "shard":
                self.shards.labels(*labels, told["state"]).inc()
                if told["state"] == "ran":
                    self.shard_seconds.labels(*labels).inc(told["seconds"])
            case "progress":
                self.progress.labels(*labels).set(told["done"] / max(told["total"], 1))
            case "step":
                self.step.labels(*labels).set(told["step"])
                for name, value in told["values"].items():
                    self.value.labels(*labels, name).set(value)
            case "stage":
                self.stages.labels(*labels, told["state"]).inc()
                self.seconds.labels(*labels).set(told["seconds"])
                for way in ("in", "out"):
                    if told.get(f"records_{way}") is not None:
                        self.records.labels(*labels, way).set(told[f"records_{way}"])


_meters: Meters | None = None


def take(event: str, told: Mapping[str, Any], folder: str) -> None:
    """Count an event in, and write the file where that is due; a folder that can't be written is nobody's failure."""
    global _meters
    _meters = _meters or Meters()
    _meters.take(event, told)
    if event == "stage" or time.monotonic() - _meters.written >= EVERY_S:
        _meters.written = time.monotonic()
        name = re.sub(r"[^A-Za-z0-9_-]", "_", str(told.get("corpus") or "run"))
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_to_textfile(str(Path(folder) / f"headwater-{name}.prom"), _meters.registry)
        except OSError:
            return
