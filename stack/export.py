"""`clickmill export`: all clicks into a file, and with `--since last` what came since then.

The file is a response of the statistics port, and its last line says up to when it is whole. That
line is the only record of where to go on: it is written after everything before it is on the disk,
and what an interrupted export has left behind it is cut off. An export ends at the last bucket of
which every click is counted (`tsTo=complete`): the next one neither repeats nor misses a click.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from clickmill.settings import Settings
from stack import probe
from stack.errors import StackError
from stack.progress import progress

LAST: Final = "last"
STDOUT: Final = "-"
CHUNK_BYTES: Final = 1 << 16
TIMEOUT_S: Final = 60.0
COMPLETE_HEADER: Final = "Clickmill-Complete-Through"
TRY_AGAIN: Final = "check that an aggregator runs, and run it again with --since last."
# Longer than the last line of any table.
TAIL_BYTES: Final = 512
_LAST_LINE: Final = re.compile(
    rb"(?:^|\n)(?:# complete until ([^,\s]+),(\d+),(\d+)\r"
    rb'|\{"complete":true,"tsTo":"([^"]+)","rows":(\d+),"Counts":(\d+)\})\n'
)
_MOMENT: Final = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_BEGINNINGS: Final = {"csv": b"ts,", "ndjson": b'{"ts":'}


class Wanted(NamedTuple):
    """What to export, as the command line says."""

    file: str
    since: str
    until: str
    step: str
    tz: str
    banners: list[str]
    form: str


class Last(NamedTuple):
    """The last line of a table: until when it is whole, its lines, the sum of their clicks."""

    until: str
    rows: int
    clicks: int


def export(settings: Settings, wanted: Wanted) -> str:
    """The sentence that says what was done. Raises StackError."""
    form = wanted.form or ("ndjson" if wanted.file.endswith((".ndjson", ".jsonl")) else "csv")
    with _opened(wanted, form) as (out, since):
        last = _receive(settings, wanted, form, since, out)
    return f"{last.rows:,} rows with {last.clicks:,} clicks, until {last.until}."


@contextlib.contextmanager
def _opened(wanted: Wanted, form: str) -> Iterator[tuple[BinaryIO, str]]:
    """The file, at the place where the rows go, and since when they are wanted."""
    goes_on = wanted.since == LAST
    if wanted.file == STDOUT:
        if goes_on:
            raise StackError("--since last needs a FILE that says where the last export ended.")
        yield sys.stdout.buffer, wanted.since
        return
    path = Path(wanted.file)
    try:
        with path.open("a+b" if goes_on else "xb") as out:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            until = _go_on(out, path, form) if goes_on else ""
            yield out, until or ("" if goes_on else wanted.since)
    except FileExistsError:
        text = f"{path} exists: use `--since last` to go on where it ends, or another name."
        raise StackError(text) from None
    except BlockingIOError:
        raise StackError(f"{path} is in use by another export: wait until it ends.") from None
    except OSError as error:
        text = (
            f"{path} can't be written ({error.strerror or error}): check its folder and the disk."
        )
        raise StackError(text) from error


def _go_on(out: BinaryIO, path: Path, form: str) -> str:
    """Until when the file is whole; what is behind that is cut off. Empty: it begins now."""
    out.seek(0)
    start = out.read(len(_BEGINNINGS[form]))
    if start and not _BEGINNINGS[form].startswith(start) and _parse(_head_line(out)) is None:
        raise StackError(f"{path} is not an export as {form}: give another name or format.")
    end = out.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - CHUNK_BYTES - TAIL_BYTES)
        out.seek(begin)
        found = [*_LAST_LINE.finditer(out.read(end - begin))]
        if found:
            out.truncate(begin + found[-1].end())
            return _last_of(found[-1]).until
        end = begin + TAIL_BYTES if begin else 0
    out.truncate(0)
    return ""


def _head_line(out: BinaryIO) -> bytes:
    out.seek(0)
    return out.readline(TAIL_BYTES)


def _last_of(found: re.Match[bytes]) -> Last:
    until, rows, clicks = (text.decode() for text in found.groups() if text is not None)
    return Last(until, int(rows), int(clicks))


def _parse(text: bytes) -> Last | None:
    """The last line of these bytes, if it says that the table is whole."""
    found = [match for match in _LAST_LINE.finditer(text) if match.end() == len(text)]
    return _last_of(found[-1]) if found else None


def _receive(settings: Settings, wanted: Wanted, form: str, since: str, out: BinaryIO) -> Last:
    query = {"format": form, "step": wanted.step, "tz": wanted.tz}
    query |= {"tsFrom": since or "0", "tsTo": wanted.until or "complete"}
    path = "/stats?" + urlencode([*query.items(), *(("bannerID", b) for b in wanted.banners)])
    host = probe.own_address(settings.stats_host)
    connection = http.client.HTTPConnection(host, settings.stats_port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers=probe.bearer(settings.stats_token))
            response = connection.getresponse()
            if response.status != 200:
                raise StackError(_refusal(response.status, response.read(CHUNK_BYTES)))
            end = _end(wanted.until, response.headers.get(COMPLETE_HEADER, ""))
            return _write(response, out, end)
        except (OSError, http.client.HTTPException) as error:
            text = f"The export was cut off ({error or type(error).__name__}): {TRY_AGAIN}"
            raise StackError(text) from error


def _refusal(status: int, body: bytes) -> str:
    try:
        return f"The statistics port answered: {msgspec.json.decode(body)['error']}."
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"The statistics port answered {status}: is it Clickmill's?"


def _end(until: str, complete: str) -> int:
    """Where the export will end, in Unix seconds: for the progress bar."""
    with contextlib.suppress(ValueError):
        return int(until) if until.isdigit() else _seconds(until or complete)
    return int(datetime.now(UTC).timestamp())


def _write(response: http.client.HTTPResponse, out: BinaryIO, end: int) -> Last:
    """Write the table; its last line only after the rest is on the disk. Raises StackError."""
    heads = int(response.headers.get_content_type() == "text/csv")
    goes_on = out is not sys.stdout.buffer and out.seek(0, os.SEEK_END) > 0
    lines, tail = 0, b""
    if heads and goes_on:
        lines += response.readline(TAIL_BYTES).count(b"\n")
    with contextlib.closing(_Position(end)) as position:
        while chunk := response.read1(CHUNK_BYTES):
            lines += chunk.count(b"\n")
            text = tail + chunk
            out.write(text[:-TAIL_BYTES])
            tail = text[-TAIL_BYTES:]
            position.show(tail)
    last, begin = _parse(tail), tail.rstrip(b"\r\n").rfind(b"\n") + 1
    if last is None or last.rows != lines - 1 - heads:
        raise StackError(f"The export was cut off: {TRY_AGAIN}")
    out.write(tail[:begin])
    _sync(out)
    out.write(tail[begin:])
    _sync(out)
    return last


def _sync(out: BinaryIO) -> None:
    out.flush()
    if out is not sys.stdout.buffer:
        os.fsync(out.fileno())


class _Position:
    """A progress bar by the time of the rows: how many there will be is not known."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._stack = contextlib.ExitStack()
        self._at: int | None = None

    def show(self, text: bytes) -> None:
        """These bytes have come; the last moment in them is how far the export is."""
        moments = _MOMENT.findall(text)
        at = _seconds(moments[-1].decode()) if moments else 0
        if self._at is None:
            self._at = at
            total = max(0, self._end - at)
            self._advance = self._stack.enter_context(progress("Export", total))
        elif at > self._at:
            self._advance(at - self._at)
            self._at = at

    def close(self) -> None:
        self._stack.close()


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
