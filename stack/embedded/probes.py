"""Probes of the embedded servers: whether they are ready, and later whether they hang.

A server that answers is alive, even with an error (too many connections, recovery after a crash).
Only silence means that it hangs, unless the supervisor lacks the descriptors or memory to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from typing import Final

import psycopg

from stack.embedded import roles as embedded_roles
from stack.embedded.server import LOOPBACK, Server
from stack.supervise.child import Probes
from stack.supervise.probing import ANSWER_SECONDS

INFO_MAX_BYTES: Final = 64 << 10
REFUSAL: Final = b"-ERR"
UNABLE: Final = (OSError, RuntimeError, psycopg.Error)


def of_nats(server: Server) -> Probes:
    """The probes of the embedded nats-server."""
    return Probes(
        functools.partial(nats_is_ready, server), functools.partial(nats_is_alive, server)
    )


def of_postgres(server: Server) -> Probes:
    """The probes of the embedded Postgres."""
    return Probes(PostgresReady(server), functools.partial(postgres_is_alive, server))


async def nats_is_ready(server: Server) -> bool:
    """Whether the server sends its greeting, which it does only after JetStream has recovered."""
    try:
        return _has_jetstream(await _greeting(server))
    except (OSError, TimeoutError):
        return False


async def nats_is_alive(server: Server) -> bool:
    """Whether the server sends a greeting or an error, and has not disabled JetStream."""
    try:
        line = await _greeting(server)
    except TimeoutError:
        return False
    except UNABLE:
        return True
    return not line or line.startswith(REFUSAL) or _has_jetstream(line)


class PostgresReady:
    """Whether the server accepts sessions and has its roles and database, which it creates once.

    It does not create them again at restarts, because that writes, and a server on a full disk
    must still become ready for reading.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._created = False

    async def __call__(self) -> bool:
        """One probe."""
        try:
            await (_query(self._server) if self._created else embedded_roles.create(self._server))
        except (psycopg.OperationalError, OSError, TimeoutError):
            return False
        self._created = True
        return True


async def postgres_is_alive(server: Server) -> bool:
    """Whether a new session answers a query, or the server returns an error."""
    try:
        await _query(server)
    except (TimeoutError, psycopg.errors.ConnectionTimeout):
        return False
    except UNABLE:
        return True
    return True


async def _query(server: Server) -> None:
    """Uses a new session, because an existing one does not involve the postmaster."""
    async with (
        asyncio.timeout(ANSWER_SECONDS),
        await psycopg.AsyncConnection.connect(server.admin, autocommit=True) as session,
    ):
        await session.execute("SELECT 1")


async def _greeting(server: Server) -> bytes:
    """The first line that a new client gets. Raises OSError, TimeoutError."""
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port, limit=INFO_MAX_BYTES)
        try:
            return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _has_jetstream(line: bytes) -> bool:
    try:
        return line.startswith(b"INFO ") and json.loads(line[5:]).get("jetstream") is True
    except ValueError:
        return False
