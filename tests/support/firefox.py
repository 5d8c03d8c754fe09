"""Debian's Firefox, driven by Marionette, which is the protocol under its WebDriver.

Why not by Playwright: it drives only a Firefox of its own, and the commands of WebDriver BiDi that
it sends to another one are too new for the ESR.

with Firefox(tmp_path) as tab:
    tab.goto("http://…"); tab.click("#id"); tab.evaluate("document.title")
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.ports import HOST, free_port
from tests.support.wait import eventually

PROGRAM: Final = "firefox-esr"
START_S: Final = 60.0
ANSWER_S: Final = 60.0
STOP_S: Final = 20.0
# No page of the test's, so nothing else that it might ask the network for.
PREFERENCES: Final[dict[str, object]] = {
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
}


class Firefox:
    """A running Firefox with one tab and a profile of its own."""

    def __init__(self, home: Path) -> None:
        if shutil.which(PROGRAM) is None:
            pytest.fail(f"{PROGRAM} is missing: `scripts/os-packages test` gets it")
        port = free_port()
        lines = {**PREFERENCES, "marionette.port": port}.items()
        text = "".join(f'user_pref("{name}", {json.dumps(value)});\n' for name, value in lines)
        (home / "user.js").write_text(text)
        self._last = 0
        self._log = (home / "firefox.log").open("wb")
        self._process = subprocess.Popen(
            [PROGRAM, "--headless", "--marionette", "--no-remote", "--profile", str(home)],
            env={**os.environ, "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._socket = eventually(lambda: self._connect(port), START_S, "Firefox listens")
            self._stream = self._socket.makefile("rb")
            self._read()  # it introduces itself
            self._send("WebDriver:NewSession", {"strictFileInteractability": True})
        except BaseException:
            self._kill()
            raise

    def _connect(self, port: int) -> socket.socket:
        assert self._process.poll() is None, f"Firefox ended: see {self._log.name}"
        return socket.create_connection((HOST, port), timeout=ANSWER_S)

    def _read(self) -> Any:
        digits = b""
        while (byte := self._stream.read(1)) != b":":
            assert byte, f"Firefox is gone: see {self._log.name}"
            digits += byte
        return json.loads(self._stream.read(int(digits)))

    def _send(self, command: str, parameters: Mapping[str, object]) -> Any:
        self._last += 1
        message = json.dumps([0, self._last, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, number, error, value = self._read()
        assert number == self._last
        assert error is None, error
        return value

    def goto(self, url: str) -> None:
        """Opens a page and waits until it has loaded."""
        self._send("WebDriver:Navigate", {"url": url})

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        script = {"script": f"return ({expression})", "args": []}
        return self._send("WebDriver:ExecuteScript", script)["value"]

    def _find(self, selector: str) -> dict[str, object]:
        found = self._send("WebDriver:FindElement", {"using": "css selector", "value": selector})
        return {"id": next(iter(found["value"].values()))}

    def click(self, selector: str) -> None:
        """Clicks on an element, as a mouse does."""
        self._send("WebDriver:ElementClick", self._find(selector))

    def press_enter(self, selector: str) -> None:
        """Enter, with the focus on an element."""
        self._send("WebDriver:ElementSendKeys", {**self._find(selector), "text": "\ue007"})

    def url(self) -> str:
        return str(self._send("WebDriver:GetCurrentURL", {})["value"])

    def close(self) -> None:
        self._send("Marionette:Quit", {"flags": ["eForceQuit"]})
        self._stream.close()
        self._socket.close()
        self._process.wait(STOP_S)
        self._log.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait(STOP_S)
        self._log.close()

    def __enter__(self) -> Firefox:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            if self._process.poll() is None:
                self._kill()
