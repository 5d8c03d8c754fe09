"""`clickmill sources`: lists the workers that report; `give-up` closes those of a lost machine.

An aggregator answers over NATS, so this works on any node without access to Postgres.
"""

from __future__ import annotations

import asyncio
import getpass
import socket
import time
from typing import Final

import msgspec
import nats.errors
from rich.console import Console
from rich.table import Table

from clickmill import bus, messages, wire
from clickmill.settings import Settings
from stack.errors import StackError

REACH_S: Final = 3.0
ANSWER_S: Final = 12.0


def show(settings: Settings, give_up: str = "") -> None:
    """Print the open sources, or those that were given up. Raises StackError."""
    who = f"{getpass.getuser()}@{socket.gethostname()}" if give_up else ""
    reply = asyncio.run(_ask(settings.nats_url, messages.SourcesRequest(give_up, who)))
    if reply.error:
        raise StackError(reply.error)
    Console().print(_table(reply.sources, time.time(), "given up" if give_up else ""))


async def _ask(url: str, request: messages.SourcesRequest) -> messages.SourcesReply:
    try:
        async with asyncio.timeout(REACH_S):
            client = await bus.connect(url, "clickmill-sources", _ignore)
    except TimeoutError:
        text = f"NATS does not answer within {REACH_S:.0f} s: see clickmill doctor"
        raise StackError(text) from None
    try:
        data = msgspec.json.encode(request)
        reply = await client.request(wire.SOURCES_SUBJECT, data, timeout=ANSWER_S)
    except (nats.errors.Error, TimeoutError):
        text = (
            "no aggregator answered: check that one is running; after `give-up`, "
            "`clickmill sources` shows whether it was done"
        )
        raise StackError(text) from None
    finally:
        await bus.close(client)
    return msgspec.json.decode(reply.data, type=messages.SourcesReply)


async def _ignore(_: Exception) -> None:
    """The error is reported once, at the end."""


def _table(rows: list[messages.SourceRow], now: float, state: str) -> Table:
    table = Table("node", "source", "last seen", "last frame", "lag", "state", box=None)
    for row in rows:
        lag = f"{max(0.0, now - row.complete_through):.0f} s" if row.complete_through else "?"
        table.add_row(
            row.node or "?", str(row.source), f"{max(0.0, now - row.last_seen):.0f} s ago",
            str(row.last_seq), lag, state or ("silent" if row.silent else "live"),
        )  # fmt: skip
    return table
