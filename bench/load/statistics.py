"""Reading the statistics over HTTP, and what they gained during a run.

Plain blocking HTTP from the standard library: it works in a thread beside asyncio and under
gevent alike.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench.load.ledger import Counts

READ_TIMEOUT = 10.0
POLL_SECONDS = 0.1
COMPLETE_SECONDS = 60.0
"""Longest wait for `completeThrough` to pass the end of a run."""
RETRIES = 50
"""A statistics answer of 503 (aggregator busy or away) is asked for again, so many times."""


class StatisticsError(Exception):
    """The statistics could not be read, or never became complete: the sentence says which."""


def iso(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def from_iso(text: str) -> float:
    """Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


class StatsClient:
    """One keep-alive connection that asks either port for `/stats/{id}`."""

    def __init__(self, base_url: str, token: str = "") -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname:
            raise StatisticsError(
                f"{base_url!r} is not an http:// address: give one like http://127.0.0.1:8080"
            )
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=READ_TIMEOUT
        )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> StatsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        """Fetch JSON; a 503 or a closed connection is tried again, anything else is an error."""
        for _ in range(RETRIES):
            try:
                self._connection.request("GET", path, headers=self._headers)
                answer = self._connection.getresponse()
                body = answer.read()
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                last = f"{type(error).__name__}: {error}"
            else:
                if answer.status == http.client.OK:
                    return json.loads(body)
                last = f"{answer.status} {body[:200].decode(errors='replace')}"
                if answer.status != http.client.SERVICE_UNAVAILABLE:
                    break
            time.sleep(POLL_SECONDS)
        raise StatisticsError(f"GET {path} did not work: {last}")

    def wait_complete(self, moment: float, timeout: float = COMPLETE_SECONDS) -> None:
        """Wait until every click answered before `moment` (Unix seconds) is in the statistics."""
        deadline = time.monotonic() + timeout
        seen = "nothing"
        while time.monotonic() < deadline:
            seen = str(self.get("/stats/0").get("completeThrough"))
            if seen not in ("None", "") and from_iso(seen) > moment:
                return
            time.sleep(POLL_SECONDS)
        raise StatisticsError(
            f"the statistics are complete through {seen} and did not pass {iso(moment)} "
            f"in {timeout:.0f} s: look whether aggregator, NATS and Postgres run"
        )

    def counts(self, banners: Iterable[int], start: float, end: float) -> Counts:
        """Clicks of these banners in the minutes of [start, end), Unix seconds."""
        query = urlencode({"tsFrom": iso(start), "tsTo": iso(end)})
        found: Counts = Counter()
        for banner in banners:
            for point in self.get(f"/stats/{banner}?{query}")["stats"]:
                found[banner, int(from_iso(point["ts"]) // 60)] = point["v"]
        return found


class Gain:
    """What the statistics gain from now on, so that clicks of an earlier run do no harm."""

    def __init__(self, url: str, banners: Iterable[int], token: str = "") -> None:
        """Reads them as they are now. Raises StatisticsError."""
        self._url, self._banners, self._token = url, list(banners), token
        self._start = time.time() // 60 * 60
        self._before = self._read()

    def read(self) -> Counts:
        """Waits until all that was answered is in the statistics; a fall is a negative count."""
        gained = self._read()
        gained.subtract(self._before)
        return gained

    def _read(self) -> Counts:
        with StatsClient(self._url, self._token) as stats:
            stats.wait_complete(time.time())
            return stats.counts(self._banners, self._start, time.time() + 60)
