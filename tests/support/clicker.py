"""A client that clicks while a test does something to the system, and what it was answered."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tests.support.fix_system import System, status
from tests.support.wait import eventually

BANNER = 17


class Clicker:
    """A client that clicks all the while, each time on a new connection.

    `answered` counts the 200s, `refused` answers with another status. A broken connection is
    neither: that click may or may not be counted.
    """

    def __init__(self, url: str) -> None:
        self.answered = self.refused = self.broken = 0
        self._url = f"{url}/counter/{BANNER}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.wait(0.005):
            got = status(self._url, "POST")
            self.answered += got == 200
            self.broken += got == 0
            self.refused += got not in (0, 200)

    def goes_on(self, clicks: int = 5, timeout: float = 10) -> None:
        """Waits until so many more clicks are answered."""
        wanted = self.answered + clicks
        eventually(lambda: self.answered >= wanted, timeout, "clicks are answered")

    def check(self, system: System) -> None:
        """Every answered click is there, and at most the broken ones besides."""
        eventually(lambda: system.counts(BANNER) >= self.answered, 20, "all answered clicks")
        assert self.answered > 0
        assert self.answered <= system.counts(BANNER) <= self.answered + self.broken

    @classmethod
    @contextlib.contextmanager
    def at_work(cls, url: str) -> Iterator[Clicker]:
        clicker = cls(url)
        clicker._thread.start()
        try:
            clicker.goes_on()
            yield clicker
        finally:
            clicker._end.set()
            clicker._thread.join()
