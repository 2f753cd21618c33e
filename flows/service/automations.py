"""What a lake's server does by itself: the automations and triggers of deployments/prefect.yaml, and whom it tells.

Each is made once and then belongs to whoever changes it in the UI, as schedules do: one turned on or off, changed or
removed stays so; only an entry changed in the file itself is applied again, on or off as it was. (`prefect deploy`
would make a deployment's triggers anew each time, and forget what a person has turned on.)
"""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from flows.service.api import Api

Entries = dict[str, dict[str, Any]]  # name -> as the file has it

BLOCK = "headwater"  # the notification block that failures are told by
WEBHOOK = "HEADWATER_WEBHOOK"  # the address that `up` makes one of


def wanted(file: dict[str, Any]) -> Entries:
    """The automations of the file by name; triggers are taken out of its deployments."""
    found: Entries = {entry["name"]: entry for entry in file.get("automations", [])}
    for deployment in file["deployments"]:
        for trigger in deployment.pop("triggers", []):
            own = ("name", "description", "enabled", "parameters")
            event = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0}
            run = {"type": "run-deployment", "source": "selected", "deployment": deployment["name"]}
            found[trigger["name"]] = {
                "name": trigger["name"],
                "description": trigger.get("description", ""),
                "enabled": trigger.get("enabled", True),
                "trigger": event | {name: value for name, value in trigger.items() if name not in own},
                "actions": [run | {"parameters": trigger.get("parameters")}],
            }
    return found


def apply(api: Api, entries: Entries, before: Mapping[str, Any], deployments: Mapping[str, str]) -> tuple[Entries, int]:
    """Make what isn't there yet, and change what the file has otherwise than `before`; what was applied, and how many
    were made or changed.

    One whose block isn't there is left for the next time. deployments: their ids by name.
    """
    here = {found["name"]: found for found in api("/automations/filter", {})}
    applied: Entries = {}
    made = 0
    for name, entry in entries.items():
        last, found = before.get(name), here.get(name)
        body = deepcopy(entry)
        if last != entry and (last is not None or not found):
            if not all(_resolve(api, action, deployments) for action in body["actions"]):
                continue
            body["enabled"] = found["enabled"] if found else entry["enabled"]
            api(f"/automations/{found['id']}" if found else "/automations/", body, "PUT" if found else "POST")
            made += 1
        applied[name] = entry
    return applied, made


def _resolve(api: Api, action: dict[str, Any], deployments: Mapping[str, str]) -> bool:
    """Put ids where the file has names; whether there are such things."""
    if "deployment" in action:
        action["deployment_id"] = deployments.get(action.pop("deployment"))
        return action["deployment_id"] is not None
    if "block_document" in action:
        found = _notifying(api, action.pop("block_document"))
        action["block_document_id"] = found and found["id"]
        return found is not None
    return True


def _notifying(api: Api, name: str) -> dict[str, Any] | None:
    """The block of this name that can notify, of whatever type."""
    for found in api("/block_documents/filter", {"block_documents": {"name": {"any_": [name]}}}):
        if "notify" in (found["block_schema"] or {}).get("capabilities", []):
            return dict(found)
    return None


def notify_at(api: Api, address: str) -> None:
    """Let failures be told by a POST of JSON, `{"text": ...}`, to a webhook: a block of Prefect's own type.

    The address, which often holds a key, is among its secrets.
    """
    try:
        kind = api("/block_types/slug/custom-webhook")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return  # of a server that has no such type: a person chooses another
    data = {
        "name": BLOCK,
        "url": "{{address}}",
        "method": "POST",
        "json_data": {"text": "{{subject}}\n{{body}}"},
        "secrets": {"address": address},
    }
    there = _notifying(api, BLOCK)
    if there is not None:
        if there["block_type_id"] == kind["id"]:  # another type was a person's choice
            api(f"/block_documents/{there['id']}", {"data": data, "merge_existing_data": False}, "PATCH")
        return
    schemas = api("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})
    body = {"name": BLOCK, "data": data, "block_type_id": kind["id"], "block_schema_id": schemas[0]["id"]}
    api("/block_documents/", body)
