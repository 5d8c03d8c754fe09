# cython: cdivision=True
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ingest._epochs cimport Epochs

cdef enum:
    PAIRS_LIMIT = 65536


cdef list parts_of(Epochs epochs, uint32_t side, int64_t sealed_at)


cdef inline uint32_t limit_of(uint64_t max_pairs) noexcept nogil:
    """The most pairs in a part; 0, in an older file, is the most there may be."""
    return PAIRS_LIMIT if max_pairs == 0 else <uint32_t>min(max_pairs, <uint64_t>PAIRS_LIMIT)


cdef inline uint64_t parts_needed(uint32_t pairs, uint32_t limit) noexcept nogil:
    """How many parts an epoch with so many pairs takes; an empty one still takes a seq."""
    return 1 if pairs == 0 else (pairs - 1) // limit + 1
