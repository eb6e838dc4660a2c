"""A headless Chromium of this machine, driven over the W3C WebDriver protocol; the few commands the tests need."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for an element's id
_PATIENCE_SECONDS = 90.0  # of a busy machine
_ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,1100"]

T = TypeVar("T")


def why_no_browser() -> str:
    """Empty where Chromium and its driver are installed, else what is missing."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (Debian: chromium, chromium-driver)" if missing else ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], T | None], seconds: float = _PATIENCE_SECONDS) -> T:
    """What `look` finds, once it is neither None nor False nor empty."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.2)
    return found


class Driver:
    """A running chromedriver."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The value of the answer.

        Raises:
            RuntimeError: the driver refused; says why.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def is_ready(self) -> bool:
        try:
            return bool(self.call("GET", "/status")["ready"])
        except (OSError, RuntimeError):
            return False


class Browser:
    """One window with cookies of its own."""

    def __init__(self, driver: Driver) -> None:
        options = {"binary": shutil.which("chromium"), "args": _ARGUMENTS}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.driver = driver
        self.session = "/session/" + driver.call("POST", "/session", wanted)["sessionId"]

    def close(self) -> None:
        self.driver.call("DELETE", self.session)

    def open(self, url: str) -> None:
        self._post("/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def has(self, css: str) -> bool:
        return bool(self._post("/elements", {"using": "css selector", "value": css}))

    def text(self, css: str) -> str:
        """The visible text of the first such element, empty without one."""
        return str(self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", css))

    def click(self, css: str) -> None:
        self._post(f"/element/{self._find(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        """Keys, or paths for an upload."""
        self._post(f"/element/{self._find(css)}/value", {"text": text})

    def clear(self, css: str) -> None:
        self._post(f"/element/{self._find(css)}/clear", {})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.driver.call("GET", self.session + "/screenshot")))

    def _find(self, css: str) -> str:
        wait_for(css, lambda: self.has(css))
        return str(self._post("/element", {"using": "css selector", "value": css})[_ELEMENT])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self.driver.call("POST", self.session + path, body)


@contextmanager
def running_driver() -> Iterator[Driver]:
    port = free_port()
    process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        driver = Driver(f"http://127.0.0.1:{port}")
        wait_for("chromedriver", driver.is_ready)
        yield driver
    finally:
        process.terminate()
        process.wait()


@contextmanager
def window(driver: Driver) -> Iterator[Browser]:
    browser = Browser(driver)
    try:
        yield browser
    finally:
        browser.close()
