"""More than one machine: one of them is lost, cut off or stopped under load. No click is lost or
counted twice, and statistics are late by seconds.

`make test` runs the first two; `make soak-cluster SEED=1 TIMES=5` all, and each so many times.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Final, NamedTuple

import pytest

from tests.cluster import network
from tests.cluster.network import Machine
from tests.cluster.stage import Cluster, Node

SEED: Final = int(os.environ.get("SEED", "1"))
TIMES: Final = int(os.environ.get("TIMES", "1"))
LATE_S: Final = 30.0
"""Statistics are at most 10 s late (docs/guarantees.md); a busy machine has three times as long."""
OUTAGE_S: Final = 12.0
pytestmark = pytest.mark.timeout(300 + 120 * TIMES)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if reason := network.unavailable():
        pytest.skip(reason)
    with Cluster(tmp_path, SEED) as running:
        running.start()
        running.load()
        running.clicks_come()
        first, second = running.aggregators
        running.wait_shards((first, 8), (second, 8))
        yield running


def test_the_machine_of_the_nats_leader_is_lost(cluster: Cluster) -> None:
    for _ in range(TIMES):
        leader = cluster.nats.leader()
        with cluster.lag_of(cluster.aggregators[0]) as lag:
            leader.machine.unplug()
            leader.kill()
            lag.wait_recovered()
        cluster.note(f"statistics {lag.worst:.1f} s late")
        assert lag.worst < LATE_S
        leader.machine.plug()
        leader.start()
        cluster.nats.wait_formed()
    cluster.check()


def test_an_aggregator_cut_off_from_nats_gives_its_shards_up(cluster: Cluster) -> None:
    servers = [member.machine for member in cluster.nats.members]
    for _ in range(TIMES):
        reader, other = cluster.readers()
        with cluster.lag_of(other) as lag:
            reader.machine.cut_from(*servers)
            took = cluster.wait_shards((reader, 0), (other, 16))
            lag.wait_recovered()
        cluster.note(f"shards changed hands after {took:.1f} s, statistics {lag.worst:.1f} s late")
        assert max(took, lag.worst) < LATE_S
        reader.machine.rejoin(*servers)
        cluster.wait_shards((reader, 8), (other, 8))
    cluster.check()


# --- the long form --------------------------------------------------------------------------------


@contextlib.contextmanager
def _unplugged(*machines: Machine) -> Iterator[None]:
    for machine in machines:
        machine.unplug()
    yield
    for machine in machines:
        machine.plug()


@contextlib.contextmanager
def _cut(machine: Machine, *others: Machine) -> Iterator[None]:
    machine.cut_from(*others)
    yield
    machine.rejoin(*others)


@contextlib.contextmanager
def _crashed(node: Node) -> Iterator[None]:
    node.crash()
    yield
    node.revive()


@contextlib.contextmanager
def _stopped(node: Node) -> Iterator[None]:
    """All of its processes hang, and go on later without a sign that time has passed."""
    pids = [node.system.pid, *node.system.children().values()]
    for pid in pids:
        os.kill(pid, SIGSTOP)
    yield
    for pid in pids:
        os.kill(pid, SIGCONT)


def _servers(cluster: Cluster) -> list[Machine]:
    return [member.machine for member in cluster.nats.members]


class Fault(NamedTuple):
    """`begin` is entered for the outage. `is_late`: nothing is committed until it has ended."""

    begin: Callable[[Cluster], AbstractContextManager[None]]
    is_late: bool = False


FAULTS: Final = {
    "a nats-server is unplugged": Fault(lambda c: _unplugged(c.chance.choice(_servers(c)))),
    "two of three nats-servers are unplugged": Fault(lambda c: _unplugged(*_servers(c)[:2])),
    "an aggregator's machine crashes": Fault(lambda c: _crashed(c.readers()[0])),
    "an aggregator hangs": Fault(lambda c: _stopped(c.readers()[0])),
    "an aggregator is cut off from Postgres": Fault(
        lambda c: _cut(c.readers()[0].machine, c.postgres)
    ),
    "an aggregator is unplugged": Fault(lambda c: _unplugged(c.readers()[0].machine)),
    "Postgres is unplugged": Fault(lambda c: _unplugged(c.postgres), True),
    "an ingest node is cut off from NATS": Fault(
        lambda c: _cut(c.ingest[0].machine, *_servers(c)), True
    ),
    "an ingest node's machine crashes": Fault(lambda c: _crashed(c.ingest[0]), True),
    "an ingest node hangs": Fault(lambda c: _stopped(c.ingest[0]), True),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_machine(cluster: Cluster, name: str) -> None:
    fault = FAULTS[name]
    for _ in range(TIMES):
        reader, other = cluster.readers()
        with cluster.lag_of(other) as lag:
            with fault.begin(cluster):
                cluster.play(OUTAGE_S)
            lag.wait_recovered()
        cluster.note(f"{name}: statistics {lag.worst:.1f} s late")
        assert fault.is_late or lag.worst < LATE_S
        cluster.wait_shards((reader, 8), (other, 8))
    cluster.check()


@pytest.mark.soak
def test_without_a_quorum_frames_go_past_the_stream(cluster: Cluster) -> None:
    """Statistics recover while two of three nats-servers are away."""
    for _ in range(TIMES):
        with cluster.lag_of(cluster.aggregators[0]) as lag, _unplugged(*_servers(cluster)[:2]):
            cluster.play(OUTAGE_S)
            lag.wait_recovered()
        cluster.note(f"statistics {lag.worst:.1f} s late")
        assert lag.worst < LATE_S
        cluster.nats.wait_formed()
    cluster.check()


@pytest.mark.soak
def test_two_faults_at_once(cluster: Cluster) -> None:
    """Drawn by the seed, one after the other, overlapping."""
    for _ in range(3 * TIMES):
        first, second = cluster.chance.sample(sorted(FAULTS), 2)
        cluster.note(f"{first}, and {second}")
        with cluster.lag_of(cluster.aggregators[0]) as lag:
            with FAULTS[first].begin(cluster):
                cluster.play(2.0)
                with FAULTS[second].begin(cluster):
                    cluster.play(OUTAGE_S)
            lag.wait_recovered(within=120)
    cluster.check(within=120)
