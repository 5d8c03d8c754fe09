"""Following single clicks until the statistics show them.

Each probe has a banner of its own, from `first_banner` on, so that its one click cannot be taken
for another's. All that are not yet seen are asked for in one request, every few milliseconds.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from urllib.parse import urlencode

from bench.load.statistics import iso

PROBES_A_SECOND = 10.0
POLL_SECONDS = 0.02
TIMEOUT = 10.0


class Prober:
    """Sends a click at random moments and watches for it. Not for several threads."""

    def __init__(self, port: int, stats_port: int, first_banner: int) -> None:
        self._clicks = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        self._stats = http.client.HTTPConnection("127.0.0.1", stats_port, timeout=TIMEOUT)
        self._start = self._next_probe = time.monotonic()
        self._from = iso(time.time())
        self._banner = first_banner
        self._answered: dict[int, float] = {}
        self.seen: list[float] = []
        """Seconds from the answer to the first statistics that showed the click."""

    @property
    def waiting(self) -> int:
        """Probes that the statistics do not show yet."""
        return len(self._answered)

    def step(self) -> float:
        """Send a probe if one is due, look once, and return the seconds since the start."""
        if time.monotonic() >= self._next_probe:
            self._send()
            self._next_probe = time.monotonic() + random.expovariate(PROBES_A_SECOND)
        self.poll()
        time.sleep(POLL_SECONDS)
        return time.monotonic() - self._start

    def _send(self) -> None:
        self._clicks.request("POST", f"/counter/{self._banner}")
        answer = self._clicks.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"a probe was answered {answer.status}")
        self._answered[self._banner] = time.monotonic()
        self._banner += 1

    def poll(self) -> int:
        """Look for all probes that are not seen yet; returns how many remain."""
        if not self._answered:
            return 0
        pairs = [("bannerID", str(banner)) for banner in self._answered]
        query = urlencode([*pairs, ("tsFrom", self._from), ("tsTo", iso(time.time() + 60))])
        self._stats.request("GET", f"/stats?{query}")
        answer = self._stats.getresponse()
        body = json.loads(answer.read())
        now = time.monotonic()
        for banner in body["banners"]:
            if banner["Counts"]:
                self.seen.append(now - self._answered.pop(banner["bannerID"]))
        return self.waiting

    def quantiles(self) -> dict[str, float]:
        """p50, p99 and the longest, in seconds."""
        ordered = sorted(self.seen)
        last = len(ordered) - 1
        picks = {f"p{q}": ordered[min(last, int(len(ordered) * q / 100))] for q in (50, 99)}
        return {**picks, "max": ordered[last]}
