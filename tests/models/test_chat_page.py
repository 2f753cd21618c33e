"""The chat page in Debian's Chromium, as a person uses it, and what texts that were written for it can't do."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
import toys
from served import Server, scripted, serving
from starlette.testclient import TestClient

from models.network.checkpoint import load
from models.serving import api
from models.serving.page import headers, page
from models.text.tokenizer import encode, special

PATIENCE_MS = 120_000
# Whatever a document, a prompt or an answer may hold to become more than a text.
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    "[a](javascript:window.hacked=3) [b](https://example.org/) ![c](http://127.0.0.1:9/leak.png) "
    "{{ 7 * 7 }} ${7 * 7} <style>body { display: none }</style> **<b onclick=1>bold</b>**\n"
    "```html\n</code></pre><script>window.hacked = 4</script>\n```\n"
    "# <i>heading</i>\n- <svg onload=window.hacked=5>\n\n"
    "| <u>a</u> | b |\n| --- | --- |\n| </table><iframe src=//x> | 2 |\n"
)
COUNTS = {"records_in": 1000, "records_out": 900, "seconds": 12.5, "git_commit": "0123456789ab", "git_dirty": True}
ANCESTORS: list[dict[str, Any]] = [
    {"stage": stage, "fingerprint": f"{stage}-abcdef0123456789", "outputs": [stage], "archives": [], **COUNTS}
    for stage in ("sft", "pretrain", "ingest")
]
ANCESTORS[-1] |= {"archives": [{"kind": "table", "name": "<img src=x onerror=window.hacked=6>"}], "archives_in_all": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    words = toys.words(folder / "tokenizer")
    made = {
        name: load(toys.base(folder / name, words, context=2048, seed=seed))
        for seed, name in enumerate(("sft", "base"))
    }
    about = {"sft": {"checkpoint": "/lake/folders/sft", "ancestors": ANCESTORS}, "base": {"checkpoint": "/models/base"}}
    with serving({name: api.Served(name, *one, about[name]) for name, one in made.items()}) as started:
        yield started


class Tab(harness.Tab):
    """A page of the chat."""

    def __init__(self, chromium: Any, home: str, width: int = 1400, language: str = "en-US", scheme: str = "light"):
        super().__init__(chromium, width, PATIENCE_MS, locale=language, color_scheme=scheme)
        self.page.goto(home)
        self.page.wait_for_function("document.getElementById('one').options.length > 0")

    def ask(self, text: str) -> None:
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def settled(self, answers: int) -> None:
        """Wait until so many answers stand there, and none is being written."""
        self.page.wait_for_function(
            "n => document.querySelectorAll('.answer .again').length === n"
            " && document.getElementById('turns').ariaBusy === 'false'",
            arg=answers,
        )

    def texts(self) -> list[str]:
        return [str(text) for text in self.page.locator(".answer .text").all_inner_texts()]

    def set(self, **values: Any) -> None:
        self.page.evaluate(
            "values => Object.entries(values).forEach(([name, value]) => document.getElementById(name).value = value)",
            values,
        )


@pytest.fixture
def tab(chromium: Any, server: Server) -> Iterator[Tab]:
    opened = Tab(chromium, server.home)
    opened.set(temperature=0, max_tokens=12)
    yield opened
    assert opened.errors == []
    assert all(url.startswith((server.home, "data:")) for url in opened.requests), opened.requests
    opened.context.close()


def ids(server: Server, text: str) -> list[int]:
    words = server.models["sft"].tokenizer
    return [*encode(words, [text])[0], special(words, "<|end|>")]


def test_the_page_is_one_file_that_may_load_nothing(server: Server) -> None:
    answer = TestClient(api.application(server.models, "a key")).get("/")  # it holds no secret
    assert (answer.status_code, answer.text) == (200, page())
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not any(word in page() for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write"))
    assert " src=" not in page()
    assert "http" not in page().replace("https?:", "").replace('"HTTP', "")
    assert headers()["x-content-type-options"] == "nosniff"


def test_an_answer_streams_is_stopped_and_written_again(server: Server, tab: Tab) -> None:
    served = server.models["sft"]
    words = ids(server, "the cat")[:1]

    def slowly() -> Iterator[int]:
        while True:
            threading.Event().wait(0.02)
            yield words[0]

    tab.set(max_tokens="")
    with scripted(served.model, slowly()):
        tab.ask("go on")
        tab.page.wait_for_function("document.querySelector('.answer.writing .text').innerText.length > 5")
        assert tab.page.locator("#stop").is_visible()
        tab.page.keyboard.press("Escape")
        tab.settled(1)
        assert "stopped" in tab.page.locator(".answer h2").inner_text()
        tab.page.wait_for_timeout(1)
        while served.engine.busy:
            tab.page.wait_for_timeout(5)
    with scripted(served.model, ids(server, "again, **bold**")):
        tab.page.keyboard.press("Alt+r")
        tab.page.wait_for_selector(".answer strong")
        tab.settled(1)
    assert tab.texts() == ["again, bold"]


def test_a_question_is_edited_with_the_keyboard_and_what_followed_goes(server: Server, tab: Tab) -> None:
    tab.ask("the cat")
    tab.settled(1)
    tab.ask("the dog")
    tab.settled(2)
    tab.page.locator(".edit").first.click()
    tab.page.keyboard.press("Escape")  # as it was
    assert len(tab.texts()) == 2
    tab.page.press("#message", "ArrowUp")
    tab.page.keyboard.type(" and the cow")
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("see")
    tab.page.keyboard.press("Enter")
    tab.settled(2)
    assert tab.page.locator(".asked .said").all_inner_texts() == ["the cat", "the dog and the cow\nsee"]
    asked = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": tab.texts()[0]}]
    asked.append({"role": "user", "content": "the dog and the cow\nsee"})
    told = post(server, {"model": "sft", "messages": asked, "temperature": 0, "top_p": 0.95, "max_tokens": 12})
    assert tab.texts()[1].split() == told["choices"][0]["message"]["content"].split()
    tab.page.locator(".edit").first.click()
    tab.page.keyboard.type("!")
    tab.page.keyboard.press("Enter")
    tab.settled(1)
    tab.page.keyboard.press("Alt+n")
    assert tab.texts() == []


def post(server: Server, body: dict[str, Any]) -> Any:
    asked = urllib.request.Request(f"{server.base}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def test_two_checkpoints_answer_side_by_side_with_their_ancestry(server: Server, tab: Tab) -> None:
    tab.page.keyboard.press("Alt+b")
    tab.page.keyboard.press("Alt+s")
    tab.page.fill("#system", "be the cat")
    tab.ask("the cow")
    tab.settled(2)
    asked = [{"role": "system", "content": "be the cat"}, {"role": "user", "content": "the cow"}]
    for place, model in enumerate(("sft", "base")):
        told = post(server, {"model": model, "messages": asked, "temperature": 0, "top_p": 0.95, "max_tokens": 12})
        assert tab.texts()[place].split() == told["choices"][0]["message"]["content"].split()
    boxes = [one.bounding_box() for one in tab.page.locator(".answer").all()]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    known = tab.page.locator("details").nth(0)
    assert known.locator("summary").inner_text() == "Ancestry: sft ← pretrain ← ingest"
    known.locator("summary").click()
    assert "sft-abcdef01" in known.inner_text()
    assert "<img src=x onerror=window.hacked=6>" in known.inner_text()
    assert "and 2 more" in known.inner_text()
    tab.page.locator("details summary").nth(1).click()
    assert "no lake" in tab.page.locator("details").nth(1).inner_text()
    assert tab.page.evaluate("window.hacked") is None


def test_what_is_written_for_the_page_stays_a_text(server: Server, tab: Tab) -> None:
    tab.set(max_tokens="")
    with scripted(server.models["sft"].model, ids(server, HOSTILE)):
        tab.ask(HOSTILE)
        tab.settled(1)
    assert tab.page.evaluate("window.hacked") is None
    inside = "document.querySelectorAll('#turns :is(script, img, iframe, svg, style, i, b, u, object, form)').length"
    assert tab.page.evaluate(inside) == 0
    shown = tab.page.locator(".answer .text").inner_text()
    texts = ["<script>window.hacked = 1</script>", "{{ 7 * 7 }} ${7 * 7}", "[a](javascript:window.hacked=3)"]
    texts += ["</code></pre><script>window.hacked = 4</script>", "<i>heading</i>", "<svg onload=window.hacked=5>"]
    assert [text for text in texts if text not in shown] == []
    assert tab.page.locator(".asked .said").inner_text().startswith("<script>")
    links = "Array.from(document.querySelectorAll('#turns a'), a => a.href + ' ' + a.rel)"
    followed = [
        f"{url} noopener noreferrer nofollow" for url in ("https://example.org/", "http://127.0.0.1:9/leak.png")
    ]
    assert tab.page.evaluate(links) == followed  # pictures are links, too: nothing is loaded by itself
    names = "Array.from(document.querySelectorAll('#turns *')).flatMap(e => e.getAttributeNames())"
    assert not any(name.startswith("on") for name in tab.page.evaluate(names))


def test_the_policy_stops_a_script_that_got_in(chromium: Any, server: Server) -> None:
    context = chromium.new_context()
    opened = context.new_page()
    opened.goto(server.home)
    tools = context.new_cdp_session(opened)

    def evaluate(code: str) -> Any:
        asked: dict[str, Any] = {"expression": code, "returnByValue": True, "awaitPromise": True}
        asked["allowUnsafeEvalBlockedByCSP"] = False
        return tools.send("Runtime.evaluate", asked)["result"].get("value")

    for attempt in ("document.body.innerHTML = '<p>x'", "setTimeout('window.hacked = 1')", "eval('window.hacked = 2')"):
        assert evaluate(f"try {{ {attempt}; 'done' }} catch (error) {{ error.name }}") in ("TypeError", "EvalError")
    evaluate("document.body.setAttribute('onclick', 'window.hacked = 3'); document.body.click()")
    assert evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)") == "TypeError"
    assert evaluate("String(window.hacked)") == "undefined"
    assert evaluate("document.getElementById('new').textContent") == "New"  # the page's own script runs
    context.close()


def test_markdown_is_shown_as_such(server: Server, tab: Tab) -> None:
    text = (
        "# Title\nA `code` and **bold**.\n\n1. one\n2. two\n   - inner\n\n> said\n\n"
        "```python\nx = [1]\n\ny = x * 2\n```\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    tab.set(max_tokens="")
    with scripted(server.models["sft"].model, ids(server, text)):
        tab.ask("show")
        tab.settled(1)
    body = tab.page.locator(".answer .text")
    assert body.locator("h3").inner_text() == "Title"
    assert body.locator("p code").inner_text() == "code"
    assert body.locator("ol > li").count() == 2
    assert body.locator("ol ul li").inner_text() == "inner"
    assert body.locator("blockquote").inner_text() == "said"
    assert body.locator("pre code").inner_text() == "x = [1]\n\ny = x * 2"
    assert body.locator("td").all_inner_texts() == ["1", "2"]


def test_text_that_takes_a_parser_long_is_read_in_proportion(tab: Tab) -> None:
    """Four times as long a text may take some ten times as long, not sixteen: that would be every pair of places."""
    code = """unit => {
        const took = size => {
            const began = performance.now();
            markdown(unit.repeat(size));
            return performance.now() - began;
        };
        took(2000);
        const [short, long] = [took(10_000), took(40_000)];
        return long < 200 || long < 12 * short || took(40_000) < 12 * took(10_000);
    }"""
    for unit in ("[", "*", "**", "`", "[](", "![", "|", "- ", "> ", "#", "```", " ", "- - ", "\\n  "):
        assert tab.page.evaluate(code, unit), unit


def test_errors_of_the_server_are_shown(server: Server, chromium: Any) -> None:
    tab = Tab(chromium, server.home)
    tab.set(max_tokens=5000)
    tab.ask("the cat")
    tab.settled(1)
    assert "context is 2048 tokens" in tab.page.locator(".answer .error").inner_text()
    tab.context.close()
    with serving({"sft": server.models["sft"]}, "a key") as guarded:
        guarded.models = {}  # they are closed with the other server
        opened = chromium.new_context(bypass_csp=True)
        page = opened.new_page()
        page.goto(guarded.home)
        page.wait_for_function("document.activeElement.id === 'key'", timeout=PATIENCE_MS)
        page.fill("#key", "a key")
        page.press("#key", "Tab")
        page.wait_for_function("document.getElementById('one').value === 'sft'", timeout=PATIENCE_MS)
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [500, 1400])
def test_the_page_fits_a_phone_and_a_desk_by_day_and_night(
    chromium: Any, server: Server, width: int, scheme: str, tmp_path: Path
) -> None:
    tab = Tab(chromium, server.home, width, "zh-CN" if scheme == "dark" else "en-US", scheme)
    tab.set(max_tokens="")
    text = (
        "A list of **rules**:\n\n1. Read `README.md` first.\n2. Then run:\n\n```sh\n"
        "headwater serve sft ppo --port 8000 --slots 32 --host 127.0.0.1 --lake ../demo/lake\n```\n\n"
        "> Every weight can be traced to its documents.\n\n| stage | rows |\n|---|---|\n| ingest | 1,000 |\n"
    )
    tab.page.keyboard.press("Alt+b")
    chinese = ids(server, "木匠在河边修船。" * 12)
    sft, base = (server.models[name].model for name in ("sft", "base"))
    with scripted(sft, ids(server, text)), scripted(base, chinese):
        tab.ask("How do I serve two checkpoints? 怎样同时提供两个检查点？")
        tab.settled(2)
    tab.page.locator("details summary").first.click()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate("document.getElementById('turns').scrollWidth") <= width
    dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 21, 27)"
    assert dark == (scheme == "dark")
    assert ("来历" in tab.page.locator("details").first.inner_text()) == (scheme == "dark")
    send = tab.page.locator("#send").bounding_box()
    assert send["x"] + send["width"] <= width
    shots = Path(os.environ.get("HEADWATER_SHOTS", tmp_path))
    tab.page.screenshot(path=shots / f"chat-{width}-{scheme}.png")
    tab.page.keyboard.press("Alt+s")
    assert tab.page.locator("#temperature").is_visible()
    tab.page.screenshot(path=shots / f"chat-{width}-{scheme}-settings.png")
    if scheme == "dark":
        tab.page.click("#language")
        assert tab.page.locator("#new").inner_text() == "New"
    assert tab.errors == []
    tab.context.close()
