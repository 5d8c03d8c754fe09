"""A cluster under load: three nats-servers, a Postgres, aggregators and ingest nodes, each on a
machine of its own. They run the commands of the README's "More machines".

    with Cluster(tmp_path, seed=7) as cluster:
        cluster.start(ingest=2, aggregators=2)
        cluster.load()
        ...                     # faults
        cluster.check()         # stops the load, waits until all is healed, compares
"""

from __future__ import annotations

import contextlib
import random
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stack.embedded.server import LOOPBACK
from tests.cluster.lag import Lag, authorized
from tests.cluster.nats import NatsCluster
from tests.cluster.network import Machine, Network
from tests.crash.checked import Checked
from tests.crash.loader import Loader
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import PROGRAM, System
from tests.support.sql import query
from tests.support.wait import eventually

README: Final = (Path(__file__).parents[2] / "README.md").read_text()
PORT: Final = 8080
STATS_PORT: Final = 8081
POSTGRES_PORT: Final = 5432
READ_S: Final = 30.0
TOKEN: Final = "cluster"
"""Ports that other machines reach need one."""
SETTINGS: Final[dict[str, object]] = {
    "workers": 1,
    "flush_interval": 0.2,
    "resend_after_seconds": 5,
    "max_banner_id": 999,
    "nats_max_bytes": "64MiB",
    "stats_token": TOKEN,
    "write_token": TOKEN,
    "port": PORT,
    "stats_port": STATS_PORT,
}


_READERS: Final = """
SELECT host(client_addr) FROM source
JOIN pg_locks ON locktype = 'advisory' AND objsubid = 2 AND granted AND objid = source.shard
JOIN pg_stat_activity USING (pid) WHERE NOT closed GROUP BY 1 ORDER BY count(*) DESC
"""


def command(name: str, nats_url: str, dsn: str) -> list[str]:
    """The arguments of `clickmill NAME` in the README, with these addresses."""
    section = README.partition("## More machines")[2].partition("\n## ")[0]
    (line,) = re.findall(rf"^clickmill ({name} .*)$", section, re.MULTILINE)
    line = re.sub(r"nats://\S+", nats_url, line)
    return shlex.split(re.sub(r"postgresql://\S+", dsn, line))[1:]


def metric(url: str, name: str) -> float:
    """A metric without labels; -1 while nobody answers."""
    try:
        with authorized(f"{url}/metrics", TOKEN) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return -1.0
    return float(next((x for x in lines if x.startswith(name + " ")), f"{name} -1").split()[1])


class Node:
    """`clickmill ingest` or `clickmill aggregator` on a machine of its own."""

    def __init__(self, cluster: Cluster, machine: Machine, command: str) -> None:
        self.machine, self.command = machine, command
        self._cluster = cluster
        self.home = cluster.home / machine.name
        self.home.mkdir()
        self.system: System

    def start(self, program: Sequence[str] = PROGRAM, ready: bool = True) -> Node:
        """Start it; `program` is another release's."""
        arguments = command(self.command, self._cluster.nats.url, self._cluster.dsn)
        with self.machine.inside():
            self.system = System(
                self.command, self.home / "data", dict(self._cluster.settings), self.home,
                program, self.home, arguments,
            )  # fmt: skip
            if ready:
                self.system.wait_ready()
        return self

    def readiness(self) -> int:
        """The status of `/readyz`; 0 if nobody answers."""
        with self.machine.inside():
            return self.system.ready_status(stats=self.command == "aggregator")

    def shards(self) -> int:
        """How many shards this aggregator pulls."""
        with self.machine.inside():
            return int(metric(self.system.stats_url, "clickmill_shards_owned"))

    def crash(self) -> None:
        """The machine loses its power: no connection is closed."""
        self.machine.unplug()
        self.system.kill()

    def revive(self) -> None:
        """The machine starts again."""
        self.machine.plug()
        self.start()


