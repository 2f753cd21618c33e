"""What lies around a run and isn't meant for it: proxies, other projects' settings, odd terminals and folders."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import world
from begun import Start, ended, processes_of, state
from harness import ROOT

from datalake.errors import UserError
from flows.service.api import Api
from flows.service.environment import apart, listens, pass_proxies, prepare, settings
from flows.streams import Unheard, escape, unheard

THEIRS = {
    "PREFECT_API_AUTH_STRING": "a:b",
    "PREFECT_SERVER_API_AUTH_STRING": "c:d",
    "PREFECT_API_KEY": "pnu_1",
    "PREFECT_API_URL": "http://elsewhere/api",
    "PREFECT_PROFILE": "prod",
    "PREFECT_HOME": "/elsewhere",
    "PREFECT_TASKS_REFRESH_CACHE": "1",
    "PREFECT_CLIENT_CUSTOM_HEADERS": "{}",
    "prefect_logging_to_api_enabled": "false",
}


class TestApart:
    """`apart`: which of the user's settings reach our Prefect."""

    def test_other_projects_settings_do_not_whatever_their_case(self) -> None:
        assert apart(THEIRS) == {}

    def test_those_of_a_server_go_with_it(self) -> None:
        kept = apart(THEIRS, "http://elsewhere/api")
        assert {*kept} == {
            "PREFECT_API_AUTH_STRING",
            "PREFECT_API_KEY",
            "PREFECT_API_URL",
            "PREFECT_CLIENT_CUSTOM_HEADERS",
        }

    def test_what_is_no_setting_or_is_meant_stays(self) -> None:
        meant = {
            "PATH": "/bin",
            "PREFECT__FLOW_RUN_ID": "1",
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://host/prefect",
        }
        assert apart(meant) == meant

    def test_every_setting_of_prefect_is_known_by_its_beginning(self) -> None:
        """Else one that is called otherwise would slip through."""
        from prefect.settings import get_current_settings

        names = get_current_settings().to_environment_variables(include_aliases=True)
        assert names
        assert all(name.startswith("PREFECT_") for name in names)


