"""Applying deployments/prefect.yaml to a lake's server: `prefect deploy` does all but schedules and automations.

A schedule of the file is made once. Afterwards it is the server's: one that a person turned on, changed or removed
stays so, and so do those that people add. Only an entry changed in the file itself is applied again, on or off as it
was. What of the file was applied last is kept in `<lake>/prefect/deployments.json`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from datalake.atomic import write_atomically
from flows.service import automations
from flows.service.api import Api

ROOT = Path(__file__).parent.parent.parent
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"
APPLIED = "deployments.json"

Schedules = dict[str, dict[str, dict[str, Any]]]  # deployment -> slug -> entry of the file


class NotAppliedError(Exception):
    """`prefect deploy` failed; the message says what it said last."""


def digest() -> str:
    """What the deployments are made from: the file, where it lies, its commit, the flows' parameters, the recipes."""
    from flows.deployment import version
    from flows.parameters import recipes_at_hand
    from flows.recipe import Recipe

    sources = [PREFECT_FILE, *sorted((ROOT / "flows").glob("*.py"))]
    parts = [str(ROOT), version(), *(path.read_text(encoding="utf-8") for path in sources), *recipes_at_hand()]
    parts.append(json.dumps(Recipe.model_json_schema(), sort_keys=True))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def there(api: Api) -> list[dict[str, Any]]:
    """The deployments of Headwater that the server has."""
    found: list[dict[str, Any]] = api("/deployments/filter", {"deployments": {"tags": {"all_": ["headwater"]}}})
    return found


def complete(api: Api) -> bool:
    """Whether the server has every deployment of the file."""
    return {entry["name"] for entry in _file()["deployments"]} <= {deployment["name"] for deployment in there(api)}


def apply(api: Api, home: Path, environment: Mapping[str, str], tell: Callable[[], None]) -> bool:
    """Apply the file where it isn't applied yet; returns whether there was anything to do.

    Args:
        api: the server's.
        home: the lake's folder of Prefect, for what is applied and for the log.
        environment: what `prefect deploy` needs to reach the server.
        tell: called before it begins.

    Raises:
        NotAppliedError: where `prefect deploy` fails.
    """
    state, wanted, file = _applied(home), digest(), _file()
    automated = automations.wanted(file)
    schedules: Schedules = {
        entry["name"]: {schedule["slug"]: schedule for schedule in entry.pop("schedules", [])}
        for entry in file["deployments"]
    }
    known = {deployment["name"] for deployment in there(api)}
    deploys = state.get("digest") != wanted or not complete(api)
    if deploys:
        tell()
        before = {name: entries for name, entries in state.get("schedules", {}).items() if name in known}
        _deploy(file, home, environment)
        if not complete(api):
            raise NotAppliedError("not every deployment is there")
        _schedule(api, schedules, before)
    ids = {deployment["name"]: deployment["id"] for deployment in there(api)}
    last = state.get("automations", {}) if known else {}
    applied, made = automations.apply(api, automated, last, ids)
    if deploys or made:
        body = {"digest": wanted, "schedules": schedules, "automations": applied}
        write_atomically(home / APPLIED, json.dumps(body, indent=1).encode())
    return bool(deploys or made)


def _file() -> dict[str, Any]:
    # Through JSON, so that entries compare with those read back (a date in YAML is a text there).
    return dict(json.loads(json.dumps(yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8")), default=str)))


def _applied(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / APPLIED).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _deploy(file: Mapping[str, Any], home: Path, environment: Mapping[str, str]) -> None:
    """`prefect deploy` with a file that names no schedules: those on the server are left alone."""
    path, log = home / "prefect.yaml", home / "deploy.log"
    path.write_text(yaml.safe_dump(dict(file), sort_keys=False), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    log.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise NotAppliedError(said[-1] if said else "it said nothing")


def _schedule(api: Api, wanted: Schedules, before: Schedules) -> None:
    for deployment in there(api):
        place = f"/deployments/{deployment['id']}/schedules"
        here = {schedule["slug"]: schedule for schedule in deployment["schedules"] if schedule["slug"]}
        for slug, entry in wanted.get(deployment["name"], {}).items():
            last, found = before.get(deployment["name"], {}).get(slug), here.get(slug)
            if last == entry or (last is None and found):
                continue
            body = {
                "slug": slug,
                "schedule": {k: v for k, v in entry.items() if k not in ("slug", "active", "parameters")},
                "parameters": entry.get("parameters", {}),
                "active": found["active"] if found else entry.get("active", False),
            }
            if found:
                api(f"{place}/{found['id']}", body, "PATCH")
            else:
                api(place, [body])
