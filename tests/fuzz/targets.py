"""What is fuzzed: everything that reads bytes from outside, one function for each.

A target takes any bytes and returns normally, or it has found a defect: it raises what no input
may raise, or it breaks its oracle. Hypothesis calls the targets in `make test`, a coverage-guided
fuzzer in `make fuzz`, so that a finding of one is an example for the other.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import google_crc32c
import msgspec

from aggregator.reading import banners, buckets, shapes
from aggregator.reading.cover import cover_of
from clickmill import messages, wire
from clickmill.batches import KeyedBatch
from clickmill.contract import params
from clickmill.contract.access import Access, Hosts
from clickmill.contract.problem import Problem, stats_unreachable
from clickmill.contract.tokens import Tokens
from ingest._fastcount import Counters
from ingest._fastpath import Fastpath
from ingest.http import app, batch, keyed
from ingest.http.responses import Answer, cors_headers, fast_answers, no_store
from ingest.metrics import FastpathCells, Slot

CAPACITY: Final = 100
NOW_S: Final = 1_800_000_000
NOW: Final = datetime(2024, 12, 10, 13, 0, tzinfo=UTC)
METHODS: Final = ("GET", "POST", "HEAD", "OPTIONS", "PUT")
MARKS: Final[tuple[dict[str, str], ...]] = (
    {}, {"sec-purpose": "prefetch"}, {"purpose": "prefetch;x"}, {"x-moz": "nothing"},
)  # fmt: skip
PREFIX: Final = "/c"
PREFIXES: Final = (
    "", "/counter/", "/pixel/", "/click/", "/stats/",
    "/c/", "/c/counter/", "/c/pixel/", "/c/click/",
)  # fmt: skip


# --- paths: the compiled way against the ordinary one ----------------------------------------


class Headers(dict[str, str]):
    """As Granian's, for one value each."""

    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


class Asked:
    """A request as both ways see it, and what it was answered."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        self.method, self.path, self.query_string = method, path, ""
        self.headers = Headers({"host": "localhost", **headers})
        self.client, self.http_version = "127.0.0.1:40000", "1.1"
        self.scope = self.proto = self
        self.told: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.told.append((status, sorted(headers), body))

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.told.append((status, sorted(headers), b""))


async def stored(batch: KeyedBatch) -> None:
    """A disk that takes every batch."""


async def nobody(request: messages.StatsRequest) -> Answer:
    """Statistics without an aggregator."""
    raise stats_unreachable()


class BothWays:
    """One app and one fast path in front of another app, each with counters of its own."""

    def __init__(self, directory: Path) -> None:
        self.counters = [
            Counters.create(directory / name, bytes(15) + b"\1", "0" * 36, CAPACITY)
            for name in ("fast", "ordinary")
        ]
        slot = Slot(directory / "meters")
        plain = [*no_store(), *cors_headers("*")]
        redirects = {7: [("location", "https://example.org/"), *plain]}
        access = Access(Tokens(()), Tokens(()), Hosts())
        options = app.Options("*", access, 1, 1000, 10_000_000, 32, PREFIX)
        self.apps = [
            app.App(
                c,
                slot,
                app.Backend(nobody, list, lambda accept: ("text/plain", b"none"), stored),
                redirects,
                options,
            )
            for c in self.counters
        ]
        fast = Fastpath(
            self.counters[0], slot.meters, self._hand_over, self.apps[0].refuse,
            fast_answers("*"), redirects, FastpathCells(), options.body_max_bytes,
            PREFIX.encode(),
        )  # fmt: skip
        self.fast: Callable[[Any], None] = fast.schedule

    def _hand_over(self, asked: Asked) -> None:
        run(self.apps[0], asked)

    def ask(self, method: str, path: str, headers: dict[str, str]) -> Asked:
        """Asks both; they must say and count the same."""
        fast, ordinary = (Asked(method, path, headers) for _ in range(2))
        before = [counters.total for counters in self.counters]
        self.fast(fast)
        run(self.apps[1], ordinary)
        counted = [c.total - n for c, n in zip(self.counters, before, strict=True)]
        assert fast.told == ordinary.told, (method, path, headers, fast.told, ordinary.told)
        assert len(fast.told) == 1
        status = fast.told[0][0]
        assert counted == [int(status in (200, 302) and path not in OPEN)] * 2, (path, status)
        assert status < 500 or path.startswith("/stats/"), (path, status)
        return fast


OPEN: Final = frozenset({"/livez", "/readyz", "/metrics"})


def run(application: app.App, asked: Asked) -> None:
    """Runs the coroutine to its end: without a body it never waits."""
    coroutine = application.__rsgi__(asked, asked)
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError(f"{asked.method} {asked.path} waits for something")


_both: list[BothWays] = []


def both_ways() -> BothWays:
    """One pair for the process."""
    if not _both:
        _both.append(BothWays(Path(tempfile.mkdtemp(prefix="clickmill-fuzz-"))))
    return _both[0]


def path(data: bytes) -> None:
    """Two bytes choose method, mark and beginning; the others are the rest of the path."""
    first, second = (*data[:2], 0, 0)[:2]
    rest = data[2:].decode("utf-8", "replace")
    beginning = PREFIXES[second % len(PREFIXES)]
    ending = ".gif" if beginning == "/pixel/" and second & 128 else ""
    whole = beginning + rest + ending
    if not whole.startswith("/"):
        whole = "/" + whole
    both_ways().ask(METHODS[first % len(METHODS)], whole, MARKS[first // 16 % len(MARKS)])


# --- bodies -------------------------------------------------------------------------------------


def batch_json(data: bytes) -> None:
    """What is taken is what Python's own json reads, each item in bounds."""
    _keyed(data, "application/json")
    items = _batch(data, "application/json")
    if items is None:
        return
    read = json.loads(data.decode("utf-8", "replace"))  # in what is skipped, anything goes
    assert [(i["bannerID"], i.get("count", 1)) for i in read] == [
        (i.bannerID, i.count) for i in items
    ]


