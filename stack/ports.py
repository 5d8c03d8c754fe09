"""Ports: which are free, and which are taken by somebody else."""

from __future__ import annotations

import errno
import socket

from stack.errors import PortTakenError, StackError


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now. Bind it soon: it is not reserved."""
    with socket.socket(_family(host)) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def check_free(host: str, port: int, flag: str) -> None:
    """Raises PortTakenError if somebody listens there; `flag` is the option to change.

    A plain bind on purpose: with SO_REUSEPORT we would join a stranger instead of seeing him.
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
                f"Port {port} may be opened by root alone: choose one from 1024 with {flag}."
            ) from error
        raise StackError(
            f"Address {host} can't be listened on ({error.strerror}): choose another with --host."
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
