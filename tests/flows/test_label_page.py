"""The page of `headwater label` in Debian's Chromium, by keys alone, at phone width, in two languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
import world
from harness import answering

from flows.label import items
from flows.label.annotators import annotators
from flows.label.app import PAGE, application
from flows.label.desk import KINDS, Desk
from flows.label.labels import CONVERSATIONS, DOCUMENTS, PREFERENCES, Labels
from models.serving.page import page

PATIENCE_MS = 60_000
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> [a](javascript:window.hacked=3) "
    "![c](http://127.0.0.1:9/leak.png) {{ 7 * 7 }} <style>body { display: none }</style>\n"
    "```html\n</code></pre><script>window.hacked = 4</script>\n```\n"
    "- <svg onload=window.hacked=5>\n\n| <u>a</u> | b |\n| --- | --- |\n| </table><iframe src=//x> | 2 |\n"
)
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where does a river begin?"}]


class Tab(harness.Tab):
    """The page of labels."""

    def __init__(self, chromium: Any, home: str, key: str = "", width: int = 1280, **more: Any):
        super().__init__(chromium, width, PATIENCE_MS, **more)
        self.page.goto(f"{home}/#{key}" if key else home)
        self.page.wait_for_selector("footer:not([hidden])" if key else "#login:not([hidden])")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def count(self, said: str) -> None:
        """Wait until so much is done."""
        self.page.wait_for_function("said => document.getElementById('count').textContent === said", arg=said)

    @property
    def answers(self) -> list[str]:
        return [str(text) for text in self.page.locator("#pairs .answer .text").all_inner_texts()]

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    """A lake with three pairs, one written for the page, and two documents."""
    labels = Labels(tmp_path)
    for prompt, *answers in (
        (TALK, "At its **source**.", "In the sea."),
        (TALK[1:], "At a spring.", "Nobody knows."),
        ([{"role": "user", "content": HOSTILE}], HOSTILE, f"{HOSTILE} too"),
    ):
        labels.items("pairs").add(items.pair(prompt, answers, [{"stage": "sft"}, {"stage": "ppo"}]))
    for n, text in enumerate((f"{HOSTILE}\n\n{world.prose(1)}", world.CHINESE)):
        labels.items("documents").add(
            {"id": f"{n:032x}", "text": text, "corpus": "small", "verdict": "kept", "rules": []}
        )
    return labels


@pytest.fixture
def key(labels: Labels) -> str:
    return annotators(labels, ["ann"])["ann"]


def at_home(labels: Labels, kind: str) -> Any:
    keys = annotators(labels)
    return answering(application(Desk(labels, KINDS[kind], keys, 0.5), keys))


@pytest.fixture
def home(labels: Labels, key: str) -> Iterator[str]:
    with at_home(labels, "pairs") as url:
        yield url


def test_the_page_loads_nothing_and_makes_no_html_of_texts() -> None:
    assert not any(
        word in page(PAGE) for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write")
    )
    assert " src=" not in page(PAGE)
    assert "http" not in page(PAGE).replace("https?:", "")
    assert "/* common" not in page(PAGE)


def test_what_was_said_outlives_the_login(chromium: Any, labels: Labels, home: str, key: str) -> None:
    tab = Tab(chromium, home, key)
    tab.count("0 / 3")
    first = tab.answers
    tab.press("8", "KeyQ", "KeyN")
    tab.page.keyboard.type("so so")
    tab.context.clear_cookies()
    tab.press("Control+Enter")
    tab.page.wait_for_selector("#login:not([hidden])")
    assert "log in first" in tab.page.locator("#trouble").inner_text()
    tab.page.keyboard.type(key)
    tab.press("Enter")
    tab.count("0 / 3")
    assert tab.answers == first
    assert tab.page.locator("#note").input_value() == "so so"
    assert tab.page.locator("[role=radio][aria-checked=true]").inner_text() == "B3"
    tab.press("Enter")
    tab.count("1 / 3")
    [row] = labels.rows(PREFERENCES)["ann"].values()
    assert (abs(row["grade"]), row["note"]) == (3, "so so")
    assert not row[f"harmless_{row['left']}"]
    assert tab.page.locator("#note").input_value() == ""  # nothing of it is left for the next item
    assert tab.page.locator("#correction").get_attribute("dir") == "auto"


def test_pairs_are_judged_by_keys_taken_back_and_skipped(chromium: Any, labels: Labels, home: str, key: str) -> None:
    tab = Tab(chromium, home, key)
    tab.count("0 / 3")
    assert "#" not in tab.page.url  # the key doesn't stay in the address
    first = tab.answers
    tab.press("Enter")
    assert "Choose first" in tab.page.locator("#error").inner_text()
    tab.press("8", "KeyQ", "KeyC")
    tab.page.keyboard.type(" And more")
    tab.press("Enter")  # begins a line
    tab.page.keyboard.type("to say, 5")
    tab.press("Escape", "KeyN")
    tab.page.keyboard.type("so so")
    tab.press("Control+Enter")
    tab.count("1 / 3")
    [row] = labels.rows(PREFERENCES)["ann"].values()
    assert (row["grade"], row["note"]) == (3 if row["left"] == "a" else -3, "so so")
    assert not row[f"harmless_{row['left']}"]
    [dialogue] = labels.rows(CONVERSATIONS)["ann"].values()
    assert dialogue["messages"][-1]["content"].endswith(" And more\nto say, 5")
    tab.press("KeyU")
    tab.count("0 / 3")
    assert tab.answers == first
    assert tab.page.locator("#note").input_value() == "so so"
    assert tab.page.locator("[role=radio][aria-checked=true]").inner_text() == "B3"
    assert labels.rows(CONVERSATIONS)["ann"] == labels.rows(PREFERENCES)["ann"] == {}
    tab.press("ArrowRight", "ArrowLeft", "ArrowLeft", "Enter")
    tab.count("1 / 3")
    assert abs(next(iter(labels.rows(PREFERENCES)["ann"].values()))["grade"]) == 2
    tab.press("KeyS")
    tab.count("1 / 2")
    tab.press("5", "Enter")
    tab.count("2 / 2")
    assert "That was all" in tab.page.locator("#done").inner_text()
    assert "1 skipped" in tab.page.locator("#done").inner_text()
    tab.press("KeyU")
    tab.count("1 / 2")
    tab.press("KeyU")
    tab.count("1 / 3")
    assert {row["winner"] for row in labels.rows(PREFERENCES)["ann"].values()} <= {"a", "b"}
    tab.page.click("#who")
    tab.page.wait_for_selector("#login:not([hidden])")
    assert tab.errors == []
    assert all(url.startswith((home, "data:")) for url in tab.requests), tab.requests
    tab.close()


def test_what_comes_later_is_shown_by_itself(chromium: Any, tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    keys = annotators(labels, ["ann"])
    desk = Desk(labels, KINDS["pairs"], keys, 1)
    desk.coming = True
    with answering(application(desk, keys)) as home:
        tab = Tab(chromium, home, keys["ann"])
        assert "More is being written" in tab.page.locator("#done").inner_text()
        assert desk.ask([items.pair(TALK, ["At its source.", "In the sea."], [{}, {}])]) == 1
        tab.count("0 / 1")
        desk.coming = False
        tab.press("1", "Enter")
        tab.count("1 / 1")
        assert "That was all" in tab.page.locator("#done").inner_text()
        tab.close()


def test_what_is_written_for_the_page_stays_a_text(chromium: Any, labels: Labels, home: str, key: str) -> None:
    tab = Tab(chromium, home, key)
    for _ in range(3):
        if "window.hacked" in tab.answers[0]:
            break
        left = tab.page.locator("#prompt").inner_text()
        tab.press("KeyS")
        tab.page.wait_for_function("left => document.getElementById('prompt').innerText !== left", arg=left)
    assert all("<script>window.hacked = 1</script>" in text for text in tab.answers)
    inside = "document.querySelectorAll('#task :is(script, img, iframe, svg, style, u, object)').length"
    assert tab.page.evaluate(inside) == 0
    tab.page.fill("#note", HOSTILE)
    tab.press("Escape", "1", "Enter")
    tab.page.wait_for_function("document.getElementById('count').textContent.startsWith('1')")
    tab.press("KeyU")
    tab.page.wait_for_function("document.getElementById('count').textContent.startsWith('0')")
    assert tab.page.locator("#note").input_value() == HOSTILE.strip()
    assert tab.page.evaluate("window.hacked") is None
    assert not any("leak" in url for url in tab.requests)
    tab.close()


def test_documents_are_kept_and_dropped(chromium: Any, labels: Labels, key: str) -> None:
    with at_home(labels, "documents") as home:
        tab = Tab(chromium, home, key, locale="zh-CN")
        tab.count("0 / 2")
        texts = []
        for choice in ("KeyK", "KeyD"):
            texts.append(tab.page.locator("#document").inner_text())
            tab.press(choice, "Enter")
            tab.count(f"{len(texts)} / 2")
        assert tab.page.evaluate("window.hacked") is None
        assert tab.errors == []
        tab.close()
    rows = list(labels.rows(DOCUMENTS)["ann"].values())
    assert [row["label"] for row in rows] == ["good", "bad"]
    assert [row["text"].split() for row in rows] == [text.split() for text in texts]
    assert {(row["annotator"], row["corpus"], row["verdict"]) for row in rows} == {("ann", "small", "kept")}


def test_a_stranger_types_a_key_in_either_language(chromium: Any, home: str, key: str) -> None:
    tab = Tab(chromium, home, locale="zh-CN")
    assert "请输入您的密钥" in tab.page.locator("#login").inner_text()
    tab.page.fill("#key", "guess")
    tab.press("Enter")
    tab.page.wait_for_function("document.getElementById('trouble').textContent.includes('wrong key')")
    tab.page.fill("#key", key)
    tab.press("Enter")
    tab.count("0 / 3")
    assert "哪个回答更好" in tab.page.locator("footer").inner_text()
    tab.page.click("#language")
    assert "Which answer is better?" in tab.page.locator("footer").inner_text()
    tab.page.reload()
    tab.count("0 / 3")  # the cookie stays, and the language
    assert "Which answer is better?" in tab.page.locator("footer").inner_text()
    tab.close()


def test_a_server_that_is_gone_loses_nothing_that_was_typed(chromium: Any, labels: Labels, key: str) -> None:
    with at_home(labels, "pairs") as home:
        tab = Tab(chromium, home, key)
        tab.page.fill("#note", "long thought")
        tab.press("Escape", "2")
    tab.press("Enter")
    tab.page.wait_for_function("document.getElementById('error').textContent.startsWith('Not saved')")
    assert tab.page.locator("#note").input_value() == "long thought"
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["pairs", "documents"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_a_phone_and_a_desk(
    chromium: Any, labels: Labels, key: str, width: int, kind: str, scheme: str
) -> None:
    with at_home(labels, kind) as home:
        tab = Tab(chromium, home, key, width, color_scheme=scheme)
        tab.press("7" if kind == "pairs" else "KeyK")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        shown = tab.page.locator("#scale button").all()
        assert all((box := one.bounding_box()) and box["width"] >= 30 and box["height"] >= 30 for one in shown)
        assert all(one.is_visible() for one in tab.page.locator(".acts button").all())
        boxes = [one.bounding_box() for one in tab.page.locator("#pairs .answer").all() if one.is_visible()]
        if kind == "pairs":
            assert (boxes[0]["y"] == boxes[1]["y"]) is (width > 700)
        dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 21, 27)"
        assert dark is (scheme == "dark")
        tab.close()
