"""The output of the embedded servers: which lines matter, and their level."""

from __future__ import annotations

from typing import Final

from stack.supervise.logs import Output

ROUTINE_NATS: Final = ("[INF]", "Plaintext passwords detected", "[DBG]", "[TRC]")
IMPORTANT_POSTGRES: Final = ("WARNING:", "ERROR:", "FATAL:", "PANIC:", "DETAIL:", "HINT:")
_NATS: Final = {"[WRN]": "warning", "[ERR]": "error", "[FTL]": "critical", "[INF]": "info"}
_POSTGRES: Final = {
    "WARNING": "warning",
    "ERROR": "error",
    "FATAL": "error",
    "PANIC": "critical",
    "LOG": "info",
    "NOTICE": "info",
    "DETAIL": "info",
    "HINT": "info",
    "STATEMENT": "info",
    "CONTEXT": "info",
}


def of_nats(debugging: bool) -> Output:
    """The output of nats-server; all of it matters when `debugging`."""
    return Output(_level_of_nats, (lambda _: False) if debugging else _routine_nats)


def of_postgres(debugging: bool) -> Output:
    """The output of Postgres; all of it matters when `debugging`."""
    return Output(_level_of_postgres, (lambda _: False) if debugging else _routine_postgres)


def _level_of_nats(line: str) -> str:
    return next((level for mark, level in _NATS.items() if mark in line), "debug")


def _level_of_postgres(line: str) -> str:
    return _POSTGRES.get(line.partition(":")[0], "debug")


def _routine_nats(line: str) -> bool:
    return any(mark in line for mark in ROUTINE_NATS)


def _routine_postgres(line: str) -> bool:
    return not line.startswith(IMPORTANT_POSTGRES) or "the database system is starting up" in line