class TestProxies:
    def test_this_machine_is_reached_past_them(self) -> None:
        import httpx

        environment = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "intranet, ::1"}
        pass_proxies(environment)
        assert environment["no_proxy"] == environment["NO_PROXY"] == "intranet,::1,127.0.0.1,localhost"
        pass_proxies(environment)
        assert environment["no_proxy"].count("localhost") == 1
        assert httpx  # and with its support for SOCKS: a client is made for every proxy that is named, used or not
        import socksio  # noqa: F401

    def test_health_is_asked_directly(self, prefect_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        pass_proxies(os.environ)
        assert Api(prefect_server.url, prefect_server.login).answers()

    def test_a_client_is_made_beside_a_socks_proxy(self, prefect_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import httpx

        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        pass_proxies(os.environ)
        with httpx.Client() as client:
            assert client.get(f"{prefect_server.url}/health").status_code == 200


def test_a_server_that_the_user_names_and_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("http://127.0.0.1:9/api", "127.0.0.1", "http://127.0.0.1:port/api", "http://[::1", "ftp://x/api"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        assert not listens(url)
        with pytest.raises(UserError, match=r"no Prefect server answers at .* unset the variable"):
            prepare(tmp_path / "lake")
    assert not (tmp_path / "lake").exists()


def test_something_else_that_listens_there_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}/api"
        assert listens(url)
        assert Api(url).status(timeout_s=0.2) == 0


def test_a_recipe_may_name_thousands_of_files(tmp_path: Path) -> None:
    """The server's own limit on the parameters of a run is half a megabyte."""
    paths = [
        f"/some/folder/of/archives/segments/171/warc/CC-MAIN-20240520100000-20240520130000-{n:05d}.warc.gz"
        for n in range(6000)
    ]
    assert 512 * 1024 < len(json.dumps(paths)) < int(settings(tmp_path)["PREFECT_SERVER_API_MAX_PARAMETER_SIZE"])


class TestStreams:
    SAY = """
        import os, sys
        from flows.streams import steady
        steady()
        print("out 你 é \\U0001f600 \\udc80")
        print("err", file=sys.stderr)
        held = open(sys.argv[1], "w")
        os.write(1, b""), os.write(2, b"")
        held.write("|".join([sys.stdout.encoding, str(held.fileno() > 2)]))
    """

    def said(self, path: Path, shell: str, **more: str) -> subprocess.CompletedProcess[str]:
        script = path.with_suffix(".py")
        script.write_text(textwrap.dedent(self.SAY))
        command = f'exec "{sys.executable}" "{script}" "{path}" {shell}'
        env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env, check=False)

    @pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&- <&-"])
    def test_one_that_is_closed_takes_nothing_from_another_and_no_file_takes_its_place(
        self, tmp_path: Path, shell: str
    ) -> None:
        done = self.said(tmp_path / "held", shell)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "held").read_text().endswith("|True")
        assert "err" not in done.stdout
        assert "out" not in done.stderr

    def test_what_a_terminal_cannot_show_is_escaped_as_json_has_it(self, tmp_path: Path) -> None:
        done = self.said(tmp_path / "held", "", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert done.stdout == "out \\u4f60 \\u00e9 \\ud83d\\ude00 \\udc80\n"
        text = 'é 你 \U0001f600 "quoted"'
        shown = json.dumps(text, ensure_ascii=False)
        import codecs

        codecs.register_error("headwater.escape", escape)
        assert json.loads(shown.encode("ascii", "headwater.escape")) == text

    def test_a_reader_that_goes_away_is_no_reason_to_fail(self) -> None:
        read, write = os.pipe()
        with io.TextIOWrapper(open(write, "wb"), write_through=True) as pipe:  # noqa: PTH123
            stream = Unheard(pipe)
            print("heard", file=stream, flush=True)  # type: ignore[call-overload]
            assert os.read(read, 100) == b"heard\n"
            os.close(read)
            for _ in range(3):
                print("lost", file=stream, flush=True)  # type: ignore[call-overload]
            assert stream.encoding == pipe.encoding

    def test_logs_that_a_server_which_is_gone_does_not_get_are_lost_without_a_line(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from prefect.logging.handlers import APILogWorker

        class Gone:
            async def create_logs(self, logs: object) -> None:
                raise ConnectionError("All connection attempts failed")

        said = io.StringIO()
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", said)
        monkeypatch.setattr(logging, "raiseExceptions", True)
        unheard()
        worker = APILogWorker.__new__(APILogWorker)
        worker._client = Gone()  # type: ignore[assignment]
        asyncio.run(worker._handle_batch([{}]))
        assert said.getvalue() == ""


def others_project(folder: Path) -> dict[str, str]:
    """A working directory of another project, and an environment in which every setting leads astray."""
    folder.mkdir(parents=True)
    (folder / ".env").write_text("PREFECT_API_URL=http://127.0.0.1:9/api\nPREFECT_CLIENT_MAX_RETRIES=many\n")
    (folder / "prefect.toml").write_text('[api\nurl = "http://127.0.0.1:9/api"\n')
    (folder / "pyproject.toml").write_text('[tool.prefect]\nhome = "/proc/x"\n[tool.prefect.api]\nkey = "x"\n')
    far = folder / ("a" * 120)
    far.mkdir()
    return {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "socks5://127.0.0.1:9",
        **{name: value for name, value in THEIRS.items() if name != "PREFECT_API_URL"},
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://u:p@127.0.0.1:9/x",
        "RAY_ADDRESS": "127.0.0.1:9",
        "RAY_TMPDIR": str(far),
        "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
        "RAY_AUTH_MODE": "disabled",
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 0}',
        "TMPDIR": str(far),
        "HOME": "/proc/no-home",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [world.inline(), world.on_ray()])
def test_a_run_among_another_projects_settings_is_like_any_other(
    start: Start, tmp_path: Path, runtime: dict[str, Any]
) -> None:
    folder = tmp_path / "theirs"
    environment = others_project(folder)
    world.jsonl(folder / "docs.jsonl", [{"id": "é", "text": world.CHINESE}, {"id": "b", "text": world.prose(1)}])
    recipe = world.tables(folder, [Path("docs.jsonl")]) | {"runtime": runtime}  # relative to where the command is given
    lake = tmp_path / "lake"
    run = start(recipe, lake, "ingest", cwd=folder, **environment)
    assert state(ended(run), "ingest") == "ran"
    assert "Traceback" not in run.told()
    assert world.rows(lake, "SELECT count(*) FROM small.raw") == [(2,)]
    assert processes_of(lake) == []
