"""CSV and NDJSON of any size: a table is read and sent in pages, each of a bounded size.

A page is a box of the table: some buckets of some banners. It is one short statement, so that
no long one keeps old rows from being cleaned up while a client reads slowly, and no memory grows
with the table. Where the next page begins is a small value, the cursor: the HTTP port of this
process keeps it, and a worker sends it back over NATS, to whichever aggregator answers then.

Lines are in order of time slices (a day for steps under an hour, else a bucket or more), and
within one by banner and time. The last line says that the table is whole.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from aggregator.reading import buckets, formats
from aggregator.reading.cover import cover_of
from aggregator.reading.kept import Kept, Question
from aggregator.reading.pieces import EVERYBODY, Whose, of_banners, of_banners_between
from aggregator.reading.queries import Reader, Row
from aggregator.reading.timerange import MINUTE_S, Range
from clickmill import messages, wire
from clickmill.contract.problem import Problem, answer_too_large, too_many

# Small enough to be read and written within some hundredths of a second.
PAGE_ROWS: Final = 10_000
FIRST_WIDTH: Final = 1_024
MAX_BANNERS: Final = 2**31
# Pages that are read at a time: the other connections are left to short questions.
PAGES_AT_ONCE: Final = 2
MAX_OPEN: Final = 16


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins. Times are Unix seconds."""

    until: int
    """The end of the range, for the last line."""
    stop: int
    """There are no lines from here on."""
    at: int
    """The first minute of the time slice that is being read."""
    banner: int = 0
    """The first banner that is not read yet in this slice."""
    units: int = 1
    """How many units (a day, or a bucket) the slice has."""
    width: int = FIRST_WIDTH
    """How many banner IDs the next page takes in, where none are named."""
    full: int = 0
    """How many of them filled a page of this slice; 0: none did so far."""
    rows: int = 0
    clicks: int = 0


class Page(NamedTuple):
    """Lines, and where the next page begins; None: these are the last."""

    text: bytes
    next: Cursor | None


class Cut(NamedTuple):
    """How a table is cut: range, step, zone; empty buckets in it or not; lines of which kind, with
    raw clicks and corrections or not."""

    asked: Question
    filled: bool
    form: str
    raw: bool = False


