"""deployments/: what compose, Kubernetes, KubeRay and Ray read is what their schemas say, and no door stands open."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT
from kuberay import validate

HERE = ROOT / "deployments"
KUBERNETES = "1.33"
OURS = "headwater:latest"


def documents() -> list[tuple[str, dict[str, Any]]]:
    """Every object of deployments/kubernetes with the file that it stands in."""
    listed = yaml.safe_load((HERE / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    return [(name, one) for name in listed for one in yaml.safe_load_all((HERE / "kubernetes" / name).read_text())]


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((HERE / "compose.yaml").read_text()))


def test_the_compose_file_is_what_its_schema_says() -> None:
    from jsonschema import Draft7Validator

    clone = os.environ.get("HEADWATER_COMPOSE_SPEC", "")
    if not Path(clone or "none").is_dir():
        pytest.skip("no schema of compose: HEADWATER_COMPOSE_SPEC names a clone of compose-spec/compose-spec")
    show = ["git", "-C", clone, "show", "HEAD:schema/compose-spec.json"]
    schema = json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)
    Draft7Validator(schema).validate(compose())
    wrong = compose()
    wrong["services"]["worker"]["stop_grace"] = "90s"
    assert list(Draft7Validator(schema).iter_errors(wrong))


def test_services_of_compose_know_each_other_and_their_secrets() -> None:
    body = compose()
    services = body["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in body["volumes"] or (HERE / source).exists(), (name, volume)
        for door in service.get("ports", []):
            assert door.startswith("127.0.0.1:"), f"{name} is open to other machines: {door}"
    text = (HERE / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)(?::\?)?\}", text))
    there = set(re.findall(r"^(\w+)=$", (HERE / "env.example").read_text(), re.MULTILINE))
    assert asked == there
    assert set(re.findall(r"\$\{(\w+):\?\}", text)) == there, "compose refuses to start without each of them"
    server = services["server"]
    assert server["environment"]["PREFECT_SERVER_API_AUTH_STRING"] == "${PREFECT_AUTH:?}"
    for name in ("ray-head", "ray-worker", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE" if name != "worker" else "RAY_AUTH_TOKEN"]
        assert "${RAY_AUTH_TOKEN:?}" in str(services[name]["environment"])


@pytest.mark.parametrize(
    ("file", "one"), documents(), ids=lambda value: value if isinstance(value, str) else value["kind"]
)
def test_objects_of_kubernetes_are_what_its_schema_says(file: str, one: dict[str, Any]) -> None:
    if one["apiVersion"].startswith("ray.io/"):
        validate(one, "rayclusters")
        assert one["spec"]["authOptions"]["mode"] == "token"
        return
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install -e .[dev]")
    kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_what_objects_of_kubernetes_name_is_there() -> None:
    found = [one for _, one in documents()]
    made = set(
        re.findall(r"^secret (headwater-[a-z]+)", (HERE / "kubernetes" / "secrets.sh").read_text(), re.MULTILINE)
    )
    kustomization = yaml.safe_load((HERE / "kubernetes" / "kustomization.yaml").read_text())
    maps = {one["name"] for one in kustomization["configMapGenerator"]}
    text = json.dumps(found)
    assert set(re.findall(r'"secretRef": {"name": "([^"]+)"', text)) <= made
    assert set(re.findall(r'"secretKeyRef": {"name": "([^"]+)"', text)) <= made
    assert set(re.findall(r'"secretName": "([^"]+)"', text)) <= made
    assert set(re.findall(r'"configMap(?:Ref)?": {"name": "([^"]+)"', text)) <= maps
    services = {one["metadata"]["name"]: one for one in found if one["kind"] == "Service"}
    pods = {
        one["spec"]["template"]["metadata"]["labels"]["app"] for one in found if "serviceName" in one.get("spec", {})
    }
    assert pods <= set(services)
    assert all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in services.values()), "no door outwards"
    roles = [one for one in found if one["kind"] in ("Role", "ClusterRole")]
    assert [role["rules"] for role in roles] == [
        [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "list", "create", "delete"]}]
    ]


def test_kustomize_builds_them() -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("no kubectl")
    built = subprocess.run(
        [kubectl, "kustomize", str(HERE / "kubernetes")], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    kinds = [one["kind"] for one in yaml.safe_load_all(built)]
    assert len(kinds) == len(documents()) + 2  # and the two ConfigMaps
    assert {one["metadata"].get("namespace", "headwater") for one in yaml.safe_load_all(built)} == {"headwater"}


def test_the_autoscaler_file_is_what_rays_schema_says() -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    body = yaml.safe_load((HERE / "ray-autoscaler.yaml").read_text())
    jsonschema.validate(body, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body | {"max_worker": 3}, schema)
    assert body["head_node_type"] in body["available_node_types"]
    starts = " ".join(body["head_start_ray_commands"] + body["worker_start_ray_commands"])
    assert starts.count("RAY_AUTH_MODE=token") == starts.count("ray start") == 2


def test_the_image_has_what_the_code_needs() -> None:
    text = (HERE / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert [word for word in copied if not (ROOT / word).exists()] == []
    assert {"flows", "tasks", "models", "datalake", "recipes", "deployments"} <= set(copied)
    assert re.search(r"^USER headwater$", text, re.MULTILINE), "not root"
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    named = [line for line in (HERE / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    missing = [name for name in named if f"\n{name.split('[')[0]}==" not in f"\n{constraints}"]
    assert missing == [], "every version is pinned"


def test_the_server_does_not_open_to_other_machines_without_a_login() -> None:
    for login in ("", "nocolon"):
        done = subprocess.run(
            [sys.executable, "-m", "flows.service", "server", "--host", "0.0.0.0", "--port", "1"],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PREFECT_SERVER_API_AUTH_STRING": login, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 2
        assert "set PREFECT_SERVER_API_AUTH_STRING" in done.stderr
        assert "Traceback" not in done.stderr
