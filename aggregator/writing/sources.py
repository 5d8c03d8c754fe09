"""Lists the open sources, and gives up those of a machine that is lost (`clickmill.sources`).

Why over NATS: it works from any node, and every aggregator receives every heartbeat, so any of
them can answer. A source is given up once no heartbeat came for a while; it is closed, which lets
completeThrough go on, and the table source_given_up says what may be missing.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Final

import msgspec
import psycopg
from nats.aio.msg import Msg

from aggregator.postgres import connection as postgres
from aggregator.writing.completeness import SECOND, OpenSource, Progress
from clickmill import messages, wire
from clickmill.connection import Connection
from clickmill.contract.problem import Problem, quote, unavailable
from clickmill.retry import first_line

QUEUE: Final = "clickmill-aggregators"
LISTEN_S: Final = 2.5
"""An aggregator that was cut off until just now takes every source for silent: before it gives one
up it waits for the heartbeats, which come once a second."""

_GIVE_UP: Final = """
WITH closed AS (
    INSERT INTO source (source, shard, node, closed) VALUES (%(source)s, %(shard)s, %(node)s, true)
    ON CONFLICT (source) DO UPDATE SET closed = true, updated_at = now() WHERE NOT source.closed
    RETURNING source, total, sealed_at
)
INSERT INTO source_given_up (source, node, given_up_by, last_seen, missing_from, total)
SELECT source, %(node)s, %(by)s, to_timestamp(%(seen)s),
       greatest(sealed_at, to_timestamp(%(through)s)), total
FROM closed
"""

log = logging.getLogger("clickmill.sources")


class Sources:
    """Answers `clickmill sources` and `clickmill sources give-up`, over NATS and over HTTP."""

    def __init__(self, connection: Connection, progress: Progress, dsn: str) -> None:
        self._connection, self._progress, self._dsn = connection, progress, dsn
        self._decoder = msgspec.json.Decoder(messages.SourcesRequest)
        self._giving_up = asyncio.Lock()

    async def start(self) -> None:
        """Subscribe; each request is answered by one of the aggregators."""
        await self._connection.subscribe(wire.SOURCES_SUBJECT, self._on_request, QUEUE)

    async def _on_request(self, message: Msg) -> None:
        try:
            reply = await self.answer(self._decoder.decode(message.data))
        except msgspec.DecodeError as error:
            reply = messages.SourcesReply(error=f"the request can't be read: {error}")
        except Problem as problem:
            reply = messages.SourcesReply(error=problem.sentence)
        await self._connection.publish(message.reply, msgspec.json.encode(reply))

    async def answer(self, request: messages.SourcesRequest) -> messages.SourcesReply:
        """The open sources, or those that were given up. Raises Problem: nothing was changed."""
        if not request.give_up:
            return messages.SourcesReply([_row(s) for s in self._progress.open_sources()])
        chosen_of(self._progress.open_sources(), request.give_up)
        async with self._giving_up:
            await asyncio.sleep(LISTEN_S)
            chosen = to_give_up(self._progress.open_sources(), request.give_up)
            try:
                await self._give_up(chosen, request.by)
            except (psycopg.Error, OSError, TimeoutError) as error:
                text = f"Postgres can't be reached ({first_line(error)}): nothing was changed"
                raise unavailable("stats_unavailable", text) from error
        return messages.SourcesReply([_row(s) for s in chosen])

    async def _give_up(self, chosen: list[OpenSource], by: str) -> None:
        async with postgres.session(self._dsn, "sources") as session, session.transaction():
            for s in chosen:
                values = {
                    "source": s.source, "shard": wire.shard_of(s.source), "node": s.node,
                    "by": by, "seen": s.heard / SECOND, "through": s.through / SECOND,
                }  # fmt: skip
                await session.execute(_GIVE_UP, values)
        self._progress.committed({s.source: s.mark._replace(closed=True) for s in chosen})
        for s in chosen:
            log.warning("source %s of node %s given up by %s", s.source, s.node or "?", by)


def chosen_of(sources: list[OpenSource], name: str) -> list[OpenSource]:
    """The sources of a node, or the source of this UUID. Raises Problem 404."""
    chosen = [s for s in sources if name in (s.node, str(s.source))]
    if not chosen:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "unknown_source",
            f"no open source has the node or the UUID {quote(name)}: see clickmill sources",
        )
    return chosen


def to_give_up(sources: list[OpenSource], name: str) -> list[OpenSource]:
    """Those of them that may be given up: all, if all are silent. Raises Problem 404, 409."""
    chosen = chosen_of(sources, name)
    nodes = {s.node for s in chosen if s.node}
    alive = [s for s in sources if not s.silent and (s.node in nodes or s in chosen)]
    if alive:
        raise Problem(
            HTTPStatus.CONFLICT,
            "source_is_alive",
            f"{alive[0].node or alive[0].source} lives, its last heartbeat is no more than 10 s "
            "old: stop it, or let its workers adopt what is left there. If two machines have this "
            "name, first give the one that lives another CLICKMILL_NODE. Nothing was changed",
        )
    return chosen


def _row(s: OpenSource) -> messages.SourceRow:
    return messages.SourceRow(
        s.source, s.node, s.heard / SECOND, s.mark.last_seq, s.mark.total, s.through / SECOND,
        s.silent,
    )  # fmt: skip
