"""Ports for tests, each handed out to one test alone.

Why not port 0: a port that was found free and let go of may be dealt to the next who asks, and
our workers listen with SO_REUSEPORT, so that two systems would share it in silence and count
each other's clicks. So every process takes a block of ports for itself, below those that the
kernel and the supervisor deal out, and goes round in it. Holding the block's first port is what
makes it ours; it ends with the process.
"""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"
FIRST: Final = 10_250
"""Above 10080, which browsers refuse to open (the Fetch standard's list of bad ports)."""
END: Final = 20_000
"""The supervisor takes the ports of its own servers from here on (`stack.ports`)."""
BLOCK: Final = 250


class NoPortError(RuntimeError):
    """Every block is taken: does some other run of the tests hang?"""


def free_port() -> int:
    """A port on which nobody listens, and which no other test is given."""
    _, ports = _our_block()
    return next(port for port in itertools.islice(ports, BLOCK) if _is_free(port))


@functools.cache
def _our_block() -> tuple[socket.socket, Iterator[int]]:
    """The socket that holds this process's block, and its ports, round and round."""
    for first in range(FIRST, END, BLOCK):
        holder = socket.socket()
        try:
            holder.bind((HOST, first))
        except OSError:
            holder.close()
        else:
            return holder, itertools.cycle(range(first + 1, first + BLOCK))
    raise NoPortError(NoPortError.__doc__)


def _is_free(port: int) -> bool:
    """By a plain bind: with SO_REUSEPORT we would join a stranger instead of seeing him."""
    with socket.socket() as sock:
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True
