"""How late statistics are, as a reader of one aggregator sees it: a probe beside the load."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.request
from datetime import datetime
from http.client import HTTPResponse
from typing import Final

from tests.cluster.network import Machine
from tests.support.wait import eventually

EVERY_S: Final = 0.1
STOP_S: Final = 10.0
IN_TIME_S: Final = 2.0


def authorized(url: str, token: str) -> HTTPResponse:
    """The answer to a request with this token. Raises OSError."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    answer = urllib.request.urlopen(request, timeout=2)
    assert isinstance(answer, HTTPResponse)
    return answer


class Lag:
    """Asks for `completeThrough` ten times a second, from `start` to `stop`.

    While there is no answer, the last one ages.
    """

    def __init__(self, machine: Machine, port: int, token: str) -> None:
        self._machine, self._url = machine, f"http://127.0.0.1:{port}/stats/1"
        self._token = token
        self._through = time.time()
        self._stopping = threading.Event()
        self.worst = 0.0
        """Seconds that it was behind the clock at most."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Lag:
        with self._machine.inside():
            self._thread.start()
        return self

    def stop(self) -> float:
        """The worst lag."""
        self._stopping.set()
        self._thread.join(STOP_S)
        return self.worst

    @property
    def now(self) -> float:
        """Seconds behind the clock at this moment."""
        return time.time() - self._through

    def wait_recovered(self, within: float = 60.0) -> None:
        """Wait until statistics are complete through this moment, and in time again."""
        began = time.time()
        eventually(
            lambda: self._through > began and self.now < IN_TIME_S,
            within,
            "statistics are in time again",
        )

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with authorized(self._url, self._token) as answer:
                    through = json.load(answer)["completeThrough"]
                self._through = datetime.fromisoformat(through).timestamp()
            self.worst = max(self.worst, self.now)
