"""Drives a headless Chromium over its debugging pipe (the DevTools protocol), with real mouse and keyboard events."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-default-browser-check",
    "--no-first-run",
    "--remote-debugging-pipe",
)
TIMEOUT_S = 20.0  # for one answer
KEYS = {  # by DOM name: the Windows key code that the protocol requires, and the text that the key types
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    " ": (32, " "),
}


def find_browser() -> str:
    """Returns the path of Chromium; without one, fails in CI and skips the test elsewhere."""
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser:
        return browser
    message = "Chromium is required to test the report. On Debian: sudo apt-get install chromium."
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """Opens a blank page in a new browser, which is closed at the end; `profile` is an empty folder."""
    commands, answers = _pipe(), _pipe()
    arguments = [find_browser(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    redirects = [(os.POSIX_SPAWN_DUP2, commands[0], 3), (os.POSIX_SPAWN_DUP2, answers[1], 4)]
    discards = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)]
    process = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=[*redirects, *discards], setsid=True)
    for end in (commands[0], answers[1]):
        os.close(end)
    try:
        yield Page(commands[1], answers[0])
    finally:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        for end in (commands[1], answers[0]):
            os.close(end)


def _pipe() -> tuple[int, int]:
    """Creates a pipe whose descriptors are above 3 and 4, which the browser uses."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


class Page:
    """A tab; `events` are all events of the protocol, oldest first."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._buffer, self._count = commands, answers, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Sends a command of the protocol and returns the answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def open(self, file: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.call("Page.navigate", url=file.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def visit(self, url: str) -> None:
        """Opens a page of a server and waits until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def type_text(self, text: str) -> None:
        """Types a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def run(self, script: str) -> Any:
        """Returns the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer.get('exceptionDetails')}"
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + TIMEOUT_S
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"timeout: {condition}"
            time.sleep(0.02)

    def size(self, width: int, height: int, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def set_color_scheme(self, scheme: str) -> None:
        """Sets the preferred color scheme of the system, `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def center(self, selector: str) -> tuple[float, float]:
        """Scrolls to the first matching element and returns its center."""
        script = f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.run(script)
        return x, y

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, selector: str) -> None:
        x, y = self.center(selector)
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mousePressed", *start, button="left", clickCount=1)
        self.mouse("mouseMoved", *end, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)

    def press_key(self, key: str) -> None:
        """Presses a key, given by its DOM name, such as `Escape` or `s`."""
        code, text = KEYS.get(key, (ord(key[0].upper()), key))
        for kind in ("keyDown", "keyUp"):
            typing = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typing)

    def select(self, selector: str, value: str) -> None:
        """Selects a value of a drop-down list, as a user does."""
        self.run(
            f"(() => {{ const list = document.querySelector({json.dumps(selector)});"
            f"list.value = {json.dumps(value)};"
            "list.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def screenshot(self) -> bytes:
        """Returns a screenshot as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def console_messages(self) -> list[str]:
        """Returns errors and warnings of the console, and uncaught exceptions."""
        methods = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"])[:500] for event in self.events if event["method"] in methods]

    def requested_urls(self) -> list[str]:
        """Returns the URLs that the page requested, without data URLs."""
        requests = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [request["request"]["url"] for request in requests]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self._answers, 2**20)
            assert chunk, "the browser has exited"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer
