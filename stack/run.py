"""`clickmill up`, `ingest` and `aggregator`: starts the system, runs it, and stops it."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from pathlib import Path
from typing import Final

import msgspec

from clickmill import openfiles
from clickmill.settings import Settings
from ingest.shipping.drain import NOT_DRAINED
from stack import lock, plan, probe
from stack.embedded import server as embedded_server
from stack.errors import PortTakenError
from stack.ports import check_free
from stack.state import StateFile
from stack.supervise.logs import Log
from stack.supervise.supervisor import Supervisor

PORT_WAIT_SECONDS: Final = 3.0  # the workers of a killed supervisor may still be stopping
READY_POLL_SECONDS: Final = 0.05
REPORT_SECONDS: Final = 5.0


def run(command: str, settings: Settings, log: Log) -> int:
    """Runs the command until a signal; returns the exit code. Raises StackError."""
    early = EarlySignals()
    settings = msgspec.structs.replace(settings, data_dir=str(Path(settings.data_dir).resolve()))
    plan.check_extensions()
    embedded_server.private_dir(Path(settings.data_dir))
    ports = _ports(command, settings)
    if command == "up":
        lock.take(Path(settings.data_dir))  # first: "already running" is clearer than "port taken"
    for port, flag in ports.items():
        _wait_free(_host_of(settings, port), port, flag)
    openfiles.allow_most()
    servers: list[embedded_server.Server] = []
    if command == "up":
        settings, servers = plan.with_embedded(settings)
    state = StateFile(Path(settings.data_dir), command, log)
    supervisor = Supervisor(
        plan.groups(command, settings, servers),
        log,
        changed=functools.partial(_write_state, state, settings),
        when_started=functools.partial(_report_when_ready, command, settings, list(ports), log),
    )
    codes = asyncio.run(supervisor.run(stop_now=lambda: early.stop))
    log.say("Stopped.")
    return NOT_DRAINED if command == "ingest" and any(codes) else 0


class EarlySignals:
    """Signals that arrive before the supervisor handles them: a stop interrupts the start.

    `stop` records it too, because Python drops an exception that is raised while it forks.
    """

    def __init__(self) -> None:
        self.stop = False
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, lambda *_: None)  # not SIG_IGN, which children would inherit

    def _on_stop(self, number: int, frame: object) -> None:
        self.stop = True
        raise KeyboardInterrupt


def _ports(command: str, settings: Settings) -> dict[int, str]:
    """The ports that this command opens, and the option that changes each."""
    ingest, stats = {settings.port: "--port"}, {settings.stats_port: "--stats-port"}
    return {"up": ingest | stats, "ingest": ingest, "aggregator": stats}[command]


def _host_of(settings: Settings, port: int) -> str:
    return settings.host if port == settings.port else settings.stats_host


def _wait_free(host: str, port: int, flag: str) -> None:
    deadline = time.monotonic() + PORT_WAIT_SECONDS
    while True:
        try:
            return check_free(host, port, flag)
        except PortTakenError:
            if time.monotonic() > deadline:
                raise
            time.sleep(READY_POLL_SECONDS)


def _write_state(state: StateFile, settings: Settings, children: dict[str, int]) -> None:
    state.write(
        {
            "pid": os.getpid(),
            "host": settings.host,
            "stats_host": settings.stats_host,
            "port": settings.port,
            "stats_port": settings.stats_port,
            "children": children,
        }
    )


async def _report_when_ready(command: str, settings: Settings, ports: list[int], log: Log) -> None:
    """Prints the addresses once /readyz answers 200 on every port, and until then the reason."""
    reported = time.monotonic()
    for port in ports:
        while (answer := await probe.get(_host_of(settings, port), port, "/readyz")).status != 200:
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                log.warn(f"Not ready yet: port {port}: {answer.status or ''} {answer.text}")
            await asyncio.sleep(READY_POLL_SECONDS)
    log.plain(_addresses(command, settings))


def _addresses(command: str, settings: Settings) -> str:
    lines = ["", "Clickmill is ready."]
    if command in ("up", "ingest"):
        lines.append(f"  clicks       {probe.url(settings.host, settings.port, '/counter/17')}")
    if command in ("up", "aggregator"):
        lines.append(
            f"  statistics   {probe.url(settings.stats_host, settings.stats_port, '/stats/17')}"
        )
        lines.append(f"  live page    {probe.url(settings.stats_host, settings.stats_port, '/')}")
    if command == "up":
        click = probe.url(settings.host, settings.port, "/counter/17")
        stats = probe.url(settings.host, settings.port, "/stats/17")
        lines += ["", "Try it:", f"  curl -X POST {click} && sleep 2 && curl {stats}"]
    return "\n".join([*lines, "", "Press Ctrl-C to stop."])