class Cluster(Checked):
    """All machines of one run."""

    def __init__(self, home: Path, seed: int) -> None:
        super().__init__(seed)
        self.home = home
        self.chance = random.Random(seed)
        self.settings = dict(SETTINGS)
        self.nodes: list[Node] = []
        self._stack = contextlib.ExitStack()
        self.network: Network
        self.nats: NatsCluster
        self.postgres: Machine

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(Network())
            machines = [self.network.machine(f"nats-{n}") for n in (1, 2, 3)]
            self.nats = NatsCluster(machines, self.home)
            stack.callback(self.nats.stop)
            self.nats.start()
            self.start_postgres(stack)
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def start_postgres(self, stack: contextlib.ExitStack) -> None:
        """Start it, and name its database in `dsn`; it ends with `stack`."""
        self.postgres = self.network.machine("postgres")
        (self.home / "postgres").mkdir()
        with self.postgres.inside():
            server = PostgresServer(
                self.home / "postgres", options={"listen_addresses": "*"}, port=POSTGRES_PORT
            )
            with (self.home / "postgres" / "postgres" / "pg_hba.conf").open("a") as file:
                file.write("host all all 10.77.0.0/24 scram-sha-256\n")
            server.start()
            stack.callback(server.stop)
            self.dsn = server.make_database("clickmill").replace(LOOPBACK, self.postgres.address)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"seed {self.seed}; logs in {self.home}\n{self}")
        self._stack.close()

    def _stop(self) -> None:
        if self._loader is not None:
            self._loader.stop()
        for node in reversed(self.nodes):
            node.system.kill()

    # --- parts ----------------------------------------------------------------------------------

    def start(self, ingest: int = 2, aggregators: int = 2) -> None:
        """Start so many nodes of each kind, and wait until they are ready."""
        kinds = [("aggregator", aggregators), ("ingest", ingest)]
        for kind, count in kinds:
            for n in range(count):
                self.node(kind, n + 1)

    def node(self, kind: str, number: int, program: Sequence[str] = PROGRAM) -> Node:
        """One more node, ready."""
        node = Node(self, self.network.machine(f"{kind}-{number}"), kind)
        self.nodes.append(node)
        return node.start(program)

    @property
    def aggregators(self) -> list[Node]:
        return [node for node in self.nodes if node.command == "aggregator"]

    @property
    def ingest(self) -> list[Node]:
        return [node for node in self.nodes if node.command == "ingest"]

    def load(self, rate: int = 300, connections: int = 12) -> Loader:
        """Begin to click on every ingest node, or go on after a check, in the same ledger."""
        addresses = [node.machine.address for node in self.ingest]
        ledger = self._loader.ledger if self._loader is not None else None
        self._loader = Loader(
            PORT, self.seed, rate, connections, token=TOKEN, addresses=addresses, ledger=ledger
        ).start()
        return self._loader

    @contextlib.contextmanager
    def lag_of(self, node: Node) -> Iterator[Lag]:
        """How late the statistics of this aggregator are, within the block."""
        lag = Lag(node.machine, STATS_PORT, TOKEN).start()
        try:
            yield lag
        finally:
            lag.stop()

    def wait_shards(self, *owners: tuple[Node, int], within: float = 60.0) -> float:
        """Wait until each of these aggregators has so many shards; the seconds that it took."""
        began = time.monotonic()
        eventually(
            lambda: all(node.shards() == shards for node, shards in owners), within,
            f"the shards are {[(str(node.machine), shards) for node, shards in owners]}",
        )  # fmt: skip
        return time.monotonic() - began

    def readers(self) -> list[Node]:
        """The aggregators, first the one that pulls the most of the ingest nodes' frames."""
        rows = eventually(lambda: query(self.dsn, _READERS), READ_S, "frames are pulled")
        return sorted(self.aggregators, key=lambda node: node.machine.address != rows[0][0])

    def note(self, text: str) -> None:
        """Something to report with the result."""
        self.notes.append(text)
        print(text)

    def play(self, seconds: float) -> None:
        """Let the load go on for so long, at random between half and all of it."""
        time.sleep(self.chance.uniform(seconds / 2, seconds))

    def __str__(self) -> str:
        logs = [f"{node.machine}\n{node.system.output[-2500:]}" for node in self.nodes]
        logs += [f"{m.machine}\n{m.log.read_text()[-1000:]}" for m in self.nats.members]
        return "\n---\n".join(logs)