class Table:
    """One table that is being read.

    `banners`: those it has lines of, ascending; None: all with clicks.
    """

    def __init__(
        self, reader: Reader, cut: Cut, banners: Sequence[int] | None,
        kept: Callable[[Range], Awaitable[Kept]], most: int = PAGE_ROWS,
    ) -> None:  # fmt: skip
        """`kept`: what retention has left in a range, now. `most`: rows of a page."""
        self._reader, self._cut, self._banners, self._kept = reader, cut, banners, kept
        assert cut.asked.step is not None
        self._step: str = cut.asked.step
        size = buckets.STEPS[self._step]
        self._unit = size
        if size < buckets.HOUR_S:
            day = buckets.DAY_S // size <= most
            self._unit = buckets.DAY_S if day else buckets.HOUR_S
        self._per_unit = self._unit // size
        self._most = max(most, self._per_unit)

    def begin(self, since: int, until: int) -> Cursor:
        """The first page. There are no clicks but between these."""
        span = self._cut.asked.span
        first, stop = span.first, span.end
        if not self._cut.filled:
            first, stop = max(first, since), min(stop, until)
        return Cursor(span.end, stop, min(first, stop), units=self._first_units())

    @property
    def head(self) -> bytes:
        """What comes before the lines."""
        return formats.head(self._cut.form, self._cut.raw)

    def _first_units(self) -> int:
        if self._banners is None:
            return 1
        return max(1, self._most // (self._per_unit * max(1, len(self._banners))))

    async def page(self, at: Cursor) -> Page:
        """The lines of one page. Raises Problem."""
        if at.at >= at.stop or self._banners == []:
            return Page(self._last(at), None)
        starts, end = self._slice(at)
        whose, after = self._whose(at)
        span = _range(at.at, end)
        kept = await self._kept(span)
        Question(span, self._step, self._cut.asked.zone).check_kept(kept)
        cover = kept.pieces(cover_of(span, starts))
        raw, most = self._cut.raw, self._most + 1
        try:
            rows = await self._reader.rows(whose, starts, cover, self._step, raw, most)
        except Problem:
            if at.width == FIRST_WIDTH or self._banners is not None:
                raise
            return await self.page(_narrower(at))  # it may have been too much for one statement
        width, full = at.width, at.full
        if len(rows) > self._most:  # the last banner may have more rows: the next page has it
            after = rows[-1][0]
            rows = rows[: bisect_left(rows, after, key=itemgetter(0))]
            width = full = max(1, after - at.banner)
        elif 2 * len(rows) < self._most:
            width = min(4 * width, MAX_BANNERS)
        else:
            full = width
        if self._cut.filled:
            rows = self._fill(rows, starts, at.banner, after)
        sized = msgspec.structs.replace(at, width=width, full=full)
        following = self._next(sized, end, after, rows)
        text = formats.lines(self._cut.form, rows, raw)
        if following.at >= following.stop:
            return Page(text + self._last(following), None)
        return Page(text, following)

    def _next(self, at: Cursor, end: int, after: int, rows: Sequence[Row]) -> Cursor:
        counted = {"rows": at.rows + len(rows), "clicks": at.clicks + sum(row[2] for row in rows)}
        if after < MAX_BANNERS:
            return msgspec.structs.replace(at, banner=after, **counted)
        units = at.units
        if self._banners is None:
            is_small = at.banner == 0 and len(rows) < self._most // 4
            units = min(2 * units, self._most // self._per_unit) if is_small else units
            units = units if at.banner == 0 else max(1, units // 2)
        # Behind the last banners a page takes in many IDs that have none: not so at the first ones.
        width = at.full or at.width
        return msgspec.structs.replace(
            at, at=end, banner=0, units=units, width=width, full=0, **counted
        )

    def _slice(self, at: Cursor) -> tuple[list[int], int]:
        """(the buckets' starts, the end) of a time slice."""
        zone = self._cut.asked.zone
        if self._per_unit > 1:
            end = min(at.stop, (at.at // self._unit + at.units) * self._unit)
            return buckets.starts_of(_range(at.at, end), self._step, zone), end
        far = min(at.stop, at.at + (at.units + 1) * self._unit)
        starts = buckets.starts_of(_range(at.at, far), self._step, zone)
        end = starts[at.units] if len(starts) > at.units else far
        return starts[: at.units], end

    def _whose(self, at: Cursor) -> tuple[Whose, int]:
        """The banners of the next page, and the ID with which the page after it begins."""
        if self._banners is not None:
            first = bisect_left(self._banners, at.banner)
            behind = first + max(1, self._most // (self._per_unit * at.units))
            after = self._banners[behind] if behind < len(self._banners) else MAX_BANNERS
            return of_banners(self._banners[first:behind]), after
        after = min(at.banner + at.width, MAX_BANNERS)
        if at.banner == 0 and after == MAX_BANNERS:
            return EVERYBODY, after
        return of_banners_between(at.banner, after), after

    def _fill(self, rows: list[Row], starts: Sequence[int], first: int, after: int) -> list[Row]:
        """The rows with those of empty buckets, for the banners from `first` to `after`."""
        banners = self._banners or []
        known = {(row[0], row[1]): row for row in rows}
        chosen = banners[bisect_left(banners, first) : bisect_left(banners, after)]
        return [known.get((b, at), (b, at, 0, 0)) for b in chosen for at in starts]

    def _last(self, at: Cursor) -> bytes:
        return formats.last_line(self._cut.form, at.until, at.rows, at.clicks, self._cut.raw)


class Opened(NamedTuple):
    """A table that nothing is read of yet."""

    table: Table
    begin: Cursor
    form: str
    headers: dict[str, str]


class Tables:
    """Those that are being sent."""

    def __init__(self) -> None:
        self._reading = asyncio.Semaphore(PAGES_AT_ONCE)
        self._open = 0

    async def answer(self, opened: Opened) -> formats.Answer:
        """The table for HTTP: whole if it is one page, else a stream. Raises Problem."""
        table, begin, form, headers = opened
        if self._open >= MAX_OPEN:
            sentence = f"{MAX_OPEN} tables are being sent, the most that go: try again later"
            raise too_many("too_many_tables", sentence)
        page = await self._page(table, begin)
        rest = self._rest(table, page.next) if page.next is not None else None
        return _answer(form, table.head + page.text, headers, rest)

    async def _rest(self, table: Table, at: Cursor | None) -> AsyncIterator[bytes]:
        """The pages from there on. Raises Problem: what is sent by then has no last line.

        While a page is sent, Postgres reads the next one.
        """
        self._open += 1
        coming = self._begin(table, at)
        try:
            while coming is not None:
                page = await coming
                coming = self._begin(table, page.next)
                yield page.text
        finally:
            self._open -= 1
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    def _begin(self, table: Table, at: Cursor | None) -> asyncio.Task[Page] | None:
        if at is None:
            return None
        return asyncio.create_task(self._page(table, at), name="page of a table")

    async def message(
        self, opened: Opened, request: messages.StatsRequest, room: int
    ) -> formats.Answer:
        """The page that the request asks for; all of them for a worker that can't ask for more.

        Raises Problem.
        """
        table, at, form, headers = opened
        if request.more:
            at = msgspec.json.decode(request.more, type=Cursor)
        page = await self._page(table, at)
        text = page.text if request.more else table.head + page.text
        while not request.pages and page.next is not None:
            page = await self._page(table, page.next)
            text += page.text
            if len(text) > room:
                raise answer_too_large(room)
        more = wire.NO_MORE if page.next is None else msgspec.json.encode(page.next).decode()
        return _answer(form, text, {**headers, wire.MORE_HEADER: more})

    async def _page(self, table: Table, at: Cursor) -> Page:
        async with self._reading:
            return await table.page(at)


def _answer(
    form: str, text: bytes, headers: dict[str, str], rest: AsyncIterator[bytes] | None = None
) -> formats.Answer:
    return formats.Answer(HTTPStatus.OK, formats.CONTENT_TYPES[form], text, headers, rest)


def _narrower(at: Cursor) -> Cursor:
    """The same page with fewer banners, and at the beginning of a slice with fewer buckets."""
    units = at.units if at.banner else max(1, at.units // 4)
    return msgspec.structs.replace(at, units=units, width=max(FIRST_WIDTH, at.width // 64))


def _range(first: int, end: int) -> Range:
    assert first % MINUTE_S == end % MINUTE_S == 0
    return Range(datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(end, UTC))
