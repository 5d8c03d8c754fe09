"""A client that clicks and reads all the while, lightly, and keeps the ledger.

Every kind of request is in it, so that no panel is without data; one thread, about two hundred
requests a second.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from types import TracebackType
from typing import Final

from bench.load.ledger import Ledger

PAUSE_S: Final = 0.004
TIMEOUT_S: Final = 5.0
BANNERS: Final = range(10, 40)
TARGET: Final = 7
"""A banner with a target, for GET /click/7."""

_JSON: Final = {"Content-Type": "application/json"}


class Traffic:
    """Clicks from `with` on until its end. `statistics` False: clicks alone."""

    def __init__(self, port: int, stats_port: int, statistics: bool = True) -> None:
        self.ledger = Ledger()
        self._connections = {
            name: http.client.HTTPConnection("127.0.0.1", number, timeout=TIMEOUT_S)
            for name, number in (("ingest", port), ("stats", stats_port))
        }
        self._statistics = statistics
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No further request; the one under way is waited for."""
        self._end.set()
        self._thread.join(2 * TIMEOUT_S)
        assert not self._thread.is_alive()
        for connection in self._connections.values():
            connection.close()

    def _run(self) -> None:
        for n in itertools.count():
            if self._end.wait(PAUSE_S):
                return
            banner = BANNERS[n % len(BANNERS)]
            self._click("POST", f"/counter/{banner}", {banner: 1})
            if n % 10 == 0:
                self._sundries(n // 10, banner)

    def _sundries(self, n: int, banner: int) -> None:
        kind = n % 5
        if kind == 0:
            items = [{"bannerID": banner, "count": 3}, {"bannerID": banner + 1}]
            self._click("POST", "/clicks", {banner: 3, banner + 1: 1}, json.dumps(items))
        elif kind == 1:
            self._click("GET", f"/pixel/{banner}.gif", {banner: 1})
        elif kind == 2:
            self._click("GET", f"/click/{TARGET}", {TARGET: 1})
        elif self._statistics and kind == 3:
            self._ask("stats", "GET", f"/stats/{banner}")
            self._ask("stats", "GET", "/top")
        elif self._statistics:
            self._ask("ingest", "GET", f"/stats/{banner}?step=1m")
            self._ask("ingest", "GET", "/counter/unknown")

    def _click(self, method: str, path: str, counts: dict[int, int], body: str = "") -> None:
        connection = self._connected("ingest")
        if connection is None:
            return
        request = self.ledger.send(counts)
        status = self._exchange(connection, method, path, body)
        if status in (200, 302):
            self.ledger.answer(request)
        elif status:
            self.ledger.refuse(request, status)
        else:
            self.ledger.lose(request)

    def _ask(self, where: str, method: str, path: str) -> None:
        connection = self._connected(where)
        if connection is not None:
            self._exchange(connection, method, path)

    def _connected(self, where: str) -> http.client.HTTPConnection | None:
        """A connection to this port; None where none can be made now."""
        connection = self._connections[where]
        if connection.sock is None:
            try:
                connection.connect()
            except OSError:
                return None
        return connection

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str = ""
    ) -> int:
        """The status of the answer; 0 where the connection broke first."""
        try:
            connection.request(method, path, body or None, _JSON if body else {})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0
        return answer.status
