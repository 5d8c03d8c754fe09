"""`clickmill import FILE`: read and check all of it, then send it; again, where it stopped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from clickmill.batches import MAX_AHEAD_S, show
from clickmill.settings import Settings
from stack.errors import StackError
from stack.imports import accesslog, chunks
from stack.imports.chunks import Chunk
from stack.imports.client import Client
from stack.imports.rows import Reader, Row, RowError, reader_of
from stack.progress import progress

CONNECTIONS: Final = 4
DAY_S: Final = 86_400


class Options(NamedTuple):
    """What the command line says besides the settings."""

    file: Path
    url: str
    kind: str
    pattern: str


class Contents(NamedTuple):
    """What the file has. Times are Unix seconds."""

    lines: int
    rows: int
    clicks: int
    first: int
    last: int


def run(settings: Settings, options: Options) -> str:
    """Import the file; what was done, in a sentence. Raises StackError."""
    client = Client(options.url or f"http://127.0.0.1:{settings.port}", settings.write_token)
    try:
        reader = reader_of(options.file, options.kind, options.pattern)
        contents = _check(_rows(options.file, reader), settings, time.time())
        digest = chunks.digest_of(options.file)
        _send(chunks.cut(_rows(options.file, reader), digest), client, contents.lines)
    except (OSError, EOFError) as error:
        raise StackError(f"{options.file} can't be read ({error}).") from error
    return (
        f"{options.file}: {contents.clicks:,} clicks in {contents.rows:,} of {contents.lines:,} "
        f"lines are counted, from {show(contents.first)} to {show(contents.last)}."
    )


def _rows(path: Path, reader: Reader) -> Iterator[Row | None]:
    with accesslog.open_log(path) as lines:
        yield from reader(lines)


def _check(rows: Iterator[Row | None], settings: Settings, now: float) -> Contents:
    """Read all of it before anything is sent: a file that is corrected later is another file, and
    all of it would count once more. Raises RowError."""
    first, last = int(now) - settings.backdate_days * DAY_S, int(now) + MAX_AHEAD_S
    lines = found = clicks = 0
    times: set[int] = set()
    for row in rows:
        lines += 1
        if row is None:
            continue
        if row.banner > settings.max_banner_id:
            raise RowError(row.line, f"banner {row.banner} is over CLICKMILL_MAX_BANNER_ID, "
                           f"{settings.max_banner_id}")  # fmt: skip
        if not first <= row.at <= last:
            raise RowError(row.line, _outside(row, settings.backdate_days))
        found, clicks = found + 1, clicks + row.clicks
        times.add(row.at)
    if not times:
        raise StackError("There is no click in the file: for an access log, see --pattern.")
    return Contents(lines, found, clicks, min(times), max(times))


def _outside(row: Row, days: int) -> str:
    return (
        f"ts is {show(row.at)}: clicks may be at most {days} days old "
        "(CLICKMILL_MAX_BACKDATE_DAYS, here and where the workers run)"
    )


def _send(batches: Iterator[Chunk], client: Client, lines: int) -> None:
    running: deque[tuple[Future[None], int]] = deque()
    senders = ThreadPoolExecutor(CONNECTIONS)
    try:
        with progress("Importing", lines) as advance:
            for chunk in batches:
                running.append((senders.submit(client.send, chunk), chunk.lines))
                if len(running) > 2 * CONNECTIONS:
                    _finish(*running.popleft(), advance)
            while running:
                _finish(*running.popleft(), advance)
    finally:
        senders.shutdown(cancel_futures=True)


def _finish(sent: Future[None], lines: int, advance: Callable[[int], None]) -> None:
    sent.result()
    advance(lines)
