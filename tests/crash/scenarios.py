"""Every fault of docs/guarantees.md, with how much of it is short and how much is long.

The numbers are times or seconds, as each scenario's own argument says.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.crash import (
    of_aggregators,
    of_all,
    of_batches,
    of_machines,
    of_one_disk,
    of_servers,
    of_workers,
)  # fmt: skip
from tests.crash.stage import Stage, can_mount, small_disk
from tests.support.fix_postgres import PostgresServer


class Scenario(NamedTuple):
    """One row. `short` 0: in `make soak` alone. `needs`: mount, faketime, postgres (its own)."""

    fault: str
    play: Callable[[Stage, int], None]
    short: int
    long: int
    needs: frozenset[str] = frozenset()
    proves: str = "exact"
    """The word for a success: some faults do destroy clicks, within bounds, and never double."""

    @property
    def name(self) -> str:
        return self.play.__name__


def _needs(*things: str) -> frozenset[str]:
    return frozenset(things)


OWN = _needs("postgres")

SCENARIOS = (
    Scenario("worker killed at every failpoint, N times each",
             of_workers.killed_at_each_failpoint, 1, 50),
    Scenario("random workers killed for N seconds under load",
             of_workers.random_workers_killed, 5, 600),
    Scenario("the same worker killed twice, N times",
             of_workers.the_same_worker_killed_twice, 1, 10),
    Scenario("parent killed and started again, N times", of_workers.parent_killed, 1, 10),
    Scenario("reload (HUP), N times under load", of_workers.reloaded, 2, 20),
    Scenario("adopter killed at every step, N times each",
             of_workers.adopter_killed_at_each_step, 0, 10),
    Scenario("worker stopped (SIGSTOP), N times", of_workers.worker_stopped, 1, 5),
    Scenario("batches with a key sent again: workers of two nodes and aggregators killed around "
             "the answer and the commit, N times each", of_batches.batches_are_sent_again, 1, 10),
    Scenario("batches with a key sent again: workers, adopters and aggregators killed at every "
             "step, N times each", of_batches.batches_killed_at_each_step, 0, 20),
    Scenario("aggregator killed around COMMIT at five steps, N times each",
             of_aggregators.killed_around_commit, 1, 200),
    Scenario("aggregator killed at each step of a rollup, N times each",
             of_aggregators.killed_while_rolling_up, 0, 20),
    Scenario("connection cut at COMMIT, before and after, for N seconds",
             of_aggregators.connection_cut_at_commit, 4, 60),
    Scenario("two and three aggregators, each killed in turn, N times",
             of_aggregators.several_killed_in_turn, 0, 10),
    Scenario("NATS killed every 3 s, N times", of_servers.nats_killed, 2, 60),
    Scenario("stream deleted, consumers deleted, stream purged: N in all",
             of_servers.stream_deleted, 3, 30),
    Scenario("NATS store restored from an older copy, N times", of_servers.store_restored, 1, 10),
    Scenario("NATS disk full for N seconds, then freed",
             of_servers.nats_disk_full, 0, 30, _needs("mount")),
    Scenario("Postgres: backends terminated, fast, immediate stop, killed: N in all",
             of_servers.postgres_restarted, 4, 40, OWN),
    Scenario("Postgres disk full for N seconds, then freed",
             of_servers.postgres_disk_full, 0, 20, _needs("mount", "postgres")),
    Scenario("Postgres put back to a copy of N seconds ago, twice",
             of_servers.postgres_put_back, 2, 30, OWN),
    Scenario("NATS and Postgres both away for N seconds", of_servers.both_away, 4, 1200, OWN),
    Scenario("spool disk full for N seconds, then freed",
             of_machines.spool_disk_full, 3, 60, _needs("mount")),
    Scenario("one disk for all of `up` full for N seconds: Postgres ends, worker killed, HUP",
             of_one_disk.one_disk_full, 0, 60, _needs("mount")),
    Scenario("spool write and sync errors, N workers", of_machines.spool_errors, 2, 20),
    Scenario("a slow disk (0.4 s an append) at N minute edges",
             of_machines.slow_disk_at_minute_edges, 0, 5),
    Scenario("N frames damaged in the only spool that has them",
             of_machines.spool_damaged, 1, 4, proves="reported"),
    Scenario("clock by an hour, to 1970 and to 2099, N rounds",
             of_machines.clock_jumps, 1, 10, _needs("faketime")),
    Scenario("power cut, N times", of_machines.power_cut, 2, 20, proves="within bounds"),
    Scenario("two faults at once, drawn by the seed from all of them, for N seconds",
             of_all.everything_at_once, 0, 600, OWN),
)  # fmt: skip


class Outcome(NamedTuple):
    """What one scenario came to."""

    scenario: Scenario
    times: int
    seconds: float
    notes: str


def missing(scenario: Scenario) -> str:
    """Why it can't be played on this machine; empty where it can."""
    if "mount" in scenario.needs and not can_mount():
        return "a tmpfs can't be mounted here: run it as root"
    if "faketime" in scenario.needs and of_machines.FAKETIME is None:
        return "libfaketime is not here: apt-get install faketime"
    return ""


def play(scenario: Scenario, times: int, home: Path, seed: int, shared: PostgresServer) -> Outcome:
    """Play one. Raises AssertionError at the first lost or doubled click."""
    print(f"{scenario.name}: SEED={seed}, {times}", flush=True)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        postgres = shared
        if "postgres" in scenario.needs:
            postgres = stack.enter_context(_own_postgres(home, "mount" in scenario.needs))
        stage = stack.enter_context(Stage(home, seed, postgres))
        scenario.play(stage, times)
    return Outcome(scenario, times, time.monotonic() - began, "; ".join(stage.notes))


@contextlib.contextmanager
def _own_postgres(home: Path, on_small_disk: bool) -> Iterator[PostgresServer]:
    """A server that may be stopped and filled, with everything synced as in earnest."""
    where = home / "postgres"
    where.mkdir()
    with contextlib.ExitStack() as stack:
        if on_small_disk:
            stack.enter_context(small_disk(where, of_servers.POSTGRES_DISK))
        server = PostgresServer(where, durable=True)
        server.start()
        try:
            yield server
        finally:
            server.stop()
