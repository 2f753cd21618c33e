"""Prefect's two UIs in Debian's Chromium, as a person uses them: what is seen, clicked, typed and chosen by its label.

Both are pages of one server: V1 below `/`, V2 below `/v2`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATHS = {"v1": "", "v2": "/v2"}
PATIENCE_S = 300  # a run's processes take minutes to start on a machine that others keep busy

OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-3d-apis",  # without a GPU the graph of a run in V2 stops the page for minutes
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1400,1300",
]


@dataclass
class Browser:
    """A browser in one of the UIs of a server at `home`; screenshots go to `shots`."""

    driver: Any
    home: str
    shots: Path
    ui: str = "v2"

    def log_in(self, login: str) -> None:
        """Type the password on the page that asks for it."""
        self.open("/login")
        box = self.find("//input[@type='password']")
        box.send_keys(login + "\n")
        self.wait(lambda: "/login" not in self.driver.current_url)

    def open(self, path: str, ui: str | None = None) -> None:
        self.ui = ui or self.ui
        self.driver.get(f"{self.home}{PATHS[self.ui]}{path}")

    @property
    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def see(self, *texts: str) -> None:
        """Wait until the page shows all of the texts."""
        self.wait(lambda: all(text in self.text for text in texts), lambda: f"{texts} in {self.text!r}")

    def wait(self, ready: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, PATIENCE_S, 0.2, [StaleElementReferenceException])
        try:
            return wait.until(lambda _: ready())
        except TimeoutException:
            self.shot("failed")
            raise AssertionError(f"did not come: {what()} ({self.shots / 'failed.png'})") from None

    def find(self, xpath: str) -> Any:
        """The last visible element, once there is one."""

        def visible() -> Any:
            return [one for one in self.driver.find_elements("xpath", xpath) if one.is_displayed()][-1:]

        return self.wait(visible, lambda: xpath)[0]

    def click(self, text: str, tag: str = "*") -> None:
        self.find(f"//{tag}[normalize-space(.)='{text}' and not(*[normalize-space(.)='{text}'])]").click()

    def press(self, text: str) -> None:
        """Click a button by its words."""
        self.find(f"//button[normalize-space(.)='{text}']").click()

    def submit(self) -> None:
        """Send the form off; a list that is just closing may lie over the button, and swallow a pointer's click."""
        self.driver.execute_script("arguments[0].click()", self.find("//button[normalize-space(.)='Submit']"))

    def field(self, label: str, tag: str) -> Any:
        """What is filled in below a label."""
        return self.find(f"//*[starts-with(normalize-space(text()), '{label}')]/following::{tag}[1]")

    def fill(self, label: str, value: str, tag: str = "textarea") -> None:
        from selenium.webdriver.common.keys import Keys

        box = self.field(label, tag)
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(value)

    def toggle(self, label: str) -> None:
        """Switch what stands below a label on, or off."""
        self.field(label, "*[@role='switch']").click()

    def choose(self, label: str, option: str) -> None:
        """Choose from the list below a label."""
        if self.ui == "v1":
            from selenium.webdriver.support.ui import Select

            Select(self.field(label, "select")).select_by_visible_text(option)
        else:
            self.field(label, "button[@role='combobox' or @aria-haspopup='listbox']").click()
            self.find(f"//*[@role='option' and normalize-space(.)='{option}']").click()
            self.wait(lambda: not self.driver.find_elements("xpath", "//*[@role='option']"))

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))

    def elsewhere(self) -> list[str]:
        """Addresses beyond the server that were asked for and not stopped by the page's own policy."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        stopped = {
            message["params"]["requestId"]
            for message in messages
            if message["method"] == "Network.loadingFailed" and message["params"].get("blockedReason") == "csp"
        }
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["requestId"] not in stopped
            and urlsplit(message["params"]["request"]["url"]).scheme in ("http", "https", "ws", "wss")
            and not message["params"]["request"]["url"].startswith(self.home + "/")
        ]


@contextmanager
def chromium(binary: str, driver: str, home: str, shots: Path) -> Iterator[Browser]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={shots / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    options.page_load_strategy = "eager"  # pages that keep a connection open are never done loading
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome, home, shots)
    finally:
        chrome.quit()
