"""Which processes each command runs: settings in, groups of children out. Starts nothing."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from clickmill.fields import PREFIX
from clickmill.settings import Settings
from stack.embedded import leftovers as embedded_leftovers
from stack.embedded import nats as embedded_nats
from stack.embedded import output, probes
from stack.embedded import postgres as embedded_postgres
from stack.embedded import server as embedded_server
from stack.embedded.server import Server
from stack.errors import StackError
from stack.supervise.child import Spec
from stack.supervise.supervisor import Group

# How long recovery of an embedded server may take. The limit is long, because killing a server
# during recovery makes it start over. A server that hangs is detected otherwise (probing.py).
RECOVERY_SECONDS: Final = 3600.0
SERVER_TRIES: Final = 3
QUICK_DRAIN_SECONDS: Final = 1.5
SERVER_STOP_SECONDS: Final = 20.0


def check_extensions() -> None:
    """Raises StackError if a compiled module is missing; each has a .pyi."""
    spec = importlib.util.find_spec("ingest")
    if spec is None or spec.origin is None:
        raise StackError("The package `ingest` is missing: install it with `make install`.")
    for stub in sorted(Path(spec.origin).parent.glob("_*.pyi")):
        if importlib.util.find_spec(f"ingest.{stub.stem}") is None:
            raise StackError(
                f"The compiled module ingest.{stub.stem} is missing: build it with `make build`."
            )


def with_embedded(settings: Settings) -> tuple[Settings, list[Server]]:
    """Prepares a server for each missing address; returns the settings with all addresses."""
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
    """The environment of the Python children: the inherited one, with exactly these settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    return inherited | settings.to_env() | {"PYTHONUNBUFFERED": "1"}


def python_spec(
    name: str, module: str, env: dict[str, str], settings: Settings, drain: float = 0
) -> Spec:
    """A child that runs a Python package, with `drain` additional seconds to stop.

    -P ignores a folder of that name in the working directory.
    """
    argv = (sys.executable, "-P", "-m", module)
    return Spec(name=name, argv=argv, env=env, stop_seconds=settings.stop_timeout + drain)


def server_spec(server: Server, settings: Settings) -> Spec:
    """A child that is an embedded server."""
    is_nats = server.name == embedded_nats.NAME
    options = server.popen_options()
    debugging = settings.log_level == "debug"
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
        output=output.of_nats(debugging) if is_nats else output.of_postgres(debugging),
    )
