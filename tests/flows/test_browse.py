"""The page of `headwater browse`, asked through HTTP in this process, beside what SQL and what-if say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import world
from harness import ROOT, Command, laid_out
from starlette.testclient import TestClient

from datalake.lake.lake import Lake
from flows.browse.app import application
from flows.browse.documents import PAGE, excerpt

HOSTILE = '<script>alert("x")</script> <img src=x onerror=alert(1)> {{ 7 * 7 }} \u202egnp.exe & <b>bold</b>'


@pytest.fixture(scope="module")
def lake(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of good texts, short ones that rules reject, duplicates, a Chinese text and one written for this page."""
    folder = tmp_path_factory.mktemp("browse")
    rows = [{"id": f"good{n}", "text": world.prose(n)} for n in range(26)]
    rows += [{"id": f"short{n}", "text": world.prose(100 + n, 3)} for n in range(4)]
    rows += [{"id": "same", "text": world.prose(3)}, {"id": "zh", "text": world.CHINESE}]
    rows += [{"id": '"><script>', "text": f"{HOSTILE}\n\n{world.prose(50)}"}]
    file = world.jsonl(folder / "in.jsonl", rows)
    world.run(world.tables(folder, [file], curate={"preset": "gopher"}), folder / "lake", "deduplicate")
    return folder / "lake"


@pytest.fixture(scope="module")
def page(lake: Path) -> TestClient:
    return TestClient(application(Lake(lake), "token"), "http://127.0.0.1:5000/token/", raise_server_exceptions=True)


def read(client: TestClient, path: str = "", /, **query: Any) -> str:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.text


def documents(html: str) -> list[str]:
    """The addresses of the documents that a page lists."""
    return [unescape(found) for found in re.findall(r"<article>\s*<h3><a [^>]*><bdi>(.*?)</bdi>", html)]


def test_pages_hold_every_document_once(page: TestClient, lake: Path) -> None:
    html = read(page)
    assert "33 documents, 1 to 20" in html
    seen = documents(html) + documents(read(page, page=2))
    assert (len(seen), len(documents(html))) == (33, PAGE)
    assert sorted(seen) == sorted(uri for (uri,) in world.rows(lake, "SELECT uri FROM small.raw"))
    assert documents(read(page, page=3)) == []
    assert "page=2" in html
    assert "page=0" not in html


@pytest.mark.parametrize(
    ("asked", "condition"),
    [
        ({"verdict": "kept"}, "verdict = 'kept'"),
        ({"verdict": "duplicate"}, "verdict = 'duplicate'"),
        ({"rule": "min_words"}, "list_contains(rules, 'min_words')"),
        ({"language": "zh"}, "language = 'zh'"),
        ({"source": "table", "verdict": "rejected"}, "source = 'table' AND verdict = 'rejected'"),
        ({"words": "木匠"}, "uri LIKE '%#zh'"),
        ({"words": "THE RIVER"}, "id IN (SELECT id FROM small.raw WHERE text ILIKE '%the river%')"),
        ({"words": "#short2"}, "uri LIKE '%#short2'"),
        ({"words": "' OR 1=1 --"}, "false"),
        ({"verdict": "kept' OR '1'='1"}, "false"),
    ],
)
def test_a_choice_shows_what_sql_finds(page: TestClient, lake: Path, asked: dict[str, str], condition: str) -> None:
    expected = sorted(uri for (uri,) in world.rows(lake, f"SELECT uri FROM small.ledger WHERE {condition}"))
    shown = sorted(documents(read(page, **asked)) + documents(read(page, **asked, page=2)))
    assert shown == expected
    if asked.get("words") == "木匠":
        assert "<mark>木匠</mark>" in read(page, **asked)


