"""What of a recipe's dialogues would train, before anything does: `sft` as it would begin, up to its first step.

Dialogues are those that the lake holds, or are read from their sources here and now; the tokenizer is that of the model
to be tuned, or the one that this model will have. Nothing is trained or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datalake.errors import UserError
from datalake.lake.copies import near_folder
from datalake.lake.lake import FolderRef, Lake, TableRef
from flows.dry import DryRun, Unknown
from flows.pipeline import pipeline
from flows.recipe import Recipe, load
from flows.run import Run
from flows.start import find_inputs
from models.text.mask import SHOWN, counts, stretches
from tasks.dialogues import dialogues_in, files_of
from tasks.ingest import IngestConfig, ingest, read_archives
from tasks.outputs import Missing
from tasks.runtime import Runtime, RuntimeConfig

Row = dict[str, Any]


def mask(recipe: str | Path, lake: str | Path = "lake", set: Sequence[str] = (), rows: int = SHOWN) -> Row:
    """The first dialogues that `sft` would be given, as stretches of text and whether they train, and how much does.

    Raises:
        UserError: where nothing can be learned, or where no token or every token would train.
    """
    chosen = load(recipe, set)
    find_inputs(chosen)
    run = _Looked(chosen, Lake(lake))
    pipeline(run)
    config, inputs = run.config("sft"), run.inputs["sft"]
    for value in (config, *inputs.values()):
        if isinstance(value, Missing):
            raise UserError(f"sft wouldn't run: {value.reason}")
    from models.methods.sft import taught

    notes: list[str] = []
    with TemporaryDirectory(prefix="headwater-") as folder:
        files = _files(run, inputs["conversations"], Path(folder), notes)
        train, _ = dialogues_in(files, inputs["holdout"])
    if not train:
        raise UserError("there is no dialogue to train on: look at `sources` and mixture.holdout")
    data = taught(config, *_model(run, inputs["base"]), train)
    fitted = data.fitted
    trained, tokens = counts(fitted.items)
    return {
        "corpus": chosen.corpus,
        "context": data.context,
        "dialogues": len(fitted.items),
        "cut": fitted.cut,
        "left_out": len(fitted.left_out),
        "tokens": tokens,
        "trained": trained,
        "share": trained / tokens,
        "notes": notes,
        "shown": [
            {
                "id": train[number]["id"].hex(),
                "source": train[number]["source"],
                "tokens": len(item[0]),
                "trained": counts([item])[0],
                "pieces": [list(piece) for piece in stretches(*item, data.words)],
            }
            for number, item in list(zip(fitted.numbers, fitted.items, strict=True))[:rows]
        ],
    }


class _Looked(DryRun):
    """A dry run that keeps what each stage would be given and would give."""

    def __init__(self, recipe: Recipe, lake: Lake):
        super().__init__(recipe, lake, "sft")
        self.configs: dict[str, Any] = {}
        self.inputs: dict[str, Mapping[str, Any]] = {}
        self.outputs: dict[str, Any] = {}

    def __call__(self, stage: Any, config: Any, /, *nothing: Any, **inputs: Any) -> Any:
        """Look at a stage."""
        self.configs[stage.name], self.inputs[stage.name] = config, inputs
        outputs = self.outputs[stage.name] = Run.__call__(self, stage, config, *nothing, **inputs)
        return outputs

    def config(self, stage: str) -> Any:
        """A stage's config, or why there is none."""
        config = self.configs[stage]
        return Missing(f"`{stage}` is null in the recipe") if config is None else config


def _files(run: _Looked, tables: Any, folder: Path, notes: list[str]) -> list[str]:
    """The files of the dialogues to learn from. What isn't in the lake is read into a folder; what a model has yet to
    write is not there."""
    files: list[str] = []
    for table in tables if isinstance(tables, tuple) else (tables,):
        if isinstance(table, TableRef):
            files += files_of(run.lake, table)
        elif isinstance(table, Unknown) and table.stage == "ingest":
            files += _read(run, folder)
        else:
            notes.append(f"what `{table.stage}` will write isn't there yet: these are the other dialogues")
    return files


def _read(run: _Looked, folder: Path) -> list[str]:
    """The dialogues of the sources, read in this process."""
    config: IngestConfig = run.configs["ingest"]
    archives = [a for a in run.inputs["ingest"]["archives"] if config.sources[a.source].kind == "conversations"]
    settings = RuntimeConfig(cluster="inline", workers=1, retries=0, remote=run.recipe.runtime.remote)
    runtime = Runtime(settings, folder, run.recipe.corpus, "", ingest.key)
    read = read_archives(config, runtime, archives, lambda result: None)
    for name, why in read.failed.items():
        raise UserError(f"{name} can't be read ({why}): correct `sources`")
    return read.paths("conversations")


def _model(run: _Looked, base: Any) -> tuple[Any, int, int]:
    """Of the model to be tuned the tokenizer, the tokens that it takes, and the rows of its embedding."""
    from models.text.tokenizer import load, vocabulary_size

    place = near_folder(run.lake.path(base)) if isinstance(base, FolderRef) else None
    if place is None and run.recipe.base is not None:
        place = Path(run.recipe.base.paths[0])
        if not place.exists():
            raise UserError(f"base: there is no {str(place)!r}: correct the path, or fetch the model")
    pretrain = run.configs["pretrain"]
    if place is not None:
        from models.network.checkpoint import context_of, vocabulary_of

        longest = context_of(place)
        if not isinstance(base, FolderRef) and pretrain is not None and pretrain.rope_scaling is not None:
            longest = max(longest, pretrain.context)
        return load(place), longest, vocabulary_of(place)
    trained = run.outputs["tokenizer"].tokenizer
    if isinstance(trained, FolderRef):
        words = load(near_folder(run.lake.path(trained)))
    elif run.recipe.tokenizer.path:
        words = load(run.recipe.tokenizer.path.paths[0])
    else:
        raise UserError("the tokenizer isn't trained yet: run the recipe with --until tokenizer first")
    return words, pretrain.context, pretrain.network(vocabulary_size(words)).vocabulary
