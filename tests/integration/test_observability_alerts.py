"""Each alert is provoked on the real system, by its real fault, and ends when the fault does.

The rules are the project's own with their durations a thirtieth. One system, in parts, so that
each can be taken away: NATS, Postgres, ingest on a small disk of its own, an aggregator. Faults
that don't disturb each other are made together. At the end all clicks must be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from clickmill import bus, wire
from grafana import rules
from tests.support.connections import limit_messages
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_prometheus import Prometheus
from tests.support.fix_system import QUICK, System, status
from tests.support.frames import frame, with_features
from tests.support.raw import ask
from tests.support.traffic import Traffic
from tests.support.wait import StillNotSoError, eventually

FIRES_S = 30.0
RESOLVES_S = 45.0
DISK_BYTES = 64 << 20
COMMITTED_S = 60.0
"""Many rows may wait ten seconds for a commit, and a commit for a busy disk. How late clicks may
be is held elsewhere; here they must come."""
READ_EVERY_S = 0.2
READERS = 3
"""An answer of 503 takes five seconds: several ask side by side."""
SMALL_SPOOL = {"spool_max_bytes": "1173KiB", "spool_keep_seconds": 15}
"""One click on each banner fits in, and not much more."""
BATCH = 10_000

POSTGRES_STOPPED = {
    "ClickmillPostgresUnreachable",
    "ClickmillFramesNotCommitted",
    "ClickmillStatisticsLate",
    "ClickmillSpoolGrowing",
    "ClickmillErrors",
}
WORKER_KILLED = {"ClickmillWorkerRestarts"}
DISK_FULL = {"ClickmillDiskFilling", "ClickmillSpoolNotWritten"}
NO_FRAME = {"ClickmillQuarantine"}
NEWER_FRAME = {"ClickmillUpgradeAggregator"}
STREAM_TAKES_NOTHING = {"ClickmillFramesNotPublished"}
SPOOL_TOO_SMALL = {"ClickmillKeepTimeShort"}
AGGREGATOR_AND_NATS_STOPPED = {"ClickmillStatisticsDown", "ClickmillNatsUnreachable"}
MACHINE_GONE = {"ClickmillIngestDown", "ClickmillSilentSource"}


class Plant:
    """The system in parts, the load on it, and the Prometheus that watches it."""

    def __init__(self, homes: Callable[[str], Path]) -> None:
        self.stack = contextlib.ExitStack()
        self.nats = self._server(NatsServer(homes("nats")))
        self.postgres = self._server(PostgresServer(homes("postgres"), durable=True))
        self.home = homes("ingest")
        self.disk = mount(self.home / "ingest", self.stack)
        self.aggregator = self._start("aggregator", homes("aggregator"))
        self.ingest = self._start("ingest", self.home)
        ports = (self.ingest.port, self.aggregator.stats_port)
        self.prometheus = Prometheus(homes("prometheus"), [ports[0]], [ports[1]])
        self.stack.callback(self.prometheus.stop)
        self.traffic = self.stack.enter_context(Traffic(*ports, statistics=False))
        self.stack.enter_context(reading(self.ingest.url, self.aggregator.stats_url))
        self.seen: set[str] = set()
        self.clicks = 0

    def _server(self, server: NatsServer | PostgresServer) -> NatsServer | PostgresServer:
        server.start()
        self.stack.callback(server.stop)
        return server

    def _start(self, command: str, home: Path, **settings: object) -> System:
        assert isinstance(self.postgres, PostgresServer)
        assert isinstance(self.nats, NatsServer)
        given = {
            **QUICK,
            **SMALL_SPOOL,
            "nats_url": self.nats.url,
            "postgres_dsn": self.postgres.dsn,
            **settings,
        }
        system = System(command, home, given)
        self.stack.callback(system.stop)
        return system.wait_ready()

    def again(self, system: System) -> System:
        """The same command with the same data directory and ports."""
        return self._start(
            system.command, system.data_dir, port=system.port, stats_port=system.stats_port
        )

    def fires(self, *groups: set[str]) -> None:
        """Waits until each of these alerts has fired."""
        wanted = set[str]().union(*groups)

        def all_fired() -> bool:
            self.seen |= set(self.prometheus.firing())
            assert wanted <= self.seen, f"these do not: {wanted - self.seen}"
            return True

        eventually(all_fired, FIRES_S, f"these fire: {wanted}")

    def resolves(self, *groups: set[str]) -> None:
        """Waits until none of these fires any more."""
        wanted = set[str]().union(*groups)

        def none_fires() -> bool:
            assert not (still := wanted & set(self.prometheus.firing())), still
            return True

        eventually(none_fires, RESOLVES_S, f"these end: {wanted}")

    def click_on_many(self) -> None:
        """One click on each of 10,000 banners; returns once they are in Postgres."""
        before = self.committed()
        items = json.dumps([{"bannerID": banner} for banner in range(BATCH)]).encode()
        answer = ask(
            self.ingest.port, "POST", "/clicks", items, [("Content-Type", "application/json")]
        )
        assert answer.status == 200
        self.clicks += BATCH
        try:
            eventually(lambda: self.committed() >= before + BATCH, COMMITTED_S, "they are counted")
        except StillNotSoError as error:
            for part in (self.ingest, self.aggregator):
                error.add_note(f"{part.command} wrote: {part.output[-3_000:]}")
            raise

    def committed(self) -> int:
        """All clicks in Postgres."""
        assert isinstance(self.postgres, PostgresServer)
        with psycopg.connect(self.postgres.dsn) as connection:
            row = connection.execute(
                "SELECT coalesce(sum(clicks), 0) FROM banner_minute"
            ).fetchone()
        assert row is not None
        return int(row[0])


def mount(directory: Path, stack: contextlib.ExitStack) -> bool:
    """A small disk in memory, if we may; whether we might."""
    directory.mkdir(mode=0o700)
    options = f"size={DISK_BYTES},mode=700"
    argv = ["mount", "-t", "tmpfs", "-o", options, "clickmill-test", str(directory)]
    if os.geteuid() or subprocess.run(argv, capture_output=True, check=False).returncode:
        return False
    stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=True)
    return True


@contextlib.contextmanager
def reading(url: str, stats_url: str) -> Iterator[None]:
    """Asks for statistics on both ports all the while, whatever the answer."""
    end = threading.Event()

    def run(asked: str) -> None:
        while not end.wait(READ_EVERY_S):
            status(f"{asked}/stats/17?step=1m", timeout=8)

    threads = [
        threading.Thread(target=run, args=(asked,), daemon=True)
        for asked in (url, stats_url)
        for _ in range(READERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(10)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp)
    with made.stack:
        eventually(made.prometheus.targets_up, 10, "both are scraped")
        eventually(lambda: made.committed() > 0, 10, "clicks arrive")
        yield made


def test_every_alert_is_provoked_here() -> None:
    provoked = (
        (POSTGRES_STOPPED | WORKER_KILLED | DISK_FULL | AGGREGATOR_AND_NATS_STOPPED)
        | NO_FRAME
        | NEWER_FRAME
        | STREAM_TAKES_NOTHING
        | MACHINE_GONE
        | SPOOL_TOO_SMALL
    )
    assert provoked == {alert.name for alert in rules.ALERTS}


def test_nothing_fires_before_anything_is_wrong(plant: Plant) -> None:
    # Prometheus' own first seconds, before it knows its targets, look like nobody at home.
    plant.resolves({alert.name for alert in rules.ALERTS})


def test_stopped_postgres_and_killed_workers(plant: Plant) -> None:
    plant.postgres.stop()
    try:
        for _ in range(4):
            pid = plant.ingest.children()["ingest-1"]
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: plant.ingest.children().get("ingest-1", pid) != pid)  # noqa: B023
            eventually(lambda: status(f"{plant.ingest.url}/livez") == 200, 10, "its successor")
        plant.fires(POSTGRES_STOPPED, WORKER_KILLED)
    finally:
        plant.postgres.start()


def test_no_frame_one_of_a_newer_release_and_a_stream_that_takes_none(plant: Plant) -> None:
    source = uuid.uuid4()
    newer = with_features(frame(1, {1: 1}, 1, source=source), 4)

    async def publish() -> None:
        client = await bus.connect(plant.nats.server.address, "test-spoiler")
        await client.jetstream().publish(wire.delta_subject(uuid.uuid4()), b"no frame")
        await client.jetstream().publish(wire.delta_subject(source), newer)
        await bus.close(client)

    async def purge() -> None:
        client = await bus.connect(plant.nats.server.address, "test-spoiler")
        await client.jetstream().purge_stream(wire.STREAM, subject=wire.delta_subject(source))
        await bus.close(client)

    address = plant.nats.server.address
    asyncio.run(publish())
    asyncio.run(limit_messages(address, 1))
    try:
        plant.fires(NO_FRAME, NEWER_FRAME, STREAM_TAKES_NOTHING)
    finally:
        asyncio.run(limit_messages(address))
        asyncio.run(purge())
    admin = make_conninfo(plant.postgres.server.admin, dbname="clickmill")
    with psycopg.connect(admin, autocommit=True) as connection:
        assert connection.execute("DELETE FROM quarantine").rowcount == 1
        # It is nobody's: it opened no source, which nobody would ever close.
        row = connection.execute("SELECT count(*) FROM source WHERE last_seq = 0").fetchone()
        assert row == (0,)


def test_a_spool_too_small_for_its_keep_time(plant: Plant) -> None:
    for _ in range(11):  # frames of 120 kB
        plant.click_on_many()
    plant.fires(SPOOL_TOO_SMALL)
    assert "ClickmillSpoolNotWritten" not in plant.seen


def test_full_disk(plant: Plant) -> None:
    if not plant.disk:
        pytest.skip("a small disk can only be made as root, where mounting is allowed")
    plant.resolves({"ClickmillSpoolGrowing"})
    ballast = plant.home / "ingest" / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    try:
        plant.fires(DISK_FULL)
    finally:
        ballast.unlink()


def test_stopped_aggregator_and_stopped_nats(plant: Plant) -> None:
    assert plant.aggregator.stop() == 0
    plant.nats.stop()
    try:
        plant.fires(AGGREGATOR_AND_NATS_STOPPED)
    finally:
        plant.nats.start()
        plant.aggregator = plant.again(plant.aggregator)


def test_a_missing_machine(plant: Plant) -> None:
    plant.ingest.process.kill()
    plant.ingest.process.wait()
    plant.ingest.exit_code = 0
    plant.ingest.wait_gone()
    try:
        plant.fires(MACHINE_GONE)
    finally:
        plant.ingest = plant.again(plant.ingest)


def test_every_alert_ends_and_every_click_is_there(plant: Plant) -> None:
    plant.resolves({alert.name for alert in rules.ALERTS})
    plant.traffic.stop()
    ledger = plant.traffic.ledger
    low = plant.clicks + ledger.clicks
    high = low + ledger.in_flight.total()

    def exact() -> bool:
        assert low <= plant.committed() <= high, (low, plant.committed(), high)
        return True

    eventually(exact, 20, "all clicks are in Postgres")
    with urllib.request.urlopen(f"{plant.ingest.url}/metrics", timeout=5) as answer:
        (line,) = [
            x for x in answer.read().decode().splitlines() if x.startswith("clickmill_clicks")
        ]
    assert low <= float(line.split()[1]) <= high


def test_each_alert_says_what_to_do(plant: Plant) -> None:
    for rule in plant.prometheus.rules():
        if rule["type"] == "alerting":
            assert rule["annotations"]["description"]
            assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['name'].lower()}"
