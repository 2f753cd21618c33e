"""`headwater serve`: OpenAI's API over checkpoints, in this process or on a cluster, and a page to chat with them."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.places import is_local
from flows.checkpoints import Chosen, choose, names
from flows.commands.common import COMMON, Common
from flows.output import note
from flows.service.listening import HOST, address, answer_requests, is_loopback, listener

_SHOWN = (
    "stage",
    "fingerprint",
    "version",
    "started",
    "seconds",
    "records_in",
    "records_out",
    "git_commit",
    "git_dirty",
)
_ARCHIVES = 50  # of a stage that are told


def serve(
    checkpoints: Annotated[list[str], Parameter(negative="")] = ["last"],  # noqa: B006
    *,
    port: int = 8000,
    host: str = HOST,
    token: Annotated[str, Parameter(env_var="HEADWATER_TOKEN")] = "",
    slots: int = 16,
    replicas: int | None = None,
    cluster: str = "local",
    trust_remote_code: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """OpenAI's API over checkpoints, and a page to chat with them.

    The API is under /v1, the page at /; Ctrl-C ends both.

    Parameters
    ----------
    checkpoints
        Stages of the last run (`sft ppo`), checkpoints' folders or GGUF files, or `last`; each is a model named after
        its stage, folder or file.
    port
        Where to listen; 0: wherever there is room.
    host
        On which address. Beyond this machine only with a token.
    token
        The key that clients have to bring (`Authorization: Bearer KEY`); without one, this machine's programs and pages
        alone are answered. Better in the environment than in the command, which others see.
    slots
        Answers of a model that are written at once; more wait.
    replicas
        So many processes with all the models, on Ray Serve; this process alone unless given.
    cluster
        Where replicas are, as `runtime.cluster` of a recipe: `local` starts Ray on this machine, `auto` or an address
        joins a cluster, whose nodes must see the checkpoints' folders and answer at --port each.
    trust_remote_code
        Run the Python code that a checkpoint's folder brings along. It can do all that you can: know who made it.
    """
    if not 1 <= slots <= 1024:
        raise UserError(f"--slots {slots}: a number from 1 to 1024")
    if not is_loopback(host) and not token:
        raise UserError(f"{host} can be reached by others: set a key that they need, in HEADWATER_TOKEN or --token")
    if not token.isascii():
        raise UserError("the token can't be sent in a header: choose one of ASCII characters")
    if replicas is not None and not 1 <= replicas <= 10_000:
        raise UserError(f"--replicas {replicas}: a number from 1 to 10,000")
    chosen = [choose(name, common.folder) for name in checkpoints]
    models = dict(zip(names(chosen), chosen, strict=True))

    def tell(number: int) -> None:
        url = address(host, number)
        answer = {"url": url, "models": {name: str(one.folder) for name, one in models.items()}}
        common.output.answer(
            answer, lambda console, _: console.line(f"{url}/ to chat, {url}/v1 for programs\nCtrl-C ends it")
        )

    build = partial(_application, models, common.folder, slots, trust_remote_code, token)
    with listener(host, port) as listening, contextlib.suppress(KeyboardInterrupt):
        number = listening.getsockname()[1]
        if replicas is None:
            _here(*build(), listening, lambda: tell(number))
        else:
            listening.close()
            _on_ray(lambda: build()[0], replicas, host, number, cluster, lambda: tell(number))


def _application(
    models: Mapping[str, Chosen], lake: Path, slots: int, trust_remote_code: bool, token: str
) -> tuple[Any, list[Any]]:
    """The application over checkpoints, by name, and what it serves."""
    from flows.service.guard import Guard
    from models.serving.api import application

    served = dict(zip(models, loaded(models.values(), lake, slots, trust_remote_code), strict=True))
    for name, model in served.items():
        model.name = name
    app = application(served, token)
    # A page of another site can send requests to loopback: without a key, its name and origin are looked at.
    return (app if token else Guard(app, {})), list(served.values())


def _here(app: Any, served: Sequence[Any], listening: socket.socket, tell: Callable[[], None]) -> None:
    """Serve in this process until it is interrupted."""
    tell()
    try:
        answer_requests(app, listening)
    finally:
        for model in served:
            model.close()


def _on_ray(
    build: Callable[[], Any], replicas: int, host: str, port: int, cluster: str, tell: Callable[[], None]
) -> None:
    """Serve from processes of a cluster until this one is interrupted, or the cluster ends."""
    from tasks.cluster import deploy
    from tasks.cluster.connect import leaving
    from tasks.runtime import RuntimeConfig

    config = RuntimeConfig(cluster=cluster)
    config = config if config.workers >= replicas else config.model_copy(update={"workers": replicas})
    note(f"loading {replicas} replicas")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    with leaving(config, at_once=False), deploy(build, replicas, host, port, config) as check:
        tell()
        while True:
            time.sleep(1)
            check()


def _leave(number: int, frame: object) -> None:
    """End in order, as by Ctrl-C: the replicas of a cluster that was joined would outlive this process."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def loaded(chosen: Iterable[Chosen], lake: Path, slots: int, trust_remote_code: bool) -> Iterable[Any]:
    """The models of checkpoints, as `models.serving.api.Served`, on the GPU where there is one."""
    import torch

    from models.network.build import ScalarHead
    from models.network.checkpoint import load
    from models.network.decoder import Decoder
    from models.serving.api import Served
    from models.training.device import choose as choose_device

    device = choose_device()
    for one in chosen:
        note(f"loading {one}")
        model, tokenizer = load(one.here, trust_remote_code)
        if isinstance(model, ScalarHead):
            raise UserError(f"{one.folder} is a reward model, which scores answers: serve a model that writes them")
        # Transformers' models keep tables in float32 that a cast would spoil.
        model.to(device.device, device.compute if isinstance(model, Decoder) else torch.float32)
        about = {"checkpoint": str(one.folder), "stage": one.stage, "run": one.run, "corpus": one.corpus}
        yield Served("", model, tokenizer, about | {"ancestors": ancestry(one.folder, lake)}, slots)


def ancestry(folder: Path, lake: Path) -> list[dict[str, Any]]:
    """The stages that a checkpoint rests on, nearest first, as `headwater trace` knows them; none where no lake has it.

    The lake is the one it lies in, else the one that is named.
    """
    from flows.lake import Lake

    folder = folder.resolve()
    within = [above for above in folder.parents if is_local(above) and (above / "records").is_dir()]
    for place in [*within, lake]:
        try:
            found = Lake(place).trace(str(folder))
        except UserError:
            continue
        return [_told(one) for one in found]
    return []


def _told(record: dict[str, Any]) -> dict[str, Any]:
    """A stage's record as the page shows it."""
    outputs = [ref.get("table") or ref.get("name", "") for ref in record["outputs"]]
    archives = [{"kind": one["kind"], "name": one["name"]} for one in record["archives"]]
    told = {name: record.get(name) for name in _SHOWN}
    return told | {"outputs": outputs, "archives": archives[:_ARCHIVES], "archives_in_all": len(archives)}
