"""The ledger of a stress run: clicks answered and unanswered, and the statistics before and after.

Apart from the Locust file so that it can be read, and tested, without Locust.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from bench import reconcile


class StressLedger:
    """Counts for given banners; `begin` and `end` return what is wrong, or an empty string."""

    def __init__(self, banners: Iterable[int]) -> None:
        self._banners = list(banners)
        self._answered: Counter[int] = Counter()
        self._open: Counter[int] = Counter()
        self._before: reconcile.Figures = {}
        self._url, self._token, self._start = "", "", 0.0

    @property
    def clicks(self) -> int:
        """Clicks answered 200."""
        return self._answered.total()

    def sent(self, banners: Sequence[int]) -> None:
        """A request that counts a click for each of these is on its way."""
        self._open.update(banners)

    def answered(self, banners: Sequence[int]) -> None:
        """It was answered 200."""
        self._open.subtract(banners)
        self._answered.update(banners)

    def refused(self, banners: Sequence[int]) -> None:
        """It was answered with an error: nothing may be counted."""
        self._open.subtract(banners)

    def begin(self, url: str, token: str) -> str:
        """Read the statistics before the run: earlier runs may have clicked in this minute."""
        self._url, self._token, self._start = url, token, time.time() // 60 * 60
        try:
            with reconcile.StatsClient(url, token) as stats:
                stats.wait_complete(time.time())
                self._before = stats.figures(self._banners, self._start, time.time() + 60)
        except reconcile.ReconcileError as error:
            return str(error)
        return ""

    def end(self) -> str:
        """Wait until the statistics are complete, and compare every banner."""
        try:
            with reconcile.StatsClient(self._url, self._token) as stats:
                stats.wait_complete(time.time())
                after = stats.figures(self._banners, self._start, time.time() + 60)
        except reconcile.ReconcileError as error:
            return str(error)
        counted = reconcile.totals(reconcile.subtract(after, self._before))
        differences = reconcile.compare(self._answered, self._open, counted)
        if not differences:
            return ""
        return f"{len(differences)} banners do not add up:\n{reconcile.describe(differences)}"

    def summary(self) -> str:
        """One sentence on a ledger that is in order."""
        unanswered = self._open.total()
        loose = f", {unanswered:,} never answered" if unanswered else ""
        return (
            f"ledger: the statistics of {len(self._banners)} banners add up to the "
            f"{self.clicks:,} clicks answered 200{loose}"
        )
