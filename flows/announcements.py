"""What a run tells Prefect's server beside its state, so that automations can go on from it: an event for each fact.

    headwater.raw.grown        an ingest left documents that no curation of the corpus has read
    headwater.model.trained    a run made a model that answers

Their resource is the corpus (`headwater.corpus.NAME`), their payload what a deployment needs to go on: the recipe and
its overrides as they were given, the lake, counts, the checkpoint. An event is for automations alone: nothing depends
on it, and a run that can't tell it ends as well as any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from datalake.lake.lake import Lake, TableRef
from datalake.lake.records import Manifest, StageReport, manifests, read_record
from datalake.secrets import MASK, masked
from flows.stages import ANSWERING
from tasks.shown import artifacts

GROWN = "headwater.raw.grown"
TRAINED = "headwater.model.trained"


def tell(lake: Lake, manifest: Manifest, recipe: str | dict[str, Any], overrides: Sequence[str]) -> None:
    """Tell what a run that has left its manifest means for others; nothing outside a flow's run."""
    asked = {"recipe": recipe, "set": list(overrides), "lake": str(lake.root), "run": manifest.run}
    grown = grown_by(lake, manifest)
    if grown is not None and masked(asked) == asked and MASK not in json.dumps(asked):  # a later run needs all of it
        _emit(GROWN, manifest.corpus, asked | grown)
    made = trained_by(manifest.stages)
    if made is not None:
        told = {"checkpoint": made.fingerprint, "stage": made.stage, "lake": str(lake.root), "run": manifest.run}
        _emit(TRAINED, manifest.corpus, told)


def grown_by(lake: Lake, manifest: Manifest) -> dict[str, int] | None:
    """`rows` of raw after a run that ended with ingest, and `before`, what the corpus' last curation read of them; None
    where curation goes on in this run, or has read these very documents, or had more of them."""
    raw = manifest.refs.get("raw")
    if manifest.until != "ingest" or not isinstance(raw, TableRef):
        return None
    before = _curated(lake, manifest.corpus)
    if before is None:
        return {"rows": raw.rows, "before": 0}
    if before.data_version == raw.data_version or raw.rows < before.rows:
        return None
    return {"rows": raw.rows, "before": before.rows}


def trained_by(stages: Sequence[StageReport]) -> StageReport | None:
    """The last model that answers and that this run made, not took from the cache."""
    made = [report for report in stages if report.stage in ANSWERING and report.state == "ran" and report.fingerprint]
    return made[-1] if made else None


def _curated(lake: Lake, corpus: str) -> TableRef | None:
    """What the last curation of a corpus read."""
    for manifest in reversed(manifests(lake)):
        for report in manifest.stages if manifest.corpus == corpus else ():
            record = read_record(lake, report.fingerprint) if report.stage == "curate" and report.fingerprint else None
            read = record.inputs.get("raw", []) if record else []
            if read and isinstance(read[0], TableRef):
                return read[0]
    return None


def _emit(event: str, corpus: str, payload: dict[str, Any]) -> None:
    def emit() -> None:
        from prefect.events import emit_event

        emit_event(
            event,
            resource={"prefect.resource.id": f"headwater.corpus.{corpus}", "prefect.resource.name": corpus},
            payload=payload,
        )

    artifacts.show(emit)
