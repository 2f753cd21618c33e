"""What the stages share that let models write: who writes, where what was answered is kept, the progress of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from datalake.atomic import write_atomically
from datalake.errors import LostDataError
from datalake.lake.copies import near_folder, workplace
from datalake.lake.lake import FolderRef
from datalake.lake.shards import ShardResult, find_shard
from models.synthesis.config import FeedbackConfig, InstructConfig, WriterConfig
from tasks.learning import metric_rows, train_alone
from tasks.runtime import Runtime

REPORT = "report.json"


class Writers:
    """Whoever writes for a stage, by the name of the setting, made where the work is done."""

    def __init__(self, settings: dict[str, tuple[WriterConfig, Path | None, SecretStr]], answers: Path, out: Path):
        self._settings, self._answers, self._out = settings, answers, out
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        from models.synthesis.writer import writer

        if name not in self._made:
            config, folder, key = self._settings[name]
            self._made[name] = writer(config, folder and near_folder(folder), key.get_secret_value(), self._answers)
        return self._made[name]

    def on_step(self, row: dict[str, Any]) -> None:
        """Note the figures of a step, from which progress and `runs.metrics` are made."""
        with (self._out / "metrics.jsonl").open("w" if row["step"] == 1 else "a") as file:
            file.write(json.dumps(row) + "\n")


def _work(work: Callable[..., dict[str, Any]], config: Any, inputs: Any, settings: Any, places: Any, out: Path) -> Any:
    """Where the work is done."""
    key, answers, folder = places
    with workplace(out) as here:
        report = work(config, *inputs, Writers(settings, answers, here), key, folder)
    write_atomically(folder / REPORT, json.dumps(report).encode())
    return dict(report)


def written_alone(
    work: Callable[..., dict[str, Any]],
    title: str,
    config: InstructConfig | FeedbackConfig,
    runtime: Runtime,
    model: FolderRef | None,
    *inputs: Any,
) -> tuple[ShardResult, dict[str, Any]]:
    """Let `work(config, *inputs, writers, key, folder)` write its tables into the folder; they, and what is produced
    besides. Where they are there already, nothing is done.

    What was answered lies in the lake under `answers`, by what was asked, for every run.
    """
    from models.serving.endpoint import key_of

    folder = runtime.lake.shard_folder(title, runtime.fingerprint)
    if find_shard(folder) is None or not (folder / REPORT).is_file():
        settings = {}
        for name, one in config.writers.items():
            place = None
            if one.own:
                assert model is not None, "the pipeline gives the run's own model"
                place = runtime.lake.path(model)
            elif one.model is not None and not isinstance(one.model, str):
                one.model.check(f"{title}.{name}.model")
                place = Path(one.model.paths[0])
            settings[name] = one, place, SecretStr(key_of(one.endpoint) if one.endpoint else "")
        steps = getattr(config, "rounds", 1)
        places = runtime.fingerprint, runtime.lake.root / "answers", folder
        train_alone(title, _work, steps, runtime, work, config, inputs, settings, places)
    made = find_shard(folder)
    if made is None:
        raise LostDataError(str(folder), "its shard is incomplete")
    report = json.loads((folder / REPORT).read_bytes())
    rows = metric_rows(runtime.folder / "metrics.jsonl")
    return made, {"note": report.pop("note", ""), "report": report, "metrics": rows}
