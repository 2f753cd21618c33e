"""What a training stage is asked where it runs as a job of a cluster: plain JSON in the stage's folder of the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from datalake.errors import UserError
from datalake.identity import plain
from datalake.lake.lake import FolderRef, TableRef
from datalake.places import place
from tasks.cluster.jobs import Job
from tasks.dialogues import HoldOut
from tasks.runtime import Runtime, RuntimeConfig, StageKey


class Asked(BaseModel):
    """A training stage with its inputs as references: whoever has the lake and the code can do it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    version: str
    libraries: dict[str, str]
    fingerprint: str
    lake: str
    corpus: str
    run: str
    config: dict[str, Any]
    runtime: RuntimeConfig
    inputs: dict[str, TableRef | FolderRef | HoldOut | int | list[TableRef | FolderRef]]

    @classmethod
    def of(cls, config: BaseModel, runtime: Runtime, inputs: Mapping[str, Any]) -> Asked:
        """What a run asks of a job: the same stage, on the cluster that the job is of."""
        assert runtime.stage is not None
        return cls(
            stage=runtime.stage.name,
            version=runtime.stage.version,
            libraries=runtime.stage.libraries,
            fingerprint=runtime.fingerprint,
            lake=str(runtime.lake.root),
            corpus=runtime.corpus,
            run=runtime.run,
            config=json.loads(json.dumps(plain(config))),
            runtime=runtime.config.model_copy(update={"cluster": "auto", "jobs": None}),
            inputs={name: list(value) if isinstance(value, list | tuple) else value for name, value in inputs.items()},
        )

    def job(self, folder: Path) -> Job:
        """The job that does it; `folder` is the stage's."""
        return Job(self.stage, self.fingerprint, self.lake, folder / "job", "tasks.job", self.model_dump(mode="json"))

    def runtime_here(self, key: StageKey) -> Runtime:
        """The runtime on the cluster, whose code must be that of the run: `key` is its own of the stage.

        Raises:
            UserError: where it is another, and would make something else under this fingerprint.
        """
        theirs = {"version": self.version, **self.libraries}
        ours = {"version": key.version, **key.libraries}
        if theirs != ours:
            names = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
            differ = ", ".join(f"{name} {ours.get(name, 'none')} for {theirs.get(name, 'none')}" for name in names)
            raise UserError(f"the cluster has other code for {self.stage} ({differ}): install there what the run has")
        return Runtime(self.runtime, place(self.lake), self.corpus, self.run, key, self.fingerprint)
