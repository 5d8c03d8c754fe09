"""Faults of workers and of their supervisor. Each takes the stage and how much of it there is."""

from __future__ import annotations

import functools
import os
import signal
import time

from tests.crash.stage import Stage
from tests.support.fix_system import System
from tests.support.wait import eventually

INGEST_STEPS = (
    "ingest.flip", "ingest.append", "ingest.appended", "ingest.fsync", "ingest.clear",
    "ingest.cleared", "ingest.publish", "ingest.acknowledged", "ingest.trim",
)  # fmt: skip
ADOPT_STEPS = ("adopt.lock", "adopt.seal", "adopt.sealed", "adopt.discard", "adopt.remove")
DIES_WITHIN_S = 25.0
SERVING_AGAIN_S = 5.0
REPLACED_S = 10.0
ORPHANS_S = 2.0


def killed_at_each_failpoint(stage: Stage, times: int) -> None:
    """A healthy worker beside one that kills itself, at each step, so many times each."""
    stage.settings |= {"spool_keep_seconds": 1}  # else the first trim comes late
    stage.aggregator()
    stage.worker()
    stage.load()
    for _ in range(times):
        for step in INGEST_STEPS:
            doomed = stage.worker(f"{step}=kill@{stage.chance.randint(1, 4)}")
            assert doomed.wait_death(DIES_WITHIN_S) == -signal.SIGKILL, doomed.output
    stage.check()


def adopter_killed_at_each_step(stage: Stage, times: int) -> None:
    """The only worker is killed; who adopts what it left is killed too, at each step of it."""
    stage.settings |= {"spool_keep_seconds": 0.5}  # removing comes after it
    stage.aggregator()
    stage.load()
    for _ in range(times):
        for step in ADOPT_STEPS:
            victim = stage.worker()
            stage.play(1.0)
            victim.kill()
            adopter = stage.worker(f"{step}=kill")
            assert adopter.wait_death(DIES_WITHIN_S) == -signal.SIGKILL, adopter.output
    stage.worker()
    stage.clicks_come()
    stage.check()
    stage.wait_no_source_left()


def random_workers_killed(stage: Stage, seconds: int) -> None:
    """One of three workers under a supervisor is killed about every second."""
    stage.aggregator()
    system = stage.supervised(3)
    stage.load()
    end = time.monotonic() + seconds
    kills = 0
    while time.monotonic() < end:
        name = stage.chance.choice(["ingest-1", "ingest-2", "ingest-3"])
        kills += _kill_child(system, name)
        stage.play(1.0)
    stage.notes.append(f"{kills} workers killed")
    stage.check()


def _kill_child(system: System, name: str) -> bool:
    pid = system.children().get(name)
    if pid is None:
        return False
    try:
        _kill(pid)
    except ProcessLookupError:
        return False
    return True


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def the_same_worker_killed_twice(stage: Stage, times: int) -> None:
    """The only worker dies, and dies again as soon as it serves: it is back within 5 s."""
    stage.aggregator()
    system = stage.supervised(1)
    stage.load()
    stage.clicks_come()
    slowest = 0.0
    for _ in range(times):
        for _ in range(2):
            assert _kill_child(system, "ingest-1")
            slowest = max(slowest, stage.clicks_come())
        time.sleep(0.2)
    stage.notes.append(f"serving again after {slowest:.1f} s at most")
    assert slowest < SERVING_AGAIN_S, stage.notes
    stage.check()


def parent_killed(stage: Stage, times: int) -> None:
    """The supervisor of the whole system is killed, and started again on the same data."""
    system = stage.supervised(2, "up")
    stage.load()
    for _ in range(times):
        stage.clicks_come(20)
        stage.play(1.5)
        system.process.send_signal(signal.SIGKILL)
        system.process.wait()
        eventually(functools.partial(all_gone, system), ORPHANS_S, "no orphan is left")
        system.exit_code = 0
        system = stage.supervised(2, "up")
    stage.clicks_come(20)
    stage.check()


def reloaded(stage: Stage, times: int) -> None:
    """HUP under load: no answer but 200, and only connections break."""
    stage.aggregator()
    system = stage.supervised(2)
    stage.load()
    stage.clicks_come()
    for n in range(1, times + 1):
        before = system.children()
        system.signal(signal.SIGHUP)
        eventually(functools.partial(_reloads, system, n), 40, "the reload is over")
        assert not set(before.values()) & set(system.children().values())
        stage.play(0.5)
    assert not stage.ledger.refused, stage.ledger.refused
    stage.check()


def worker_stopped(stage: Stage, times: int) -> None:
    """SIGSTOP: a worker that hangs is replaced within 10 s."""
    stage.aggregator()
    system = stage.supervised(2)
    stage.load()
    for n in range(times):
        stage.play(1.0)
        name = f"ingest-{n % 2 + 1}"
        pid = system.children()[name]
        _kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        eventually(functools.partial(_replaced, system, name, pid), REPLACED_S, "it is replaced")
        stage.notes.append(f"replaced after {time.monotonic() - began:.1f} s")
    stage.check()


def all_gone(system: System) -> bool:
    return not system.left_behind()


def _reloads(system: System, n: int) -> bool:
    return system.output.count("workers replaced") == n


def _replaced(system: System, name: str, pid: int) -> bool:
    return system.children().get(name, pid) != pid
