"""The supervisor's end of a child's heartbeat (clickmill/heartbeat.py is the child's end)."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from clickmill import heartbeat

READ_BYTES: Final = 4096
CHECK_SECONDS: Final = 0.25
SILENCE_SECONDS: Final = 5.0

# The silence is detected within this time; the replacement has the rest of 10 s to start.
assert SILENCE_SECONDS + CHECK_SECONDS < 8


class Heartbeats:
    """A pipe in which the child sends that it is ready, and then a byte every half second."""

    def __init__(self) -> None:
        """Raises OSError if no descriptor is left."""
        self.ready = asyncio.Event()
        self._received = time.monotonic()
        self._reading, self.child_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def env(self) -> dict[str, str]:
        """Environment variables with which the child finds the pipe."""
        return {
            heartbeat.PARENT_PID: str(os.getpid()),
            heartbeat.HEARTBEAT_FD: str(self.child_end),
        }

    async def wait_silent(self) -> str:
        """Returns the reason once the child has sent nothing for too long."""
        while time.monotonic() - self._received <= SILENCE_SECONDS:
            await asyncio.sleep(CHECK_SECONDS)
            # Read again before deciding: this process itself may have been suspended.
            self._read()
        return f"sent no heartbeat for {SILENCE_SECONDS:g} s"

    def close_child_end(self) -> None:
        """Closes this process's copy of the end that the child has inherited."""
        os.close(self.child_end)

    def close(self) -> None:
        """Stops reading."""
        if self._reading >= 0:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1

    def _read(self) -> None:
        if self._reading < 0:
            return
        try:
            data = os.read(self._reading, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._received = time.monotonic()
        if heartbeat.READY in data:
            self.ready.set()
