"""Finds free ports, and reports ports that another program uses."""

from __future__ import annotations

import errno
import socket

from stack.errors import PortTakenError, StackError


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now. Bind it soon: it is not reserved."""
    with socket.socket(_family(host)) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


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
