"""How large a frame may be: as large as the NATS server said it takes, the last time it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from clickmill import wire
from ingest.durable.source import Source
from ingest.shipping.payload import NOT_SEEN_YET, MaxPayload, largest_frame


def test_it_is_stored_for_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "max_payload"
    payload = MaxPayload(path)
    assert payload.pairs == wire.MAX_PAIRS
    payload.seen(NOT_SEEN_YET)
    assert not path.exists(), "nothing new"
    payload.seen(64 << 10)
    assert MaxPayload(path).pairs == payload.pairs == wire.pairs_within(64 << 10) < wire.MAX_PAIRS
    payload.seen(8 << 20)
    assert MaxPayload(path).pairs == wire.MAX_PAIRS
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [b"", b"\xff", b"much"])
def test_an_empty_file_counts_as_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "max_payload"
    path.write_bytes(text)
    assert MaxPayload(path).pairs == wire.MAX_PAIRS


def test_a_failing_disk_does_no_harm(tmp_path: Path) -> None:
    payload = MaxPayload(tmp_path / "missing" / "max_payload")
    payload.seen(64 << 10)
    assert payload.pairs == wire.pairs_within(64 << 10)


@pytest.mark.parametrize("max_payload", [600, 1024, 65_536, 800_000, 1 << 20, 64 << 20])
def test_a_frame_of_so_many_pairs_fits_and_one_more_does_not(max_payload: int) -> None:
    def size(pairs: int) -> int:
        return wire.HEADERS_BYTES + wire.HEADER_BYTES + wire.BYTES_PER_PAIR * pairs

    pairs = wire.pairs_within(max_payload)
    assert size(pairs) <= max_payload
    assert pairs == wire.MAX_PAIRS or size(pairs + 1) > max_payload


def test_a_tiny_limit_still_allows_one_pair_at_a_time() -> None:
    assert wire.pairs_within(100) == 1


def test_the_largest_frame_in_the_spools_is_found(tmp_path: Path) -> None:
    assert largest_frame(tmp_path) == 0
    for banners in (3, 10, 5):
        source = Source.create(tmp_path, 100, 1 << 20)
        assert source.counters is not None
        for pairs in (1, banners, 2):
            for banner in range(pairs):
                source.counters.hit(banner)
            source.counters.flip()
            source.spool.append(source.frames(source.counters.frozen()))
            source.counters.clear()
        source.release()
    assert largest_frame(tmp_path) == wire.HEADER_BYTES + 10 * wire.BYTES_PER_PAIR
    segment = next(tmp_path.glob("*/spool/*.frames"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"no frame at all" * 10)
    assert largest_frame(tmp_path) == wire.HEADER_BYTES + 10 * wire.BYTES_PER_PAIR
