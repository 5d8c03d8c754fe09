"""The bytes of a frame: what goes in comes out, and nothing else is ever taken for a frame."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickmill import messages, wire
from tests.support.frames import SOURCE, frame, of_another_version, with_features

U64 = 2**64 - 1
clicks = st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, U64), max_size=50)


@given(
    clicks, st.uuids(), st.integers(1, U64), st.integers(-(2**40), 2**40),
    st.integers(0, U64), st.booleans(),
)  # fmt: skip
def test_a_frame_survives_encoding_and_decoding(
    counted: dict[int, int], source: UUID, seq: int, minute: int, total: int, closed: bool
) -> None:
    sealed = frame(seq, counted, total, source=source, minute=0, closed=closed)
    sealed = sealed._replace(minute=minute)
    data = wire.encode(sealed)
    again = wire.decode(data)
    assert (again.ids, again.counts) == (sealed.ids, sealed.counts)
    assert again._replace(ids=b"", counts=b"") == sealed._replace(ids=b"", counts=b"")
    assert again.pairs == sorted(counted.items())
    assert again.clicks == sum(counted.values())
    assert len(data) == wire.frame_length(data) == wire.HEADER_BYTES + 12 * len(counted)


def test_every_flipped_bit_is_detected() -> None:
    data = wire.encode(frame(3, {1: 10, 70_000: 2**40}, 99))
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(wire.FrameError):
            wire.decode(bytes(damaged))


def test_every_truncation_and_addition_is_detected() -> None:
    data = wire.encode(frame(3, {1: 10, 2: 20}, 99))
    for end in range(len(data)):
        with pytest.raises(wire.FrameError):
            wire.decode(data[:end])
    with pytest.raises(wire.FrameError):
        wire.decode(data + b"\0")


@given(st.binary(max_size=300))
def test_noise_is_never_anything_but_a_frame_error(noise: bytes) -> None:
    for data in (noise, wire.MAGIC + noise):
        with pytest.raises(wire.FrameError):
            wire.decode(data)


@given(st.binary(max_size=60), st.integers(0, 71))
def test_noise_within_a_frame_is_a_frame_error(noise: bytes, at: int) -> None:
    data = bytearray(wire.encode(frame(3, {1: 10, 2: 20, 3: 30}, 60)))
    if bytes(data[at : at + len(noise)]) == noise[: len(data) - at]:
        return
    data[at : at + len(noise)] = noise
    with pytest.raises(wire.FrameError):
        wire.decode(bytes(data))


@pytest.mark.parametrize("bit", range(2, 24))
def test_an_unknown_required_feature_is_not_damage(bit: int) -> None:
    sealed = frame(3, {1: 10}, 10, closed=bit % 2 == 0)
    for data in (with_features(sealed, 1 << bit), with_features(sealed, 1 << bit, b"more")):
        assert wire.frame_length(data) == len(data)
        with pytest.raises(wire.NewerFrameError):
            wire.decode(data)


@pytest.mark.parametrize("bit", range(24, 32))
def test_a_feature_that_may_be_ignored_is_ignored(bit: int) -> None:
    sealed = frame(3, {1: 10}, 10, closed=True)
    again = wire.decode(with_features(sealed, 1 << bit))
    assert (again.seq, again.closed, again.pairs) == (3, True, [(1, 10)])


def test_another_version_is_not_damage() -> None:
    data = of_another_version(frame(3, {1: 10}, 10))
    assert wire.frame_length(data) == len(data)
    with pytest.raises(wire.NewerFrameError, match="CMF2"):
        wire.decode(data)


@pytest.mark.parametrize("make", [lambda f: with_features(f, 4), of_another_version])
def test_every_flipped_bit_of_a_newer_frame_is_damage(make: Callable[[wire.Frame], bytes]) -> None:
    data = make(frame(3, {1: 10}, 99))
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(wire.FrameError):
            wire.decode(bytes(damaged))
    for end in range(len(data)):
        with pytest.raises(wire.FrameError):
            wire.decode(data[:end])


def test_a_frame_that_is_too_large_is_not_encoded() -> None:
    most = frame(1, dict.fromkeys(range(wire.MAX_PAIRS), 1))
    assert len(wire.encode(most)) == wire.MAX_FRAME_BYTES
    with pytest.raises(wire.FrameError, match="split it"):
        wire.encode(frame(1, dict.fromkeys(range(wire.MAX_PAIRS + 1), 1)))
    with pytest.raises(wire.FrameError):
        wire.encode(most._replace(ids=b"\0" * 5))


def test_message_ids_and_subjects() -> None:
    assert wire.message_id(SOURCE, 7) == f"{SOURCE}-7"
    assert wire.message_id(SOURCE, 7, 2) == f"{SOURCE}-7-r2"
    for resend in (0, 2):
        assert wire.parse_message_id(wire.message_id(SOURCE, 7, resend)) == (SOURCE, 7)
    shard = wire.shard_of(SOURCE)
    assert wire.delta_subject(SOURCE) == wire.shard_filter(shard).replace(">", str(SOURCE))


@given(st.text(max_size=80))
def test_a_foreign_message_id_is_a_frame_error(text: str) -> None:
    with pytest.raises(wire.FrameError):
        wire.parse_message_id(text)
    with pytest.raises(wire.FrameError):
        wire.parse_message_id(f"{SOURCE}_{text}")


def test_a_status_of_a_worker_that_does_not_say_when_its_source_was_made_is_read() -> None:
    data = b'{"source":"%s","seq":3,"as_of":7,"closed":false}' % str(SOURCE).encode()
    status = msgspec.json.decode(data, type=messages.SourceStatus)
    assert status == messages.SourceStatus(SOURCE, 3, 7, False, created_at=0)
