"""Errors at the start. Their text is the message to the user and says what to do."""

from __future__ import annotations


class StackError(RuntimeError):
    """The system can't start or continue. A retry without a change won't help."""


class PortTakenError(StackError):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int, flag: str) -> None:
        super().__init__(
            f"Port {port} on {host} is taken by another program: stop that program, "
            f"or choose another port with {flag}."
        )


class DataDirInUseError(StackError):
    """A second supervisor on the same data directory."""

    def __init__(self, data_dir: object, pid: str) -> None:
        super().__init__(
            f"Clickmill is already running on {data_dir}, as process {pid}: "
            f"stop it first (kill {pid}), or choose another directory with --data-dir."
        )
