"""Two real ingest nodes behind each real load balancer, under load, while nodes come and go.

The client's ledger: no answered click is lost or doubled; a request fails only if a node took its
connection down with it; and no answer is "no node is there", since one of the two always is.
"""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGKILL
from typing import Any

import pytest

from stack import rates
from tests.crash.ledger import TimedLedger
from tests.crash.loader import Loader
from tests.support.balancers import CLICKS_HOST, KINDS, STATS_HOST, Balancer, running
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import System, SystemFactory
from tests.support.ports import HOST
from tests.support.sql import query
from tests.support.wait import eventually

CONNECTIONS = 12
WRITE_TOKEN = "may-write"
LOST_THE_NODE = (502, 504)
PER_MINUTE = (
    "SELECT banner_id, extract(epoch FROM minute)::bigint / 60, sum(clicks) "
    "FROM banner_minute GROUP BY 1, 2"
)
WAIT_S = 30.0


class Farm:
    """Two nodes, an aggregator, and the load through the balancer."""

    def __init__(
        self, balancer: Balancer, aggregator: System, one: System, two: System, nats: NatsServer
    ) -> None:
        self.balancer, self.aggregator, self.nats = balancer, aggregator, nats
        self.one, self.two = one, two
        self.loader = Loader(
            balancer.port, seed=14, connections=CONNECTIONS, host=CLICKS_HOST, unsure=LOST_THE_NODE,
            token=WRITE_TOKEN,
        )  # fmt: skip

    def goes_on(self) -> None:
        """Clicks are answered, several on each connection."""
        before = self.loader.answered
        eventually(lambda: self.loader.answered > before + 100, WAIT_S, "clicks are answered")

    def serves(self, node: System) -> None:
        """Clicks come to this very node: before that, the other must not be taken away."""
        before = _counted(node)
        eventually(lambda: _counted(node) > before + 20, WAIT_S, "the balancer uses the node")

    def wait_ready(self, status: int) -> None:
        """Both nodes answer that to /readyz."""
        nodes = (self.one, self.two)
        eventually(lambda: {n.ready_status() for n in nodes} == {status}, WAIT_S, str(status))

    def total(self, host: str, path: str) -> int:
        """The sum of all banners' last hour, asked through the balancer."""
        connection = http.client.HTTPConnection(HOST, self.balancer.port, timeout=10)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body  # 503 while the balancer thinks that none is ready
        return int(json.loads(body)["Counts"])


def _counted(node: System) -> float:
    """Clicks that the node has counted since it was started."""
    with urllib.request.urlopen(f"{node.url}/metrics", timeout=5) as answer:
        look = rates.read(answer.read().decode(), 0)
    return look.total("clickmill_clicks_total")


@pytest.fixture(params=KINDS)
def farm(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nats: NatsServer,
    database: str,
    system: SystemFactory,
) -> Iterator[Farm]:
    settings: dict[str, Any] = {
        "nats_url": nats.url,
        "allowed_hosts": f"{STATS_HOST},{CLICKS_HOST}",
        "write_token": WRITE_TOKEN,
    }
    aggregator, one, two = (
        system("aggregator", ready=False, postgres_dsn=database, **settings),
        system("ingest", ready=False, **settings),
        system("ingest", ready=False, **settings),
    )
    for part in (aggregator, one, two):
        part.wait_ready()
    aggregators = [aggregator.stats_port] * 2
    with running(request.param, tmp_path, [one.port, two.port], aggregators) as balancer:
        yield Farm(balancer, aggregator, one, two, nats)


def test_nodes_come_and_go_under_load(farm: Farm, database: str, system: SystemFactory) -> None:
    def again(node: System) -> System:
        return system(
            "ingest", node.data_dir, nats_url=farm.nats.url, port=node.port, write_token=WRITE_TOKEN
        )

    farm.loader.start()
    for node in (farm.one, farm.two):
        farm.serves(node)

    farm.one.signal(SIGKILL)
    farm.one.process.wait()
    farm.one.exit_code = 0  # for the fixture: it was meant to
    farm.goes_on()
    farm.one.wait_gone()
    farm.one = again(farm.one)
    farm.serves(farm.one)

    assert farm.two.stop() == 0
    farm.goes_on()
    farm.two = again(farm.two)
    farm.serves(farm.two)

    farm.one.signal(SIGHUP)
    said = "Reload: 1 of 1 workers replaced."
    eventually(lambda: said in farm.one.output, WAIT_S, said)
    farm.serves(farm.one)

    farm.nats.stop()
    farm.wait_ready(503)
    if farm.balancer.kind == "haproxy":  # the one that asks for /readyz
        noticed = "backend clicks has no server available"
        eventually(lambda: noticed in farm.balancer.log, WAIT_S, noticed)
    farm.goes_on()
    farm.nats.start()
    farm.wait_ready(200)
    farm.goes_on()

    ledger = farm.loader.stop()
    print(f"{ledger.answered.total()} answered, {ledger.failures} requests failed")
    assert not ledger.refused
    assert ledger.unreachable == 0
    assert ledger.failures <= 3 * CONNECTIONS, "more than were on the way to a node that ended"
    wait_exact(ledger, database)
    assert [farm.one.stop(), farm.two.stop()] == [0, 0]
    total = wait_exact(ledger, database)
    for host, path in ((STATS_HOST, "/stats"), (CLICKS_HOST, "/clickmill/stats")):
        eventually(lambda at=(host, path): farm.total(*at) == total, WAIT_S, path)  # type: ignore[misc]


def wait_exact(ledger: TimedLedger, database: str) -> int:
    """Waits until Postgres has what was answered, minute by minute; the sum that it has."""

    def found() -> Counter[tuple[int, int]]:
        return Counter({(b, int(m)): int(n) for b, m, n in query(database, PER_MINUTE)})

    eventually(lambda: not ledger.wrong(found()), WAIT_S, "Postgres has what was answered")
    return found().total()
