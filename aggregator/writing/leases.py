"""Which shards this aggregator pulls: Postgres advisory locks, shared out fairly.

Why: two aggregators that pull the same source see gaps in it and wait for each other's rows.
A lease saves that work and nothing more: were two to hold the same shard, the marks would still
count each frame once.

A lease is an advisory lock of a session, so it ends with the process, however that ends. Every
member also holds one shared lock, by which the members find each other: each works out the same
shares from the same list. Postgres itself ends a member that hangs (idle_session_timeout).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from clickmill import wire

SESSION_TIMEOUT: Final = "5s"

log = logging.getLogger("clickmill.leases")

_JOIN: Final = "SELECT pg_advisory_lock_shared(%s, %s)"
_LOCKS: Final = """
SELECT pid, objid::int FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_TRY: Final = "SELECT pg_try_advisory_lock(%s, %s)"
_LEAVE: Final = "SELECT pg_advisory_unlock_shared(%s, %s)"
_RELEASE: Final = "SELECT pg_advisory_unlock(%s, %s)"


class Plan(NamedTuple):
    """The shards to try for, and how many of the own to give up."""

    assign: list[int]
    revoke: int


def share(members: list[int], me: int, shards: int = wire.SHARDS) -> int:
    """How many shards fall to `me`: equal parts, the remainder to the first in the list."""
    if me not in members:
        return 0
    whole, rest = divmod(shards, len(members))
    return whole + (sorted(members).index(me) < rest)


def plan(locks: list[tuple[int, int]], me: int, shards: int = wire.SHARDS) -> Plan:
    """What to do, given all (pid, lock) of the lock class; LOCK_MEMBERS marks the members."""
    members = sorted({pid for pid, lock in locks if lock == postgres.LOCK_MEMBERS})
    owners = {lock: pid for pid, lock in locks if lock < shards}
    mine = sum(pid == me for pid in owners.values())
    room = share(members, me, shards) - mine
    # Each begins at another place, so that they seldom want the same one.
    offset = members.index(me) * shards // len(members) if me in members else 0
    free = [(offset + n) % shards for n in range(shards) if (offset + n) % shards not in owners]
    return Plan(free[: max(0, room)], max(0, -room))


class Changes(NamedTuple):
    """Shards that are this process's from now on, and those that it is to give up."""

    assigned: list[int]
    revoked: list[int]


class Leases:
    """The shards of one session with Postgres: they end with its connection."""

    def __init__(self, connection: AsyncConnection[Any], me: int) -> None:
        """`me` is the number of the connection's backend."""
        self._connection, self._me = connection, me
        self._joined = False
        self._owned: set[int] = set()
        self.members = 0
        """Aggregators that share the shards, as of the last round."""

    @classmethod
    async def on(cls, connection: AsyncConnection[Any]) -> Leases:
        """The leases of a new connection: none yet."""
        return cls(connection, await postgres.backend_pid(connection))

    async def changes(self, able: bool) -> Changes:
        """One round. What is assigned is locked already; what is revoked stays locked until it is
        handed to `release`: the caller stops pulling it first.

        While not `able` (no way to NATS) this process is no member, and leaves its shards to those
        that can pull them.
        """
        await self._join_or_leave(able)
        cursor = await self._connection.execute(_LOCKS, [postgres.LOCK_CLASS])
        locks = await cursor.fetchall()
        self.members = len({pid for pid, lock in locks if lock == postgres.LOCK_MEMBERS})
        todo = plan(locks, self._me)
        assigned = [shard for shard in todo.assign if await self._lock(shard)]
        self._owned.update(assigned)
        if todo.assign or todo.revoke:
            log.info("leases: %d of %d shards, %d aggregators",
                     len(self._owned) - todo.revoke, wire.SHARDS, self.members)  # fmt: skip
        return Changes(assigned, sorted(self._owned, reverse=True)[: todo.revoke])

    async def release(self, shards: Iterable[int]) -> None:
        """Let other aggregators have these: no message of theirs comes in here any more."""
        for shard in shards:
            await self._connection.execute(_RELEASE, [postgres.LOCK_CLASS, shard])
            self._owned.discard(shard)

    async def _join_or_leave(self, able: bool) -> None:
        if able != self._joined:
            statement = _JOIN if able else _LEAVE
            await self._connection.execute(statement, [postgres.LOCK_CLASS, postgres.LOCK_MEMBERS])
            self._joined = able

    async def _lock(self, shard: int) -> bool:
        cursor = await self._connection.execute(_TRY, [postgres.LOCK_CLASS, shard])
        row = await cursor.fetchone()
        return row is not None and bool(row[0])
