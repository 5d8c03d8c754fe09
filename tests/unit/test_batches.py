"""Batches with an Idempotency-Key: header, times, digest, and the bytes of the frame."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickmill import batches, wire
from clickmill.contract.params import MAX_BATCH_ITEMS
from clickmill.contract.problem import Problem
from ingest.http import batch, keyed

NOW = 1_800_000_000.0
DAY = 86_400
CAPACITY = 100
rows = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 2**40), st.none() | st.integers(0, 2**31)
)


def read(items: list[dict[str, object]], days: int = 32, now: float = NOW) -> batches.KeyedBatch:
    body = msgspec.json.encode(items)
    return keyed.read("k", batch.decode_timed(body, "application/json"), days, CAPACITY, now)


def digests(*texts: bytes) -> set[object]:
    return {
        keyed.read("k", batch.decode_timed(text, "application/json"), 32, CAPACITY, now).digest
        for text in texts
        for now in (NOW, NOW + 3600)
    }


@given(st.lists(rows, max_size=40), st.integers(1, 2**60), st.integers(0, 2**62))
def test_a_batch_survives_encoding_and_decoding(
    clicks: list[tuple[int, int, int | None]], seq: int, total: int
) -> None:
    ids, counts, minutes = ([row[n] for row in clicks] for n in range(3))
    made = batches.make(batches.key_of("x"), ids, counts, minutes, 2**31)  # type: ignore[arg-type]
    source = uuid4()
    frame = wire.decode(wire.encode(made.frame(source, seq, 5, total)))
    assert (frame.source, frame.seq, frame.sealed_at, frame.total) == (source, seq, 5, total)
    assert frame.batch is not None
    assert (frame.batch.key, frame.batch.digest) == (made.key, made.digest)
    assert frame.pairs == list(zip(ids, counts, strict=True))
    when = [frame.minute + n for n in memoryview(frame.batch.minutes).cast("B").cast("I")]
    assert when == [2**31 if minute is None else minute for minute in minutes]
    assert made.clicks == frame.clicks == sum(counts)  # type: ignore[arg-type]


def test_every_flipped_bit_and_every_cut_of_a_batch_is_detected() -> None:
    made = batches.make(batches.key_of("x"), [1, 2], [10, 20], [None, 7], 9)
    data = wire.encode(made.frame(uuid4(), 3, 5, 30))
    assert len(data) == wire.frame_length(data)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(wire.FrameError):
            wire.decode(bytes(damaged))
    for end in range(len(data)):
        with pytest.raises(wire.FrameError):
            wire.decode(data[:end])


def test_the_largest_batch_is_a_message_for_nats() -> None:
    assert wire.rows_within(1 << 20) > wire.MAX_ROWS > MAX_BATCH_ITEMS
    most = wire.rows_within(64 * 1024)
    made = batches.make(batches.key_of("x"), [1] * most, [1] * most, [None] * most, 9)
    size = len(wire.encode(made.frame(uuid4(), 1, 5, most)))
    assert 64 * 1024 - 16 < size + wire.HEADERS_BYTES <= 64 * 1024


def test_the_digest_is_of_what_is_counted_whoever_reads_it_and_when() -> None:
    same = (
        b'[{"bannerID": 1}, {"bannerID": 2, "count": 3, "ts": 1799999999}]',
        b'[{"count":1,"bannerID":1,"ts":null},{"ts":"2027-01-15T07:59:30Z","bannerID":2,"count":3}]',
    )
    assert len(digests(*same)) == 1
    others = (
        b'[{"bannerID": 1}]', b'[{"bannerID": 2}]', b'[{"bannerID": 1, "count": 2}]',
        b'[{"bannerID": 1, "ts": 1800000000}]', b'[{"bannerID": 1, "ts": 1799990000}]',
        b'[{"bannerID": 1}, {"bannerID": 1}]', b"[]",
    )  # fmt: skip
    assert len(digests(*others)) == len(others)


def test_items_are_in_the_minutes_of_their_own_times() -> None:
    moment = datetime.fromtimestamp(NOW - 7 * DAY, UTC).isoformat()
    made = read([{"bannerID": 1, "ts": moment}, {"bannerID": 2}, {"bannerID": 3, "ts": int(NOW)}])
    minute = int(NOW) // 60
    assert made.minute == minute - 7 * 1440
    assert list(memoryview(made.minutes).cast("I")) == [0, 7 * 1440, 7 * 1440]


@pytest.mark.parametrize("ts", [NOW - 32 * DAY, NOW + 300])
def test_the_edges_of_the_allowed_times_are_taken(ts: float) -> None:
    assert read([{"bannerID": 1, "ts": int(ts)}]).clicks == 1


@pytest.mark.parametrize(
    "ts",
    [NOW - 32 * DAY - 1, NOW + 301, 0, -1, 10**17, -(10**17), "1970-01-01T00:00:00Z",
     "9999-12-31T23:59:59Z"],
)  # fmt: skip
def test_a_time_outside_them_is_refused_by_its_index(ts: object) -> None:
    value = int(ts) if isinstance(ts, float) else ts
    with pytest.raises(Problem, match=r"item 1: ts is .*32 days before") as problem:
        read([{"bannerID": 1}, {"bannerID": 1, "ts": value}])
    assert (problem.value.status, problem.value.code) == (400, "invalid_ts")


@pytest.mark.parametrize("ts", ["yesterday", "2027-01-15T08:00:00", 1.5, True, [], "1800000000"])
def test_what_is_no_time_is_an_invalid_batch(ts: object) -> None:
    with pytest.raises(Problem, match="item 0: ") as problem:
        read([{"bannerID": 1, "ts": ts}])
    assert problem.value.code == "invalid_batch"


def test_an_unknown_banner_is_named() -> None:
    with pytest.raises(Problem, match="item 1: there is no banner '100'"):
        read([{"bannerID": 99}, {"bannerID": 100}])


@pytest.mark.parametrize(
    ("given", "key"),
    [("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
     ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
     ("a", "a"), ("x" * 64, "x" * 64), ('"two words"', "two words"), (" a ", "a")],
)  # fmt: skip
def test_keys(given: str, key: str) -> None:
    assert keyed.parse_key([given]) == key


@pytest.mark.parametrize(
    "given", [[""], ['""'], ["x" * 65], ['"a'], ["two words"], ["a", "a"], ["ä"], ['a"b'], ["a\\b"]]
)
def test_what_is_no_key_is_refused(given: list[str]) -> None:
    with pytest.raises(Problem, match="Idempotency-Key is one UUID") as problem:
        keyed.parse_key(given)
    assert (problem.value.status, problem.value.code) == (400, "invalid_idempotency_key")
