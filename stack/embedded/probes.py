"""How the embedded servers are asked whether they are ready, and later whether they hang.

Alive is whoever answers, a refusal too: too many connections, recovery after a crash. Only silence
counts, and not where it is we who have no descriptor or memory left to ask with.
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
    """Whether the server greets a client, which it does only after JetStream is recovered."""
    try:
        return _has_jetstream(await _greeting(server))
    except (OSError, TimeoutError):
        return False


async def nats_is_alive(server: Server) -> bool:
    """Whether the server greets a client, or refuses one, and has not given JetStream up."""
    try:
        line = await _greeting(server)
    except TimeoutError:
        return False
    except UNABLE:
        return True
    return not line or line.startswith(REFUSAL) or _has_jetstream(line)


class PostgresReady:
    """Whether the server takes sessions, and our roles and database are there; makes them once.

    Not again at later starts: that writes, and a server that is back on a full disk can be read.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._settled = False

    async def __call__(self) -> bool:
        """Asks once."""
        try:
            await (_query(self._server) if self._settled else embedded_roles.settle(self._server))
        except (psycopg.OperationalError, OSError, TimeoutError):
            return False
        self._settled = True
        return True


async def postgres_is_alive(server: Server) -> bool:
    """Whether a new session answers a query, or the server says why it gives none."""
    try:
        await _query(server)
    except (TimeoutError, psycopg.errors.ConnectionTimeout):
        return False
    except UNABLE:
        return True
    return True


async def _query(server: Server) -> None:
    """In a session of its own: one that is there already says nothing of the postmaster."""
    async with (
        asyncio.timeout(ANSWER_SECONDS),
        await psycopg.AsyncConnection.connect(server.admin, autocommit=True) as session,
    ):
        await session.execute("SELECT 1")


async def _greeting(server: Server) -> bytes:
    """The first line for a new client. Raises OSError, TimeoutError."""
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
