"""Which shards this aggregator pulls: Postgres advisory locks, shared out fairly.

Why: two aggregators that pull the same source see gaps in it and wait for each other's rows.
A lease saves that work and nothing more: were two to hold the same shard, the marks would still
count each frame once.

A lease is a session's advisory lock, so it ends with the process, however that ends. Every
member also holds one shared lock, by which the members see each other: each works out the same
shares from the same list. A member that hangs is ended by Postgres itself (idle_session_timeout).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from clickmill import wire

EVERY_S: Final = 0.5
RETRY_S: Final = 0.5
ROUND_TIMEOUT_S: Final = 5.0
SESSION_TIMEOUT: Final = "6s"

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
    """The shards to try for, and how many of the own to give back."""

    take: list[int]
    give: int


def share(members: list[int], me: int, shards: int = wire.SHARDS) -> int:
    """How many shards fall to `me`: equal parts, the remainder to the first in the list."""
    if me not in members:
        return 0
    whole, rest = divmod(shards, len(members))
    return whole + (sorted(members).index(me) < rest)


def plan(locks: list[tuple[int, int]], me: int, shards: int = wire.SHARDS) -> Plan:
    """What to do, given all (pid, lock) of the lock class; LOCK_MEMBERS marks the members."""
    members = sorted({pid for pid, lock in locks if lock == postgres.LOCK_MEMBERS})
    held = {lock: pid for pid, lock in locks if lock < shards}
    mine = sum(pid == me for pid in held.values())
    room = share(members, me, shards) - mine
    # Each begins at another place, so that they seldom want the same one.
    offset = members.index(me) * shards // len(members) if me in members else 0
    free = [(offset + n) % shards for n in range(shards) if (offset + n) % shards not in held]
    return Plan(free[: max(0, room)], max(0, -room))


class Leases:
    """Keeps this process's share of the shards, for as long as `run` runs."""

    def __init__(
        self,
        dsn: str,
        take: Callable[[int], None],
        drop: Callable[[int], Awaitable[None]],
        each_round: Callable[[AsyncConnection[Any], bool, bool], Awaitable[None]],
        lost: Callable[[], None],
        able: Callable[[], bool] = lambda: True,
    ) -> None:
        """`take` begins pulling a shard; `drop` ends it and returns once nothing more comes.

        `each_round(connection, first, alone)` is called once a round, for reading on the same
        session: `first` on a new session, `alone` while there is no other member. `lost()` is
        called when a session has broken. While `able()` is false (no way to NATS) this process
        is no member, and leaves the shards to those that can pull them.
        """
        self._dsn, self._take, self._drop, self._each_round = dsn, take, drop, each_round
        self._lost, self._able = lost, able
        self._joined = False
        self.owned: set[int] = set()
        self.members = 0

    async def run(self) -> None:
        """Join, keep the share, and join again after every loss of the session. Never returns."""
        while True:
            try:
                connection = await postgres.connect(
                    self._dsn, "leases", idle_session_timeout=SESSION_TIMEOUT
                )
                try:
                    await self._hold(connection)
                finally:
                    self._lost()
                    await self._lose_all()
                    await connection.close()
            except (psycopg.Error, OSError, TimeoutError) as error:
                text = str(error).strip().partition("\n")[0] or type(error).__name__
                log.warning("leases: %s; joining again", text)
                await asyncio.sleep(RETRY_S)

    async def _hold(self, connection: AsyncConnection[Any]) -> None:
        # Asked for, not taken from the connection: a pooler in between has numbers of its own.
        row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
        assert row is not None
        first, self._joined = True, False
        while True:
            async with asyncio.timeout(ROUND_TIMEOUT_S):
                await self._join_or_leave(connection)
                await self._round(connection, row[0])
                await self._each_round(connection, first, self.members <= 1)
            first = False
            await asyncio.sleep(EVERY_S)

    async def _join_or_leave(self, connection: AsyncConnection[Any]) -> None:
        able = self._able()
        if able != self._joined:
            statement = _JOIN if able else _LEAVE
            await connection.execute(statement, [postgres.LOCK_CLASS, postgres.LOCK_MEMBERS])
            self._joined = able

    async def _round(self, connection: AsyncConnection[Any], me: int) -> None:
        cursor = await connection.execute(_LOCKS, [postgres.LOCK_CLASS])
        locks = await cursor.fetchall()
        self.members = len({pid for pid, lock in locks if lock == postgres.LOCK_MEMBERS})
        todo = plan(locks, me)
        await self._give(connection, sorted(self.owned, reverse=True)[: todo.give])
        for shard in todo.take:
            cursor = await connection.execute(_TRY, [postgres.LOCK_CLASS, shard])
            got = await cursor.fetchone()
            if got is not None and got[0]:
                self.owned.add(shard)
                self._take(shard)
        if todo.take or todo.give:
            log.info("leases: %d of %d shards, %d aggregators",
                     len(self.owned), wire.SHARDS, self.members)  # fmt: skip

    async def _give(self, connection: AsyncConnection[Any], shards: list[int]) -> None:
        """Hand shards over: nothing of them may come in any more when the next one takes them."""
        await asyncio.gather(*(self._drop(shard) for shard in shards))
        self.owned.difference_update(shards)
        for shard in shards:
            await connection.execute(_RELEASE, [postgres.LOCK_CLASS, shard])

    async def _lose_all(self) -> None:
        """The session is gone, and with it the leases: stop pulling."""
        lost, self.owned = self.owned, set()
        await asyncio.gather(*(self._drop(shard) for shard in lost))
