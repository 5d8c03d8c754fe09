"""What runs for which command: settings in, groups of children out. No process starts here."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from clickmill.fields import PREFIX
from clickmill.settings import Settings
from stack.embedded import leftovers as embedded_leftovers
from stack.embedded import nats as embedded_nats
from stack.embedded import postgres as embedded_postgres
from stack.embedded import probes
from stack.embedded import server as embedded_server
from stack.embedded.server import Server
from stack.errors import StackError
from stack.supervise.child import Spec
from stack.supervise.supervisor import Group

# How long an embedded server may take to read its own log; a limit, so that it is never killed in
# the middle of it, to begin again. One that hangs is found by other signs (probing.py).
RECOVERY_SECONDS: Final = 3600.0
SERVER_TRIES: Final = 3
QUICK_DRAIN_SECONDS: Final = 1.5
SERVER_STOP_SECONDS: Final = 20.0
DULL_NATS: Final = ("[INF]", "Plaintext passwords detected", "[DBG]", "[TRC]")
LOUD_POSTGRES: Final = ("WARNING:", "ERROR:", "FATAL:", "PANIC:", "DETAIL:", "HINT:")


def check_extensions() -> None:
    """Raises StackError if a compiled module is missing; each has its face in a .pyi."""
    spec = importlib.util.find_spec("ingest")
    if spec is None or spec.origin is None:
        raise StackError("The package `ingest` is missing: install it with `make install`.")
    for face in sorted(Path(spec.origin).parent.glob("_*.pyi")):
        if importlib.util.find_spec(f"ingest.{face.stem}") is None:
            raise StackError(
                f"The compiled module ingest.{face.stem} is missing: build it with `make build`."
            )


def with_embedded(settings: Settings) -> tuple[Settings, list[Server]]:
    """Prepares a server for each address that is not given; the settings with the addresses."""
    data_dir, servers = Path(settings.data_dir), []
    if not settings.nats_url:
        servers.append(embedded_nats.prepare(data_dir, settings.nats_max_bytes))
        settings = msgspec.structs.replace(settings, nats_url=servers[-1].address)
    if not settings.postgres_dsn:
        servers.append(embedded_postgres.prepare(data_dir))
        settings = msgspec.structs.replace(settings, postgres_dsn=servers[-1].address)
    for server in servers:
        facts: dict[str, object] = {"port": server.port, "address": server.address}
        if server.reader:
            facts["reader"] = server.reader
        embedded_server.note(data_dir, server.name, facts)
    return settings, servers


def groups(command: str, settings: Settings, servers: list[Server]) -> list[Group]:
    """The groups of `up`, `ingest` or `aggregator`, in the order of their start."""
    if command == "up":  # the next start adopts what is left
        quick = min(settings.drain_timeout, QUICK_DRAIN_SECONDS)
        settings = msgspec.structs.replace(settings, drain_timeout=quick)
    ours = child_env(settings)
    ingest = Group(
        tuple(
            python_spec(f"ingest-{number}", "ingest", ours, settings, settings.drain_timeout)
            for number in range(1, settings.worker_count + 1)
        ),
        reload=True,
    )
    aggregator = Group((python_spec("aggregator", "aggregator", ours, settings),))
    if command == "ingest":
        return [ingest]
    if command == "aggregator":
        return [aggregator]
    embedded_group = Group(tuple(server_spec(server, settings) for server in servers), wait=True)
    return [embedded_group, aggregator, ingest]


def child_env(settings: Settings) -> dict[str, str]:
    """The environment of our own children: ours, with these settings and no others."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    return inherited | settings.to_env() | {"PYTHONUNBUFFERED": "1"}


def python_spec(
    name: str, module: str, env: dict[str, str], settings: Settings, drain: float = 0
) -> Spec:
    """A child that is one of our packages, which may take `drain` seconds more to stop.

    -P: a folder of that name here must not win.
    """
    argv = (sys.executable, "-P", "-m", module)
    return Spec(name=name, argv=argv, env=env, stop_seconds=settings.stop_timeout + drain)


def server_spec(server: Server, settings: Settings) -> Spec:
    """A child that is an embedded server."""
    is_nats = server.name == embedded_nats.NAME
    options = server.popen_options()
    return Spec(
        name=server.name,
        argv=server.argv,
        env=options.pop("env"),
        stop_seconds=SERVER_STOP_SECONDS,
        options=options,
        probes=probes.of_nats(server) if is_nats else probes.of_postgres(server),
        before_start=None if is_nats else functools.partial(embedded_leftovers.clear, server.cwd),
        ready_within=RECOVERY_SECONDS,
        tries=SERVER_TRIES,
        stop_signal=server.stop_signal,
        hurry_signal=server.death_signal,
        is_dull=_unless_debugging(settings, _dull_nats if is_nats else _dull_postgres),
    )


def _unless_debugging(settings: Settings, dull: Callable[[str], bool]) -> Callable[[str], bool]:
    return (lambda _: False) if settings.log_level == "debug" else dull


def _dull_nats(line: str) -> bool:
    return any(mark in line for mark in DULL_NATS)


def _dull_postgres(line: str) -> bool:
    return not line.startswith(LOUD_POSTGRES) or "the database system is starting up" in line
