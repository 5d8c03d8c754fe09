"""Checks of NATS, Postgres and the ports, and of the clock against Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import nats.errors
import psycopg
from nats.aio.client import Client

from clickmill import bus, wire
from clickmill.settings import Settings
from ingest.shipping.payload import largest_frame
from stack import lock, probe
from stack.doctor.finding import Finding
from stack.embedded import server as embedded_server
from stack.errors import PortTakenError
from stack.ports import check_free

REACH_SECONDS: Final = 3
LEAST_POSTGRES: Final = 160000
MAX_CLOCK_SECONDS: Final = 2.0
TABLES: Final = ("banner_minute", "banner", "source", "quarantine")


async def nats_server(settings: Settings) -> str:
    """NATS answers, has JetStream, and accepts the frames in the spools here."""
    url = settings.nats_url or _embedded_address(settings, "nats", "--nats-url")
    client = await _reach_nats(url)
    try:
        account = await client.jetstream(timeout=REACH_SECONDS).account_info()
        names = await client.jetstream(timeout=REACH_SECONDS).streams_info()
    except (TimeoutError, nats.errors.Error) as error:
        raise Finding(
            f"has no JetStream ({_words(error)}): enable JetStream in its configuration."
        ) from error
    finally:
        await client.close()
    _check_max_payload(settings, client.max_payload)
    exists = any(info.config.name == wire.STREAM for info in names)
    stream = f"stream {wire.STREAM} exists" if exists else "the first start creates the stream"
    return f"JetStream stores {account.storage >> 20} MiB, {stream}"


async def _reach_nats(url: str) -> Client:
    """A connected client. Raises Finding, with the server's error message if there is one."""
    said: list[str] = []

    async def note(error: Exception) -> None:
        if isinstance(error, nats.errors.Error):
            said.append(bus.words(error))

    try:
        return await asyncio.wait_for(bus.connect(url, "clickmill-doctor", note), REACH_SECONDS)
    except (OSError, TimeoutError, nats.errors.Error) as error:
        why = said[-1] if said else _words(error)
        raise Finding(f"can't be reached ({why}): start it, or correct --nats-url.") from error


def _check_max_payload(settings: Settings, max_payload: int) -> None:
    """Raises Finding if a frame in the spools here is too large for NATS."""
    largest = largest_frame(Path(settings.data_dir) / "ingest")
    needed = largest + wire.HEADERS_BYTES
    if largest and needed > max_payload:
        raise Finding(
            f"accepts at most {max_payload} bytes per message, and a frame in the spools here has "
            f"{largest}: set max_payload of the NATS server to {needed} or more."
        )


async def postgres(settings: Settings) -> str:
    """Postgres answers and has a version that Clickmill supports."""
    async with _session(settings) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM pg_tables WHERE tablename = ANY (%s)", [list(TABLES)]
        )
        row = await found.fetchone()
        version = connection.info.server_version
    if version < LEAST_POSTGRES:
        raise Finding(f"is version {version // 10000}: install version 16 or newer.")
    tables = "tables exist" if row == (len(TABLES),) else "the first start creates the tables"
    return f"version {version // 10000}, {tables}"


async def clock(settings: Settings) -> str:
    """This machine's clock agrees with that of Postgres."""
    try:
        async with _session(settings) as connection:
            began = time.time()
            found = await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
            [theirs] = await found.fetchone() or [0.0]
            ended = time.time()
    except Finding:
        return "not compared, because Postgres can't be reached"
    off = (began + ended) / 2 - theirs
    if abs(off) - (ended - began) / 2 > MAX_CLOCK_SECONDS:
        way = "ahead of" if off > 0 else "behind"
        raise Finding(
            f"is {abs(off):.1f} s {way} that of Postgres, and clicks are counted in its minutes: "
            "synchronise both (NTP)."
        )
    return f"differs by {abs(off):.1f} s from that of Postgres"


@contextlib.asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    dsn = settings.postgres_dsn or _embedded_address(settings, "postgres", "--postgres-dsn")
    try:
        async with await psycopg.AsyncConnection.connect(
            dsn, connect_timeout=REACH_SECONDS, autocommit=True
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise Finding(
            f"can't be reached ({_words(error)}): start it, or correct --postgres-dsn."
        ) from error


async def ports(settings: Settings) -> str:
    """Each port is free, or Clickmill is ready on it."""
    said = []
    for host, port, flag in (
        (settings.host, settings.port, "--port"),
        (settings.stats_host, settings.stats_port, "--stats-port"),
    ):
        try:
            check_free(host, port, flag)
            said.append(f"{port} is free")
        except PortTakenError as taken:
            answer = await probe.get(host, port, "/readyz")
            if answer.status == 503:
                raise Finding(f"{port} is not ready: {answer.text}") from taken
            if answer.status != 200:
                raise Finding(str(taken)) from taken
            said.append(f"{port} is ready")
    return ", ".join(said)


def _embedded_address(settings: Settings, name: str, flag: str) -> str:
    data_dir = Path(settings.data_dir)
    address = embedded_server.noted(data_dir, name).get("address")
    if not address:
        raise Finding(
            "no address is given and no embedded server has run here: start `clickmill up`, "
            f"or set {flag}."
        )
    if not _is_running(data_dir):
        raise Finding("its embedded server is not running: start `clickmill up`.")
    return str(address)


def _is_running(data_dir: Path) -> bool:
    pid = lock.holder(data_dir)
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {REACH_SECONDS} s"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
