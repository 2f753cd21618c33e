"""A page of another site in the user's browser gets nothing from the server, and does nothing with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from harness import PrefectServer
from servers import serving

from flows.service.environment import settings
from flows.service.guard import trusted
from flows.service.login import header, login
from flows.service.servers import TemporaryServer

# Everything that a page can try on a server at another origin: read it, write to it with and without a preflight, with
# and without the password, through a socket, by a form.
PAGE = """<!doctype html><title>waiting</title><body><script>
const api = "%(api)s", results = {};
const flow = JSON.stringify({name: "attack"});
const basic = "Basic " + btoa("%(login)s");
const tries = {
  read: () => fetch(api + "/admin/settings").then(r => r.text()),
  read_with_password: () => fetch(api + "/admin/settings", {headers: {Authorization: basic}}).then(r => r.text()),
  write: () => fetch(api + "/flows/", {method: "POST", body: flow, headers: {"Content-Type": "application/json"}}),
  write_with_password: () => fetch(api + "/flows/", {method: "POST", body: flow,
    headers: {"Content-Type": "application/json", Authorization: basic}}),
  write_blindly: () => fetch(api + "/flows/", {method: "POST", body: flow, mode: "no-cors"}).then(() => "sent"),
  socket: () => new Promise((done, fail) => {
    const socket = new WebSocket(api.replace("http", "ws") + "/events/in", ["prefect"]);
    socket.onopen = () => done("open"); socket.onerror = () => fail("refused"); }),
};
(async () => {
  for (const [name, attempt] of Object.entries(tries))
    results[name] = await attempt().then(() => "through", () => "refused");
  const form = Object.assign(document.createElement("form"), {method: "POST", action: api + "/flows/", target: "f"});
  document.body.append(Object.assign(document.createElement("iframe"), {name: "f"}), form);
  form.submit();
  window.results = results; document.title = "done";
})();
</script>"""


def test_hosts_and_origins_that_are_trusted() -> None:
    good = [("127.0.0.1:4200", None), ("localhost", None), ("[::1]:4200", None), ("LOCALHOST:8080", None)]
    good += [("127.0.0.1:4200", "http://127.0.0.1:4200"), ("localhost:9", "http://localhost:9")]
    bad = [("attacker.example:4200", None), ("127.0.0.1.attacker.example", None), ("", None), ("[::1", None)]
    bad += [("localhost@attacker.example", None), ("127.0.0.1:4200", "null"), ("127.0.0.1:4200", "")]
    bad += [("127.0.0.1:4200", "http://127.0.0.1:8000"), ("127.0.0.1:4200", "http://attacker.example")]
    bad += [("attacker.example", "http://attacker.example"), ("127.0.0.1:4200", "https://127.0.0.1:4200")]
    assert [pair for pair in good if not trusted(*pair)] == []
    assert [pair for pair in bad if trusted(*pair)] == []


def ask(url: str, **headers: str) -> tuple[int, dict[str, str]]:
    request = urllib.request.Request(f"{url}/flows/count", data=b"{}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def refuses_all_but_its_own(url: str, login: str) -> None:
    known = header(login) | {"Content-Type": "application/json"}
    status, headers = ask(url, **known)
    assert status == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ask(url)[0] == 401
    assert ask(url, **header("headwater:wrong"))[0] == 401
    assert ask(url, **known, Host="attacker.example")[0] == 403
    status, headers = ask(url, **known, Origin="http://attacker.example")
    assert status == 403
    assert "access-control-allow-origin" not in {name.lower() for name in headers}


def test_the_server_wants_its_password_and_its_own_name(prefect_server: PrefectServer) -> None:
    refuses_all_but_its_own(prefect_server.url, prefect_server.login)


def test_the_server_of_a_single_run_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = tmp_path / "odd ?name"
    for name, value in settings(lake).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_API_URL", "")
    with TemporaryServer(lake, lambda line: None, lambda line: None) as server:
        server.wait()
        refuses_all_but_its_own(server.url, login(lake))
    assert (lake / "prefect" / "prefect.db").is_file()


def test_forms_that_are_submitted_at_once_are_all_taken(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    deployment = prefect_server.call("/deployments/name/pipeline/pipeline")["id"]

    def submit(number: int) -> str:
        made = prefect_server.call(f"/deployments/{deployment}/create_flow_run", {"state": {"type": "PAUSED"}})
        return str(made["id"])

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(submit, range(16)))
    assert len(made) == 16
    for run in made:
        prefect_server.call(f"/flow_runs/{run}", method="DELETE")


def test_the_settings_that_the_api_tells_hide_the_password(prefect_server: PrefectServer) -> None:
    assert prefect_server.login.partition(":")[2] not in json.dumps(prefect_server.call("/admin/settings"))


@pytest.mark.parametrize("knows", [False, True])
def test_a_page_of_another_site_is_refused(prefect_server: PrefectServer, browser: Browser, knows: bool) -> None:
    with serving() as site:
        guess = prefect_server.login if knows else "headwater:guess"
        browser.driver.get(site.put("/page.html", (PAGE % {"api": prefect_server.url, "login": guess}).encode()))
        browser.wait(lambda: browser.driver.title == "done")
        results: dict[str, Any] = browser.driver.execute_script("return window.results")
    # The blind request is sent, as no browser holds it back; the server refuses it.
    assert {name for name, result in results.items() if result != "refused"} <= {"write_blindly"}
    flows = prefect_server.call("/flows/filter", {"flows": {"name": {"any_": ["attack"]}}})
    assert flows == []


def test_a_transaction_may_write_from_its_first_statement(tmp_path: Path) -> None:
    import sqlalchemy

    from flows.service.transactions import Queueing

    async def read() -> None:
        config = Queueing(connection_url=f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}")
        engine = await config.engine()
        session = await config.session(engine)
        async with session, config.begin_transaction(session, with_for_update=False):
            await session.execute(sqlalchemy.text("SELECT 1"))
            other = sqlite3.connect(tmp_path / "prefect.db", timeout=0)
            with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        await engine.dispose()

    asyncio.run(read())
