"""Refuses a connection pooler in transaction mode, such as PgBouncer with pool_mode=transaction.

Why: leases are advisory locks of a session, and time-outs are settings of a session. In transaction
mode consecutive statements of one connection run in sessions that other clients use as well, so
two aggregators could hold one lease, without any error.
"""

from __future__ import annotations

from typing import Final

from aggregator.postgres.connection import backend_pid, session
from aggregator.postgres.migrations import SchemaError

TRIES: Final = 5


class PoolerError(SchemaError):
    """Sessions are shared with other clients; the message says what to do."""

    def __init__(self) -> None:
        super().__init__(
            "Postgres is behind a pooler in transaction mode, which takes sessions apart: set "
            "pool_mode=session for this database, or connect to Postgres directly"
        )


async def refuse_transaction_mode(dsn: str) -> None:
    """Raises PoolerError if the second of two connections gets the session of the first."""
    async with session(dsn, "check") as one, session(dsn, "check") as other:
        if one.info.backend_pid == await backend_pid(one):
            return  # a pooler reports a number of its own at the start of a connection
        for _ in range(TRIES):
            before = await backend_pid(one)
            async with other.transaction():
                if await backend_pid(other) == before:
                    raise PoolerError