def batch_msgpack(data: bytes) -> None:
    """What is taken is what msgpack says."""
    _keyed(data, "application/msgpack")
    items = _batch(data, "application/msgpack")
    if items is None:
        return
    read = msgspec.msgpack.decode(data)
    assert [(i["bannerID"], i.get("count", 1)) for i in read] == [
        (i.bannerID, i.count) for i in items
    ]


def _batch(data: bytes, kind: str) -> list[batch.Click] | None:
    try:
        items = batch.decode(data, kind)
    except Problem as problem:
        _check(problem)
        return None
    assert len(items) <= params.MAX_BATCH_ITEMS
    for item in items:
        assert type(item.bannerID) is int
        assert type(item.count) is int
        assert 0 <= item.bannerID <= batch.MAX_ID
        assert 1 <= item.count <= params.MAX_CLICKS_PER_ITEM
    return items


def _keyed(data: bytes, kind: str) -> None:
    """A batch with a key: what is read is within its bounds, and its frame can be read again."""
    try:
        made = keyed.read("key", batch.decode_timed(data, kind), 32, CAPACITY, NOW_S)
    except Problem as problem:
        _check(problem)
        return
    found = wire.decode(wire.encode(made.frame(UUID(int=1), 1, 1, made.clicks)))
    assert found.clicks == made.clicks
    assert found.batch is not None
    ahead = max(memoryview(found.batch.minutes).cast("B").cast("I"), default=0)
    assert NOW_S // 60 - 32 * 1440 <= made.minute <= made.minute + ahead <= NOW_S // 60 + 5


def frame(data: bytes) -> None:
    """Only what `encode` makes is a frame, but for features that may be ignored and newer versions.

    The CRC is set right as well, so that the rest is reached.
    """
    for candidate in (data, with_crc(data)):
        try:
            found = wire.decode(candidate)
        except (wire.FrameError, wire.NewerFrameError):
            continue
        known = bytearray(candidate)
        known[15] = 0  # the features that a reader may ignore
        assert wire.encode(found) == with_crc(bytes(known))
        assert found.clicks >= 0


def with_crc(data: bytes) -> bytes:
    """The bytes as a frame of their length with a matching CRC: what damage could never make."""
    if len(data) < wire.HEADER_BYTES:
        return data
    head, size = wire.HEADER_BYTES, wire.BYTES_PER_PAIR
    if data[12] & 2 and len(data) >= head + wire.KEY_BYTES:  # a batch with a key
        head, size = head + wire.KEY_BYTES, wire.BYTES_PER_ROW
    pairs = (len(data) - head) // size
    whole = bytearray(data[: head + pairs * size])
    whole[0:4] = wire.MAGIC
    whole[8:12] = len(whole).to_bytes(4, "little")
    whole[64:68] = pairs.to_bytes(4, "little")
    whole[4:8] = google_crc32c.value(bytes(whole[8:])).to_bytes(4, "little")
    return bytes(whole)


def message_id(data: bytes) -> None:
    """A message ID that is read is one that could have been written."""
    text = data.decode("latin-1")
    try:
        source, seq = wire.parse_message_id(text)
    except wire.FrameError:
        return
    assert isinstance(source, UUID)
    assert seq >= 0


# --- parameters ---------------------------------------------------------------------------------


def query(data: bytes) -> None:
    """The parameters of a statistics request, from its query to the buckets."""
    try:
        _shape(params.from_query(data))
    except Problem as problem:
        _check(problem)


def body(data: bytes) -> None:
    """The parameters of a statistics request, from its JSON body."""
    try:
        _shape(params.merge({}, params.from_body(data)))
    except Problem as problem:
        _check(problem)


