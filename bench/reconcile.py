"""Reconciling: what clients were answered against what the statistics say, banner by banner.

Used by the replay, the Locust file and the benchmark. A figure is read before the run and after
it, so that clicks of an earlier run in the same minutes do no harm. Plain blocking HTTP from the
standard library: it works in a thread beside asyncio and under gevent alike.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

READ_TIMEOUT = 10.0
POLL_SECONDS = 0.1
SETTLE_SECONDS = 60.0
"""Longest wait for `completeThrough` to pass the end of a run."""
MAX_SHOWN = 20
RETRIES = 50
"""A statistics answer of 503 (aggregator busy or away) is asked for again, so many times."""

Minutes = Counter[int]
Figures = dict[int, Minutes]
"""Clicks of each banner by minute (Unix time // 60)."""


class ReconcileError(Exception):
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
            raise ReconcileError(
                f"{base_url!r} is no http:// address: give one like http://127.0.0.1:8080"
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
        raise ReconcileError(f"GET {path} did not work: {last}")

    def stats(self, banner: int, start: float, end: float) -> Any:
        """The statistics answer of one banner for the minutes of [start, end), Unix seconds."""
        query = urlencode({"tsFrom": iso(start), "tsTo": iso(end)})
        return self.get(f"/stats/{banner}?{query}")

    def wait_complete(self, moment: float, timeout: float = SETTLE_SECONDS) -> None:
        """Wait until every click answered before `moment` (Unix seconds) is in the figures."""
        deadline = time.monotonic() + timeout
        seen = "nothing"
        while time.monotonic() < deadline:
            seen = str(self.get("/stats/0").get("completeThrough"))
            if seen not in ("None", "") and from_iso(seen) > moment:
                return
            time.sleep(POLL_SECONDS)
        raise ReconcileError(
            f"the statistics are complete through {seen} and did not pass {iso(moment)} "
            f"in {timeout:.0f} s: look whether aggregator, NATS and Postgres run"
        )

    def figures(self, banners: Iterable[int], start: float, end: float) -> Figures:
        """The minutes of each banner in [start, end)."""
        found: Figures = {}
        for banner in banners:
            points = self.stats(banner, start, end)["stats"]
            found[banner] = Counter({int(from_iso(p["ts"]) // 60): p["v"] for p in points})
        return found


@dataclass(frozen=True, slots=True)
class Difference:
    """A banner whose statistics do not lie in [answered, answered + in flight]."""

    banner: int
    answered: int
    in_flight: int
    counted: int

    def __str__(self) -> str:
        room = f" to {self.answered + self.in_flight}" if self.in_flight else ""
        return f"banner {self.banner}: answered {self.answered}{room}, statistics {self.counted}"


def totals(figures: Mapping[int, Minutes]) -> Counter[int]:
    """Clicks of each banner over all its minutes."""
    return Counter({banner: sum(minutes.values()) for banner, minutes in figures.items()})


def subtract(after: Figures, before: Figures) -> Figures:
    """What came in between two readings; a fall shows as a negative count."""
    change: Figures = {}
    for banner, minutes in after.items():
        change[banner] = Counter(minutes)
        change[banner].subtract(before.get(banner, Counter()))
    return change


def compare(
    answered: Mapping[int, int], in_flight: Mapping[int, int], counted: Mapping[int, int]
) -> list[Difference]:
    """Banners that do not add up: answered ≤ counted ≤ answered + in flight must hold for each."""
    wrong = []
    for banner in sorted(answered.keys() | in_flight.keys() | counted.keys()):
        low, extra = answered.get(banner, 0), in_flight.get(banner, 0)
        if not low <= counted.get(banner, 0) <= low + extra:
            wrong.append(Difference(banner, low, extra, counted.get(banner, 0)))
    return wrong


def describe(differences: list[Difference]) -> str:
    """The first differences, a line each, and how many more there are."""
    lines = [f"  {difference}" for difference in differences[:MAX_SHOWN]]
    if len(differences) > MAX_SHOWN:
        lines.append(f"  … and {len(differences) - MAX_SHOWN} more")
    return "\n".join(lines)
