"""One fault of the machine under a whole `clickmill up`: nothing ends, and no click is lost."""

from __future__ import annotations

import os
import resource
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.support.clicker import Clicker
from tests.support.fix_system import System, SystemFactory
from tests.support.processes import alive, family, stopped
from tests.support.wait import eventually

REPLACED_S = 15.0
NO_MORE_FILES = 3
"""Below every descriptor that a running process has beyond its standard ones."""


def serving(system: System) -> int:
    """How many workers have ever said that they serve."""
    return system.output.count("serves on port")


def test_an_unwritable_state_file_stops_nothing(system: SystemFactory) -> None:
    one = system(workers=2)
    before = one.children()
    taken = one.data_dir / "run" / "up.json.new"
    taken.mkdir()  # the draft's name is taken: every write fails, as on a full disk
    with Clicker.at_work(one.url) as clicker:
        os.kill(before["ingest-1"], signal.SIGKILL)
        eventually(lambda: serving(one) == 3, 10, "another worker serves")
        one.signal(signal.SIGHUP)
        eventually(lambda: "2 of 2 workers replaced" in one.output, 30, "the reload is done")
        clicker.goes_on()
        assert "up.json can't be written" in one.output
        taken.rmdir()
        eventually(lambda: one.replaced("ingest-1", before["ingest-1"]), 10, "the file is right")
        assert one.replaced("ingest-2", before["ingest-2"])
    assert clicker.refused == 0
    clicker.check(one)


def test_a_system_that_cannot_start_another_process_continues(system: SystemFactory) -> None:
    one = system(workers=2)
    before = one.children()
    _, most = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    with Clicker.at_work(one.url) as clicker:
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (NO_MORE_FILES, most))
        one.signal(signal.SIGHUP)
        os.kill(before["ingest-2"], signal.SIGKILL)
        eventually(lambda: one.output.count("can't be started") >= 2, 10, "both said so")
        clicker.goes_on(100)
        assert one.process.poll() is None
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (most, most))
        eventually(lambda: "2 of 2 workers replaced" in one.output, 30, "the reload is done")
        eventually(lambda: one.replaced("ingest-2", before["ingest-2"]), 10, "it is replaced")
    assert clicker.refused == 0
    clicker.check(one)


@pytest.mark.parametrize("whole_family", [False, True], ids=["postmaster", "all-of-postgres"])
def test_embedded_servers_that_hang_are_replaced(system: SystemFactory, whole_family: bool) -> None:
    one = system()
    before = one.children()
    hanging = family(before["postgres"]) if whole_family else [before["postgres"]]
    with Clicker.at_work(one.url) as clicker, stopped(before["nats"], *hanging):
        for name in ("nats", "postgres"):
            eventually(partial(one.replaced, name, before[name]), REPLACED_S, f"{name} is replaced")
        eventually(lambda: one.ready_status(stats=True) == 200, 20, "the aggregator is ready")
    assert (clicker.refused, clicker.broken) == (0, 0)
    clicker.check(one)
    assert not [pid for pid in hanging if alive(pid)]


def test_a_killed_postmaster_restarts_despite_a_hanging_backend(system: SystemFactory) -> None:
    one = system()
    pid = one.children()["postgres"]
    backend = next(child for child in family(pid) if b"clickmill_owner" in cmdline(child))
    with Clicker.at_work(one.url) as clicker, stopped(backend):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: one.replaced("postgres", pid), REPLACED_S, "it is back")
        eventually(lambda: one.ready_status(stats=True) == 200, 20, "the aggregator is ready")
    clicker.check(one)
    assert not alive(backend)


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
