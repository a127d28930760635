"""A real Chromium without a window, driven over a pipe by its own protocol: no port, no other library.

Nothing is fetched: pages are files, and what a page asks the network for is a test's to refuse.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import LONG

_ON_3_AND_4 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_QUIET = (
    "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip


def _install() -> str:
    found = shutil.which("chromium")
    if found:
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *arguments], check=True, capture_output=True, env=environment, timeout=600)
        if found := shutil.which("chromium"):
            return found
    pytest.fail("chromium is not installed, and only root on a system with apt-get can change that: install chromium")


class Browser:
    """One process; each page is a tab of its own."""

    def __init__(self) -> None:
        self._home = tempfile.mkdtemp()
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        for end in (to_it, from_it):
            os.set_inheritable(end, True)
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        words = [_install(), *_QUIET, *root, f"--user-data-dir={self._home}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_3_AND_4, str(to_it), str(from_it), *words],
            pass_fds=(to_it, from_it),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._home},
        )
        os.close(to_it)
        os.close(from_it)
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """The result of a command; events that come before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        number = self._number
        while True:
            told = self._next()
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]
            self.events.append(told)

    def wait(self, method: str, session: str) -> None:
        """Until such an event has come since the last `clear`."""
        while not any(each.get("method") == method and each.get("sessionId") == session for each in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + LONG
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(until - time.monotonic(), 0))
            assert ready, "chromium does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "chromium has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def close(self) -> None:
        os.close(self._out)
        self._process.terminate()
        self._process.wait(timeout=LONG)
        os.close(self._in)
        shutil.rmtree(self._home, ignore_errors=True)


class Tab:
    """A page that was opened.  asked: addresses it asked for, itself first.  said: what the console has of it."""

    def __init__(self, browser: Browser, path: Path, *, scripts: bool, dark: bool, width: int, height: int) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        browser.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        browser.wait("Page.loadEventFired", self._session)

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def value(self, script: str) -> Any:
        """What an expression comes to on the page; a promise is waited for."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def key(self, name: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13}[name]
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def tree(self) -> list[dict[str, Any]]:
        """What a screen reader is told."""
        return list(self.call("Accessibility.getFullAXTree")["nodes"])

    def picture(self, path: Path) -> None:
        """Of the whole page, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    @property
    def asked(self) -> list[str]:
        self.value("1")  # what was on its way is here now
        return [each["params"]["request"]["url"] for each in self._mine("Network.requestWillBeSent")]

    @property
    def said(self) -> list[dict[str, Any]]:
        self.value("1")
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [each["params"] for kind in kinds for each in self._mine(kind)]

    def _mine(self, method: str) -> list[dict[str, Any]]:
        events = self._browser.events
        return [each for each in events if each.get("method") == method and each.get("sessionId") == self._session]


class Opener:
    """Opens pages in one browser, which is started for the first."""

    def __init__(self) -> None:
        self._browser: Browser | None = None

    def __call__(
        self, path: Path, *, scripts: bool = True, dark: bool = False, width: int = 1280, height: int = 900
    ) -> Tab:
        if self._browser is None:
            self._browser = Browser()
        return Tab(self._browser, path, scripts=scripts, dark=dark, width=width, height=height)

    def close(self) -> None:
        if self._browser is not None:
            self._browser.close()


@pytest.fixture(scope="session")
def browse() -> Iterator[Opener]:
    """Opens a file as a page."""
    opener = Opener()
    yield opener
    opener.close()
