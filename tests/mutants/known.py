"""Changes that once passed every test. For each there is a test now that must fail with it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Known(NamedTuple):
    """In `file`, `old` becomes `new`; `test` is a file of tests and one in it."""

    name: str
    file: str
    old: str
    new: str
    test: str


KNOWN: Final = (
    Known(
        "a minute of 120 seconds in the fast path of a click",
        "_fastcount.pyx",
        "* SECONDS_PER_MINUTE) >= SECONDS_PER_MINUTE:",
        "* SECONDS_PER_MINUTE) >= 120:",
        "test_fastcount_edges.py::test_a_click_counts_in_the_clocks_own_minute",
    ),
    Known(
        "the active epoch is stored before its seq and base",
        "_fastcount.pyx",
        "        new.seq = old.seq + ",
        "        self.header.active = into\n"
        "        compiler_barrier()\n"
        "        new.seq = old.seq + ",
        "test_fastcount_edges.py::test_a_death_between_any_two_instructions_costs_nothing",
    ),
    Known(
        "/readyz of ingest without the sealer's trouble",
        "health.py",
        "if self._sealer.trouble:",
        "if False:",
        "test_worker_limits.py::test_a_spool_that_cannot_be_written_makes_the_port_not_ready",
    ),
    Known(
        "/readyz of the aggregator without shards in trouble",
        "readiness.py",
        "if troubles := self._pulling.trouble:",
        "if troubles := dict[int, str]():",
        "test_pull.py::test_readiness_reports_shards_that_cannot_be_pulled",
    ),
    Known(
        "the answer to COMMIT is not looked at",
        "store.py",
        'if done.statusmessage != "COMMIT":',
        "if False:",
        "test_store_parts.py::test_a_commit_answered_by_rollback_is_no_commit",
    ),
    Known(
        "a source whose row is gone is not noticed",
        "store.py",
        "if len(marks) != len(sources):",
        "if False:",
        "test_store_parts.py::test_without_its_row_no_source_is_counted",
    ),
    Known(
        "the halves of a refused batch are not sorted",
        "refused.py",
        "order = sorted(at, key=lambda place: _sort_key(arrivals[place]))",
        "order = list(at)",
        "test_store_parts.py::test_halves_are_in_order_for_any_order_of_the_frames",
    ),
    Known(
        "minutes are clamped without regard to retention_days",
        "store.py",
        "min(retention_days or behind_days, behind_days)",
        "BEHIND_DAYS",
        "test_store_parts.py::test_nothing_is_written_before_the_retention_limit",
    ),
    Known(
        "a connection to NATS gives up after 60 attempts",
        "bus.py",
        "max_reconnect_attempts=-1",
        "max_reconnect_attempts=60",
        "test_connection.py::test_it_survives_an_outage_longer_than_the_librarys_attempts",
    ),
)
