"""Postgres fails over (Patroni, etcd) under load: commits that it loses come again, once."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Final

import pytest

from tests.cluster import network, patroni
from tests.cluster.patroni import TTL_S, PostgresCluster
from tests.cluster.stage import Cluster

SEED: Final = int(os.environ.get("SEED", "1"))
HEAL_S: Final = 180.0
pytestmark = [pytest.mark.timeout(900), pytest.mark.soak]


class FailingOver(Cluster):
    """A cluster whose Postgres is one of two."""

    def __init__(self, home: Path, seed: int, *, synchronous: bool) -> None:
        super().__init__(home, seed)
        self._synchronous = synchronous
        self.databases: PostgresCluster

    def start_postgres(self, stack: contextlib.ExitStack) -> None:
        # Not in pytest's directory, which each run of pytest closes to other accounts.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clickmill-")))
        home.chmod(0o755)
        self.databases = PostgresCluster(self.network, home, synchronous=self._synchronous)
        stack.enter_context(self.databases.running())
        self.dsn = self.databases.dsn


@pytest.fixture(params=["asynchronous", "synchronous"])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FailingOver]:
    if reason := network.unavailable() or patroni.missing():
        pytest.skip(reason)
    with FailingOver(tmp_path, SEED, synchronous=request.param == "synchronous") as running:
        running.start()
        running.load()
        running.clicks_come()
        running.readers()
        yield running


def leader_crashes(cluster: FailingOver) -> None:
    leader, standby = cluster.databases.leader()
    leader.machine.unplug()
    leader.kill()
    cluster.databases.wait_promoted(standby)
    cluster.play(5.0)
    leader.machine.plug()
    leader.start()


def leader_is_cut_off(cluster: FailingOver) -> None:
    leader, standby = cluster.databases.leader()
    leader.machine.unplug()
    cluster.databases.wait_promoted(standby)
    cluster.play(5.0)
    leader.machine.plug()


def zombie_takes_writes(cluster: FailingOver) -> None:
    """Its Patroni hangs: the old primary takes writes of aggregators beside the new one."""
    leader, standby = cluster.databases.leader()
    leader.signal(SIGSTOP)
    leader.machine.cut_from(standby.machine)
    cluster.databases.wait_promoted(standby)
    cluster.play(TTL_S / 2)
    only_there = cluster.databases.clicks(leader) - cluster.databases.clicks(standby)
    cluster.note(f"the old primary has {only_there} clicks more than the new one")
    leader.machine.rejoin(standby.machine)
    leader.signal(SIGCONT)


def switchover(cluster: FailingOver) -> None:
    leader, standby = cluster.databases.leader()
    leader.switch_to(standby)
    cluster.databases.wait_promoted(standby)


@pytest.mark.parametrize(
    "fault", [switchover, leader_crashes, leader_is_cut_off, zombie_takes_writes]
)
def test_a_failover_loses_no_click(
    cluster: FailingOver, fault: Callable[[FailingOver], None]
) -> None:
    first, second = cluster.aggregators
    with cluster.lag_of(first) as lag:
        fault(cluster)
        cluster.databases.wait_formed()
        lag.wait_recovered(HEAL_S)
    cluster.note(f"{fault.__name__}: statistics {lag.worst:.0f} s late")
    cluster.wait_shards((first, 8), (second, 8))
    cluster.check(within=HEAL_S)
