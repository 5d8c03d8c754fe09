"""A client that clicks and reads all the while, lightly, and keeps the ledger.

Every kind of request is in it, so that no panel is without figures; one thread, about two
hundred requests a second. `answered` counts the clicks that were answered 200 or 302, by banner;
`open_ended` those whose connection broke first: they may count or not.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections import Counter
from types import TracebackType
from typing import Final

PAUSE_S: Final = 0.004
TIMEOUT_S: Final = 5.0
BANNERS: Final = range(10, 40)
TARGET: Final = 7
"""A banner with a target, for GET /click/7."""

_JSON: Final = {"Content-Type": "application/json"}


class Traffic:
    """Clicks from `with` on until its end. `statistics` False: clicks alone."""

    def __init__(self, port: int, stats_port: int, statistics: bool = True) -> None:
        self.answered: Counter[int] = Counter()
        self.open_ended: Counter[int] = Counter()
        self._ports = {"ingest": port, "stats": stats_port}
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._statistics = statistics
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def clicks(self) -> int:
        """All answered clicks."""
        return sum(self.answered.values())

    @property
    def doubtful(self) -> int:
        """All clicks on connections that broke."""
        return sum(self.open_ended.values())

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
        status = self._ask("ingest", method, path, body)
        if status in (200, 302):
            self.answered.update(counts)
        elif status == 0:
            self.open_ended.update(counts)

    def _ask(self, where: str, method: str, path: str, body: str = "") -> int:
        """The status; 0 where the connection broke, -1 where none could be made."""
        connection = self._connections.get(where)
        if connection is None:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._ports[where], timeout=TIMEOUT_S
            )
            try:
                connection.connect()
            except OSError:
                return -1
            self._connections[where] = connection
        try:
            connection.request(method, path, body or None, _JSON if body else {})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            del self._connections[where]
            return 0
        return answer.status
