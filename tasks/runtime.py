"""Where and how wide a run works: everything that must never enter an identity."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from datalake.identity import fingerprint
from datalake.lake.lake import Lake
from datalake.remote.config import RemoteConfig
from tasks.shown.tracking import known


class JobsConfig(BaseModel):
    """`runtime.jobs`: training stages as jobs of a cluster, which live on when the run that asked for them ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    address: str = Field(
        "",
        title="Job server",
        description="Of a Ray cluster that is there: http://HEAD:8265",
        pattern="^(https?://.+)?$",
    )
    raycluster: str = Field(
        "",
        title="RayCluster",
        description="On Kubernetes, through KubeRay: a YAML file of a RayCluster that is made for each stage and ends"
        " with it, or the name of one that is there",
    )
    namespace: str = Field("default", title="Namespace", description="The RayCluster's, on Kubernetes")
    python: str = Field(
        "python", title="Python", description="The interpreter on the cluster that has Headwater installed"
    )
    away_s: float = Field(
        600,
        gt=0,
        le=86_400,
        title="Patience (s)",
        description="How long the job server may be away",
    )
    saving_s: int = Field(
        60, ge=1, le=3600, title="Time to save (s)", description="What a job that is stopped gets to save its state"
    )

    @model_validator(mode="after")
    def _one_place(self) -> JobsConfig:
        if bool(self.address) == bool(self.raycluster):
            raise ValueError("name either address, a Ray cluster's job server, or raycluster, for KubeRay")
        return self


class RuntimeConfig(BaseModel):
    """The `runtime` section of a recipe: it changes how fast a run is and never what comes out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2,
        ge=1,
        le=100_000,
        title="Workers",
        description="How many shards are worked on at once; all cores of this machine unless given",
    )
    cluster: str = Field(
        "local",
        title="Cluster",
        description="`local` starts Ray on this machine, `auto` or an address joins a running cluster, "
        "`inline` works in this process without Ray (for debugging)",
    )
    code: Literal["sent", "installed"] = Field(
        "sent",
        title="Code",
        description="What nodes of a running cluster work with: the code of this machine, which is `sent` to them, "
        "or what is `installed` there, as in an image",
    )
    memory_gb: float = Field(
        4, gt=0, le=1_000_000, title="Memory (GB)", description="Memory asked for, shared by all workers"
    )
    window: int = Field(
        4, ge=1, le=1000, title="Window", description="Shards handed to the cluster ahead of time, per worker"
    )
    retries: int = Field(2, ge=0, le=20, title="Retries", description="How often a failed shard is tried again")
    shard_seconds: float | None = Field(
        None,
        gt=0,
        le=31_536_000,
        title="Time limit per shard (s)",
        description="A shard over it is ended and counts as failed",
    )
    ranks: int = Field(
        1,
        ge=1,
        le=100_000,
        title="Ranks",
        description="Processes that train one model together; a stage's `accumulation` must be a multiple",
    )
    least_ranks: int | None = Field(
        None,
        ge=1,
        le=100_000,
        title="Least ranks",
        description="Train with so many while the cluster has no room for all `ranks`; empty: wait for all",
    )
    parallel: Literal["data", "fsdp", "tensor", "expert"] = Field(
        "data",
        title="Parallel",
        description="How ranks share a model: each holds all of it (data), a part of every weight (fsdp), "
        "computes a share of every matrix (tensor), or has experts of its own (expert)",
    )
    ranges: int | None = Field(
        None,
        ge=1,
        le=100_000,
        title="Ranges",
        description="Deduplication is decided over so many ranges of hashes, each in a task of its own; 1: in one "
        "process. Empty: in one process where the documents fit `memory_gb`, else over as many ranges as they take",
    )
    price_per_hour: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        title="Price per hour",
        description="What the machines of a run cost an hour, in your currency: the report then estimates each stage's",
    )
    tracking: Annotated[tuple[str, ...], AfterValidator(known)] = Field(
        (),
        title="Tracking",
        description="Where the curves of training show beside the Prefect UI, while it trains: tensorboard, mlflow,"
        " wandb (offline); below `tracking` in the lake",
    )
    jobs: JobsConfig | None = Field(
        None,
        title="Jobs",
        description="Train as jobs of a cluster that go on without this run; empty: in tasks of the run's own cluster",
    )
    remote: RemoteConfig = Field(
        default_factory=RemoteConfig, title="Remote files", description="How patiently and how fast they are read"
    )

    @model_validator(mode="after")
    def _ranks(self) -> RuntimeConfig:
        if self.least_ranks is not None and self.least_ranks > self.ranks:
            raise ValueError(f"least_ranks {self.least_ranks} is more than ranks {self.ranks}")
        if self.ranks > 1 and self.cluster == "inline":
            raise ValueError("several ranks are processes on Ray: set cluster to local, or ranks to 1")
        return self


@dataclass(frozen=True)
class StageKey:
    """What the shards of a stage have in common: it goes into each shard's key."""

    name: str
    version: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class Runtime:
    """What a stage function gets beside inputs and config: the lake, the cluster, and which stage it is."""

    config: RuntimeConfig
    lake_root: Path
    corpus: str
    run: str = ""
    stage: StageKey | None = None
    fingerprint: str = ""

    @cached_property
    def lake(self) -> Lake:
        """The lake this run reads and writes."""
        return Lake(self.lake_root)

    def shard_key(self, config: Any, source: Any) -> str:
        """The key of one shard of this stage."""
        from datalake.lake.shards import shard_key  # imports Arrow, which a recipe doesn't need

        assert self.stage is not None, "shard keys exist inside a stage"
        version = fingerprint({"version": self.stage.version, "libraries": self.stage.libraries})
        return shard_key(self.stage.name, version, config, source)

    @property
    def folder(self) -> Path:
        """The folder of this stage's run for what isn't a table; state for resuming lives here too."""
        assert self.stage is not None
        return self.lake.folder(self.stage.name, self.fingerprint)
