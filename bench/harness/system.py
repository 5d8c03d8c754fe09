"""Clickmill as a contender: the whole system of `clickmill up`, its ingest workers on one core."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from bench.harness import machine
from bench.harness.servers import (
    LOAD_CORE,
    ROOT,
    SERVER_CORE,
    START_SECONDS,
    Server,
    ServerError,
    wait_until,
)
from bench.load.statistics import StatsClient
from stack.ports import free_port

WORKER_NAME = "ingest-"
CALM_NICENESS = 10
"""How nice the helping processes are where the load generator must not wait for them."""


class Clickmill(Server):
    """A running system; statistics on `stats_port`."""

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        worker_cores: Sequence[int] | None = (SERVER_CORE,),
        checkout: Path | None = None,
    ) -> None:
        """`settings` are CLICKMILL_… names without the prefix.

        One worker for each of `worker_cores`, tied to it; None leaves number and place of the
        workers, and the place of everything else, as `clickmill up` has them. `checkout`: another
        one with an environment of its own in `.venv`, whose system is started instead of ours.
        """
        super().__init__(free_port())
        self.stats_port = free_port()
        self._worker_cores = worker_cores
        values = {
            "PORT": str(self.port),
            "STATS_PORT": str(self.stats_port),
            "DATA_DIR": str(self.dir / "data"),
            "WORKERS": str(len(worker_cores or ())),
            **(settings or {}),
        }
        env = {f"CLICKMILL_{name}": value for name, value in values.items()}
        core = LOAD_CORE if worker_cores else None
        python = str(checkout / ".venv/bin/python") if checkout else sys.executable
        self.spawn([python, "-m", "stack.cli", "up"], core, env, checkout or ROOT)
        self.wait_listening()
        self._wait_ready()
        for pid, worker_core in zip(self.clicking(), worker_cores or (), strict=False):
            machine.pin([pid], {worker_core})

    def _wait_ready(self) -> None:
        try:
            wait_until(self._ready, START_SECONDS, "Clickmill is ready")
        except ServerError as error:
            tail = self.log_tail()
            self.stop()
            raise ServerError(f"{error}\n{tail}") from error

    def _ready(self) -> bool:
        try:
            for port in (self.port, self.stats_port):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                    pass
        except OSError:
            return False  # not even the supervisor's own file may be there yet
        return self._worker_cores is None or len(self.clicking()) == len(self._worker_cores)

    def _facts(self, name: str) -> dict[str, Any]:
        """What the supervisor, or an embedded server, has written about itself."""
        facts: dict[str, Any] = json.loads((self.dir / "data" / "run" / f"{name}.json").read_text())
        return facts

    def children(self) -> dict[str, int]:
        """Process numbers by name: nats, postgres, aggregator, ingest-1 and so on."""
        return dict(self._facts("up")["children"])

    def clicking(self) -> list[int]:
        """The ingest workers."""
        children = self.children()
        return [pid for name, pid in sorted(children.items()) if name.startswith(WORKER_NAME)]

    def calm(self) -> None:
        """Lower the priority of the helping processes, so that the load generator goes first."""
        machine.renice(self.helping(), CALM_NICENESS)

    def dsn(self) -> str:
        """How to reach the system's own Postgres."""
        return str(self._facts("postgres")["address"])

    def wait_complete(self) -> None:
        """Wait until every click answered so far is in Postgres."""
        with StatsClient(f"http://127.0.0.1:{self.stats_port}") as stats:
            stats.wait_complete(time.time())

    def total(self) -> int | None:
        """Clicks in Postgres, once all that were answered are there."""
        self.wait_complete()
        with psycopg.connect(self.dsn()) as connection:
            row = connection.execute(
                "SELECT coalesce(sum(clicks), 0) FROM banner_minute"
            ).fetchone()
        assert row is not None
        return int(row[0])
