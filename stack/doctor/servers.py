"""Checks of Postgres and the ports, and of the clock against Postgres."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import psycopg

from clickmill.settings import Settings
from stack import probe
from stack.doctor.address import REACH_SECONDS, embedded_address, words
from stack.doctor.finding import Finding
from stack.errors import PortTakenError
from stack.ports import check_free

LEAST_POSTGRES: Final = 160000
MAX_CLOCK_SECONDS: Final = 2.0
TABLES: Final = ("banner_minute", "banner", "source", "quarantine")


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
    dsn = settings.postgres_dsn or embedded_address(settings, "postgres", "--postgres-dsn")
    try:
        async with await psycopg.AsyncConnection.connect(
            dsn, connect_timeout=REACH_SECONDS, autocommit=True
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise Finding(
            f"can't be reached ({words(error)}): start it, or correct --postgres-dsn."
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
