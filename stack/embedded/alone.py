"""Runs the embedded Postgres without a supervisor, for a backup or a restore."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Final

from stack.embedded import leftovers
from stack.embedded.probes import PostgresReady
from stack.embedded.server import Server
from stack.errors import StackError

READY_SECONDS: Final = 3600.0  # recovery after a crash may take long
POLL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 60.0
LAST_LINES: Final = 3


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, ready, until the block ends. Raises StackError if it does not start."""
    asyncio.run(leftovers.clear(server.cwd))
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            server.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **server.popen_options(),
        ) as process,
    ):
        try:
            asyncio.run(_wait_ready(server, process, output))
            yield server
        finally:
            _stop(server, process)


async def _wait_ready(server: Server, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    ready, deadline = PostgresReady(server), time.monotonic() + READY_SECONDS
    while not await ready():
        if process.poll() is not None or time.monotonic() > deadline:
            output.seek(0)
            lines = output.read().decode("utf-8", "replace").strip().splitlines()[-LAST_LINES:]
            raise StackError(f"{server.name} does not start: {'; '.join(lines)}.")
        await asyncio.sleep(POLL_SECONDS)


def _stop(server: Server, process: subprocess.Popen[bytes]) -> None:
    process.send_signal(server.stop_signal)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(server.death_signal)
