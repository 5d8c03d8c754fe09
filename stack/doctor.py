"""`clickmill doctor`: checks everything that a running system needs, and says what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import nats.errors
import psycopg
from nats.aio.client import Client

from clickmill import bus, openfiles, wire
from clickmill.build_info import build
from clickmill.settings import Settings
from ingest.shipping.payload import largest_frame
from stack import lock, plan, probe
from stack.embedded import server as embedded_server
from stack.errors import PortTakenError, StackError
from stack.ports import check_free

REACH_SECONDS: Final = 3
LEAST_FREE_BYTES: Final = 1 << 30
LEAST_POSTGRES: Final = 160000
TABLES: Final = ("banner_minute", "banner", "source", "quarantine")


class Finding(RuntimeError):  # noqa: N818  # the term of this module
    """Something is wrong; the text says what, and what to do."""


def examine(settings: Settings) -> int:
    """Runs every check and prints a line for each; the number of those that failed."""
    logging.getLogger("clickmill").addHandler(logging.NullHandler())  # the findings are enough
    return asyncio.run(_examine(settings))


async def _examine(settings: Settings) -> int:
    failed = 0
    for name, check in _CHECKS.items():
        try:
            print(f"ok      {name}: {await check(settings)}")
        except (Finding, StackError) as finding:
            print(f"failed  {name}: {finding}")
            failed += 1
    print(_summary(failed))
    return failed


def _summary(failed: int) -> str:
    if not failed:
        return "All checks passed."
    return "1 check failed." if failed == 1 else f"{failed} checks failed."


async def _programs(_: Settings) -> str:
    plan.check_extensions()
    versions = build()
    ours, python = versions["version"], versions["python"]
    return f"Clickmill {ours} on Python {python}, compiled modules found"


async def _settings(settings: Settings) -> str:
    return f"{settings.worker_count} workers, banner IDs up to {settings.max_banner_id}"


async def _open_files(settings: Settings) -> str:
    limit = openfiles.allow_most()
    if sentence := openfiles.too_few(limit, settings.max_connections):
        raise Finding(f"{sentence}.")
    return f"{limit} at a time, {settings.max_connections} of them connections of a worker"


async def _data_dir(settings: Settings) -> str:
    path = Path(settings.data_dir).resolve()
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK | os.X_OK):
        raise Finding(
            f"{place} can't be written to: change its owner, or choose another --data-dir."
        )
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE_BYTES:
        raise Finding(
            f"{place} has {free >> 20} MiB left: free some space, or choose another --data-dir."
        )
    return f"{path}, {free >> 30} GiB free"


async def _nats(settings: Settings) -> str:
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


async def _postgres(settings: Settings) -> str:
    dsn = settings.postgres_dsn or _embedded_address(settings, "postgres", "--postgres-dsn")
    try:
        async with await psycopg.AsyncConnection.connect(
            dsn, connect_timeout=REACH_SECONDS, autocommit=True
        ) as connection:
            found = await connection.execute(
                "SELECT count(*) FROM pg_tables WHERE tablename = ANY (%s)", [list(TABLES)]
            )
            row = await found.fetchone()
            version = connection.info.server_version
    except psycopg.Error as error:
        raise Finding(
            f"can't be reached ({_words(error)}): start it, or correct --postgres-dsn."
        ) from error
    if version < LEAST_POSTGRES:
        raise Finding(f"is version {version // 10000}: install version 16 or newer.")
    tables = "tables exist" if row == (len(TABLES),) else "the first start creates the tables"
    return f"version {version // 10000}, {tables}"


async def _ports(settings: Settings) -> str:
    said = []
    for port, flag in ((settings.port, "--port"), (settings.stats_port, "--stats-port")):
        try:
            check_free(settings.host, port, flag)
            said.append(f"{port} is free")
        except PortTakenError as taken:
            answer = await probe.get(settings.host, port, "/readyz")
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


_CHECKS: Final[dict[str, Callable[[Settings], Awaitable[str]]]] = {
    "programs": _programs,
    "settings": _settings,
    "open files": _open_files,
    "data directory": _data_dir,
    "NATS": _nats,
    "Postgres": _postgres,
    "ports": _ports,
}
