"""`headwater export`: a checkpoint or a table as others load it, with a card that says where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from flows.commands.common import COMMON, Common
from flows.output import Console, note


def export(
    checkpoint: str,
    out: Path,
    *,
    gguf: Annotated[bool, Parameter(negative="")] = False,
    type: Annotated[str | None, Parameter(name="--type")] = None,
    run: Annotated[str | None, Parameter(name="--run")] = None,
    license: Annotated[str | None, Parameter(name="--license")] = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Write a checkpoint as a Hugging Face folder, or a table as Parquet, with a card.

    Parameters
    ----------
    checkpoint
        A stage of the last run (`ppo`), a checkpoint's folder, `last`, a table (`demo.documents`), or a SELECT.
    out
        The folder to write.
    gguf
        Beside the weights a GGUF file for llama.cpp, with our own tokenizer too, and an Ollama Modelfile.
    type
        Numbers of the GGUF file: float32, float16 or bfloat16; by default those of the checkpoint.
    run
        Of this run: its id, or the beginning of it.
    license
        The licence it is published under, by its SPDX identifier; the card names those of the data otherwise.
    force
        Replace an earlier export.
    """
    from datalake.lake.export import is_query, is_table

    out = out.expanduser().absolute()
    if is_query(checkpoint) or (is_table(checkpoint) and not Path(checkpoint).exists()):
        if gguf or type:
            raise UserError("--gguf and --type are for checkpoints: a table is written as Parquet")
        answer = common.open().export_table(checkpoint, out, run=run, license=license, force=force)
    else:
        answer = export_checkpoint(checkpoint, out, common, gguf, type, run, license, force)
    common.output.answer(answer, _print)


def export_checkpoint(
    name: str,
    out: Path,
    common: Common,
    gguf: bool = False,
    type: str | None = None,
    run: str | None = None,
    license: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the folder of a checkpoint; see `export`. Gives its place, files and what it was made from."""
    from flows.checkpoints import choose
    from flows.report.card import bare_card
    from models.export import folder as hub
    from models.export import gguf as llama_cpp
    from models.export.destination import CARD, destination
    from models.export.ollama import modelfile
    from models.text.tokenizer import stop_ids

    if type is not None and (not gguf or type not in llama_cpp.TYPES):
        raise UserError(f"--type {type}: with --gguf one of {', '.join(llama_cpp.TYPES)}")
    source = Path(name).expanduser()
    adapters = (source / hub.ADAPTER).is_file() or (source.suffix == ".gguf" and source.is_file())
    chosen = None if adapters else choose(name, common.folder, run)
    source = source if chosen is None else chosen.here
    with destination(out, force) as place:
        loaded = hub.read(source)
        if gguf:
            llama_cpp.check(loaded.model, loaded.tokenizer)
        hub.write(loaded, place)
        if chosen is not None and chosen.stage:
            own: str | None = common.open().card(name, out.name, run=run, license=license)
        else:
            own = _card_of(common, source, out.name, license)
        (place / CARD).write_text(own or bare_card(out.name, license, loaded.base), encoding="utf-8")
        if gguf:
            file = place / f"{out.name}.gguf"
            stops = stop_ids(loaded.tokenizer, loaded.model)
            llama_cpp.write(loaded.model, loaded.tokenizer, file, type or str(loaded.dtype).removeprefix("torch."))
            (place / "Modelfile").write_text(modelfile(file, loaded.tokenizer, stops), encoding="utf-8")
    if own is None:
        note(f"{source} belongs to no lake that was named: the card says that its data isn't known")
    files = sorted(path.name for path in out.iterdir())
    made = {"stage": chosen.stage, "run": chosen.run} if chosen and chosen.stage else {}
    return {"export": str(out), "checkpoint": str(source), **made, "files": files}


def _card_of(common: Common, folder: Path, name: str, license: str | None) -> str | None:
    """The card of a folder by the lake's records; None for one that no lake here made."""
    from flows.lake import Lake

    try:
        return Lake(common.folder).card(str(folder), name, license=license)
    except UserError:
        return None


def _print(console: Console, answer: dict[str, Any]) -> None:
    console.line(f"{answer['export']}: {', '.join(answer['files'])}")
