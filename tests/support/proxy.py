"""A real TCP proxy in front of Postgres that can cut a session exactly at COMMIT.

It reads the client's protocol messages as they pass, so it knows which of them is the COMMIT,
whether it goes as a simple query or as a prepared statement. Two cuts:

    before: the COMMIT is swallowed and both sides are closed; the server never sees it;
    after:  the COMMIT goes through, the server's answer to it is swallowed, then both close.

    with running_proxy(port) as proxy:
        connect("... port={proxy.port}")
        proxy.cut = "after"          # the next COMMIT; proxy.cuts counts them
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Literal

Cut = Literal["before", "after"]
CHUNK = 65_536
START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 2
# An SSL or GSS request, or a cancellation: eight or sixteen bytes without a type.
_REQUESTS = {80877103, 80877104, 80877102}


class Proxy:
    """One listening port; all sessions go to the same server."""

    def __init__(self, target_port: int, host: str = "127.0.0.1", is_postgres: bool = True) -> None:
        """Without `is_postgres` nothing is read on the way: for links that are only cut."""
        self.target_port, self.host, self.is_postgres = target_port, host, is_postgres
        self.port = 0
        self.cut: Cut | None = None
        """What to do at the next COMMIT; back to None once it is done, unless `every` is set."""
        self.every = 0
        """Cut each n-th COMMIT, before and after in turns; 0: only as `cut` says."""
        self.cuts = {"before": 0, "after": 0}
        self.commits = 0
        self.refuse = False
        """Close new sessions at once, as a server that is down."""
        self._sessions: set[_Session] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut_all()

    def cut_all(self) -> None:
        """Cut every open session now; may be called from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._cut_all)

    def tell_all(self, data: bytes) -> None:
        """Send every client these bytes as if the server had, and then cut; from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._tell_all, data)

    def _tell_all(self, data: bytes) -> None:
        for session in list(self._sessions):
            session.tell(data)

    def _cut_all(self) -> None:
        for session in list(self._sessions):
            session.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        try:
            up = await asyncio.open_connection(self.host, self.target_port)
        except OSError:
            writer.close()
            return
        session = _Session(self, (reader, writer), up)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            session.close()

    def at_commit(self) -> Cut | None:
        """Whether this COMMIT is to be cut, and how."""
        self.commits += 1
        cut = self.cut
        self.cut = None
        if self.every and self.commits % self.every == 0:
            cut = "before" if self.commits // self.every % 2 else "after"
        if cut:
            self.cuts[cut] += 1
        return cut


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Session:
    def __init__(self, proxy: Proxy, client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._statements: dict[bytes, bytes] = {}
        self._swallow_answer = False

    async def run(self) -> None:
        ways = [asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    def tell(self, data: bytes) -> None:
        self._to_client.write(data)
        self._to_client.close()  # once it is sent

    def close(self) -> None:
        for writer in (self._to_client, self._to_server):
            if writer.transport is not None:
                writer.transport.abort()

    async def _downwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._from_server.read(CHUNK):
                if self._swallow_answer and b"COMMIT\0" in data:
                    return
                self._to_client.write(data)
                await self._to_client.drain()

    async def _upwards(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if not self._proxy.is_postgres:
                while data := await self._from_client.read(CHUNK):
                    self._to_server.write(data)
                    await self._to_server.drain()
                return
            await self._startup()
            while True:
                head = await self._from_client.readexactly(5)
                body = await self._from_client.readexactly(int.from_bytes(head[1:], "big") - 4)
                cut = self._proxy.at_commit() if self._is_commit(head[:1], body) else None
                if cut == "before":
                    return
                self._swallow_answer = self._swallow_answer or cut == "after"
                self._to_server.write(head + body)
                await self._to_server.drain()

    async def _startup(self) -> None:
        """The first messages have no type; after SSL or GSS was refused comes another."""
        while True:
            size = await self._from_client.readexactly(4)
            body = await self._from_client.readexactly(int.from_bytes(size, "big") - 4)
            self._to_server.write(size + body)
            if int.from_bytes(body[:4], "big") not in _REQUESTS:
                return

    def _is_commit(self, kind: bytes, body: bytes) -> bool:
        """A simple query, or a Bind of a statement that was parsed from this text."""
        if kind == b"Q":
            text = body.rstrip(b"\0")
        elif kind == b"P":
            name, text, *_ = body.split(b"\0", 2)
            self._statements[name] = text
            return False
        elif kind == b"B":
            text = self._statements.get(body.split(b"\0", 2)[1], b"")
        else:
            return False
        return text.strip().upper() == b"COMMIT"


@contextlib.contextmanager
def running_proxy(target_port: int, is_postgres: bool = True) -> Iterator[Proxy]:
    """A proxy in a thread of its own, for tests that are not asynchronous themselves."""
    proxy = Proxy(target_port, is_postgres=is_postgres)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(START_TIMEOUT_S)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_shut_down(proxy), loop).result(START_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_TIMEOUT_S)
        loop.close()


async def _shut_down(proxy: Proxy) -> None:
    await proxy.stop()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if rest:
        _, rest = map(list, await asyncio.wait(rest, timeout=STOP_TIMEOUT_S))
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
