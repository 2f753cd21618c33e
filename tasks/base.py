"""The stage `base`: an open model taken into the lake, so that what is made from it can say where it came from."""

from __future__ import annotations

import shutil
from pathlib import Path

from datalake.errors import UserError
from datalake.places import make_folder
from models.network.config import OpenModel
from tasks.cluster import run_alone
from tasks.learning import LEARNING, Trained
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage


def _take(path: Path, folder: Path) -> int:
    """Copy a folder that can be trained on as it stands; write one from a GGUF file. Its parameters."""
    from datalake.atomic import whole_folder
    from models.network import checkpoint

    model, words = checkpoint.load(path)
    if path.is_file():
        checkpoint.save(model, words, folder)
    else:
        with whole_folder(folder) as part:
            for file in path.iterdir():
                if file.is_file() and not file.name.startswith("."):
                    shutil.copyfile(file, part / file.name)
    return sum(parameter.numel() for parameter in model.parameters())


@stage(Trained, version="2", libraries=LEARNING)
def base(config: OpenModel, runtime: Runtime) -> Produced:
    """Check that a model can be trained on, and keep it as the lake's own."""
    folder = runtime.folder / "checkpoint"
    make_folder(runtime.folder)
    (path,) = map(Path, config.paths)
    if not path.exists():
        raise UserError(f"base: there is no {str(path)!r}: correct the path, or fetch the model as docs/models.md says")
    parameters = run_alone(_take, path, folder, runtime=runtime)
    return Produced(
        folders={"base": folder},
        counts={"parameters": parameters},
        report={"parameters": parameters, "from": str(path)},
        checkpoint="base",
    )
