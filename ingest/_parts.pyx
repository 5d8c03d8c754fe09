# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""The parts of an epoch, each of which becomes one frame: its counts, packed by ascending ID.

Why parts: a frame has a limit, and an epoch may have more banners than that. Reading changes no
count, so that an epoch gives the same parts again until its frames are on disk.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport qsort

from ingest._epochs cimport Epoch, Epochs

MAX_PAIRS = PAIRS_LIMIT
"""Pairs of one part at most: clickmill.wire's limit, asserted by ingest.durable.source."""

Part = tuple[int, int, int, int, bytes, bytes]
"""(seq, minute, sealed_at, total, ids, counts): see the stub."""


cdef list parts_of(Epochs epochs, uint32_t side, int64_t sealed_at):
    """Parts by ascending ID, so that sealing again after a death gives the same parts."""
    cdef Epoch *epoch = &epochs.header.epochs[side]
    cdef uint32_t n = epochs.touched_n[side]
    cdef uint32_t *ids = epochs.touched[side]
    cdef uint64_t *counts = epochs.counts[side]
    cdef uint64_t total = epoch.base
    cdef uint32_t start = 0, size, i
    cdef uint32_t limit = limit_of(
        epochs.header.max_pairs if side == epochs.now_active else epoch.max_pairs
    )
    cdef list parts = []
    sort_touched(epochs, side)
    while start < n:
        size = min(n - start, limit)
        packed_ids = PyBytes_FromStringAndSize(<char *>(ids + start), size * 4)
        packed_counts = PyBytes_FromStringAndSize(NULL, size * 8)
        values = <uint64_t *>PyBytes_AS_STRING(packed_counts)
        for i in range(size):
            values[i] = counts[ids[start + i]]
            total += values[i]
        start += size
        parts.append((
            epoch.seq + len(parts), epoch.minute, sealed_at if start == n else 0, total,
            packed_ids, packed_counts,
        ))
    return parts


cdef void sort_touched(Epochs epochs, uint32_t side) noexcept:
    """Sort few, read off many: both cost as much as was touched, within a factor."""
    cdef uint32_t *ids = epochs.touched[side]
    cdef uint32_t n = epochs.touched_n[side]
    cdef uint32_t i, k = 0
    if n < epochs.capacity // 16:
        qsort(ids, n, sizeof(uint32_t), by_value)
        return
    for i in range(epochs.capacity):
        if epochs.counts[side][i]:
            ids[k] = i
            k += 1


cdef int by_value(const void *left, const void *right) noexcept nogil:
    cdef uint32_t a = (<const uint32_t *>left)[0]
    cdef uint32_t b = (<const uint32_t *>right)[0]
    return (a > b) - (a < b)
