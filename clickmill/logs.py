"""The format of log lines, the same for every process: with time and level, as text or as JSON.

    2026-11-26T01:09:34.123Z WARNING  clickmill.shipper: a frame was not published
    {"time":"2026-11-26T01:09:34.123Z","level":"warning","process":"ingest-1", …}

docs/logs.md lists the fields, which are stable. A process writes its lines to its standard error;
a supervisor reads them there and adds the process's name.
"""

from __future__ import annotations

import logging
import re
import time
from datetime import UTC, datetime
from typing import Final

import msgspec

TEXT: Final = "text"
JSON: Final = "json"
MAX_BYTES: Final = 4000
"""Of a message or a traceback as JSON: the longest line that a supervisor reads in one piece."""
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_LINE: Final = re.compile(rf"(\S+Z) ({'|'.join(LEVELS).upper()}) +([\w.]+): (.*)")


class Record(msgspec.Struct, omit_defaults=True):
    """One log line. The names of the fields are those of the JSON format."""

    time: str
    level: str
    message: str
    process: str = ""
    logger: str = ""
    traceback: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Record).decode


def now() -> str:
    """The current time as it is written in a log line."""
    return _time(time.time())


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(level: str, kind: str) -> None:
    """Has this process log in this format, warnings of Python and of libraries included."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if kind == JSON else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def as_json(record: Record) -> str:
    """The record as a line, at most MAX_BYTES long: first the traceback is shortened."""
    line = _encode(record)
    if len(line) > MAX_BYTES and record.traceback:
        record.traceback = ""
        return as_json(record)
    if len(line) > MAX_BYTES:
        record.message = record.message[: MAX_BYTES // 12]  # a character takes up to 12 bytes
        line = _encode(record)
    return line.decode()


def as_text(record: Record) -> str:
    """The record as one line for each of its message; the process's name is not in it."""
    head = f"{record.time} {record.level.upper():<8} "
    if record.logger:
        head += f"{record.logger}: "
    text = f"{record.message}\n{record.traceback}" if record.traceback else record.message
    return "\n".join(head + line for line in text.splitlines() or [""])


def parse(line: str, kind: str) -> Record | None:
    """The record of a line that another process of Clickmill wrote; None if it is not one."""
    if kind == JSON:
        try:
            return _decode(line)
        except msgspec.MsgspecError:
            return None
    match = _LINE.fullmatch(line)
    return match and Record(match[1], match[2].lower(), match[4], logger=match[3])


def _record(record: logging.LogRecord) -> Record:
    traceback = ""
    if record.exc_info:
        traceback = logging.Formatter().formatException(record.exc_info)
    return Record(
        _time(record.created), record.levelname.lower(), record.getMessage(),
        logger=record.name, traceback=traceback,
    )  # fmt: skip


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return as_text(_record(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return as_json(_record(record))
