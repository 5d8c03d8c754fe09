"""The gate of the benchmark: nothing is measured while something else runs.

looks at the machine     2.0   1.1   0.1      cores busy with something else
                        wait  wait  measure
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.harness import idle
from bench.report import results

ROOT = Path(__file__).parents[2]
BURN = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"


class Machine:
    """One that is as busy as the given looks; each look takes two seconds of its clock."""

    def __init__(self, *looks: float) -> None:
        self.looks, self.now, self.said = list(looks), 0.0, list[str]()

    def look(self) -> float:
        self.now += idle.LOOK_SECONDS
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def wait(self, patience: float = 10) -> float:
        return idle.wait_idle(self.said.append, patience, self.look, lambda: self.now)


@pytest.fixture
def burner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses a whole core."""
    process = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_idle_machine_is_measured_at_once() -> None:
    machine = Machine(0.29)
    assert machine.wait() == 0.29
    assert machine.now == idle.LOOK_SECONDS
    assert not machine.said


def test_a_busy_machine_is_waited_for() -> None:
    machine = Machine(2.0, 1.1, 0.1)
    assert machine.wait() == 0.1
    assert machine.said == ["2.00 cores are busy with something else: waiting, at most 10 s"]


@pytest.mark.parametrize("patience", [0, 10])
def test_a_machine_that_stays_busy_is_refused_after_a_bounded_wait(patience: float) -> None:
    machine = Machine(0.31)
    with pytest.raises(idle.BusyMachineError, match=r"0\.31 cores .* --allow-busy"):
        machine.wait(patience)
    assert machine.now <= patience + 2 * idle.LOOK_SECONDS


def test_work_counts_and_waiting_does_not() -> None:
    """user 100, nice 10, system 50, irq 3, softirq 2, steal 5; not idle 900 and iowait 30."""
    before = idle.parse("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 1 1 1 1", 10.0)
    after = idle.parse("cpu  100 10 50 900 30 3 2 5 40 0\n", 12.0)
    assert before.busy == 0
    assert after.busy * os.sysconf("SC_CLK_TCK") == 170


def test_a_process_that_works_is_seen_and_named(burner: subprocess.Popen[bytes]) -> None:
    assert idle.busy_cores(1.0) > 0.2
    assert f"pid {burner.pid}" in wait_for_name(lambda: idle.busiest(0.5), burner.pid)


def wait_for_name(say: Callable[[], str], pid: int) -> str:
    """Others may be busier for a moment: the three busiest alone are named."""
    deadline = time.monotonic() + 15
    while f"pid {pid}" not in (said := say()) and time.monotonic() < deadline:
        pass
    return said


def test_a_run_is_refused_and_writes_nothing(
    burner: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "bench.run", "--only", "memory", "--patience", "0"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cores are still busy with something else" in done.stdout
    assert "--allow-busy" in done.stdout
    assert not list(tmp_path.glob("*.json"))


def test_results_beside_other_work_are_marked(burner: subprocess.Popen[bytes]) -> None:
    allowed = argparse.Namespace(allow_busy=True, patience=0.0)
    said: list[str] = []
    assert idle.gate(allowed, said.append) > idle.LIMIT_CORES
    assert not said
    assert results.quietness({"busy_cores_before": 0.31}).startswith("**measured beside")
    assert results.quietness({"busy_cores_before": 0.3}) == "0.30 cores busy before"
    assert "not checked" in results.quietness({"load_before": 6.2})
