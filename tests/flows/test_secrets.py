"""Secrets planted in every way a recipe takes them are nowhere in what a run leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import world
import yaml
from harness import PrefectServer
from servers import Fault, RangeServer, serving

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.records import find_manifest
from flows.flows import RECIPE
from flows.recipe import Recipe, load, without_secrets

PLANTED = ["Sesam-of-vars", "Sesam-of-set", "Sesam-of-environment", "Sesam-of-user", "Sesam-of-query", "Sesam-of-path"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as one:
        yield one


def found_in(folder: Path) -> list[tuple[str, str]]:
    """Which planted secrets are in which files, Parquet unpacked."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes() + str(path).encode()
        if path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).encode()
        found += [(str(path.relative_to(folder)), secret) for secret in PLANTED if secret.encode() in content]
    return found


def test_planted_secrets_are_nowhere_in_what_a_run_leaves(
    prefect_server: PrefectServer,
    server: RangeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from flows.flows import pipeline
    from tasks.tracked import StageError

    for number, place in enumerate(("a", "Sesam-of-path/b", "c", "d", "e")):
        made = world.crawl(tmp_path / f"{number}.warc.gz", 10 * number)
        server.put(f"/cc/{place}.warc.gz", made.read_bytes())
    server.always["/cc/d.warc.gz"] = Fault(status=503)
    monkeypatch.setenv("HEADWATER_MIRROR_PASSWORD", "Sesam-of-environment")
    host = server.url.removeprefix("http://")
    recipe = {
        "corpus": "hush",
        "vars": {"api_token": "Sesam-of-vars", "folder_key": "Sesam-of-path", "site": host},
        "sources": [
            {
                "kind": "common_crawl",
                "paths": [
                    "http://${site}/cc/a.warc.gz?token=${api_token}",
                    "http://${site}/cc/${folder_key}/b.warc.gz",
                    "http://me:${mirror_password}@${site}/cc/c.warc.gz",
                    f"HTTP://me:Sesam-of-user@{host}/cc/d.warc.gz?X-Amz-Signature=Sesam-of-query&sig=${{set_secret}}",
                    "http://${site}/cc/e.warc.gz?accessToken=Sesam-of-query",
                ],
                "licence": "by ${api_token}",
            }
        ],
        "runtime": world.inline() | {"remote": {"retries": 1, "backoff_seconds": 0.001, "longest_wait_seconds": 0.01}},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    chosen = load(path, ["vars.set_secret=Sesam-of-set"])
    lake = tmp_path / "lake"

    def run(recipe: Recipe) -> list[Any]:
        """As `headwater run` does: the flow's parameters name the file, the recipe itself goes past the server."""
        token = RECIPE.set(recipe)
        try:
            set_ = [without_secrets("vars.set_secret=Sesam-of-set")]
            return list(pipeline(recipe=str(path), set=set_, until="ingest", lake=str(lake)))
        finally:
            RECIPE.reset(token)

    reports = {report.stage: report for report in run(chosen)}
    assert reports["ingest"].state == "partial"  # d answers 503, so addresses are in what is told of it
    wrong: Any = chosen.model_copy(update={"corpus": "hushed"})
    wrong.sources[0].paths[:] = [
        "http://${nothing}/Sesam-of-path",
        f"http://me:Sesam-of-user@{host}/Sesam-of-path.warc",
    ]
    with pytest.raises((UserError, StageError)) as error:
        run(wrong)
    assert not any(secret in str(error.value) for secret in PLANTED[:5])
    kept = find_manifest(Lake(lake), "last").recipe
    assert "${folder_key}" in str(kept), "a secret variable is its name again"
    assert world.report(lake)
    out, err = capfd.readouterr()
    assert not [secret for secret in PLANTED if secret in out + err]
    assert found_in(lake) == []
    assert found_in(prefect_server.lake) == []


def test_another_secret_is_another_identity_where_it_shapes_the_output() -> None:
    from datalake.identity import fingerprint

    def licensed(token: str) -> str:
        source = {"kind": "table", "paths": ["x"], "licence": "${token}"}
        return fingerprint(
            Recipe.model_validate({"corpus": "a", "vars": {"token": token}, "sources": [source]}).sources
        )

    assert licensed("one-secret") != licensed("another-secret")


def test_a_recipe_as_kept_is_complete_again_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate(
        {
            "corpus": "a",
            "vars": {"token": "open-sesame", "place": "here"},
            "sources": [{"kind": "table", "paths": ["${place}/${token}/x.jsonl"]}],
        }
    )
    kept = recipe.model_dump(mode="json")
    assert kept["vars"] == {"place": "here"}
    assert kept["sources"][0]["paths"] == ["here/${token}/x.jsonl"]
    assert Recipe.stored(kept).curate == recipe.curate
    with pytest.raises(ValueError, match=r"\$\{token\} has no value: set HEADWATER_TOKEN"):
        Recipe.model_validate(kept)
    monkeypatch.setenv("HEADWATER_TOKEN", "open-sesame")
    assert Recipe.model_validate(kept) == recipe


def test_an_override_is_shown_without_its_secret(tmp_path: Path) -> None:
    assert without_secrets("vars.api_token=abc") == "vars.api_token=***"
    assert without_secrets("sources[0].paths=[HTTPS://u:p@h/x?sig=1]") == "sources[0].paths=[HTTPS://h/x?sig=***"
    assert without_secrets("pretrain.steps=3") == "pretrain.steps=3"
    path = tmp_path / "r.yaml"
    path.write_text("corpus: a\nsources: [{kind: table, paths: [x]}]\n")
    with pytest.raises(UserError) as error:
        load(path, ["runtime.remote.proxy.token=abc-def"])
    assert "abc-def" not in str(error.value)


def test_manifests_and_versions_are_read_by_their_owner_alone(
    prefect_server: PrefectServer, tmp_path: Path, server: RangeServer
) -> None:
    server.put("/cc/a.warc.gz", world.crawl(tmp_path / "a.warc.gz", 0).read_bytes())
    source = {"kind": "common_crawl", "paths": [f"{server.url}/cc/a.warc.gz"]}
    lake = tmp_path / "lake"
    world.run({"corpus": "far", "sources": [source], "runtime": world.inline()}, lake, until="ingest")
    private = [*(lake / "runs").glob("*.json"), *lake.rglob("versions.json")]
    assert len(private) >= 2
    assert {path.stat().st_mode & 0o077 for path in private} == {0}