def _shape(given: params.Params) -> None:
    params.check_names(given, shapes.SERIES_PARAMS)
    shape = shapes.Shape(given, NOW, NOW)
    assert shape.span.since <= shape.span.until
    buckets.check_points(shape.span, shape.step)
    starts = buckets.starts_of(shape.span, shape.step, shape.zone)
    assert starts == sorted(starts)
    cover_of(shape.span, starts)


def _check(problem: Problem) -> None:
    assert problem.status == 400
    assert len(problem.sentence) < 400
    json.loads(problem.body)


def target_url(data: bytes) -> None:
    """What the register takes goes into a Location header as it stands."""
    try:
        entry = banners.parse_entry(data)
    except Problem as problem:
        _check(problem)
        return
    if entry.target_url is not None:
        assert entry.target_url.isascii()
        assert entry.target_url.isprintable()
        assert " " not in entry.target_url
        assert entry.target_url.lower().startswith(("http://", "https://"))


def tokens(data: bytes) -> None:
    """Only the token itself opens the door."""
    values = data.split(b"\n")
    if Tokens(("right",)).includes(values):
        assert len(values) == 1
        scheme, _, token = values[0].partition(b" ")
        assert (scheme.lower(), token.strip(b" ")) == (b"bearer", b"right")


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "path": path,
    "batch_json": batch_json,
    "batch_msgpack": batch_msgpack,
    "frame": frame,
    "message_id": message_id,
    "query": query,
    "body": body,
    "target_url": target_url,
    "tokens": tokens,
}

_SOURCE: Final = UUID(int=1)
SEEDS: Final[dict[str, list[bytes]]] = {
    "path": [
        b"\0\x0117", b"\x01\x0117", b"\0\x8217", b"\0\x037", b"\x10\x037", b"\0\x01" + b"9" * 400,
        b"\0\x01" + "\uff11".encode(), b"\0\0/clicks", b"\x03\0/livez", b"\x01\x0417", b"\0\x01007",
    ],
    "batch_json": [
        b'[{"bannerID": 1}]', b'[{"bannerID": 1, "count": 2}, {"bannerID": 1.0}]',
        b'[{"bannerID": 1e3}]', b'[{"bannerID": 1, "bannerID": 2}]', b"[]", b"{", b"[" * 5000,
        b'[{"bannerID": 9007199254740993}]', b'[{"bannerID": -0}]', b'[{"bannerID": "\\ud800"}]',
    ],
    "batch_msgpack": [
        msgspec.msgpack.encode([{"bannerID": 1, "count": 2}]), b"\x90", b"\x91\x81\xa8bannerID\x01",
        b"\xdd\xff\xff\xff\xff", b"\xc1", b"\x91" * 5000, b"\x91\x81\xa8bannerID\xcb" + bytes(8),
    ],
    "frame": [
        wire.encode(wire.Frame(_SOURCE, 1, 28_000_000, 1, 6, False,
                               b"\1\0\0\0\2\0\0\0", b"\2" + bytes(7) + b"\4" + bytes(7))),
        wire.encode(wire.Frame(_SOURCE, 2, 28_000_000, 1, 6, True, b"", b"")),
    ],
    "message_id": [wire.message_id(_SOURCE, 1).encode(), wire.message_id(_SOURCE, 7, 2).encode()],
    "query": [
        b"tsFrom=2024-12-10T12:56:00Z&tsTo=2024-12-10T12:57:59Z&step=5m&tz=Europe/Berlin&fill=zero",
        b"tsFrom=0&tsTo=1&format=csv", b"tz=../../etc/passwd", b"tsFrom=2024-12-31T23:59:60Z",
        b"tsFrom=-1", b"tsFrom=9999-12-31T23:59:59%2B14:00", b"%ff=%fe", b"step=1d&tz=Asia/Kolkata",
        b"tsFrom=1&tsTo=99999999999", b"tsFrom=2024-12-10T12:56:00.123456789-23:59",
    ],
    "body": [
        b'{"tsFrom": "2024-12-10T12:56:00Z", "tsTo": "2024-12-10T12:57:59Z"}', b"{}", b"[]",
        b'{"tsFrom": 1733835360, "tsTo": 1e400}', b'{"tz": "\\u0000"}', b'{"tsFrom": [1]}',
    ],
    "target_url": [
        b'{"target_url": "https://example.org/?a=b"}', b'{"target_url": "https://a\\r\\nX: y"}',
        b'{"name": "a", "target_url": "http://[::1]:80/"}', b'{"target_url": "javascript:x"}',
    ],
    "tokens": [b"Bearer right", b"bearer  right", b"Bearer right\nBearer right", b"Bearer wrong"],
}  # fmt: skip