def test_what_a_text_says_is_text(page: TestClient, lake: Path) -> None:
    [(id,)] = world.rows(lake, """SELECT lower(hex(id)) FROM small.raw WHERE uri LIKE '%script%'""")
    for html in (read(page, words="onerror"), read(page, "document", id=id), read(page, words=HOSTILE)):
        assert "<script" not in html
        assert "<img" not in html
        assert "&lt;script&gt;alert(" in html
        assert "\u202e" not in re.sub("<input[^>]*>", "", html)
        assert "49" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S) or "{{ 7 * 7 }}" in unescape(html)
    answer = page.get("")
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_document_shows_its_rules_and_what_became_of_it(page: TestClient, lake: Path) -> None:
    ids = dict(world.rows(lake, "SELECT split_part(uri, '#', 2), lower(hex(id)) FROM small.raw"))
    rejected = read(page, "document", id=ids["short1"])
    assert "rejected: min_words" in rejected
    assert re.search(
        r'min_words</td><td class="n">\d+</td>\s*<td class="n">&gt;= 50</td><td class="line failed">', rejected
    )
    assert unescape(world.prose(101, 3))[:40] in unescape(rejected)
    copies = [name for name in ("same", "good3") if "Kept in its place" in read(page, "document", id=ids[name])]
    assert len(copies) == 1
    assert page.get("document", params={"id": "00"}).status_code == 400


def test_another_threshold_is_answered_as_what_if_does(page: TestClient, lake: Path) -> None:
    def run(to: str) -> str:
        return read(page, change="gopher/min_words", to=to)

    short = {uri for (uri,) in world.rows(lake, "SELECT uri FROM small.ledger WHERE rules = ['min_words']")}
    assert short
    html = run("5")
    kept, lost = ([unescape(one) for one in re.findall(r"<b[^>]*>([^<]*)</b>", html)])[1:3]
    assert (kept, lost) == (f"+{len(short)}", "−0")
    gained = html[html.index("<h2>Gained</h2>") :]
    assert {unescape(uri) for uri in re.findall(r"<li><a [^>]*><bdi>(.*?)</bdi>", gained)} == short
    assert "−33" not in run("100000")
    assert "Lost" in run("100000")
    assert "no number" in run("many")
    assert "no number" in run("nan")
    assert "what if" in read(page).lower()


def test_only_this_machine_with_the_token_is_answered(lake: Path) -> None:
    app = application(Lake(lake), "token")
    assert TestClient(app, "http://127.0.0.1:5000").get("/token/").status_code == 200
    for path in ("/", "/other/", "/token", "/TOKEN/", "/other/document", "//token/"):
        got = TestClient(app, "http://127.0.0.1:5000").get(path, follow_redirects=False)
        assert got.status_code in (307, 404), path
        assert "small" not in got.text
    assert TestClient(app, "http://evil.example:5000").get("/token/").status_code == 403
    origin = {"origin": "http://evil.example"}
    assert TestClient(app, "http://127.0.0.1:5000").get("/token/", headers=origin).status_code == 403


@pytest.mark.parametrize(("scheme", "colour"), [("light", "rgb(251, 252, 253)"), ("dark", "rgb(15, 21, 27)")])
def test_it_fits_a_phone_and_a_wide_window(
    page: TestClient, lake: Path, tmp_path: Path, scheme: str, colour: str
) -> None:
    [(id,)] = world.rows(lake, "SELECT lower(hex(id)) FROM small.raw WHERE uri LIKE '%short1'")
    for html in (read(page, change="gopher/min_words", to=5), read(page, "document", id=id)):
        for width in (500, 1400):
            inner, needed, background = laid_out(html, tmp_path, width, scheme)
            assert (inner, background) == (width, colour)
            assert needed <= width


def test_an_excerpt_begins_before_the_words() -> None:
    text = "a " * 1000 + "Needle" + " b" * 1000
    before, found, after = excerpt(text, "needle")
    assert (found, text.count(before + found + after)) == ("Needle", 1)
    assert len(before + found + after) <= 600
    assert excerpt("short", "absent") == ("", "", "short")
    assert excerpt("İ needle", "needle")[2] == "İ needle"


def test_the_command_says_where_the_page_is_and_ends_by_ctrl_c(lake: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "browse", "--lake", str(lake), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"33 documents" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url[: url.index("/", 8)] + "/none/", timeout=60)
    finally:
        process.send_signal(2)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_taken_port_and_no_lake_are_one_line(tmp_path: Path, headwater: Command, lake: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            (["--lake", str(tmp_path)], "no lake"),
            (["--lake", str(lake), "--port", str(port)], f"port {port} can't be used"),
            (["--lake", str(lake), "--port", "70000"], "port 70000 can't be used"),
        ):
            assert said in headwater("browse", *arguments).mistake()
