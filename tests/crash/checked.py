"""The end of every scenario: the load stops, the system heals, and the ledger is compared."""

from __future__ import annotations

import time
from collections import Counter

import psycopg

from bench.load.ledger import Counts, Sums
from tests.crash.ledger import TimedLedger
from tests.crash.loader import Loader
from tests.support.sql import assert_rollups_equal_minutes, query
from tests.support.wait import eventually

HEAL_S = 60.0
QUIET_S = 1.0
PER_MINUTE = (
    "SELECT banner_id, floor(extract(epoch FROM minute) / 60)::bigint, sum(clicks)::bigint"
    " FROM banner_minute GROUP BY 1, 2"
)


class Checked:
    """A system under load. `str` of it is what a failure prints of its logs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dsn = ""
        self.by_minute = True
        self.notes: list[str] = []
        self.sums = Sums(0, 0, 0)
        self._loader: Loader | None = None

    @property
    def ledger(self) -> TimedLedger:
        assert self._loader is not None
        return self._loader.ledger

    def clicks_come(self, timeout: float = 10.0) -> float:
        """Wait until clicks are answered; the seconds that it took."""
        assert self._loader is not None
        before, began = self._loader.answered, time.monotonic()
        eventually(lambda: self._loader and self._loader.answered > before + 10, timeout, "serving")
        return time.monotonic() - began

    def counts(self) -> Counts:
        """Clicks by (banner, minute), as Postgres has them now."""
        try:
            rows = query(self.dsn, PER_MINUTE)
            return Counter({(b, int(m)): int(n) for b, m, n in rows})
        except psycopg.OperationalError as error:
            raise AssertionError(f"Postgres can't be asked: {error}") from error

    def check(self, *, within: float = HEAL_S, missing: int = 0) -> Sums:
        """Stop the load, wait until everything is in Postgres, and compare with the ledger.

        `missing`: clicks that the fault has destroyed on purpose, and that must be reported.
        """
        assert self._loader is not None
        ledger = self._loader.stop()
        began = time.monotonic()
        if not missing:
            self._wait_healed(ledger, within)
        healed = time.monotonic() - began
        self._settle()
        found = self.counts()
        self.sums = ledger.sums(found)
        self.notes.append(f"{self.sums}; healed in {healed:.1f} s")
        print(f"seed {self.seed}: {self.notes[-1]}")
        assert ledger.clicks > 50, "hardly anything was clicked"
        if not missing:
            wrong = ledger.wrong(found, by_minute=self.by_minute)
            assert not wrong, "\n".join([str(self.sums), *wrong[:20]])
            quarantined = query(self.dsn, "SELECT source, seq, reason, clicks FROM quarantine")
            assert not quarantined, quarantined[:5]
        totals = query(self.dsn, "SELECT coalesce(sum(total - uncounted), 0) FROM source")
        assert int(totals[0][0]) == found.total() + missing, "marks and rows disagree"
        assert_rollups_equal_minutes(self.dsn)
        return self.sums

    def _wait_healed(self, ledger: TimedLedger, within: float) -> None:
        try:
            eventually(lambda: not self._wrong(ledger), within, "every answered click is there")
        except AssertionError as error:
            wrong = [str(ledger.sums(self.counts())), *self._wrong(ledger)[:20]]
            raise AssertionError("\n".join([str(error), *wrong, str(self)])) from None

    def _wrong(self, ledger: TimedLedger) -> list[str]:
        return ledger.wrong(self.counts(), by_minute=self.by_minute)

    def _settle(self) -> None:
        """Until the counts have stood still for a moment: what is doubled comes late."""
        last, since = self.counts(), time.monotonic()
        while time.monotonic() - since < QUIET_S:
            time.sleep(0.1)
            if (now := self.counts()) != last:
                last, since = now, time.monotonic()
