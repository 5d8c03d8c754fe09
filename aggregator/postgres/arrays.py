"""NumPy columns as Postgres binary arrays, without a Python object for each element.

Why: the batch upsert sends its rows as arrays for `unnest`. psycopg would turn each element
into Python and then into bytes; here a column is one structured NumPy array in the exact layout
of the binary protocol: a header, then (length, value) for each element, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, SupportsInt
from uuid import UUID

import numpy as np
from numpy.typing import ArrayLike
from psycopg import AsyncConnection
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

# Element OIDs and array OIDs of pg_type.dat; they are fixed for all versions.
_BOOL, _BOOLS = 16, 1000
_INT4, _INT4S = 23, 1007
_INT8, _INT8S = 20, 1016
_TIMESTAMPTZ, _TIMESTAMPTZS = 1184, 1185
_UUID, _UUIDS = 2950, 2951

_HEADER: Final = struct.Struct("!IIIII")
_POSTGRES_EPOCH_S: Final = 946_684_800  # 2000-01-01 00:00 UTC
# What a timestamptz holds that Python's datetime holds too: the years 1 to 9998, about.
_FIRST_S: Final = -62_000_000_000
_LAST_S: Final = 253_000_000_000


class _Array(bytes):
    """Bytes that are already a binary array; each subclass is one Postgres type."""


class Bools(_Array):
    """A bool[]."""


class Int4s(_Array):
    """An int4[]."""


class Int8s(_Array):
    """An int8[]."""


class Timestamps(_Array):
    """A timestamptz[]."""


class Uuids(_Array):
    """A uuid[]."""


def bools(values: Iterable[bool]) -> Bools:
    """A bool[] of these values."""
    return Bools(_packed(_BOOL, np.fromiter(values, dtype="u1"), "u1"))


def int4s(values: ArrayLike) -> Int4s:
    """An int4[] of these integers, each within ±2**31."""
    return Int4s(_packed(_INT4, np.asarray(values), ">i4"))


def int8s(values: ArrayLike) -> Int8s:
    """An int8[] of these integers, each within ±2**63."""
    return Int8s(_packed(_INT8, np.asarray(values, dtype=np.int64), ">i8"))


def timestamps(unix_seconds: ArrayLike, microseconds: int = 0) -> Timestamps:
    """A timestamptz[] of these whole Unix seconds, forced into what a timestamptz can hold.

    `microseconds` are added to each.
    """
    seconds = np.clip(np.asarray(unix_seconds, dtype=np.int64), _FIRST_S, _LAST_S)
    moments = (seconds - _POSTGRES_EPOCH_S) * 1_000_000 + microseconds
    return Timestamps(_packed(_TIMESTAMPTZ, moments, ">i8"))


def timestamps_ns(unix_nanoseconds: Sequence[SupportsInt]) -> Timestamps:
    """A timestamptz[] of Unix times in nanoseconds (within ±2**63), rounded down to µs."""
    micros = np.array(unix_nanoseconds, dtype=np.int64) // 1000
    return Timestamps(_packed(_TIMESTAMPTZ, micros - _POSTGRES_EPOCH_S * 1_000_000, ">i8"))


def uuids(values: Sequence[UUID]) -> Uuids:
    """A uuid[] of these UUIDs."""
    column = np.frombuffer(b"".join([value.bytes for value in values]), dtype="V16")
    return Uuids(_packed(_UUID, column, "V16"))


def _packed(element: int, column: np.ndarray[Any, Any], layout: str) -> bytes:
    out = np.empty(len(column), dtype=[("size", ">i4"), ("value", layout)])
    out["size"] = out.dtype["value"].itemsize
    out["value"] = column
    if not len(column):
        return struct.pack("!III", 0, 0, element)
    return _HEADER.pack(1, 0, element, len(column), 1) + out.tobytes()


def _dumper(array_oid: int) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = array_oid

        def dump(self, obj: Any) -> Buffer:
            return bytes(obj)

    return ArrayDumper


_DUMPERS: Final = {
    Bools: _dumper(_BOOLS),
    Int4s: _dumper(_INT4S),
    Int8s: _dumper(_INT8S),
    Timestamps: _dumper(_TIMESTAMPTZS),
    Uuids: _dumper(_UUIDS),
}


def register(connection: AsyncConnection[Any]) -> None:
    """Let this connection take the arrays of this module as parameters."""
    for kind, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
