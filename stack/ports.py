"""Finds free ports, and reports ports that another program uses."""

from __future__ import annotations

import errno
import secrets
import socket
from pathlib import Path
from typing import Final

from stack.errors import PortTakenError, StackError

FIRST: Final = 20_000
TRIES: Final = 100
CONNECTIONS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The ports that Linux gives to outgoing connections, and to a bind to port 0."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now. Bind it soon: it is not reserved.

    Where the machine's settings allow it, no outgoing connection can take it either: otherwise one
    may have it at the moment at which a server starts again.
    """
    below = range(FIRST, _first_of_connections())
    drawn = secrets.SystemRandom().sample(below, min(TRIES, len(below)))
    for port in (*drawn, 0):
        with socket.socket(_family(host)) as sock:
            try:
                sock.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return int(sock.getsockname()[1])
    raise StackError(f"Every port of address {host} is in use.")


def _first_of_connections() -> int:
    try:
        return int(CONNECTIONS.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return FIRST


def check_free(host: str, port: int, flag: str) -> None:
    """Raises PortTakenError if another program listens there; `flag` is the option to change.

    It does not set SO_REUSEPORT, which would share the port with the other program.
    """
    try:
        with socket.socket(_family(host)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(host, port, flag) from error
        if error.errno == errno.EACCES:
            raise StackError(
                f"Only root can listen on port {port}: choose a port from 1024 up with {flag}."
            ) from error
        raise StackError(
            f"Can't listen on address {host} ({error.strerror}): choose another with "
            f"{flag.replace('port', 'host')}."
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
