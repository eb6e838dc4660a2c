"""The demo's page in a real browser, with the model that ships: words and pictures both ways, two users at once."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gill.flatland import caption, distinct_scenes, draw
from tests.demo.browser import Browser, Driver, free_port, running_driver, wait_for, why_no_browser, window

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())

ROOT = Path(__file__).resolve().parents[2]
BOX, SEND, UPLOAD = "#box textarea", "#box .submit-button", "#box input[type=file]"
ASKED, ANSWERED = "#chat .user-row", "#chat .bot-row"
STORED, NEW = distinct_scenes("test", 2, 0)  # the first pictures of the index that ships


class User:
    """Somebody before an open page."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        browser.open(url)
        wait_for("the page", lambda: browser.has(BOX))

    def say(self, text: str = "", picture: Path | None = None) -> None:
        before = self.count(ASKED)
        if picture is not None:
            self.browser.type(UPLOAD, str(picture))
            wait_for("the upload", lambda: self.count("#box img"))
        if text:
            self.browser.type(BOX, text)
        wait_for("the message", lambda: self._is_said(before))

    def _is_said(self, before: int) -> bool:
        """Whether one more message stands there; while a reply grows, the page takes none, so it is sent again."""
        if self.count(ASKED) == before + 1:
            return True
        self.browser.click(SEND)
        return False

    def press(self, name: str) -> None:
        self.browser.click(f"button#{name}, #{name} button")

    def choose(self, kind: str) -> None:
        labels = "[...document.querySelectorAll('#kind label')]"
        script = f"{labels}.find(e => e.innerText.trim() == arguments[0]).click()"
        self.browser.run(script, kind)
        wait_for(kind, lambda: self.browser.run("return document.querySelector('#kind input:checked').value") == kind)

    def count(self, css: str) -> int:
        return int(self.browser.run("return document.querySelectorAll(arguments[0]).length", css))

    def sees(self, css: str) -> bool:
        """Whether any such element is shown."""
        return bool(self.browser.run(f"return [...document.querySelectorAll({css!r})].some(e => e.offsetParent)"))

    def read(self) -> str:
        """All that the page shows of the conversation."""
        return self.browser.text("#chat")

    def wait_for_reply(self, *words: str) -> None:
        wait_for(f"a reply with {words}", lambda: all(word in self.read() for word in words))


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The address of the running demo."""
    port = free_port()
    command = [sys.executable, "demo/app_gradio.py", "--port", str(port), "--messages-per-minute", "100"]
    url, environment = f"http://127.0.0.1:{port}/", {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def answers() -> bool:
        assert process.poll() is None, "the demo ended"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for("the demo", answers)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with running_driver() as running:
        yield running


def test_words_and_pictures_go_both_ways(page: str, driver: Driver, tmp_path: Path) -> None:
    """A description of an uploaded picture; a stored and a new picture for a caption; undo; reset."""
    picture = tmp_path / "picture.png"
    draw(NEW).resize((256, 256)).save(picture)
    with window(driver) as browser:
        user = User(browser, page)
        user.say(picture=picture)
        user.wait_for_reply(NEW.place)

        user.choose("both")  # for a caption that follows a description
        user.say(caption(STORED))
        browser.type(BOX, "written meanwhile")
        user.wait_for_reply("retrieved, score", "00000.png", "generated, seed 0")
        wait_for("both pictures", lambda: user.count(f"{ANSWERED} img") >= 2)
        assert browser.run("return document.querySelector(arguments[0]).value", BOX) == "written meanwhile"
        browser.clear(BOX)
        assert user.count("#chat [aria-label=Share]") and not user.sees("#chat [aria-label=Share]")
        browser.screenshot(tmp_path / "both.png")

        user.say("a small red ball at the top left of the sea.")
        user.wait_for_reply("small red ball at the top left of the sea")
        user.press("undo")
        wait_for("two questions", lambda: user.count(ASKED) == 2)
        assert "small red ball" not in user.read()
        assert "00000.png" in user.read()

        user.press("reset")
        wait_for("an empty page", lambda: not user.count(ASKED) and not user.count(ANSWERED))
        user.choose("generated")
        user.say(caption(STORED))
        user.wait_for_reply("generated, seed 0")
        assert "retrieved" not in user.read()


def test_two_users_do_not_see_each_other(page: str, driver: Driver) -> None:
    first_words, second_words = (
        "a big green cross at the top left of the snow.",
        "a small black moon at the top right of the room.",
    )
    with window(driver) as one, window(driver) as other:
        first, second = User(one, page), User(other, page)
        first.choose("retrieved")
        second.choose("retrieved")
        first.say(first_words)
        second.say(second_words)
        first.wait_for_reply(first_words, "retrieved, score")
        second.wait_for_reply(second_words, "retrieved, score")
        assert second_words not in first.read()
        assert first_words not in second.read()
        first.press("reset")
        wait_for("an empty page", lambda: not first.count(ASKED))
        assert second_words in second.read()
