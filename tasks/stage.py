"""A stage: a plain function with typed outputs and an identity.

    class Curated(NamedTuple):
        curation: Table
        documents: Table

    @stage(Curated, version="1", libraries=("pyarrow",))
    def curate(config: CurateConfig, runtime: Runtime, raw: TableRef) -> Produced: ...

    kept = run(curate, recipe.curate, raw=read.raw)      # in flows/pipeline.py; kept.documents is a reference

The function gets a config, a `Runtime` and references, and returns which files it produced; `tasks.tracked` makes them
the lake's. Identity is sha256 over stage, version, libraries, config and the data versions of the inputs, never over
where or how fast. Neither Prefect nor Ray is needed to know a stage's identity, and whether it has been built.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from pydantic import BaseModel

from datalake.lake.lake import FolderRef, Lake, Ref, TableRef
from datalake.lake.records import StageRecord, read_record
from tasks.cluster import Shard
from tasks.outputs import Missing
from tasks.produced import Produced
from tasks.runtime import Runtime, StageKey

C = TypeVar("C", bound=BaseModel)
P = ParamSpec("P")
O = TypeVar("O", bound=tuple[Any, ...])  # noqa: E741


@cache
def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of the libraries that shape an output, Python's own included."""
    versions = {name: importlib.metadata.version(name).split("+")[0] for name in names}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **versions}


def _identity_of(value: Any) -> Any:
    """What of an input enters the fingerprint: content, never place or time."""
    if isinstance(value, TableRef | FolderRef):
        return value.data_version
    if isinstance(value, Mapping):
        return {name: _identity_of(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_identity_of(item) for item in value]
    if hasattr(value, "identity"):
        return value.identity
    return value


def refs_of(value: Any) -> list[Ref]:
    """All references inside an input."""
    if isinstance(value, TableRef | FolderRef):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [ref for item in value for ref in refs_of(item)]
    return []


def nothing_absent(config: BaseModel) -> dict[str, str]:
    """What most stages leave out, whatever their config: nothing."""
    return {}


@dataclass
class Stage(Generic[C, P, O]):
    """A stage function with its outputs and identity. `fn` is the function itself, for tests and notebooks.

    `outputs` is a NamedTuple with a field for each table or folder, by its name; `model` is the folder that is named
    after the stage, as models are. `absent` says which of them a config doesn't ask for, and why there is none;
    `shards` which shards the stage has, where that can be told before it runs.
    """

    fn: Callable[Concatenate[C, Runtime, P], Produced]
    outputs: type[O]
    name: str
    version: str
    libraries: tuple[str, ...]
    absent: Callable[[C], Mapping[str, str]] = nothing_absent
    shards: Callable[Concatenate[C, Runtime, P], Sequence[Shard]] | None = None
    columns: Callable[[], Any] | None = None

    @property
    def key(self) -> StageKey:
        """What the keys of its shards begin with."""
        return StageKey(self.name, self.version, library_versions(self.libraries))

    def payload(self, config: BaseModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that shapes the output: what the fingerprint is computed from."""
        return {
            "stage": self.name,
            "version": self.version,
            "libraries": library_versions(self.libraries),
            "config": config,
            "inputs": {name: _identity_of(value) for name, value in inputs.items()},
            **({} if self.columns is None else {"columns": self.columns()}),
        }

    def built(self, lake: Lake, fingerprint: str) -> StageRecord | None:
        """The record of what was built under a fingerprint; None unless it is whole and all of it is still there."""
        record = read_record(lake, fingerprint)
        if record is None or record.state != "done":
            return None
        return record if all(lake.present(ref) for ref in record.outputs.values()) else None

    def typed(self, config: C, reference: Callable[[str], Any]) -> O:
        """The outputs, each asked for by its name in the lake; those that the config doesn't ask for are missing."""
        absent = self.absent(config)
        return self._outputs(
            lambda field: (
                Missing(absent[field]) if field in absent else reference(self.name if field == "model" else field)
            )
        )

    def skipped(self, reason: str) -> O:
        """The outputs of a stage that isn't run. Data passes the reason on; of a model it is that its stage isn't."""
        return self._outputs(lambda field: Missing(f"it needs {self.name}" if field == "model" else reason))

    def _outputs(self, of: Callable[[str], Any]) -> O:
        outputs = cast(Any, self.outputs)
        return cast(O, outputs(*(of(field) for field in outputs._fields)))


def stage(
    outputs: type[O],
    version: str,
    libraries: Sequence[str] = (),
    name: str | None = None,
    absent: Callable[[C], Mapping[str, str]] = nothing_absent,
    shards: Callable[Concatenate[C, Runtime, P], Sequence[Shard]] | None = None,
    columns: Callable[[], Any] | None = None,
) -> Callable[[Callable[Concatenate[C, Runtime, P], Produced]], Stage[C, P, O]]:
    """Make a plain function `(config, runtime, inputs...) -> Produced` a stage.

    Args:
        outputs: a NamedTuple of what it gives, a `Table` or `Folder` each.
        version: raise it whenever the code gives another output for the same input; part of the identity.
        libraries: distributions whose version shapes the output; part of the identity.
        name: the stage's name, the function's unless given.
        absent: which outputs a config doesn't ask for, each with why there is none.
        shards: the shards of its input, as the function makes them.
        columns: tells which columns it writes, where those can be added to; part of the identity.
    """

    def wrap(fn: Callable[Concatenate[C, Runtime, P], Produced]) -> Stage[C, P, O]:
        wrapped = Stage(fn, outputs, name or fn.__name__, version, tuple(libraries), absent, shards, columns)
        update_wrapper(cast(Any, wrapped), fn)
        return wrapped

    return wrap
